//! The device's end of the tunnel, as steps: TLS, preface, answer, session. The caller decides between them whether this console may
//! come in; nothing of RFB leaves before it has called `serve`, and it connects to the VNC server before it says yes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::answer::Answer;
use crate::inlet::Inlet;
use crate::input_filter::{InputFilter, Policy};
use crate::outcome::{EndReason, Outcome, StopCause};
use crate::preface::{Dialect, Preface, PrefaceError};
use crate::secret::Secret;
use crate::splice::{Limits, Side, SpliceEnd, Spliced, splice};
use crate::upstream::{Connected, LocalStream, Phase, Upstream, UpstreamError, with_child};
use crate::viewer_handshake::{ViewerError, ViewerHandshake};

/// How much a refused console may still say before it is cut off without having read the refusal.
const LEFTOVER_MAX: u64 = 64 * 1024;

/// Why a console's end could not be talked to.
#[derive(Debug, thiserror::Error)]
pub enum DeviceEndError {
    /// The TLS handshake took too long.
    #[error("the caller did not finish the TLS handshake in time; it was disconnected")]
    HandshakeTimedOut,
    /// The TLS handshake failed.
    #[error("the TLS handshake with the caller failed; it was disconnected")]
    Handshake(#[source] io::Error),
    /// An answer could not be written in time.
    #[error("the caller did not take the answer in time; it was disconnected")]
    AnswerTimedOut,
    /// An answer could not be written.
    #[error("the connection to the caller broke before it had its answer")]
    Answer(#[source] io::Error),
}

/// Plays TLS's server with a caller. TLS 1.3 only; the caller is still a stranger afterwards.
pub async fn accept_tls<IO>(
    io: IO,
    config: Arc<ServerConfig>,
    deadline: Instant,
) -> Result<TlsStream<IO>, DeviceEndError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    match timeout_at(deadline, TlsAcceptor::from(config).accept(io)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(DeviceEndError::Handshake(error)),
        Err(_) => Err(DeviceEndError::HandshakeTimedOut),
    }
}

/// Reads what the caller says first inside TLS.
pub async fn read_preface<S: AsyncRead + Unpin>(
    stream: &mut S,
    deadline: Instant,
) -> Result<Preface, PrefaceError> {
    crate::preface::read(stream, deadline).await
}

/// Tells the console that an answer will come. The existing field's consoles can't be told.
pub async fn answer_wait<S: AsyncWrite + Unpin>(
    stream: &mut S,
    dialect: Dialect,
    sentence: &str,
    deadline: Instant,
) -> Result<(), DeviceEndError> {
    answer(
        stream,
        dialect,
        &Answer::Wait(sentence.to_owned()),
        deadline,
    )
    .await
}

/// Tells the console that RFB follows. The existing field's consoles take the greeting for that.
pub async fn answer_ok<S: AsyncWrite + Unpin>(
    stream: &mut S,
    dialect: Dialect,
    deadline: Instant,
) -> Result<(), DeviceEndError> {
    answer(stream, dialect, &Answer::Ok, deadline).await
}

/// Tells the console why not, and closes. The existing field's consoles see only the closing.
pub async fn answer_refused<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    dialect: Dialect,
    code: &str,
    sentence: &str,
    deadline: Instant,
) -> Result<(), DeviceEndError> {
    let refused = Answer::Refused {
        code: code.to_owned(),
        sentence: sentence.to_owned(),
    };
    answer(stream, dialect, &refused, deadline).await?;
    let farewell = async {
        stream.shutdown().await?;
        // Closing over unread bytes would reset the connection, and the refusal might be lost with it.
        tokio::io::copy(&mut stream.take(LEFTOVER_MAX), &mut tokio::io::sink()).await
    };
    // The refusal is out; how the console takes it changes nothing.
    let _ = timeout_at(deadline, farewell).await;
    Ok(())
}

async fn answer<S: AsyncWrite + Unpin>(
    stream: &mut S,
    dialect: Dialect,
    answer: &Answer,
    deadline: Instant,
) -> Result<(), DeviceEndError> {
    match dialect {
        Dialect::Legacy => return Ok(()),
        Dialect::Umbra => {}
    }
    let writing = async {
        stream.write_all(&answer.to_line()).await?;
        stream.flush().await
    };
    match timeout_at(deadline, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(DeviceEndError::Answer(error)),
        Err(_) => Err(DeviceEndError::AnswerTimedOut),
    }
}

/// What holds for one session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The VNC server's password, if it has one. With it, the handshake is played here and the operator isn't asked.
    pub password: Option<Secret>,
    /// What the console may do.
    pub policy: Policy,
    /// How long the session may go on.
    pub limits: Limits,
    /// How long the viewer may take for its part of the RFB handshake, where it is played here.
    pub handshake_limit: Duration,
    /// Whether the console's end spoke the existing field's preface, which a line ending may follow.
    pub legacy_preface: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            password: None,
            policy: Policy::FULL,
            limits: Limits::default(),
            handshake_limit: Duration::from_secs(15),
            legacy_preface: false,
        }
    }
}

impl SessionOptions {
    /// Whether the RFB handshake is played here instead of passing through.
    fn terminates(&self) -> bool {
        self.password.is_some() || self.policy.needs_filter()
    }
}

