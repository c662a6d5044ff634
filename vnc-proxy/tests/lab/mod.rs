//! What the scenarios of this crate share: identities made per run, VNC servers that follow a script, deadlines, and a connection
//! that delivers one byte at a time.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;
use umbra_vnc_proxy::preface::Dialect;
use umbra_vnc_proxy::{console_end, device_end, tls};

pub const GREETING: &[u8; 12] = b"RFB 003.008\n";
pub const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// A deadline that only a broken program reaches.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A stop that never comes.
pub fn never() -> std::future::Pending<umbra_vnc_proxy::StopCause> {
    std::future::pending()
}

pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// As our devices make them.
    pub fn modern() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params =
            rcgen::CertificateParams::new(vec!["00e0c5112233".to_owned()]).expect("a name");
        let certificate = params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .clone();
        Self {
            certificate,
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    /// As the field has them: version 1, no name, no extension.
    pub fn plain() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let public = rcgen::PublicKeyData::subject_public_key_info(&key);
        // ecdsa-with-SHA256
        let algorithm = der(
            0x30,
            &[der(
                0x06,
                &[vec![0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02]],
            )],
        );
        // O=IGEL as the only attribute
        let attribute = der(
            0x30,
            &[
                der(0x06, &[vec![0x55, 0x04, 0x0A]]),
                der(0x0C, &[b"IGEL".to_vec()]),
            ],
        );
        let name = der(0x30, &[der(0x31, &[attribute])]);
        let dates = [b"140101000000Z", b"370101000000Z"].map(|date| der(0x17, &[date.to_vec()]));
        let tbs = der(
            0x30,
            &[
                der(0x02, &[vec![1]]),
                algorithm.clone(),
                name.clone(),
                der(0x30, &dates),
                name,
                public,
            ],
        );
        let signature = rcgen::SigningKey::sign(&key, &tbs).expect("a signature");
        let certificate = der(0x30, &[tbs, algorithm, der(0x03, &[vec![0], signature])]);
        Self {
            certificate: certificate.into(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        tls::device_server_config(vec![self.certificate.clone()], self.key.clone_key())
            .expect("a usable identity")
    }

    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        tls::console_client_config(self.certificate.clone()).expect("a usable certificate")
    }
}

fn der(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let content = parts.concat();
    let mut element = vec![tag];
    match content.len() {
        short @ 0..=127 => element.push(short as u8),
        long @ 128..=255 => element.extend([0x81, long as u8]),
        longer => element.extend([0x82, (longer >> 8) as u8, longer as u8]),
    }
    element.extend(content);
    element
}

pub type ConsoleTls = tokio_rustls::client::TlsStream<DuplexStream>;
pub type DeviceTls = umbra_tls_stream::ServerStream<DuplexStream>;

/// Both ends of a TLS connection in memory.
pub async fn tls_pair() -> (ConsoleTls, DeviceTls) {
    tls_pair_over(16 * 1024).await
}

/// The same with so much room below TLS.
pub async fn tls_pair_over(room: usize) -> (ConsoleTls, DeviceTls) {
    let identity = Identity::modern();
    let (console, device) = duplex(room);
    let (console, device) = tokio::join!(
        console_end::connect(console, identity.client_config(), soon()),
        device_end::accept_tls(device, identity.server_config(), soon()),
    );
    (
        console.expect("the console's handshake"),
        device.expect("the device's handshake"),
    )
}

/// The preface is read, the answer is yes.
pub async fn opened_pair() -> (ConsoleTls, DeviceTls) {
    let (mut console, mut device) = tls_pair().await;
    let password = umbra_vnc_proxy::Secret::new("password");
    let admitting = async {
        device_end::read_preface(&mut device, soon())
            .await
            .expect("a preface");
        device_end::answer_ok(&mut device, Dialect::Umbra, soon())
            .await
            .expect("answered");
    };
    let (opened, ()) = tokio::join!(
        console_end::open(&mut console, "ticket", &password, soon(), |_| {}),
        admitting
    );
    opened.expect("opened");
    (console, device)
}

/// A VNC server on a Unix socket that does what the script says with its first connection.
pub struct FakeVnc {
    pub socket: PathBuf,
    _folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl FakeVnc {
    pub fn start<F>(script: impl FnOnce(UnixStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("vnc");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            script(stream).await;
        });
        Self {
            socket,
            _folder: folder,
            task,
        }
    }

    pub fn upstream(&self) -> umbra_vnc_proxy::upstream::Upstream {
        umbra_vnc_proxy::upstream::Upstream::unix(&self.socket).expect("an absolute path")
    }

    /// Waits for the script's end, so that what it asserted counts.
    pub async fn finished(self) {
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .expect("in time")
            .expect("the script's assertions");
    }
}

/// The server's half of a 3.8 handshake up to the offer of no authentication.
pub async fn offer(stream: &mut UnixStream) {
    stream.write_all(GREETING).await.expect("greeted");
    assert_eq!(&read::<12>(stream).await, GREETING);
    stream.write_all(&[1, 1]).await.expect("offered");
}

/// The server's half of a 3.8 handshake without authentication, up to the security result.
pub async fn let_in(stream: &mut UnixStream) {
    offer(stream).await;
    assert_eq!(read::<1>(stream).await, [1]);
    stream.write_all(&[0; 4]).await.expect("let in");
}

/// The viewer's half of the handshake that is played by the device's end.
pub async fn enter<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    assert_eq!(&read::<12>(stream).await, GREETING);
    stream.write_all(GREETING).await.expect("greeted");
    assert_eq!(
        read::<2>(stream).await,
        [1, 1],
        "only no authentication is offered"
    );
    stream.write_all(&[1]).await.expect("chosen");
    assert_eq!(read::<4>(stream).await, [0; 4]);
}

pub async fn read<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> [u8; N] {
    let mut bytes = [0; N];
    let reading = stream.read_exact(&mut bytes);
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("in time")
        .expect("readable");
    bytes
}

pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("in time")?;
    Ok(bytes)
}

/// Delivers and takes one byte at a time.
pub struct ByteByByte<S>(pub S);

impl<S: AsyncRead + Unpin> AsyncRead for ByteByByte<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        let polled = Pin::new(&mut self.0).poll_read(cx, &mut one);
        buf.put_slice(one.filled());
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ByteByByte<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
