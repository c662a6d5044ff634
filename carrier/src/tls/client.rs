//! The side that dials: connections to a server that is trusted, and connections that only look at a chain. The second
//! kind never presents a certificate of our own, and never sends a byte after the handshake.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::TlsError;
use super::identity::TlsIdentity;
use super::trust::{
    ChainVerifier, DatePolicy, ServerTrust, TrustError, refuse_tls12, verify_possession,
};
use super::{presented_chain, provider};
use crate::alpn;

/// How a device, or another client of the server, sets up TLS: the server must come from `trust`'s root, and is shown
/// the certificate of `identity` if it asks for one. It is shown only after the server has been verified. A gateway of the
/// same root is refused.
///
/// # Errors
/// [`TrustError`] if one of the pinned roots can't be one.
pub fn device_config(
    identity: Option<&TlsIdentity>,
    trust: ServerTrust,
    dates: DatePolicy,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TrustError> {
    let verifier = Arc::new(ChainVerifier::new(trust, dates)?);
    Ok(Arc::new(config(verifier, identity, &[alpn])))
}

/// How a server sets up its uplink to a gateway, inside the envelope: the gateway must come from `trust`'s root, and is
/// shown the server's uplink certificate.
///
/// # Errors
/// [`TrustError`] if one of the pinned roots can't be one.
pub fn uplink_config(
    identity: &TlsIdentity,
    trust: ServerTrust,
    dates: DatePolicy,
) -> Result<Arc<ClientConfig>, TrustError> {
    let verifier = Arc::new(ChainVerifier::new(trust, dates)?.or_gateway());
    Ok(Arc::new(config(verifier, Some(identity), &[alpn::UPLINK])))
}

pub(super) fn config(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<&TlsIdentity>,
    alpn: &[&[u8]],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider of this crate has TLS 1.3 cipher suites")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified()))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// Sets up TLS over `io` within `deadline`. `server_name` is what the server's certificate must cover: a DNS name or an
/// IP address (without brackets).
///
/// # Errors
/// [`TlsError`]; also where the server doesn't speak the application protocol of `config`.
pub async fn connect_tls<IO>(
    io: IO,
    config: Arc<ClientConfig>,
    server_name: &str,
    deadline: Duration,
) -> Result<TlsStream<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    connect_until(io, config, server_name, Instant::now() + deadline).await
}

async fn connect_until<IO>(
    io: IO,
    config: Arc<ClientConfig>,
    server_name: &str,
    end: Instant,
) -> Result<TlsStream<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = read_name(server_name)?;
    let offered = config.alpn_protocols.clone();
    let stream = match timeout_at(end, TlsConnector::from(config).connect(name, io)).await {
        Ok(result) => result?,
        Err(_) => return Err(TlsError::TimedOut),
    };
    // The library refuses a protocol that wasn't offered. A server without ALPN agrees on none: for HTTP that is usual,
    // for anything else it is another service.
    let agreed = stream.get_ref().1.alpn_protocol().is_some();
    if agreed || offered.is_empty() || offered.iter().any(|protocol| protocol == alpn::HTTP) {
        Ok(stream)
    } else {
        Err(TlsError::WrongService)
    }
}

/// The certificates that a server presents, whoever it is: to show fingerprints before there is trust, and to diagnose.
/// Nothing is sent after the handshake, and no certificate of ours. The server has proven only that it holds the key of
/// the first certificate.
///
/// # Errors
/// [`TlsError`] if there is no TLS 1.3 server, or not in time.
pub async fn fetch_chain<IO>(
    io: IO,
    server_name: &str,
    deadline: Duration,
) -> Result<Vec<CertificateDer<'static>>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let end = Instant::now() + deadline;
    let (_, chain) = look(io, &[], server_name, end).await?;
    Ok(chain)
}

/// What answers at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// A server, which takes control links itself.
    Link,
    /// HTTP: a gateway, or a server's other side behind something that passes HTTP only.
    Http,
}

/// Which kind of host answers, and with which certificates, whoever it is. As with [`fetch_chain`], nothing is sent after
/// the handshake, and the host has proven only that it holds the key of the first certificate.
///
/// # Errors
/// [`TlsError`] if there is no TLS 1.3 server, or not in time; [`TlsError::WrongService`] if it speaks neither.
pub async fn probe_kind<IO>(
    io: IO,
    server_name: &str,
    deadline: Duration,
) -> Result<(HostKind, Vec<CertificateDer<'static>>), TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let end = Instant::now() + deadline;
    let (agreed, chain) = look(io, &[alpn::CONTROL_LINK, alpn::HTTP], server_name, end).await?;
    let is_link = agreed.as_deref() == Some(alpn::CONTROL_LINK);
    let kind = if is_link {
        HostKind::Link
    } else {
        HostKind::Http
    };
    Ok((kind, chain))
}

type Looked = (Option<Vec<u8>>, Vec<CertificateDer<'static>>);

async fn look<IO>(
    io: IO,
    offered: &[&[u8]],
    server_name: &str,
    end: Instant,
) -> Result<Looked, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let verifier = Arc::new(LookOnly {
        algorithms: provider().signature_verification_algorithms,
    });
    let config = Arc::new(config(verifier, None, offered));
    let mut stream = connect_until(io, config, server_name, end).await?;
    let connection = stream.get_ref().1;
    let agreed = connection.alpn_protocol().map(<[u8]>::to_vec);
    let chain = presented_chain(connection);
    // The farewell is a courtesy: the chain is here, whether it arrives or not.
    let _ = timeout_at(end, stream.shutdown()).await;
    Ok((agreed, chain))
}

pub(super) fn read_name(text: &str) -> Result<ServerName<'static>, TlsError> {
    let bad = || TlsError::BadName {
        name: crate::x509::printable(text, 80),
    };
    // The zone of a link-local address is about this machine's interfaces, not about the server.
    if let Some((address, _zone)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().map_err(|_| bad())?;
        return Ok(ServerName::from(IpAddr::V6(address)));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    ServerName::try_from(name.to_owned()).map_err(|_| bad())
}

/// Takes any certificate, and still insists that the server holds its key.
#[derive(Debug)]
struct LookOnly {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for LookOnly {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
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