/// Connects to the VNC server as far as these options need it: with its greeting recognised, and logged in where the handshake is
/// played here. Whatever is wrong with the server shows now, while the console can still be told.
pub async fn connect_upstream(
    upstream: &Upstream,
    options: &SessionOptions,
    deadline: Instant,
) -> Result<Connected, UpstreamError> {
    let connected = upstream.connect(deadline).await?;
    if options.terminates() {
        connected.log_in(options.password.as_ref(), deadline).await
    } else {
        Ok(connected)
    }
}

/// Carries one session, over TLS or, where secure mode is off, over a plain connection. Returns when it is over, with the VNC server's
/// program reaped.
pub async fn serve<S>(
    mut stream: S,
    upstream: Connected,
    options: SessionOptions,
    stop: impl Future<Output = StopCause>,
) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let started = Instant::now();
    // Stopping works in every phase and wins once.
    let mut stop = std::pin::pin!(stop);
    let upstream = if options.terminates() {
        let deadline = started + options.handshake_limit;
        tokio::select! {
            biased;
            cause = &mut stop => Err(EndReason::Stopped(cause)),
            logged_in = upstream.log_in(options.password.as_ref(), deadline) => logged_in.map_err(EndReason::Upstream),
        }
    } else {
        Ok(upstream)
    };
    let Connected {
        stream: mut vnc,
        mut child,
        phase,
    } = match upstream {
        Ok(upstream) => upstream,
        Err(reason) => {
            let _ = timeout_at(started + options.handshake_limit, stream.shutdown()).await;
            return Outcome {
                reason,
                bytes_to_device: 0,
                bytes_to_console: 0,
                duration: started.elapsed(),
            };
        }
    };
    let carrying = carry(&mut stream, &mut vnc, phase, &options, &mut stop);
    let (reason, bytes_to_device, bytes_to_console) = with_child(carrying, child.as_mut()).await;
    // Closed first: a spawned server ends when its connection does.
    drop(vnc);
    if let Some(child) = child {
        child.end().await;
    }
    Outcome {
        reason,
        bytes_to_device,
        bytes_to_console,
        duration: started.elapsed(),
    }
}

async fn carry<S>(
    stream: &mut S,
    vnc: &mut LocalStream,
    phase: Phase,
    options: &SessionOptions,
    stop: &mut (impl Future<Output = StopCause> + Unpin),
) -> (EndReason, u64, u64)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (inlet, greeting) = match phase {
        Phase::Greeted(greeting) => {
            let inlet = if options.legacy_preface {
                Inlet::after_legacy_preface()
            } else {
                Inlet::transparent()
            };
            (inlet, greeting.line.to_vec())
        }
        Phase::LoggedIn => {
            let greeted = tokio::select! {
                biased;
                cause = &mut *stop => Err(EndReason::Stopped(cause)),
                greeted = greet_viewer(stream, options) => greeted,
            };
            if let Err(reason) = greeted {
                let _ = tokio::time::timeout(options.handshake_limit, stream.shutdown()).await;
                return (reason, 0, 0);
            }
            let filter = options
                .policy
                .needs_filter()
                .then(|| InputFilter::new(options.policy));
            // Who may only look must not throw out who works.
            (
                Inlet::after_handshake(filter, !options.policy.keyboard_and_pointer),
                Vec::new(),
            )
        }
    };
    let Spliced {
        end,
        to_device,
        to_console,
    } = splice(stream, vnc, inlet, &greeting, options.limits, stop).await;
    (reason(end), to_device, to_console)
}

async fn greet_viewer<S>(stream: &mut S, options: &SessionOptions) -> Result<(), EndReason>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let greeting = async {
        let mut out = Vec::new();
        let mut handshake = ViewerHandshake::new(options.legacy_preface, &mut out);
        loop {
            stream.write_all(&out).await.map_err(lost_viewer)?;
            stream.flush().await.map_err(lost_viewer)?;
            out.clear();
            if handshake.is_done() {
                return Ok(());
            }
            let byte = stream.read_u8().await.map_err(lost_viewer)?;
            if let Err(error) = handshake.push(byte, &mut out) {
                // Told if it can be told; it is turned away in any case.
                let _ = stream.write_all(&out).await;
                return Err(EndReason::ViewerMisbehaved(error));
            }
        }
    };
    tokio::time::timeout(options.handshake_limit, greeting)
        .await
        .unwrap_or(Err(EndReason::ViewerSilent))
}

fn lost_viewer(error: io::Error) -> EndReason {
    // `read_u8` says so of an orderly end too.
    if error.kind() == io::ErrorKind::UnexpectedEof {
        EndReason::ViewerClosed
    } else {
        EndReason::PeerVanished
    }
}

fn reason(end: SpliceEnd) -> EndReason {
    match end {
        SpliceEnd::Closed(Side::Console) => EndReason::ViewerClosed,
        SpliceEnd::Closed(Side::Device) => EndReason::VncServerClosed,
        SpliceEnd::Lost(Side::Console, _) => EndReason::PeerVanished,
        SpliceEnd::Lost(Side::Device, error) => EndReason::VncServerLost(error),
        SpliceEnd::IdleLimit => EndReason::IdleLimit,
        SpliceEnd::TotalLimit => EndReason::TotalLimit,
        SpliceEnd::Stopped(cause) => EndReason::Stopped(cause),
        SpliceEnd::Violation(violation) => EndReason::InputViolation(violation),
    }
}

impl From<ViewerError> for EndReason {
    fn from(error: ViewerError) -> Self {
        Self::ViewerMisbehaved(error)
    }
}
