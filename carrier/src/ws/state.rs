//! Where a WebSocket stands between its first byte and its end, and the clocks that it watches meanwhile.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::closed::Closed;
use super::stream::Keepalive;

/// How long the other side may take to answer our Close.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// The keep-alive, and what was heard.
#[derive(Debug)]
pub(super) struct Beat {
    pub(super) keepalive: Keepalive,
    pub(super) last_heard: Instant,
    pub(super) pinged: Option<Instant>,
}

/// How the stream ended, for everybody who asks.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// Both sides said all.
    Clean,
    /// A Close with another code.
    Closed(Closed),
    /// It just stopped.
    Cut,
    /// Nothing came any more.
    Silent(Duration),
    /// The stream below failed.
    Failed(io::ErrorKind, String),
}

impl End {
    pub(super) fn failed(error: &io::Error) -> Self {
        Self::Failed(error.kind(), error.to_string())
    }

    pub(super) fn error(&self) -> io::Error {
        match self {
            Self::Clean => io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the WebSocket is closed: nothing more can be sent",
            ),
            Self::Closed(closed) => closed.error(),
            Self::Cut => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the WebSocket ended without a farewell",
            ),
            Self::Silent(time) => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the other side didn't answer a ping within {time:?}"),
            ),
            Self::Failed(kind, text) => io::Error::new(*kind, text.clone()),
        }
    }
}

/// Where it stands.
#[derive(Debug)]
pub(super) enum State {
    /// Bytes flow. With `farewell`, our own direction is over: until then the other side may answer.
    Open { farewell: Option<Instant> },
    /// This side closes the stream for a reason; what comes in is thrown away.
    Closing {
        end: End,
        until: Instant,
        flushed: bool,
        /// Whether frames can still be read; not after one that broke the rules.
        framed: bool,
        discarded: usize,
    },
    /// Nothing moves any more.
    Ended(End),
}

/// A time to be woken at.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Whether it is `when` already; otherwise `waker` will be told.
    pub(super) fn poll(&mut self, when: Instant, waker: &Waker) -> Poll<()> {
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if sleep.deadline() != when {
                    sleep.as_mut().reset(when);
                }
                sleep
            }
            None => self.sleep.insert(Box::pin(sleep_until(when))),
        };
        sleep.as_mut().poll(&mut Context::from_waker(waker))
    }
}
