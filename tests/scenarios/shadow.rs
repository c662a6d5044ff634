//! The main job: an operator sees and operates a device's screen, with any viewer, whatever VNC server stands behind the
//! device, and what happened is on record.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::image::Image;
use umbra_tests::program::run;
use umbra_tests::rfb_client::RfbClient;
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig, World};
use umbra_tests::x11::{XServer, vncdo};

/// A place inside of the terminal on a real screen.
const IN_TERMINAL: (u16, u16) = (200, 200);

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A device of this kind, taken on by a server of its own.
async fn taken_on<'s>(
    scratch: &'s Scratch,
    config: DeviceConfig,
) -> anyhow::Result<(Server<'s>, Console<'s>, Device<'s>, String)> {
    let server = Server::start(scratch, ServerConfig::default()).await?;
    let console = Console::administrator(scratch, &server).await?;
    let mut device = Device::new(scratch, "device", config)?;
    device.start()?;
    let key = console.one_time_key().await?;
    device.enrol(&server, &key).await?;
    device.wait_until_online().await?;
    let status = device.status().await?;
    let name = status
        .pointer("/identity/unit_id")
        .and_then(Value::as_str)
        .context("no name")?
        .to_owned();
    Ok((server, console, device, name))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_and_operates_the_screen_and_it_is_on_record() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let mut shadow = world.shadow("till is stuck").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        viewer.type_text("over there").await?;
        eventually_is("the keys to arrive", SOON, || {
            match world.desktop.typed().as_str() {
                "over there" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        world.desktop.freeze(true);
        let shown = world.desktop.framebuffer();
        ensure!(
            viewer.follow_until(SOON, |seen| *seen == shown).await?,
            "{:?}",
            viewer.image().difference(&shown, 0)
        );
        let tally = viewer.tally();
        viewer.leave().await?;

        let ended = shadow.ended().await?;
        let (status, said) = shadow.finished().await?;
        ensure!(
            status.success() && text(&ended, "code") == "viewer_closed",
            "{status}: {said}"
        );
        let record = world.console.ended_session(text(&ended, "session")).await?;
        ensure!(
            text(&record, "user") == "admin" && text(&record, "reason") == "till is stuck",
            "{record}"
        );
        ensure!(
            text(&record, "end_code") == "viewer_closed"
                && !text(&record, "end_sentence").is_empty(),
            "{record}"
        );
        let bytes = |name: &str| record.get(name).and_then(Value::as_u64).unwrap_or(0);
        ensure!(
            bytes("bytes_to_device") == tally.bytes_out,
            "{record}, but sent {tally:?}"
        );
        ensure!(
            bytes("bytes_to_console") >= tally.bytes_in,
            "{record}, but seen {tally:?}"
        );
        let audit = world.console.tell(&["audit"], "").await?.to_string();
        for action in [
            "session.offered",
            "session.verified",
            "session.started",
            "session.ended",
        ] {
            ensure!(audit.contains(action), "{action} is missing in {audit}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_offered_to_a_viewer_before_the_device_let_us_in_and_nothing_runs_on_it_before()
{
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        ensure!(
            world.desktop.connections() == 0,
            "the device is at its VNC server while nobody shadows"
        );
        let mut shadow = world.shadow("look").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        ensure!(
            world.desktop.active() == 1,
            "{} connections",
            world.desktop.active()
        );
        viewer.leave().await?;
        shadow.finished().await?;
        eventually_is(
            "the device to let go of its VNC server",
            SOON,
            || match world.desktop.active() {
                0 => Ok(()),
                active => Err(active),
            },
        )
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_see_moves_nothing() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let name = world.device_name().await?;
        let shadow = world.console.shadow(&name, &["--view-only"]).await?;
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
            world.desktop.typed().is_empty(),
            "{:?}",
            world.desktop.events()
        );
        ensure!(
            world.desktop.events().len() == 1,
            "more than joining: {:?}",
            world.desktop.events()
        );
        Ok(())
    })
    .await;
}

/// Types into the terminal of a real screen through a viewer, and holds what is seen against the source.
async fn type_and_compare(
    scratch: &Scratch,
    screen: &XServer,
    typed: &std::path::Path,
    viewer: &mut RfbClient,
) -> anyhow::Result<()> {
    viewer.refresh().await?;
    viewer.pointer(0, IN_TERMINAL.0, IN_TERMINAL.1).await?;
    viewer.type_text("typed from afar\n").await?;
    eventually_is(
        "the keys to arrive",
        PATIENCE,
        || match std::fs::read_to_string(typed) {
            Ok(text) if text == "typed from afar\n" => Ok(()),
            other => Err(other),
        },
    )
    .await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        viewer.refresh().await?;
        let source = screen.screenshot(scratch).await?;
        let apart = viewer
            .image()
            .difference(&source, 8)
            .context("another size")?;
        if apart.differing_share < 0.002 && source.colours(2) > 1 {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "{apart:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x11vnc_is_started_for_the_session_and_gone_after_it() {
    scenario(async |scratch| {
        let screen = XServer::xvfb(scratch, 640, 480).await?;
        let typed = scratch.path("typed");
        let _terminal = screen.terminal(scratch, &typed)?;
        eventually_is("the terminal", PATIENCE, || std::fs::metadata(&typed)).await?;
        let config = DeviceConfig::with_command(&screen.x11vnc_inetd()?, &screen.environment());
        let (_server, console, mut device, name) = taken_on(scratch, config).await?;
        ensure!(
            children(&mut device)?.is_empty(),
            "something runs before anybody shadows"
        );
        let mut shadow = console.shadow(&name, &[]).await?;
        let mut viewer = shadow.view().await?;
        type_and_compare(scratch, &screen, &typed, &mut viewer).await?;
        ensure!(children(&mut device)?.len() == 1, "not one VNC server runs");
        viewer.leave().await?;
        shadow.finished().await?;
        eventually_is("x11vnc to be gone", PATIENCE, || {
            match children(&mut device) {
                Ok(children) if children.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        Ok(())
    })
    .await;
}

/// The process IDs of an agent's children.
fn children(device: &mut Device<'_>) -> anyhow::Result<Vec<String>> {
    let pid = device.program().context("the agent does not run")?.pid();
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = std::fs::read_to_string(task?.path().join("children"))?;
        found.extend(list.split_whitespace().map(str::to_owned));
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn xtigervnc_on_a_unix_socket_is_shadowed() {
    scenario(async |scratch| {
        let socket = scratch.path("vnc.sock");
        let screen = XServer::xtigervnc(scratch, 640, 480, &socket).await?;
        let typed = scratch.path("typed");
        let _terminal = screen.terminal(scratch, &typed)?;
        eventually_is("the terminal", PATIENCE, || std::fs::metadata(&typed)).await?;
        let mut config = DeviceConfig::default();
        config.set_text(
            "umbra.vncserver.upstream",
            &format!("unix:{}", socket.display()),
        );
        let (_server, console, _device, name) = taken_on(scratch, config).await?;
        let shadow = console.shadow(&name, &[]).await?;
        let mut viewer = shadow.view().await?;
        type_and_compare(scratch, &screen, &typed, &mut viewer).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vncviewer_shows_the_device_and_passes_keys_on() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        world.desktop.freeze(true);
        let shadow = world.shadow("with a real viewer").await?;
        let screen = XServer::xvfb(scratch, 800, 600).await?;
        let _viewer = screen.vncviewer(scratch, shadow.address().context("no address")?)?;
        eventually(
            "the viewer to show the device's screen",
            PATIENCE,
            async || {
                let shown = screen
                    .screenshot(scratch)
                    .await
                    .map_err(|error| error.to_string())?;
                let apart = shown
                    .difference(&world.desktop.framebuffer(), 8)
                    .ok_or("another size")?;
                if apart.differing_share < 0.01 {
                    Ok(())
                } else {
                    Err(format!("{apart:?}"))
                }
            },
        )
        .await?;
        let mut keys = screen.command("xdotool")?;
        run(scratch, "xdotool", keys.args(["type", "abc"]), b"", SOON).await?;
        eventually_is("the keys to arrive", SOON, || {
            match world.desktop.typed().as_str() {
                "abc" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vncdo_captures_the_device_and_types() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        world.desktop.freeze(true);
        let captured = scratch.path("captured.png");
        let path = captured.display().to_string();
        let shadow = world.shadow("scripted").await?;
        vncdo(
            scratch,
            shadow.address().context("no address")?,
            &["type", "abc", "pause", "0.5", "capture", &path],
        )
        .await?;
        eventually_is("the keys to arrive", SOON, || {
            match world.desktop.typed().as_str() {
                "abc" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        let apart = Image::load_png(&captured)?
            .difference(&world.desktop.framebuffer(), 8)
            .context("another size")?;
        ensure!(apart.differing_share < 0.01, "{apart:?}");
        Ok(())
    })
    .await;
}
