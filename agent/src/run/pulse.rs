//! The moments at which the device is awake anyway, mostly for a heartbeat of its server: what has to be done now and then is done
//! then, so that an idle device isn't woken for it.

use std::sync::Arc;

use tokio::sync::Notify;

/// Clones are one pulse.
#[derive(Clone, Default)]
pub(super) struct Pulse(Arc<Notify>);

impl Pulse {
    /// The device is awake.
    pub(super) fn beat(&self) {
        self.0.notify_waiters();
    }

    /// Returns when it is awake next; without a server, never.
    pub(super) async fn next(&self) {
        self.0.notified().await;
    }
}
