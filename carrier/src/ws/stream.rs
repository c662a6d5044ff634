//! The byte stream itself: a WebSocket after its handshake. It keeps at most one incoming message and one outgoing frame,
//! so that backpressure passes through it; whatever ends it, the other side is told why before the stream below ends.
//!
//! WebSocket has no half-close: a Close ends both directions. What ends one direction only has to be said inside, as TLS
//! does with its `close_notify`.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::bridge::{Bridge, Shared, Side, Wire};
use super::closed::{Closed, cut};
use super::flood::Bucket;
use super::{MAX_MESSAGE, MAX_SENT, close};

/// How long the other side may take to answer our Close.
const FAREWELL: Duration = Duration::from_secs(2);

/// What still comes in after our Close is thrown away, up to this much.
const MAX_DISCARDED: usize = 1024 * 1024;

/// Small, since a gateway holds thousands of streams that are silent most of the time.
const READ_BUFFER: usize = 8 * 1024;

/// One frame and the pongs to a burst of pings.
const WRITE_BUFFER: usize = 64 * 1024;

/// When to ask whether the other side is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// A ping after this much silence.
    pub interval: Duration,
    /// The stream is dead if nothing at all comes within this time after the ping.
    pub timeout: Duration,
}

#[derive(Debug)]
struct Beat {
    keepalive: Keepalive,
    last_heard: Instant,
    pinged: Option<Instant>,
}

/// How the stream ended, for everybody who asks.
#[derive(Debug, Clone)]
enum End {
    /// Both sides said all.
    Clean,
    /// A Close with another code.
    Closed(Closed),
    /// It just stopped.
    Cut,
    /// Nothing came any more.
    Silent(Duration),
    /// The stream below failed.
    Failed(io::ErrorKind, String),
}

impl End {
    fn failed(error: &io::Error) -> Self {
        Self::Failed(error.kind(), error.to_string())
    }

    fn error(&self) -> io::Error {
        match self {
            Self::Clean => io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the WebSocket is closed: nothing more can be sent",
            ),
            Self::Closed(closed) => closed.error(),
            Self::Cut => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the WebSocket ended without a farewell",
            ),
            Self::Silent(time) => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the other side didn't answer a ping within {time:?}"),
            ),
            Self::Failed(kind, text) => io::Error::new(*kind, text.clone()),
        }
    }
}

#[derive(Debug)]
enum State {
    /// Bytes flow. With `farewell`, our own direction is over: until then the other side may answer.
    Open { farewell: Option<Instant> },
    /// This side closes the stream for a reason; what comes in is thrown away.
    Closing {
        end: End,
        until: Instant,
        flushed: bool,
        /// Whether frames can still be read; not after one that broke the rules.
        framed: bool,
        discarded: usize,
    },
    /// Nothing moves any more.
    Ended(End),
}

/// A byte stream over WebSocket.
///
/// - Reading: `Ok(0)` after the other side's Close with code 1000; after any other code an error with [`Closed`] inside;
///   `UnexpectedEof` where the stream below ended without a Close; `TimedOut` after silence (see [`Keepalive`], which
///   works only while somebody reads).
/// - Writing: flush afterwards, as with any stream. After the other side's Close with code 1000, a last small write is
///   lost silently, as with TCP: so a TLS `close_notify` isn't an error.
/// - Shutting down sends Close with code 1000, and waits for the answer at most two seconds. It ends both directions;
///   what was on its way here can still be read.
pub struct ByteStream<IO> {
    io: IO,
    context: WebSocketContext,
    shared: Arc<Shared>,
    waker: Waker,
    wire: Wire,
    incoming: Bytes,
    state: State,
    unflushed: bool,
    lost: usize,
    bucket: Bucket,
    beat: Option<Beat>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<IO: fmt::Debug> fmt::Debug for ByteStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream")
            .field("io", &self.io)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Ends a [`ByteStream`] from outside, with a code and a reason.
#[derive(Clone, Debug)]
pub struct Closer {
    shared: Arc<Shared>,
}

impl Closer {
    /// Lets the stream send a Close with this code and reason (cut to 123 bytes), wait two seconds at most for the
    /// answer, and end. Who reads or writes it gets a [`Closed`] with `by_us`. It happens while somebody reads or writes;
    /// the first call wins.
    pub fn close_with(&self, code: u16, reason: &str) {
        self.shared.ask_to_close(code, reason);
    }
}

/// The server's end, after the HTTP upgrade was answered. `already_read` is what came behind the request's head.
pub fn server_stream<IO>(
    io: IO,
    already_read: Vec<u8>,
    keepalive: Option<Keepalive>,
) -> ByteStream<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    ByteStream::new(io, already_read, Role::Server, keepalive)
}

