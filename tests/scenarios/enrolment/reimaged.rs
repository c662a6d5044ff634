//! Devices that come back with another certificate, or twice with the same.

use std::process::Command;

use anyhow::ensure;
use umbra_tests::eventually::{SOON, eventually};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, DeviceConfig};

use super::*;

const MAC: &str = "00:e0:c5:12:34:56";
const UNIT: &str = "00E0C5123456";

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_installed_anew_works_again_once_an_administrator_agrees() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::default())?;
        network_card(device.root(), MAC)?;
        device.start()?;
        device
            .enrol(&server, &console.one_time_key().await?)
            .await?;
        let before = device.wait_for_stage("online").await?;
        device.kill();
        std::fs::remove_dir_all(device.root().join("wfs"))?;
        device.start()?;
        let alone = device.wait_for_stage("not_enrolled").await?;
        let id = text(&alone, "/identity/device_id");
        let presented = text(&alone, "/identity/certificate");
        ensure!(id != text(&before, "/identity/device_id"), "{alone}");

        let (key_id, key) = key(&console, &[]).await?;
        let address = server.address().to_string();
        let output = enroll(&device, &address, server.fingerprint(), &key).await?;
        let part = presented.split('-').next().unwrap_or_default();
        refused(
            &output,
            PERMISSION,
            &["[certificate_mismatch]", "dministrator", part],
        )?;
        still_alone(&device, &id).await?;

        let shown = console.tell(&["devices", "show", UNIT], "").await?;
        ensure!(
            text(&shown, "/conflicting_certificate") == presented,
            "{shown}"
        );
        ensure!(
            text(&shown, "/certificate") == text(&before, "/identity/certificate"),
            "{shown}"
        );
        let list = printed(scratch, &console, &["devices"]).await?;
        ensure!(list.contains("another certificate was presented"), "{list}");
        let whole = printed(scratch, &console, &["devices", "show", UNIT]).await?;
        ensure!(
            whole.contains("CONFLICT") && whole.contains(&presented),
            "{whole}"
        );
        let lines = audited(
            &console,
            "device.certificate_conflict",
            "certificate_mismatch",
        )
        .await?;
        ensure!(
            lines.len() == 1 && text(&lines[0], "/detail").contains(&presented),
            "{lines:?}"
        );

        // Another certificate than the one that was looked at is not accepted.
        let old = text(&before, "/identity/certificate");
        let accept = ["devices", "accept-certificate", UNIT, "--fingerprint"];
        let output = console.output(&[&accept[..], &[&old]].concat(), "").await?;
        ensure!(!output.status.success(), "{}", said(&output));
        console
            .tell(&[&accept[..], &[&presented]].concat(), "")
            .await?;
        ensure!(
            audited(&console, "device.certificate_accepted", "ok")
                .await?
                .len()
                == 1
        );
        ensure!(text(&key_on_file(&console, &key_id).await?, "/state") == "active");

        let output = enroll(&device, &address, server.fingerprint(), &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        let status = device.wait_for_stage("online").await?;
        ensure!(text(&status, "/identity/device_id") == id, "{status}");
        let on_file = devices(&console).await?;
        ensure!(
            on_file.len() == 1 && text(&on_file[0], "/id") == id,
            "{on_file:?}"
        );
        ensure!(
            on_file[0]["conflicting_certificate"].is_null(),
            "{on_file:?}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_device_whose_certificate_was_swapped_is_refused_until_an_administrator_agrees()
{
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let (mut device, id) = running(scratch, "device").await?;
        taken_on(&server, &console, &device, &id).await?;
        let unit = text(&device.status().await?, "/identity/unit_id");
        device.kill();
        device.tell(&["identity", "--replace"], "").await?;
        device.start()?;
        let status = device.wait_for_stage("refused").await?;
        ensure!(text(&status, "/code") == "certificate_mismatch", "{status}");
        readable(&text(&status, "/cause"))?;
        let presented = text(&status, "/identity/certificate");
        let accept = [
            "devices",
            "accept-certificate",
            &unit,
            "--fingerprint",
            &presented,
        ];
        console.tell(&accept, "").await?;
        // It tries again seldom; a person need not wait for it.
        device.restart_hard()?;
        device.wait_until_online().await?;
        ensure!(devices(&console).await?.len() == 1);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_copied_is_told_that_another_one_took_its_place() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let (device, id) = running(scratch, "device").await?;
        taken_on(&server, &console, &device, &id).await?;
        let mut twin = Device::new(scratch, "twin", DeviceConfig::default())?;
        let from = device.root().join("wfs");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&from)
            .arg(twin.root())
            .status()?;
        ensure!(copied.success());
        twin.start()?;
        twin.wait_until_online().await?;
        let status = eventually("the first one to be told", SOON, async || {
            let status = device.status().await.map_err(|error| error.to_string())?;
            if text(&status, "/code") == "superseded" {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
        .await?;
        readable(&text(&status, "/cause"))?;
        ensure!(text(&status, "/stage") == "waiting", "{status}");
        // They do not push each other out without end: the one that has come stays.
        twin.wait_until_online().await?;
        let on_file = devices(&console).await?;
        ensure!(
            on_file.len() == 1 && on_file[0]["online"] == true,
            "{on_file:?}"
        );
        Ok(())
    })
    .await;
}
