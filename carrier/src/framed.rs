//! Frames on a byte stream: a length of four bytes, big-endian, then that many bytes. The reader never allocates what a
//! peer has only announced, and never loses bytes when a read is given up half-way.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most that the buffer grows ahead of the bytes that have arrived.
const GROWTH: usize = 16 * 1024;

/// Why frames can no longer be read from or written to a stream.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The header announces more than the caller allows.
    #[error("the other side announced a message of {announced} bytes, and {max} are allowed")]
    TooLarge {
        /// What the header says.
        announced: u64,
        /// What was allowed.
        max: usize,
    },
    /// The stream ended where a frame was not complete, or without the orderly end that TLS demands.
    #[error("the connection ended in the middle of a message")]
    CutOff,
    /// An earlier `send` was given up half-way; what follows would be read as part of that frame.
    #[error("an earlier message was sent only in part, so this connection can't be used any more")]
    Unfinished,
    /// The stream failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        // TLS reports a connection that ends without its farewell in this way: never an orderly end.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::CutOff
        } else {
            Self::Io(error)
        }
    }
}

/// Reads frames. What has arrived of an unfinished frame lives in here.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    header: [u8; 4],
    header_filled: usize,
    body: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader at the beginning of a frame.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            header: [0; 4],
            header_filled: 0,
            body: Vec::new(),
        }
    }

    /// The next frame, of at most `max` bytes; `None` once the stream has ended in order between two frames.
    ///
    /// Cancel-safe: a call that is dropped loses nothing, the next one goes on where it stopped. After an error, every
    /// further call fails too.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] as soon as the header is there; [`FrameError::CutOff`]; [`FrameError::Io`].
    pub async fn next(&mut self, max: usize) -> Result<Option<Vec<u8>>, FrameError> {
        while self.header_filled < self.header.len() {
            let read = self
                .stream
                .read(&mut self.header[self.header_filled..])
                .await?;
            if read == 0 {
                return if self.header_filled == 0 {
                    Ok(None)
                } else {
                    Err(FrameError::CutOff)
                };
            }
            self.header_filled += read;
        }
        let announced = u32::from_be_bytes(self.header);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if length > max {
            return Err(FrameError::TooLarge {
                announced: u64::from(announced),
                max,
            });
        }
        while self.body.len() < length {
            let missing = length - self.body.len();
            if self.body.capacity() == self.body.len() {
                self.body.reserve(missing.min(GROWTH));
            }
            let limit = u64::try_from(missing).unwrap_or(u64::MAX);
            let read = (&mut self.stream)
                .take(limit)
                .read_buf(&mut self.body)
                .await?;
            if read == 0 {
                return Err(FrameError::CutOff);
            }
        }
        self.header_filled = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    /// Whether a part of a frame has arrived.
    pub fn is_midway(&self) -> bool {
        self.header_filled > 0
    }

    /// The stream below. Bytes of an unfinished frame are lost; the reader never reads past the frame at hand.
    pub fn into_inner(self) -> R {
        self.stream
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    midway: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer at the beginning of a frame.
    pub fn new(stream: W) -> Self {
        Self {
            stream,
            midway: false,
        }
    }

    /// Sends one frame: header and bytes in one write, then a flush.
    ///
    /// Not cancel-safe, but safe to cancel: every later `send` then fails with [`FrameError::Unfinished`] instead of
    /// writing into the middle of a frame.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] for what no header can announce, [`FrameError::Unfinished`], [`FrameError::Io`].
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        if self.midway {
            return Err(FrameError::Unfinished);
        }
        let Ok(length) = u32::try_from(bytes.len()) else {
            let announced = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            return Err(FrameError::TooLarge {
                announced,
                max: usize::try_from(u32::MAX).unwrap_or(usize::MAX),
            });
        };
        let mut frame = Vec::with_capacity(4 + bytes.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(bytes);
        self.midway = true;
        self.stream
            .write_all(&frame)
            .await
            .map_err(FrameError::Io)?;
        self.stream.flush().await.map_err(FrameError::Io)?;
        self.midway = false;
        Ok(())
    }

    /// Ends the stream in order: the other side's reader sees `None` (over TLS: the farewell is sent).
    ///
    /// # Errors
    /// [`FrameError::Io`].
    pub async fn close(&mut self) -> Result<(), FrameError> {
        self.stream.shutdown().await.map_err(FrameError::Io)
    }

    /// The stream below.
    pub fn into_inner(self) -> W {
        self.stream
    }
}
