//! A gateway that alters, repeats, reorders, shortens, cuts and swaps what it should only pass on. Each of it ends a
//! connection with a reason that a person can read, changes nothing at either end, and concerns nobody else.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::fault_proxy::Direction::{ToClient, ToServer};
use umbra_tests::front::{Conversation, Mischief, Target};
use umbra_tests::netns::isolate;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, PATIENCE};

use super::site::{Offloaded, Site, cause};

/// What has to be the same afterwards, on the device and at the server.
#[derive(Debug, PartialEq)]
struct Kept {
    files: Vec<(String, Vec<u8>)>,
    on_file: Vec<Value>,
}

async fn kept(site: &Site<'_>, device: &Device<'_>, name: &str) -> anyhow::Result<Kept> {
    let file = |path: &str| -> anyhow::Result<(String, Vec<u8>)> {
        let content = std::fs::read(device.root().join(Path::new(path)))?;
        Ok((path.to_owned(), content))
    };
    let shown = site.shown(name).await?;
    let fields = [
        "id",
        "unit_id",
        "name",
        "certificate",
        "conflicting_certificate",
        "clone_suspected_at",
        "settings_applied",
        "settings_revision",
        "settings_refused",
        "enrolled_at",
    ];
    Ok(Kept {
        files: vec![
            file("wfs/ca-certs/tc_ca.crt")?,
            file("wfs/umbra/device.key")?,
            file("wfs/umbra/enrolment.json")?,
        ],
        on_file: fields
            .map(|field| shown.get(field).cloned().unwrap_or_default())
            .to_vec(),
    })
}

/// Since when the device is at its stage.
async fn since(device: &Device<'_>) -> anyhow::Result<Option<u64>> {
    let status = device.status().await?;
    Ok(status.get("since").and_then(Value::as_u64))
}

