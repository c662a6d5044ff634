//! The console's end of the tunnel: TLS to exactly the device that the server named, the preface and its answer, and a listener on
//! loopback that takes one viewer. It shows a viewer nothing and opens nothing to the network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::answer::{Answer, AnswerParser};
use crate::greeting::GreetingParser;
use crate::inlet::Inlet;
use crate::neighbour::{self, Owner};
use crate::outcome::{EndReason, Outcome, StopCause};
use crate::preface::{self, PrefaceError};
use crate::rfb;
use crate::secret::Secret;
use crate::splice::{Limits, Side, SpliceEnd, splice};
use crate::tls::{AnotherCertificate, another_certificate};

/// How often a device may ask for patience before it has to answer.
pub const WAITS_MAX: usize = 600;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The device isn't the one that the server named.
    #[error(transparent)]
    AnotherCertificate(AnotherCertificate),
    /// The TLS handshake failed.
    #[error("no secure connection to the device could be made")]
    Handshake(#[source] io::Error),
    /// The device took too long.
    #[error(
        "the device did not answer in time; try again, or look whether somebody at the device has to agree"
    )]
    TimedOut,
    /// The ticket or password can't be sent.
    #[error("the session ticket or password is malformed; ask the server for a new session")]
    BadCredentials,
    /// The device refused.
    #[error("the device refused: {sentence} ({code})")]
    Refused {
        /// Stable code.
        code: String,
        /// The device's sentence.
        sentence: String,
    },
    /// The device closed instead of answering.
    #[error("the device closed the connection without an answer; it may have refused the session")]
    Closed,
    /// The answer is no answer.
    #[error("the device's answer can't be understood; it may run an incompatible version")]
    BadAnswer,
    /// It asked for patience too often.
    #[error("the device asked to wait too often without deciding; the session was given up")]
    TooManyWaits,
    /// The connection broke.
    #[error("the connection to the device broke")]
    Lost(#[source] io::Error),
    /// The address to listen on isn't this machine's own.
    #[error(
        "{0} is not a loopback address; the viewer's side is unencrypted and must not leave this machine"
    )]
    NotLoopback(SocketAddr),
    /// Listening failed.
    #[error("no port for the viewer could be opened on this machine")]
    Listen(#[source] io::Error),
    /// No viewer connected.
    #[error("no viewer connected in time")]
    NoViewer,
}

impl ConsoleError {
    /// Stable code.
    pub fn code(&self) -> &str {
        match self {
            Self::AnotherCertificate(_) => "another_certificate",
            Self::Handshake(_) => "tls_failed",
            Self::TimedOut => "device_timed_out",
            Self::BadCredentials => "credentials_malformed",
            Self::Refused { code, .. } => code,
            Self::Closed => "device_closed",
            Self::BadAnswer => "answer_malformed",
            Self::TooManyWaits => "too_many_waits",
            Self::Lost(_) => "peer_vanished",
            Self::NotLoopback(_) => "not_loopback",
            Self::Listen(_) => "listen_failed",
            Self::NoViewer => "no_viewer",
        }
    }
}

/// Plays TLS's client over any carrier. Succeeds only with the device whose certificate the configuration expects.
pub async fn connect<IO>(
    io: IO,
    config: Arc<ClientConfig>,
    deadline: Instant,
) -> Result<TlsStream<IO>, ConsoleError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // The device is known by its certificate; an address as name keeps any name off the wire.
    let nameless = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
    match timeout_at(deadline, TlsConnector::from(config).connect(nameless, io)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(match another_certificate(&error) {
            Some(mismatch) => ConsoleError::AnotherCertificate(mismatch),
            None => ConsoleError::Handshake(error),
        }),
        Err(_) => Err(ConsoleError::TimedOut),
    }
}

/// Presents ticket and password and waits for the device's decision; each `wait` sentence is handed on. What follows the answer stays
/// in the stream.
pub async fn open<S>(
    tls: &mut S,
    ticket: &str,
    password: &Secret,
    deadline: Instant,
    mut on_wait: impl FnMut(&str),
) -> Result<(), ConsoleError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    preface::write_ticket(tls, ticket, password, deadline)
        .await
        .map_err(not_sent)?;
    let answering = async {
        let mut parser = AnswerParser::new();
        let mut waits = 0;
        loop {
            // One byte at a time: the viewer's greeting may follow the line at once.
            let byte = tls.read_u8().await.map_err(not_read)?;
            match parser.push(byte).map_err(|_| ConsoleError::BadAnswer)? {
                None => {}
                Some(Answer::Ok) => return Ok(()),
                Some(Answer::Refused { code, sentence }) => {
                    return Err(ConsoleError::Refused { code, sentence });
                }
                Some(Answer::Wait(_)) if waits == WAITS_MAX => {
                    return Err(ConsoleError::TooManyWaits);
                }
                Some(Answer::Wait(sentence)) => {
                    waits += 1;
                    on_wait(&sentence);
                }
            }
        }
    };
    timeout_at(deadline, answering)
        .await
        .unwrap_or(Err(ConsoleError::TimedOut))
}

