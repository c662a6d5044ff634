//! Admission of strangers. Whoever hasn't authenticated yet holds one of a few places; when all are taken, the one who has been
//! dawdling longest is told to go, so that no number of silent connections keeps an honest one out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Bounds how many callers may be unauthenticated at a time. Clones share the places.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Arc<Mutex<Places>>,
}

#[derive(Debug)]
struct Places {
    max: usize,
    next: u64,
    pending: VecDeque<Place>,
}

#[derive(Debug)]
struct Place {
    number: u64,
    source: Option<IpAddr>,
    revoke: watch::Sender<bool>,
}

impl Gate {
    /// A gate with this many places, one at least.
    pub fn new(max_pending: usize) -> Self {
        let places = Places {
            max: max_pending.max(1),
            next: 0,
            pending: VecDeque::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(places)),
        }
    }

    /// Lets a caller in; when the places are taken, the oldest pending caller is told to give up.
    pub fn admit(&self) -> PendingGuard {
        self.enter(None)
    }

    /// The same, but the one to go is the oldest of whichever source holds most places: a flood from one address evicts itself
    /// before it evicts others.
    pub fn admit_from(&self, source: IpAddr) -> PendingGuard {
        self.enter(Some(source))
    }

    /// How many callers are pending.
    pub fn pending(&self) -> usize {
        self.places().pending.len()
    }

    fn enter(&self, source: Option<IpAddr>) -> PendingGuard {
        let mut places = self.places();
        while places.pending.len() >= places.max {
            let Some(place) = places
                .victim()
                .and_then(|index| places.pending.remove(index))
            else {
                break;
            };
            place.revoke.send_replace(true);
        }
        let (revoke, revoked) = watch::channel(false);
        let number = places.next;
        places.next += 1;
        places.pending.push_back(Place {
            number,
            source,
            revoke,
        });
        drop(places);
        PendingGuard {
            gate: self.clone(),
            number,
            revoked,
        }
    }

    fn leave(&self, number: u64) {
        self.places().pending.retain(|place| place.number != number);
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing between lock and unlock can leave the list half changed.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// The oldest caller of the source that holds most places.
    fn victim(&self) -> Option<usize> {
        let held = |source: &Option<IpAddr>| {
            self.pending
                .iter()
                .filter(|place| place.source == *source)
                .count()
        };
        let most = self.pending.iter().map(|place| held(&place.source)).max()?;
        self.pending
            .iter()
            .position(|place| held(&place.source) == most)
    }
}

/// A place at the gate, given back when dropped.
#[derive(Debug)]
pub struct PendingGuard {
    gate: Gate,
    number: u64,
    revoked: watch::Receiver<bool>,
}

impl PendingGuard {
    /// Resolves when this caller has to give up. Once resolved it stays so.
    pub async fn revoked(&self) {
        let mut revoked = self.revoked.clone();
        if revoked.wait_for(|revoked| *revoked).await.is_err() {
            // The place is gone without having been revoked: there is nothing to give up.
            std::future::pending::<()>().await;
        }
    }

    /// Gives the place back: this caller is no stranger any more.
    pub fn authenticated(self) {
        drop(self);
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.gate.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn is_revoked(guard: &PendingGuard) -> bool {
        *guard.revoked.borrow()
    }

    #[tokio::test]
    async fn the_oldest_caller_makes_room_for_the_newest() {
        let gate = Gate::new(2);
        let (first, second) = (gate.admit(), gate.admit());
        assert!(!is_revoked(&first));
        let third = gate.admit();
        assert!(is_revoked(&first));
        first.revoked().await;
        first.revoked().await;
        assert!(!is_revoked(&second) && !is_revoked(&third));
        assert_eq!(gate.pending(), 2);
    }

    #[test]
    fn two_hundred_silent_connections_never_lock_a_healthy_one_out() {
        let gate = Gate::new(16);
        let silent: Vec<_> = (0..200).map(|_| gate.admit()).collect();
        assert_eq!(gate.pending(), 16);
        let healthy = gate.admit();
        assert!(!is_revoked(&healthy));
        assert_eq!(silent.iter().filter(|guard| is_revoked(guard)).count(), 185);
        healthy.authenticated();
        assert_eq!(gate.pending(), 15);
    }

    #[test]
    fn a_flood_from_one_address_evicts_itself_before_others() {
        let gate = Gate::new(8);
        let healthy = gate.admit_from(Ipv4Addr::new(127, 0, 0, 2).into());
        let flood: Vec<_> = (0..200)
            .map(|_| gate.admit_from(Ipv4Addr::LOCALHOST.into()))
            .collect();
        assert!(!is_revoked(&healthy));
        assert_eq!(flood.iter().filter(|guard| !is_revoked(guard)).count(), 7);
    }

    #[test]
    fn who_authenticated_or_left_takes_no_place() {
        let gate = Gate::new(1);
        gate.admit().authenticated();
        let guard = gate.admit();
        assert!(!is_revoked(&guard));
        drop(guard);
        assert_eq!(gate.pending(), 0);
    }

    #[tokio::test]
    async fn a_caller_that_is_not_revoked_waits_on() {
        let gate = Gate::new(1);
        let guard = gate.admit();
        let waited =
            tokio::time::timeout(std::time::Duration::from_millis(5), guard.revoked()).await;
        assert!(waited.is_err());
    }
}
