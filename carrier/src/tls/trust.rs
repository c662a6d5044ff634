//! Whose server certificate is trusted. A root is pinned, by its certificate or by its fingerprint, and has to be a CA
//! certificate itself: an end certificate that is pinned must never vouch for another one. What webpki leaves out is
//! checked here: the key usage of every CA in the chain, and flags, path length and dates of the root.

use std::cell::RefCell;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime,
};
use rustls::{CertificateError, DigitallySignedStruct, PeerIncompatible, SignatureScheme};

use super::error::TlsError;
use super::explain::Chain;
use super::provider;
use super::public::PublicRoots;
use crate::x509::{CertificateFacts, sha256, spki};

/// A real chain has three or four certificates; what has more than this is not looked at.
pub(super) const MAX_CHAIN: usize = 16;

/// Which root certificate a server's certificate must come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTrust {
    /// One of these root certificates, whether the server presents it or not.
    PinnedRoots(Vec<CertificateDer<'static>>),
    /// The root certificate with this SHA-256, which the server must present.
    RootFingerprint([u8; 32]),
    /// One of the certification authorities that everybody trusts. They vouch for the server's name and for nothing else.
    PublicCa(PublicRoots),
    /// Nobody vouches: whoever answers is taken, as long as it holds the key of its certificate. Only for looking, and where
    /// something that is said inside this very connection proves who it is.
    Unproven,
}

/// Whether the dates in certificates are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatePolicy {
    /// Against the clock of this machine.
    Enforce,
    /// Not at all, because the clock of this machine can't be right. Everything else is checked as ever, at a time at
    /// which the end certificate was valid.
    Ignore,
}

/// Why a root certificate can't be pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no root at all.
    #[error("no root certificate is given, so no server could ever be trusted")]
    NoRoots,
    /// A root can't be read.
    #[error("root certificate {position} can't be read: it is damaged, or no X.509 certificate")]
    Unreadable {
        /// Which one, counted from 1.
        position: usize,
    },
    /// A root is no CA certificate.
    #[error("“{subject}” can't be a root certificate: it isn't a CA certificate")]
    NotCa {
        /// The certificate.
        subject: String,
    },
    /// A root's key usage doesn't allow to sign certificates.
    #[error(
        "“{subject}” can't be a root certificate: its key usage doesn't allow to sign certificates"
    )]
    MayNotSign {
        /// The certificate.
        subject: String,
    },
}

