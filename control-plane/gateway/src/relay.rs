//! Moves bytes between two ends that it does not understand. Buffers are bounded, a side that does not read slows the
//! other one down and nobody else.

use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, split};
use tokio::time::{Instant, sleep_until};

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The first one.
    A,
    /// The second one.
    B,
}

/// Why nothing moves any more.
#[derive(Debug)]
pub(crate) enum RelayEnd {
    /// This end closed in order; all that it sent has reached the other one, which was not told of the end.
    Closed(End),
    /// This end failed.
    Failed(End),
    /// Nothing moved for too long.
    Idle,
}

/// How bytes are moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes in each direction that are on the way in here at most.
    pub(crate) buffer: usize,
    /// How long nothing may move.
    pub(crate) idle: Option<Duration>,
}

/// Moves bytes until one end closes or fails. `moved` is told of all that was delivered to an end.
pub(crate) async fn relay<A, B>(
    a: &mut A,
    b: &mut B,
    limits: Limits,
    moved: &(impl Fn(End, usize) + Sync),
) -> RelayEnd
where
    A: AsyncRead + AsyncWrite + Unpin + Send,
    B: AsyncRead + AsyncWrite + Unpin + Send,
{
    let start = Instant::now();
    let last = AtomicU64::new(0);
    let delivered = |to: End, bytes: usize| {
        let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        last.store(elapsed, Ordering::Relaxed);
        moved(to, bytes);
    };
    let (mut a_reader, mut a_writer) = split(a);
    let (mut b_reader, mut b_writer) = split(b);
    {
        let to_b = copy(&mut a_reader, &mut b_writer, limits.buffer, |bytes| {
            delivered(End::B, bytes);
        });
        let to_a = copy(&mut b_reader, &mut a_writer, limits.buffer, |bytes| {
            delivered(End::A, bytes);
        });
        let idle = async {
            let Some(limit) = limits.idle else {
                return std::future::pending().await;
            };
            loop {
                let until = start + Duration::from_millis(last.load(Ordering::Relaxed)) + limit;
                if until <= Instant::now() {
                    return;
                }
                sleep_until(until).await;
            }
        };
        tokio::select! {
            end = to_b => end.told(End::A, End::B),
            end = to_a => end.told(End::B, End::A),
            () = idle => RelayEnd::Idle,
        }
    }
}

/// Reads into a buffer that is only there once bytes are: who waits holds none.
async fn read<R>(reader: &mut R, size: usize) -> io::Result<(Buffer, usize)>
where
    R: AsyncRead + Unpin,
{
    std::future::poll_fn(|context| {
        let mut buffer = Buffer::take(size);
        let mut filled = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut *reader).poll_read(context, &mut filled))?;
        let length = filled.filled().len();
        Poll::Ready(Ok((buffer, length)))
    })
    .await
}

