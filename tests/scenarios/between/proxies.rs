//! Devices and consoles whose only way out is a proxy: squid without and with credentials, and SOCKS5. Names are resolved by the
//! proxy, and what it is shown is told to nobody else.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::ensure;
use umbra_tests::eventually::{SOON, eventually_is};
use umbra_tests::front::{SocksProxy, SocksUser, SquidConfig, dnsmasq, own_names, squid};
use umbra_tests::netns::{Island, isolate};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Device, DeviceConfig};

use super::site::{HOST, Site, cause, said, wait_for_code};

const USER: &str = "till-7";
/// With what a URL, a shell and a header would have to quote.
const PASSWORD: &str = "Vogel:frei/100%@home";

/// The parameters of a proxy.
fn through(config: &mut DeviceConfig, kind: &str, proxy: SocketAddr) {
    config
        .set_text("umbra.proxy.mode", "manual")
        .set_text("umbra.proxy.type", kind)
        .set_text("umbra.proxy.host", &proxy.ip().to_string())
        .set("umbra.proxy.port", &proxy.port().to_string());
}

fn with_credentials(config: &mut DeviceConfig, password: &str) {
    config
        .set_text("umbra.proxy.user", USER)
        .set_text("umbra.proxy.password", password);
}

/// Waits until squid's log has a line with these words.
async fn wait_for_request(scratch: &Scratch, words: &[&str]) -> anyhow::Result<()> {
    let file = scratch.path("squid/access.log");
    let found = || {
        let log = std::fs::read_to_string(&file).unwrap_or_default();
        let fits = |line: &str| words.iter().all(|word| line.contains(word));
        if log.lines().any(fits) {
            Ok(())
        } else {
            Err(log)
        }
    };
    Ok(eventually_is("a request in squid's log", SOON, found).await?)
}

#[tokio::test]
async fn a_device_whose_only_way_out_is_a_proxy_that_also_knows_the_names_is_taken_on_and_seen() {
    scenario(async |scratch| {
        isolate()?;
        let names = own_names(scratch)?;
        let island = Island::new(scratch, 1).await?;
        island.refuse_inbound(scratch).await?;
        let here = Ipv4Addr::LOCALHOST;
        let _dns = dnsmasq(scratch, "dnsmasq", here, &[(HOST, here)]).await?;
        let config = SquidConfig {
            resolver: Some(here),
            ..SquidConfig::default()
        };
        let proxy = SocketAddr::from((island.site(), 3128));
        let _squid = squid(scratch, &names, "squid", &config, proxy).await?;
        let mut site = Site::named(scratch).await?;
        // The server is let to the name server for this.
        names.set_resolver(Some(here))?;
        let inside = site.by_name();
        site.move_uplink(&inside).await?;
        names.set_resolver(None)?;
        let mut config = site.device_config();
        through(&mut config, "http", proxy);
        let device = site.new_device(1, config, Some(&island)).await?;
        let name = site.take_on_at(&device, &site.by_name()).await?;
        // A console that needs the proxy as well; for the server itself it does not.
        let proxy = format!("http://{proxy}");
        site.console.set_environment("https_proxy", &proxy);
        site.console.set_environment("no_proxy", "127.0.0.1");
        site.see_and_operate(&name, "through squid").await?;
        // Both ends of the tunnel are over, so squid has written them down.
        let target = format!("CONNECT {}", site.by_name());
        for end in [island.own(), island.site()] {
            wait_for_request(scratch, &[&end.to_string(), &target, "/200 "]).await?;
        }
        Ok(())
    })
    .await;
}

/// No program said the password, shows it or was started with it.
async fn nowhere(scratch: &Scratch, device: &Device<'_>, password: &str) -> anyhow::Result<()> {
    let status = device.status().await?.to_string();
    ensure!(!status.contains(password), "{status}");
    let shown = device
        .tell(&["registry", "list", "umbra.proxy"], "")
        .await?;
    ensure!(shown.contains(USER) && !shown.contains(password), "{shown}");
    for entry in std::fs::read_dir(scratch.path("log"))? {
        let path = entry?.path();
        let log = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        // Neither as it is nor as a header carries it.
        ensure!(
            !log.contains(password),
            "{} has the password",
            path.display()
        );
    }
    let mut seen = 0;
    for process in std::fs::read_dir("/proc")?.flatten() {
        // Processes end while they are looked at.
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        seen += usize::from(words.contains("umbra-agent"));
        ensure!(
            !words.contains(password),
            "a process has the password: {words}"
        );
    }
    ensure!(seen > 0, "the agent was not among the processes");
    Ok(())
}

