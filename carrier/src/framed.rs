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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::io::{ReadBuf, duplex};
    use tokio::time::timeout;

    use super::*;

    /// The end of patience.
    const LIMIT: Duration = Duration::from_secs(10);

    /// Gives out its bytes one per read, with a pause before each.
    struct Dripping {
        bytes: Vec<u8>,
        next: usize,
        ready: bool,
    }

    impl AsyncRead for Dripping {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.ready = !self.ready;
            if self.ready {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(&byte) = self.bytes.get(self.next) {
                buffer.put_slice(&[byte]);
                self.next += 1;
            }
            Poll::Ready(Ok(()))
        }
    }

    fn dripping(bytes: &[u8]) -> FrameReader<Dripping> {
        FrameReader::new(Dripping {
            bytes: bytes.to_vec(),
            next: 0,
            ready: false,
        })
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
    }

    #[tokio::test]
    async fn frames_arrive_whole_from_single_bytes() {
        let large: Vec<u8> = (0..40_000_u32).flat_map(u32::to_be_bytes).collect();
        let bytes = [frame(b"one"), frame(b""), frame(&large)].concat();
        let mut reader = dripping(&bytes);
        assert_eq!(
            reader.next(large.len()).await.unwrap().as_deref(),
            Some(&b"one"[..])
        );
        assert_eq!(
            reader.next(large.len()).await.unwrap().as_deref(),
            Some(&b""[..])
        );
        assert!(reader.next(large.len()).await.unwrap().unwrap() == large);
        assert_eq!(reader.next(large.len()).await.unwrap(), None);
        assert_eq!(reader.next(large.len()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_anywhere_loses_nothing() {
        let bytes = [frame(b"first"), frame(b"second")].concat();
        let mut reader = dripping(&bytes);
        let mut frames = Vec::new();
        let mut given_up = 0;
        loop {
            // Polled once, then dropped: the hardest way to cancel.
            let once = std::future::poll_fn(|context| {
                let mut next = std::pin::pin!(reader.next(100));
                Poll::Ready(next.as_mut().poll(context))
            });
            match once.await {
                Poll::Pending => given_up += 1,
                Poll::Ready(Ok(Some(frame))) => frames.push(frame),
                Poll::Ready(Ok(None)) => break,
                Poll::Ready(Err(error)) => panic!("{error:?}"),
            }
        }
        assert_eq!(frames, [b"first".to_vec(), b"second".to_vec()]);
        assert_eq!(given_up, bytes.len() + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_length_is_refused_from_the_header_alone() {
        for (announced, max) in [(11, 10), (u32::MAX, 65_536), (1, 0)] {
            let (mut near, far) = duplex(64);
            near.write_all(&announced.to_be_bytes()).await.unwrap();
            let mut reader = FrameReader::new(far);
            // The stream stays open: a reader that waits for the body runs into the limit (of simulated time).
            for _ in 0..2 {
                let error = timeout(LIMIT, reader.next(max))
                    .await
                    .expect("an answer")
                    .expect_err("too large");
                let FrameError::TooLarge {
                    announced: told,
                    max: limit,
                } = error
                else {
                    panic!("{error:?}")
                };
                assert_eq!((told, limit), (u64::from(announced), max));
            }
            assert_eq!(reader.body.capacity(), 0);
            drop(near);
        }
    }

    #[tokio::test]
    async fn the_largest_allowed_frame_passes() {
        let mut reader = dripping(&frame(&[7; 10]));
        assert_eq!(reader.next(10).await.unwrap(), Some(vec![7; 10]));
    }

    #[tokio::test]
    async fn an_announced_length_allocates_nothing_before_its_bytes_arrive() {
        let (mut near, far) = duplex(64 * 1024);
        let mut reader = FrameReader::new(far);
        near.write_all(&1_000_000_000_u32.to_be_bytes())
            .await
            .unwrap();
        let mut arrived = 0;
        for _ in 0..20 {
            near.write_all(&[1; 10_000]).await.unwrap();
            arrived += 10_000;
            let mut next = Box::pin(reader.next(usize::MAX));
            let polled =
                std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
            assert!(polled.is_pending());
            drop(next);
            assert_eq!(reader.body.len(), arrived);
            assert!(
                reader.body.capacity() <= 2 * arrived + 2 * GROWTH,
                "{}",
                reader.body.capacity()
            );
        }
    }

    #[tokio::test]
    async fn an_end_within_a_frame_is_told_from_one_between_frames() {
        let bytes = frame(b"four");
        for length in 1..bytes.len() {
            let mut reader = dripping(&bytes[..length]);
            for _ in 0..2 {
                let error = reader.next(100).await.expect_err("cut off");
                assert!(matches!(error, FrameError::CutOff), "{length}: {error:?}");
            }
            assert!(reader.is_midway());
        }
        assert_eq!(dripping(&[]).next(100).await.unwrap(), None);
    }

    #[tokio::test]
    async fn bytes_behind_a_frame_stay_in_the_stream() {
        let (mut near, far) = duplex(64);
        near.write_all(&[frame(b"last"), b"other".to_vec()].concat())
            .await
            .unwrap();
        drop(near);
        let mut reader = FrameReader::new(far);
        reader.next(100).await.unwrap();
        assert!(!reader.is_midway());
        let mut rest = Vec::new();
        reader.into_inner().read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"other");
    }

    #[tokio::test]
    async fn what_is_sent_is_what_is_read() {
        let (near, far) = duplex(16);
        let send = async {
            let mut writer = FrameWriter::new(near);
            writer.send(b"hello").await.unwrap();
            writer.send(b"").await.unwrap();
            writer.send(&[9; 1000]).await.unwrap();
            writer.close().await.unwrap();
            writer
        };
        let read = async {
            let mut reader = FrameReader::new(far);
            let mut frames = Vec::new();
            while let Some(frame) = reader.next(1000).await.unwrap() {
                frames.push(frame);
            }
            frames
        };
        let (_writer, frames) = tokio::join!(send, read);
        assert_eq!(frames, [b"hello".to_vec(), Vec::new(), vec![9; 1000]]);
    }

    #[tokio::test]
    async fn after_a_send_that_was_given_up_nothing_more_is_sent() {
        let (near, mut far) = duplex(8);
        let mut writer = FrameWriter::new(near);
        {
            let mut send = Box::pin(writer.send(b"longer than the pipe"));
            let polled =
                std::future::poll_fn(|context| Poll::Ready(send.as_mut().poll(context))).await;
            assert!(polled.is_pending());
        }
        let mut begun = [0; 8];
        far.read_exact(&mut begun).await.unwrap();
        let error = writer
            .send(b"next")
            .await
            .expect_err("the frame before is unfinished");
        assert!(matches!(error, FrameError::Unfinished), "{error:?}");
        drop(writer);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }

    #[tokio::test]
    async fn a_stream_that_fails_is_told() {
        let (near, far) = duplex(8);
        drop(far);
        let error = FrameWriter::new(near)
            .send(b"hello")
            .await
            .expect_err("nobody is there");
        assert!(matches!(error, FrameError::Io(_)), "{error:?}");
    }
}
