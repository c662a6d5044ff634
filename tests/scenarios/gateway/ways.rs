//! The way of a device changes: by the toggle, by a move to another gateway, by giving gateways up. Nothing is lost on the way,
//! and what does not work changes nothing.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, DeviceConfig, Gateway, GatewayConfig, PATIENCE};

use super::site::Site;

const TOGGLE: &str = "system.remotemanager.enable_icg";

/// The ways that a device names in its status, as (kind, address, in use, why not).
async fn ways(device: &Device<'_>) -> anyhow::Result<Vec<(String, String, bool, Option<String>)>> {
    let status = device.status().await?;
    let ways = status.get("ways").and_then(Value::as_array);
    let text = |way: &Value, name: &str| way.get(name).and_then(Value::as_str).map(str::to_owned);
    let ways = ways.with_context(|| status.to_string())?.iter();
    Ok(ways
        .map(|way| {
            (
                text(way, "kind").unwrap_or_default(),
                text(way, "address").unwrap_or_default(),
                way.get("in_use").and_then(Value::as_bool) == Some(true),
                text(way, "trouble"),
            )
        })
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_toggle_changes_the_way_at_once_and_a_running_session_and_a_queued_command_survive_it()
{
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let config = DeviceConfig::with_desktop(&site.desktop);
        let (device, name) = site.device_with(scratch, None, "device", config).await?;
        device.set(TOGGLE, "true").await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let mut shadow = site.console.shadow(&name, &["--reason", "toggle"]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;

        device.set(TOGGLE, "false").await?;
        let command = [
            "devices",
            "command",
            "--wait",
            &name,
            "message",
            "In between.",
        ];
        let answer = site.console.tell(&command, "").await?;
        ensure!(
            answer.get("state").and_then(Value::as_str) == Some("done"),
            "{answer}"
        );
        site.wait_for_way(&name, None).await?;
        viewer.type_text("still here").await?;
        viewer.refresh().await?;
        // By the server this time, and with the session still there.
        let setting = format!("{TOGGLE}=true");
        site.console
            .tell(&["devices", "settings", &name, &setting], "")
            .await?;
        site.wait_for_way(&name, Some("icg")).await?;
        viewer.refresh().await?;
        ensure!(
            site.desktop.typed() == "still here",
            "{}",
            site.desktop.typed()
        );
        viewer.leave().await?;
        shadow.ended().await?;
        let (status, said) = shadow.finished().await?;
        ensure!(status.success(), "{status}: {said}");
        let status = device.status().await?.to_string();
        ensure!(status.matches("In between.").count() == 1, "{status}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_toggle_to_a_gateway_that_is_gone_leaves_the_device_reachable_and_its_status_says_why() {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let config = DeviceConfig::with_desktop(&site.desktop);
        let (device, name) = site.device_with(scratch, None, "device", config).await?;
        device.set(TOGGLE, "false").await?;
        site.wait_for_way(&name, None).await?;
        site.gateway.program().kill();
        device.set(TOGGLE, "true").await?;
        eventually("the status to name both ways", PATIENCE, || async {
            let ways = ways(&device).await.map_err(|error| error.to_string())?;
            let says = |kind: &str, in_use: bool, trouble: bool| {
                ways.iter().any(|(of, _, used, why)| {
                    of == kind && *used == in_use && why.is_some() == trouble
                })
            };
            if says("icg", false, true) && says("ums", true, false) {
                Ok(())
            } else {
                Err(format!("{ways:?}"))
            }
        })
        .await?;
        site.wait_for_way(&name, None).await?;
        site.gateway.start_again().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_takes_place_when_the_new_gateway_works_and_changes_nothing_when_it_does_not() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let config = GatewayConfig {
            name: "other".into(),
            ..GatewayConfig::default()
        };
        let mut other = Gateway::start(scratch, &site.console, config).await?;
        other.wait_until_attached(&site.console, true).await?;
        let (device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;

        let to_other = ["gateways", "move", &name, "--to", "other"];
        site.console.tell(&to_other, "").await?;
        site.wait_for_way(&name, Some("other")).await?;

        site.gateway
            .wait_until_attached(&site.console, true)
            .await?;
        other.program().kill();
        other.start_again().await?;
        other.wait_until_attached(&site.console, true).await?;
        site.wait_for_way(&name, Some("other")).await?;

        // A gateway that answers nobody.
        let nowhere = ["gateways", "set", "icg", "--external", "127.0.0.1:9"];
        site.console.tell(&nowhere, "").await?;
        let before = ways(&device).await?;
        let back = ["gateways", "move", &name, "--to", "icg"];
        let output = site.console.output(&back, "").await?;
        ensure!(!output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        ensure!(
            said.contains("127.0.0.1") && said.contains("refuses connections"),
            "the operator is not told why: {said}"
        );
        site.wait_for_way(&name, Some("other")).await?;
        let addresses = |ways: &[(String, String, bool, Option<String>)]| -> Vec<String> {
            ways.iter().map(|way| way.1.clone()).collect()
        };
        ensure!(
            addresses(&before) == addresses(&ways(&device).await?),
            "the ways have changed"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_are_taken_from_a_device_only_while_it_is_linked_directly() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let config = DeviceConfig::with_desktop(&site.desktop);
        let (mut device, name) = site.device_with(scratch, None, "device", config).await?;
        device.set(TOGGLE, "true").await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let detach = ["gateways", "detach", &name];
        let output = site.console.output(&detach, "").await?;
        ensure!(
            !output.status.success(),
            "a device was cut off from its only way: {output:?}"
        );
        device.set(TOGGLE, "false").await?;
        site.wait_for_way(&name, None).await?;
        site.console.tell(&detach, "").await?;
        // Whoever allows gateways again finds none, also after a restart.
        device.set(TOGGLE, "true").await?;
        device.restart_hard()?;
        device.wait_until_up().await?;
        device.wait_until_online().await?;
        site.wait_for_way(&name, None).await?;
        let ways = ways(&device).await?;
        ensure!(
            !ways.is_empty() && ways.iter().all(|way| way.0 == "ums"),
            "the device still knows a gateway: {ways:?}"
        );
        Ok(())
    })
    .await;
}
