//! Which two ends belong together, and what becomes of a token that comes twice, too late, from the wrong end, or from
//! nowhere. It owns no connection; whoever does asks it first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use umbra_protocol::gateway::{OpenRendezvous, RENDEZVOUS_SECONDS, TunnelEnd, TunnelSide};
use umbra_protocol::{RendezvousId, TokenHash};

use crate::devices::roster::{ServerKey, UplinkId};

/// Rendezvous of one uplink, waiting and running.
pub const MOST_OF_ONE: usize = 1_024;
/// Tokens that are remembered after their time.
pub const MOST_PAST: usize = 4_096;
/// For how long.
pub const MEMORY: Duration = Duration::from_secs(10 * 60);

/// All rendezvous.
#[derive(Debug, Default)]
pub struct Table {
    open: BTreeMap<RendezvousId, Meeting>,
    tokens: HashMap<TokenHash, (RendezvousId, TunnelSide)>,
    past: HashMap<TokenHash, (TunnelSide, Turned)>,
    // In the order in which they are forgotten.
    forgotten: VecDeque<(Instant, TokenHash)>,
}

#[derive(Debug)]
struct Meeting {
    uplink: UplinkId,
    server: ServerKey,
    device: TokenHash,
    console: TokenHash,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nobody came so far.
    Empty { until: Instant },
    /// One end waits.
    Half { side: TunnelSide, until: Instant },
    /// Both are there.
    Paired,
}

/// What an end finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is the first.
    Waits(RendezvousId),
    /// The other end is there.
    Pairs(RendezvousId),
}

/// Why an end may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Nobody announced this token, or it is forgotten.
    Unknown,
    /// It was used before.
    Used,
    /// Its time is over.
    Expired,
    /// It is for the other end.
    WrongSide,
}

/// A rendezvous that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which one.
    pub id: RendezvousId,
    /// Whose it is.
    pub server: ServerKey,
}

/// What becomes of a rendezvous that its server withdraws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// It waited, and is over.
    Over(Over),
    /// It runs, and has to be parted.
    Running,
    /// There is none, or it is another server's.
    NotThere,
}

impl Table {
    /// A server announces two ends.
    ///
    /// # Errors
    /// [`TunnelEnd::NotOpened`]: the server has too many, or used an ID or a token before.
    pub fn open(
        &mut self,
        uplink: UplinkId,
        server: ServerKey,
        request: &OpenRendezvous,
        now: Instant,
    ) -> Result<(), TunnelEnd> {
        self.forget(now);
        let known = |token| self.tokens.contains_key(token) || self.past.contains_key(token);
        let of_this = self.open.values().filter(|m| m.uplink == uplink).count();
        if of_this >= MOST_OF_ONE
            || self.open.contains_key(&request.id)
            || request.device == request.console
            || known(&request.device)
            || known(&request.console)
        {
            return Err(TunnelEnd::NotOpened);
        }
        let seconds = request
            .expires_in_seconds
            .clamp(*RENDEZVOUS_SECONDS.start(), *RENDEZVOUS_SECONDS.end());
        self.tokens
            .insert(request.device, (request.id, TunnelSide::Device));
        self.tokens
            .insert(request.console, (request.id, TunnelSide::Console));
        self.open.insert(
            request.id,
            Meeting {
                uplink,
                server,
                device: request.device,
                console: request.console,
                state: State::Empty {
                    until: now + Duration::from_secs(seconds.into()),
                },
            },
        );
        Ok(())
    }