/// Presents a password in the existing field's dialect and waits for the VNC server's greeting, the only yes that there is. The greeting
/// has been taken from the stream: hand it to [`bridge_after_greeting`].
pub async fn legacy_open<S>(
    tls: &mut S,
    password: &Secret,
    deadline: Instant,
) -> Result<[u8; rfb::GREETING_LEN], ConsoleError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    preface::write_legacy(tls, password, deadline)
        .await
        .map_err(not_sent)?;
    let greeting = async {
        let mut parser = GreetingParser::new();
        loop {
            let byte = tls.read_u8().await.map_err(not_read)?;
            if let Some(greeting) = parser.push(byte).map_err(|_| ConsoleError::BadAnswer)? {
                return Ok(greeting.line);
            }
        }
    };
    timeout_at(deadline, greeting)
        .await
        .unwrap_or(Err(ConsoleError::TimedOut))
}

fn not_sent(error: PrefaceError) -> ConsoleError {
    match error {
        PrefaceError::TimedOut => ConsoleError::TimedOut,
        PrefaceError::TooLong | PrefaceError::NotAPreface => ConsoleError::BadCredentials,
        PrefaceError::Absent => ConsoleError::Closed,
        PrefaceError::Lost(error) => ConsoleError::Lost(error),
    }
}

fn not_read(error: io::Error) -> ConsoleError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        ConsoleError::Closed
    } else {
        ConsoleError::Lost(error)
    }
}

/// Carries the session between a viewer and the device.
pub async fn bridge<V, T>(
    viewer: V,
    tls: T,
    limits: Limits,
    stop: impl Future<Output = StopCause>,
) -> Outcome
where
    V: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    bridge_after_greeting(viewer, tls, &[], limits, stop).await
}

/// The same, with the part of the device's stream that was read before going to the viewer first.
pub async fn bridge_after_greeting<V, T>(
    mut viewer: V,
    mut tls: T,
    greeting: &[u8],
    limits: Limits,
    stop: impl Future<Output = StopCause>,
) -> Outcome
where
    V: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let started = Instant::now();
    let spliced = splice(
        &mut viewer,
        &mut tls,
        Inlet::transparent(),
        greeting,
        limits,
        stop,
    )
    .await;
    let reason = match spliced.end {
        // A viewer that is killed resets its local connection: for everybody else it has closed.
        SpliceEnd::Closed(Side::Console) | SpliceEnd::Lost(Side::Console, _) => {
            EndReason::ViewerClosed
        }
        SpliceEnd::Closed(Side::Device) => EndReason::DeviceClosed,
        SpliceEnd::Lost(Side::Device, _) => EndReason::PeerVanished,
        SpliceEnd::IdleLimit => EndReason::IdleLimit,
        SpliceEnd::TotalLimit => EndReason::TotalLimit,
        SpliceEnd::Stopped(cause) => EndReason::Stopped(cause),
        SpliceEnd::Violation(violation) => EndReason::InputViolation(violation),
    };
    Outcome {
        reason,
        bytes_to_device: spliced.to_device,
        bytes_to_console: spliced.to_console,
        duration: started.elapsed(),
    }
}

/// A port on loopback for exactly one viewer.
#[derive(Debug)]
pub struct ViewerListener {
    listener: TcpListener,
    address: SocketAddr,
}

/// Opens a port for one viewer, on `127.0.0.1` with a free port if no address is given. Any address but loopback is refused.
pub async fn listen_loopback(address: Option<SocketAddr>) -> Result<ViewerListener, ConsoleError> {
    let address = address.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    if !address.ip().to_canonical().is_loopback() {
        return Err(ConsoleError::NotLoopback(address));
    }
    let listener = TcpListener::bind(address)
        .await
        .map_err(ConsoleError::Listen)?;
    let address = listener.local_addr().map_err(ConsoleError::Listen)?;
    Ok(ViewerListener { listener, address })
}

impl ViewerListener {
    /// Where the viewer has to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes one viewer and closes the port. Programs of other users of this machine are turned away, and their user IDs told.
    pub async fn accept_one(
        self,
        deadline: Instant,
        mut turned_away: impl FnMut(u32),
    ) -> Result<TcpStream, ConsoleError> {
        let accepting = async {
            loop {
                let (viewer, from) = match self.listener.accept().await {
                    Ok(accepted) => accepted,
                    // Passing weather; the deadline ends it if it doesn't pass.
                    Err(_) => {
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                        continue;
                    }
                };
                let here = self.address;
                let asking = tokio::task::spawn_blocking(move || neighbour::owner(from, here));
                match asking.await.unwrap_or(Owner::Gone) {
                    Owner::Ours | Owner::Unknown => return viewer,
                    Owner::Another(user) => turned_away(user),
                    Owner::Gone => {}
                }
            }
        };
        let viewer = timeout_at(deadline, accepting)
            .await
            .map_err(|_| ConsoleError::NoViewer)?;
        viewer.set_nodelay(true).map_err(ConsoleError::Listen)?;
        Ok(viewer)
    }
}
