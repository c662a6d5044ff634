//! Programs that are killed while a session runs.

use anyhow::ensure;
use umbra_tests::eventually::{SOON, eventually_is};
use umbra_tests::rfb_client::RfbClient;
use umbra_tests::scratch::scenario;
use umbra_tests::world::World;

use super::{audited, healthy, newest_session, text};

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
