//! One identity in two places, both behind a gateway, which knows nothing of identities: the newer one wins, and the server
//! notices.

use std::process::Command;

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, DeviceConfig, PATIENCE};

use super::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_machines_with_one_key_behind_a_gateway_the_newer_wins_and_the_server_notices() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let (first, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let mut config = DeviceConfig::with_desktop(&site.desktop);
        config.set_text("system.remotemanager.connectorranking", "icg");
        let mut twin = Device::new(scratch, "twin", config)?;
        let copied = Command::new("cp")
            .arg("-a")
            .args([first.root().join("wfs"), twin.root().to_path_buf()])
            .status()?;
        ensure!(copied.success(), "{copied}");
        twin.start()?;
        twin.wait_until_online().await?;
        eventually("the first one to give way", PATIENCE, || async {
            let status = first.status().await.map_err(|error| error.to_string())?;
            match status.get("code").and_then(Value::as_str) {
                Some("superseded") => Ok(()),
                _ => Err(status.to_string()),
            }
        })
        .await?;
        site.wait_for_way(&name, Some("icg")).await?;
        // The audit log and not the mark on the device, which goes again with the new key that a suspicion leads to.
        let audit = site.console.tell(&["audit"], "").await?.to_string();
        ensure!(
            audit.contains("device.enrolled") && !audit.contains("device.clone_suspected"),
            "one takeover is no clone: {audit}"
        );
        // It comes back in a minute, or at once when a parameter is changed.
        first.set("umbra.log.level", "debug").await?;
        site.console
            .wait_for_audit("device.clone_suspected", "ok")
            .await?;
        Ok(())
    })
    .await;
}
