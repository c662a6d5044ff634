//! Takes a new certificate, key or list of servers over when a signal says so or a file changed. One that can't work is
//! refused with the reason, and the old one stays.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::config::Keystore;
use crate::gateway::Gateway;
use crate::keystore::Keys;
use crate::shutdown::Signals;

/// What tells two states of a file apart: time, fraction, size, place on the disk.
type Stamp = Option<(i64, i64, u64, u64)>;

/// The state of a keystore's files.
pub(crate) type Stamps = [Stamp; 3];

/// Watches the files until the gateway stops. `taken` is their state from before they were read.
pub(crate) async fn watch(
    gateway: Arc<Gateway>,
    files: Keystore,
    mut taken: Stamps,
    mut signals: Signals,
) {
    let mut seen = taken;
    let reload = signals.clone();
    loop {
        let asked = tokio::select! {
            () = signals.stop() => return,
            () = reload.reload() => true,
            () = tokio::time::sleep(gateway.timing.reload) => false,
        };
        let now = stamps_later(&files).await;
        // The files are replaced one after the other: wait until they stay as they are.
        let settled = now == std::mem::replace(&mut seen, now);
        if asked || (settled && now != taken) {
            taken = now;
            take_over(&gateway, &files).await;
        }
    }
}

async fn take_over(gateway: &Gateway, files: &Keystore) {
    let files = files.clone();
    let loaded = tokio::task::spawn_blocking(move || Keys::load(&files)).await;
    match loaded {
        Ok(Ok(keys)) => {
            for warning in &keys.warnings {
                tracing::warn!("{warning}");
            }
            gateway.take_over(&keys);
            gateway.metrics.reloads.one();
            tracing::info!(servers = keys.servers.len(), "the keystore was taken over");
        }
        Ok(Err(error)) => {
            gateway.metrics.reloads_refused.one();
            tracing::error!("{error}\nThe certificate, key and servers in use stay in use.");
        }
        Err(error) => tracing::error!(%error, "the keystore could not be read"),
    }
}

async fn stamps_later(files: &Keystore) -> Stamps {
    let files = files.clone();
    tokio::task::spawn_blocking(move || stamps(&files))
        .await
        .unwrap_or_default()
}

/// The state of the files.
pub(crate) fn stamps(files: &Keystore) -> Stamps {
    [&files.chain, &files.key, &files.servers].map(|path| stamp(path))
}

fn stamp(path: &Path) -> Stamp {
    let facts = std::fs::metadata(path).ok()?;
    Some((facts.mtime(), facts.mtime_nsec(), facts.len(), facts.ino()))
}
