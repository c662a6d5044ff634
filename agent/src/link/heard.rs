//! Remembers the last word of a gateway that closes a WebSocket under a TLS handshake: the layer above only says that the
//! connection ended. Bytes pass through untouched.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use umbra_carrier::ws::Closed;

/// What was heard.
pub(super) type LastWord = Arc<OnceLock<Closed>>;

/// A stream whose last word is remembered.
pub(super) struct Heard<IO> {
    io: IO,
    last: LastWord,
}

impl<IO> Heard<IO> {
    pub(super) fn new(io: IO) -> (Self, LastWord) {
        let last = LastWord::default();
        let heard = Self {
            io,
            last: Arc::clone(&last),
        };
        (heard, last)
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(closed) = Closed::of(error)
        {
            // The first word counts.
            let _ = self.last.set(closed.clone());
        }
        polled
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Heard<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        self.note(polled)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Heard<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(context);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
