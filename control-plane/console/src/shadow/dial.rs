//! The way to the device: its addresses one after the other, or those of the gateway where it is met, each with a deadline,
//! until the one answers whose certificate the server named. Not a byte of the ticket leaves before that.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use umbra_carrier::address::HostPort;
use umbra_carrier::io::{BoxIo, boxed};
use umbra_carrier::names::System;
use umbra_carrier::tcp;
use umbra_carrier::ws::Closed;
use umbra_protocol::Fingerprint;
use umbra_protocol::api::Rendezvous;
use umbra_vnc_proxy::console_end::{self, ConsoleError};

use super::ShadowError;
use super::meeting::{self, Envelope};
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

/// The tunnel to the device, whatever carries it.
pub(super) type Tunnel = TlsStream<BoxIo>;

/// Where the device is.
#[derive(Debug)]
pub(super) enum Way<'a> {
    /// At these addresses.
    Direct(&'a [String]),
    /// At a gateway.
    Meeting(&'a Rendezvous, Envelope),
}

/// What is dialled.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) device: &'a str,
    pub(super) way: Way<'a>,
    pub(super) tls: Arc<ClientConfig>,
    /// When the server's offer ends.
    pub(super) offer_ends: Instant,
    pub(super) limits: DialLimits,
}

/// Connects to the first address at which the device answers. `note` is told of each attempt.
pub(super) async fn dial(
    target: Target<'_>,
    mut note: impl FnMut(&str),
) -> Result<Tunnel, ShadowError> {
    let device = || target.device.to_owned();
    let addresses = match &target.way {
        Way::Direct(addresses) => addresses,
        Way::Meeting(meeting, _) => meeting.addresses.as_slice(),
    };
    if addresses.is_empty() {
        return Err(ShadowError::NoAddress { device: device() });
    }
    let mut tried = Vec::new();
    let mut impostor = None;
    for address in addresses {
        let address = printable(address);
        let now = Instant::now();
        if now >= target.offer_ends {
            return Err(ShadowError::OfferEnded { device: device() });
        }
        note(&match &target.way {
            Way::Direct(_) => format!("connecting to {} at {address}…", target.device),
            Way::Meeting(meeting, _) => format!(
                "meeting {} at the gateway {} ({address})…",
                target.device,
                printable(&meeting.gateway)
            ),
        });
        let sentence = match attempt(&target, &address).await {
            Ok(stream) => return Ok(stream),
            Err(Miss::Other(sentence)) => sentence,
            Err(Miss::NotMet { code, sentence }) => {
                return Err(ShadowError::NotMet {
                    device: device(),
                    gateway: target.gateway(),
                    code,
                    sentence: printable(&sentence),
                });
            }
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
    Err(match &target.way {
        Way::Direct(_) => ShadowError::Unreachable {
            device: device(),
            tried,
        },
        Way::Meeting(..) => ShadowError::GatewayUnreachable {
            device: device(),
            gateway: target.gateway(),
            tried,
        },
    })
}

impl Target<'_> {
    fn gateway(&self) -> String {
        match &self.way {
            Way::Direct(_) => String::new(),
            Way::Meeting(meeting, _) => printable(&meeting.gateway),
        }
    }
}

enum Miss {
    AnotherCertificate {
        expected: Fingerprint,
        shown: Fingerprint,
    },
    /// The gateway lets these two not meet.
    NotMet {
        code: String,
        sentence: String,
    },
    Other(String),
}

async fn attempt(target: &Target<'_>, address: &str) -> Result<Tunnel, Miss> {
    let carrier = match &target.way {
        Way::Direct(_) => direct(target, address).await?,
        Way::Meeting(meeting, envelope) => {
            let dialling =
                (Instant::now() + target.limits.tcp + target.limits.tls).min(target.offer_ends);
            meeting::attempt(envelope, meeting, address, dialling)
                .await
                .map_err(|miss| match miss {
                    meeting::Miss::Refused { code, sentence } => Miss::NotMet { code, sentence },
                    meeting::Miss::Other(sentence) => Miss::Other(sentence),
                })?
        }
    };
    let deadline = match &target.way {
        Way::Direct(_) => (Instant::now() + target.limits.tls).min(target.offer_ends),
        // The device is on its way there as well; the gateway says when it does not come.
        Way::Meeting(..) => target.offer_ends,
    };
    match console_end::connect(carrier, Arc::clone(&target.tls), deadline).await {
        Ok(stream) => Ok(stream),
        Err(ConsoleError::AnotherCertificate(mismatch)) => Err(Miss::AnotherCertificate {
            expected: Fingerprint::from_bytes(*mismatch.expected.as_bytes()),
            shown: Fingerprint::from_bytes(*mismatch.shown.as_bytes()),
        }),
        Err(ConsoleError::Handshake(error)) if Closed::of(&error).is_some() => {
            let closed = Closed::of(&error);
            let code = closed.and_then(Closed::code_word).unwrap_or("tunnel_lost");
            let sentence = closed.map_or("", Closed::sentence);
            Err(Miss::NotMet {
                code: printable(code),
                sentence: sentence.to_owned(),
            })
        }
        // The token is used up: no other address would do.
        Err(error) if matches!(target.way, Way::Meeting(..)) => Err(Miss::NotMet {
            code: error.code().to_owned(),
            sentence: error.to_string(),
        }),
        Err(error) => Err(Miss::Other(error.to_string())),
    }
}

async fn direct(target: &Target<'_>, address: &str) -> Result<BoxIo, Miss> {
    let address = HostPort::parse(address, PORT).map_err(|error| Miss::Other(error.to_string()))?;
    let left = target.offer_ends.saturating_duration_since(Instant::now());
    let deadline = target.limits.tcp.min(left);
    let tcp = tcp::connect(address.host(), address.port(), &System, deadline)
        .await
        .map_err(|error| Miss::Other(error.to_string()))?;
    notice_silence(&tcp);
    Ok(boxed(tcp))
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
