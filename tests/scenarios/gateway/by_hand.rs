//! The toggle in the file that a device keeps its parameters in, changed with an editor: some write into the file, some put a
//! new one in its place, and some leave it half done.

use std::path::Path;

use anyhow::{Context as _, ensure};
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, DeviceConfig, PATIENCE};

use super::site::Site;

const TOGGLE: &str = "system.remotemanager.enable_icg";

/// The file with this line for the toggle, and all else as it was.
fn edited(file: &Path, line: &str) -> anyhow::Result<String> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.contains(TOGGLE)).collect();
    // Above any table.
    lines.insert(0, line);
    Ok(lines.join("\n") + "\n")
}

/// As editors that write into the file do.
fn write_in_place(device: &Device<'_>, line: &str) -> anyhow::Result<()> {
    let file = device.root().join("wfs/umbra/registry.toml");
    Ok(std::fs::write(&file, edited(&file, line)?)?)
}

/// As editors that write a new file and rename it do.
fn replace(device: &Device<'_>, line: &str) -> anyhow::Result<()> {
    let file = device.root().join("wfs/umbra/registry.toml");
    let new = file.with_extension("toml~");
    std::fs::write(&new, edited(&file, line)?)?;
    Ok(std::fs::rename(new, file)?)
}

/// Waits until the device warns of its registry, or does not.
async fn wait_for_warning(device: &Device<'_>, wanted: bool) -> anyhow::Result<()> {
    let probe = || async {
        let status = device.status().await.map_err(|error| error.to_string())?;
        let warns = status
            .get("warnings")
            .is_some_and(|warnings| warnings.to_string().contains("registry.toml"));
        if warns == wanted {
            Ok(())
        } else {
            Err(status.to_string())
        }
    };
    let what = format!("a warning about the file: {wanted}");
    Ok(eventually(&what, PATIENCE, probe).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_toggle_in_the_registry_file_changes_the_way_there_and_back_and_a_half_done_edit_does_not()
 {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let config = DeviceConfig::with_desktop(&site.desktop);
        let (device, name) = site.device_with(scratch, None, "device", config).await?;
        write_in_place(&device, &format!("{TOGGLE} = true"))?;
        site.wait_for_way(&name, Some("icg")).await?;
        let mut shadow = site.console.shadow(&name, &["--reason", "edit"]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;

        replace(&device, &format!("{TOGGLE} = false"))?;
        // Whichever way the device is on in this moment, it gets the command, and once.
        let command = ["devices", "command", &name, "message", "On the way."];
        site.console.tell(&command, "").await?;
        site.wait_for_way(&name, None).await?;
        viewer.refresh().await?;
        let get = ["registry", "get", TOGGLE];
        let shown = device.tell(&get, "").await?;
        ensure!(shown.contains("false"), "{shown}");

        write_in_place(&device, &format!("{TOGGLE} = tr"))?;
        wait_for_warning(&device, true).await?;
        site.wait_for_way(&name, None).await?;
        viewer.refresh().await?;

        replace(&device, &format!("{TOGGLE} = true"))?;
        site.wait_for_way(&name, Some("icg")).await?;
        wait_for_warning(&device, false).await?;
        viewer.type_text("all the same").await?;
        viewer.refresh().await?;
        ensure!(
            site.desktop.typed() == "all the same",
            "{}",
            site.desktop.typed()
        );
        viewer.leave().await?;
        shadow.ended().await?;
        let (status, said) = shadow.finished().await?;
        ensure!(status.success(), "{status}: {said}");

        eventually("the command to be done", PATIENCE, || async {
            let shown = site.shown(&name).await.map_err(|error| error.to_string())?;
            match shown["commands_waiting"].as_u64() {
                Some(0) => Ok(()),
                _ => Err(shown.to_string()),
            }
        })
        .await
        .context("a command that was given while the way changed")?;
        let status = device.status().await?.to_string();
        ensure!(status.matches("On the way.").count() == 1, "{status}");
        Ok(())
    })
    .await;
}
