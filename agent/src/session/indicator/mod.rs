//! What tells the person at the device that somebody sees the screen: a program of the device maker's, which runs while a session is
//! visible and may end sessions in the person's name. No session waits for it unless the device is set so.

mod driver;
pub mod machine;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use umbra_protocol::RefusalCode;

pub(super) use driver::drive;
use machine::Shown;

use super::machine::Turned;
use crate::clock::Clock;
use crate::status::{Session, SessionStage};

/// How long the program may take to be started.
const START: Duration = Duration::from_secs(5);
/// A program that ends sooner than this has not shown anything.
const HOLDS: Duration = Duration::from_millis(500);

/// How the program is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Off,
    Running,
    Failed,
}

/// What the program is to show, and how it is. Clones are one.
#[derive(Clone, Debug)]
pub(super) struct Indicator {
    sessions: Arc<watch::Sender<Vec<Shown>>>,
    awaited: Arc<watch::Sender<usize>>,
    standing: Arc<watch::Sender<Standing>>,
}

impl Indicator {
    pub(super) fn new() -> Self {
        Self {
            sessions: Arc::new(watch::Sender::new(Vec::new())),
            awaited: Arc::new(watch::Sender::new(0)),
            standing: Arc::new(watch::Sender::new(Standing::Off)),
        }
    }

    /// All sessions, of which those are shown that are visible.
    pub(super) fn sees(&self, sessions: &[Session]) {
        let now = Clock::system().now();
        let shown = sessions
            .iter()
            .filter(|session| session.stage == SessionStage::Running)
            .map(|session| Shown {
                id: session.session,
                operator: session.operator.clone(),
                reason: session.reason.clone(),
                since: now.saturating_sub_unsigned(session.since.seconds_ago()),
            })
            .collect::<Vec<_>>();
        self.sessions.send_if_modified(|present| {
            let same = present
                .iter()
                .map(|shown| shown.id)
                .eq(shown.iter().map(|shown| shown.id));
            if !same {
                *present = shown;
            }
            !same
        });
    }

    /// Somebody waits for the program from now on.
    pub(super) fn await_it(&self) -> Awaited {
        self.awaited.send_modify(|count| *count += 1);
        Awaited {
            indicator: self.clone(),
        }
    }
}

/// Somebody who waits for the program, which runs at least as long as this lives.
#[derive(Debug)]
pub(super) struct Awaited {
    indicator: Indicator,
}

impl Awaited {
    /// Resolves when the program runs and has not ended at once.
    pub(super) async fn running(self) -> Result<Self, Turned> {
        let mut standing = self.indicator.standing.subscribe();
        let settled = async {
            // A failure of before is none of ours, unless the program is not even tried again within our time.
            let started = timeout(START, standing.wait_for(|s| *s == Standing::Running))
                .await
                .is_ok_and(|found| found.is_ok());
            if !started {
                return false;
            }
            timeout(HOLDS, standing.wait_for(|s| *s != Standing::Running))
                .await
                .is_err()
        };
        if settled.await {
            return Ok(self);
        }
        Err(Turned::new(
            RefusalCode::IndicatorUnavailable,
            "The device must show the person who sees the screen, and the program that does is not running. The device's \
             status says more.",
        ))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.indicator.awaited.send_modify(|count| *count -= 1);
    }
}
