//! haproxy passes TLS through to one of two gateways, by the name that is asked for, with the configuration of the
//! administrators' page.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::ensure;
use umbra_tests::front::{haproxy, own_names, snippet};
use umbra_tests::netns::isolate;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Gateway, GatewayConfig};

use super::site::{Site, said};

fn config(name: &str) -> GatewayConfig {
    GatewayConfig {
        name: name.into(),
        hosts: vec![format!("{name}.example.com")],
        ..GatewayConfig::default()
    }
}

#[tokio::test]
async fn two_gateways_share_one_address_behind_an_haproxy_that_tells_them_apart_by_name() {
    scenario(async |scratch| {
        isolate()?;
        let names = own_names(scratch)?;
        let here = Ipv4Addr::LOCALHOST.into();
        let known = ["north.example.com", "south.example.com", "west.example.com"];
        names.set_hosts(&known.map(|name| (name, here)))?;
        let site = Site::start_with(scratch, config("north")).await?;
        let south = Gateway::start(scratch, &site.console, config("south")).await?;
        south.wait_until_attached(&site.console, true).await?;
        for name in ["north", "south"] {
            let external = format!("{name}.example.com:443");
            let set = ["gateways", "set", name, "--external", &external];
            site.console.tell(&set, "").await?;
        }
        let front = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
        let ends = snippet("haproxy-passthrough")?
            .with("192.0.2.1:443", &front.to_string())?
            .with("192.0.2.11:8443", &site.gateway.internal().to_string())?
            .with("192.0.2.12:8443", &south.internal().to_string())?;
        let mut haproxy = haproxy(scratch, "haproxy", ends.text(), front).await?;

        let device = site.new_device(1, site.device_config(), None).await?;
        let northern = site.take_on_at(&device, "north.example.com:443").await?;
        let other = site.new_device(2, site.device_config(), None).await?;
        let output = site.enrol(&other, "south.example.com:443").await?;
        ensure!(output.status.success(), "{}", said(&output));
        let southern = other.unit_id().await?;
        site.wait_for_way(&southern, Some("south")).await?;
        site.wait_for_way(&northern, Some("north")).await?;
        site.see_and_operate(&southern, "southern").await?;
        site.see_and_operate(&northern, "northern").await?;

        // A name that no gateway has leads nowhere.
        let lost = site.new_device(3, site.device_config(), None).await?;
        let output = site.enrol(&lost, "west.example.com:443").await?;
        ensure!(!output.status.success(), "{}", said(&output));
        // The health checks of the page find both gateways well.
        let lines = haproxy.program().lines();
        ensure!(
            !lines.iter().any(|line| line.contains("is DOWN")),
            "{lines:?}"
        );
        Ok(())
    })
    .await;
}
