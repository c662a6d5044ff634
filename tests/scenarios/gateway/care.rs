//! Looking after a gateway: its limit, its status for monitoring, a new certificate while it runs, and going down in order.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::program::run;
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{DeviceConfig, PATIENCE};
use umbra_tests::x11::installed;

use super::metrics::Metrics;
use super::site::Site;

/// What OpenSSL says of whoever listens there, with the answer to what it is given to send.
async fn s_client(
    scratch: &Scratch,
    address: SocketAddr,
    more: &[&str],
    input: &str,
) -> anyhow::Result<String> {
    let mut command = Command::new(installed("openssl")?);
    command.args(["s_client", "-connect", &address.to_string()]);
    command.args(more);
    let output = run(scratch, "s_client", &mut command, input.as_bytes(), SOON).await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first certificate in a text.
fn first_certificate(text: &str) -> anyhow::Result<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    let begin = text.find("-----BEGIN CERTIFICATE-----");
    let rest = &text[begin.context("no certificate")?..];
    Ok(&rest[..rest.find(END).context("half a certificate")? + END.len()])
}

/// Whether a new connection is shown the first certificate of this file.
async fn shows(site: &Site<'_>, scratch: &Scratch, chain: &str) -> anyhow::Result<bool> {
    let said = s_client(scratch, site.gateway.external(), &[], "").await?;
    let shown = first_certificate(&said).with_context(|| said.clone())?;
    Ok(shown == first_certificate(chain)?)
}

/// Waits until `check-status` says this word, which it works out every thirty seconds.
async fn wait_for_status(site: &Site<'_>, scratch: &Scratch, word: &str) -> anyhow::Result<()> {
    let address = site.gateway.external();
    let request =
        format!("GET /usg/check-status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let expected = format!("{{\"status\":\"{word}\"}}");
    let probe = || async {
        let answer = s_client(scratch, address, &["-quiet"], &request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.ends_with(&expected) {
            true => Ok(()),
            false => Err(answer),
        }
    };
    Ok(eventually(&format!("the status to be {word}"), PATIENCE, probe).await?)
}

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
        let chain = site.gateway.keystore().join("chain.pem");
        let first = std::fs::read_to_string(&chain)?;
        ensure!(shows(&site, scratch, &first).await?, "another certificate");
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
        let second = std::fs::read_to_string(&chain)?;
        ensure!(
            shows(&site, scratch, &second).await? && !shows(&site, scratch, &first).await?,
            "newcomers are not shown the new certificate"
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
        wait_for_status(&site, scratch, "warn").await?;
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
