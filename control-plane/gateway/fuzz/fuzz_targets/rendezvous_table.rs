//! The table of rendezvous against servers, devices, consoles and strangers that do anything, in simulated time. What holds: a token
//! lets in once, on its own side, in its time; exactly two ends of one rendezvous meet; a server withdraws only its own; what waits is
//! over when its time is, and told once; what runs outlives its uplink; and neither the open ones nor the memory grow without bound.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_gateway::devices::roster::{Roster, UplinkId};
use umbra_gateway::rendezvous::machine::{Arrival, MOST_OF_ONE, Table, Turned, Withdrawn};
use umbra_protocol::gateway::{Attach, OpenRendezvous, RENDEZVOUS_SECONDS, TunnelSide, token_hash};
use umbra_protocol::{RendezvousId, ServerRoot, TokenHash};

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    Open { uplink: u8, id: u8, device: u8, console: u8, seconds: u32 },
    Arrive { token: u8, console: bool },
    Finish(u8),
    Withdraw { server: u8, id: u8 },
    Expire,
    UplinkLost(u8),
    Close,
}

struct Meeting {
    uplink: u8,
    tokens: [TokenHash; 2],
    came: [bool; 2],
    until: Instant,
}

fn uplinks() -> &'static [UplinkId; 2] {
    static UPLINKS: OnceLock<[UplinkId; 2]> = OnceLock::new();
    UPLINKS.get_or_init(|| {
        let mut roster = Roster::default();
        [1, 2].map(|byte| {
            let attach = Attach {
                versions: vec![1],
                server_root: ServerRoot::from_bytes([byte; 32]),
                server_name: String::new(),
                limit: None,
            };
            roster.attach([byte; 32], &attach).0
        })
    })
}

fn id(number: u8) -> RendezvousId {
    RendezvousId::from_bytes([number % 16; 16])
}

fn token(number: u8) -> TokenHash {
    token_hash(&(number % 32).to_string())
}