impl<IO> ByteStream<IO> {
    pub(super) fn new(
        io: IO,
        already_read: Vec<u8>,
        role: Role,
        keepalive: Option<Keepalive>,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let shared = Arc::new(Shared::default());
        let now = Instant::now();
        Self {
            io,
            context: WebSocketContext::from_partially_read(already_read, role, Some(config)),
            waker: Waker::from(Arc::clone(&shared)),
            shared,
            wire: Wire::default(),
            incoming: Bytes::new(),
            state: State::Open { farewell: None },
            unflushed: false,
            lost: 0,
            bucket: Bucket::new(now),
            beat: keepalive.map(|keepalive| Beat {
                keepalive,
                last_heard: now,
                pinged: None,
            }),
            alarm: None,
        }
    }

    /// A handle that ends this stream from outside.
    pub fn closer(&self) -> Closer {
        Closer {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ByteStream<IO> {
    fn parts(&mut self) -> (&mut WebSocketContext, Bridge<'_, IO>) {
        let bridge = Bridge {
            io: &mut self.io,
            waker: &self.waker,
            wire: &mut self.wire,
        };
        (&mut self.context, bridge)
    }

    /// Takes notice of who polls, and of a wish to close.
    fn begin(&mut self, side: Side, context: &Context<'_>) {
        self.shared.wait(side, context.waker());
        if let State::Open { .. } = self.state
            && let Some((code, reason)) = self.shared.wish()
        {
            self.close_for(code, &reason, true);
        }
    }

    /// Says Close, and lets the stream end with this reason.
    fn close_for(&mut self, code: u16, reason: &str, framed: bool) {
        let end = End::Closed(Closed::by_us(code, reason));
        self.incoming = Bytes::new();
        self.state = match self.send_close(code, reason) {
            Ok(()) => State::Closing {
                end,
                until: Instant::now() + FAREWELL,
                flushed: false,
                framed,
                discarded: 0,
            },
            Err(_) => State::Ended(end),
        };
    }

    fn send_close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: Utf8Bytes::from(cut(reason)),
        };
        let (context, mut bridge) = self.parts();
        match accepted(context.close(&mut bridge, Some(frame))) {
            Ok(()) => {
                self.unflushed = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn poll_out(&mut self) -> Poll<io::Result<()>> {
        let (context, mut bridge) = self.parts();
        let result = match context.flush(&mut bridge) {
            // The library has written its last frame, but doesn't flush the stream below.
            Err(Error::ConnectionClosed) => io::Write::flush(&mut bridge),
            Err(Error::AlreadyClosed) => io::Write::flush(&mut bridge),
            other => other.map_err(into_io),
        };
        match result {
            Ok(()) => {
                self.unflushed = false;
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Whether the alarm went off that was set for `when`.
    fn poll_alarm(&mut self, when: Instant) -> Poll<()> {
        let alarm = match &mut self.alarm {
            Some(alarm) => {
                if alarm.deadline() != when {
                    alarm.as_mut().reset(when);
                }
                alarm
            }
            None => self.alarm.insert(Box::pin(sleep_until(when))),
        };
        alarm.as_mut().poll(&mut Context::from_waker(&self.waker))
    }

    /// Ready as soon as there is something to give to the reader, or the state has changed.
    fn poll_message(&mut self) -> Poll<()> {
        loop {
            let (context, mut bridge) = self.parts();
            let result = context.read(&mut bridge);
            if self.wire.heard {
                self.wire.heard = false;
                if let Some(beat) = &mut self.beat {
                    beat.last_heard = Instant::now();
                    beat.pinged = None;
                }
            }
            match result {
                Ok(Message::Binary(bytes)) => {
                    self.wire.since_message = 0;
                    if !bytes.is_empty() {
                        self.incoming = bytes;
                        return Poll::Ready(());
                    }
                    if !self.bucket.take(Instant::now()) {
                        self.close_for(close::POLICY, "too many empty messages", true);
                        return Poll::Ready(());
                    }
                }
                Ok(Message::Ping(bytes) | Message::Pong(bytes)) => {
                    // Control frames may stand between fragments, so they don't end a message.
                    let size = bytes.len() + 2;
                    self.wire.since_message = self.wire.since_message.saturating_sub(size);
                    self.unflushed = true;
                    if !self.bucket.take(Instant::now()) {
                        self.close_for(close::POLICY, "too many pings", true);
                        return Poll::Ready(());
                    }
                }
                Ok(Message::Text(_)) => {
                    self.close_for(close::UNSUPPORTED, "text isn't taken here", true);
                    return Poll::Ready(());
                }
                Ok(Message::Close(frame)) => {
                    self.said_goodbye(frame);
                    return Poll::Ready(());
                }
                Ok(Message::Frame(_)) => {
                    self.close_for(close::PROTOCOL, "a frame out of place", false);
                    return Poll::Ready(());
                }
                Err(error) => return self.failed(error),
            }
        }
    }

    fn said_goodbye(&mut self, frame: Option<CloseFrame>) {
        let ours_first = matches!(self.state, State::Open { farewell: Some(_) });
        let end = match frame {
            Some(frame) if u16::from(frame.code) == close::NORMAL => End::Clean,
            Some(frame) => End::Closed(Closed::read(frame.code.into(), &frame.reason)),
            None if ours_first => End::Clean,
            None => End::Closed(Closed::read(1005, "")),
        };
        // The answer is queued. If it can't go out now, the other side isn't reading, and wanted to end anyway.
        let _ = self.poll_out();
        self.state = State::Ended(end);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's errors grow; unknown ones break the rules of the protocol"
    )]
    fn failed(&mut self, error: Error) -> Poll<()> {
        match error {
            Error::Io(_) if self.wire.endless => {
                self.close_for(close::TOO_BIG, "the message doesn't end", false);
            }
            Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Error::Io(error) => self.state = State::Ended(End::failed(&error)),
            Error::ConnectionClosed | Error::AlreadyClosed => self.state = State::Ended(End::Clean),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                self.state = State::Ended(End::Cut);
            }
            Error::Capacity(_) => {
                self.close_for(close::TOO_BIG, "the message is larger than 64 KiB", false);
            }
            Error::Utf8(_) => self.close_for(close::UNSUPPORTED, "text isn't taken here", false),
            _ => self.close_for(close::PROTOCOL, "the rules of WebSocket are broken", false),
        }
        Poll::Ready(())
    }

    /// The way out after a Close of our own; ready when the state is [`State::Ended`].
    fn poll_farewell(&mut self) -> Poll<()> {
        loop {
            let State::Closing {
                end,
                until,
                flushed,
                framed,
                discarded,
            } = &mut self.state
            else {
                return Poll::Ready(());
            };
            let (end, until) = (end.clone(), *until);
            if *discarded > MAX_DISCARDED {
                self.state = State::Ended(end);
                return Poll::Ready(());
            }
            let step = if !*flushed {
                self.poll_out().map(|result| result.map(|()| None))
            } else if *framed {
                self.discard_message().map(|result| result.map(Some))
            } else {
                self.discard_bytes().map(|result| result.map(Some))
            };
            match step {
                Poll::Ready(Ok(None)) => self.set_flushed(),
                Poll::Ready(Ok(Some(size))) => {
                    if let State::Closing { discarded, .. } = &mut self.state {
                        *discarded += size;
                    }
                }
                Poll::Ready(Err(_)) => self.state = State::Ended(end),
                Poll::Pending => {
                    if self.poll_alarm(until).is_pending() {
                        return Poll::Pending;
                    }
                    self.state = State::Ended(end);
                }
            }
        }
    }

    fn set_flushed(&mut self) {
        if let State::Closing { flushed, .. } = &mut self.state {
            *flushed = true;
        }
        // Who writes waits for this only.
        self.shared.wake_both();
    }

    /// Any error means that the other side is done.
    fn discard_message(&mut self) -> Poll<io::Result<usize>> {
        self.wire.since_message = 0;
        let (context, mut bridge) = self.parts();
        match context.read(&mut bridge) {
            Ok(Message::Close(_)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(message) => Poll::Ready(Ok(message.len() + 1)),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(into_io(error))),
        }
    }

    fn discard_bytes(&mut self) -> Poll<io::Result<usize>> {
        self.wire.since_message = 0;
        let (_, mut bridge) = self.parts();
        match io::Read::read(&mut bridge, &mut [0; 4096]) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(size) => Poll::Ready(Ok(size)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Nothing came: asks whether the other side is still there. Ready if the state has changed.
    fn poll_beat(&mut self) -> Poll<()> {
        loop {
            let Some(beat) = &self.beat else {
                return Poll::Pending;
            };
            let Keepalive { interval, timeout } = beat.keepalive;
            let pinged = beat.pinged;
            let due = match pinged {
                Some(pinged) => pinged + timeout,
                None => beat.last_heard + interval,
            };
            if self.poll_alarm(due).is_pending() {
                return Poll::Pending;
            }
            if pinged.is_some() {
                self.state = State::Ended(End::Silent(timeout));
                return Poll::Ready(());
            }
            if let Some(beat) = &mut self.beat {
                beat.pinged = Some(Instant::now());
            }
            let (context, mut bridge) = self.parts();
            // A ping that finds no room isn't missed: the answer is due all the same.
            let sent = accepted(context.write(&mut bridge, Message::Ping(Bytes::new())));
            if sent.is_ok() {
                self.unflushed = true;
                let _ = self.poll_out();
            }
        }
    }

    /// A write failed. If the other side has said why before it went, that is the better answer.
    fn write_error(&mut self, error: io::Error) -> io::Error {
        if self.incoming.is_empty() {
            let _ = self.poll_message();
        }
        match &self.state {
            State::Ended(end @ End::Closed(_)) => end.error(),
            State::Open { .. } | State::Closing { .. } | State::Ended(_) => error,
        }
    }
}

/// A frame that is only queued is on its way.
fn accepted(result: Result<(), Error>) -> io::Result<()> {
    match result.map_err(into_io) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors grow; the others keep their text"
)]
fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        this.begin(Side::Reader, context);
        loop {
            if !this.incoming.is_empty() {
                let taken = this.incoming.len().min(buffer.remaining());
                buffer.put_slice(&this.incoming.split_to(taken));
                if let State::Open { farewell: Some(_) } = this.state
                    && this.incoming.is_empty()
                {
                    // Who shuts the stream down waits for room.
                    this.shared.wake_both();
                }
                return Poll::Ready(Ok(()));
            }
            match &this.state {
                State::Open { .. } => {
                    if this.unflushed {
                        // A write error shows when somebody writes; here the last word of the other side counts.
                        let _ = this.poll_out();
                    }
                    if this.poll_message().is_pending() && this.poll_beat().is_pending() {
                        return Poll::Pending;
                    }
                }
                State::Closing { .. } => {
                    if this.poll_farewell().is_pending() {
                        return Poll::Pending;
                    }
                }
                State::Ended(End::Clean) => return Poll::Ready(Ok(())),
                State::Ended(end) => return Poll::Ready(Err(end.error())),
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.begin(Side::Writer, context);
        if let Some(result) = this.poll_writable() {
            match result {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
        }
        if let State::Ended(End::Clean) = this.state {
            this.lost += bytes.len();
            if this.lost > MAX_SENT {
                return Poll::Ready(Err(End::Clean.error()));
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        let part = &bytes[..bytes.len().min(MAX_SENT)];
        let (context, mut bridge) = this.parts();
        let message = Message::Binary(Bytes::copy_from_slice(part));
        match accepted(context.write(&mut bridge, message)) {
            Ok(()) => {
                this.unflushed = true;
                Poll::Ready(Ok(part.len()))
            }
            Err(error) => Poll::Ready(Err(this.write_error(error))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.begin(Side::Writer, context);
        this.poll_writable().unwrap_or(Poll::Ready(Ok(())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.begin(Side::Writer, context);
        if let State::Open { farewell: None } = this.state {
            match this.send_close(close::NORMAL, "") {
                Ok(()) => {
                    this.state = State::Open {
                        farewell: Some(Instant::now() + FAREWELL),
                    };
                }
                Err(error) => return Poll::Ready(Err(this.write_error(error))),
            }
        }
        loop {
            let until = match &this.state {
                State::Closing { .. } => {
                    if this.poll_farewell().is_pending() {
                        return Poll::Pending;
                    }
                    break;
                }
                State::Ended(_) => break,
                State::Open { farewell } => farewell.unwrap_or_else(Instant::now),
            };
            let waiting = match this.poll_out() {
                Poll::Ready(Ok(())) => {
                    !this.incoming.is_empty() || this.poll_message().is_pending()
                }
                Poll::Ready(Err(_)) => break,
                Poll::Pending => true,
            };
            if waiting {
                if this.poll_alarm(until).is_pending() {
                    return Poll::Pending;
                }
                break;
            }
        }
        let shared = Waker::clone(&this.waker);
        match Pin::new(&mut this.io).poll_shutdown(&mut Context::from_waker(&shared)) {
            // Gone already is as good.
            Poll::Ready(Err(_)) | Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ByteStream<IO> {
    /// Room for one frame, or why there never will be any; `None` where the other side has gone in peace.
    fn poll_writable(&mut self) -> Option<Poll<io::Result<()>>> {
        match &mut self.state {
            State::Open { farewell: None } => Some(
                self.poll_out()
                    .map(|result| result.map_err(|error| self.write_error(error))),
            ),
            State::Open { farewell: Some(_) } => Some(Poll::Ready(Err(End::Clean.error()))),
            State::Closing { .. } => {
                // The Close must get out before the writer gives up and drops the stream.
                let ended = self.poll_farewell().is_ready();
                Some(match &self.state {
                    State::Closing { end, flushed, .. } if *flushed || ended => {
                        Poll::Ready(Err(end.error()))
                    }
                    State::Closing { .. } => Poll::Pending,
                    State::Ended(end) => Poll::Ready(Err(end.error())),
                    State::Open { .. } => Poll::Pending,
                })
            }
            State::Ended(End::Clean) => None,
            State::Ended(end) => Some(Poll::Ready(Err(end.error()))),
        }
    }
}
