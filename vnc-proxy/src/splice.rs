//! Moves bytes both ways until one side ends, a limit is reached, or somebody stops it. Half-close is passed on, backpressure reaches
//! the sender, and an idle session holds no buffer: one is shared by all sessions of a thread and borrowed only while bytes move.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use umbra_tls_stream::borrowed::{Shared, borrow};

use crate::inlet::Inlet;
use crate::input_filter::Violation;
use crate::outcome::StopCause;

/// How much is moved at a time: several full TLS records.
pub const BUFFER_LEN: usize = 64 * 1024;
/// How often one direction may go on before the other, and the timers, get their turn.
const TURNS: usize = 16;
/// How long a farewell may take on a side that doesn't read.
const FAREWELL: Duration = Duration::from_secs(2);

thread_local! {
    static BUFFER: Shared = const { Shared::new() };
}

/// How long a session may go on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long no byte may move in either direction.
    pub idle: Option<Duration>,
    /// How long the whole may last.
    pub total: Option<Duration>,
    /// How long the second side may stay silent once the first has closed.
    pub half_open: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle: None,
            total: None,
            half_open: Duration::from_secs(1),
        }
    }
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that looks: the viewer, or the connection toward it.
    Console,
    /// The side that shows: the VNC server, or the connection toward it.
    Device,
}

/// Why bytes stopped moving.
#[derive(Debug)]
pub enum SpliceEnd {
    /// This side closed in order, before the other.
    Closed(Side),
    /// The connection on this side broke.
    Lost(Side, io::Error),
    /// Nothing moved for the permitted time.
    IdleLimit,
    /// The permitted length was reached.
    TotalLimit,
    /// Somebody stopped it.
    Stopped(StopCause),
    /// The console's side sent what the input filter can't let through.
    Violation(Violation),
}

/// What was moved, and why it ended.
#[derive(Debug)]
pub struct Spliced {
    /// Why it ended.
    pub end: SpliceEnd,
    /// Bytes written to the device's side.
    pub to_device: u64,
    /// Bytes written to the console's side.
    pub to_console: u64,
}

/// Moves bytes until the end, then closes both sides in order. `greeting` goes to the console's side first; what comes from there
/// passes the inlet.
pub async fn splice<C, D>(
    console: &mut C,
    device: &mut D,
    mut inlet: Inlet,
    greeting: &[u8],
    limits: Limits,
    stop: impl Future<Output = StopCause>,
) -> Spliced
where
    C: AsyncRead + AsyncWrite + Unpin,
    D: AsyncRead + AsyncWrite + Unpin,
{
    let started = Instant::now();
    let mut stop = pin!(stop);
    let mut timer = Timer::new(started, limits);
    let mut to_device = Direction::new(Side::Console, &[]);
    let mut to_console = Direction::new(Side::Device, greeting);
    let mut first_closed = None;
    let end = poll_fn(|cx| {
        if let Poll::Ready(cause) = stop.as_mut().poll(cx) {
            return Poll::Ready(SpliceEnd::Stopped(cause));
        }
        let moved = to_device.moved + to_console.moved;
        let finished = borrow(&BUFFER, BUFFER_LEN, |buffer| -> Result<bool, SpliceEnd> {
            let up = to_device.poll(cx, console, device, Some(&mut inlet), buffer)?;
            let down = to_console.poll(cx, device, console, None, buffer)?;
            Ok(up.is_ready() && down.is_ready())
        });
        if first_closed.is_none() {
            first_closed = [&to_device, &to_console]
                .into_iter()
                .find(|way| way.ended)
                .map(|way| way.from);
        }
        match (finished, first_closed) {
            // What happens after the first farewell is its consequence: that side's end is the reason.
            (Err(SpliceEnd::Lost(..)), Some(side)) => return Poll::Ready(SpliceEnd::Closed(side)),
            (Err(end), _) => return Poll::Ready(end),
            (Ok(true), Some(side)) => return Poll::Ready(SpliceEnd::Closed(side)),
            (Ok(_), _) => {}
        }
        if to_device.moved + to_console.moved != moved {
            timer.bytes_moved();
        }
        timer.poll(cx, first_closed)
    })
    .await;
    // Each side is told, even if the other can't be; neither may hold the session up.
    let (_, _) = tokio::join!(
        timeout(FAREWELL, console.shutdown()),
        timeout(FAREWELL, device.shutdown())
    );
    Spliced {
        end,
        to_device: to_device.moved,
        to_console: to_console.moved,
    }
}

/// The three limits on one timer.
struct Timer {
    limits: Limits,
    total: Option<Instant>,
    last_moved: Instant,
    half_open_since: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    fn new(started: Instant, limits: Limits) -> Self {
        let total = limits.total.map(|total| started + total);
        let sleep = Box::pin(sleep_until(started));
        Self {
            limits,
            total,
            last_moved: started,
            half_open_since: None,
            sleep,
        }
    }

