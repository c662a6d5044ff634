//! Sessions that somebody or a rule ends, and what may not be done in one.

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::{SOON, eventually_is};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Shadow, World};

use super::{audited, healthy, newest_session, text};

/// The console says this code with a sentence and ends in order, the record says the same.
async fn ended_with(world: &World<'_>, shadow: &mut Shadow, code: &str) -> anyhow::Result<Value> {
    let ended = shadow.ended().await?;
    let (status, said) = shadow.finished().await?;
    ensure!(
        text(&ended, "code") == code && text(&ended, "sentence").ends_with('.'),
        "{code} expected, but {ended}"
    );
    ensure!(status.success(), "{status}: {said}");
    let record = world.console.ended_session(text(&ended, "session")).await?;
    ensure!(
        text(&record, "end_code") == code && !text(&record, "end_sentence").is_empty(),
        "{record}"
    );
    audited(&world.console, "session.ended", "ok", code).await?;
    eventually_is(
        "the device to let go of its VNC server",
        SOON,
        || match world.desktop.active() {
            0 => Ok(()),
            active => Err(active),
        },
    )
    .await?;
    Ok(record)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_ends_a_session_and_both_ends_are_told() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let mut shadow = world.shadow("too long").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        let record = newest_session(&world.console).await?;
        let id = text(&record, "session");
        world.console.tell(&["sessions", "end", id], "").await?;
        viewer.until_closed().await?;
        ended_with(&world, &mut shadow, "ended_by_administrator").await?;
        audited(&world.console, "session.end_asked", "ok", "").await?;
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_person_ends_a_session_and_both_ends_are_told() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let mut shadow = world.shadow("enough").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        world.device.tell(&["end-session"], "").await?;
        viewer.until_closed().await?;
        ended_with(&world, &mut shadow, "ended_by_user").await?;
        let again = world.device.output(&["end-session"], "").await?;
        ensure!(
            !again.status.success(),
            "a session was ended that is not there"
        );
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_which_nothing_moves_ends_at_the_idle_limit() {
    scenario(async |scratch| {
        let world = World::start_with(scratch, &[("umbra.session.idle_limit", "2")]).await?;
        let mut shadow = world.shadow("fell asleep").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        viewer.until_closed().await?;
        let record = ended_with(&world, &mut shadow, "idle_limit").await?;
        let lasted = record.get("duration_ms").and_then(Value::as_u64);
        ensure!(lasted.is_some_and(|lasted| lasted >= 2000), "{record}");
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_which_much_moves_ends_at_the_total_limit() {
    scenario(async |scratch| {
        let parameters = [
            ("umbra.session.idle_limit", "2"),
            ("umbra.session.total_limit", "4"),
        ];
        let world = World::start_with(scratch, &parameters).await?;
        let mut shadow = world.shadow("does not stop").await?;
        let mut viewer = shadow.view().await?;
        let looking = async { while viewer.refresh().await.is_ok() {} };
        let ended = tokio::time::timeout(SOON, looking).await;
        ensure!(ended.is_ok(), "the session has no end");
        let record = ended_with(&world, &mut shadow, "total_limit").await?;
        let lasted = record.get("duration_ms").and_then(Value::as_u64);
        // Longer than the idle limit, which something moving never reaches.
        ensure!(lasted.is_some_and(|lasted| lasted >= 4000), "{record}");
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_device_allows_only_seeing_no_input_arrives_whatever_the_operator_asked_for() {
    scenario(async |scratch| {
        let parameters = [("network.vncserver.remoteinput", "false")];
        let world = World::start_with(scratch, &parameters).await?;
        let shadow = world.shadow("with control").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        viewer.type_text("rm -rf").await?;
        viewer.pointer(1, 10, 10).await?;
        viewer.cut_text(b"paste").await?;
        // The picture still moves, so what was sent before has been through the filter.
        for _ in 0..3 {
            viewer.follow().await?;
        }
        ensure!(
            world.desktop.events().len() == 1,
            "more than joining: {:?}",
            world.desktop.events()
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_more_rights_than_a_changed_setting_allows_is_ended() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let name = world.device_name().await?;
        let mut control = world.shadow("operates").await?;
        let mut operating = control.view().await?;
        operating.refresh().await?;
        let only_seeing = world.console.shadow(&name, &["--view-only"]).await?;
        let mut seeing = only_seeing.view().await?;
        seeing.refresh().await?;
        let settings = [
            "devices",
            "settings",
            &name,
            "network.vncserver.remoteinput=false",
        ];
        world.console.tell(&settings, "").await?;
        operating.until_closed().await?;
        let ended = control.ended().await?;
        ensure!(text(&ended, "code") == "ended_by_settings", "{ended}");
        // Who only sees goes on.
        seeing.refresh().await?;
        ensure!(world.desktop.typed().is_empty());
        Ok(())
    })
    .await;
}
