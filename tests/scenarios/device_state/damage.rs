//! Files that somebody damaged, and a clock that cannot be right.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use umbra_tests::eventually::{SOON, eventually};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Device, DeviceConfig};

use super::*;
use crate::enrolment::{PERMISSION, enroll, readable, refused, running, site, taken_on, text};

/// A device that a server took on finds its key like this: it refuses loudly, touches nothing, and goes on once the key is
/// as it was.
async fn refuses_a_key(
    scratch: &Scratch,
    damage: impl FnOnce(&Path) -> std::io::Result<()>,
    words: &[&str],
) -> anyhow::Result<()> {
    let (server, console) = site(scratch).await?;
    let (mut device, id) = running(scratch, "device").await?;
    taken_on(&server, &console, &device, &id).await?;
    device.kill();
    let file = key_file(device.root());
    let good = std::fs::read(&file)?;
    damage(&file)?;
    let (bad, mode) = (
        std::fs::read(&file)?,
        std::fs::metadata(&file)?.permissions(),
    );
    let place = file.display().to_string();

    let words = [&[place.as_str()], words].concat();
    refused(&device.output(&["identity"], "").await?, DATA, &words)?;
    let (code, check) = doctor(&device, "identity").await?;
    ensure!(
        code == Some(1) && check["verdict"] == "bad",
        "{code:?}: {check}"
    );
    ensure!(text(&check, "/sentence").contains(&place), "{check}");
    readable(&text(&check, "/sentence"))?;

    device.start()?;
    let status = device.wait_for_stage("no_identity").await?;
    ensure!(text(&status, "/cause").contains(&place), "{status}");
    readable(&text(&status, "/cause"))?;
    ensure!(status["shadow_port"].is_null(), "{status}");
    let (_, spare) = crate::enrolment::key(&console, &[]).await?;
    let output = enroll(
        &device,
        &server.address().to_string(),
        server.fingerprint(),
        &spare,
    )
    .await?;
    ensure!(!output.status.success(), "{}", said(&output));
    ensure!(std::fs::read(&file)? == bad, "the key was replaced");
    ensure!(std::fs::metadata(&file)?.permissions() == mode);

    // The agent looks again by itself.
    std::fs::write(&file, good)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    let status = device.wait_for_stage("online").await?;
    ensure!(text(&status, "/identity/device_id") == id, "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_may_read_is_not_used() {
    scenario(async |scratch| {
        let open =
            |file: &Path| std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644));
        refuses_a_key(scratch, open, &["644"]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_key_is_told_and_never_replaced() {
    scenario(async |scratch| {
        refuses_a_key(scratch, |file| std::fs::write(file, ""), &["key"]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_key_is_told_and_never_replaced() {
    scenario(async |scratch| {
        let damage = |file: &Path| {
            let text = std::fs::read_to_string(file)?;
            // In the middle of the base64, where the key itself is.
            let middle = text.len() / 2;
            let other = if &text[middle..=middle] == "A" {
                "B"
            } else {
                "A"
            };
            std::fs::write(
                file,
                format!("{}{other}{}", &text[..middle], &text[middle + 1..]),
            )
        };
        refuses_a_key(scratch, damage, &["key"]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_file_that_cannot_be_read_is_told_and_kept_and_its_last_readable_state_holds() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let (mut device, id) = running(scratch, "device").await?;
        taken_on(&server, &console, &device, &id).await?;
        device.set("network.vncserver.instances", "5").await?;
        device.kill();
        let file = device.root().join("wfs/umbra/registry.toml");
        let broken = "network.vncserver.instances = 7\nnetwork.vncserver.port = = 5900\n";
        std::fs::write(&file, broken)?;
        device.start()?;
        device.wait_until_online().await?;
        let warning = eventually("the warning", SOON, async || {
            let status = device.status().await.map_err(|error| error.to_string())?;
            let warning = text(&status, "/warnings/registry");
            if warning.is_empty() {
                Err(status.to_string())
            } else {
                Ok(warning)
            }
        })
        .await?;
        readable(&warning)?;
        ensure!(warning.contains("registry.toml, line 2"), "{warning}");
        let instances = async || -> anyhow::Result<String> {
            Ok(device
                .tell(
                    &["registry", "get", "network.vncserver.instances", "--json"],
                    "",
                )
                .await?)
        };
        ensure!(instances().await?.contains('5'), "{}", instances().await?);
        let (code, check) = doctor(&device, "registry").await?;
        ensure!(
            code == Some(1) && check["verdict"] == "bad",
            "{code:?}: {check}"
        );
        ensure!(
            std::fs::read_to_string(&file)? == broken,
            "it was written over"
        );

        // Setting something writes a new file, and what somebody wrote by hand is beside it.
        device.set("network.vncserver.shared", "false").await?;
        let aside = device.root().join("wfs/umbra/registry.toml.broken");
        ensure!(std::fs::read_to_string(aside)? == broken);
        ensure!(instances().await?.contains('5'), "{}", instances().await?);
        eventually("the warning to be over", SOON, async || {
            let status = device.status().await.map_err(|error| error.to_string())?;
            let warning = text(&status, "/warnings/registry");
            if warning.is_empty() {
                Ok(())
            } else {
                Err(warning)
            }
        })
        .await?;
        device.wait_until_online().await?;

        // Where nothing readable ever was, the image's parameters and the defaults hold.
        let mut fresh = Device::new(scratch, "fresh", DeviceConfig::default())?;
        std::fs::create_dir_all(fresh.root().join("wfs/umbra"))?;
        std::fs::write(
            fresh.root().join("wfs/umbra/registry.toml"),
            [0xff, 0xfe, b'='],
        )?;
        fresh.start()?;
        fresh.shadow_address().await?;
        let told = fresh
            .tell(
                &["registry", "get", "network.vncserver.instances", "--json"],
                "",
            )
            .await?;
        ensure!(told.contains("default"), "{told}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_enrolment_is_told_and_never_guessed_and_leaving_mends_it() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let (mut device, id) = running(scratch, "device").await?;
        taken_on(&server, &console, &device, &id).await?;
        device.kill();
        let file = device.root().join("wfs/umbra/enrolment.json");
        let good = std::fs::read(&file)?;
        std::fs::write(&file, &good[..good.len() / 2])?;
        device.start()?;
        let status = device.wait_for_stage("refused").await?;
        ensure!(
            text(&status, "/cause").contains("enrolment.json"),
            "{status}"
        );
        readable(&text(&status, "/cause"))?;
        let (_, key) = crate::enrolment::key(&console, &[]).await?;
        let output = enroll(
            &device,
            &server.address().to_string(),
            server.fingerprint(),
            &key,
        )
        .await?;
        refused(&output, PERMISSION, &["enrolment.json"])?;
        // As it was, it works again by itself.
        std::fs::write(&file, &good)?;
        device.wait_until_online().await?;
        device.kill();
        std::fs::write(&file, "{}")?;
        device.start()?;
        device.wait_for_stage("refused").await?;
        device.tell(&["leave"], "").await?;
        device.wait_for_stage("not_enrolled").await?;
        taken_on(&server, &console, &device, &id).await
    })
    .await;
}

/// The library that lets a program live at another time.
fn libfaketime() -> anyhow::Result<String> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let found = places
        .iter()
        .map(|place| format!("/usr/lib/{place}/faketime/libfaketime.so.1"))
        .find(|path| Path::new(path).is_file());
    found.context("libfaketime is not installed: Debian's package libfaketime has it")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_cannot_be_right_is_told_and_stands_in_nobodys_way() {
    scenario(async |scratch| {
        let screen = umbra_tests::world::desktop(scratch).await?;
        let (server, console) = site(scratch).await?;
        for (name, date) in [("old", "1970-01-02"), ("young", "2099-12-30")] {
            let mut device = Device::new(scratch, name, DeviceConfig::with_desktop(&screen))?;
            device.set_environment("LD_PRELOAD", &libfaketime()?);
            device.set_environment("FAKETIME", &format!("@{date} 00:00:00"));
            device.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            device.start()?;
            device
                .enrol(&server, &console.one_time_key().await?)
                .await?;
            let status = device.wait_for_stage("online").await?;
            let warning = text(&status, "/warnings/clock");
            ensure!(warning.contains("clock can't be right"), "{status}");
            readable(&warning)?;
            let report = device.tell(&["status"], "").await?;
            ensure!(report.contains("clock can't be right"), "{report}");
            // Both ends take the certificate that was made at that time.
            let unit = text(&status, "/identity/unit_id");
            let shadow = console
                .shadow(&unit, &[])
                .await
                .with_context(|| date.to_owned())?;
            shadow.view().await?.refresh().await?;
            // And the self-check says it too, at that time.
            let (library, time) = (
                format!("LD_PRELOAD={}", libfaketime()?),
                format!("FAKETIME=@{date} 00:00:00"),
            );
            let faked = ["env", &library, &time, "FAKETIME_DONT_FAKE_MONOTONIC=1"];
            let output = agent_under(scratch, &faked, device.root(), &["doctor"], "").await?;
            let report = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = report.lines().find(|line| line.contains("clock"));
            let line = line.context(report.clone())?;
            ensure!(line.contains("warn") && line.contains(&date[..4]), "{line}");
        }
        Ok(())
    })
    .await;
}
