//! The way to the device: its addresses one after the other, each with a deadline, until the one answers whose certificate
//! the server named. Not a byte of the ticket leaves before that.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use umbra_carrier::address::HostPort;
use umbra_carrier::tcp;
use umbra_protocol::Fingerprint;
use umbra_vnc_proxy::console_end::{self, ConsoleError};

use super::ShadowError;
use crate::text::printable;

/// The port of shadowing where an address names none.
const PORT: u16 = 5900;

/// How long silence on the network may last before the device counts as gone: the kernel asks after `KEEPALIVE_IDLE`,
/// then at each interval.
const KEEPALIVE_IDLE: u32 = 30;
const KEEPALIVE_INTERVAL: u32 = 10;
const KEEPALIVE_PROBES: u32 = 3;
const UNANSWERED: Duration = Duration::from_secs(60);

/// How long an address has.
#[derive(Clone, Copy, Debug)]
pub struct DialLimits {
    /// For TCP.
    pub tcp: Duration,
    /// For TLS.
    pub tls: Duration,
}

impl Default for DialLimits {
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(5),
            tls: Duration::from_secs(10),
        }
    }
}

/// What is dialled.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) device: &'a str,
    pub(super) addresses: &'a [String],
    pub(super) tls: Arc<ClientConfig>,
    /// When the server's offer ends.
    pub(super) offer_ends: Instant,
    pub(super) limits: DialLimits,
}

/// Connects to the first address at which the device answers. `note` is told of each attempt.
pub(super) async fn dial(
    target: Target<'_>,
    mut note: impl FnMut(&str),
) -> Result<TlsStream<TcpStream>, ShadowError> {
    let device = || target.device.to_owned();
    if target.addresses.is_empty() {
        return Err(ShadowError::NoAddress { device: device() });
    }
    let mut tried = Vec::new();
    let mut impostor = None;
    for address in target.addresses {
        let address = printable(address);
        let now = Instant::now();
        if now >= target.offer_ends {
            return Err(ShadowError::OfferEnded { device: device() });
        }
        note(&format!("connecting to {} at {address}…", target.device));
        let sentence = match attempt(&target, &address).await {
            Ok(stream) => return Ok(stream),
            Err(Miss::Other(sentence)) => sentence,
            Err(Miss::AnotherCertificate { expected, shown }) => {
                impostor.get_or_insert(ShadowError::AnotherCertificate {
                    device: device(),
                    address: address.clone(),
                    expected,
                    shown,
                });
                "something answers with another certificate than this device's".to_owned()
            }
        };
        note(&format!("{address}: {sentence}"));
        tried.push((address, sentence));
    }
    if let Some(impostor) = impostor {
        return Err(impostor);
    }
    if Instant::now() >= target.offer_ends {
        return Err(ShadowError::OfferEnded { device: device() });
    }
    Err(ShadowError::Unreachable {
        device: device(),
        tried,
    })
}

enum Miss {
    AnotherCertificate {
        expected: Fingerprint,
        shown: Fingerprint,
    },
    Other(String),
}

async fn attempt(target: &Target<'_>, address: &str) -> Result<TlsStream<TcpStream>, Miss> {
    let address = HostPort::parse(address, PORT).map_err(|error| Miss::Other(error.to_string()))?;
    let left = target.offer_ends.saturating_duration_since(Instant::now());
    let tcp = tcp::connect(address.host(), address.port(), target.limits.tcp.min(left))
        .await
        .map_err(|error| Miss::Other(error.to_string()))?;
    notice_silence(&tcp);
    let deadline = (Instant::now() + target.limits.tls).min(target.offer_ends);
    match console_end::connect(tcp, Arc::clone(&target.tls), deadline).await {
        Ok(stream) => Ok(stream),
        Err(ConsoleError::AnotherCertificate(mismatch)) => Err(Miss::AnotherCertificate {
            expected: Fingerprint::from_bytes(*mismatch.expected.as_bytes()),
            shown: Fingerprint::from_bytes(*mismatch.shown.as_bytes()),
        }),
        Err(error) => Err(Miss::Other(error.to_string())),
    }
}

/// Lets the kernel notice a device that was unplugged. Where it can't, the session only ends later.
fn notice_silence(tcp: &TcpStream) {
    let _ = setsockopt(tcp, sockopt::KeepAlive, &true);
    let _ = setsockopt(tcp, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE);
    let _ = setsockopt(tcp, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL);
    let _ = setsockopt(tcp, sockopt::TcpKeepCount, &KEEPALIVE_PROBES);
    let milliseconds = u32::try_from(UNANSWERED.as_millis()).unwrap_or(u32::MAX);
    let _ = setsockopt(tcp, sockopt::TcpUserTimeout, &milliseconds);
}