    /// An end is there, with a token.
    ///
    /// # Errors
    /// [`Turned`].
    pub fn arrive(
        &mut self,
        token: TokenHash,
        side: TunnelSide,
        now: Instant,
    ) -> Result<Arrival, Turned> {
        self.forget(now);
        let Some((id, of_side)) = self.tokens.get(&token).copied() else {
            return Err(match self.past.get(&token) {
                Some((of_side, _)) if *of_side != side => Turned::WrongSide,
                Some((_, why)) => *why,
                None => Turned::Unknown,
            });
        };
        let Some(meeting) = self.open.get_mut(&id) else {
            return Err(Turned::Unknown);
        };
        // The token was not meant for whoever shows it; it stays good for whom it was meant for.
        if of_side != side {
            return Err(Turned::WrongSide);
        }
        match meeting.state {
            State::Empty { until } | State::Half { until, .. } if until <= now => {
                Err(Turned::Expired)
            }
            State::Empty { until } => {
                meeting.state = State::Half { side, until };
                Ok(Arrival::Waits(id))
            }
            State::Half { side: first, .. } if first == side => Err(Turned::Used),
            State::Half { .. } => {
                meeting.state = State::Paired;
                Ok(Arrival::Pairs(id))
            }
            State::Paired => Err(Turned::Used),
        }
    }

    /// A rendezvous is over: an end that waited is gone, or the two are parted.
    pub fn finish(&mut self, id: RendezvousId, now: Instant) -> Option<Over> {
        let meeting = self.open.remove(&id)?;
        let both = [
            (meeting.device, TunnelSide::Device),
            (meeting.console, TunnelSide::Console),
        ];
        for (token, side) in both {
            self.tokens.remove(&token);
            let came = match &meeting.state {
                State::Empty { .. } => false,
                State::Half { side: first, .. } => *first == side,
                State::Paired => true,
            };
            let why = if came { Turned::Used } else { Turned::Expired };
            self.remember(token, side, why, now);
        }
        Some(Over {
            id,
            server: meeting.server,
        })
    }

    /// The server does not want it any more. One that runs is over only when it was parted.
    pub fn withdraw(&mut self, server: ServerKey, id: RendezvousId, now: Instant) -> Withdrawn {
        match self.open.get(&id) {
            Some(meeting) if meeting.server != server => Withdrawn::NotThere,
            Some(Meeting {
                state: State::Paired,
                ..
            }) => Withdrawn::Running,
            Some(_) | None => match self.finish(id, now) {
                Some(over) => Withdrawn::Over(over),
                None => Withdrawn::NotThere,
            },
        }
    }

    /// Those whose time is over.
    pub fn expire(&mut self, now: Instant) -> Vec<Over> {
        self.forget(now);
        self.finish_all(now, |meeting| match meeting.state {
            State::Empty { until } | State::Half { until, .. } => until <= now,
            State::Paired => false,
        })
    }

    /// An uplink is gone: its ends that wait have nobody to wait for. Those that are paired go on.
    pub fn uplink_lost(&mut self, uplink: UplinkId, now: Instant) -> Vec<Over> {
        self.finish_all(now, |meeting| {
            meeting.uplink == uplink && !matches!(meeting.state, State::Paired)
        })
    }

    /// Nobody new comes any more: all that wait are over.
    pub fn close(&mut self, now: Instant) -> Vec<Over> {
        self.finish_all(now, |meeting| !matches!(meeting.state, State::Paired))
    }

