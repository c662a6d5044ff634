//! What moves a [`ByteStream`]: messages in, frames out, the ping into the silence, and the way out after a Close. All of
//! it is polled by whoever reads or writes; nothing here runs by itself.

use std::io;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketContext};
use tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::bridge::{Bridge, Side};
use super::close;
use super::closed::{Closed, cut};
use super::state::{End, FAREWELL, State};
use super::stream::{ByteStream, Keepalive};

/// What still comes in after our Close is thrown away, up to this much.
const MAX_DISCARDED: usize = 1024 * 1024;

impl<IO: AsyncRead + AsyncWrite + Unpin> ByteStream<IO> {
    pub(super) fn parts(&mut self) -> (&mut WebSocketContext, Bridge<'_, IO>) {
        let bridge = Bridge {
            io: &mut self.io,
            waker: &self.waker,
            wire: &mut self.wire,
        };
        (&mut self.context, bridge)
    }

    /// Takes notice of who polls, and of a wish to close.
    pub(super) fn begin(&mut self, side: Side, context: &Context<'_>) {
        self.shared.wait(side, context.waker());
        if let State::Open { .. } = self.state
            && let Some((code, reason)) = self.shared.wish()
        {
            self.close_for(code, &reason, true);
        }
    }

    /// Says Close, and lets the stream end with this reason.
    pub(super) fn close_for(&mut self, code: u16, reason: &str, framed: bool) {
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

    pub(super) fn send_close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        // An answer to a ping that is still due goes first: after a Close nothing is said.
        let _ = self.poll_out();
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

    pub(super) fn poll_out(&mut self) -> Poll<io::Result<()>> {
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

    /// Ready as soon as there is something to give to the reader, or the state has changed.
    pub(super) fn poll_message(&mut self) -> Poll<()> {
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

    pub(super) fn said_goodbye(&mut self, frame: Option<CloseFrame>) {
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
    pub(super) fn failed(&mut self, error: Error) -> Poll<()> {
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
    pub(super) fn poll_farewell(&mut self) -> Poll<()> {
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
                    if self.farewell_alarm.poll(until, &self.waker).is_pending() {
                        return Poll::Pending;
                    }
                    self.state = State::Ended(end);
                }
            }
        }
    }

    pub(super) fn set_flushed(&mut self) {
        if let State::Closing { flushed, .. } = &mut self.state {
            *flushed = true;
        }
        // Who writes waits for this only.
        self.shared.wake_both();
    }

    /// Any error means that the other side is done.
    pub(super) fn discard_message(&mut self) -> Poll<io::Result<usize>> {
        self.wire.since_message = 0;
        let (context, mut bridge) = self.parts();
        match context.read(&mut bridge) {
            Ok(Message::Close(_)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Poll::Ready(Ok(self.wire.since_message)),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(into_io(error))),
        }
    }

    pub(super) fn discard_bytes(&mut self) -> Poll<io::Result<usize>> {
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
    pub(super) fn poll_beat(&mut self) -> Poll<()> {
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
            if self.beat_alarm.poll(due, &self.waker).is_pending() {
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

    /// Room for one frame, or why there never will be any; `None` where the other side has gone in peace.
    pub(super) fn poll_writable(&mut self) -> Option<Poll<io::Result<()>>> {
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
            State::Ended(End::Clean) if self.shut => Some(Poll::Ready(Err(End::Clean.error()))),
            State::Ended(End::Clean) => None,
            State::Ended(end) => Some(Poll::Ready(Err(end.error()))),
        }
    }

    /// A write failed. If the other side has said why before it went, that is the better answer.
    pub(super) fn write_error(&mut self, error: io::Error) -> io::Error {
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
pub(super) fn accepted(result: Result<(), Error>) -> io::Result<()> {
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
