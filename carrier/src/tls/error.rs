//! What can go wrong while TLS is set up, for people: each variant is one reason that someone can act on. The TLS
//! library's own words never reach a person; they stay in the source, for the operator's log.

use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, PeerIncompatible};

use crate::x509::date_text;

/// Names of a certificate that are listed in a sentence.
const NAMES_SHOWN: usize = 5;

/// Why no TLS connection came about, or why one broke.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A root is presented, but another one than was agreed on.
    #[error(
        "the root certificate has the fingerprint {} instead of {}", fingerprints(.presented),
        fingerprint(.expected)
    )]
    FingerprintMismatch {
        /// The SHA-256 agreed on.
        expected: [u8; 32],
        /// The SHA-256 of each self-signed certificate that was presented.
        presented: Vec<[u8; 32]>,
    },
    /// No root among the presented certificates.
    #[error(
        "the server doesn't present its root certificate, so the fingerprint can't be compared"
    )]
    RootNotPresented,
    /// No way from the end certificate to a trusted root.
    #[error("the server's certificate doesn't come from a trusted root certificate")]
    UnknownRoot,
    /// A link of the chain is not there.
    #[error(
        "the server doesn't present the certificate of “{issuer}”, so its certificate can't be traced to the root"
    )]
    IssuerMissing {
        /// Whose certificate is missing.
        issuer: String,
    },
    /// A certificate that others are signed with is no CA certificate.
    #[error("“{subject}” vouches for others without being a CA certificate")]
    NotCa {
        /// The certificate.
        subject: String,
    },
    /// A CA certificate whose key usage doesn't allow to sign certificates.
    #[error("“{subject}” vouches for others, but its key usage doesn't allow to sign certificates")]
    MayNotSign {
        /// The certificate.
        subject: String,
    },
    /// More intermediate certificates than a CA certificate allows.
    #[error("there are more intermediate certificates below a CA than its path length allows")]
    PathTooLong,
    /// The certificate chain is longer than any honest one.
    #[error("the other side presents {count} certificates, which is more than any real chain has")]
    ChainTooLong {
        /// How many.
        count: usize,
    },
    /// The end certificate is a CA certificate.
    #[error("“{subject}” is a CA certificate and can't be a server's own certificate")]
    EndIsCa {
        /// The certificate.
        subject: String,
    },
    /// A gateway answers in the place of a server.
    #[error("“{subject}” is the certificate of a gateway and can't be a server's")]
    IsGateway {
        /// The certificate.
        subject: String,
    },
    /// A signature in the chain is wrong.
    #[error("a signature in the certificate chain is wrong")]
    SignatureWrong,
    /// A signature in the chain is of a kind that is not accepted.
    #[error(
        "a certificate in the chain is signed in a way that is not accepted any more, or with an unsuitable key"
    )]
    SignatureNotAccepted,
    /// The extended key usage doesn't say "server".
    #[error(
        "“{subject}” isn't meant for servers: its extended key usage lacks server authentication"
    )]
    WrongPurpose {
        /// The certificate.
        subject: String,
    },
    /// A certificate breaks other rules of X.509, such as a name constraint.
    #[error("a certificate in the chain breaks the rules for certificates")]
    CertificateRefused(#[source] Arc<rustls::Error>),
    /// A certificate can't be read.
    #[error("a presented certificate can't be read")]
    CertificateUnreadable,
    /// The certificate is for other names.
    #[error("the certificate isn't for “{wanted}”: it is for {}", names_text(.names))]
    WrongName {
        /// The name or IP address that was connected to.
        wanted: String,
        /// The names in the certificate.
        names: Vec<String>,
    },
    /// A certificate is too old.
    #[error("the certificate “{subject}” expired on {}", date_text(*.not_after))]
    Expired {
        /// Which certificate.
        subject: String,
        /// Until when it was valid (seconds since 1970).
        not_after: i64,
    },
    /// A certificate is not valid yet, or this machine's clock is slow.
    #[error("the certificate “{subject}” isn't valid before {}", date_text(*.not_before))]
    NotYetValid {
        /// Which certificate.
        subject: String,
        /// From when on it is valid (seconds since 1970).
        not_before: i64,
    },
    /// The other side presents a certificate whose key it doesn't have.
    #[error("the other side couldn't prove that it holds the key of its certificate")]
    KeyNotProven,
    /// What answers doesn't speak TLS.
    #[error("what answers there doesn't speak TLS")]
    NotTls,
    /// What answers speaks TLS 1.2 or older only.
    #[error("the other side doesn't speak TLS 1.3")]
    ProtocolTooOld,
    /// Both speak TLS 1.3 but share no cipher, curve or kind of key.
    #[error("the two sides have no TLS 1.3 algorithms in common")]
    NothingInCommon,
    /// What answers speaks TLS, but not the protocol that was asked for.
    #[error("what answers there speaks TLS, but isn't the service that was expected")]
    WrongService,
    /// The handshake took too long.
    #[error("the secure connection wasn't set up in time")]
    TimedOut,
    /// The connection ended during the handshake, or later without a farewell.
    #[error("the other side closed the connection")]
    Closed,
    /// Our certificate was looked at and refused.
    #[error("the other side refused our certificate")]
    PeerRefusedOurCertificate,
    /// The other side insists on a certificate and got none.
    #[error("the other side asks for a certificate, and none was presented")]
    PeerWantsCertificate,
    /// The other side presented no certificate where one is needed.
    #[error("the other side presented no certificate")]
    NoCertificate,
    /// The other side presented another certificate than those that are known one by one.
    #[error("the other side's certificate is none of those that are known here")]
    NotKnown,
    /// The other side refused for another reason.
    #[error("the other side refused the secure connection (TLS alert {alert})")]
    PeerRefused {
        /// The alert's number in the standard (RFC 8446, section 6).
        alert: u8,
    },
    /// The name to connect to is neither a DNS name nor an IP address.
    #[error("“{name}” is neither a host name nor an IP address")]
    BadName {
        /// The name.
        name: String,
    },
    /// The other side broke the rules of TLS, or bytes were changed on the way.
    #[error(
        "the secure connection broke: the other side, or something in between, doesn't keep to the rules of TLS"
    )]
    RulesBroken(#[source] Arc<rustls::Error>),
    /// The stream below failed.
    #[error("the connection failed")]
    Io(#[source] Arc<io::Error>),
}

impl TlsError {
    /// Whether the reason is in the certificates: another attempt ends the same way until someone changes something.
    /// The dates are among these reasons, and a wrong clock makes them.
    pub fn concerns_certificates(&self) -> bool {
        match self {
            Self::FingerprintMismatch { .. }
            | Self::RootNotPresented
            | Self::UnknownRoot
            | Self::IssuerMissing { .. }
            | Self::NotCa { .. }
            | Self::MayNotSign { .. }
            | Self::PathTooLong
            | Self::ChainTooLong { .. }
            | Self::EndIsCa { .. }
            | Self::IsGateway { .. }
            | Self::SignatureWrong
            | Self::SignatureNotAccepted
            | Self::WrongPurpose { .. }
            | Self::CertificateRefused(_)
            | Self::CertificateUnreadable
            | Self::WrongName { .. }
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::KeyNotProven
            | Self::PeerRefusedOurCertificate
            | Self::PeerWantsCertificate
            | Self::NoCertificate
            | Self::NotKnown => true,
            Self::NotTls
            | Self::ProtocolTooOld
            | Self::NothingInCommon
            | Self::WrongService
            | Self::TimedOut
            | Self::Closed
            | Self::PeerRefused { .. }
            | Self::BadName { .. }
            | Self::RulesBroken(_)
            | Self::Io(_) => false,
        }
    }

    /// Reads the reason out of an error of a TLS stream. In TLS 1.3 a server refuses a client's certificate only after
    /// the client's handshake is complete, so a first read or write may tell more than `connect_tls` could.
    pub fn of_stream(error: &io::Error) -> Self {
        if let Some(inner) = error.get_ref() {
            if let Some(error) = inner.downcast_ref::<rustls::Error>() {
                return Self::from(error.clone());
            }
            if let Some(error) = inner.downcast_ref::<Self>() {
                return error.clone();
            }
        }
        let closed = [
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::NotConnected,
        ];
        if closed.contains(&error.kind()) {
            return Self::Closed;
        }
        Self::Io(Arc::new(io::Error::new(error.kind(), error.to_string())))
    }

    /// Wraps this error for the way through the TLS library, which brings it back in `of_stream`.
    pub(super) fn into_rustls(self) -> rustls::Error {
        CertificateError::Other(rustls::OtherError(Arc::new(self))).into()
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        Self::of_stream(&error)
    }
}

impl From<rustls::Error> for TlsError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's errors grow; unknown ones keep their text as source"
    )]
    fn from(error: rustls::Error) -> Self {
        match &error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<Self>() {
                    Some(own) => own.clone(),
                    None => Self::CertificateRefused(Arc::new(error)),
                }
            }
            rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => {
                Self::CertificateUnreadable
            }
            rustls::Error::InvalidCertificate(CertificateError::BadSignature) => Self::KeyNotProven,
            rustls::Error::InvalidCertificate(_) => Self::CertificateRefused(Arc::new(error)),
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::PeerIncompatible(reason) => match reason {
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled => Self::ProtocolTooOld,
                _ => Self::NothingInCommon,
            },
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::NoApplicationProtocol => Self::WrongService,
            rustls::Error::AlertReceived(alert) => Self::from_alert(*alert),
            _ => Self::RulesBroken(Arc::new(error)),
        }
    }
}