/// Waits until the device is not online any more, and says so in a sentence.
async fn wait_for_trouble(device: &Device<'_>) -> anyhow::Result<Value> {
    let probe = || async {
        let status = device.status().await.map_err(|error| error.to_string())?;
        let has = |name: &str| status.get(name).is_some_and(Value::is_string);
        let waiting = status.get("stage").and_then(Value::as_str) == Some("waiting");
        if waiting && has("code") && has("cause") {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    };
    let status = eventually("a device to say what is wrong", PATIENCE, probe).await?;
    let sentence = cause(&status);
    ensure!(sentence.contains(' ') && sentence.len() > 20, "{status}");
    ensure!(
        !sentence.contains("::") && !sentence.contains("Error"),
        "{status}"
    );
    Ok(status)
}

fn messages(status: &Value) -> Vec<&str> {
    let all = status.get("messages").and_then(Value::as_array);
    let texts = all.map(|all| all.iter().filter_map(|one| one.get("text")?.as_str()));
    texts.map_or(Vec::new(), Iterator::collect)
}

/// Lets each of these things happen to a device of its own, all at the same time, beside a device that nothing happens to.
async fn let_happen(mischiefs: &[Mischief]) {
    scenario(async |scratch| {
        isolate()?;
        let Offloaded {
            site, relay, front, ..
        } = &mut Offloaded::start(scratch, Ipv4Addr::LOCALHOST).await?;
        let at = front.to_string();
        let mut devices = Vec::new();
        for number in 0..=u8::try_from(mischiefs.len())? {
            let device = site.new_device(number, site.device_config(), None).await?;
            let name = site.take_on_at(&device, &at).await?;
            let before = kept(site, &device, &name).await?;
            devices.push((device, name, before));
        }
        let ((bystander, bystanders_name, _), victims) =
            devices.split_first().expect("there are some");
        let quiet_since = since(bystander).await?;

        let mut happening: Vec<(Target, Mischief)> = victims
            .iter()
            .zip(mischiefs)
            .map(|((_, name, _), mischief)| (Target::device(name), mischief.clone()))
            .collect();
        relay.set_all(happening.clone());
        for (victim, name, _) in victims {
            // Waits at the server for as long as nothing gets through; and runs once however often it is sent.
            let text = format!("For {name}.");
            let command = ["devices", "command", name, "message", &text];
            site.console.tell(&command, "").await?;
            let status = wait_for_trouble(victim).await?;
            let touched = |one: &Conversation| one.label.as_ref() == Some(name) && one.touched > 0;
            ensure!(relay.conversations().iter().any(touched), "{status}");
            // Enough for this one: the longer it lasts, the less often a device tries.
            happening.remove(0);
            relay.set_all(happening.clone());
        }
        site.send_message(bystanders_name, "All quiet here?")
            .await?;
        ensure!(
            since(bystander).await? == quiet_since,
            "the bystander's link was touched"
        );

        relay.behave();
        for (victim, name, before) in victims {
            victim.wait_until_online().await?;
            site.wait_for_way(name, Some(site.gateway.name())).await?;
            let own = format!("For {name}.");
            eventually("the message to arrive", SOON, || async {
                let status = victim.status().await.map_err(|error| error.to_string())?;
                match messages(&status).as_slice() {
                    [one] if *one == own => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            ensure!(
                kept(site, victim, name).await? == *before,
                "{name} is not as it was"
            );
        }
        ensure!(
            since(bystander).await? == quiet_since,
            "the bystander's link was touched"
        );
        // The server says of each link that it ended, and why.
        let log = site.server.program().lines().join("\n");
        for (_, name, _) in victims {
            ensure!(log.contains(name.as_str()), "{log}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_alters_what_devices_say_only_delays_them() {
    let_happen(&[
        Mischief::Flip(ToServer),
        Mischief::Replay(ToServer),
        Mischief::Reorder(ToServer),
        Mischief::Shorten(ToServer),
        Mischief::CutInFrame(ToServer),
    ])
    .await;
}

#[tokio::test]
async fn a_gateway_that_alters_what_devices_are_told_only_delays_them() {
    let_happen(&[
        Mischief::Flip(ToClient),
        Mischief::Replay(ToClient),
        Mischief::Reorder(ToClient),
        Mischief::Shorten(ToClient),
        Mischief::CutInFrame(ToClient),
    ])
    .await;
}

#[tokio::test]
async fn a_gateway_that_swaps_two_devices_reaches_neither_in_the_others_name() {
    scenario(async |scratch| {
        isolate()?;
        let Offloaded {
            site, relay, front, ..
        } = &Offloaded::start(scratch, Ipv4Addr::LOCALHOST).await?;
        let at = front.to_string();
        let mut devices = Vec::new();
        for number in 1..=2 {
            let device = site.new_device(number, site.device_config(), None).await?;
            let name = site.take_on_at(&device, &at).await?;
            let before = kept(site, &device, &name).await?;
            devices.push((device, name, before));
        }
        let names: Vec<String> = devices.iter().map(|(_, name, _)| name.clone()).collect();
        relay.set_all(vec![
            (
                Target::device(&names[0]),
                Mischief::SwapWith(names[1].clone()),
            ),
            (
                Target::device(&names[1]),
                Mischief::SwapWith(names[0].clone()),
            ),
        ]);
        for name in &names {
            let text = format!("For {name}.");
            let command = ["devices", "command", name, "message", &text];
            site.console.tell(&command, "").await?;
        }
        for (device, _, _) in &devices {
            wait_for_trouble(device).await?;
        }
        ensure!(relay.touched() >= 2);
        relay.behave();
        for (device, name, before) in &devices {
            device.wait_until_online().await?;
            let own = format!("For {name}.");
            eventually("the message to arrive", SOON, || async {
                let status = device.status().await.map_err(|error| error.to_string())?;
                match messages(&status).as_slice() {
                    [one] if *one == own => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            ensure!(
                kept(site, device, name).await? == *before,
                "{name} is not as it was"
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_alters_a_session_ends_it_and_types_nothing() {
    scenario(async |scratch| {
        isolate()?;
        let Offloaded {
            site, relay, front, ..
        } = &Offloaded::start(scratch, Ipv4Addr::LOCALHOST).await?;
        let device = site.new_device(1, site.device_config(), None).await?;
        let name = site.take_on_at(&device, &front.to_string()).await?;
        let online_since = since(&device).await?;
        for (mischief, most) in [
            (Mischief::Flip(ToServer), "pa"),
            // What comes twice counts once at most.
            (Mischief::Replay(ToServer), "pay"),
            (Mischief::Shorten(ToServer), "pa"),
            (Mischief::Flip(ToClient), "paypaypaypay"),
        ] {
            let already = site.desktop.typed();
            let mut shadow = site.console.shadow(&name, &["--reason", "evil"]).await?;
            let mut viewer = shadow.view().await?;
            viewer.refresh().await?;
            relay.set(Target::path("/usg/tunnel"), mischief.clone());
            let busy = async {
                // A record whose end is missing waits for what comes next: so something does, both ways. It may be over
                // already.
                for _ in 0..4 {
                    let _ = viewer.type_text("pay").await;
                    let _ = viewer.request(false).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let (_, ended) = tokio::join!(busy, shadow.ended());
            let ended = ended?;
            let (status, said) = shadow.finished().await?;
            ensure!(
                !said.contains("panicked") && !said.contains("Error("),
                "{status}: {said}"
            );
            let sentence = crate::enrolment::text(&ended, "/sentence");
            ensure!(sentence.contains(' '), "{mischief:?}: {ended}");
            relay.behave();
            let session = crate::enrolment::text(&ended, "/session");
            site.console.ended_session(&session).await?;
            let typed = site.desktop.typed();
            let new = typed
                .strip_prefix(&already)
                .unwrap_or("something else altogether");
            ensure!(most.starts_with(new), "{mischief:?}: {new}");
        }
        ensure!(
            since(&device).await? == online_since,
            "the link was touched"
        );
        site.see_and_operate(&name, "and all is well").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_alters_an_uplink_loses_its_server_until_it_behaves() {
    scenario(async |scratch| {
        isolate()?;
        let Offloaded {
            site, relay, front, ..
        } = &Offloaded::start(scratch, Ipv4Addr::LOCALHOST).await?;
        let mut device = site.new_device(1, site.device_config(), None).await?;
        let name = site.take_on_at(&device, &front.to_string()).await?;
        let before = kept(site, &device, &name).await?;
        for mischief in [Mischief::Flip(ToClient), Mischief::Replay(ToServer)] {
            relay.set(Target::path("/usg/uplink"), mischief);
            site.gateway
                .wait_until_attached(&site.console, false)
                .await?;
            let shown = eventually("the server to say why", PATIENCE, || async {
                let show = ["gateways", "show", site.gateway.name()];
                let shown = site.console.tell(&show, "").await;
                let shown = shown.map_err(|error| error.to_string())?;
                let trouble = crate::enrolment::text(&shown, "/trouble");
                if trouble.contains(' ') {
                    Ok(shown)
                } else {
                    Err(shown.to_string())
                }
            })
            .await?;
            let trouble = crate::enrolment::text(&shown, "/trouble");
            ensure!(
                !trouble.contains("::") && !trouble.contains("Error"),
                "{shown}"
            );
            wait_for_trouble(&device).await?;
            relay.behave();
            site.gateway
                .wait_until_attached(&site.console, true)
                .await?;
            // It was told to wait up to half a minute; it need not for this.
            device.restart_hard()?;
            device.wait_until_online().await?;
            site.wait_for_way(&name, Some(site.gateway.name())).await?;
        }
        ensure!(
            kept(site, &device, &name).await? == before,
            "the device is not as it was"
        );
        eventually_is("one uplink", SOON, || {
            let all = relay.conversations();
            match all
                .iter()
                .filter(|one| one.path == "/usg/uplink" && one.open)
                .count()
            {
                1 => Ok(()),
                other => Err(other),
            }
        })
        .await?;
        Ok(())
    })
    .await;
}
