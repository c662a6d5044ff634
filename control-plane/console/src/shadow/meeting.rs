//! The way to a device that is met at a gateway: a WebSocket to the gateway, which brings the two ends together by one-time
//! tokens. What goes through it is the same as on the direct way; the gateway is an envelope, and reads nothing.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use umbra_carrier::address::HostPort;
use umbra_carrier::dial::{DialError, Dialer, WsTarget};
use umbra_carrier::io::{BoxIo, boxed};
use umbra_carrier::names::System;
use umbra_carrier::proxy::{ProxySettings, ProxySettingsError};
use umbra_carrier::tls::{
    DatePolicy, EnvelopeTrust, ServerTrust, certificates_from_pem, envelope_config,
};
use umbra_carrier::ws::{HeaderValue, Keepalive, WsError};
use umbra_protocol::api::Rendezvous;
use umbra_protocol::gateway::{
    DEFAULT_PORT, HEADER_SIDE, PATH_TUNNEL, SUBPROTOCOL_TUNNEL, TunnelSide,
};

use super::ShadowError;
use crate::text::printable;

/// What proxies between the two see of a session in which nothing moves, and when the gateway counts as gone.
const KEEPALIVE: Keepalive = Keepalive {
    interval: Duration::from_secs(20),
    timeout: Duration::from_secs(60),
};

/// How the console gets to gateways.
#[derive(Debug)]
pub(super) struct Envelope {
    tls: Arc<ClientConfig>,
    proxy: ProxySettings,
}

impl Envelope {
    /// Trusts the gateway's roots, as the server names them, and the server's own.
    pub(super) fn new(
        meeting: &Rendezvous,
        server_root: Option<CertificateDer<'static>>,
        environment: fn(&str) -> Option<String>,
    ) -> Result<Self, ShadowError> {
        let gateway = || printable(&meeting.gateway);
        let mut roots: Vec<CertificateDer<'static>> = server_root.into_iter().collect();
        for pem in &meeting.roots {
            let read = certificates_from_pem(pem)
                .map_err(|_| ShadowError::GatewayRoot { gateway: gateway() })?;
            roots.extend(read);
        }
        let trust = EnvelopeTrust::pinned(ServerTrust::PinnedRoots(roots));
        let tls = envelope_config(trust, DatePolicy::Enforce)
            .map_err(|_| ShadowError::GatewayRoot { gateway: gateway() })?;
        let proxy = proxies(environment).map_err(ShadowError::ProxySettings)?;
        Ok(Self { tls, proxy })
    }
}

/// The proxy that this machine's environment names.
fn proxies(environment: fn(&str) -> Option<String>) -> Result<ProxySettings, ProxySettingsError> {
    ProxySettings::from_environment(environment)
}

/// Why an attempt at one address of a gateway did not work.
pub(super) enum Miss {
    /// The gateway will not let these two meet: another address of it would not either.
    Refused { code: String, sentence: String },
    /// Another address may work.
    Other(String),
}

/// Goes to the gateway at one address and waits there for the device.
pub(super) async fn attempt(
    envelope: &Envelope,
    meeting: &Rendezvous,
    address: &str,
    ends: Instant,
) -> Result<BoxIo, Miss> {
    let address =
        HostPort::parse(address, DEFAULT_PORT).map_err(|error| Miss::Other(error.to_string()))?;
    let target = WsTarget {
        host: address.host().to_owned(),
        port: address.port(),
        path: PATH_TUNNEL.to_owned(),
        subprotocol: SUBPROTOCOL_TUNNEL.to_owned(),
        headers: vec![
            (
                "Authorization".to_owned(),
                HeaderValue::bearer(meeting.token.reveal()),
            ),
            (HEADER_SIDE.to_owned(), TunnelSide::Console.as_str().into()),
        ],
    };
    // No proxy leads back to this machine.
    let dialer = if is_own(address.host()) {
        Dialer::direct(&System)
    } else {
        Dialer::new(envelope.proxy.clone(), &System)
    };
    let left = ends.saturating_duration_since(Instant::now());
    let tls = Arc::clone(&envelope.tls);
    match dialer.websocket(&target, tls, Some(KEEPALIVE), left).await {
        Ok(stream) => Ok(boxed(stream)),
        Err(error) => Err(miss(&error)),
    }
}

fn miss(error: &DialError) -> Miss {
    if let DialError::WebSocket(WsError::Refused {
        code: Some(code),
        sentence,
        ..
    }) = error
    {
        let said = sentence.clone().unwrap_or_else(|| error.to_string());
        return Miss::Refused {
            code: code.clone(),
            sentence: said,
        };
    }
    Miss::Other(umbra_carrier::causes::clause_of(error))
}

fn is_own(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}
