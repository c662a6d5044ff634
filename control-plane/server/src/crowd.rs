//! Caps how many connections may be in one stage, and makes room when it is full: the source that has most in it loses
//! its oldest. So one source can fill the room with idle connections, and a newcomer from elsewhere still gets in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::throttle::Source;

/// The connections that are in one stage.
#[derive(Clone, Debug)]
pub struct Crowd {
    inside: Arc<Mutex<Inside>>,
    most: usize,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    // In order of arrival.
    places: Vec<(u64, Source, oneshot::Sender<()>)>,
}

/// A place in the crowd, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    number: u64,
    crowd: Crowd,
    shown_out: oneshot::Receiver<()>,
}

impl Crowd {
    /// Room for `most` connections.
    pub fn new(most: usize) -> Self {
        Self {
            inside: Arc::default(),
            most: most.max(1),
        }
    }

    /// Takes a place; somebody else may have to go.
    pub fn enter(&self, source: Source) -> Place {
        let (sender, shown_out) = oneshot::channel();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.places.len() >= self.most {
            inside.show_one_out();
        }
        let number = inside.next;
        inside.next += 1;
        inside.places.push((number, source, sender));
        Place {
            number,
            crowd: self.clone(),
            shown_out,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.inside.lock().expect("whole").places.len()
    }
}

impl Inside {
    fn show_one_out(&mut self) {
        let mut counts: HashMap<Source, usize> = HashMap::new();
        for (_, source, _) in &self.places {
            *counts.entry(*source).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or_default();
        let oldest = self
            .places
            .iter()
            .position(|(_, source, _)| counts.get(source) == Some(&most));
        if let Some(oldest) = oldest {
            let (_, _, sender) = self.places.remove(oldest);
            // It may have left by itself in this moment.
            let _ = sender.send(());
        }
    }
}

impl Place {
    /// Returns when this connection has to make room.
    pub async fn shown_out(&mut self) {
        // A sender that is gone without a word cannot be: only this place's drop removes it otherwise.
        let _ = (&mut self.shown_out).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self
            .crowd
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        inside
            .places
            .retain(|(number, _, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::from(std::net::IpAddr::from([192, 0, 2, last]))
    }

    #[tokio::test]
    async fn the_greediest_source_makes_room_with_its_oldest() {
        let crowd = Crowd::new(4);
        let mut early = crowd.enter(source(1));
        let mut greedy: Vec<Place> = (0..3).map(|_| crowd.enter(source(2))).collect();
        let _newcomer = crowd.enter(source(3));
        assert_eq!(crowd.len(), 4);
        greedy[0].shown_out().await;
        assert!(greedy[1].shown_out.try_recv().is_err());
        assert!(early.shown_out.try_recv().is_err());
    }

    #[test]
    fn a_place_is_given_back_when_its_connection_ends() {
        let crowd = Crowd::new(2);
        drop(crowd.enter(source(1)));
        assert_eq!(crowd.len(), 0);
    }
}
