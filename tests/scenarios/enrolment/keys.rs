//! First-authentication keys that do not take a device on, and those that do for whom they are meant.

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::{SOON, eventually};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Console, Device, DeviceConfig, Server};

use super::*;

/// A device is refused with this code because of its key; afterwards a good key takes it on.
async fn refused_for(
    scratch: &Scratch,
    code: &str,
    bad: impl AsyncFnOnce(&Server<'_>, &Console<'_>) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let (server, console) = site(scratch).await?;
    let (device, id) = running(scratch, "device").await?;
    let bad = bad(&server, &console).await?;
    let before = audited(&console, "device.enrolled", code).await?.len();
    let address = server.address().to_string();
    let output = enroll(&device, &address, server.fingerprint(), &bad).await?;
    let told = refused(
        &output,
        PERMISSION,
        &[&format!("[{code}]"), "dministrator", "key"],
    )?;
    ensure!(!told.contains(&bad), "the key is in: {told}");
    let lines = audited(&console, "device.enrolled", code).await?;
    ensure!(lines.len() == before + 1, "{lines:?}");
    ensure!(
        text(&lines[0], "/actor").starts_with("device:")
            && text(&lines[0], "/detail").contains("127.0.0.1"),
        "{lines:?}"
    );
    ensure!(
        text(&still_alone(&device, &id).await?, "/code") == code,
        "the status does not say why"
    );
    taken_on(&server, &console, &device, &id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_and_the_device_can_be_taken_on_with_a_right_one() {
    scenario(async |scratch| {
        refused_for(scratch, "key_not_accepted", async |_, console| {
            let (_, right) = key(console, &[]).await?;
            let last = if right.ends_with('7') { "8" } else { "7" };
            Ok(format!("{}{last}", &right[..right.len() - 1]))
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_took_another_device_on_is_refused() {
    scenario(async |scratch| {
        refused_for(scratch, "key_used", async |server, console| {
            let first = Device::new(scratch, "first", DeviceConfig::default())?;
            let (_, one) = key(console, &[]).await?;
            let address = server.address().to_string();
            let output = enroll(&first, &address, server.fingerprint(), &one).await?;
            ensure!(output.status.success(), "{}", said(&output));
            Ok(one)
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_time_is_over_is_refused() {
    scenario(async |scratch| {
        refused_for(scratch, "key_expired", async |_, console| {
            let (id, short) = key(console, &["--expires", "1s"]).await?;
            eventually("the key to expire", SOON, async || {
                match key_on_file(console, &id).await {
                    Ok(key) if text(&key, "/state") == "expired" => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            Ok(short)
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_an_administrator_revoked_is_refused() {
    scenario(async |scratch| {
        refused_for(scratch, "key_revoked", async |_, console| {
            let (id, revoked) = key(console, &[]).await?;
            console.tell(&["keys", "revoke", &id], "").await?;
            Ok(revoked)
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_another_unit_is_refused() {
    scenario(async |scratch| {
        refused_for(scratch, "key_for_other_unit", async |_, console| {
            Ok(key(console, &["--unit", "00E0C5FFFFFF"]).await?.1)
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_this_unit_takes_it_on_once() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::default())?;
        network_card(device.root(), "00:e0:c5:12:34:56")?;
        device.start()?;
        let (id, bound) = key(&console, &["--unit", "00E0C5123456"]).await?;
        device.enrol(&server, &bound).await?;
        device.wait_until_online().await?;
        ensure!(text(&key_on_file(&console, &id).await?, "/state") == "used");
        // Another device that poses as this unit has another certificate, and the key is spent.
        let thief = Device::new(scratch, "thief", DeviceConfig::default())?;
        network_card(thief.root(), "00:e0:c5:12:34:56")?;
        let address = server.address().to_string();
        let output = enroll(&thief, &address, server.fingerprint(), &bound).await?;
        refused(&output, PERMISSION, &["[key_used]"])?;
        device.wait_until_online().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_key_takes_on_as_many_devices_as_it_may_and_each_of_them_again() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let (id, mass) = key(&console, &["--mass", "--quota", "2", "--tag", "hq"]).await?;
        let address = server.address().to_string();
        let mut all = Vec::new();
        for name in ["a", "b", "c"] {
            all.push(Device::new(scratch, name, DeviceConfig::default())?);
        }
        for device in &all[..2] {
            let output = enroll(device, &address, server.fingerprint(), &mass).await?;
            ensure!(output.status.success(), "{}", said(&output));
        }
        let output = enroll(&all[2], &address, server.fingerprint(), &mass).await?;
        refused(&output, PERMISSION, &["[key_quota]", "as many devices"])?;
        ensure!(
            audited(&console, "device.enrolled", "key_quota")
                .await?
                .len()
                == 1
        );
        // A device whose disk has lost the server's answer is given the same answer, not another place.
        std::fs::remove_file(all[0].root().join("wfs/umbra/enrolment.json"))?;
        let output = enroll(&all[0], &address, server.fingerprint(), &mass).await?;
        ensure!(output.status.success(), "{}", said(&output));
        ensure!(key_on_file(&console, &id).await?.get("used") == Some(&Value::from(2)));
        ensure!(devices(&console).await?.len() == 2);
        all[0].start()?;
        all[0].wait_until_online().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_six_devices_that_come_with_one_key_at_once_exactly_one_is_taken_on() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let (_, one) = key(&console, &[]).await?;
        let address = server.address().to_string();
        let mut all = Vec::new();
        for name in ["a", "b", "c", "d", "e", "f"] {
            let device = Device::new(scratch, name, DeviceConfig::default())?;
            device.tell(&["identity"], "").await?;
            all.push(device);
        }
        let come = async |at: usize| enroll(&all[at], &address, server.fingerprint(), &one).await;
        let (a, b, c, d, e, f) = tokio::join!(come(0), come(1), come(2), come(3), come(4), come(5));
        let mut winners = Vec::new();
        for (device, output) in all.iter().zip([a?, b?, c?, d?, e?, f?]) {
            let kept = device.root().join("wfs/umbra/enrolment.json").exists();
            ensure!(kept == output.status.success(), "{}", said(&output));
            if kept {
                winners.push(output);
            } else {
                refused(&output, PERMISSION, &["[key_used]"])?;
            }
        }
        ensure!(winners.len() == 1, "{} were taken on", winners.len());
        ensure!(devices(&console).await?.len() == 1);
        ensure!(audited(&console, "device.enrolled", "ok").await?.len() == 1);
        ensure!(
            audited(&console, "device.enrolled", "key_used")
                .await?
                .len()
                == 5
        );
        Ok(())
    })
    .await;
}