impl TlsError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard's alerts grow; others are shown by number"
    )]
    fn from_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::ProtocolVersion => Self::ProtocolTooOld,
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                Self::NothingInCommon
            }
            AlertDescription::NoApplicationProtocol => Self::WrongService,
            AlertDescription::CertificateRequired => Self::PeerWantsCertificate,
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => Self::PeerRefusedOurCertificate,
            AlertDescription::CloseNotify | AlertDescription::UserCanceled => Self::Closed,
            other => Self::PeerRefused {
                alert: u8::from(other),
            },
        }
    }
}

/// In the four parts in which people are given it, so that they can compare.
pub(crate) fn fingerprint(bytes: &[u8; 32]) -> String {
    let part = |eight: &[u8]| eight.iter().map(|byte| format!("{byte:02X}")).collect();
    let parts: Vec<String> = bytes.chunks(8).map(part).collect();
    parts.join("-")
}

fn fingerprints(all: &[[u8; 32]]) -> String {
    all.iter()
        .map(fingerprint)
        .collect::<Vec<_>>()
        .join(" and ")
}

fn names_text(names: &[String]) -> String {
    match names {
        [] => "no name at all (it has no subject alternative names)".to_owned(),
        [one] => one.clone(),
        many if many.len() <= NAMES_SHOWN => many.join(", "),
        many => format!(
            "{} and {} more",
            many[..NAMES_SHOWN].join(", "),
            many.len() - NAMES_SHOWN
        ),
    }
}
