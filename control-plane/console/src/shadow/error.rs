//! Why there is no session, or no end in order: sentences for the operator, and what the program ends with.

use std::io;
use std::time::Duration;

use umbra_carrier::proxy::ProxySettingsError;
use umbra_protocol::Fingerprint;
use umbra_vnc_proxy::console_end::ConsoleError;
use umbra_vnc_proxy::tls::TlsError;

use super::viewer::ViewerError;
use crate::failure::Exit;
use crate::text::span;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// The server names no address.
    #[error("the server knows no address under which {device} can be reached")]
    NoAddress {
        /// The device.
        device: String,
    },
    /// The server names a certificate that can't be read.
    #[error("the certificate that the server has of {device} can't be used")]
    Certificate {
        /// The device.
        device: String,
        /// Why, where it can be read at all.
        #[source]
        source: Option<TlsError>,
    },
    /// No address worked.
    #[error("{device} can't be reached from here:{}", attempts(.tried))]
    Unreachable {
        /// The device.
        device: String,
        /// Each address and what happened there.
        tried: Vec<(String, String)>,
    },
    /// The gateway can't be reached.
    #[error(
        "the gateway {gateway}, at which {device} is met, can't be reached from here:{}",
        attempts(.tried)
    )]
    GatewayUnreachable {
        /// The device.
        device: String,
        /// The gateway.
        gateway: String,
        /// Each address and what happened there.
        tried: Vec<(String, String)>,
    },
    /// The gateway was reached, the device wasn't.
    #[error("{device} was not met at the gateway {gateway}: {sentence}")]
    NotMet {
        /// The device.
        device: String,
        /// The gateway.
        gateway: String,
        /// Stable code, the gateway's own where it said one.
        code: String,
        /// What happened.
        sentence: String,
    },
    /// What the server says about the gateway can't be used.
    #[error("the root certificate that the server names for the gateway {gateway} can't be used")]
    GatewayRoot {
        /// The gateway.
        gateway: String,
    },
    /// The environment names a proxy that can't be.
    #[error("the way to the gateway leads through a proxy that can't be used")]
    ProxySettings(#[source] ProxySettingsError),
    /// The offer's time was over before the device was reached.
    #[error("the server's offer ended before {device} could be reached; nothing was sent to it")]
    OfferEnded {
        /// The device.
        device: String,
    },
    /// Somebody else answers.
    #[error(
        "what answers at {address} is not {device}: it shows another certificate, so nothing was sent to it"
    )]
    AnotherCertificate {
        /// The device.
        device: String,
        /// Where.
        address: String,
        /// What the server has on file.
        expected: Fingerprint,
        /// What was shown.
        shown: Fingerprint,
    },
    /// The device didn't open.
    #[error(transparent)]
    Device(ConsoleError),
    /// No viewer.
    #[error(transparent)]
    Viewer(#[from] ViewerError),
    /// The port for the viewer.
    #[error("no port for the viewer can be opened")]
    Listen(#[source] ConsoleError),
    /// No viewer came.
    #[error("no viewer connected within {}, so the session was given up", span(*.0))]
    NoViewer(Duration),
    /// The viewer program is gone again.
    #[error(
        "the viewer {program} ended before it had connected ({how}), so the session was given up"
    )]
    ViewerEnded {
        /// Which program.
        program: String,
        /// How it ended.
        how: String,
    },
    /// The device closed while the viewer was waited for.
    #[error("the session ended before a viewer was connected: {0}")]
    EndedEarly(String),
    /// The signals can't be watched.
    #[error("the connection to the device can't be set up")]
    SetUp(#[source] io::Error),
}

impl ShadowError {
    /// What the program ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::AnotherCertificate { .. } => Exit::NotTrusted,
            Self::Viewer(ViewerError::BadCommand(_)) => Exit::Usage,
            Self::NoAddress { .. }
            | Self::Certificate { .. }
            | Self::Unreachable { .. }
            | Self::GatewayUnreachable { .. }
            | Self::NotMet { .. }
            | Self::GatewayRoot { .. }
            | Self::ProxySettings(_)
            | Self::OfferEnded { .. }
            | Self::Device(_)
            | Self::Viewer(ViewerError::NoneFound | ViewerError::NotStarted { .. })
            | Self::Listen(_)
            | Self::NoViewer(_)
            | Self::ViewerEnded { .. }
            | Self::EndedEarly(_)
            | Self::SetUp(_) => Exit::Failed,
        }
    }

    /// What the operator can do.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::AnotherCertificate { expected, shown, device, .. } => Some(format!(
                "on file at the server: {expected}\nshown by what answered: {shown}\nThis may mean that the device was \
                 re-imaged or replaced, that another device has its old address now, or that somebody answers in its \
                 place. Do not go on before you know which. umbra devices show {device} tells whether the server has \
                 seen another certificate too."
            )),
            Self::NoAddress { .. } => Some("Look whether shadowing is switched on there, and at its last contact.".to_owned()),
            Self::Certificate { .. } | Self::GatewayRoot { .. } => {
                Some("Ask the server's administrator.".to_owned())
            }
            Self::GatewayUnreachable { .. } => Some(
                "The gateway's port must be open from here, perhaps through a proxy (https_proxy, no_proxy). Check network \
                 and firewalls, then try again."
                    .to_owned(),
            ),
            Self::NotMet { code, .. } => Some(
                match code.as_str() {
                    "tunnel_expired" | "device_timed_out" => {
                        "The device did not come: it may have lost its connection in this moment. Try again."
                    }
                    "tunnel_used" => {
                        "Somebody else has used this session's way in. Try again; if it happens again, tell the server's \
                         administrator."
                    }
                    "tunnel_unknown" | "tunnel_wrong_side" => {
                        "The gateway may have been restarted in this moment. Try again."
                    }
                    _ => "Try again.",
                }
                .to_owned(),
            ),
            Self::ProxySettings(_) => Some("Look at https_proxy and all_proxy in the environment.".to_owned()),
            Self::Unreachable { .. } => {
                Some("Port 5900 of the device must be open from here. Check network and firewalls, then try again.".to_owned())
            }
            Self::OfferEnded { .. } | Self::EndedEarly(_) => Some("Try again.".to_owned()),
            Self::Device(_)
            | Self::Viewer(_)
            | Self::Listen(_)
            | Self::NoViewer(_)
            | Self::ViewerEnded { .. }
            | Self::SetUp(_) => None,
        }
    }

    /// Stable code.
    pub fn code(&self) -> &str {
        match self {
            Self::NoAddress { .. } => "no_address",
            Self::Certificate { .. } => "certificate_unusable",
            Self::Unreachable { .. } => "device_unreachable",
            Self::GatewayUnreachable { .. } => "gateway_unreachable",
            Self::NotMet { code, .. } => code,
            Self::GatewayRoot { .. } => "gateway_root_unusable",
            Self::ProxySettings(_) => "proxy_settings",
            Self::OfferEnded { .. } => "offer_ended",
            Self::AnotherCertificate { .. } => "another_certificate",
            Self::Device(error) | Self::Listen(error) => error.code(),
            Self::Viewer(_) | Self::ViewerEnded { .. } => "viewer",
            Self::NoViewer(_) => "no_viewer",
            Self::EndedEarly(_) => "ended_early",
            Self::SetUp(_) => "set_up",
        }
    }
}

fn attempts(tried: &[(String, String)]) -> String {
    let mut text = String::new();
    for (index, (address, sentence)) in tried.iter().enumerate() {
        text.push_str(if index == 0 { " " } else { "; " });
        text.push_str(&format!("at {address}, {sentence}"));
    }
    text
}
