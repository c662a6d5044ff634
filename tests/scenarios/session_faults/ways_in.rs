//! Callers with something wrong in their hands, devices that are away, and screens that cannot be shown.

use std::path::Path;

use anyhow::{Context as _, ensure};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use umbra_tests::desktop::{Desktop, Event, Listen};
use umbra_tests::fault_proxy::{Fault, FaultProxy};
use umbra_tests::rfb_client::{Options, RfbClient};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{
    Console, Device, DeviceConfig, Offer, PATIENCE, Server, ServerConfig, World, desktop,
};

use super::{audited, failed_shadow, healthy, present, refused_record, refused_with, untouched};

/// The console's exit code for a device that is away, as its help states it.
const DEVICE_OFFLINE: i32 = 4;

async fn offer(world: &World<'_>) -> anyhow::Result<Offer> {
    let name = world.device_name().await?;
    Ok(world.console.offer(&world.server, &name, false).await?)
}

/// base64 as tickets use it: the URL's alphabet, no padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0u8; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        for place in 0..=chunk.len() {
            let index = (group >> (18 - 6 * place)) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_somebody_else_signed_is_refused_under_whatever_name_the_key_goes() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let offer = offer(&world).await?;
        let parts: Vec<&str> = offer.ticket.split('.').collect();
        let seed = [7; 32];
        let stranger = Ed25519KeyPair::from_seed_unchecked(&seed)
            .map_err(|_| anyhow::anyhow!("no key can be made of the seed"))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, stranger.public_key().as_ref());
        let kid: String = digest.as_ref()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let own_header = base64url(
            format!(r#"{{"alg":"EdDSA","typ":"umbra-ticket","kid":"{kid}"}}"#).as_bytes(),
        );
        // Under the server's key's name, and under the stranger's own.
        for header in [parts[0], &own_header] {
            let signed = format!("{header}.{}", parts[1]);
            let signature = base64url(stranger.sign(signed.as_bytes()).as_ref());
            let forged = Offer {
                ticket: format!("{signed}.{signature}"),
                ..offer.clone()
            };
            let answer = present(&world.device, &forged.preface()).await?;
            refused_with(&answer, "ticket_invalid")?;
        }
        untouched(&world)?;
        // The real one is not spoilt by it.
        ensure!(present(&world.device, &offer.preface()).await? == "UMBRA/1 ok");
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_whose_time_is_over_is_refused_by_the_servers_clock() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let places = [
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        ];
        let library = places.into_iter().find(|place| Path::new(place).is_file());
        let library =
            library.context("libfaketime is not installed: Debian's package libfaketime has it")?;
        let clock = scratch.path("clock");
        std::fs::write(&clock, "+0\n")?;
        for (name, value) in [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ] {
            world.server.set_environment(name, value);
        }
        world.server.start_again().await?;
        world.device.wait_until_online().await?;
        let early = offer(&world).await?;
        ensure!(present(&world.device, &early.preface()).await? == "UMBRA/1 ok");
        let late = offer(&world).await?;
        let ahead = scratch.path("clock-ahead");
        std::fs::write(&ahead, "+61\n")?;
        std::fs::rename(&ahead, &clock)?;
        let before = world.desktop.connections();
        let answer = present(&world.device, &late.preface()).await?;
        refused_with(&answer, "ticket_expired")?;
        audited(&world.console, "session.verified", "ticket_expired", "").await?;
        refused_record(&world.console, "ticket_expired").await?;
        ensure!(
            world.desktop.connections() == before,
            "the VNC server was bothered"
        );
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_uses_the_ticket_up() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let right = offer(&world).await?;
        let wrong = Offer {
            password: "0".repeat(right.password.len()),
            ..right.clone()
        };
        let answer = present(&world.device, &wrong.preface()).await?;
        refused_with(&answer, "password_wrong")?;
        // Whoever guesses has one guess.
        let answer = present(&world.device, &right.preface()).await?;
        refused_with(&answer, "ticket_used")?;
        audited(&world.console, "session.verified", "password_wrong", "").await?;
        refused_record(&world.console, "password_wrong").await?;
        untouched(&world)?;
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_withdrawn_before_it_began_does_not_begin() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let offer = offer(&world).await?;
        let end = ["sessions", "end", &offer.session];
        world.console.tell(&end, "").await?;
        let answer = present(&world.device, &offer.preface()).await?;
        refused_with(&answer, "session_withdrawn")?;
        audited(&world.console, "session.verified", "session_withdrawn", "").await?;
        untouched(&world)?;
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_offline_is_named_so_and_shadowed_once_it_is_back() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let name = world.device_name().await?;
        world.device.kill();
        let console = &world.console;
        let offline = async || {
            let devices = console
                .tell(&["devices", "show", &name], "")
                .await
                .map_err(|error| error.to_string())?;
            match devices.get("online").and_then(serde_json::Value::as_bool) {
                Some(false) => Ok(()),
                _ => Err(devices.to_string()),
            }
        };
        umbra_tests::eventually::eventually("the device to be offline", PATIENCE, offline).await?;
        let mut shadow = console.begin_shadow(&name, &[])?;
        let failed = super::failure(&mut shadow).await?;
        failed.ensure("device_offline", "is offline")?;
        ensure!(
            failed.exit == Some(DEVICE_OFFLINE),
            "exit code {:?}",
            failed.exit
        );
        audited(console, "session.offered", "device_offline", "").await?;
        untouched(&world)?;
        world.device.start()?;
        world.device.wait_until_up().await?;
        world.device.wait_until_online().await?;
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_ask_its_server_lets_nobody_in_and_says_so() {
    scenario(async |scratch| {
        let screen = desktop(scratch).await?;
        // The relay must be known before the server is, so it begins in front of nobody.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")?;
        let relay = FaultProxy::start(nobody.local_addr()?).await?;
        drop(nobody);
        let config = ServerConfig {
            public: Some(relay.address()),
            ..ServerConfig::default()
        };
        let server = Server::start(scratch, config).await?;
        relay.set_upstream(server.address());
        let console = Console::administrator(scratch, &server).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::with_desktop(&screen))?;
        device.start()?;
        let key = console.one_time_key().await?;
        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        let world = World {
            desktop: screen,
            server,
            device,
            console,
        };
        let offer = offer(&world).await?;
        relay.set(Fault::Reset);
        world.device.wait_for_stage("waiting").await?;
        let answer = present(&world.device, &offer.preface()).await?;
        refused_with(&answer, "server_unreachable")?;
        untouched(&world)?;
        relay.set(Fault::Pass);
        world.device.wait_until_online().await?;
        // What was offered before the fault is still the server's to answer, but the device has seen the ticket.
        let answer = present(&world.device, &offer.preface()).await?;
        refused_with(&answer, "ticket_used")?;
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vnc_server_with_another_password_or_without_one_configured_is_told_to_the_operator() {
    scenario(async |scratch| {
        let locked = umbra_tests::desktop::DesktopConfig {
            listen: Listen::Unix(scratch.path("locked.sock")),
            password: Some("another1".into()),
            ..Default::default()
        };
        let locked = Desktop::start(locked).await?;
        let name = "network.vncserver.crypt_password";
        let world = World::start_before(scratch, locked, &[]).await?;
        // Where all passes, the operator's viewer is asked; where the device has to look into it, nobody can answer.
        let shadow = world.shadow("knows the password").await?;
        let options = Options {
            password: Some("another1".into()),
            ..Options::default()
        };
        let address = shadow.address().context("no address")?;
        let mut viewer = RfbClient::connect(address, &options).await?;
        viewer.refresh().await?;
        viewer.leave().await?;
        let device = world.device_name().await?;
        let only_seeing = ["--view-only"];
        let mut shadow = world.console.begin_shadow(&device, &only_seeing)?;
        super::failure(&mut shadow)
            .await?
            .ensure("vnc_password_missing", "asks for a password")?;
        refused_record(&world.console, "vnc_password_missing").await?;
        // A secret has no place in an argument list.
        let set = ["registry", "set", name, "--stdin"];
        world.device.tell(&set, "opensesa\n").await?;
        failed_shadow(&world)
            .await?
            .ensure("vnc_password_wrong", "refused the password")?;
        refused_record(&world.console, "vnc_password_wrong").await?;
        ensure!(
            world.desktop.events().contains(&Event::WrongPassword),
            "the password was not tried: {:?}",
            world.desktop.events()
        );
        let code = "vnc_password_wrong";
        audited(&world.console, "session.ended", code, code).await?;
        // Whoever corrects the parameter needs no restart.
        world.device.tell(&set, "another1\n").await?;
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_too_many_is_told_to_the_operator_and_on_record() {
    scenario(async |scratch| {
        let world = World::start_with(scratch, &[("network.vncserver.instances", "1")]).await?;
        let shadow = world.shadow("the only one").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        failed_shadow(&world)
            .await?
            .ensure("too_many_sessions", "try again when one has ended")?;
        refused_record(&world.console, "too_many_sessions").await?;
        viewer.follow().await?;
        ensure!(world.desktop.connections() == 1, "two were at the screen");
        Ok(())
    })
    .await;
}
