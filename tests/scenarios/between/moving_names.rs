//! A gateway whose name leads elsewhere from one moment to the next.

use std::net::Ipv4Addr;

use anyhow::ensure;
use umbra_tests::front::{dnsmasq, own_names};
use umbra_tests::netns::isolate;
use umbra_tests::scratch::scenario;

use super::site::{HOST, Site, cause, wait_for_code};

#[tokio::test]
async fn a_name_is_resolved_anew_at_each_attempt() {
    scenario(async |scratch| {
        isolate()?;
        let names = own_names(scratch)?;
        let resolver = Ipv4Addr::new(127, 0, 0, 53);
        names.set_resolver(Some(resolver))?;
        let here = Ipv4Addr::LOCALHOST;
        let right = dnsmasq(scratch, "dnsmasq-right", resolver, &[(HOST, here)]).await?;
        let mut site = Site::named(scratch).await?;
        let device = site.new_device(1, site.device_config(), None).await?;
        let name = site.take_on_at(&device, &site.by_name()).await?;

        // The name leads to where nobody is; the link that stands does not care until it is lost.
        drop(right);
        let nowhere = Ipv4Addr::new(127, 0, 0, 99);
        let wrong = dnsmasq(scratch, "dnsmasq-wrong", resolver, &[(HOST, nowhere)]).await?;
        site.gateway.program().kill();
        site.gateway.start_again().await?;
        site.gateway
            .wait_until_attached(&site.console, true)
            .await?;
        let status = wait_for_code(&device, "unreachable").await?;
        ensure!(cause(&status).contains(HOST), "{status}");

        // No name server at all.
        drop(wrong);
        wait_for_code(&device, "unreachable").await?;

        // And back, without a restart of anything on the device.
        let _right = dnsmasq(scratch, "dnsmasq-again", resolver, &[(HOST, here)]).await?;
        device.wait_until_online().await?;
        site.wait_for_way(&name, Some(site.gateway.name())).await?;
        Ok(())
    })
    .await;
}