thread_local! {
    /// Buffers that nobody needs at the moment.
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that are kept for whoever comes next, of each thread.
const SPARE_MAX: usize = 8;

/// A buffer that others use afterwards. What was in it was on its way through here, encrypted between its ends.
struct Buffer(Box<[u8]>);

impl Buffer {
    fn take(size: usize) -> Self {
        let spare = SPARE.with_borrow_mut(|spare| {
            let place = spare.iter().position(|buffer| buffer.len() == size)?;
            Some(spare.swap_remove(place))
        });
        Self(spare.unwrap_or_else(|| vec![0; size].into()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that ends has given its own back already.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(buffer);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

enum CopyEnd {
    Closed,
    ReadFailed,
    WriteFailed,
}

impl CopyEnd {
    fn told(self, from: End, to: End) -> RelayEnd {
        match self {
            Self::Closed => RelayEnd::Closed(from),
            Self::ReadFailed => RelayEnd::Failed(from),
            Self::WriteFailed => RelayEnd::Failed(to),
        }
    }
}

async fn copy<R, W>(reader: &mut R, writer: &mut W, buffer: usize, moved: impl Fn(usize)) -> CopyEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let (buffer, length) = match read(reader, buffer).await {
            Ok((_, 0)) => return CopyEnd::Closed,
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(%error, "an end of a relay failed");
                return CopyEnd::ReadFailed;
            }
        };
        let delivered = async {
            writer.write_all(&buffer[..length]).await?;
            drop(buffer);
            writer.flush().await
        };
        if let Err(error) = delivered.await {
            tracing::debug!(%error, "an end of a relay failed");
            return CopyEnd::WriteFailed;
        }
        moved(length);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio::time::timeout;

    const LIMITS: Limits = Limits {
        buffer: 1_024,
        idle: Some(Duration::from_secs(60)),
    };

    fn relayed(
        limits: Limits,
    ) -> (
        DuplexStream,
        DuplexStream,
        tokio::task::JoinHandle<(RelayEnd, u64, u64)>,
    ) {
        let (near_a, mut a) = duplex(1_024);
        let (near_b, mut b) = duplex(1_024);
        let task = tokio::spawn(async move {
            let (to_a, to_b) = (AtomicU64::new(0), AtomicU64::new(0));
            let end = relay(&mut a, &mut b, limits, &|to, bytes| {
                let counter = match to {
                    End::A => &to_a,
                    End::B => &to_b,
                };
                counter.fetch_add(u64::try_from(bytes).unwrap(), Ordering::Relaxed);
            })
            .await;
            (end, to_a.into_inner(), to_b.into_inner())
        });
        (near_a, near_b, task)
    }

    #[tokio::test]
    async fn both_directions_arrive_whole_and_are_counted() {
        let (mut a, mut b, task) = relayed(LIMITS);
        let sent: Vec<u8> = (0..50_000_u32).flat_map(u32::to_be_bytes).collect();
        let there = async {
            a.write_all(&sent).await.unwrap();
            let mut answer = [0; 3];
            a.read_exact(&mut answer).await.unwrap();
            a.shutdown().await.unwrap();
            answer
        };
        let back = async {
            let mut received = vec![0; sent.len()];
            b.read_exact(&mut received).await.unwrap();
            b.write_all(b"yes").await.unwrap();
            received
        };
        let (answer, received) = tokio::join!(there, back);
        assert!(received == sent);
        assert_eq!(&answer, b"yes");
        let (end, to_a, to_b) = task.await.unwrap();
        assert!(matches!(end, RelayEnd::Closed(End::A)), "{end:?}");
        assert_eq!((to_a, to_b), (3, 200_000));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_ends_are_parted_and_busy_ones_are_not() {
        let (mut a, mut b, task) = relayed(LIMITS);
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            b.write_all(b"x").await.unwrap();
            a.read_u8().await.unwrap();
        }
        assert!(!task.is_finished());
        let (end, ..) = task.await.unwrap();
        assert!(matches!(end, RelayEnd::Idle), "{end:?}");
    }

    #[tokio::test]
    async fn ends_that_wait_hold_no_buffers_and_share_those_of_others() {
        let mut ends = Vec::new();
        for _ in 0..50 {
            let (mut a, mut b, task) = relayed(LIMITS);
            a.write_all(b"hello").await.unwrap();
            b.read_exact(&mut [0; 5]).await.unwrap();
            b.write_all(b"yes").await.unwrap();
            a.read_exact(&mut [0; 3]).await.unwrap();
            ends.push((a, b, task));
        }
        // All tasks run on this thread: what one of them held would not be here.
        let spare = SPARE.with_borrow(Vec::len);
        assert!((1..=2).contains(&spare), "{spare} buffers for 50 relays");
        for _ in 0..3 {
            let many: Vec<Buffer> = (0..20).map(|_| Buffer::take(LIMITS.buffer)).collect();
            drop(many);
            assert_eq!(SPARE.with_borrow(Vec::len), SPARE_MAX);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_does_not_read_stops_the_sender_after_a_few_buffers() {
        let (mut a, b, _task) = relayed(LIMITS);
        let mut written = 0_usize;
        while let Ok(length) = timeout(Duration::from_secs(1), a.write(&[0; 512])).await {
            written += length.unwrap();
            assert!(written < 100_000);
        }
        assert!(written <= 4 * 1_024, "{written}");
        drop(b);
    }
}
