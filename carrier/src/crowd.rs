//! Caps how many connections may be in one stage, such as between `accept` and a first request, and makes room when it is
//! full: the source that has most in it loses its oldest. So one source can fill the room with idle connections, and a
//! newcomer from elsewhere still gets in. What a source is, is the caller's matter; [`site`] is what floods come from.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// What floods are counted for: an IPv4 address, or the 64-bit prefix that one IPv6 site has.
pub fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The connections in one stage.
#[derive(Debug)]
pub struct Crowd<S> {
    inside: Arc<Mutex<Inside<S>>>,
    most: usize,
    most_of_one: usize,
}

impl<S> Clone for Crowd<S> {
    fn clone(&self) -> Self {
        Self {
            inside: Arc::clone(&self.inside),
            ..*self
        }
    }
}

#[derive(Debug)]
struct Inside<S> {
    next: u64,
    // In order of arrival.
    places: Vec<(u64, Option<S>, oneshot::Sender<()>)>,
}

/// A place in the crowd, given back when it is dropped.
#[derive(Debug)]
pub struct Place<S> {
    number: u64,
    crowd: Crowd<S>,
    shown_out: oneshot::Receiver<()>,
}

impl<S: Copy + Eq + Hash> Crowd<S> {
    /// Room for so many connections, whoever they are of.
    pub fn new(most: usize) -> Self {
        let inside = Inside {
            next: 0,
            places: Vec::new(),
        };
        Self {
            inside: Arc::new(Mutex::new(inside)),
            most: most.max(1),
            most_of_one: usize::MAX,
        }
    }

    /// The same, and for so many of any one source.
    #[must_use]
    pub fn at_most_of_one(self, most_of_one: usize) -> Self {
        Self {
            most_of_one: most_of_one.max(1),
            ..self
        }
    }

    /// Takes a place; somebody else may have to go. Connections without a source can't be told apart.
    pub fn enter(&self, source: impl Into<Option<S>>) -> Place<S> {
        let source = source.into();
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
}

impl<S> Crowd<S> {
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

impl<S: Copy + Eq + Hash> Inside<S> {
    /// The source with most places; of several such, that of the oldest place.
    fn greediest(&self) -> Option<S> {
        let mut counts: HashMap<Option<S>, usize> = HashMap::new();
        for (_, source, _) in &self.places {
            *counts.entry(*source).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or_default();
        self.places
            .iter()
            .find(|(_, source, _)| counts.get(source) == Some(&most))
            .and_then(|(_, source, _)| *source)
    }

    fn show_out_oldest_of(&mut self, source: Option<S>) {
        if let Some(oldest) = self.places.iter().position(|place| place.1 == source) {
            let (_, _, sender) = self.places.remove(oldest);
            // It may have left by itself in this moment.
            let _ = sender.send(());
        }
    }
}

impl<S> Place<S> {
    /// Returns when this connection has to make room.
    pub async fn shown_out(&mut self) {
        // A sender that is gone without a word cannot be: only this place's drop removes it otherwise.
        let _ = (&mut self.shown_out).await;
    }
}

impl<S> Drop for Place<S> {
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

    fn is_out(place: &mut Place<u8>) -> bool {
        place.shown_out.try_recv().is_ok()
    }

    #[test]
    fn the_greediest_source_makes_room_with_its_oldest() {
        let crowd = Crowd::<u8>::new(4).at_most_of_one(10);
        let mut early = crowd.enter(1);
        let mut greedy: Vec<Place<u8>> = (0..3).map(|_| crowd.enter(2)).collect();
        let _newcomer = crowd.enter(3);
        assert_eq!(crowd.len(), 4);
        assert!(is_out(&mut greedy[0]));
        assert!(!is_out(&mut greedy[1]));
        assert!(!is_out(&mut early));
    }

    #[test]
    fn one_source_makes_room_for_itself_long_before_the_door_is_full() {
        let crowd = Crowd::<u8>::new(100).at_most_of_one(2);
        let mut other = crowd.enter(1);
        let mut first = crowd.enter(2);
        let mut second = crowd.enter(2);
        let _third = crowd.enter(2);
        assert!(is_out(&mut first));
        assert!(!is_out(&mut second));
        assert!(!is_out(&mut other));
        assert_eq!(crowd.len(), 3);
    }

    #[test]
    fn clients_that_cannot_be_told_apart_share_the_whole_door() {
        let crowd = Crowd::<u8>::new(5).at_most_of_one(2);
        let mut places: Vec<Place<u8>> = (0..6).map(|_| crowd.enter(None)).collect();
        assert_eq!(crowd.len(), 5);
        assert!(is_out(&mut places[0]));
    }

    #[test]
    fn a_place_is_given_back_when_its_connection_ends() {
        let crowd = Crowd::<u8>::new(2);
        drop(crowd.enter(1));
        assert!(crowd.is_empty());
    }

    #[tokio::test]
    async fn who_has_to_make_room_is_told() {
        let crowd = Crowd::<u8>::new(1);
        let mut first = crowd.enter(1);
        let second = crowd.enter(2);
        first.shown_out().await;
        drop(first);
        assert_eq!(crowd.len(), 1, "a place is given back once");
        drop(second);
        assert!(crowd.is_empty());
    }

    #[test]
    fn one_ipv6_site_is_one_source() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(site(ip("2001:db8::1")), site(ip("2001:db8::ffff:1")));
        assert_ne!(site(ip("2001:db8::1")), site(ip("2001:db8:0:1::1")));
        assert_eq!(site(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
