//! TLS around a gateway: the envelope that anybody may look into who owns the network between, and the uplink inside it,
//! where a gateway knows its servers by exactly their certificates. The envelope never asks for a client's certificate.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use umbra_tls_stream::ServerStream;

use super::error::TlsError;
use super::identity::TlsIdentity;
use super::server::config;
use super::trust::{refuse_tls12, verify_possession};
use super::{presented_chain, provider};
use crate::alpn;

/// An identity that can be exchanged while a program runs: connections that are set up show the new one from then on, and
/// those that stand aren't touched.
pub struct SwappableIdentity {
    certified: RwLock<Arc<CertifiedKey>>,
}

impl SwappableIdentity {
    /// Begins with this identity.
    pub fn new(identity: &TlsIdentity) -> Arc<Self> {
        Arc::new(Self {
            certified: RwLock::new(identity.certified()),
        })
    }

    /// Shows this identity from now on.
    pub fn swap(&self, identity: &TlsIdentity) {
        let mut current = self
            .certified
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = identity.certified();
    }

    /// The certificates that are shown now, the end certificate first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current().cert.clone()
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let current = self
            .certified
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }
}

impl fmt::Debug for SwappableIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwappableIdentity")
            .field("certificates", &self.current().cert.len())
            .field("key", &"MASKED")
            .finish()
    }
}

impl ResolvesServerCert for SwappableIdentity {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// How a gateway meets everybody: HTTP/1.1 in TLS 1.3, no client certificate.
pub fn envelope_acceptor_config(identity: Arc<SwappableIdentity>) -> Arc<ServerConfig> {
    config(identity, Arc::new(NoClientAuth), alpn::HTTP)
}

/// How a gateway meets its servers inside the envelope: exactly one of these certificates is demanded, and its key. For
/// other certificates a new configuration is made.
pub fn uplink_acceptor_config(
    identity: &TlsIdentity,
    servers: Vec<CertificateDer<'static>>,
) -> Arc<ServerConfig> {
    let verifier = OneOf {
        expected: servers,
        algorithms: provider().signature_verification_algorithms,
    };
    let own = Arc::new(SingleCertAndKey::from(identity.certified()));
    config(own, Arc::new(verifier), alpn::UPLINK)
}

/// Sets up TLS as the server within `deadline`, for clients of one kind that are many and mostly silent.
///
/// # Errors
/// [`TlsError`]; none of them is a reason to stop accepting.
pub async fn accept_tls<IO>(
    io: IO,
    config: Arc<ServerConfig>,
    deadline: Duration,
) -> Result<ServerStream<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    in_time(deadline, ServerStream::accept(io, config)).await
}

async fn in_time<T>(
    deadline: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<T, TlsError> {
    match timeout(deadline, handshake).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(TlsError::TimedOut),
    }
}

/// Sets up the uplink as the gateway within `deadline`. Says which certificate the server showed.
///
/// # Errors
/// [`TlsError`]; also where the client doesn't ask for an uplink.
pub async fn accept_uplink<IO>(
    io: IO,
    config: Arc<ServerConfig>,
    deadline: Duration,
) -> Result<(TlsStream<IO>, CertificateDer<'static>), TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let stream = in_time(deadline, TlsAcceptor::from(config).accept(io)).await?;
    let connection = stream.get_ref().1;
    if connection.alpn_protocol() != Some(alpn::UPLINK) {
        return Err(TlsError::WrongService);
    }
    let certificate = presented_chain(connection).into_iter().next();
    let certificate = certificate.ok_or(TlsError::NoCertificate)?;
    Ok((stream, certificate))
}

/// Takes exactly these certificates. None of them is ever a root: whatever one of them has signed is a stranger.
#[derive(Debug)]
struct OneOf {
    expected: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl OneOf {
    fn compare(&self, shown: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if self
            .expected
            .iter()
            .any(|one| one.as_ref() == shown.as_ref())
        {
            Ok(())
        } else {
            Err(TlsError::NotKnown.into_rustls())
        }
    }
}

impl ClientCertVerifier for OneOf {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.compare(end_entity)?;
        Ok(ClientCertVerified::assertion())
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
        self.compare(cert)?;
        verify_possession(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
