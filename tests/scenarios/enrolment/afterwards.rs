//! What holds between a server and a device that it took on: leaving and coming back, commands that wait, settings and
//! policy that take effect at once.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Device, DeviceConfig, PATIENCE, World};

use super::*;

async fn on_file(console: &Console<'_>, device: &str) -> anyhow::Result<Value> {
    Ok(console.tell(&["devices", "show", device], "").await?)
}

/// Waits until nothing waits for a device at its server.
async fn all_answered(console: &Console<'_>, device: &str) -> anyhow::Result<()> {
    eventually(
        "every command to be answered",
        PATIENCE,
        async || match on_file(console, device).await {
            Ok(shown) if shown["commands_waiting"] == 0 => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await?;
    Ok(())
}

/// How often each command began, by all logs of the device's agents.
fn begun(scratch: &Scratch) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut begun = BTreeMap::new();
    for entry in std::fs::read_dir(scratch.path("log"))? {
        let log = String::from_utf8_lossy(&std::fs::read(entry?.path())?).into_owned();
        for line in log.lines().filter(|line| line.contains("command begins")) {
            let id = line.split("id=").nth(1).unwrap_or_default();
            let id = id.split(' ').next().unwrap_or_default().to_owned();
            *begun.entry(id).or_default() += 1;
        }
    }
    Ok(begun)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_leaves_its_server_and_comes_back_as_the_one_that_it_was() {
    scenario(async |scratch| {
        let (mut server, console) = site(scratch).await?;
        let (device, id) = running(scratch, "device").await?;
        let (_, first) = key(&console, &[]).await?;
        device.enrol(&server, &first).await?;
        device.wait_until_online().await?;
        let again = enroll(
            &device,
            &server.address().to_string(),
            server.fingerprint(),
            &first,
        )
        .await?;
        refused(&again, PERMISSION, &["umbra-agent leave"])?;
        device.wait_until_online().await?;

        let told = device.tell(&["leave"], "").await?;
        ensure!(told.contains("removed this device"), "{told}");
        device.wait_for_stage("not_enrolled").await?;
        still_alone(&device, &id).await?;
        ensure!(audited(&console, "device.left", "ok").await?.len() == 1);
        ensure!(devices(&console).await?.is_empty());
        let again = enroll(
            &device,
            &server.address().to_string(),
            server.fingerprint(),
            &first,
        )
        .await?;
        refused(&again, PERMISSION, &["[key_used]"])?;
        taken_on(&server, &console, &device, &id).await?;

        // Without the server it leaves as well, and says that the server does not know.
        server.program().kill();
        device.wait_for_stage("waiting").await?;
        let told = device.tell(&["leave"], "").await?;
        ensure!(told.contains("could not be told"), "{told}");
        readable(&told.replace(['[', ']'], ""))?;
        device.wait_for_stage("not_enrolled").await?;
        server.start_again().await?;
        taken_on(&server, &console, &device, &id).await?;
        ensure!(devices(&console).await?.len() == 1);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_for_a_device_that_is_away_wait_for_it_and_run_once_even_if_its_power_fails_again_and_again()
 {
    scenario(async |scratch| {
        const GIVEN: usize = 8;
        let (server, console) = site(scratch).await?;
        let (mut device, id) = running(scratch, "device").await?;
        taken_on(&server, &console, &device, &id).await?;
        let unit = text(&device.status().await?, "/identity/unit_id");
        device.kill();
        let mut given = Vec::new();
        for number in 0..GIVEN {
            let told = format!("number {number}");
            let command = ["devices", "command", &unit, "message", &told];
            given.push(text(&console.tell(&command, "").await?, "/id"));
        }
        ensure!(on_file(&console, &unit).await?["commands_waiting"] == GIVEN);
        let list = printed(scratch, &console, &["devices"]).await?;
        ensure!(list.contains("8 commands waiting"), "{list}");

        for _ in 0..3 {
            device.start()?;
            let agent = device.program().context("no agent")?;
            agent.wait_for_line("command begins", PATIENCE).await.ok();
            device.kill();
            if begun(scratch)?.len() == GIVEN {
                break;
            }
        }
        device.start()?;
        all_answered(&console, &unit).await?;
        let begun = begun(scratch)?;
        ensure!(
            begun.values().all(|times| *times == 1),
            "ran more than once: {begun:?}"
        );
        let ended = audited(&console, "command.ended", "ok").await?;
        ensure!(ended.len() == GIVEN, "{ended:?}");
        for id in &given {
            let line = ended.iter().find(|line| text(line, "/subject") == *id);
            let line = line.with_context(|| format!("{id} never ended: {ended:?}"))?;
            let detail = text(line, "/detail");
            // What was noted and did not begin before the power failed may have begun, for all the device knows.
            let may_be = detail.starts_with("interrupted:")
                || (detail.starts_with("done:") && begun.contains_key(id));
            ensure!(may_be, "{line}, but {begun:?} began");
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_cut_off_in_the_middle_is_told_as_such_and_never_run_again() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let count = scratch.path("restarts");
        let program = scratch.path("restart");
        std::fs::write(
            &program,
            format!("#!/bin/sh\necho once >>{}\n", count.display()),
        )?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        let mut config = DeviceConfig::default();
        let command = serde_json::to_string(&[program.display().to_string()])?;
        config.set("umbra.power.reboot_command", &command);
        let mut device = Device::new(scratch, "device", config)?;
        device.start()?;
        device
            .enrol(&server, &console.one_time_key().await?)
            .await?;
        device.wait_until_online().await?;
        let unit = text(&device.status().await?, "/identity/unit_id");
        console
            .tell(&["devices", "command", &unit, "reboot"], "")
            .await?;
        let restarts = || std::fs::read_to_string(&count).unwrap_or_default();
        eventually_is("the restart to be asked for", SOON, || {
            match restarts().as_str() {
                "once\n" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        // The machine did not go down, but the agent did: nobody can know how it went.
        device.restart_hard()?;
        all_answered(&console, &unit).await?;
        let ended = audited(&console, "command.ended", "ok").await?;
        ensure!(
            ended.len() == 1 && text(&ended[0], "/detail").starts_with("interrupted:"),
            "{ended:?}"
        );
        device.restart_hard()?;
        device.wait_until_online().await?;
        let answer = console
            .tell(
                &[
                    "devices",
                    "command",
                    &unit,
                    "message",
                    "still there?",
                    "--wait",
                ],
                "",
            )
            .await?;
        ensure!(text(&answer, "/state") == "done", "{answer}");
        ensure!(restarts() == "once\n", "{}", restarts());
        let messages = device.status().await?;
        ensure!(
            text(&messages, "/messages/0/text") == "still there?",
            "{messages}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_server_count_at_once_and_what_the_device_refuses_is_told() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let (device, id) = running(scratch, "device").await?;
        taken_on(&server, &console, &device, &id).await?;
        let unit = text(&device.status().await?, "/identity/unit_id");
        device.shadow_address().await?;
        let settings = [
            "devices",
            "settings",
            &unit,
            "network.vncserver.enabled=false",
            "network.vncserver.port=70000",
            "umbra.vncserver.upstream=tcp:127.0.0.1:1",
            "no.such.parameter=1",
        ];
        console.tell(&settings, "").await?;
        eventually("shadowing to be off", SOON, async || {
            let status = device.status().await.map_err(|error| error.to_string())?;
            if status["shadow_port"].is_null() {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await?;
        let shown = eventually("the device's answer", SOON, async || {
            match on_file(&console, &unit).await {
                Ok(shown) if shown["settings_applied"] == shown["settings_revision"] => Ok(shown),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let told = shown["settings_refused"]
            .as_object()
            .context("none refused")?;
        ensure!(told.len() == 3, "{shown}");
        for (name, sentence) in told {
            readable(sentence.as_str().unwrap_or_default())
                .with_context(|| format!("of {name}"))?;
        }
        let of = |name: &str| told.get(name).map(Value::to_string).unwrap_or_default();
        ensure!(of("network.vncserver.port").contains("65535"), "{shown}");
        let list = printed(scratch, &console, &["devices"]).await?;
        ensure!(list.contains("3 settings refused"), "{list}");
        ensure!(audited(&console, "device.settings_set", "ok").await?.len() == 1);
        let entry = device
            .tell(&["registry", "get", "network.vncserver.port", "--json"], "")
            .await?;
        ensure!(!entry.contains("70000"), "{entry}");

        let back = [
            "devices",
            "settings",
            &unit,
            "--unset",
            "network.vncserver.enabled",
            "--unset",
            "network.vncserver.port",
            "--unset",
            "umbra.vncserver.upstream",
            "--unset",
            "no.such.parameter",
        ];
        console.tell(&back, "").await?;
        device.shadow_address().await?;
        eventually("nothing to be refused", SOON, async || {
            match on_file(&console, &unit).await {
                Ok(shown) if shown["settings_refused"] == serde_json::json!({}) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        Ok(())
    })
    .await;
}

/// What a plain VNC viewer is greeted with; nothing if the device hangs up instead.
async fn greeting(device: &Device<'_>) -> anyhow::Result<Vec<u8>> {
    let mut viewer = TcpStream::connect(device.shadow_address().await?).await?;
    let mut heard = vec![0; 12];
    let read = tokio::time::timeout(PATIENCE, viewer.read(&mut heard)).await?;
    // A connection that is reset is no greeting either.
    heard.truncate(read.unwrap_or(0));
    Ok(heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_policy_forces_encryption_on_a_device_that_is_set_to_do_without() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        world
            .device
            .set("network.vncserver.secure_mode", "false")
            .await?;
        let plain = eventually(
            "a plain viewer to be greeted",
            SOON,
            async || match greeting(&world.device).await {
                Ok(heard) if heard.starts_with(b"RFB ") => Ok(heard),
                other => Err(format!("{other:?}")),
            },
        )
        .await?;
        ensure!(plain.len() == 12, "{plain:?}");
        let served = world.desktop.connections();
        world
            .console
            .tell(&["policy", "--enforce-secure-mode", "on"], "")
            .await?;
        ensure!(audited(&world.console, "policy.set", "ok").await?.len() == 1);
        eventually("the policy to be in force", SOON, async || {
            let get = ["registry", "get", "network.vncserver.secure_mode", "--json"];
            match world.device.tell(&get, "").await {
                Ok(entry) if entry.contains("true") && entry.contains("server") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        // Nobody at the device gets round it; a plain viewer waits in vain, while encrypted shadowing goes on.
        world
            .device
            .set("network.vncserver.secure_mode", "false")
            .await?;
        let encrypted = async {
            // The device comes back with what it now says of itself, and is away for a moment.
            let open = async || {
                world
                    .shadow("encrypted")
                    .await
                    .map_err(|error| error.to_string())
            };
            let shadow = eventually("the device to be back", PATIENCE, open).await?;
            Ok::<_, anyhow::Error>(shadow.view().await?.refresh().await?)
        };
        let (heard, encrypted) = tokio::join!(greeting(&world.device), encrypted);
        encrypted?;
        let heard = heard?;
        ensure!(heard.is_empty(), "a plain viewer was greeted: {heard:?}");
        ensure!(
            world.desktop.connections() == served + 1,
            "a plain viewer reached the screen"
        );
        Ok(())
    })
    .await;
}
