//! A VNC server that greets and then refuses: that is no session. The operator reads why, in the server's own words, and no viewer is
//! ever started.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::desktop::Manner;
use umbra_tests::eventually::{SOON, eventually_is};
use umbra_tests::program::Program;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Console, Device, DeviceConfig, Server, ServerConfig, World};
use umbra_tests::x11::installed;

/// Shadows in vain: the operator reads these words with the code, and no port is opened for a viewer.
async fn refused(console: &Console<'_>, device: &str, words: &str) -> anyhow::Result<()> {
    for more in [&[][..], &["--view-only"]] {
        let mut shadow = console.begin_shadow(device, more)?;
        let (status, said) = shadow.finished().await?;
        ensure!(!status.success(), "it worked: {said}");
        ensure!(
            !said.contains("listening"),
            "a viewer might have come: {said}"
        );
        let problem = said
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str::<Value>(line).ok())
            .with_context(|| said.clone())?;
        let detail = problem.get("detail").and_then(Value::as_str);
        ensure!(
            problem.get("code").and_then(Value::as_str) == Some("vnc_server_refused")
                && detail
                    .is_some_and(|detail| detail.contains(words) && !detail.contains('\u{1b}')),
            "{problem}"
        );
    }
    Ok(())
}

/// On record: refused with this code, and never started.
async fn on_record(console: &Console<'_>) -> anyhow::Result<()> {
    console
        .wait_for_audit("session.ended", "vnc_server_refused")
        .await?;
    let audit = console.tell(&["audit"], "").await?.to_string();
    ensure!(!audit.contains("session.started"), "{audit}");
    let sessions = console.tell(&["sessions"], "").await?;
    let state = sessions.pointer("/1/state").and_then(Value::as_str);
    ensure!(state == Some("refused"), "{sessions}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vnc_server_refuses_with_reaches_the_operator_and_no_session_begins() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let words = "locked for \u{1b}[2Jmaintenance";
        world.desktop.set_manner(Manner::Refuse(words.into()));
        let name = world.device_name().await?;
        refused(&world.console, &name, "locked for  [2Jmaintenance").await?;
        on_record(&world.console).await?;
        world.desktop.set_manner(Manner::Proper);
        world.shadow("again").await?.view().await?.refresh().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_vnc_server_that_lets_nobody_in_is_quoted_to_the_operator() {
    scenario(async |scratch| {
        let socket = scratch.path("vnc.sock");
        let mut command = Command::new(installed("Xtigervnc")?);
        command
            .args([
                "-geometry",
                "320x200",
                "-displayfd",
                "1",
                "-nolisten",
                "tcp",
            ])
            .args(["-SecurityTypes", "", "-rfbport", "-1", "-rfbunixpath"])
            .arg(&socket);
        let _screen = Program::start(scratch, "xtigervnc", &mut command)?;
        let there = |socket: &Path| socket.exists().then_some(()).ok_or("no socket".to_owned());
        eventually_is("the VNC server to listen", SOON, || there(&socket)).await?;
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let mut config = DeviceConfig::default();
        config
            .set("network.vncserver.enabled", "true")
            .set("network.vncserver.promptuser", "false")
            .set_text(
                "umbra.vncserver.upstream",
                &format!("unix:{}", socket.display()),
            );
        let mut device = Device::new(scratch, "device", config)?;
        device.start()?;
        let key = console.one_time_key().await?;
        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        refused(
            &console,
            &device.unit_id().await?,
            "No supported security types",
        )
        .await?;
        on_record(&console).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_for_the_screen_is_told_before_the_person_is_asked() {
    scenario(async |scratch| {
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let missing = scratch.path("x11vnc").display().to_string();
        let asked = scratch.path("asked");
        let ask = ["/bin/sh", "-c", &format!("touch '{}'", asked.display())].map(str::to_owned);
        let mut config = DeviceConfig::with_command(&[missing], &[]);
        config
            .set("network.vncserver.promptuser", "true")
            .set("umbra.consent.program", &serde_json::to_string(&ask)?);
        let mut device = Device::new(scratch, "device", config)?;
        device.start()?;
        let key = console.one_time_key().await?;
        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        let mut shadow = console.begin_shadow(&device.unit_id().await?, &[])?;
        let (_, said) = shadow.finished().await?;
        ensure!(said.contains("vnc_server_absent"), "{said}");
        ensure!(!asked.exists(), "the person was asked for nothing");
        Ok(())
    })
    .await;
}
