//! Who may shadow: a ticket of this server, for this device, once, with its password. Everything else is refused with a
//! code and a sentence before anything on the device has moved, and the device goes on as if nothing had happened.

use anyhow::{Context as _, ensure};
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::rfb_client::{Options, RfbClient};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::tunnel::{Tunnel, dial};
use umbra_tests::world::{Device, DeviceConfig, Offer, PATIENCE, World};

/// Presents a preface and gives what the device answers.
async fn present(device: &Device<'_>, preface: &str) -> anyhow::Result<String> {
    let mut tunnel = dial(device.shadow_address().await?, PATIENCE).await?;
    tunnel.say(preface.as_bytes()).await?;
    let answer = tunnel.line(PATIENCE).await?;
    if answer.starts_with("UMBRA/1 refused") {
        let rest = tunnel.rest(PATIENCE).await?;
        ensure!(rest.is_empty(), "{} bytes followed the refusal", rest.len());
    }
    Ok(answer)
}

async fn offer(world: &World<'_>) -> anyhow::Result<Offer> {
    Ok(world
        .console
        .offer(&world.server, &world.device_name().await?, false)
        .await?)
}

fn refused_with(answer: &str, code: &str) -> anyhow::Result<()> {
    let sentence = answer.strip_prefix(&format!("UMBRA/1 refused {code} "));
    ensure!(
        sentence.is_some_and(|sentence| sentence.len() > 10),
        "{code} expected, but {answer:?}"
    );
    Ok(())
}

/// Nothing has reached the screen, and the next operator is served.
async fn nothing_happened(world: &World<'_>) -> anyhow::Result<()> {
    ensure!(
        world.desktop.connections() == 0,
        "somebody was at the VNC server: {:?}",
        world.desktop.events()
    );
    let shadow = world.shadow("afterwards").await?;
    shadow.view().await?.refresh().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_with_its_password_opens_the_screen_of_the_very_device_that_the_server_named() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let offer = offer(&world).await?;
        let mut tunnel = dial(world.device.shadow_address().await?, PATIENCE).await?;
        let filed = std::fs::read_to_string(world.device.certificate())?;
        ensure!(
            offer.certificate.trim() == filed.trim(),
            "the server names another certificate"
        );
        ensure!(tunnel.certificate().is_some(), "no certificate was shown");
        tunnel.say(offer.preface().as_bytes()).await?;
        ensure!(tunnel.line(PATIENCE).await? == "UMBRA/1 ok");
        let mut viewer = RfbClient::start(tunnel.into_stream(), &Options::default()).await?;
        viewer.refresh().await?;
        ensure!(viewer.image().colours(10) == 10, "the picture is empty");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_ticket_is_refused_wherever_it_was_altered() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let offer = offer(&world).await?;
        let parts: Vec<&str> = offer.ticket.split('.').collect();
        ensure!(parts.len() == 3, "a ticket of {} parts", parts.len());
        for place in 0..3 {
            let mut altered = parts.clone();
            // One letter in the middle, where it counts in full.
            let middle = altered[place].len() / 2;
            let letter = if &altered[place][middle..=middle] == "A" {
                "B"
            } else {
                "A"
            };
            let part = format!(
                "{}{letter}{}",
                &altered[place][..middle],
                &altered[place][middle + 1..]
            );
            altered[place] = &part;
            let forged = Offer {
                ticket: altered.join("."),
                ..offer.clone()
            };
            refused_with(
                &present(&world.device, &forged.preface()).await?,
                "ticket_invalid",
            )?;
        }
        let unsigned = Offer {
            ticket: format!("{}.{}.", parts[0], parts[1]),
            ..offer.clone()
        };
        refused_with(
            &present(&world.device, &unsigned.preface()).await?,
            "ticket_invalid",
        )?;
        // None of that has used the ticket up.
        ensure!(present(&world.device, &offer.preface()).await? == "UMBRA/1 ok");
        // The server was not asked about any of them, and its administrator knows of them all the same.
        Ok(world
            .console
            .wait_for_audit("caller.refused", "ticket_invalid")
            .await?)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_good_once() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let offer = offer(&world).await?;
        ensure!(present(&world.device, &offer.preface()).await? == "UMBRA/1 ok");
        refused_with(
            &present(&world.device, &offer.preface()).await?,
            "ticket_used",
        )?;
        Ok(world
            .console
            .wait_for_audit("caller.refused", "ticket_used")
            .await?)
    })
    .await;
}

