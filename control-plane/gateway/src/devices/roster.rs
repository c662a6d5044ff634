//! Which servers are attached and which devices are on them: who may enter, for which server, and who has to make room.
//! It owns no connection and has no clock of its own.

use std::collections::BTreeMap;
use std::time::Instant;

use umbra_carrier::crowd::GRACE;
use umbra_protocol::ServerRoot;
use umbra_protocol::gateway::Attach;

use crate::addresses::Source;

/// Devices that wait to be admitted, of all sources.
pub const STRANGERS: usize = 1_024;
/// Devices that wait to be admitted, on one uplink. The multiplexer opens no stream while 256 are unanswered, and a
/// server does not answer a stranger who says nothing: so they must never be as many.
pub const STRANGERS_OF_UPLINK: usize = 224;
/// Devices that wait to be admitted, of one source.
pub const STRANGERS_OF_ONE: usize = 32;
/// Devices on one uplink, whatever its server says. As many streams are the most that an uplink is set up for.
pub const MOST_DEVICES: usize = 32_768;

/// One uplink, counted up from the gateway's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UplinkId(u64);

/// A server: the SHA-256 of its uplink certificate.
pub type ServerKey = [u8; 32];

/// Room for devices that are not admitted.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of all sources.
    pub strangers: usize,
    /// On one uplink.
    pub of_uplink: usize,
    /// Of one source.
    pub of_one: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            strangers: STRANGERS,
            of_uplink: STRANGERS_OF_UPLINK,
            of_one: STRANGERS_OF_ONE,
        }
    }
}

/// The servers and devices.
#[derive(Debug, Default)]
pub struct Roster {
    room: Room,
    uplinks: BTreeMap<UplinkId, Uplink>,
    admitted: BTreeMap<u64, UplinkId>,
    // By stream, thus in order of arrival.
    strangers: BTreeMap<u64, Stranger>,
    next_uplink: u64,
    next_stream: u64,
}

#[derive(Debug)]
struct Stranger {
    uplink: UplinkId,
    source: Option<Source>,
    since: Instant,
}

#[derive(Debug)]
struct Uplink {
    server: ServerKey,
    root: ServerRoot,
    limit: Option<u32>,
    admitted: usize,
    strangers: usize,
}

impl Uplink {
    fn is_full(&self) -> bool {
        let limit = self.limit.map_or(MOST_DEVICES, |limit| {
            usize::try_from(limit).unwrap_or(MOST_DEVICES)
        });
        self.admitted >= limit
    }

    fn devices(&self) -> usize {
        self.admitted + self.strangers
    }
}

/// A device that may enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of its stream.
    pub stream: u64,
    /// Its server's uplink.
    pub uplink: UplinkId,
    /// The stream that has to make room for it.
    pub shown_out: Option<u64>,
}

/// Why a device may not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// No server is there, or not the right one.
    NoServer,
    /// The server has as many devices as it wants; this is its uplink.
    Full(UplinkId),
    /// Too many devices wait to be admitted, or too many of this source.
    Crowded,
}

/// What became of an `admit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The device may stay.
    Stays,
    /// It has to go: the server has as many as it wants.
    Full,
    /// No such stream waits on this uplink.
    Unknown,
}

impl Roster {
    /// Nobody there, and so much room.
    pub fn new(room: Room) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    /// A server attached. Its older uplink, if there is one, has to end.
    pub fn attach(&mut self, server: ServerKey, attach: &Attach) -> (UplinkId, Option<UplinkId>) {
        let older = self
            .uplinks
            .iter()
            .find(|(_, uplink)| uplink.server == server)
            .map(|(id, _)| *id);
        let id = UplinkId(self.next_uplink);
        self.next_uplink += 1;
        self.uplinks.insert(
            id,
            Uplink {
                server,
                root: attach.server_root,
                limit: attach.limit,
                admitted: 0,
                strangers: 0,
            },
        );
        (id, older)
    }

    /// An uplink is gone, and with it these devices.
    pub fn detach(&mut self, uplink: UplinkId) -> Vec<u64> {
        self.uplinks.remove(&uplink);
        let gone: Vec<u64> = self
            .admitted
            .iter()
            .map(|(stream, of)| (*stream, *of))
            .chain(
                self.strangers
                    .iter()
                    .map(|(stream, stranger)| (*stream, stranger.uplink)),
            )
            .filter(|(_, of)| *of == uplink)
            .map(|(stream, _)| stream)
            .collect();
        for stream in &gone {
            self.leave(*stream);
        }
        gone
    }

