//! One byte stream, whatever carries it: TCP, a proxy's tunnel, TLS, WebSocket, or layers of them. Who works with such a
//! stream must never need to know which.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One byte stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl fmt::Debug for dyn Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte stream")
    }
}

/// A byte stream of any kind.
pub type BoxIo = Box<dyn Io>;

/// Forgets which kind of stream it is.
pub fn boxed(io: impl Io + 'static) -> BoxIo {
    Box::new(io)
}

/// A stream of which the first bytes were read already: they come first again.
#[derive(Debug)]
pub struct Prefixed<IO> {
    first: Vec<u8>,
    given: usize,
    io: IO,
}

impl<IO> Prefixed<IO> {
    /// `first`, and then what `io` brings.
    pub fn new(first: Vec<u8>, io: IO) -> Self {
        Self {
            first,
            given: 0,
            io,
        }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let waiting = &self.first[self.given..];
        if waiting.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let taken = waiting.len().min(buffer.remaining());
        buffer.put_slice(&waiting[..taken]);
        self.given += taken;
        if self.given == self.first.len() {
            self.first = Vec::new();
            self.given = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// A stream that one task reads and another one writes, over something that remembers only the task that polled it last (as a
/// multiplexed stream may: giving the other side room while reading and sending data go through one queue there). Without it
/// the writer's wake-up goes to the reader, and a reader that waits for the writer waits for ever. Here whatever wakes one wakes
/// both.
#[derive(Debug)]
pub struct WakesBoth<IO> {
    io: IO,
    tasks: Arc<Tasks>,
    waker: Waker,
}

/// Who waits.
#[derive(Debug, Default)]
struct Tasks {
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
}

impl Wake for Tasks {
    fn wake(self: Arc<Self>) {
        for waiting in [&self.reader, &self.writer] {
            // Whoever is woken and still has to wait says so again.
            let waiting = waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(task) = waiting {
                task.wake();
            }
        }
    }
}

/// Remembers the task that polls now, before it is known whether it has to wait.
fn remember(waiting: &Mutex<Option<Waker>>, context: &Context<'_>) {
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
}

impl<IO> WakesBoth<IO> {
    /// The same stream for two tasks.
    pub fn new(io: IO) -> Self {
        let tasks = Arc::new(Tasks::default());
        Self {
            io,
            waker: Arc::clone(&tasks).into(),
            tasks,
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for WakesBoth<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, tasks, waker } = self.get_mut();
        remember(&tasks.reader, context);
        Pin::new(io).poll_read(&mut Context::from_waker(waker), buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for WakesBoth<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { io, tasks, waker } = self.get_mut();
        remember(&tasks.writer, context);
        Pin::new(io).poll_write(&mut Context::from_waker(waker), bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, tasks, waker } = self.get_mut();
        remember(&tasks.writer, context);
        Pin::new(io).poll_flush(&mut Context::from_waker(waker))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, tasks, waker } = self.get_mut();
        remember(&tasks.writer, context);
        Pin::new(io).poll_shutdown(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};

    use super::*;

    /// Takes a byte only once it was opened, and remembers the last task that asked for anything.
    #[derive(Debug, Default)]
    struct OneMemory {
        open: bool,
        last: Option<Waker>,
    }

    #[derive(Debug, Clone, Default)]
    struct Gate(Arc<Mutex<OneMemory>>);

    impl Gate {
        fn ask(&self, context: &Context<'_>) -> bool {
            let mut memory = self.0.lock().expect("no panic");
            memory.last = Some(context.waker().clone());
            memory.open
        }

        fn open(&self) {
            let mut memory = self.0.lock().expect("no panic");
            memory.open = true;
            let last = memory.last.take();
            drop(memory);
            last.expect("somebody waits").wake();
        }
    }

    impl AsyncRead for Gate {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.ask(context);
            Poll::Pending
        }
    }

    impl AsyncWrite for Gate {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.ask(context) {
                Poll::Ready(Ok(bytes.len()))
            } else {
                Poll::Pending
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Whether a writer gets through that waited first, with a reader that came to wait after it.
    async fn writer_gets_through(io: impl Io + 'static, gate: Gate) -> bool {
        let (mut read, mut write) = split(io);
        let writer = tokio::spawn(async move { write.write_all(b"x").await });
        tokio::task::yield_now().await;
        let reader = tokio::spawn(async move { read.read_u8().await });
        tokio::task::yield_now().await;
        gate.open();
        let through = tokio::time::timeout(Duration::from_secs(60), writer).await;
        reader.abort();
        through.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_is_woken_though_the_reader_asked_last() {
        let gate = Gate::default();
        // What it is for: without it, the writer waits for ever.
        assert!(!writer_gets_through(gate.clone(), gate).await);
        let gate = Gate::default();
        assert!(writer_gets_through(WakesBoth::new(gate.clone()), gate).await);
    }
}
