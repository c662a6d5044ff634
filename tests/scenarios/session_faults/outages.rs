//! Programs that are killed, and words that are lost, before and while a session runs.

use anyhow::ensure;
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::fault_proxy::{Direction, Fault, FaultProxy};
use umbra_tests::rfb_client::RfbClient;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{
    Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig, World, desktop,
};

use super::{audited, healthy, newest_session, present, refused_with, text, untouched};

/// The newest session did not begin, for this reason.
async fn did_not_begin(world: &World<'_>, code: &str) -> anyhow::Result<()> {
    eventually("the session to be refused", PATIENCE, async || {
        let record = newest_session(&world.console).await;
        let record = record.map_err(|error| error.to_string())?;
        match (text(&record, "state"), text(&record, "end_code")) {
            ("refused", why) if why == code => Ok(()),
            _ => Err(record.to_string()),
        }
    })
    .await?;
    audited(&world.console, "session.ended", code, code).await
}

async fn types(world: &World<'_>, viewer: &mut RfbClient, more: &str) -> anyhow::Result<()> {
    let whole = world.desktop.typed() + more;
    viewer.type_text(more).await?;
    eventually_is("the keys to arrive", SOON, || {
        let typed = world.desktop.typed();
        if typed == whole { Ok(()) } else { Err(typed) }
    })
    .await?;
    viewer.refresh().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_server_which_can_end_it_once_it_is_back() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let mut shadow = world.shadow("long talk").await?;
        let mut viewer = shadow.view().await?;
        types(&world, &mut viewer, "one ").await?;
        world.server.program().kill();
        world.device.wait_for_stage("waiting").await?;
        types(&world, &mut viewer, "two ").await?;
        world.server.start_again().await?;
        world.device.wait_until_online().await?;
        types(&world, &mut viewer, "three").await?;
        ensure!(
            world.desktop.connections() == 1,
            "the session was another one in between"
        );
        let record = newest_session(&world.console).await?;
        ensure!(text(&record, "state") == "running", "{record}");
        let id = text(&record, "session").to_owned();
        world.console.tell(&["sessions", "end", &id], "").await?;
        viewer.until_closed().await?;
        let ended = shadow.ended().await?;
        ensure!(text(&ended, "code") == "ended_by_administrator", "{ended}");
        let record = world.console.ended_session(&id).await?;
        let (sent, seen) = (viewer.tally().bytes_out, viewer.tally().bytes_in);
        let bytes = |name: &str| record.get(name).and_then(serde_json::Value::as_u64);
        ensure!(
            bytes("bytes_to_device") == Some(sent),
            "{record}, but sent {sent}"
        );
        ensure!(
            bytes("bytes_to_console").is_some_and(|bytes| bytes >= seen),
            "{record}, but seen {seen}"
        );
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_agent_was_killed_in_is_on_record_as_such() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let mut shadow = world.shadow("bad luck").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        let record = newest_session(&world.console).await?;
        ensure!(text(&record, "state") == "running", "{record}");
        let id = text(&record, "session").to_owned();
        world.device.kill();
        viewer.until_closed().await?;
        let ended = shadow.ended().await?;
        ensure!(text(&ended, "sentence").ends_with('.'), "{ended}");
        let (status, _) = shadow.finished().await?;
        ensure!(
            !status.success(),
            "a session that was cut off is no success"
        );
        world.device.start()?;
        world.device.wait_until_up().await?;
        world.device.wait_until_online().await?;
        let record = world.console.ended_session(&id).await?;
        ensure!(text(&record, "end_code") == "agent_restarted", "{record}");
        audited(&world.console, "session.ended", "ok", "agent_restarted").await?;
        let status = world.device.status().await?;
        let sessions = status.get("sessions").and_then(|value| value.as_array());
        ensure!(sessions.is_some_and(Vec::is_empty), "{status}");
        healthy(&world).await
    })
    .await;
}

/// Presents a ticket while what the server says is spoilt on the way, and waits until the device has its link again.
async fn lose_the_answer(world: &World<'_>, relay: &FaultProxy) -> anyhow::Result<()> {
    let name = world.device_name().await?;
    let offer = world.console.offer(&world.server, &name, false).await?;
    relay.set(Fault::Corrupt(Direction::ToClient));
    let answer = present(&world.device, &offer.preface()).await?;
    refused_with(&answer, "server_unreachable")?;
    relay.set(Fault::Pass);
    world.device.wait_until_online().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_server_allowed_without_being_heard_is_on_record_as_not_begun() {
    scenario(async |scratch| {
        let screen = desktop(scratch).await?;
        // The relay must be known before the server is, so it begins in front of nobody.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")?;
        let relay = FaultProxy::start(nobody.local_addr()?).await?;
        drop(nobody);
        let config = ServerConfig {
            // Only the answer shall be spoilt.
            heartbeat: 40,
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
        // Something else that the server says may be spoilt in place of the answer; then the question never arrived.
        let mut tries = 0;
        loop {
            tries += 1;
            lose_the_answer(&world, &relay).await?;
            let verified = audited(&world.console, "session.verified", "ok", "").await;
            if verified.is_ok() || tries == 5 {
                break verified?;
            }
        }
        did_not_begin(&world, "server_unreachable").await?;
        untouched(&world)?;
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_agent_was_killed_while_the_person_was_asked_is_on_record_as_not_begun() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        world
            .device
            .set("network.vncserver.promptuser", "true")
            .await?;
        let name = world.device_name().await?;
        let shadow = world.console.begin_shadow(&name, &[])?;
        eventually("the person to be asked", PATIENCE, async || {
            let status = world.device.status().await;
            let status = status.map_err(|error| error.to_string())?;
            match status.pointer("/consents/0") {
                Some(_) => Ok(()),
                None => Err(status.to_string()),
            }
        })
        .await?;
        world.device.restart_hard()?;
        world.device.wait_until_up().await?;
        world.device.wait_until_online().await?;
        did_not_begin(&world, "agent_restarted").await?;
        drop(shadow);
        untouched(&world)?;
        world
            .device
            .set("network.vncserver.promptuser", "false")
            .await?;
        healthy(&world).await
    })
    .await;
}
