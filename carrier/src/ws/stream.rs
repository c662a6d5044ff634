//! The byte stream itself: a WebSocket after its handshake. It keeps at most one incoming message and one outgoing frame,
//! so that backpressure passes through it; whatever ends it, the other side is told why before the stream below ends.
//!
//! WebSocket has no half-close: a Close ends both directions. What ends one direction only has to be said inside, as TLS
//! does with its `close_notify`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Message};

use super::bridge::{Shared, Side, Wire};
use super::drive::accepted;
use super::flood::Bucket;
use super::state::{Alarm, Beat, End, FAREWELL, State};
use super::{MAX_MESSAGE, MAX_SENT, close};

/// What is read from the stream below at once; a larger frame has a buffer of its own.
const READ_BUFFER: usize = 8 * 1024;

/// The same for a stream that is silent most of the time: a gateway holds thousands of them.
const QUIET_READ_BUFFER: usize = 512;

/// The largest frame that such a stream sends. The library's buffers stay as large as the largest frame was: with its header this one fits into
/// what is read at once.
const QUIET_SENT: usize = QUIET_READ_BUFFER - 16;

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

/// A byte stream over WebSocket.
///
/// - Reading: `Ok(0)` after the other side's Close with code 1000; after any other code an error with [`Closed`](super::Closed) inside;
///   `UnexpectedEof` where the stream below ended without a Close; `TimedOut` after silence (see [`Keepalive`], which
///   works only while somebody reads).
/// - Writing: flush afterwards, as with any stream. After the other side's Close with code 1000, a last small write is
///   lost silently, as with TCP: so a TLS `close_notify` isn't an error.
/// - Shutting down sends Close with code 1000, and waits for the answer at most two seconds. It ends both directions;
///   what was on its way here can still be read.
pub struct ByteStream<IO> {
    pub(super) io: IO,
    pub(super) context: WebSocketContext,
    pub(super) shared: Arc<Shared>,
    pub(super) waker: Waker,
    pub(super) wire: Wire,
    pub(super) incoming: Bytes,
    pub(super) state: State,
    pub(super) unflushed: bool,
    /// The largest frame that is sent.
    sent_at_once: usize,
    pub(super) lost: usize,
    pub(super) shut: bool,
    pub(super) bucket: Bucket,
    pub(super) beat: Option<Beat>,
    /// For the keep-alive, and for the farewell: both may run at the same time.
    pub(super) beat_alarm: Alarm,
    pub(super) farewell_alarm: Alarm,
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
    /// answer, and end. Who reads or writes it gets a [`Closed`](super::Closed) with `by_us`. It happens while somebody reads or writes;
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

/// The same for one that says little: it occupies a few hundred bytes instead of some thousand while nothing comes, and sends small frames
/// (see [`ByteStream::in_small_frames`]).
pub fn quiet_server_stream<IO>(
    io: IO,
    already_read: Vec<u8>,
    keepalive: Option<Keepalive>,
) -> ByteStream<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    ByteStream::reading(io, already_read, Role::Server, keepalive, QUIET_READ_BUFFER)
        .in_small_frames()
}

impl<IO> ByteStream<IO> {
    pub(super) fn new(
        io: IO,
        already_read: Vec<u8>,
        role: Role,
        keepalive: Option<Keepalive>,
    ) -> Self {
        Self::reading(io, already_read, role, keepalive, READ_BUFFER)
    }

    fn reading(
        io: IO,
        already_read: Vec<u8>,
        role: Role,
        keepalive: Option<Keepalive>,
        read_buffer: usize,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(read_buffer)
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
            sent_at_once: MAX_SENT,
            lost: 0,
            shut: false,
            bucket: Bucket::new(now),
            beat: keepalive.map(|keepalive| Beat {
                keepalive,
                last_heard: now,
                pinged: None,
            }),
            beat_alarm: Alarm::default(),
            farewell_alarm: Alarm::default(),
        }
    }

    /// A handle that ends this stream from outside.
    pub fn closer(&self) -> Closer {
        Closer {
            shared: Arc::clone(&self.shared),
        }
    }

    /// From now on frames of a few hundred bytes are sent: whoever reads them, and this end, need no larger buffers. For streams that say
    /// little and whose other end is one of thousands.
    #[must_use]
    pub fn in_small_frames(mut self) -> Self {
        self.sent_at_once = QUIET_SENT;
        self
    }

    /// The stream below.
    pub fn get_ref(&self) -> &IO {
        &self.io
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
        let part = &bytes[..bytes.len().min(this.sent_at_once)];
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
        if this.shut {
            // Shutting down has flushed, as far as that was possible.
            return Poll::Ready(Ok(()));
        }
        this.begin(Side::Writer, context);
        this.poll_writable().unwrap_or(Poll::Ready(Ok(())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.begin(Side::Writer, context);
        this.shut = true;
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
                if this.farewell_alarm.poll(until, &this.waker).is_pending() {
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
