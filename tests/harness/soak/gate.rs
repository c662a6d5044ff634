//! Lets those who work on, holds them when memory is looked at, and sends them home at the end.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::watch;

use crate::eventually::{NotReached, eventually_is};

/// What workers are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Work,
    Wait,
    Home,
}

/// The gate that all workers pass before each piece of work.
pub(super) struct Gate {
    sign: watch::Sender<Sign>,
    workers: Cell<usize>,
    waiting: Cell<usize>,
}

/// The longest piece of work.
const LIMIT: Duration = Duration::from_secs(150);

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            sign: watch::Sender::new(Sign::Work),
            workers: Cell::new(0),
            waiting: Cell::new(0),
        }
    }

    /// Somebody who will come to this gate again and again until it sends them home.
    pub(super) fn worker(&self) -> Worker<'_> {
        self.workers.set(self.workers.get() + 1);
        Worker {
            gate: self,
            sign: self.sign.subscribe(),
        }
    }

    /// Holds all workers, and returns when each has come to the gate.
    pub(super) async fn hold(&self) -> Result<(), NotReached> {
        self.sign.send_replace(Sign::Wait);
        let all = || match (self.waiting.get(), self.workers.get()) {
            (waiting, workers) if waiting == workers => Ok(()),
            state => Err(state),
        };
        eventually_is("all workers to pause", LIMIT, all).await
    }

    /// Lets them work.
    pub(super) fn open(&self) {
        self.sign.send_replace(Sign::Work);
    }

    /// Sends them home, each after the piece of work that it is at.
    pub(super) fn close(&self) {
        self.sign.send_replace(Sign::Home);
    }
}

/// Somebody who works.
pub(super) struct Worker<'g> {
    gate: &'g Gate,
    sign: watch::Receiver<Sign>,
}

impl Worker<'_> {
    /// Waits before the gate for at least this long; whether there is more work to do.
    pub(super) async fn next(&mut self, pause: Duration) -> bool {
        let waiting = |more: isize| {
            let now = self.gate.waiting.get();
            self.gate.waiting.set(now.saturating_add_signed(more));
        };
        waiting(1);
        // The rhythm of the work; whoever is sent home goes at once.
        let home = async {
            // The gate outlives its workers.
            let _ = self.sign.wait_for(|sign| *sign == Sign::Home).await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = home => {}
        }
        let sign = self.sign.wait_for(|sign| *sign != Sign::Wait).await;
        let work = sign.is_ok_and(|sign| *sign == Sign::Work);
        let now = self.gate.waiting.get();
        self.gate.waiting.set(now.saturating_sub(1));
        work
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.gate
            .workers
            .set(self.gate.workers.get().saturating_sub(1));
    }
}
