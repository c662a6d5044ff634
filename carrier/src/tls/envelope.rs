//! The client's side of the envelope to a gateway. Between the two may stand a proxy that opens TLS, so its root may be
//! trusted beside the gateway's own; what is inside is protected by another TLS that knows no such root.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::client::config;
use super::error::TlsError;
use super::public::PublicRoots;
use super::trust::{ChainVerifier, DatePolicy, ServerTrust, TrustError, can_be_root};
use crate::alpn;

/// Whose certificate is trusted for the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeTrust {
    /// The gateway's own root.
    pub pinned: ServerTrust,
    /// Further roots, such as that of a proxy that opens TLS. Each has to be fit for it.
    pub extra: Vec<CertificateDer<'static>>,
    /// A bundle of public roots. Certificates that can't be roots are passed over.
    pub bundle: Vec<CertificateDer<'static>>,
    /// The certification authorities that everybody trusts, where they count.
    pub public: Option<PublicRoots>,
}

impl EnvelopeTrust {
    /// The gateway's own root alone.
    pub fn pinned(pinned: ServerTrust) -> Self {
        Self {
            pinned,
            extra: Vec::new(),
            bundle: Vec::new(),
            public: None,
        }
    }
}

/// How anybody sets up the envelope to a gateway: HTTP/1.1 in TLS 1.3, the name checked, and never with a certificate of
/// our own.
///
/// # Errors
/// [`TrustError`] if a pinned or further root can't be one.
pub fn envelope_config(
    trust: EnvelopeTrust,
    dates: DatePolicy,
) -> Result<Arc<ClientConfig>, TrustError> {
    let pinned = ChainVerifier::new(trust.pinned, dates)?.or_gateway();
    let mut roots = trust.extra;
    roots.extend(trust.bundle.into_iter().filter(can_be_root));
    let mut others = Vec::new();
    if !roots.is_empty() {
        others.push(ChainVerifier::new(ServerTrust::PinnedRoots(roots), dates)?.or_gateway());
    }
    if let Some(public) = trust.public {
        others.push(ChainVerifier::new(ServerTrust::PublicCa(public), dates)?.or_gateway());
    }
    let verifier = Arc::new(Either { pinned, others });
    Ok(Arc::new(config(verifier, None, &[alpn::HTTP])))
}

/// Takes what one of them takes.
#[derive(Debug)]
struct Either {
    pinned: ChainVerifier,
    others: Vec<ChainVerifier>,
}

impl ServerCertVerifier for Either {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify =
            |verifier: &ChainVerifier| verifier.verify(end_entity, intermediates, server_name, now);
        let mut told = match verify(&self.pinned) {
            Ok(()) => return Ok(ServerCertVerified::assertion()),
            Err(error) => error,
        };
        for other in &self.others {
            match verify(other) {
                Ok(()) => return Ok(ServerCertVerified::assertion()),
                // A chain from one of the other roots is told about in its own terms.
                Err(error) if knows_no_root(&told) && !knows_no_root(&error) => told = error,
                Err(_) => {}
            }
        }
        Err(told.into_rustls())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.pinned.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.pinned.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.pinned.supported_verify_schemes()
    }
}

fn knows_no_root(error: &TlsError) -> bool {
    matches!(
        error,
        TlsError::UnknownRoot
            | TlsError::IssuerMissing { .. }
            | TlsError::FingerprintMismatch { .. }
            | TlsError::RootNotPresented
    )
}
