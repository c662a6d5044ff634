//! What breaks, breaks alone: a VNC server, the management server, the agent, the console. Whoever is left learns why in
//! one sentence, goes on where it can, and nothing that happened is lost.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::desktop::{Desktop, Manner};
use umbra_tests::eventually::{SOON, eventually_is};
use umbra_tests::fault_proxy::{Fault, FaultProxy};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{
    Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig, World, desktop,
};

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A shadowing that fails before a viewer may connect: code and sentence at the operator's end.
async fn failed_shadow(world: &World<'_>) -> anyhow::Result<(String, String)> {
    let mut shadow = world
        .console
        .begin_shadow(&world.device_name().await?, &[])?;
    let (status, said) = shadow.finished().await?;
    ensure!(!status.success(), "it worked: {said}");
    ensure!(
        !said.contains("listening"),
        "a port was opened for a viewer: {said}"
    );
    let problem = said
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str::<Value>(line).ok())
        .context(said)?;
    Ok((
        text(&problem, "code").to_owned(),
        text(&problem, "detail").to_owned(),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_vnc_server_is_told_to_the_operator_and_the_next_session_works() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let config = world.desktop.address().context("no address")?.clone();
        let nowhere = Desktop::start(umbra_tests::desktop::DesktopConfig::default()).await?;
        world.desktop = nowhere;
        // More often than the device has places for sessions: who did not get in takes none.
        for _ in 0..3 {
            let (code, sentence) = failed_shadow(&world).await?;
            ensure!(
                code == "vnc_server_absent" && sentence.len() > 20,
                "{code}: {sentence}"
            );
        }
        let config = umbra_tests::desktop::DesktopConfig {
            listen: config,
            ..Default::default()
        };
        world.desktop = Desktop::start(config).await?;
        world.shadow("again").await?.view().await?.refresh().await?;
        let audit = world.console.tell(&["audit"], "").await?.to_string();
        ensure!(audit.contains("vnc_server_absent"), "{audit}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vnc_server_that_stays_silent_is_told_to_the_operator() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        world.desktop.set_manner(Manner::NeverGreet);
        let (code, sentence) = failed_shadow(&world).await?;
        ensure!(
            code.starts_with("vnc_server_") && sentence.len() > 20,
            "{code}: {sentence}"
        );
        world.desktop.set_manner(Manner::Proper);
        world.shadow("again").await?.view().await?.refresh().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vnc_server_that_dies_in_the_middle_ends_the_session_on_record() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let mut shadow = world.shadow("bad luck").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        world.desktop.hang_up();
        viewer.until_closed().await?;
        let ended = shadow.ended().await?;
        ensure!(text(&ended, "code").starts_with("vnc_server_"), "{ended}");
        let record = world.console.ended_session(text(&ended, "session")).await?;
        ensure!(
            text(&record, "end_code") == text(&ended, "code"),
            "{record} and {ended}"
        );
        world.shadow("again").await?.view().await?.refresh().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vnc_servers_password_is_answered_by_the_device() {
    scenario(async |scratch| {
        let listen = umbra_tests::desktop::Listen::Unix(scratch.path("locked.sock"));
        let password = Some("opensesa".to_owned());
        let locked = umbra_tests::desktop::DesktopConfig {
            listen,
            password,
            ..Default::default()
        };
        let screen = Desktop::start(locked).await?;
        let mut config = DeviceConfig::with_desktop(&screen);
        config.set_text("network.vncserver.crypt_password", "opensesa");
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let mut device = Device::new(scratch, "device", config)?;
        device.start()?;
        device
            .enrol(&server, &console.one_time_key().await?)
            .await?;
        device.wait_until_online().await?;
        let shadow = console.shadow(&device.unit_id().await?, &[]).await?;
        // The viewer has no password and is not asked for one.
        shadow.view().await?.refresh().await?;
        let shown = device
            .tell(&["registry", "get", "network.vncserver.crypt_password"], "")
            .await?;
        ensure!(
            !shown.contains("opensesa"),
            "the password is shown: {shown}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_while_the_server_is_killed_and_its_record_is_complete_afterwards() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let mut shadow = world.shadow("long talk").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        world.server.program().kill();
        world.device.wait_for_stage("waiting").await?;
        viewer.type_text("still here").await?;
        eventually_is("the keys to arrive", SOON, || {
            match world.desktop.typed().as_str() {
                "still here" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        let sent = viewer.tally().bytes_out;
        viewer.leave().await?;
        let ended = shadow.ended().await?;
        shadow.finished().await?;
        world.server.start_again().await?;
        world.device.wait_until_online().await?;
        let record = world.console.ended_session(text(&ended, "session")).await?;
        ensure!(text(&record, "end_code") == "viewer_closed", "{record}");
        ensure!(
            record.get("bytes_to_device").and_then(Value::as_u64) == Some(sent),
            "{record}, but sent {sent}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_console_ends_the_session_on_the_device() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let mut shadow = world.shadow("bad luck").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        shadow.program().kill();
        eventually_is(
            "the device to let go of its VNC server",
            SOON,
            || match world.desktop.active() {
                0 => Ok(()),
                active => Err(active),
            },
        )
        .await?;
        viewer.until_closed().await?;
        let sessions = world.console.tell(&["sessions"], "").await?;
        let id = sessions
            .pointer("/0/session")
            .and_then(Value::as_str)
            .context(sessions.to_string())?;
        let record = world.console.ended_session(id).await?;
        ensure!(!text(&record, "end_code").is_empty(), "{record}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_comes_back_after_every_fault_of_the_line_and_commands_wait_for_it() {
    scenario(async |scratch| {
        let screen = desktop(scratch).await?;
        // The relay must be known before the server is, so it begins in front of nobody.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")?;
        let relay = FaultProxy::start(nobody.local_addr()?).await?;
        drop(nobody);
        let config = ServerConfig {
            heartbeat: 1,
            public: Some(relay.address()),
            ..ServerConfig::default()
        };
        let server = Server::start(scratch, config).await?;
        relay.set_upstream(server.address());
        let console = Console::administrator(scratch, &server).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::with_desktop(&screen))?;
        device.start()?;
        device
            .enrol(&server, &console.one_time_key().await?)
            .await?;
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        for (number, fault) in [Fault::Reset, Fault::Stall, Fault::Refuse]
            .into_iter()
            .enumerate()
        {
            if fault == Fault::Refuse {
                // What is connected already would go on.
                relay.set(Fault::Reset);
                device.wait_for_stage("waiting").await?;
            }
            relay.set(fault.clone());
            device
                .wait_for_stage("waiting")
                .await
                .with_context(|| format!("during {fault:?}"))?;
            let text = format!("message {number}");
            console
                .tell(&["devices", "command", &name, "message", &text], "")
                .await?;
            relay.set(Fault::Pass);
            device
                .wait_until_online()
                .await
                .with_context(|| format!("after {fault:?}"))?;
            let arrived =
                umbra_tests::eventually::eventually("the message to arrive", PATIENCE, || async {
                    let status = device
                        .status()
                        .await
                        .map_err(|error| error.to_string())?
                        .to_string();
                    match status.matches(&text).count() {
                        1 => Ok(()),
                        _ => Err(status),
                    }
                });
            arrived.await.with_context(|| format!("after {fault:?}"))?;
        }
        ensure!(relay.counts().accepted > 3, "{:?}", relay.counts());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_must_stay_secret_passes_the_line_or_is_in_a_log() {
    scenario(async |scratch| {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")?;
        let relay = FaultProxy::start(nobody.local_addr()?).await?;
        drop(nobody);
        relay.record();
        let config = ServerConfig {
            heartbeat: 2,
            public: Some(relay.address()),
            ..ServerConfig::default()
        };
        let server = Server::start(scratch, config).await?;
        relay.set_upstream(server.address());
        let console = Console::administrator(scratch, &server).await?;
        let screen = desktop(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::with_desktop(&screen))?;
        device.start()?;
        let key = console.one_time_key().await?;
        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        let offer = console.offer(&server, &name, false).await?;
        console
            .shadow(&name, &["--reason", "a reason as canary"])
            .await?
            .view()
            .await?
            .refresh()
            .await?;
        let passed = relay.recording();
        ensure!(
            passed.to_server.len() > 2000 && !passed.cut,
            "hardly anything was recorded"
        );
        let password = std::fs::read_to_string(server.password_file())?;
        let token = console.token().context("no token")?;
        let secrets = [
            key.trim(),
            password.trim(),
            &token,
            &offer.ticket,
            &offer.password,
        ];
        for secret in secrets {
            ensure!(
                !passed.contains(secret.as_bytes()),
                "a secret passed in clear"
            );
        }
        for readable in [
            &b"a reason as canary"[..],
            b"RFB 003",
            name.as_bytes(),
            b"session_request",
        ] {
            ensure!(
                !passed.contains(readable),
                "{:?} passed in clear",
                String::from_utf8_lossy(readable)
            );
        }
        for entry in std::fs::read_dir(scratch.path("log"))? {
            let path = entry?.path();
            // What the console prints when it makes a key is meant to be read.
            let printed = path.ends_with("console.log");
            let log = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            // Every ticket begins with these letters, also that of the session which the console opened by itself.
            ensure!(!log.contains("eyJ"), "a ticket is in {}", path.display());
            for (number, secret) in secrets.iter().enumerate() {
                ensure!(
                    !log.contains(secret) || (printed && number == 0),
                    "secret {number} is in {}",
                    path.display()
                );
            }
        }
        Ok(())
    })
    .await;
}