/// Lets an operator in, and waits until the session is on record as running.
async fn let_in(world: &World<'_>, offer: &Offer) -> anyhow::Result<Tunnel> {
    let mut tunnel = dial(world.device.shadow_address().await?, PATIENCE).await?;
    tunnel.say(offer.preface().as_bytes()).await?;
    ensure!(tunnel.line(PATIENCE).await? == "UMBRA/1 ok");
    let running = || async {
        match world.console.session(&offer.session).await {
            Ok(record) if record["state"] == "running" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    eventually("the session to be on record", PATIENCE, running).await?;
    Ok(tunnel)
}

/// The server was asked, and refused a ticket that was used before; this often by now.
async fn server_refuses(world: &World<'_>, offer: &Offer, times: usize) -> anyhow::Result<()> {
    let answer = present(&world.device, &offer.preface()).await?;
    refused_with(&answer, "ticket_used")?;
    let audit = world.console.tell(&["audit"], "").await?;
    let lines = audit.as_array().context("no list")?.iter();
    let refused = lines
        .filter(|line| line["action"] == "session.verified" && line["outcome"] == "ticket_used")
        .count();
    ensure!(
        refused == times,
        "not the server refused, or not this often: {audit}"
    );
    ensure!(
        world.desktop.connections() == 1,
        "the VNC server was bothered"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_stays_used_after_a_power_cut() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let offer = offer(&world).await?;
        let _tunnel = let_in(&world, &offer).await?;
        // The device's memory of tickets is gone; what it kept of the session closes the server's record.
        world.device.restart_hard()?;
        world.device.wait_until_up().await?;
        world.device.wait_until_online().await?;
        world.console.ended_session(&offer.session).await?;
        server_refuses(&world, &offer, 1).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_stays_used_when_the_device_forgot_everything_and_when_the_server_was_killed_too()
{
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let offer = offer(&world).await?;
        let _tunnel = let_in(&world, &offer).await?;
        for times in 1..=2 {
            world.device.kill();
            std::fs::remove_file(world.device.root().join("wfs/umbra/state/records.json"))
                .or_else(|error| if times > 1 { Ok(()) } else { Err(error) })
                .context("the device had noted nothing of the session")?;
            if times > 1 {
                world.server.program().kill();
                world.server.start_again().await?;
            }
            world.device.start()?;
            world.device.wait_until_up().await?;
            world.device.wait_until_online().await?;
            // For the server the session goes on: nobody has told it of an end.
            let record = world.console.session(&offer.session).await?;
            ensure!(record["state"] == "running", "{record}");
            server_refuses(&world, &offer, times).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let offer = offer(&world).await?;
        let wrong = Offer {
            password: "0".repeat(offer.password.len()),
            ..offer
        };
        refused_with(
            &present(&world.device, &wrong.preface()).await?,
            "password_wrong",
        )?;
        let audit = world.console.tell(&["audit"], "").await?.to_string();
        ensure!(audit.contains("password_wrong"), "{audit}");
        nothing_happened(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_for_one_device_opens_no_other() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let mut other = Device::new(scratch, "other", DeviceConfig::with_desktop(&world.desktop))?;
        other.start()?;
        other
            .enrol(&world.server, &world.console.one_time_key().await?)
            .await?;
        other.wait_until_online().await?;
        let offer = offer(&world).await?;
        refused_with(
            &present(&other, &offer.preface()).await?,
            "ticket_for_other_device",
        )?;
        world
            .console
            .wait_for_audit("caller.refused", "ticket_for_other_device")
            .await?;
        ensure!(present(&world.device, &offer.preface()).await? == "UMBRA/1 ok");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consoles_of_the_field_are_let_in_with_their_one_time_password_once() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let offer = world
            .console
            .offer(&world.server, &world.device_name().await?, true)
            .await?;
        ensure!(
            offer.password.len() == 36,
            "no UUID: {} characters",
            offer.password.len()
        );
        let preface = format!("PROCYCMD PW_{}", offer.password);
        let wrong = format!("PROCYCMD PW_{}", uuid_beside(&offer.password)?);
        let mut stranger = dial(world.device.shadow_address().await?, PATIENCE).await?;
        stranger.say(wrong.as_bytes()).await?;
        let heard = stranger.rest(PATIENCE).await?;
        ensure!(
            heard.is_empty(),
            "a stranger was told {:?}",
            String::from_utf8_lossy(&heard)
        );

        let mut tunnel = dial(world.device.shadow_address().await?, PATIENCE).await?;
        tunnel.say(preface.as_bytes()).await?;
        let mut viewer = RfbClient::start(tunnel.into_stream(), &Options::default()).await?;
        viewer.refresh().await?;
        viewer.leave().await?;

        let mut again = dial(world.device.shadow_address().await?, PATIENCE).await?;
        again.say(preface.as_bytes()).await?;
        ensure!(
            again.rest(PATIENCE).await?.is_empty(),
            "a one-time password worked twice"
        );
        Ok(())
    })
    .await;
}

/// Another UUID of the same form.
fn uuid_beside(uuid: &str) -> anyhow::Result<String> {
    let first = uuid.chars().next().context("an empty UUID")?;
    let other = if first == '0' { '1' } else { '0' };
    Ok(format!("{other}{}", &uuid[1..]))
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_sessions_run_as_the_device_allows_and_no_more() {
    scenario(async |scratch: &Scratch| {
        let world = World::start(scratch).await?;
        let mut open = Vec::new();
        for _ in 0..2 {
            let shadow = world.shadow("one of two").await?;
            let mut viewer = shadow.view().await?;
            viewer.refresh().await?;
            open.push((shadow, viewer));
        }
        let offer = offer(&world).await?;
        refused_with(
            &present(&world.device, &offer.preface()).await?,
            "too_many_sessions",
        )?;
        drop(open.pop());
        eventually_is("a place to be free again", SOON, || {
            match world.desktop.active() {
                1 => Ok(()),
                active => Err(active),
            }
        })
        .await?;
        world
            .shadow("the next")
            .await?
            .view()
            .await?
            .refresh()
            .await?;
        for (_, viewer) in &mut open {
            viewer.follow().await?;
        }
        Ok(())
    })
    .await;
}
