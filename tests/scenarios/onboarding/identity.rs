//! Who a device is, whatever happens to its disk, its adapters and its place in the administrators' list.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Console, Device, DeviceConfig};

use crate::enrolment::{
    PERMISSION, audited, devices, enroll, key, network_card, printed, readable, refused, running,
    said, site, taken_on, text,
};

const MAC: &str = "00:e0:c5:12:34:56";
const UNIT: &str = "00E0C5123456";
/// A device that gave way to another one tries again about every minute, unless something on it changes.
const TURNS: Duration = Duration::from_secs(150);

fn copy_of_disk(from: &Device<'_>, to: &Device<'_>) -> anyhow::Result<()> {
    let copied = Command::new("cp")
        .arg("-a")
        .args([from.root().join("wfs"), to.root().to_path_buf()])
        .status()?;
    ensure!(copied.success(), "{copied}");
    Ok(())
}

async fn the_one(console: &Console<'_>) -> anyhow::Result<Value> {
    let on_file = devices(console).await?;
    ensure!(on_file.len() == 1, "{on_file:?}");
    Ok(on_file[0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_installed_anew_twice_is_one_replacement_that_waits_and_one_device() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::default())?;
        network_card(device.root(), MAC)?;
        device.start()?;
        device
            .enrol(&server, &console.one_time_key().await?)
            .await?;
        device.wait_for_stage("online").await?;
        let (_, key) = key(&console, &["--mass"]).await?;
        let address = server.address().to_string();
        let mut presented = Vec::new();
        for _ in 0..2 {
            device.kill();
            std::fs::remove_dir_all(device.root().join("wfs"))?;
            device.start()?;
            let alone = device.wait_for_stage("not_enrolled").await?;
            ensure!(text(&alone, "/identity/unit_id") == UNIT, "{alone}");
            presented.push(text(&alone, "/identity/certificate"));
            let output = enroll(&device, &address, server.fingerprint(), &key).await?;
            refused(&output, PERMISSION, &["[certificate_mismatch]"])?;
        }
        // However often it was installed anew, the newest is the one that waits.
        let waiting = the_one(&console).await?;
        ensure!(
            text(&waiting, "/conflicting_certificate") == presented[1]
                && presented[0] != presented[1]
                && waiting["online"] == false,
            "{waiting}"
        );
        let list = printed(scratch, &console, &["devices"]).await?;
        let how = format!("umbra devices accept-certificate {UNIT}");
        ensure!(
            list.matches("REPLACEMENT PENDING").count() == 1
                && list.contains("one replacement waits")
                && list.contains(&how),
            "{list}"
        );
        // What the list says is what helps.
        let mut words: Vec<&str> = how.split(' ').skip(1).collect();
        words.extend(["--fingerprint", &presented[1]]);
        console.tell(&words, "").await?;
        let output = enroll(&device, &address, server.fingerprint(), &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        device.wait_for_stage("online").await?;
        let one = the_one(&console).await?;
        ensure!(
            text(&one, "/certificate") == presented[1] && one["conflicting_certificate"].is_null(),
            "{one}"
        );
        let list = printed(scratch, &console, &["devices"]).await?;
        ensure!(!list.contains("PENDING"), "{list}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_disk_stands_in_the_administrators_list_with_what_to_do_until_it_is_mended() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let (first, id) = running(scratch, "first").await?;
        taken_on(&server, &console, &first, &id).await?;
        let unit = text(&first.status().await?, "/identity/unit_id");
        let mut twin = Device::new(scratch, "twin", DeviceConfig::default())?;
        copy_of_disk(&first, &twin)?;
        twin.start()?;
        twin.wait_until_online().await?;
        wait_for(&first, "superseded").await?;
        first.set("umbra.log.level", "debug").await?;
        // The machine that comes back shows that there are two, and gets a new key.
        eventually("the first one to have a new key", TURNS, async || {
            let status = first.status().await.map_err(|error| error.to_string())?;
            if text(&status, "/identity/device_id") != id && text(&status, "/stage") == "online" {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await?;
        ensure!(
            audited(&console, "device.clone_suspected", "ok")
                .await?
                .len()
                == 1
        );
        let rekeyed = audited(&console, "command.given", "ok").await?;
        ensure!(
            rekeyed
                .iter()
                .any(|line| text(line, "/detail").starts_with("rekey to ")),
            "{rekeyed:?}"
        );
        // The other one is detected as well, and not only told so itself.
        wait_for(&twin, "superseded").await?;
        twin.set("umbra.log.level", "debug").await?;
        wait_for(&twin, "certificate_mismatch").await?;
        let one = the_one(&console).await?;
        ensure!(
            one["copy_refused_at"].is_i64() && one["online"] == true,
            "{one}"
        );
        let list = printed(scratch, &console, &["devices"]).await?;
        ensure!(
            list.contains("a copy of it is refused")
                && list.contains(&format!("umbra devices show {unit}")),
            "{list}"
        );
        let shown = printed(scratch, &console, &["devices", "show", &unit]).await?;
        let mend = "umbra-agent identity --replace --new-unit-id";
        ensure!(shown.contains(mend) && shown.contains("COPY"), "{shown}");
        // What it says helps, and the mark goes.
        twin.kill();
        let words: Vec<&str> = mend.split(' ').skip(1).collect();
        twin.tell(&words, "").await?;
        twin.start()?;
        twin.wait_for_stage("refused").await?;
        twin.enrol(&server, &console.one_time_key().await?).await?;
        twin.wait_until_online().await?;
        first.wait_until_online().await?;
        console.tell(&["devices", "not-cloned", &unit], "").await?;
        let list = printed(scratch, &console, &["devices"]).await?;
        ensure!(
            !list.contains("copy") && list.matches("online").count() == 2,
            "{list}"
        );
        Ok(())
    })
    .await;
}

async fn wait_for(device: &Device<'_>, code: &str) -> anyhow::Result<Value> {
    let what = format!("a device to be told {code}");
    Ok(eventually(&what, TURNS, async || {
        let status = device.status().await.map_err(|error| error.to_string())?;
        if text(&status, "/code") == code {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    })
    .await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_deleted_while_it_was_away_stays_deleted_until_it_has_a_new_key() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::default())?;
        network_card(device.root(), MAC)?;
        device.start()?;
        let (_, mass) = key(&console, &["--mass"]).await?;
        device.enrol(&server, &mass).await?;
        device.wait_until_online().await?;
        device.kill();
        console.tell(&["devices", "remove", UNIT], "").await?;
        ensure!(devices(&console).await?.is_empty());
        for _ in 0..2 {
            device.start()?;
            let status = wait_for(&device, "device_removed").await?;
            ensure!(text(&status, "/stage") == "refused", "{status}");
            let cause = text(&status, "/cause");
            readable(&cause)?;
            ensure!(cause.contains("administrator removed"), "{cause}");
            ensure!(devices(&console).await?.is_empty());
            device.kill();
        }
        // On record, and once.
        let lines = audited(&console, "device.removed_refused", "device_removed").await?;
        ensure!(
            lines.len() == 1 && text(&lines[0], "/detail").contains("127.0.0.1"),
            "{lines:?}"
        );
        // The key that lies in the image does not bring it back, not even with a new identity.
        let address = server.address().to_string();
        device.start()?;
        wait_for(&device, "device_removed").await?;
        let output = enroll(&device, &address, server.fingerprint(), &mass).await?;
        refused(&output, PERMISSION, &["[device_removed]", "new key"])?;
        device.kill();
        std::fs::remove_dir_all(device.root().join("wfs"))?;
        device.start()?;
        device.wait_for_stage("not_enrolled").await?;
        let output = enroll(&device, &address, server.fingerprint(), &mass).await?;
        refused(&output, PERMISSION, &["[device_removed]", "new key"])?;
        ensure!(devices(&console).await?.is_empty());
        let output = enroll(
            &device,
            &address,
            server.fingerprint(),
            &console.one_time_key().await?,
        )
        .await?;
        ensure!(output.status.success(), "{}", said(&output));
        device.wait_until_online().await?;
        ensure!(text(&the_one(&console).await?, "/unit_id") == UNIT);
        Ok(())
    })
    .await;
}

/// An adapter as the kernel describes it: with its device, where it has one, behind something that can be pulled out or not.
fn adapter(
    root: &Path,
    name: &str,
    mac: &str,
    bus: Option<&str>,
    port: &str,
) -> anyhow::Result<()> {
    let folder = root.join("sys/class/net").join(name);
    std::fs::create_dir_all(&folder)?;
    for (file, content) in [("address", mac), ("type", "1"), ("addr_assign_type", "0")] {
        std::fs::write(folder.join(file), format!("{content}\n"))?;
    }
    if let Some(bus) = bus {
        let device = root.join("sys/devices/port").join(name);
        std::fs::create_dir_all(&device)?;
        std::fs::write(device.join("removable"), format!("{port}\n"))?;
        symlink(format!("../../../bus/{bus}"), device.join("subsystem"))?;
        symlink(&device, folder.join("device"))?;
    }
    Ok(())
}

/// The device's state on a USB stick, as the kernel describes it.
fn stick(root: &Path, serial: &str) -> anyhow::Result<()> {
    let usb = root.join("sys/devices/usb1/1-2");
    let block = usb.join("block/sdb/sdb2");
    std::fs::create_dir_all(&block)?;
    std::fs::write(usb.join("idVendor"), "0781\n")?;
    std::fs::write(usb.join("serial"), format!("{serial}\n"))?;
    std::fs::create_dir_all(root.join("sys/dev/block"))?;
    symlink(&block, root.join("sys/dev/block/8:18"))?;
    std::fs::create_dir_all(root.join("proc/self"))?;
    let mounts =
        "21 1 0:19 / / rw - overlay overlay rw\n22 21 8:18 / /wfs rw - ext4 /dev/sdb2 rw\n";
    Ok(std::fs::write(root.join("proc/self/mountinfo"), mounts)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_dock_nor_vpn_names_a_device_and_a_system_on_a_stick_is_the_stick() {
    scenario(async |scratch| {
        let unit = async |name: &str, lay: &dyn Fn(&Path) -> anyhow::Result<()>| {
            let device = Device::new(scratch, name, DeviceConfig::default())?;
            lay(device.root())?;
            let told = device.tell(&["identity"], "").await?;
            let value = |label: &str| -> String {
                let line = told.lines().find_map(|line| line.strip_prefix(label));
                line.unwrap_or_default().trim().to_owned()
            };
            anyhow::Ok((value("unit ID"), value("device ID")))
        };
        let dock_and_vpn = |root: &Path| {
            adapter(root, "tap0", "00:00:00:00:00:02", None, "")?;
            adapter(root, "eth9", "00:00:00:00:00:04", Some("pci"), "removable")?;
            adapter(root, "enx1", "00:00:00:00:00:06", Some("usb"), "removable")
        };
        let (own, _) = unit("own", &|root| {
            dock_and_vpn(root)?;
            adapter(root, "wlan0", "00:e0:c5:00:00:08", Some("pci"), "fixed")
        })
        .await?;
        ensure!(own == "00E0C5000008", "{own}");
        let (bare, id) = unit("bare", &dock_and_vpn).await?;
        ensure!(bare == format!("K{}", &id.to_uppercase()[..12]), "{bare}");
        let (on_stick, _) = unit("stick", &|root| {
            dock_and_vpn(root)?;
            network_card(root, MAC)?;
            stick(root, "4C530001230919101234")
        })
        .await?;
        ensure!(on_stick == "4C530001230919101234", "{on_stick}");
        Ok(())
    })
    .await;
}