    /// The server wants another number of devices from now on.
    pub fn set_limit(&mut self, uplink: UplinkId, limit: Option<u32>) {
        if let Some(uplink) = self.uplinks.get_mut(&uplink) {
            uplink.limit = limit;
        }
    }

    /// Whether a device would be turned away only because so many others wait to be admitted.
    pub fn is_crowded(
        &self,
        root: Option<ServerRoot>,
        source: Option<Source>,
        now: Instant,
    ) -> bool {
        self.place(root, source, now) == Err(Turned::Crowded)
    }

    /// Where a device may go: the uplink, and the stream that has to make room.
    fn place(
        &self,
        root: Option<ServerRoot>,
        source: Option<Source>,
        now: Instant,
    ) -> Result<(UplinkId, Option<u64>), Turned> {
        let fits = |uplink: &Uplink| root.is_none_or(|root| uplink.root == root);
        let mut candidates: Vec<_> = self.uplinks.iter().filter(|(_, u)| fits(u)).collect();
        candidates.sort_by_key(|(_, uplink)| uplink.devices());
        let Some((first, _)) = candidates.first() else {
            return Err(Turned::NoServer);
        };
        let first = **first;
        let Some(uplink) = candidates
            .iter()
            .find(|(_, uplink)| !uplink.is_full())
            .map(|(id, _)| **id)
        else {
            return Err(Turned::Full(first));
        };
        if self
            .uplinks
            .get(&uplink)
            .is_some_and(|u| u.devices() >= MOST_DEVICES)
        {
            return Err(Turned::Crowded);
        }
        if source.is_some() && self.count_of(source) >= self.room.of_one {
            return Err(Turned::Crowded);
        }
        let on_uplink = self.uplinks.get(&uplink).map_or(0, |u| u.strangers);
        let among = if on_uplink >= self.room.of_uplink {
            Some(Some(uplink))
        } else if self.strangers.len() >= self.room.strangers {
            Some(None)
        } else {
            None
        };
        let shown_out = match among {
            None => None,
            Some(among) => {
                let oldest = self.oldest_of_greediest(among, now);
                Some(oldest.ok_or(Turned::Crowded)?)
            }
        };
        Ok((uplink, shown_out))
    }

    /// A device wants in. With several servers that will do, it gets the one with the fewest devices.
    ///
    /// # Errors
    /// [`Turned`].
    pub fn enter(
        &mut self,
        root: Option<ServerRoot>,
        source: Option<Source>,
        now: Instant,
    ) -> Result<Entry, Turned> {
        let (uplink, shown_out) = self.place(root, source, now)?;
        if let Some(stream) = shown_out {
            self.leave(stream);
        }
        let stream = self.next_stream;
        self.next_stream += 1;
        let stranger = Stranger {
            uplink,
            source,
            since: now,
        };
        self.strangers.insert(stream, stranger);
        if let Some(uplink) = self.uplinks.get_mut(&uplink) {
            uplink.strangers += 1;
        }
        Ok(Entry {
            stream,
            uplink,
            shown_out,
        })
    }

    /// The server knows the device on this stream.
    pub fn admit(&mut self, uplink: UplinkId, stream: u64) -> Admission {
        match self.strangers.get(&stream) {
            Some(stranger) if stranger.uplink == uplink => {}
            Some(_) | None => return Admission::Unknown,
        }
        let full = self.uplinks.get(&uplink).is_none_or(Uplink::is_full);
        self.leave(stream);
        if full {
            return Admission::Full;
        }
        self.admitted.insert(stream, uplink);
        if let Some(uplink) = self.uplinks.get_mut(&uplink) {
            uplink.admitted += 1;
        }
        Admission::Stays
    }

    /// A device is gone.
    pub fn leave(&mut self, stream: u64) {
        if let Some(stranger) = self.strangers.remove(&stream)
            && let Some(uplink) = self.uplinks.get_mut(&stranger.uplink)
        {
            uplink.strangers -= 1;
        }
        if let Some(uplink) = self.admitted.remove(&stream)
            && let Some(uplink) = self.uplinks.get_mut(&uplink)
        {
            uplink.admitted -= 1;
        }
    }

    /// Whose stream this is.
    pub fn uplink_of(&self, stream: u64) -> Option<UplinkId> {
        let stranger = self.strangers.get(&stream).map(|s| s.uplink);
        stranger.or_else(|| self.admitted.get(&stream).copied())
    }

