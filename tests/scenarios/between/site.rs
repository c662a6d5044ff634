//! What the scenarios of this folder have in common beside a site: nginx in front of the gateway as the documentation has it,
//! and how a device says why it is not online.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Output;

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::front::{Conversation, Front, WsRelay, nginx, snippet};
use umbra_tests::scratch::Scratch;
use umbra_tests::world::{Device, GatewayConfig, PATIENCE};

pub(super) use crate::site::{HOST, Site};

/// Where TLS is taken off, in the documentation and here.
pub(super) const PLAINTEXT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8080);

/// A site whose gateway is reached through an nginx that takes TLS off, by devices, server and console alike. Between nginx
/// and the gateway stands a relay that sees what the gateway sees.
pub(super) struct Offloaded<'s> {
    pub(super) site: Site<'s>,
    pub(super) relay: WsRelay,
    /// Where nginx is.
    pub(super) front: SocketAddr,
    _nginx: Front,
}

impl<'s> Offloaded<'s> {
    /// Starts it, with nginx at port 443 of `at`.
    pub(super) async fn start(scratch: &'s Scratch, at: Ipv4Addr) -> anyhow::Result<Self> {
        let front = SocketAddr::from((at, 443));
        let plaintext = SocketAddr::from(PLAINTEXT);
        let config = GatewayConfig {
            front: Some(front),
            arguments: [
                "--listen-plaintext",
                &plaintext.to_string(),
                "--plaintext-from",
                "127.0.0.1",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..GatewayConfig::default()
        };
        let mut site = Site::start_with(scratch, config).await?;
        let relay = WsRelay::start(plaintext).await?;
        let keystore = site.gateway.keystore().display().to_string();
        let conf = snippet("nginx-offload")?
            .with("/etc/nginx/umbra", &keystore)?
            .with("127.0.0.1:8080", &relay.address().to_string())?;
        let nginx = nginx(scratch, "nginx", conf.text(), front).await?;
        site.move_uplink(&front.to_string()).await?;
        let came = |one: &Conversation| one.path == "/usg/uplink" && one.open;
        ensure!(
            relay.conversations().iter().any(came),
            "the uplink does not go through nginx"
        );
        Ok(Self {
            site,
            relay,
            front,
            _nginx: nginx,
        })
    }
}

/// Waits until a device says that it is not online for this reason, and gives what it says.
pub(super) async fn wait_for_code(device: &Device<'_>, code: &str) -> anyhow::Result<Value> {
    let probe = || async {
        let status = device.status().await.map_err(|error| error.to_string())?;
        let is =
            |name: &str, wanted: &str| status.get(name).and_then(Value::as_str) == Some(wanted);
        if is("code", code) && !is("stage", "online") {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    };
    let status = eventually(&format!("the code {code}"), PATIENCE, probe).await?;
    let cause = status
        .get("cause")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // A sentence for a person: words, and nothing of the program's inside.
    ensure!(cause.contains(' ') && !cause.contains("Error"), "{status}");
    Ok(status)
}

/// The sentence of a status.
pub(super) fn cause(status: &Value) -> String {
    crate::enrolment::text(status, "/cause")
}

/// How a program ended and what it said.
pub(super) fn said(output: &Output) -> String {
    crate::enrolment::said(output)
}
