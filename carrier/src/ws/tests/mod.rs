//! Both ends against each other, and each end against scripted bytes. Time is simulated: it moves only when nothing else
//! can happen.

#![allow(clippy::unwrap_used)]

mod ends;
mod frames;
mod handshake;
mod silence;
mod slices;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split,
};
use tokio::time::timeout;
use tungstenite::protocol::Role;

use super::*;

/// Long enough never to be reached.
const LONG: Duration = Duration::from_secs(3600);

/// Room for everything that a test sends at once.
const ROOM: usize = 4 * 1024 * 1024;

const CONTINUE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

fn pair(room: usize) -> (ByteStream<DuplexStream>, ByteStream<DuplexStream>) {
    let (client, server) = duplex(room);
    (
        ByteStream::new(client, Vec::new(), Role::Client, None),
        server_stream(server, Vec::new(), None),
    )
}

/// A frame as it stands in RFC 6455, section 5.2.
fn frame(last: bool, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = header(last, opcode, payload.len() as u64, mask.is_some());
    match mask {
        Some(mask) => {
            bytes.extend(mask);
            let masked = payload.iter().zip(mask.iter().cycle());
            bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        }
        None => bytes.extend(payload),
    }
    bytes
}

fn header(last: bool, opcode: u8, length: u64, masked: bool) -> Vec<u8> {
    let mut bytes = vec![(u8::from(last) << 7) | opcode];
    let masked = u8::from(masked) << 7;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(masked | short),
        (_, Ok(middle)) => {
            bytes.push(masked | 126);
            bytes.extend(middle.to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

/// What a client sends.
fn masked(last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(last, opcode, payload, Some([0x12, 0xf4, 0, 0x81]))
}

#[derive(Debug, PartialEq)]
struct Frame {
    first: u8,
    masked: bool,
    payload: Vec<u8>,
}

impl Frame {
    fn opcode(&self) -> u8 {
        self.first & 15
    }

    fn close_code(&self) -> u16 {
        u16::from_be_bytes([self.payload[0], self.payload[1]])
    }
}

/// Reads frames back; they must be whole.
fn parse(mut bytes: &[u8]) -> Vec<Frame> {
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let head = take(&mut bytes, 2);
        let (first, second) = (head[0], head[1]);
        let length = match second & 127 {
            126 => u16::from_be_bytes(take(&mut bytes, 2).try_into().unwrap()).into(),
            127 => u64::from_be_bytes(take(&mut bytes, 8).try_into().unwrap()),
            short => u64::from(short),
        };
        let masked = second & 128 != 0;
        let mask: [u8; 4] = if masked {
            take(&mut bytes, 4).try_into().unwrap()
        } else {
            [0; 4]
        };
        let payload = take(&mut bytes, usize::try_from(length).unwrap());
        let payload = payload.iter().zip(mask.iter().cycle());
        frames.push(Frame {
            first,
            masked,
            payload: payload.map(|(byte, mask)| byte ^ mask).collect(),
        });
    }
    frames
}

/// What a server's end makes of these bytes from a client that stays on the line: what it reads, how that ends, and what
/// the client is sent.
async fn serve(bytes: &[u8]) -> (Vec<u8>, io::Result<()>, Vec<Frame>) {
    let (mut client, server) = duplex(ROOM);
    client.write_all(bytes).await.unwrap();
    let mut stream = server_stream(server, Vec::new(), None);
    let mut read = Vec::new();
    let result = timeout(LONG, stream.read_to_end(&mut read)).await;
    let result = result.expect("the stream ends");
    drop(stream);
    let mut sent = Vec::new();
    client.read_to_end(&mut sent).await.unwrap();
    (read, result.map(|_| ()), parse(&sent))
}

/// A client that never stops: the same bytes again and again. What it is sent is kept, or never taken.
struct Endless {
    pattern: Vec<u8>,
    next: usize,
    given: Arc<Mutex<usize>>,
    taken: Option<Vec<u8>>,
}

impl Endless {
    fn new(pattern: Vec<u8>, takes: bool) -> Self {
        Self {
            pattern,
            next: 0,
            given: Arc::default(),
            taken: takes.then(Vec::new),
        }
    }
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while buffer.remaining() > 0 {
            let byte = self.pattern[self.next];
            self.next = (self.next + 1) % self.pattern.len();
            buffer.put_slice(&[byte]);
        }
        *self.given.lock().unwrap() += buffer.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.taken {
            Some(taken) => {
                taken.extend(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            None => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Sends all that it has and lets the other side go on sending.
async fn exchange(
    stream: ByteStream<DuplexStream>,
    sent: Vec<u8>,
) -> (Vec<u8>, ByteStream<DuplexStream>) {
    let (mut read, mut write) = split(stream);
    let mut got = vec![0; sent.len()];
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.flush().await.unwrap();
        write
    });
    read.read_exact(&mut got).await.unwrap();
    let write = writing.await.unwrap();
    (got, read.unsplit(write))
}

fn text(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect()
}
