//! One byte stream, whatever carries it: TCP, a proxy's tunnel, TLS, WebSocket, or layers of them. Who works with such a
//! stream must never need to know which.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

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