    fn bytes_moved(&mut self) {
        self.last_moved = Instant::now();
    }

    fn poll(&mut self, cx: &mut Context<'_>, first_closed: Option<Side>) -> Poll<SpliceEnd> {
        if first_closed.is_some() && self.half_open_since.is_none() {
            self.half_open_since = Some(Instant::now());
        }
        loop {
            let half_open = self
                .half_open_since
                .map(|since| since.max(self.last_moved) + self.limits.half_open);
            let idle = self.limits.idle.map(|idle| self.last_moved + idle);
            let Some(next) = [half_open, idle, self.total].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            // Only ever moved back when it has fired, so that moving bytes costs no timer operation.
            if self.sleep.deadline() > next || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(next);
            }
            ready!(self.sleep.as_mut().poll(cx));
            let due = |deadline: Option<Instant>| {
                deadline.is_some_and(|deadline| deadline <= Instant::now())
            };
            match first_closed {
                Some(side) if due(half_open) => return Poll::Ready(SpliceEnd::Closed(side)),
                Some(_) | None => {}
            }
            if due(self.total) {
                return Poll::Ready(SpliceEnd::TotalLimit);
            }
            if due(idle) {
                return Poll::Ready(SpliceEnd::IdleLimit);
            }
        }
    }
}

/// One way: what was read on one side and not yet written on the other.
struct Direction {
    from: Side,
    to: Side,
    pending: Vec<u8>,
    written: usize,
    moved: u64,
    unflushed: bool,
    ended: bool,
    passed_on: bool,
}

impl Direction {
    fn new(from: Side, pending: &[u8]) -> Self {
        let to = match from {
            Side::Console => Side::Device,
            Side::Device => Side::Console,
        };
        let pending = pending.to_vec();
        Self {
            from,
            to,
            pending,
            written: 0,
            moved: 0,
            unflushed: false,
            ended: false,
            passed_on: false,
        }
    }

    /// Ready once the reader has ended and the writer knows.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        mut inlet: Option<&mut Inlet>,
        buffer: &mut [u8],
    ) -> Result<Poll<()>, SpliceEnd>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.passed_on {
            return Ok(Poll::Ready(()));
        }
        for _ in 0..TURNS {
            if self.drain(cx, writer)?.is_pending() {
                return Ok(Poll::Pending);
            }
            if self.ended {
                let shut = Pin::new(&mut *writer)
                    .poll_shutdown(cx)
                    .map_err(|error| SpliceEnd::Lost(self.to, error))?;
                self.passed_on = shut.is_ready();
                return Ok(shut);
            }
            let mut read = ReadBuf::new(buffer);
            match Pin::new(&mut *reader).poll_read(cx, &mut read) {
                Poll::Pending => {
                    self.flush(cx, writer)?;
                    return Ok(Poll::Pending);
                }
                Poll::Ready(Err(error)) => return Err(SpliceEnd::Lost(self.from, error)),
                Poll::Ready(Ok(())) if read.filled().is_empty() => self.ended = true,
                Poll::Ready(Ok(())) => match inlet.as_deref_mut() {
                    Some(inlet) if !inlet.is_transparent() => {
                        inlet
                            .feed(read.filled(), &mut self.pending)
                            .map_err(SpliceEnd::Violation)?;
                    }
                    Some(_) | None => self.write_through(cx, writer, read.filled())?,
                },
            }
        }
        // Others' turn: the second direction, the timers, other sessions.
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    /// Writes straight from the shared buffer; keeps only what the writer doesn't take now.
    fn write_through<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        mut bytes: &[u8],
    ) -> Result<(), SpliceEnd> {
        while !bytes.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, bytes) {
                Poll::Ready(result) => bytes = &bytes[self.wrote(result)?..],
                Poll::Pending => {
                    self.pending.extend_from_slice(bytes);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn drain<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Result<Poll<()>, SpliceEnd> {
        while self.written < self.pending.len() {
            match Pin::new(&mut *writer).poll_write(cx, &self.pending[self.written..]) {
                Poll::Ready(result) => self.written += self.wrote(result)?,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        if !self.pending.is_empty() {
            self.pending = Vec::new();
            self.written = 0;
        }
        Ok(Poll::Ready(()))
    }

    fn wrote(&mut self, result: io::Result<usize>) -> Result<usize, SpliceEnd> {
        match result {
            Ok(0) => Err(SpliceEnd::Lost(self.to, io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                self.moved += count as u64;
                self.unflushed = true;
                Ok(count)
            }
            Err(error) => Err(SpliceEnd::Lost(self.to, error)),
        }
    }

    fn flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Result<(), SpliceEnd> {
        if self.unflushed {
            let flushed = Pin::new(writer)
                .poll_flush(cx)
                .map_err(|error| SpliceEnd::Lost(self.to, error))?;
            self.unflushed = flushed.is_pending();
        }
        Ok(())
    }
}
