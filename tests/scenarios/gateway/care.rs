//! Looking after a gateway: its limit, its status for monitoring, a new certificate while it runs, and going down in order.

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{DeviceConfig, PATIENCE};

use super::metrics::Metrics;
use super::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_limit_a_gateway_turns_devices_away_with_the_fields_words_until_there_is_room() {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let (_first, first) = site.device(scratch, None).await?;
        site.wait_for_way(&first, Some("icg")).await?;
        let set = ["gateways", "set", "icg", "--limit", "1"];
        site.console.tell(&set, "").await?;
        let mut config = DeviceConfig::with_desktop(&site.desktop);
        config.set_text("system.remotemanager.connectorranking", "icg");
        let mut second = umbra_tests::world::Device::new(scratch, "second", config)?;
        second.start()?;
        second.wait_until_up().await?;
        let name = second.unit_id().await?;
        let key = site.console.one_time_key().await?;
        let (address, fingerprint) = (site.gateway.external(), site.server.fingerprint());
        let refused = second.enrol_at(address, fingerprint, &key).await;
        let refused = refused.err().context("there was room for a second one")?;
        ensure!(
            format!("{refused:?}").contains("connection_limit"),
            "{refused:?}"
        );
        let words = format!("Max connections limit has exceeded. Device [{name}] is rejected");
        site.gateway.program().wait_for_line(&words, SOON).await?;
        // A limit counts connections: one that was taken on a moment ago may still be there twice.
        let set = ["gateways", "set", "icg", "--limit", "none"];
        site.console.tell(&set, "").await?;
        second.enrol_at(address, fingerprint, &key).await?;
        second.wait_until_online().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_down_says_when_to_come_back_and_a_running_session_may_end_first() {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let (device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let mut shadow = site.console.shadow(&name, &["--reason", "last"]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        site.gateway.program().signal(Signal::SIGTERM);
        eventually("the device to be told", PATIENCE, || async {
            let status = device.status().await.map_err(|error| error.to_string())?;
            let code = status.get("code").and_then(Value::as_str);
            let next = status
                .get("next_attempt")
                .is_some_and(|next| !next.is_null());
            if matches!(code, Some("shutting_down")) && next {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await?;
        // The tunnel goes on while the gateway waits for it.
        viewer.refresh().await?;
        viewer.leave().await?;
        shadow.ended().await?;
        let status = site.gateway.program().wait(PATIENCE).await?;
        ensure!(status.success(), "{status}");
        site.gateway.start_again().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_over_without_dropping_anybody_and_a_wrong_one_is_refused() {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let (_device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let metrics = site.gateway.metrics();
        // The connection over which it was taken on has ended, too.
        let alone = || async {
            let metrics = Metrics::read(metrics).await.map_err(|e| e.to_string())?;
            match metrics.get("umbra_gateway_devices") {
                1.0 => Ok(metrics),
                _ => Err(format!("{metrics:?}")),
            }
        };
        let before = eventually("one connection of the device", PATIENCE, alone).await?;

        let good = std::fs::read(site.gateway.keystore().join("key.pem"))?;
        std::fs::write(site.gateway.keystore().join("key.pem"), "no key at all\n")?;
        site.gateway.program().signal(Signal::SIGHUP);
        let refused = "umbra_gateway_reloads_refused_total";
        counted(&site, refused, before.get(refused)).await?;
        std::fs::write(site.gateway.keystore().join("key.pem"), good)?;

        let new = scratch.path("new-keystore");
        let folder = new.display().to_string();
        let renew = ["gateways", "certificate", "icg", "--out", &folder];
        site.console.tell(&renew, "").await?;
        for file in ["chain.pem", "key.pem"] {
            std::fs::copy(new.join(file), site.gateway.keystore().join(file))?;
        }
        site.gateway.program().signal(Signal::SIGHUP);
        let done = "umbra_gateway_reloads_total";
        counted(&site, done, before.get(done)).await?;
        let after = Metrics::read(metrics).await?;
        let connections = "umbra_gateway_connections_total";
        ensure!(
            after.get("umbra_gateway_devices") == 1.0
                && after.get(connections) == before.get(connections),
            "somebody was dropped: {before:?} became {after:?}"
        );
        Ok(())
    })
    .await;
}

async fn counted(site: &Site<'_>, name: &str, before: f64) -> anyhow::Result<()> {
    let probe = || async {
        let metrics = Metrics::read(site.gateway.metrics())
            .await
            .map_err(|error| error.to_string())?;
        if metrics.get(name) > before {
            Ok(())
        } else {
            Err(format!("{metrics:?}"))
        }
    };
    Ok(eventually(name, PATIENCE, probe).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_sees_a_gateway_without_a_server_as_a_warning_and_gets_no_device_lost() {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let (device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        site.server.program().kill();
        let metrics = site.gateway.metrics();
        let probe = || async {
            let metrics = Metrics::read(metrics).await.map_err(|e| e.to_string())?;
            let (uplinks, devices) = (
                metrics.get("umbra_gateway_uplinks"),
                metrics.get("umbra_gateway_devices"),
            );
            if uplinks == 0.0 && devices == 0.0 {
                Ok(())
            } else {
                Err(format!("{uplinks} uplinks, {devices} devices"))
            }
        };
        eventually("the gateway to have let everybody go", PATIENCE, probe).await?;
        let status = device.wait_for_stage("waiting").await?;
        ensure!(
            status.get("code").and_then(Value::as_str) == Some("no_server"),
            "{status}"
        );
        site.server.start_again().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        eventually_is("the gateway to live", SOON, || {
            site.gateway.program().exited().map_or(Ok(()), Err)
        })
        .await?;
        Ok(())
    })
    .await;
}
