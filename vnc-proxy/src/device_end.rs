//! The device's end of the tunnel, as steps: TLS, preface, answer, session. The caller decides between them whether this console may
//! come in; nothing of RFB leaves before it has called `serve`, and it connects to the VNC server before it says yes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use umbra_tls_stream::ServerStream;

use crate::answer::Answer;
use crate::entry;
use crate::input_filter::Policy;
use crate::outcome::{EndReason, Outcome, StopCause};
use crate::preface::{Dialect, Preface, PrefaceError};
use crate::secret::Secret;
use crate::splice::Limits;
use crate::upstream::{Connected, Upstream, UpstreamError};

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
) -> Result<ServerStream<IO>, DeviceEndError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    match timeout_at(deadline, ServerStream::accept(io, config)).await {
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
    /// How long the viewer may take for its part of the RFB handshake, from its first byte on: until then, a person may be
    /// looking for a viewer, and only the limits of the session hold.
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

/// Connects to the VNC server as far as these options need it: to its offer, or logged in where the handshake is played here.
/// Whatever is wrong with the server, and whether it refuses, shows now, while the console can still be told.
pub async fn connect_upstream(
    upstream: &Upstream,
    options: &SessionOptions,
    deadline: Instant,
) -> Result<Connected, UpstreamError> {
    // Boxed, as it is large and over long before the session that waits in the same task.
    Box::pin(async {
        let connected = upstream.connect(deadline).await?;
        ready(connected, options, deadline).await
    })
    .await
}

async fn ready(
    connected: Connected,
    options: &SessionOptions,
    deadline: Instant,
) -> Result<Connected, UpstreamError> {
    if options.terminates() {
        connected.log_in(options.password.as_ref(), deadline).await
    } else {
        connected.hear_offer(deadline).await
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
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let started = Instant::now();
    // Stopping works in every phase and wins once.
    let mut stop = std::pin::pin!(stop);
    let deadline = started + options.handshake_limit;
    let upstream = tokio::select! {
        biased;
        cause = &mut stop => Err(EndReason::Stopped(cause)),
        ready = Box::pin(ready(upstream, &options, deadline)) => ready.map_err(EndReason::Upstream),
    };
    let upstream = match upstream {
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
    let (reason, bytes_to_device, bytes_to_console) =
        entry::enter_and_carry(&mut stream, upstream, &options, started, &mut stop).await;
    Outcome {
        reason,
        bytes_to_device,
        bytes_to_console,
        duration: started.elapsed(),
    }
}
