//! nginx opens TLS between device and gateway and encrypts again, with the configuration of the administrators' page: once with a
//! private root that the device knows, once with one that it does not know.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use umbra_tests::fault_proxy::FaultProxy;
use umbra_tests::front::{nginx, own_names, snippet};
use umbra_tests::netns::isolate;
use umbra_tests::pki::{Chain, Kind};
use umbra_tests::scratch::scenario;
use umbra_tests::world::GatewayConfig;

use super::site::{HOST, Site, cause, said, wait_for_code};

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

#[tokio::test]
async fn a_proxy_that_opens_tls_is_passed_by_devices_that_know_its_root_and_by_no_others() {
    scenario(async |scratch| {
        isolate()?;
        let names = own_names(scratch)?;
        names.set_hosts(&[(HOST, Ipv4Addr::LOCALHOST.into())])?;
        let config = GatewayConfig {
            hosts: vec![HOST.into()],
            arguments: vec!["--trusted-proxy".into(), "127.0.0.1".into()],
            ..GatewayConfig::default()
        };
        let site = Site::start_with(scratch, config).await?;
        let at = format!("{HOST}:443");
        site.set_gateway("--external", &at).await?;

        let company = Chain::new(Kind::Good, &[HOST])?;
        let folder = scratch.folder("inspection")?;
        company.write(&folder)?;
        // As the page says: the last certificate of the gateway's chain.
        let chain = std::fs::read_to_string(site.gateway.keystore().join("chain.pem"))?;
        let (_, root) = chain.rsplit_once(PEM_BEGIN).context("no chain")?;
        std::fs::write(folder.join("umbra-root.pem"), format!("{PEM_BEGIN}{root}"))?;
        let behind = FaultProxy::start(site.gateway.internal()).await?;
        let conf = snippet("nginx-inspection")?
            .with("/etc/nginx/inspection", &folder.display().to_string())?
            .with("192.0.2.7:8443", &behind.address().to_string())?;
        let front = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
        let _nginx = nginx(scratch, "nginx", conf.text(), front).await?;

        // Without the root, not a word passes nginx, and the device says what is in the way.
        let stranger = site.new_device(1, site.device_config(), None).await?;
        let output = site.enrol(&stranger, &at).await?;
        let sentence = said(&output);
        ensure!(
            !output.status.success() && sentence.contains("certificate"),
            "{sentence}"
        );
        ensure!(sentence.contains("umbra.proxy.ca_file"), "{sentence}");
        ensure!(behind.counts().accepted == 0, "{:?}", behind.counts());

        // With the root, everything works.
        let root = folder.join("root.pem").display().to_string();
        let mut config = site.device_config();
        config.set_text("umbra.proxy.ca_file", &root);
        let mut device = site.new_device(2, config, None).await?;
        let name = site.take_on_at(&device, &at).await?;
        site.send_message(&name, "Hello from behind the inspection.")
            .await?;
        site.see_and_operate(&name, "inspected").await?;
        ensure!(behind.counts().accepted >= 3, "{:?}", behind.counts());

        // A device that was taken on, and lost the root.
        device.kill();
        let before = behind.counts().accepted;
        device.install(&site.device_config())?;
        device.start()?;
        device.wait_until_up().await?;
        let status = wait_for_code(&device, "gateway_certificate").await?;
        let sentence = cause(&status);
        ensure!(
            sentence.contains(HOST) && sentence.contains("umbra.proxy.ca_file"),
            "{status}"
        );
        ensure!(behind.counts().accepted == before, "{:?}", behind.counts());
        Ok(())
    })
    .await;
}
