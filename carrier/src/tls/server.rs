//! The side that accepts: one port for devices and for HTTP, told apart by ALPN before any certificate is asked for.
//! A device's certificate is never judged here beyond the proof that its key is there: whose it is, the caller's
//! database says.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, NoClientAuth, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::error::TlsError;
use super::identity::TlsIdentity;
use super::provider;
use super::trust::{refuse_tls12, verify_possession};
use crate::{alpn, x509};

/// How the server meets devices: a client certificate is demanded, and any is taken whose key the client holds.
pub fn link_acceptor_config(identity: &TlsIdentity) -> Arc<ServerConfig> {
    let verifier = AnyDevice {
        algorithms: provider().signature_verification_algorithms,
    };
    let own = Arc::new(SingleCertAndKey::from(identity.certified()));
    config(own, Arc::new(verifier), alpn::CONTROL_LINK)
}

/// How the server meets browsers and other HTTP clients: no client certificate, with or without ALPN.
pub fn http_acceptor_config(identity: &TlsIdentity) -> Arc<ServerConfig> {
    let own = Arc::new(SingleCertAndKey::from(identity.certified()));
    config(own, Arc::new(NoClientAuth), alpn::HTTP)
}

pub(super) fn config(
    identity: Arc<dyn ResolvesServerCert>,
    clients: Arc<dyn ClientCertVerifier>,
    protocol: &[u8],
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider of this crate has TLS 1.3 cipher suites")
        .with_client_cert_verifier(clients)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// An accepted connection, by what the client asked for.
#[derive(Debug)]
pub enum Accepted<IO> {
    /// A device's control link, with the certificate whose key the device holds.
    Link(TlsStream<IO>, CertificateDer<'static>),
    /// An HTTP client.
    Http(TlsStream<IO>),
}

/// Sets up TLS as the server within `deadline`: as a control link for clients that ask for it, as HTTP for all others.
///
/// # Errors
/// [`TlsError`]; none of them is a reason to stop accepting.
pub async fn accept_by_alpn<IO>(
    io: IO,
    link: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    deadline: Duration,
) -> Result<Accepted<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(deadline, accept(io, link, http)).await {
        Ok(result) => result,
        Err(_) => Err(TlsError::TimedOut),
    }
}

async fn accept<IO>(
    io: IO,
    link: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
) -> Result<Accepted<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let start = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
    let wants_link = start
        .client_hello()
        .alpn()
        .is_some_and(|mut offered| offered.any(|protocol| protocol == alpn::CONTROL_LINK));
    if !wants_link {
        return Ok(Accepted::Http(start.into_stream(http).await?));
    }
    let stream = start.into_stream(link).await?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .cloned();
    match certificate {
        Some(certificate) => Ok(Accepted::Link(stream, certificate)),
        None => Err(TlsError::NoCertificate),
    }
}

/// Takes any certificate that has a public key, and insists that the client holds the private one.
#[derive(Debug)]
struct AnyDevice {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyDevice {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: the device has one certificate and presents it.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match x509::spki(end_entity) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
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