    /// The uplink over which a server is attached.
    pub fn uplink_with(&self, server: ServerKey) -> Option<UplinkId> {
        self.uplinks
            .iter()
            .rev()
            .find(|(_, uplink)| uplink.server == server)
            .map(|(id, _)| *id)
    }

    /// Uplinks whose server is not one of these.
    pub fn strange_uplinks(&self, known: &[ServerKey]) -> Vec<UplinkId> {
        self.uplinks
            .iter()
            .filter(|(_, uplink)| !known.contains(&uplink.server))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Servers that are attached.
    pub fn servers(&self) -> usize {
        self.uplinks.len()
    }

    /// Devices that are admitted.
    pub fn admitted(&self) -> usize {
        self.admitted.len()
    }

    /// Devices that wait to be admitted.
    pub fn strangers(&self) -> usize {
        self.strangers.len()
    }

    fn count_of(&self, source: Option<Source>) -> usize {
        self.strangers
            .values()
            .filter(|stranger| stranger.source == source)
            .count()
    }

    /// Who has to make room: the one who waits longest of the source that has most there, on one uplink or on any.
    fn oldest_of_greediest(&self, among: Option<UplinkId>, now: Instant) -> Option<u64> {
        let there = || {
            self.strangers
                .iter()
                .filter(move |(_, stranger)| among.is_none_or(|uplink| stranger.uplink == uplink))
        };
        let mut counts = std::collections::HashMap::new();
        for (_, stranger) in there() {
            *counts.entry(stranger.source).or_insert(0_usize) += 1;
        }
        let most = counts.values().copied().max()?;
        let (stream, stranger) =
            there().find(|(_, stranger)| counts.get(&stranger.source) == Some(&most))?;
        (now.saturating_duration_since(stranger.since) >= GRACE).then_some(*stream)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn root(byte: u8) -> ServerRoot {
        ServerRoot::from_bytes([byte; 32])
    }

    fn attach(root_byte: u8, limit: Option<u32>) -> Attach {
        Attach {
            versions: vec![1],
            server_root: root(root_byte),
            server_name: "ums".into(),
            limit,
        }
    }

    fn now() -> Instant {
        // One moment for all.
        static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }

    fn source(last: u8) -> Option<Source> {
        Some(std::net::IpAddr::from([192, 0, 2, last]).into())
    }

    fn admitted(roster: &mut Roster, uplink: UplinkId) -> u64 {
        let entry = roster.enter(None, None, now()).expect("room");
        assert_eq!(roster.admit(uplink, entry.stream), Admission::Stays);
        entry.stream
    }

    #[test]
    fn no_device_enters_while_no_server_or_not_the_right_one_is_there() {
        let mut roster = Roster::default();
        assert_eq!(roster.enter(None, source(1), now()), Err(Turned::NoServer));
        let (uplink, _) = roster.attach([1; 32], &attach(1, None));
        assert_eq!(
            roster.enter(Some(root(2)), source(1), now()),
            Err(Turned::NoServer)
        );
        assert!(roster.enter(Some(root(1)), source(1), now()).is_ok());
        assert!(roster.enter(None, source(1), now()).is_ok());
        assert_eq!(roster.detach(uplink).len(), 2);
        assert_eq!((roster.strangers(), roster.servers()), (0, 0));
        assert_eq!(roster.enter(None, source(1), now()), Err(Turned::NoServer));
    }

    #[test]
    fn devices_go_to_the_root_they_name_and_otherwise_to_the_emptiest_server() {
        let mut roster = Roster::default();
        let (first, _) = roster.attach([1; 32], &attach(1, None));
        let (second, _) = roster.attach([2; 32], &attach(2, None));
        for _ in 0..3 {
            assert_eq!(
                roster
                    .enter(Some(root(1)), None, now())
                    .expect("room")
                    .uplink,
                first
            );
        }
        assert_eq!(
            roster.enter(None, None, now()).expect("room").uplink,
            second
        );
        assert_eq!(
            roster
                .enter(Some(root(2)), None, now())
                .expect("room")
                .uplink,
            second
        );
    }

    #[test]
    fn the_limit_counts_admitted_devices_and_holds_at_admission_too() {
        let mut roster = Roster::default();
        let (uplink, _) = roster.attach([1; 32], &attach(1, Some(2)));
        let waiting = roster.enter(None, None, now()).expect("room");
        let stays = admitted(&mut roster, uplink);
        admitted(&mut roster, uplink);
        assert_eq!(roster.enter(None, None, now()), Err(Turned::Full(uplink)));
        assert_eq!(roster.admit(uplink, waiting.stream), Admission::Full);
        assert_eq!(roster.admitted(), 2);
        roster.leave(stays);
        assert!(roster.enter(None, None, now()).is_ok());
        roster.set_limit(uplink, Some(0));
        assert!(roster.enter(None, None, now()).is_err());
        roster.set_limit(uplink, None);
        assert!(roster.enter(None, None, now()).is_ok());
    }

    #[test]
    fn a_full_server_gives_way_to_another_one_of_the_same_root() {
        let mut roster = Roster::default();
        let (_full, _) = roster.attach([1; 32], &attach(1, Some(0)));
        let (other, _) = roster.attach([2; 32], &attach(1, None));
        assert_eq!(
            roster
                .enter(Some(root(1)), None, now())
                .expect("room")
                .uplink,
            other
        );
    }

    #[test]
    fn a_newer_uplink_of_the_same_server_shows_the_older_one() {
        let mut roster = Roster::default();
        let (older, none) = roster.attach([1; 32], &attach(1, None));
        assert_eq!(none, None);
        let (newer, superseded) = roster.attach([1; 32], &attach(1, None));
        assert_eq!(superseded, Some(older));
        assert_eq!(roster.uplink_with([1; 32]), Some(newer));
        roster.detach(older);
        assert_eq!(roster.servers(), 1);
    }

    #[test]
    fn one_source_cannot_take_all_the_room_of_strangers() {
        let mut roster = Roster::new(Room {
            strangers: 4,
            of_uplink: 10,
            of_one: 3,
        });
        roster.attach([1; 32], &attach(1, None));
        let first = roster.enter(None, source(1), now()).expect("room");
        for _ in 0..2 {
            roster.enter(None, source(1), now()).expect("room");
        }
        assert_eq!(roster.enter(None, source(1), now()), Err(Turned::Crowded));
        assert_eq!(
            roster
                .enter(None, source(2), now())
                .expect("room")
                .shown_out,
            None
        );
        // Full: the greediest source's oldest makes room.
        let third = roster.enter(None, source(3), now() + GRACE).expect("room");
        assert_eq!(third.shown_out, Some(first.stream));
        assert_eq!(roster.strangers(), 4);
    }

    #[test]
    fn a_server_admits_only_what_waits_on_its_own_uplink() {
        let mut roster = Roster::default();
        let (mine, _) = roster.attach([1; 32], &attach(1, None));
        let (other, _) = roster.attach([2; 32], &attach(2, None));
        let entry = roster.enter(Some(root(1)), None, now()).expect("room");
        assert_eq!(roster.admit(other, entry.stream), Admission::Unknown);
        assert_eq!(roster.admit(mine, 99), Admission::Unknown);
        assert_eq!(roster.admit(mine, entry.stream), Admission::Stays);
        assert_eq!(roster.admit(mine, entry.stream), Admission::Unknown);
        assert_eq!((roster.admitted(), roster.strangers()), (1, 0));
        assert_eq!(roster.uplink_of(entry.stream), Some(mine));
    }

    #[test]
    fn servers_that_are_no_longer_known_are_found() {
        let mut roster = Roster::default();
        let (gone, _) = roster.attach([1; 32], &attach(1, None));
        roster.attach([2; 32], &attach(1, None));
        assert_eq!(roster.strange_uplinks(&[[2; 32]]), [gone]);
    }

    #[test]
    fn a_crowd_that_comes_at_once_waits_instead_of_showing_itself_out() {
        let mut roster = Roster::new(Room {
            strangers: 10,
            of_uplink: 2,
            of_one: 10,
        });
        roster.attach([1; 32], &attach(1, None));
        roster.attach([2; 32], &attach(2, None));
        let mut enter = |root_byte, last, later: Duration| {
            roster
                .enter(Some(root(root_byte)), source(last), now() + later)
                .map(|entry| (entry.stream, entry.shown_out))
        };
        let moment = Duration::from_millis(1);
        assert_eq!(enter(1, 1, moment), Ok((0, None)));
        assert_eq!(enter(1, 2, 2 * moment), Ok((1, None)));
        // This uplink is full, the other one is not.
        assert_eq!(enter(1, 3, GRACE), Err(Turned::Crowded));
        assert_eq!(enter(2, 3, GRACE), Ok((2, None)));
        assert_eq!(enter(1, 3, GRACE + moment), Ok((3, Some(0))));
        assert_eq!(enter(1, 4, GRACE + moment), Err(Turned::Crowded));
        assert_eq!(enter(1, 4, GRACE + 2 * moment), Ok((4, Some(1))));
    }
}
