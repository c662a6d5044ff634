//! What the agent has given up, seen from outside while it does its work, and what only root does for it.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Console, Device, DeviceConfig, PATIENCE, World};

/// A line of the kernel's description of a process.
fn kernel_says(device: &mut Device<'_>, line: &str) -> anyhow::Result<String> {
    let pid = device.program().context("no agent")?.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status
        .lines()
        .find_map(|found| found.strip_prefix(&format!("{line}:")));
    Ok(found.context("no such line")?.trim().to_owned())
}

/// How much of each layer there is, by its name.
async fn holds(device: &Device<'_>, layer: &str) -> anyhow::Result<String> {
    let status = device.status().await?;
    let confined = status["confined"].as_array().context("no layers")?;
    let found = confined.iter().find(|confined| confined["layer"] == layer);
    Ok(found.context("no such layer")?["hold"]
        .as_str()
        .context("no text")?
        .to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_nothing_is_shadowed_with_nothing_left_to_misuse() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let shadow = world.shadow("a look").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        for layer in ["privileges", "system_calls", "files"] {
            let hold = holds(&world.device, layer).await?;
            ensure!(hold == "full", "{layer}: {hold}");
        }
        let report = world.device.tell(&["status"], "").await?;
        ensure!(report.contains("no program can be run"), "{report}");
        let device = &mut world.device;
        ensure!(kernel_says(device, "NoNewPrivs")? == "1");
        ensure!(kernel_says(device, "Seccomp")? == "2", "no filter");
        // As root it keeps what is needed for files of other users, and no more; as anybody else nothing.
        let left = u64::from_str_radix(&kernel_says(device, "CapBnd")?, 16)?;
        ensure!(left.count_ones() <= 4, "{left:x}");
        let left = u64::from_str_radix(&kernel_says(device, "CapEff")?, 16)?;
        ensure!(left.count_ones() <= 4, "{left:x}");
        ensure!(
            world.device.status().await?["warnings"] == Value::Object(serde_json::Map::new()),
            "it warns of something"
        );

        // A program that is named now can't be started any more, and people are told so instead of wondering.
        world
            .device
            .set("umbra.message.program", "/bin/true")
            .await?;
        eventually("the status to warn", PATIENCE, async || {
            let status = world
                .device
                .status()
                .await
                .map_err(|error| error.to_string())?;
            match status.pointer("/warnings/confinement") {
                Some(Value::String(warning)) if warning.contains("Restart the agent") => Ok(()),
                _ => Err(status.to_string()),
            }
        })
        .await?;
        world.device.restart_hard()?;
        world.device.wait_until_online().await?;
        ensure!(holds(&world.device, "system_calls").await? == "part");
        ensure!(
            world
                .device
                .status()
                .await?
                .pointer("/warnings/confinement")
                .is_none(),
            "it still warns"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_may_leave_the_agent_unconfined_and_the_status_says_nothing_else() {
    scenario(async |scratch| {
        let mut config = DeviceConfig::default();
        config
            .set("umbra.confinement", "false")
            .set_text("umbra.vncserver.upstream", "tcp:127.0.0.1:1");
        let mut device = Device::new(scratch, "device", config)?;
        device.start()?;
        device.wait_until_up().await?;
        ensure!(device.status().await?["confined"] == Value::Array(Vec::new()));
        ensure!(kernel_says(&mut device, "Seccomp")? == "0");
        Ok(())
    })
    .await;
}

/// Waits for the result of a command of this kind.
async fn result_of(console: &Console<'_>, id: &str) -> anyhow::Result<Value> {
    let found = eventually("the command to end", PATIENCE, async || {
        let audit = console.tell(&["audit"], "").await;
        let audit = audit.map_err(|error| error.to_string())?;
        let entries = audit.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .find(|entry| entry["subject"] == id && entry["action"] == "command.ended")
            .cloned()
            .ok_or_else(|| audit.to_string())
    });
    Ok(found.await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_root_may_do_is_asked_of_a_program_that_does_nothing_else() {
    scenario(async |scratch| {
        let (update, ran) = (scratch.path("update"), scratch.path("ran"));
        std::fs::write(
            &update,
            format!("#!/bin/sh\necho x >>{}\necho slot B\n", ran.display()),
        )?;
        std::fs::set_permissions(&update, std::fs::Permissions::from_mode(0o755))?;
        let program = serde_json::to_string(&[&update])?;
        let world = World::start_with(scratch, &[("umbra.hands.update_command", &program)]).await?;
        let (device, console) = (&world.device, &world.console);
        let unit = device.unit_id().await?;
        ensure!(
            holds(device, "system_calls").await? == "full",
            "it could start programs"
        );

        // The service manager's part: it starts the helper when a wish lies there.
        let given = console
            .tell(&["devices", "command", &unit, "update"], "")
            .await?;
        let id = given["id"].as_str().context("no ID")?.to_owned();
        let wishes = device.root().join("run/umbra/requests");
        eventually("the agent to ask", PATIENCE, async || {
            // While a wish is being written it has another name.
            let names = std::fs::read_dir(&wishes).into_iter().flatten();
            let names: Vec<_> = names.flatten().map(|entry| entry.file_name()).collect();
            let whole = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".json");
            (names.len() == 1 && names.iter().all(whole))
                .then_some(())
                .ok_or(names)
        })
        .await?;
        ensure!(!ran.exists(), "somebody else ran it");
        device.tell(&["hands"], "").await?;
        let ended = result_of(console, &id).await?;
        ensure!(ended["outcome"] == "ok", "{ended}");
        ensure!(
            ended["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("slot B")),
            "{ended}"
        );
        ensure!(
            std::fs::read_to_string(&ran)?.lines().count() == 1,
            "not once"
        );
        let again = device.tell(&["hands"], "").await?;
        ensure!(again.contains("Nobody has asked"), "{again}");

        // Nobody is there: the administrator is told what is missing on the device.
        let given = console
            .tell(&["devices", "command", &unit, "reboot"], "")
            .await?;
        let id = given["id"].as_str().context("no ID")?.to_owned();
        let ended = result_of(console, &id).await?;
        ensure!(
            ended["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("umbra-hands.path")),
            "{ended}"
        );
        let left = std::fs::read_dir(&wishes)?.count();
        ensure!(left == 0, "a wish that was given up lies there still");
        Ok(())
    })
    .await;
}
