//! Lines that fail in silence, run slowly, or belong to a device that is there twice.

use std::net::SocketAddr;

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::eventually_is;
use umbra_tests::fault_proxy::{Fault, FaultProxy};
use umbra_tests::netns::{Island, Line, isolate};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{
    Console, Device, DeviceConfig, Gateway, GatewayConfig, PATIENCE, Server, ServerConfig, desktop,
};

use super::metrics::Metrics;
use super::site::Site;

/// What a gateway says of all that it handed over to devices.
const TO_DEVICES: &str = "umbra_gateway_bytes_to_devices_total";

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
        site.wait_for_way(&name, Some("icg")).await?;
        // What the predecessor leaves behind takes nothing from it.
        let command = ["devices", "command", "--wait", &name, "message", "Back?"];
        let answer = site.console.tell(&command, "").await?;
        ensure!(
            answer.get("state").and_then(Value::as_str) == Some("done"),
            "{answer}"
        );
        // The audit log and not the mark on the device, which goes again with the new key that a suspicion leads to.
        let audit = site.console.tell(&["audit"], "").await?.to_string();
        ensure!(
            audit.contains("device.enrolled") && !audit.contains("device.clone_suspected"),
            "a restart was taken for a clone: {audit}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn over_a_slow_line_a_device_is_taken_on_and_one_that_takes_nothing_delays_nobody() {
    scenario(async |scratch| {
        isolate()?;
        let island = Island::new(scratch, 1).await?;
        let desktop = desktop(scratch).await?;
        // A device that takes nothing has to be there for a while before it is given up.
        let patient = ServerConfig {
            heartbeat: 40,
            ..ServerConfig::default()
        };
        let server = Server::start(scratch, patient).await?;
        let console = Console::administrator(scratch, &server).await?;
        let on_the_cable = GatewayConfig {
            external: island.site(),
            ..GatewayConfig::default()
        };
        let gateway = Gateway::start(scratch, &console, on_the_cable).await?;
        gateway.wait_until_attached(&console, true).await?;
        let line = FaultProxy::start(gateway.internal()).await?;
        let make = async |folder: &str, island: Option<&Island>, address: SocketAddr| {
            let mut config = DeviceConfig::with_desktop(&desktop);
            config.set_text("system.remotemanager.connectorranking", "icg");
            let mut device = Device::new(scratch, folder, config)?;
            if let Some(island) = island {
                device.put_on(island);
            }
            device.start()?;
            let key = console.one_time_key().await?;
            let fingerprint = server.fingerprint();
            device.enrol_at(address, fingerprint, &key).await?;
            device.wait_until_online().await?;
            let name = device.unit_id().await?;
            anyhow::Ok((device, name))
        };

        line.set(Fault::Slow(8_000));
        let (_slow, slow) = make("slow", None, line.address()).await?;
        line.set(Fault::Pass);
        let (deaf, deaf_name) = make("deaf", Some(&island), gateway.external()).await?;
        let metrics = || Metrics::read(gateway.metrics());
        let admitted = metrics().await?.get("umbra_gateway_admitted_total");

        // From now on its line takes nothing at all, while a lot is meant for it: more than the system keeps for a line.
        island.pull(scratch).await?;
        let before = metrics().await?.get(TO_DEVICES);
        let text = "x".repeat(4_000);
        for _ in 0..60 {
            let command = ["devices", "command", &deaf_name, "message", &text];
            console.tell(&command, "").await?;
        }
        let done = async |name: &str, text: &str| {
            let command = ["devices", "command", "--wait", name, "message", text];
            let answer = console.tell(&command, "").await?;
            let state = answer.get("state").and_then(Value::as_str);
            ensure!(state == Some("done"), "{answer}");
            Ok(())
        };
        done(&slow, "Hello.").await?;
        let went = metrics().await?.get(TO_DEVICES) - before;
        ensure!(
            went < 160_000.0,
            "{went} bytes of 240,000 went to a line that takes nothing"
        );
        island.plug(scratch).await?;
        done(&deaf_name, "Still there?").await?;
        deaf.wait_until_online().await?;
        ensure!(
            metrics().await?.get("umbra_gateway_admitted_total") == admitted,
            "somebody was dropped"
        );
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
        // A whole screen byte by byte would only take the relay long.
        line.set(Fault::Slow(2_000_000));
        viewer.refresh().await?;
        viewer.leave().await?;
        shadow.ended().await?;
        let (status, said) = shadow.finished().await?;
        ensure!(status.success(), "{status}: {said}");
        Ok(())
    })
    .await;
}
