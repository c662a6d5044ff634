//! A device whose disk was copied: the server notices, has the key replaced, and exactly one machine stays that device.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, DeviceConfig};

use crate::enrolment::{audited, devices, network_card, printed, readable, site, text};

const MAC: &str = "00:e0:c5:12:34:56";
const OTHER_MAC: &str = "00:e0:c5:99:99:99";
/// A device that gave way to another one tries again about every minute, unless something on it changes.
const TURNS: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn of_two_machines_with_one_key_one_gets_a_new_key_and_the_other_is_told_what_to_do() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let mut first = Device::new(scratch, "first", DeviceConfig::default())?;
        network_card(first.root(), MAC)?;
        first.start()?;
        first.enrol(&server, &console.one_time_key().await?).await?;
        let before = first.wait_for_stage("online").await?;

        // Restarts and reconnects are nothing but that.
        for _ in 0..3 {
            first.restart_hard()?;
            first.wait_until_online().await?;
        }
        ensure!(devices(&console).await?[0]["clone_suspected_at"].is_null());

        let mut twin = Device::new(scratch, "twin", DeviceConfig::default())?;
        network_card(twin.root(), OTHER_MAC)?;
        let copied = Command::new("cp")
            .arg("-a")
            .args([first.root().join("wfs"), twin.root().to_path_buf()])
            .status()?;
        ensure!(copied.success());
        twin.start()?;
        twin.wait_until_online().await?;
        // Whoever gave way tries again in about a minute, and at once when a parameter is changed.
        gave_way(&first).await?;
        first.set("umbra.log.level", "debug").await?;
        let old = text(&before, "/identity/device_id");
        let after = eventually("the first one to have a new key", TURNS, async || {
            let status = first.status().await.map_err(|error| error.to_string())?;
            if text(&status, "/identity/device_id") != old && text(&status, "/stage") == "online" {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
        .await?;
        gave_way(&twin).await?;
        twin.set("umbra.log.level", "debug").await?;
        let status = twin.wait_for_stage("refused").await?;
        ensure!(text(&status, "/code") == "certificate_mismatch", "{status}");
        let told = text(&status, "/cause");
        readable(&told)?;
        ensure!(told.contains("identity --replace"), "{told}");
        first.wait_until_online().await?;
        let on_file = devices(&console).await?;
        ensure!(
            on_file.len() == 1 && on_file[0]["online"] == true,
            "{on_file:?}"
        );
        ensure!(
            text(&on_file[0], "/id") == text(&after, "/identity/device_id")
                && on_file[0]["clone_suspected_at"].is_null()
                && on_file[0]["conflicting_certificate"].is_null(),
            "{on_file:?}"
        );
        for (action, outcome) in [
            ("device.clone_suspected", "ok"),
            ("device.copy_refused", "certificate_mismatch"),
        ] {
            let lines = audited(&console, action, outcome).await?;
            ensure!(lines.len() == 1, "{action}: {lines:?}");
        }
        let list = printed(scratch, &console, &["devices"]).await?;
        ensure!(!list.contains("CLONED"), "{list}");

        // What it was told to do helps.
        twin.kill();
        twin.tell(&["identity", "--replace", "--new-unit-id"], "")
            .await?;
        twin.start()?;
        twin.wait_for_stage("refused").await?;
        twin.enrol(&server, &console.one_time_key().await?).await?;
        twin.wait_until_online().await?;
        first.wait_until_online().await?;
        ensure!(devices(&console).await?.len() == 2);
        Ok(())
    })
    .await;
}

async fn gave_way(device: &Device<'_>) -> anyhow::Result<()> {
    eventually("a device to give way", TURNS, async || {
        let status = device.status().await.map_err(|error| error.to_string())?;
        if text(&status, "/code") == "superseded" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await?;
    Ok(())
}
