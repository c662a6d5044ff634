//! TLS for both ends of the tunnel: version 1.3 only, provider named, no resumption, no early data. A device may be told to let consoles
//! of the field in with version 1.2 as well, with strong suites alone. The console's side trusts
//! exactly one certificate and must never put it into a root store: rustls would then accept whatever that device signed.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible,
    ServerConfig, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion, version,
};

use crate::certificate::{Fingerprint, subject_public_key_info};

/// What is wrong with the material for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate was given.
    #[error("no certificate was given")]
    NoCertificate,
    /// The certificate can't be read.
    #[error("the certificate can't be read")]
    BadCertificate,
    /// The private key can't be used.
    #[error("the private key can't be used")]
    BadKey(#[source] Error),
    /// Certificate and private key don't belong together.
    #[error("the private key doesn't belong to the certificate")]
    KeyMismatch,
    /// The TLS library refused the set-up.
    #[error("TLS can't be set up")]
    Setup(#[source] Error),
}

/// The device showed another certificate than the one that the server named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device showed another certificate: expected SHA-256 {expected}, shown {shown}")]
pub struct AnotherCertificate {
    /// Fingerprint of the certificate that the server named.
    pub expected: Fingerprint,
    /// Fingerprint of the certificate that the device showed.
    pub shown: Fingerprint,
}

fn provider() -> Arc<CryptoProvider> {
    umbra_key_exchange::shared_provider()
}

/// What TLS 1.2 may be spoken with: keys that are forgotten afterwards, signed by the device's own, and encryption that notices changes.
const STRONG_OF_TLS12: [SupportedCipherSuite; 3] = [
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// What a device answers TLS clients with: its certificate chain and key. Clients are not asked for a certificate: the session
/// ticket says who they are.
pub fn device_server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config(provider(), &[&version::TLS13], chain, key)
}

/// The same, for TLS 1.2 as well, with strong suites and the extended master secret (RFC 7627): for consoles of the field that know nothing
/// newer. Nothing in it outlives the quantum computers of tomorrow, since the hybrid key exchange is TLS 1.3's.
pub fn device_server_config_with_tls12(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut provider = umbra_key_exchange::provider();
    provider.cipher_suites.extend(STRONG_OF_TLS12);
    let versions = [&version::TLS13, &version::TLS12];
    server_config(Arc::new(provider), &versions, chain, key)
}

fn server_config(
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let end_entity = chain.first().ok_or(TlsError::NoCertificate)?;
    let certified = subject_public_key_info(end_entity)
        .map_err(|_| TlsError::BadCertificate)?
        .to_vec();
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(TlsError::BadKey)?;
    if key
        .public_key()
        .is_some_and(|public| public.as_ref() != certified)
    {
        return Err(TlsError::KeyMismatch);
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        // Not `with_single_cert`: that parses the certificate as a web server's and refuses the field's plain ones.
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            chain, key,
        ))));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // TLS 1.2 without it can be made to share its secret with another connection ("triple handshake").
    config.require_ems = true;
    Ok(Arc::new(config))
}

/// What the console's end connects with: it accepts the device that shows exactly this certificate and holds its key.
pub fn console_client_config(
    expected: CertificateDer<'static>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = ExactCertificate {
        public_key: subject_public_key_info(&expected)
            .map_err(|_| TlsError::BadCertificate)?
            .to_vec(),
        expected,
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // The device is known by its certificate: a name would only tell the network whom we call.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Digs the typed mismatch out of what a TLS connection failed with.
pub(crate) fn another_certificate(error: &std::io::Error) -> Option<AnotherCertificate> {
    let Error::InvalidCertificate(CertificateError::Other(other)) =
        error.get_ref()?.downcast_ref()?
    else {
        return None;
    };
    other.0.downcast_ref().copied()
}

struct ExactCertificate {
    expected: CertificateDer<'static>,
    public_key: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ExactCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactCertificate")
            .field("sha256", &Fingerprint::of(&self.expected))
            .finish_non_exhaustive()
    }
}

impl ExactCertificate {
    fn compare(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        if shown.as_ref() == self.expected.as_ref() {
            return Ok(());
        }
        let mismatch = AnotherCertificate {
            expected: Fingerprint::of(&self.expected),
            shown: Fingerprint::of(shown.as_ref()),
        };
        Err(Error::InvalidCertificate(CertificateError::Other(
            OtherError(Arc::new(mismatch)),
        )))
    }
}

impl ServerCertVerifier for ExactCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.compare(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOfferedOrEnabled,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.compare(cert)?;
        // The key is taken from the bytes that were compared, past the parser that would refuse a version 1 certificate.
        let key = SubjectPublicKeyInfoDer::from(self.public_key.as_slice());
        verify_tls13_signature_with_raw_key(
            message,
            &key,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
