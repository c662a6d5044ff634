//! Between the polled stream below and the WebSocket library, which reads and writes without blocking. Reading and
//! writing may happen in two tasks, and either of them may write a pong: so the stream below only ever knows one waker,
//! which wakes both.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A message of 64 KiB in any number of fragments fits; more is an endless row of fragments.
const MAX_WIRE: usize = 256 * 1024;

/// Who waits for the stream, and whether somebody wants it closed.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
    close: Option<(u16, String)>,
    asked: bool,
}

/// Which side of the stream polls.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Reader,
    Writer,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait(&self, side: Side, waker: &Waker) {
        let mut waiting = self.lock();
        let slot = match side {
            Side::Reader => &mut waiting.reader,
            Side::Writer => &mut waiting.writer,
        };
        match slot {
            Some(known) if known.will_wake(waker) => {}
            Some(_) | None => *slot = Some(waker.clone()),
        }
    }

    /// Only the first wish counts.
    pub(super) fn ask_to_close(&self, code: u16, reason: &str) {
        {
            let mut waiting = self.lock();
            if waiting.asked {
                return;
            }
            waiting.asked = true;
            waiting.close = Some((code, reason.to_owned()));
        }
        self.wake_both();
    }

    pub(super) fn wish(&self) -> Option<(u16, String)> {
        self.lock().close.take()
    }

    pub(super) fn wake_both(&self) {
        let (reader, writer) = {
            let mut waiting = self.lock();
            (waiting.reader.take(), waiting.writer.take())
        };
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_both();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_both();
    }
}

/// What came over the wire.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Bytes since the last complete message.
    pub(super) since_message: usize,
    /// Whether anything came since this was reset.
    pub(super) heard: bool,
    /// Whether a message doesn't end.
    pub(super) endless: bool,
}

/// The stream below for the time of one poll.
pub(super) struct Bridge<'a, IO> {
    pub(super) io: &'a mut IO,
    pub(super) waker: &'a Waker,
    pub(super) wire: &'a mut Wire,
}

impl<IO> Bridge<'_, IO> {
    fn blocking<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
        match poll {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<IO: AsyncRead + Unpin> Read for Bridge<'_, IO> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.wire.since_message > MAX_WIRE {
            self.wire.endless = true;
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut buffer = ReadBuf::new(bytes);
        let poll =
            Pin::new(&mut *self.io).poll_read(&mut Context::from_waker(self.waker), &mut buffer);
        Self::blocking(poll)?;
        let read = buffer.filled().len();
        self.wire.since_message += read;
        self.wire.heard |= read > 0;
        Ok(read)
    }
}

impl<IO: AsyncWrite + Unpin> Write for Bridge<'_, IO> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::blocking(
            Pin::new(&mut *self.io).poll_write(&mut Context::from_waker(self.waker), bytes),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::blocking(Pin::new(&mut *self.io).poll_flush(&mut Context::from_waker(self.waker)))
    }
}
