//! Network cards that come late, change their names, are replaced or exchanged: the disk says who a device is.

use umbra_tests::scratch::scenario;
use umbra_tests::world::{Console, DeviceConfig};

use super::*;
use crate::enrolment::{devices, site, text};

const ONE: &str = "00:e0:c5:00:00:01";
const OTHER: &str = "00:e0:c5:00:00:02";
const THIRD: &str = "00:e0:c5:00:00:03";

/// The cards that a machine has, by name.
fn cards(root: &Path, cards: &[(&str, &str)]) -> anyhow::Result<()> {
    let all = root.join("sys/class/net");
    if all.exists() {
        std::fs::remove_dir_all(&all)?;
    }
    for (name, address) in cards {
        let folder = all.join(name);
        std::fs::create_dir_all(folder.join("device"))?;
        for (file, content) in [
            ("address", *address),
            ("type", "1"),
            ("addr_assign_type", "0"),
        ] {
            std::fs::write(folder.join(file), format!("{content}\n"))?;
        }
        std::os::unix::fs::symlink("../../../../bus/pci", folder.join("device/subsystem"))?;
    }
    Ok(())
}

/// The machine is switched on with these cards: it is online as whom it was.
async fn comes_back(device: &mut Device<'_>, with: &[(&str, &str)]) -> anyhow::Result<()> {
    let before = device.status().await?;
    device.kill();
    cards(device.root(), with)?;
    device.start()?;
    let after = device.wait_for_stage("online").await?;
    ensure!(after["identity"] == before["identity"], "{before} {after}");
    ensure!(after["warnings"] == serde_json::json!({}), "{after}");
    Ok(())
}

/// How the server files its devices: by which labels, and whether anything of them waits for an administrator.
async fn filed(console: &Console<'_>) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for device in devices(console).await? {
        ensure!(device["online"] == true, "{device}");
        ensure!(
            device.get("replacement").is_none_or(Value::is_null),
            "{device}"
        );
        all.push(text(&device, "/unit_id"));
    }
    all.sort();
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_its_network_cards_a_device_stays_who_it_is() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let mut bare = Device::new(scratch, "bare", DeviceConfig::default())?;
        let mut first = Device::new(scratch, "first", DeviceConfig::default())?;
        let mut second = Device::new(scratch, "second", DeviceConfig::default())?;
        cards(first.root(), &[("eth0", ONE), ("eth1", THIRD)])?;
        cards(second.root(), &[("eth0", OTHER)])?;
        for device in [&mut bare, &mut first, &mut second] {
            device.start()?;
            device
                .enrol(&server, &console.one_time_key().await?)
                .await?;
            device.wait_until_online().await?;
        }
        let label = bare.unit_id().await?;
        ensure!(label.starts_with('K'), "{label}");
        let wanted = ["00E0C5000001", "00E0C5000002", &label].map(str::to_owned);
        ensure!(
            filed(&console).await? == wanted,
            "{:?}",
            filed(&console).await?
        );

        // The driver comes late.
        comes_back(&mut bare, &[("eth0", THIRD)]).await?;
        // The kernel found the second card first.
        comes_back(&mut first, &[("eth0", THIRD), ("eth1", ONE)]).await?;
        // A technician exchanged the cards of two devices.
        first.kill();
        second.kill();
        cards(first.root(), &[("eth0", OTHER)])?;
        cards(second.root(), &[("eth0", ONE), ("eth1", THIRD)])?;
        for (device, unit) in [(&mut first, &wanted[0]), (&mut second, &wanted[1])] {
            device.start()?;
            let status = device.wait_for_stage("online").await?;
            ensure!(text(&status, "/identity/unit_id") == **unit, "{status}");
        }
        // And the last one was taken out.
        comes_back(&mut second, &[]).await?;
        ensure!(
            filed(&console).await? == wanted,
            "{:?}",
            filed(&console).await?
        );
        Ok(())
    })
    .await;
}