fuzz_target!(|steps: Vec<Step>| {
    static START: OnceLock<Instant> = OnceLock::new();
    let mut now = *START.get_or_init(Instant::now);
    let mut table = Table::default();
    let mut open: BTreeMap<RendezvousId, Meeting> = BTreeMap::new();
    // Tokens that have let somebody in, however long ago: none does so again while it is known.
    let mut used: BTreeSet<TokenHash> = BTreeSet::new();
    let mut forgotten_at: BTreeMap<TokenHash, Instant> = BTreeMap::new();
    let over = |open: &mut BTreeMap<RendezvousId, Meeting>, forgotten: &mut BTreeMap<TokenHash, Instant>, id, now| {
        let meeting = open.remove(&id).expect("over that was not open");
        for token in meeting.tokens {
            forgotten.insert(token, now + umbra_gateway::rendezvous::machine::MEMORY);
        }
        meeting
    };
    for step in steps.iter().take(200) {
        match step {
            Step::Wait(tenths) => now += Duration::from_millis(100) * u32::from(*tenths),
            Step::Open { uplink, id: number, device, console, seconds } => {
                let of = uplink % 2;
                let request = OpenRendezvous {
                    id: id(*number),
                    device: token(*device),
                    console: token(*console),
                    expires_in_seconds: *seconds,
                };
                let opened = table.open(uplinks()[usize::from(of)], [of + 1; 32], &request, now).is_ok();
                forgotten_at.retain(|_, until| *until > now);
                let taken = |token: &TokenHash| {
                    forgotten_at.contains_key(token) || open.values().any(|meeting| meeting.tokens.contains(token))
                };
                let right = !open.contains_key(&request.id)
                    && request.device != request.console
                    && !taken(&request.device)
                    && !taken(&request.console);
                assert_eq!(opened, right, "{request:?}");
                if opened {
                    used.remove(&request.device);
                    used.remove(&request.console);
                    let (least, most) = (*RENDEZVOUS_SECONDS.start(), *RENDEZVOUS_SECONDS.end());
                    let until = now + Duration::from_secs((*seconds).clamp(least, most).into());
                    let tokens = [request.device, request.console];
                    open.insert(request.id, Meeting { uplink: of, tokens, came: [false; 2], until });
                }
            }
            Step::Arrive { token: number, console } => {
                let token = token(*number);
                let side = if *console { TunnelSide::Console } else { TunnelSide::Device };
                let arrival = table.arrive(token, side, now);
                let place = usize::from(*console);
                match arrival {
                    Ok(Arrival::Waits(id) | Arrival::Pairs(id)) => {
                        let meeting = open.get_mut(&id).expect("a rendezvous that is open");
                        assert_eq!(meeting.tokens[place], token, "a token of the other side");
                        assert!(used.insert(token), "a token let in twice");
                        assert!(!std::mem::replace(&mut meeting.came[place], true));
                        let both = meeting.came == [true; 2];
                        assert_eq!(arrival, Ok(if both { Arrival::Pairs(id) } else { Arrival::Waits(id) }));
                        assert!(meeting.until > now, "too late, and let in");
                    }
                    Err(Turned::Unknown) => {
                        assert!(!open.values().any(|meeting| meeting.tokens.contains(&token)), "a good token is unknown");
                    }
                    Err(Turned::Used) => assert!(used.contains(&token)),
                    Err(Turned::Expired | Turned::WrongSide) => {
                        let good = open.values().any(|m| m.tokens[place] == token && m.until > now && !m.came[place]);
                        assert!(!good, "a good token is turned away");
                    }
                }
            }
            Step::Finish(number) => {
                let known = open.contains_key(&id(*number));
                assert_eq!(table.finish(id(*number), now).is_some(), known);
                if known {
                    over(&mut open, &mut forgotten_at, id(*number), now);
                }
            }
            Step::Withdraw { server, id: number } => {
                let server = server % 2;
                match table.withdraw([server + 1; 32], id(*number), now) {
                    Withdrawn::Over(ended) => {
                        let meeting = over(&mut open, &mut forgotten_at, ended.id, now);
                        assert!(meeting.uplink == server && meeting.came != [true; 2], "of another server, or running");
                    }
                    Withdrawn::Running => assert_eq!(open[&id(*number)].came, [true; 2]),
                    Withdrawn::NotThere => assert!(open.get(&id(*number)).is_none_or(|meeting| meeting.uplink != server)),
                }
            }
            Step::Expire => {
                for ended in table.expire(now) {
                    let meeting = over(&mut open, &mut forgotten_at, ended.id, now);
                    assert!(meeting.until <= now && meeting.came != [true; 2]);
                }
                assert!(open.values().all(|meeting| meeting.until > now || meeting.came == [true; 2]), "it stays open");
                assert!(table.next_deadline().is_none_or(|due| due > now));
            }
            Step::UplinkLost(uplink) => {
                let of = uplink % 2;
                for ended in table.uplink_lost(uplinks()[usize::from(of)], now) {
                    let meeting = over(&mut open, &mut forgotten_at, ended.id, now);
                    assert!(meeting.uplink == of && meeting.came != [true; 2], "it takes what runs with it");
                }
                assert!(open.values().all(|meeting| meeting.uplink != of || meeting.came == [true; 2]));
            }
            Step::Close => {
                for ended in table.close(now) {
                    over(&mut open, &mut forgotten_at, ended.id, now);
                }
                assert!(open.values().all(|meeting| meeting.came == [true; 2]));
            }
        }
        let running = open.values().filter(|meeting| meeting.came == [true; 2]).count();
        assert_eq!(table.counts(), (open.len() - running, running));
        assert!(open.len() <= 2 * MOST_OF_ONE);
        let next = open.values().filter(|meeting| meeting.came != [true; 2]).map(|meeting| meeting.until).min();
        assert_eq!(table.next_deadline(), next, "a rendezvous that nobody would end in time");
    }
});