    /// When the next one expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.open
            .values()
            .filter_map(|meeting| match meeting.state {
                State::Empty { until } | State::Half { until, .. } => Some(until),
                State::Paired => None,
            })
            .min()
    }

    /// Rendezvous that wait, and those that run.
    pub fn counts(&self) -> (usize, usize) {
        let running = self
            .open
            .values()
            .filter(|meeting| matches!(meeting.state, State::Paired))
            .count();
        (self.open.len() - running, running)
    }

    fn finish_all(&mut self, now: Instant, is_over: impl Fn(&Meeting) -> bool) -> Vec<Over> {
        let ids: Vec<RendezvousId> = self
            .open
            .iter()
            .filter(|(_, meeting)| is_over(meeting))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter()
            .filter_map(|id| self.finish(id, now))
            .collect()
    }

    fn remember(&mut self, token: TokenHash, side: TunnelSide, why: Turned, now: Instant) {
        if self.past.insert(token, (side, why)).is_none() {
            self.forgotten.push_back((now + MEMORY, token));
        }
        while self.forgotten.len() > MOST_PAST {
            if let Some((_, oldest)) = self.forgotten.pop_front() {
                self.past.remove(&oldest);
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((until, token)) = self.forgotten.front() {
            if *until > now {
                break;
            }
            self.past.remove(token);
            self.forgotten.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::roster::Roster;
    use umbra_protocol::gateway::{Attach, TunnelSide::*};

    const SERVER: ServerKey = [1; 32];

    fn uplink() -> UplinkId {
        let attach = Attach {
            versions: vec![1],
            server_root: umbra_protocol::ServerRoot::from_bytes([1; 32]),
            server_name: String::new(),
            limit: None,
        };
        Roster::default().attach(SERVER, &attach).0
    }

    fn token(number: u32, side: TunnelSide) -> TokenHash {
        umbra_protocol::gateway::token_hash(&format!("{number} {side}"))
    }

    fn id(number: u32) -> RendezvousId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        RendezvousId::from_bytes(bytes)
    }

    fn request(number: u32) -> OpenRendezvous {
        OpenRendezvous {
            id: id(number),
            device: token(number, Device),
            console: token(number, Console),
            expires_in_seconds: 30,
        }
    }

    fn opened(number: u32, now: Instant) -> Table {
        let mut table = Table::default();
        table
            .open(uplink(), SERVER, &request(number), now)
            .expect("opened");
        table
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn two_ends_meet_whoever_comes_first() {
        for first in [Device, Console] {
            let now = Instant::now();
            let mut table = opened(1, now);
            assert_eq!(table.counts(), (1, 0));
            assert_eq!(
                table.arrive(token(1, first), first, now),
                Ok(Arrival::Waits(id(1)))
            );
            assert_eq!(
                table.arrive(token(1, first.other()), first.other(), now + seconds(29)),
                Ok(Arrival::Pairs(id(1)))
            );
            assert_eq!(table.counts(), (0, 1));
            assert_eq!(table.next_deadline(), None);
        }
    }

    #[test]
    fn a_token_opens_once_while_waiting_while_running_and_afterwards() {
        let now = Instant::now();
        let mut table = opened(1, now);
        let device = token(1, Device);
        table.arrive(device, Device, now).expect("first");
        assert_eq!(table.arrive(device, Device, now), Err(Turned::Used));
        table
            .arrive(token(1, Console), Console, now)
            .expect("second");
        for (side, token) in [(Device, device), (Console, token(1, Console))] {
            assert_eq!(table.arrive(token, side, now), Err(Turned::Used));
        }
        table.finish(id(1), now).expect("was open");
        assert_eq!(table.arrive(device, Device, now), Err(Turned::Used));
    }

    #[test]
    fn the_wrong_end_is_told_so_and_takes_nothing_away() {
        let now = Instant::now();
        let mut table = opened(1, now);
        let device = token(1, Device);
        assert_eq!(table.arrive(device, Console, now), Err(Turned::WrongSide));
        assert_eq!(table.arrive(device, Device, now), Ok(Arrival::Waits(id(1))));
        assert_eq!(table.arrive(device, Console, now), Err(Turned::WrongSide));
    }

    #[test]
    fn too_late_is_told_apart_from_never_heard_of() {
        let now = Instant::now();
        let mut table = opened(1, now);
        let late = now + seconds(30);
        assert_eq!(table.next_deadline(), Some(late));
        assert_eq!(
            table.arrive(token(1, Device), Device, late),
            Err(Turned::Expired)
        );
        assert_eq!(table.expire(late - Duration::from_millis(1)), []);
        let over = Over {
            id: id(1),
            server: SERVER,
        };
        assert_eq!(table.expire(late), [over]);
        assert_eq!(
            table.arrive(token(1, Device), Device, late),
            Err(Turned::Expired)
        );
        assert_eq!(
            table.arrive(token(2, Device), Device, late),
            Err(Turned::Unknown)
        );
        // Ten minutes later nothing is known any more.
        assert_eq!(
            table.arrive(token(1, Device), Device, late + MEMORY),
            Err(Turned::Unknown)
        );
        assert!(table.past.is_empty() && table.forgotten.is_empty());
    }

    #[test]
    fn an_end_that_waited_in_vain_used_its_token_and_the_other_one_is_too_late() {
        let now = Instant::now();
        let mut table = opened(1, now);
        table
            .arrive(token(1, Console), Console, now)
            .expect("first");
        assert_eq!(table.expire(now + seconds(30)).len(), 1);
        assert_eq!(
            table.arrive(token(1, Console), Console, now + seconds(31)),
            Err(Turned::Used)
        );
        assert_eq!(
            table.arrive(token(1, Device), Device, now + seconds(31)),
            Err(Turned::Expired)
        );
    }

    #[test]
    fn a_lost_uplink_ends_what_waits_and_spares_what_runs() {
        let now = Instant::now();
        let mut table = opened(1, now);
        table
            .open(uplink(), SERVER, &request(2), now)
            .expect("opened");
        table.arrive(token(1, Device), Device, now).expect("first");
        table
            .arrive(token(1, Console), Console, now)
            .expect("second");
        table.arrive(token(2, Device), Device, now).expect("first");
        let over: Vec<_> = table
            .uplink_lost(uplink(), now)
            .iter()
            .map(|o| o.id)
            .collect();
        assert_eq!(over, [id(2)]);
        assert_eq!(table.counts(), (0, 1));
        assert_eq!(table.close(now), []);
    }

    #[test]
    fn a_server_withdraws_its_own_and_nobody_elses() {
        let now = Instant::now();
        let mut table = opened(1, now);
        assert_eq!(table.withdraw([2; 32], id(1), now), Withdrawn::NotThere);
        let over = Over {
            id: id(1),
            server: SERVER,
        };
        assert_eq!(table.withdraw(SERVER, id(1), now), Withdrawn::Over(over));
        assert_eq!(table.withdraw(SERVER, id(1), now), Withdrawn::NotThere);
        table
            .open(uplink(), SERVER, &request(2), now)
            .expect("opened");
        table.arrive(token(2, Device), Device, now).expect("first");
        table
            .arrive(token(2, Console), Console, now)
            .expect("second");
        assert_eq!(table.withdraw(SERVER, id(2), now), Withdrawn::Running);
        assert_eq!(table.counts(), (0, 1));
    }

    #[test]
    fn ids_and_tokens_are_never_used_again_and_the_time_is_clamped() {
        let now = Instant::now();
        let mut table = opened(1, now);
        let again = OpenRendezvous {
            device: token(7, Device),
            console: token(7, Console),
            ..request(1)
        };
        let same_token = OpenRendezvous {
            device: token(1, Device),
            ..request(2)
        };
        let one_token = OpenRendezvous {
            console: token(3, Device),
            ..request(3)
        };
        for wrong in [again, same_token, one_token] {
            assert_eq!(
                table.open(uplink(), SERVER, &wrong, now),
                Err(TunnelEnd::NotOpened)
            );
        }
        assert_eq!(table.tokens.len(), 2);
        let forever = OpenRendezvous {
            expires_in_seconds: u32::MAX,
            ..request(4)
        };
        table.open(uplink(), SERVER, &forever, now).expect("opened");
        assert_eq!(table.expire(now + seconds(30)).len(), 2);
    }

    #[test]
    fn neither_the_open_nor_the_past_ones_grow_without_bound() {
        let now = Instant::now();
        let mut table = Table::default();
        let most = u32::try_from(MOST_OF_ONE).expect("fits");
        for number in 0..most * 4 {
            let accepted = table.open(uplink(), SERVER, &request(number), now).is_ok();
            assert_eq!(accepted, number < most);
        }
        for round in 1..=4 {
            table.expire(now + seconds(30));
            for number in 0..most {
                table
                    .open(uplink(), SERVER, &request(round * 10_000 + number), now)
                    .expect("room again");
            }
        }
        assert_eq!(table.open.len(), MOST_OF_ONE);
        assert_eq!(table.tokens.len(), 2 * MOST_OF_ONE);
        assert_eq!(
            (table.past.len(), table.forgotten.len()),
            (MOST_PAST, MOST_PAST)
        );
    }
}
