//! The service manager: ready, one line of status, a sign of life. Where none listens, nothing happens.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

use super::pulse::Pulse;
use crate::status::{Board, Stage};

/// Where no watchdog is configured, this is how often nothing happens.
const IDLE: Duration = Duration::from_secs(3_600);

/// Tells the service manager what the board says, until shutdown resolves.
pub(super) async fn tell(board: Board, pulse: Pulse, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    // Twice per deadline, as the service manager's manual wants it.
    let sign_of_life = sd_notify::watchdog_enabled().map_or(IDLE, |deadline| deadline / 2);
    let mut signs = tokio::time::interval(sign_of_life.max(Duration::from_millis(100)));
    let mut status = board.subscribe();
    notify(&[NotifyState::Ready]);
    loop {
        let now = status.borrow_and_update().clone();
        let line = now.sentence();
        if now.stage == Stage::Stopping {
            notify(&[NotifyState::Stopping, NotifyState::Status(&line)]);
        } else {
            notify(&[NotifyState::Status(&line)]);
        }
        tokio::select! {
            () = &mut shutdown => return,
            _ = signs.tick() => notify(&[NotifyState::Watchdog]),
            () = pulse.next() => {
                signs.reset();
                notify(&[NotifyState::Watchdog]);
            }
            Ok(()) = status.changed() => {}
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager can't be told");
    }
}
