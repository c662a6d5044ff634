//! Caps how many connections may be in one stage, such as between `accept` and a first request, and makes room when it is
//! full: the source that has most in it loses its oldest. So one source can fill the room with idle connections, and a
//! newcomer from elsewhere still gets in. What a source is, is the caller's matter; [`site`] is what floods come from.
//!
//! Whoever says nothing goes first. Who has begun to speak keeps its place for [`GRACE`], and the newcomer has to come again: else a
//! crowd that comes faster than it can be served would only ever show itself out, and nobody would get anywhere. A newcomer whose
//! source has less of the room than it would leave to the other does not have to wait.

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long who speaks keeps its place though the room is full: time to shake hands over a slow line.
pub const GRACE: Duration = Duration::from_secs(5);

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
    places: Vec<Taken<S>>,
}

#[derive(Debug)]
struct Taken<S> {
    number: u64,
    source: Option<S>,
    spoke: Option<Instant>,
    show_out: oneshot::Sender<()>,
}

/// A place in the crowd, given back when it is dropped.
#[derive(Debug)]
pub struct Place<S> {
    number: u64,
    crowd: Crowd<S>,
    shown_out: oneshot::Receiver<()>,
}

/// What came of waiting for a connection's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstByte {
    /// It is there to be read, and who sent it counts as one who speaks.
    Came,
    /// Nothing came in time.
    Silence,
    /// It had to make room.
    ShownOut,
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

    /// Takes a place; somebody else may have to go. `None` if the newcomer has to, since whoever would have to make room for it
    /// began to speak only just now. Connections without a source can't be told apart.
    pub fn enter(&self, source: impl Into<Option<S>>, now: Instant) -> Option<Place<S>> {
        let source = source.into();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this = inside.count_of(source);
        if source.is_some() && of_this >= self.most_of_one {
            inside.make_room(source, of_this, now)?;
        } else if inside.places.len() >= self.most {
            let greediest = inside.greediest();
            inside.make_room(greediest, of_this, now)?;
        }
        let (show_out, shown_out) = oneshot::channel();
        let number = inside.next;
        inside.next += 1;
        inside.places.push(Taken {
            number,
            source,
            spoke: None,
            show_out,
        });
        Some(Place {
            number,
            crowd: self.clone(),
            shown_out,
        })
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
    fn count_of(&self, source: Option<S>) -> usize {
        let of_it = self.places.iter().filter(|place| place.source == source);
        of_it.count()
    }

    /// The source with most places; of several such, that of the oldest place.
    fn greediest(&self) -> Option<S> {
        let mut counts: HashMap<Option<S>, usize> = HashMap::new();
        for place in &self.places {
            *counts.entry(place.source).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or_default();
        self.places
            .iter()
            .find(|place| counts.get(&place.source) == Some(&most))
            .and_then(|place| place.source)
    }

    /// Shows out one of a source, for a newcomer whose source has so many: the oldest that says nothing, or the one that has spoken
    /// longest. `None` if it may stay.
    fn make_room(&mut self, source: Option<S>, of_newcomer: usize, now: Instant) -> Option<()> {
        let has_much_more = self.count_of(source) > of_newcomer + 1;
        let of_source = self.places.iter().enumerate();
        let of_source = of_source.filter(|(_, place)| place.source == source);
        let (at, place) = of_source.min_by_key(|(_, place)| place.spoke)?;
        let may_stay = |spoke: Instant| now.saturating_duration_since(spoke) < GRACE;
        if !has_much_more && place.spoke.is_some_and(may_stay) {
            return None;
        }
        // It may have left by itself in this moment.
        let _ = self.places.remove(at).show_out.send(());
        Some(())
    }
}

impl<S> Place<S> {
    /// This connection has begun to say what it wants.
    pub fn speaks(&self, now: Instant) {
        let mut inside = self
            .crowd
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let own = |place: &&mut Taken<S>| place.number == self.number;
        if let Some(place) = inside.places.iter_mut().find(own) {
            place.spoke.get_or_insert(now);
        }
    }

    /// Waits for the first byte from whoever has this place, without taking it; an end counts as one.
    pub async fn first_byte(&mut self, stream: &TcpStream, wait: Duration) -> FirstByte {
        let mut first = [0];
        let heard = poll_fn(|context| {
            if Pin::new(&mut self.shown_out).poll(context).is_ready() {
                return Poll::Ready(FirstByte::ShownOut);
            }
            let came = stream.poll_peek(context, &mut ReadBuf::new(&mut first));
            came.map(|_| FirstByte::Came)
        });
        let heard = timeout(wait, heard).await.unwrap_or(FirstByte::Silence);
        if heard == FirstByte::Came {
            self.speaks(Instant::now());
        }
        heard
    }

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
        inside.places.retain(|place| place.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn is_out(place: &mut Place<u8>) -> bool {
        place.shown_out.try_recv().is_ok()
    }

    #[test]
    fn the_greediest_source_makes_room_with_its_oldest() {
        let now = Instant::now();
        let crowd = Crowd::<u8>::new(4).at_most_of_one(10);
        let mut early = crowd.enter(1, now).expect("room");
        let mut greedy = [2; 3].map(|source| crowd.enter(source, now).expect("room"));
        let _newcomer = crowd.enter(3, now).expect("a source that has nothing yet");
        assert_eq!(crowd.len(), 4);
        assert!(is_out(&mut greedy[0]));
        assert!(!is_out(&mut greedy[1]));
        assert!(!is_out(&mut early));
    }

    #[test]
    fn one_source_makes_room_for_itself_long_before_the_door_is_full() {
        let now = Instant::now();
        let crowd = Crowd::<u8>::new(100).at_most_of_one(2);
        let mut other = crowd.enter(1, now).expect("room");
        let mut first = crowd.enter(2, now).expect("room");
        let mut second = crowd.enter(2, now).expect("room");
        let _third = crowd.enter(2, now).expect("room");
        assert!(is_out(&mut first));
        assert!(!is_out(&mut second));
        assert!(!is_out(&mut other));
        assert_eq!(crowd.len(), 3);
    }

    #[test]
    fn a_crowd_that_comes_too_fast_does_not_show_itself_out() {
        let now = Instant::now();
        let soon = now + GRACE - Duration::from_millis(1);
        for crowd in [Crowd::<u8>::new(100).at_most_of_one(2), Crowd::<u8>::new(2)] {
            let mut both = [1; 2].map(|source| crowd.enter(source, now).expect("room"));
            both.iter().for_each(|place| place.speaks(now));
            assert!(crowd.enter(1, soon).is_none());
            assert!(!both.iter_mut().any(is_out));
            drop(both);
            assert!(crowd.enter(1, soon).is_some(), "room again");
        }
        // Nor one whose members all come from elsewhere.
        let crowd = Crowd::<u8>::new(2);
        let mut both = [1, 2].map(|source| crowd.enter(source, now).expect("room"));
        both.iter().for_each(|place| place.speaks(now));
        assert!(crowd.enter(3, soon).is_none());
        assert!(!both.iter_mut().any(is_out));
        assert!(crowd.enter(3, now + GRACE).is_some());
        assert!(is_out(&mut both[0]));
    }

    #[test]
    fn who_says_nothing_makes_room_before_those_who_speak() {
        let now = Instant::now();
        let crowd = Crowd::<u8>::new(3);
        let mut places = [1; 3].map(|source| crowd.enter(source, now).expect("room"));
        places[0].speaks(now);
        places[2].speaks(now);
        let newcomer = crowd.enter(1, now).expect("room");
        assert!(is_out(&mut places[1]));
        newcomer.speaks(now + GRACE);
        // Who has spoken longest is the next one.
        let _another = crowd.enter(1, now + GRACE).expect("room");
        assert!(is_out(&mut places[0]));
        assert!(!is_out(&mut places[2]));
    }

    #[test]
    fn clients_that_cannot_be_told_apart_share_the_whole_door() {
        let now = Instant::now();
        let crowd = Crowd::<u8>::new(5).at_most_of_one(2);
        let mut places = [None; 5].map(|source| crowd.enter(source, now).expect("room"));
        let _sixth = crowd.enter(None, now).expect("room");
        assert_eq!(crowd.len(), 5);
        assert!(is_out(&mut places[0]));
    }

    #[test]
    fn a_place_is_given_back_when_its_connection_ends() {
        let crowd = Crowd::<u8>::new(2);
        drop(crowd.enter(1, Instant::now()));
        assert!(crowd.is_empty());
    }

    #[tokio::test]
    async fn who_has_to_make_room_is_told() {
        let now = Instant::now();
        let crowd = Crowd::<u8>::new(1);
        let mut first = crowd.enter(1, now).expect("room");
        let second = crowd.enter(2, now).expect("room");
        first.shown_out().await;
        drop(first);
        assert_eq!(crowd.len(), 1, "a place is given back once");
        drop(second);
        assert!(crowd.is_empty());
    }

    #[tokio::test]
    async fn a_first_byte_is_heard_and_left_to_be_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut caller = TcpStream::connect(address).await.expect("a connection");
        let (mut stream, _) = listener.accept().await.expect("a caller");

        let crowd = Crowd::<u8>::new(1);
        let mut place = crowd.enter(1, Instant::now()).expect("room");
        let silence = place.first_byte(&stream, Duration::from_millis(1)).await;
        assert_eq!(silence, FirstByte::Silence);
        caller.write_all(b"hello").await.expect("the caller's word");
        let wait = Duration::from_secs(60);
        assert_eq!(place.first_byte(&stream, wait).await, FirstByte::Came);
        assert_eq!(stream.read_u8().await.expect("the byte"), b'h');
        assert!(crowd.enter(2, Instant::now()).is_none(), "it speaks");

        let _newcomer = crowd.enter(2, Instant::now() + GRACE).expect("room");
        assert_eq!(place.first_byte(&stream, wait).await, FirstByte::ShownOut);
    }

    #[test]
    fn one_ipv6_site_is_one_source() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(site(ip("2001:db8::1")), site(ip("2001:db8::ffff:1")));
        assert_ne!(site(ip("2001:db8::1")), site(ip("2001:db8:0:1::1")));
        assert_eq!(site(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
