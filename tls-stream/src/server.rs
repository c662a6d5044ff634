//! The server's end, made for many connections that mostly stand still and for one that moves a screen: records are opened and
//! sealed, several at a time, in a buffer that all of a thread share and borrow only while bytes move. A connection itself keeps
//! nothing but keys, the beginning of a record that has not arrived whole, and what its carrier did not take. It must never hand out a
//! byte that wasn't authenticated, nor take a cut connection for an orderly end.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::borrowed::{Shared, borrow};

/// The longest record with its header.
const RECORD_MAX: usize = 5 + 16 * 1024 + 256;
/// How much plaintext is sealed at a time: several full records.
const SEALED_AT_ONCE: usize = 64 * 1024;
/// What sealing adds at most to that: 29 bytes to each record (AES-GCM in TLS 1.2), and a change of keys before them.
const OVERHEAD: usize = 1024;
/// How much may wait for its rest: a handshake message of 64 KiB in records, which no honest caller sends.
const UNFINISHED_MAX: usize = 80 * 1024;

thread_local! {
    static RECORDS: Shared = const { Shared::new() };
}

/// The server's end of a TLS connection.
pub struct ServerStream<IO> {
    io: IO,
    /// Apart, since futures hold this stream and are moved.
    tls: Box<UnbufferedServerConnection>,
    /// The beginning of a record, or of a handshake message, of which more must come.
    unfinished: Vec<u8>,
    /// What was opened and not read yet.
    opened: Vec<u8>,
    read: usize,
    /// What was sealed and not taken by the carrier yet.
    sealed: Vec<u8>,
    sent: usize,
    /// The peer has said that nothing follows.
    peer_closed: bool,
    /// We have said that nothing follows.
    closed: bool,
    /// The peer broke the rules: TLS is never asked again, since what it still holds points into bytes that are gone.
    broken: bool,
}

