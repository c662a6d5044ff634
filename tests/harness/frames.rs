//! WebSocket as it is on the wire: the head of an upgrade, and frames. Written after the standard and not after the product,
//! so that the two can disagree.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The largest head of a request or an answer.
const HEAD: usize = 64 * 1024;
/// The largest frame; honest ones are smaller.
const FRAME: u64 = 1 << 20;

/// A frame (RFC 6455, section 5.2) with its payload in clear.
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) async fn read<R: AsyncRead + Unpin>(from: &mut Whole<R>) -> io::Result<Self> {
        let [first, second] = from.array().await?;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(from.array().await?)),
            127 => u64::from_be_bytes(from.array().await?),
            short => u64::from(short),
        };
        if length > FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mask = match second & 0x80 {
            0 => None,
            _ => Some(from.array().await?),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap_or_default()];
        from.exact(&mut payload).await?;
        turn(&mut payload, mask);
        Ok(Self {
            first,
            mask,
            payload,
        })
    }

    /// A whole one that a client sends.
    pub(crate) fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Self {
        Self {
            first,
            mask: Some(mask),
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn is_close(&self) -> bool {
        self.first & 0x0f == 8
    }

    pub(crate) fn is_data(&self) -> bool {
        self.first & 0x0f < 3
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match (
            u8::try_from(self.payload.len()),
            u16::try_from(self.payload.len()),
        ) {
            (Ok(short), _) if short < 126 => bytes.push(masked | short),
            (_, Ok(medium)) => {
                bytes.push(masked | 126);
                bytes.extend(medium.to_be_bytes());
            }
            (_, Err(_)) => {
                bytes.push(masked | 127);
                bytes.extend((self.payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend(
            self.mask
                .unwrap_or_default()
                .iter()
                .take(4 * usize::from(masked != 0)),
        );
        let begin = bytes.len();
        bytes.extend(&self.payload);
        turn(&mut bytes[begin..], self.mask);
        bytes
    }
}

/// Puts a mask on or takes it off.
fn turn(payload: &mut [u8], mask: Option<[u8; 4]>) {
    if let Some(mask) = mask {
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
}

/// What was read behind a head, and then the rest.
pub(crate) struct Whole<R> {
    before: Vec<u8>,
    from: R,
}

impl<R: AsyncRead + Unpin> Whole<R> {
    pub(crate) fn new(before: Vec<u8>, from: R) -> Self {
        Self { before, from }
    }

    pub(crate) async fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.before.is_empty() {
            let mut chunk = vec![0; 16 * 1024];
            let count = self.from.read(&mut chunk).await?;
            chunk.truncate(count);
            return Ok(chunk);
        }
        Ok(std::mem::take(&mut self.before))
    }

    pub(crate) async fn exact(&mut self, to: &mut [u8]) -> io::Result<()> {
        let ready = self.before.len().min(to.len());
        to[..ready].copy_from_slice(&self.before[..ready]);
        self.before.drain(..ready);
        self.from.read_exact(&mut to[ready..]).await.map(drop)
    }

    pub(crate) async fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.exact(&mut bytes).await?;
        Ok(bytes)
    }
}

/// The head of a request or an answer, and what was read behind it.
pub(crate) async fn head<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Ok((bytes, rest));
        }
        if bytes.len() > HEAD || from.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}
