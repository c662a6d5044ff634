//! Whatever bytes arrive, in whatever pieces, and whichever reads are given up: the reader yields the frames that a plain
//! reading of the same bytes yields. The first byte chooses the limit, the second the size of the pieces.
#![no_main]

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};
use umbra_carrier::framed::{FrameError, FrameReader};

struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
    pause: bool,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.pause = !self.pause;
        if self.pause {
            return Poll::Pending;
        }
        let count = self.size.min(self.bytes.len()).min(buffer.remaining());
        let (now, later) = self.bytes.split_at(count);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, PartialEq)]
enum End {
    Orderly,
    CutOff,
    TooLarge,
}

/// What the bytes mean, read all at once.
fn plainly(mut bytes: &[u8], max: usize) -> (Vec<&[u8]>, End) {
    let mut frames = Vec::new();
    loop {
        if bytes.is_empty() {
            return (frames, End::Orderly);
        }
        let Some((header, rest)) = bytes.split_first_chunk::<4>() else { return (frames, End::CutOff) };
        let length = u32::from_be_bytes(*header) as usize;
        if length > max {
            return (frames, End::TooLarge);
        }
        if rest.len() < length {
            return (frames, End::CutOff);
        }
        let (frame, rest) = rest.split_at(length);
        frames.push(frame);
        bytes = rest;
    }
}

fuzz_target!(|data: &[u8]| {
    let [limit, size, bytes @ ..] = data else { return };
    let max = usize::from(*limit) * 64;
    let (frames, end) = plainly(bytes, max);
    let mut reader = FrameReader::new(Pieces { bytes, size: usize::from(*size) + 1, pause: false });
    let mut context = Context::from_waker(Waker::noop());
    let mut read = Vec::new();
    loop {
        // Every pending read is dropped and begun anew.
        let polled = pin!(reader.next(max)).poll(&mut context);
        let found = match polled {
            Poll::Pending => continue,
            Poll::Ready(Ok(Some(frame))) => {
                read.push(frame);
                continue;
            }
            Poll::Ready(Ok(None)) => End::Orderly,
            Poll::Ready(Err(FrameError::CutOff)) => End::CutOff,
            Poll::Ready(Err(FrameError::TooLarge { .. })) => End::TooLarge,
            Poll::Ready(Err(error @ (FrameError::Unfinished | FrameError::Io(_)))) => panic!("{error}"),
        };
        assert_eq!(found, end);
        assert_eq!(read, frames);
        return;
    }
});
