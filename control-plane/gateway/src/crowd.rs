//! Caps how many connections may be at the door, that is: between `accept` and the end of the upgrade. When it is full,
//! the source that has most in it loses its oldest; so one source can fill the door with idle connections, and a
//! newcomer from elsewhere still gets in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::addresses::Source;

/// The connections at the door.
#[derive(Clone, Debug)]
pub struct Crowd {
    inside: Arc<Mutex<Inside>>,
    most: usize,
    most_of_one: usize,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    // In order of arrival.
    places: Vec<(u64, Option<Source>, oneshot::Sender<()>)>,
}

/// A place in the crowd, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    number: u64,
    crowd: Crowd,
    shown_out: oneshot::Receiver<()>,
}

impl Crowd {
    /// Room for `most` connections, and for `most_of_one` of any one source.
    pub fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            inside: Arc::default(),
            most: most.max(1),
            most_of_one: most_of_one.max(1),
        }
    }

    /// Takes a place; somebody else may have to go.
    pub fn enter(&self, source: Option<Source>) -> Place {
        let (sender, shown_out) = oneshot::channel();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this = inside
            .places
            .iter()
            .filter(|place| place.1 == source)
            .count();
        if source.is_some() && of_this >= self.most_of_one {
            inside.show_out_oldest_of(source);
        } else if inside.places.len() >= self.most {
            let greediest = inside.greediest();
            inside.show_out_oldest_of(greediest);
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .places
            .len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inside {
    /// The source with most places; of several such, that of the oldest place.
    fn greediest(&self) -> Option<Source> {
        let mut counts: HashMap<Option<Source>, usize> = HashMap::new();
        for (_, source, _) in &self.places {
            *counts.entry(*source).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or_default();
        self.places
            .iter()
            .find(|(_, source, _)| counts.get(source) == Some(&most))
            .and_then(|(_, source, _)| *source)
    }

    fn show_out_oldest_of(&mut self, source: Option<Source>) {
        if let Some(oldest) = self.places.iter().position(|place| place.1 == source) {
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

    fn source(last: u8) -> Option<Source> {
        Some(Source::from(std::net::IpAddr::from([192, 0, 2, last])))
    }

    fn is_out(place: &mut Place) -> bool {
        place.shown_out.try_recv().is_ok()
    }

    #[test]
    fn the_greediest_source_makes_room_with_its_oldest() {
        let crowd = Crowd::new(4, 10);
        let mut early = crowd.enter(source(1));
        let mut greedy: Vec<Place> = (0..3).map(|_| crowd.enter(source(2))).collect();
        let _newcomer = crowd.enter(source(3));
        assert_eq!(crowd.len(), 4);
        assert!(is_out(&mut greedy[0]));
        assert!(!is_out(&mut greedy[1]));
        assert!(!is_out(&mut early));
    }

    #[test]
    fn one_source_makes_room_for_itself_long_before_the_door_is_full() {
        let crowd = Crowd::new(100, 2);
        let mut other = crowd.enter(source(1));
        let mut first = crowd.enter(source(2));
        let mut second = crowd.enter(source(2));
        let _third = crowd.enter(source(2));
        assert!(is_out(&mut first));
        assert!(!is_out(&mut second));
        assert!(!is_out(&mut other));
        assert_eq!(crowd.len(), 3);
    }

    #[test]
    fn clients_that_cannot_be_told_apart_share_the_whole_door() {
        let crowd = Crowd::new(5, 2);
        let mut places: Vec<Place> = (0..6).map(|_| crowd.enter(None)).collect();
        assert_eq!(crowd.len(), 5);
        assert!(is_out(&mut places[0]));
    }

    #[test]
    fn a_place_is_given_back_when_its_connection_ends() {
        let crowd = Crowd::new(2, 2);
        drop(crowd.enter(source(1)));
        assert!(crowd.is_empty());
    }
}
