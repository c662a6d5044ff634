//! Lines that fail in silence, run slowly, or belong to a device that is there twice.

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::eventually_is;
use umbra_tests::fault_proxy::{Fault, FaultProxy};
use umbra_tests::netns::{Island, Line, isolate};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{DeviceConfig, PATIENCE};

use super::site::Site;

#[tokio::test]
async fn a_pulled_cable_shows_at_both_ends_and_the_device_is_back_when_it_is_plugged() {
    scenario(async |scratch| {
        isolate()?;
        let island = Island::new(scratch, 1).await?;
        let site = Site::start_for(scratch, &island).await?;
        let (device, name) = site.device(scratch, Some(&island)).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        island.pull(scratch).await?;
        site.wait_until_offline(&name).await?;
        let status = device.wait_for_stage("waiting").await?;
        ensure!(
            status.get("cause").and_then(Value::as_str).is_some(),
            "{status}"
        );
        island.plug(scratch).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        device.wait_until_online().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn over_a_long_line_that_loses_and_shuffles_packets_a_device_is_taken_on_managed_and_seen() {
    scenario(async |scratch| {
        isolate()?;
        let line = Line {
            delay: 60,
            jitter: 40,
            loss: 3,
            rate: 1_000_000,
        };
        let island = Island::far(scratch, 1, line).await?;
        let site = Site::start_for(scratch, &island).await?;
        let (_device, name) = site.device(scratch, Some(&island)).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let command = [
            "devices",
            "command",
            "--wait",
            &name,
            "message",
            "Far away.",
        ];
        let answer = site.console.tell(&command, "").await?;
        ensure!(
            answer.get("state").and_then(Value::as_str) == Some("done"),
            "{answer}"
        );
        let mut shadow = site.console.shadow(&name, &["--reason", "far"]).await?;
        let mut viewer = shadow.view().await?;
        viewer.type_text("far").await?;
        eventually_is("the keys to arrive", PATIENCE, || {
            match site.desktop.typed().as_str() {
                "far" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        viewer.leave().await?;
        shadow.ended().await?;
        let (status, said) = shadow.finished().await?;
        ensure!(status.success(), "{status}: {said}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_device_that_comes_back_takes_over_from_its_half_open_predecessor() {
    scenario(async |scratch| {
        isolate()?;
        let island = Island::new(scratch, 1).await?;
        let site = Site::start_for(scratch, &island).await?;
        let (mut device, name) = site.device(scratch, Some(&island)).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        // Its end of the connection dies without a word: the gateway still holds the other.
        island.pull(scratch).await?;
        device.kill();
        island.plug(scratch).await?;
        device.start()?;
        device.wait_until_up().await?;
        device.wait_until_online().await?;
        let shown = site.wait_for_way(&name, Some("icg")).await?;
        ensure!(
            shown.get("clone_suspected_at") == Some(&Value::Null),
            "a restart was taken for a clone: {shown}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_slow_line_a_device_is_taken_on_and_one_that_takes_nothing_delays_nobody() {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let line = FaultProxy::start(site.gateway.internal()).await?;
        site.gateway.put_behind(line.address());
        let front = line.address().to_string();
        let set = ["gateways", "set", "icg", "--external", &front];
        site.console.tell(&set, "").await?;
        line.set(Fault::Slow(8_000));
        let (slow, slow_name) = site.device(scratch, None).await?;
        site.wait_for_way(&slow_name, Some("icg")).await?;

        // From now on its line takes nothing at all, while a lot is meant for it.
        line.set(Fault::Stall);
        let direct = FaultProxy::start(site.gateway.internal()).await?;
        site.gateway.put_behind(direct.address());
        let quick = DeviceConfig::with_desktop(&site.desktop);
        let (_quick, name) = site.device_with(scratch, None, "quick", quick).await?;
        for _ in 0..50 {
            let text = "x".repeat(2_000);
            let command = ["devices", "command", &slow_name, "message", &text];
            site.console.tell(&command, "").await?;
        }
        let command = ["devices", "command", "--wait", &name, "message", "Hello."];
        let answer = site.console.tell(&command, "").await?;
        ensure!(
            answer.get("state").and_then(Value::as_str) == Some("done"),
            "{answer}"
        );
        line.set(Fault::Pass);
        slow.wait_until_online().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_hands_over_byte_by_byte_carries_a_whole_session() {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let line = FaultProxy::start(site.gateway.internal()).await?;
        site.gateway.put_behind(line.address());
        let front = line.address().to_string();
        let set = ["gateways", "set", "icg", "--external", &front];
        site.console.tell(&set, "").await?;
        line.set(Fault::Slice);
        let (_device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        line.set(Fault::Slow(2_000_000));
        let mut shadow = site.console.shadow(&name, &["--reason", "far"]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        viewer.leave().await?;
        shadow.ended().await?;
        let (status, said) = shadow.finished().await?;
        ensure!(status.success(), "{status}: {said}");
        Ok(())
    })
    .await;
}