/// Checks a server's chain against a [`ServerTrust`].
#[derive(Debug)]
pub(super) struct ChainVerifier {
    trust: ServerTrust,
    dates: DatePolicy,
    /// Whether a gateway may answer.
    gateways: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ChainVerifier {
    pub(super) fn new(trust: ServerTrust, dates: DatePolicy) -> Result<Self, TrustError> {
        if let ServerTrust::PinnedRoots(roots) = &trust {
            if roots.is_empty() {
                return Err(TrustError::NoRoots);
            }
            for (index, root) in roots.iter().enumerate() {
                check_root(root, index + 1)?;
            }
        }
        Ok(Self {
            trust,
            dates,
            gateways: false,
            algorithms: provider().signature_verification_algorithms,
        })
    }

    /// The same for a peer that may be a gateway.
    pub(super) fn or_gateway(self) -> Self {
        Self {
            gateways: true,
            ..self
        }
    }

    pub(super) fn verify(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), TlsError> {
        self.verify_to(end, others, name, now).map(|_| ())
    }

    /// As [`ChainVerifier::verify`]; says which root it was, by its subject in DER. There is none where nobody vouches.
    pub(super) fn verify_to(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, TlsError> {
        if others.len() >= MAX_CHAIN {
            return Err(TlsError::ChainTooLong {
                count: others.len() + 1,
            });
        }
        let found;
        let roots: &[CertificateDer<'_>] = match &self.trust {
            ServerTrust::PinnedRoots(roots) => roots,
            ServerTrust::RootFingerprint(expected) => {
                found = [find_root(*expected, end, others)?];
                &found
            }
            ServerTrust::PublicCa(_) | ServerTrust::Unproven => &[],
        };
        let chain = Chain::read(end, others)?;
        if chain.end.is_ca == Some(true) {
            return Err(TlsError::EndIsCa {
                subject: chain.end.display_name(),
            });
        }
        if chain.end.is_gateway() && !self.gateways {
            return Err(TlsError::IsGateway {
                subject: chain.end.display_name(),
            });
        }
        let own;
        let anchors: &[TrustAnchor<'_>] = match &self.trust {
            ServerTrust::PinnedRoots(_) | ServerTrust::RootFingerprint(_) => {
                own = roots
                    .iter()
                    .map(|root| webpki::anchor_from_trusted_cert(root))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|_| TlsError::CertificateUnreadable)?;
                &own
            }
            ServerTrust::PublicCa(public) => public.anchors(),
            ServerTrust::Unproven => return Ok(None),
        };
        let certificate = webpki::EndEntityCert::try_from(end)
            .map_err(|error| chain.explain(error, roots, name))?;
        let subject = self.verify_path(&certificate, &chain, roots, anchors, name, now)?;
        certificate
            .verify_is_valid_for_subject_name(name)
            .map_err(|error| chain.explain(error, roots, name))?;
        Ok(Some(subject))
    }

    fn verify_path(
        &self,
        certificate: &webpki::EndEntityCert<'_>,
        chain: &Chain<'_>,
        roots: &[CertificateDer<'_>],
        anchors: &[TrustAnchor<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Vec<u8>, TlsError> {
        let mut time = match self.dates {
            DatePolicy::Enforce => now,
            DatePolicy::Ignore => moment(chain.end.not_before),
        };
        // Without dates, a CA certificate that was renewed after the end certificate was issued moves the time on; once
        // per certificate at most.
        for _ in 0..=MAX_CHAIN {
            let refused = RefCell::new(None);
            let check = |path: &webpki::VerifiedPath<'_>| {
                let root = match &self.trust {
                    // Of these no more is known than webpki looks at.
                    ServerTrust::PublicCa(_) => None,
                    ServerTrust::PinnedRoots(_)
                    | ServerTrust::RootFingerprint(_)
                    | ServerTrust::Unproven => {
                        let index = anchors
                            .iter()
                            .position(|anchor| std::ptr::eq(anchor, path.anchor()));
                        let root = index.and_then(|index| roots.get(index));
                        Some(root.ok_or(webpki::Error::UnknownIssuer)?)
                    }
                };
                self.check_authorities(path, root, now).map_err(|error| {
                    refused.replace(Some(error));
                    webpki::Error::UnknownIssuer
                })
            };
            let result = certificate.verify_for_usage(
                self.algorithms.all,
                anchors,
                chain.others,
                time,
                webpki::KeyUsage::server_auth(),
                None,
                Some(&check),
            );
            let error = match result {
                Ok(path) => return Ok(path.anchor().subject.to_vec()),
                Err(error) => error,
            };
            if let (DatePolicy::Ignore, webpki::Error::CertNotValidYet { not_before, .. }) =
                (self.dates, &error)
            {
                time = *not_before;
                continue;
            }
            return Err(refused
                .into_inner()
                .unwrap_or_else(|| chain.explain(error, roots, name)));
        }
        Err(TlsError::UnknownRoot)
    }

    /// What webpki doesn't check of the certificates that vouch for the end certificate.
    fn check_authorities(
        &self,
        path: &webpki::VerifiedPath<'_>,
        root: Option<&CertificateDer<'_>>,
        now: UnixTime,
    ) -> Result<(), TlsError> {
        let mut below_root: u32 = 0;
        for intermediate in path.intermediate_certificates() {
            let facts = read(&intermediate.der())?;
            refuse_unfit(&facts)?;
            // A CA that only renewed its own key doesn't count (RFC 5280, section 4.2.1.9).
            if intermediate.subject() != intermediate.issuer() {
                below_root += 1;
            }
        }
        let Some(root) = root else {
            return Ok(());
        };
        let facts = read(root)?;
        refuse_unfit(&facts)?;
        if facts.path_len.is_some_and(|allowed| below_root > allowed) {
            return Err(TlsError::PathTooLong);
        }
        match self.dates {
            DatePolicy::Ignore => Ok(()),
            DatePolicy::Enforce if now > moment(facts.not_after) => Err(TlsError::Expired {
                subject: facts.display_name(),
                not_after: facts.not_after,
            }),
            DatePolicy::Enforce if now < moment(facts.not_before) => Err(TlsError::NotYetValid {
                subject: facts.display_name(),
                not_before: facts.not_before,
            }),
            DatePolicy::Enforce => Ok(()),
        }
    }
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.verify(end_entity, intermediates, server_name, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(error.into_rustls()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_possession(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether the other side holds the key of the certificate that it presented. The key is taken from the certificate's
/// outer shape, so this works for certificates with an inside that webpki refuses to parse.
pub(super) fn verify_possession(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let key = spki(certificate).map_err(|_| CertificateError::BadEncoding)?;
    verify_tls13_signature_with_raw_key(
        message,
        &SubjectPublicKeyInfoDer::from(key),
        signed,
        algorithms,
    )
}

/// TLS 1.2 is never offered, so this is never asked for.
pub(super) fn refuse_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
}

/// Whether a certificate could be pinned as a root.
pub(super) fn can_be_root(certificate: &CertificateDer<'_>) -> bool {
    check_root(certificate, 0).is_ok()
}

fn check_root(root: &CertificateDer<'_>, position: usize) -> Result<(), TrustError> {
    let unreadable = || TrustError::Unreadable { position };
    let facts = CertificateFacts::read(root).map_err(|_| unreadable())?;
    webpki::anchor_from_trusted_cert(root).map_err(|_| unreadable())?;
    match refuse_as_authority(&facts) {
        None => Ok(()),
        Some(Unfit::NotCa) => Err(TrustError::NotCa {
            subject: facts.display_name(),
        }),
        Some(Unfit::MayNotSign) => Err(TrustError::MayNotSign {
            subject: facts.display_name(),
        }),
    }
}

enum Unfit {
    NotCa,
    MayNotSign,
}

/// Why a certificate can't vouch for another one.
fn refuse_as_authority(facts: &CertificateFacts) -> Option<Unfit> {
    if facts.is_ca != Some(true) {
        Some(Unfit::NotCa)
    } else if facts.may_sign_certificates == Some(false) {
        Some(Unfit::MayNotSign)
    } else {
        None
    }
}

fn refuse_unfit(facts: &CertificateFacts) -> Result<(), TlsError> {
    match refuse_as_authority(facts) {
        None => Ok(()),
        Some(Unfit::NotCa) => Err(TlsError::NotCa {
            subject: facts.display_name(),
        }),
        Some(Unfit::MayNotSign) => Err(TlsError::MayNotSign {
            subject: facts.display_name(),
        }),
    }
}

/// The presented certificate with the pinned fingerprint; it must be fit to vouch for others.
fn find_root<'a>(
    expected: [u8; 32],
    end: &'a CertificateDer<'_>,
    others: &'a [CertificateDer<'_>],
) -> Result<CertificateDer<'a>, TlsError> {
    let all = || others.iter().chain([end]);
    if let Some(root) = all().find(|certificate| sha256(certificate) == expected) {
        refuse_unfit(&read(root)?)?;
        return Ok(CertificateDer::from(root.as_ref()));
    }
    let is_root = |certificate: &&CertificateDer<'_>| {
        CertificateFacts::read(certificate).is_ok_and(|facts| facts.self_signed)
    };
    let presented: Vec<[u8; 32]> = all()
        .filter(is_root)
        .map(|certificate| sha256(certificate))
        .collect();
    if presented.is_empty() {
        return Err(TlsError::RootNotPresented);
    }
    Err(TlsError::FingerprintMismatch {
        expected,
        presented,
    })
}

pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<CertificateFacts, TlsError> {
    CertificateFacts::read(certificate).map_err(|_| TlsError::CertificateUnreadable)
}

fn moment(unix: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(unix).unwrap_or(0)))
}