#[tokio::test]
async fn a_proxy_that_wants_credentials_gets_the_right_ones_and_keeps_them() {
    scenario(async |scratch| {
        isolate()?;
        let names = own_names(scratch)?;
        let here = Ipv4Addr::LOCALHOST;
        let _dns = dnsmasq(scratch, "dnsmasq", here, &[(HOST, here)]).await?;
        let squid_config = SquidConfig {
            user: Some((USER.into(), PASSWORD.into())),
            resolver: Some(here),
        };
        let proxy = SocketAddr::from((here, 3128));
        let mut running = squid(scratch, &names, "squid", &squid_config, proxy).await?;
        let site = Site::named(scratch).await?;

        // None, and a wrong one: the device says what is missing.
        let mut config = site.device_config();
        through(&mut config, "http", proxy);
        let mut device = site.new_device(1, config.clone(), None).await?;
        let output = site.enrol(&device, &site.by_name()).await?;
        let sentence = said(&output);
        ensure!(!output.status.success(), "{sentence}");
        ensure!(
            sentence.contains("proxy_credentials") && sentence.contains("user name"),
            "{sentence}"
        );
        let wrong = "Vogel:frei/101%@home";
        with_credentials(&mut config, wrong);
        device.install(&config)?;
        device.restart_hard()?;
        device.wait_until_up().await?;
        let output = site.enrol(&device, &site.by_name()).await?;
        let sentence = said(&output);
        ensure!(
            !output.status.success() && sentence.contains("proxy_credentials"),
            "{sentence}"
        );
        nowhere(scratch, &device, wrong).await?;

        // The right one.
        with_credentials(&mut config, PASSWORD);
        device.install(&config)?;
        device.restart_hard()?;
        let name = site.take_on_at(&device, &site.by_name()).await?;
        site.see_and_operate(&name, "known to squid").await?;
        nowhere(scratch, &device, PASSWORD).await?;

        // The proxy dies, and comes back.
        running.program().kill();
        let status = wait_for_code(&device, "proxy_unreachable").await?;
        ensure!(cause(&status).contains(&proxy.to_string()), "{status}");
        let _running = squid(scratch, &names, "squid", &squid_config, proxy).await?;
        device.wait_until_online().await?;
        site.wait_for_way(&name, Some(site.gateway.name())).await?;

        // Somebody changed the password at the proxy: the link that is there goes on until it is cut.
        with_credentials(&mut config, wrong);
        device.install(&config)?;
        device.restart_hard()?;
        let status = wait_for_code(&device, "proxy_credentials").await?;
        ensure!(cause(&status).contains(&proxy.to_string()), "{status}");
        nowhere(scratch, &device, wrong).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_socks_proxy_is_used_with_its_names_and_its_credentials() {
    scenario(async |scratch| {
        isolate()?;
        let _names = own_names(scratch)?;
        let island = Island::new(scratch, 1).await?;
        let site = Site::named(scratch).await?;
        let user = SocksUser {
            name: USER.into(),
            password: PASSWORD.into(),
        };
        let known = [(HOST, Ipv4Addr::LOCALHOST)];
        let proxy = SocksProxy::start(island.site(), Some(user), &known).await?;
        let mut config = site.device_config();
        through(&mut config, "socks5", proxy.address());
        with_credentials(&mut config, "another");
        let mut device = site.new_device(1, config.clone(), Some(&island)).await?;
        let output = site.enrol(&device, &site.by_name()).await?;
        ensure!(
            !output.status.success() && said(&output).contains("proxy_credentials"),
            "{}",
            said(&output)
        );
        ensure!(proxy.asked().is_empty(), "{:?}", proxy.asked());
        with_credentials(&mut config, PASSWORD);
        device.install(&config)?;
        device.restart_hard()?;
        let name = site.take_on_at(&device, &site.by_name()).await?;
        let before = proxy.asked().len();
        site.see_and_operate(&name, "through socks").await?;
        let asked = proxy.asked();
        // The tunnel, too; and never an address that the device found out by itself.
        ensure!(asked.len() > before, "{asked:?}");
        ensure!(asked.iter().all(|one| *one == site.by_name()), "{asked:?}");
        nowhere(scratch, &device, PASSWORD).await?;
        Ok(())
    })
    .await;
}
