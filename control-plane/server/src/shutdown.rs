//! The wish to stop, seen by everything that waits.

use tokio::sync::watch;

/// Says that the server stops.
#[derive(Debug)]
pub struct Stop(watch::Sender<bool>);

/// Hears that the server stops.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Both ends.
pub fn channel() -> (Stop, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stop(sender), Shutdown(receiver))
}

impl Stop {
    /// Stops.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns when the server stops; at once if it does already.
    pub async fn wait(&mut self) {
        // A sender that is gone means the same.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }

    /// Whether the server stops.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow()
    }
}
