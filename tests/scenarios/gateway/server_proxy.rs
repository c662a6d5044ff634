//! A server whose only way to its gateways is a proxy that wants credentials: squid. What goes wrong there is told to the
//! administrator, and the password to nobody.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::front::{SquidConfig, own_names, squid};
use umbra_tests::netns::{Island, isolate};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Gateway, PATIENCE};

use super::site::Site;

const USER: &str = "umbra-server";
const PASSWORD: &str = "Licht:aus/50%@home";

/// Waits until the operator is told that there is no uplink, with all of these words.
async fn wait_for_trouble(
    site: &Site<'_>,
    gateway: &Gateway<'_>,
    words: &[&str],
) -> anyhow::Result<()> {
    let probe = || async {
        let show = ["gateways", "show", gateway.name()];
        let shown = site.console.tell(&show, "").await;
        let shown = shown.map_err(|error| error.to_string())?;
        let trouble = shown["trouble"].as_str().unwrap_or_default();
        let attached = shown.get("attached").and_then(Value::as_bool);
        if attached == Some(false) && words.iter().all(|word| trouble.contains(word)) {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    };
    let what = format!("the operator to be told of {words:?}");
    Ok(eventually(&what, PATIENCE, probe).await?)
}

/// Neither a log nor a command line nor the operator has the password.
async fn nowhere(scratch: &Scratch, site: &Site<'_>) -> anyhow::Result<()> {
    let shown = site
        .console
        .tell(&["gateways", "list"], "")
        .await?
        .to_string();
    ensure!(!shown.contains(PASSWORD), "{shown}");
    for entry in std::fs::read_dir(scratch.path("log"))? {
        let path = entry?.path();
        let log = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        ensure!(!log.contains(PASSWORD), "{} has it", path.display());
    }
    let mut servers = 0;
    for process in std::fs::read_dir("/proc")?.flatten() {
        // Processes end while they are looked at.
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        servers += usize::from(words.contains("--gateway-proxy-credentials"));
        ensure!(!words.contains(PASSWORD), "a process has it: {words}");
    }
    ensure!(servers > 0, "the server was not among the processes");
    Ok(())
}

#[tokio::test]
async fn a_server_whose_only_way_to_its_gateway_is_a_proxy_with_credentials_serves_devices_there() {
    scenario(async |scratch| {
        isolate()?;
        let names = own_names(scratch)?;
        let island = Island::new(scratch, 1).await?;
        let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, 3128));
        let squid_config = SquidConfig {
            user: Some((USER.into(), PASSWORD.into())),
            resolver: None,
        };
        let mut running = squid(scratch, &names, "squid", &squid_config, proxy).await?;
        // No proxy leads back to this machine: the gateway is known by its other address.
        let mut site = Site::start_for(scratch, &island).await?;
        let outside = site.gateway.external().to_string();
        site.move_uplink(&outside).await?;
        let (_device, name) = site.device(scratch, Some(&island)).await?;
        site.wait_for_way(&name, Some("icg")).await?;

        let url = format!("http://{proxy}");
        site.server.set_arguments(&["--gateway-proxy", &url]);
        site.server.start_again().await?;
        let what = [proxy.to_string(), "user name".into()];
        let words: Vec<&str> = what.iter().map(String::as_str).collect();
        wait_for_trouble(&site, &site.gateway, &words).await?;

        let file = scratch.path("proxy-credentials");
        std::fs::write(&file, format!("{USER}:{PASSWORD}\n"))?;
        let path = file.display().to_string();
        let words = [
            "--gateway-proxy",
            &url,
            "--gateway-proxy-credentials",
            &path,
        ];
        site.server.set_arguments(&words);
        // Others may read it: that is no place for a password.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644))?;
        let refused = site.server.start_again().await;
        let refused = refused.err().context("it read what everybody can read")?;
        ensure!(
            format!("{refused:?}").contains("--gateway-proxy-credentials"),
            "{refused:?}"
        );
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        site.server.start_again().await?;
        site.gateway
            .wait_until_attached(&site.console, true)
            .await?;
        site.wait_for_way(&name, Some("icg")).await?;
        site.see_and_operate(&name, "by way of squid").await?;
        nowhere(scratch, &site).await?;

        // The uplink really goes there: without the proxy there is none, and with it there is one again.
        running.program().kill();
        site.wait_until_offline(&name).await?;
        wait_for_trouble(&site, &site.gateway, &[&proxy.to_string()]).await?;
        let _running = squid(scratch, &names, "squid", &squid_config, proxy).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        nowhere(scratch, &site).await
    })
    .await;
}