impl<IO> fmt::Debug for ServerStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerStream")
            .field("peer_closed", &self.peer_closed)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ServerStream<IO> {
    /// Plays the server's part of the handshake. Whoever fails it is told why, as far as TLS has words for it. There is no limit in time:
    /// that is the caller's.
    ///
    /// # Errors
    /// Those of the carrier; `UnexpectedEof` if it ends before the handshake does; `InvalidData` with a [`rustls::Error`] inside for a client that doesn't
    /// keep to TLS, or not to this configuration.
    pub async fn accept(io: IO, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = Self {
            io,
            tls: Box::new(tls),
            unfinished: Vec::new(),
            opened: Vec::new(),
            read: 0,
            sealed: Vec::new(),
            sent: 0,
            peer_closed: false,
            closed: false,
            broken: false,
        };
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// The certificates that the client presented, its own first; empty where it presented none.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.tls.is_handshaking() {
                return Pin::new(&mut self.io).poll_flush(cx);
            }
            // What the other side waits for must not stay in a buffer below.
            let _ = Pin::new(&mut self.io).poll_flush(cx)?;
            ready!(self.poll_fill(cx, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Takes one portion from the carrier and opens what is whole: into `room` as far as there is any, the rest is kept.
    fn poll_fill(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let waiting = self.unfinished.len();
        if self.broken || waiting > UNFINISHED_MAX {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        // Never more than the reader has room for, except to complete a record.
        let limit = room.remaining().max(waiting + RECORD_MAX);
        borrow(&RECORDS, limit, |records| {
            let mut part = ReadBuf::new(&mut records[waiting..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
            let arrived = part.filled().len();
            if arrived == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            records[..waiting].copy_from_slice(&self.unfinished);
            let all = &mut records[..waiting + arrived];
            let result = self.open(all, room);
            if result.is_err() {
                // It may be told why, if it still listens.
                let _ = self.poll_send(cx);
            }
            let used = result?;
            self.unfinished = match &all[used..] {
                // Gives the memory back.
                [] => Vec::new(),
                rest => rest.to_vec(),
            };
            Poll::Ready(Ok(()))
        })
    }

    /// Opens the records at the front; gives how many bytes are done with. What came before and is not done with is always at the front: TLS
    /// remembers places in it.
    fn open(&mut self, records: &mut [u8], room: &mut ReadBuf<'_>) -> io::Result<usize> {
        let result = self.open_whole(records, room);
        self.broken |= result.is_err();
        result
    }

    fn open_whole(&mut self, records: &mut [u8], room: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.tls.process_tls_records(&mut records[used..]);
            let more = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        discard += record.discard;
                        let (now, later) = record
                            .payload
                            .split_at(record.payload.len().min(room.remaining()));
                        room.put_slice(now);
                        self.opened.extend_from_slice(later);
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    encode(&mut self.sealed, &mut message)?;
                    true
                }
                Ok(ConnectionState::TransmitTlsData(message)) => {
                    // It is in `sealed`, from where it goes in order.
                    message.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    true
                }
                Ok(ConnectionState::Closed) => {
                    self.peer_closed = true;
                    false
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => false,
                // Early data is switched off, and states that are not known here are none of ours.
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => {
                    self.collect_alert();
                    return Err(broken(error));
                }
            };
            used += discard;
            if !more {
                return Ok(used);
            }
        }
    }

    /// After an error: what TLS has to say about it, as long as it has something to say. Then it must not be asked, since it would go on with
    /// bytes that it remembers.
    fn collect_alert(&mut self) {
        while self.tls.wants_write()
            && let UnbufferedStatus {
                state: Ok(ConnectionState::EncodeTlsData(mut message)),
                ..
            } = self.tls.process_tls_records(&mut [])
        {
            if encode(&mut self.sealed, &mut message).is_err() {
                return;
            }
        }
    }

    /// Hands what is sealed to the carrier.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.sealed.len() {
            let taken = ready!(Pin::new(&mut self.io).poll_write(cx, &self.sealed[self.sent..]))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += taken;
        }
        if self.sent > 0 {
            self.sealed = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Lets TLS speak, with something to say of ours: whatever it has to say itself goes first. `None` where it can't be said any more.
    fn speak<T>(
        &mut self,
        say: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        if self.broken {
            return Ok(None);
        }
        let mut waiting = mem::take(&mut self.unfinished);
        // Nothing arrives here, so this ends after what was queued.
        let used = self.open(&mut waiting, &mut ReadBuf::new(&mut []))?;
        waiting.drain(..used);
        let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut waiting);
        let said = match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                say(&mut traffic, &mut self.sealed).map(Some)
            }
            Ok(_) => Ok(None),
            Err(error) => {
                self.broken = true;
                Err(broken(error))
            }
        };
        waiting.drain(..discard);
        self.unfinished = waiting;
        said
    }

    /// Seals into `records`; gives how many bytes that made.
    fn seal(&mut self, plain: &[u8], records: &mut [u8]) -> io::Result<usize> {
        let sealed = self.speak(|traffic, _| {
            let sealed = traffic.encrypt(plain, records);
            sealed.map_err(io::Error::other)
        })?;
        sealed.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Seals our farewell, if there is anybody left to say it to.
    fn seal_farewell(&mut self) -> io::Result<()> {
        self.speak(|traffic, sealed| {
            append(sealed, |space| match traffic.queue_close_notify(space) {
                Ok(count) => Ok(Ok(count)),
                Err(EncryptError::InsufficientSize(short)) => Ok(Err(short)),
                Err(error @ EncryptError::EncryptExhausted) => Err(io::Error::other(error)),
            })
        })?;
        Ok(())
    }
}

/// Appends a message of TLS's own.
fn encode(
    sealed: &mut Vec<u8>,
    message: &mut EncodeTlsData<'_, ServerConnectionData>,
) -> io::Result<()> {
    append(sealed, |space| match message.encode(space) {
        Ok(count) => Ok(Ok(count)),
        Err(EncodeError::InsufficientSize(short)) => Ok(Err(short)),
        Err(error @ EncodeError::AlreadyEncoded) => Err(io::Error::other(error)),
    })
}

/// Appends what `write` writes into the space that it says it needs.
fn append(
    sealed: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> io::Result<Result<usize, InsufficientSizeError>>,
) -> io::Result<()> {
    let end = sealed.len();
    loop {
        match write(&mut sealed[end..])? {
            Ok(count) => {
                sealed.truncate(end + count);
                return Ok(());
            }
            Err(short) => sealed.resize(end + short.required_size, 0),
        }
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServerStream<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        loop {
            let kept = &this.opened[this.read..];
            if !kept.is_empty() {
                let now = kept.len().min(buffer.remaining());
                buffer.put_slice(&kept[..now]);
                this.read += now;
                if this.read == this.opened.len() {
                    this.opened = Vec::new();
                    this.read = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if this.peer_closed || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx, buffer))?;
            if !this.sealed.is_empty() {
                // An answer of TLS's own. If the carrier has no room now, the next write or flush takes it along.
                let _ = this.poll_send(cx)?;
            }
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServerStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // A carrier that takes nothing is waited for: nothing piles up here.
        ready!(this.poll_send(cx))?;
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let plain = &bytes[..bytes.len().min(SEALED_AT_ONCE)];
        if plain.is_empty() {
            return Poll::Ready(Ok(0));
        }
        borrow(&RECORDS, SEALED_AT_ONCE + OVERHEAD, |records| {
            let count = this.seal(plain, records)?;
            let mut rest = &records[..count];
            if this.sealed.is_empty() {
                while !rest.is_empty() {
                    match Pin::new(&mut this.io).poll_write(cx, rest) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(0)) => {
                            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                        }
                        Poll::Ready(Ok(taken)) => rest = &rest[taken..],
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    }
                }
            }
            this.sealed.extend_from_slice(rest);
            Poll::Ready(Ok(plain.len()))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            this.seal_farewell()?;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
