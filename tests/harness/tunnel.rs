//! The console's side of a tunnel, spoken by hand: for scenarios in which a console lies, repeats itself, is too slow or
//! says too much. It accepts any certificate and keeps it, since who answers is a question of its own there.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The longest line that is read.
const LONGEST_LINE: usize = 8 * 1024;

/// Accepts whoever can prove that the key is theirs, and keeps the certificate.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(end_entity.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
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

/// What TLS can lie on.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// A TLS connection to a device.
pub struct Tunnel {
    stream: TlsStream<Box<dyn Carrier>>,
    certificate: Option<CertificateDer<'static>>,
}

/// TLS to whoever answers, with its certificate.
pub async fn dial(address: SocketAddr, limit: Duration) -> std::io::Result<Tunnel> {
    let tcp = timeout(limit, TcpStream::connect(address)).await??;
    over(Box::new(tcp), address.ip(), limit).await
}

/// The same on a connection that is there already, for whoever is known by this address.
pub async fn over(
    carrier: Box<dyn Carrier>,
    host: IpAddr,
    limit: Duration,
) -> std::io::Result<Tunnel> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyCertificate {
        provider: Arc::clone(&provider),
        seen: Mutex::new(None),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let connecting = TlsConnector::from(Arc::new(config)).connect(ServerName::from(host), carrier);
    let stream = timeout(limit, connecting).await??;
    let certificate = verifier
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    Ok(Tunnel {
        stream,
        certificate,
    })
}

impl Tunnel {
    /// The certificate of whoever answered.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// The stream, to speak something else on it.
    pub fn into_stream(self) -> TlsStream<Box<dyn Carrier>> {
        self.stream
    }

    /// Says something.
    pub async fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads one line, without its end; empty when the other side has closed.
    pub async fn line(&mut self, limit: Duration) -> std::io::Result<String> {
        let reading = async {
            let mut line = Vec::new();
            while line.len() < LONGEST_LINE {
                match self.stream.read_u8().await {
                    Ok(b'\n') => break,
                    Ok(byte) => line.push(byte),
                    Err(_) => break,
                }
            }
            String::from_utf8_lossy(&line).trim_end().to_owned()
        };
        Ok(timeout(limit, reading).await?)
    }

    /// Reads until the other side closes, however it does; at most a megabyte.
    pub async fn rest(&mut self, limit: Duration) -> std::io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        let reading = async {
            let mut chunk = [0; 4096];
            while rest.len() < 1 << 20 {
                match self.stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => rest.extend_from_slice(&chunk[..count]),
                }
            }
        };
        timeout(limit, reading).await?;
        Ok(rest)
    }
}
