//! The wish to stop, and the wish to read the keystore again, as whoever runs the gateway has them.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// Says what is wished.
#[derive(Clone, Debug)]
pub struct Wishes {
    stop: Arc<watch::Sender<bool>>,
    reload: Arc<Notify>,
}

/// Hears what is wished.
#[derive(Clone, Debug)]
pub struct Signals {
    stop: watch::Receiver<bool>,
    reload: Arc<Notify>,
}

/// Both ends.
pub fn channel() -> (Wishes, Signals) {
    let (sender, receiver) = watch::channel(false);
    let reload = Arc::new(Notify::new());
    (
        Wishes {
            stop: Arc::new(sender),
            reload: reload.clone(),
        },
        Signals {
            stop: receiver,
            reload,
        },
    )
}

impl Wishes {
    /// Drain and stop.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Read the keystore again.
    pub fn reload(&self) {
        self.reload.notify_one();
    }
}

impl Signals {
    /// Returns when the gateway shall stop; at once if it shall already.
    pub async fn stop(&mut self) {
        // A sender that is gone means the same.
        let _ = self.stop.wait_for(|stopped| *stopped).await;
    }

    /// Returns when the keystore shall be read again.
    pub async fn reload(&self) {
        self.reload.notified().await;
    }
}
