//! Who may enter a gateway, against servers and crowds that do anything, in simulated time. What holds: nobody enters but for a server
//! that is there and wanted; strangers, of one source, of one uplink and of all, stay within their room; who is shown out was
//! there, waited long enough, and was no more than others; a server admits only its own; nobody is counted after leaving; and an
//! admitted device never has to make room for a stranger.
#![no_main]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_carrier::crowd::GRACE;
use umbra_gateway::devices::roster::{Admission, Room, Roster, Turned, UplinkId};
use umbra_protocol::ServerRoot;
use umbra_protocol::gateway::Attach;

#[derive(Arbitrary, Debug)]
struct Run {
    strangers: u8,
    of_uplink: u8,
    of_one: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u8),
    Attach { server: u8, limit: Option<u8> },
    Detach(u8),
    Limit(u8, Option<u8>),
    Enter { root: Option<u8>, source: Option<u8> },
    Admit { uplink: u8, stream: u8 },
    Leave(u8),
}

#[derive(Clone, Copy)]
struct Device {
    uplink: UplinkId,
    source: Option<u8>,
    since: Instant,
    admitted: bool,
}

struct Uplink {
    id: UplinkId,
    root: u8,
    limit: Option<u8>,
}

fn root(byte: u8) -> ServerRoot {
    ServerRoot::from_bytes([byte % 3; 32])
}

fuzz_target!(|run: Run| {
    static START: OnceLock<Instant> = OnceLock::new();
    let mut now = *START.get_or_init(Instant::now);
    let room = Room {
        strangers: usize::from(run.strangers % 12) + 1,
        of_uplink: usize::from(run.of_uplink % 8) + 1,
        of_one: usize::from(run.of_one % 6) + 1,
    };
    let mut roster = Roster::new(room);
    let mut uplinks: Vec<Uplink> = Vec::new();
    let mut devices: BTreeMap<u64, Device> = BTreeMap::new();
    let mut last_stream = None;
    for step in run.steps.iter().take(300) {
        let pick = |index: u8| devices.keys().copied().nth(usize::from(index) % devices.len().max(1)).unwrap_or(u64::MAX);
        match step {
            Step::Wait(seconds) => now += Duration::from_secs((*seconds).into()),
            Step::Attach { server, limit } if uplinks.len() < 6 => {
                let attach = Attach {
                    versions: vec![1],
                    server_root: root(*server),
                    server_name: String::new(),
                    limit: limit.map(u32::from),
                };
                let (id, older) = roster.attach([server % 3; 32], &attach);
                assert!(uplinks.iter().all(|uplink| uplink.id != id));
                assert_eq!(older.is_some(), uplinks.iter().any(|uplink| uplink.root == server % 3));
                uplinks.push(Uplink { id, root: server % 3, limit: *limit });
            }
            Step::Attach { .. } => {}
            Step::Detach(index) if !uplinks.is_empty() => {
                let gone = uplinks.remove(usize::from(*index) % uplinks.len()).id;
                let mut told = roster.detach(gone);
                told.sort_unstable();
                let mine: Vec<u64> =
                    devices.iter().filter(|(_, device)| device.uplink == gone).map(|(stream, _)| *stream).collect();
                assert_eq!(told, mine, "devices of a lost uplink");
                devices.retain(|_, device| device.uplink != gone);
            }
            Step::Detach(_) => {}
            Step::Limit(index, limit) if !uplinks.is_empty() => {
                let count = uplinks.len();
                let uplink = &mut uplinks[usize::from(*index) % count];
                uplink.limit = *limit;
                roster.set_limit(uplink.id, limit.map(u32::from));
            }
            Step::Limit(..) => {}
            Step::Enter { root: wanted, source } => {
                let source = source.map(|source| source % 6);
                let address = source.map(|last| IpAddr::from([192, 0, 2, last]).into());
                let entered = roster.enter(wanted.map(root), address, now);
                let fitting: Vec<&Uplink> =
                    uplinks.iter().filter(|uplink| wanted.is_none_or(|root| uplink.root == root % 3)).collect();
                let admitted = |id: UplinkId| devices.values().filter(|d| d.uplink == id && d.admitted).count();
                let wants = |uplink: &&&Uplink| uplink.limit.is_none_or(|limit| admitted(uplink.id) < usize::from(limit));
                match entered {
                    Ok(entry) => {
                        let uplink = fitting.iter().find(|uplink| uplink.id == entry.uplink).expect("another server's");
                        assert!(wants(&uplink), "a server that wants no more");
                        assert!(last_stream.is_none_or(|last| entry.stream > last), "a number was used again");
                        last_stream = Some(entry.stream);
                        if let Some(out) = entry.shown_out {
                            let gone = devices.remove(&out).expect("somebody who is there");
                            assert!(!gone.admitted, "an admitted device has to go for a stranger");
                            assert!(now - gone.since >= GRACE, "somebody who has only just come");
                            let of = |one: Option<u8>| devices.values().filter(|d| !d.admitted && d.source == one).count();
                            let most_elsewhere = (0..6).map(|s| of(Some(s))).chain([of(None)]).max().unwrap_or(0);
                            let full = devices.values().filter(|d| !d.admitted).count() + 1 >= room.strangers;
                            let uplink_full =
                                devices.values().filter(|d| !d.admitted && d.uplink == entry.uplink).count() + 1 >= room.of_uplink;
                            assert!(full || uplink_full, "shown out though there is room");
                            assert!(uplink_full || of(gone.source) + 1 >= most_elsewhere, "not the greediest");
                        }
                        let device = Device { uplink: entry.uplink, source, since: now, admitted: false };
                        devices.insert(entry.stream, device);
                    }
                    Err(Turned::NoServer) => assert!(fitting.is_empty()),
                    Err(Turned::Full(id)) => {
                        assert!(fitting.iter().any(|uplink| uplink.id == id));
                        assert!(!fitting.iter().any(|uplink| wants(&uplink)), "turned away though it is wanted");
                    }
                    Err(Turned::Crowded) => {
                        let strangers = devices.values().filter(|d| !d.admitted);
                        let of_one = strangers.clone().filter(|d| d.source.is_some() && d.source == source).count();
                        let on_one = fitting.iter().map(|u| strangers.clone().filter(|d| d.uplink == u.id).count()).max();
                        assert!(
                            of_one >= room.of_one
                                || strangers.count() >= room.strangers
                                || on_one.is_some_and(|count| count >= room.of_uplink),
                            "crowded, with room"
                        );
                    }
                }
            }
            Step::Admit { uplink, stream } => {
                let Some(uplink) = uplinks.get(usize::from(*uplink) % uplinks.len().max(1)) else { continue };
                let stream = pick(*stream);
                let waits = devices.get(&stream).is_some_and(|d| d.uplink == uplink.id && !d.admitted);
                let has = devices.values().filter(|d| d.uplink == uplink.id && d.admitted).count();
                match roster.admit(uplink.id, stream) {
                    Admission::Stays => {
                        assert!(waits, "another server's device, or one that does not wait");
                        assert!(uplink.limit.is_none_or(|limit| has < usize::from(limit)), "more than it wants");
                        devices.get_mut(&stream).expect("there").admitted = true;
                    }
                    Admission::Full => {
                        assert!(waits && uplink.limit.is_some_and(|limit| has >= usize::from(limit)));
                        devices.remove(&stream);
                    }
                    Admission::Unknown => assert!(!waits),
                }
            }
            Step::Leave(stream) => {
                let stream = pick(*stream);
                roster.leave(stream);
                devices.remove(&stream);
            }
        }
        let strangers = devices.values().filter(|device| !device.admitted).count();
        assert_eq!((roster.strangers(), roster.admitted()), (strangers, devices.len() - strangers));
        assert_eq!(roster.servers(), uplinks.len());
        assert!(strangers <= room.strangers, "more strangers than there is room for");
        for uplink in &uplinks {
            let on = devices.values().filter(|d| !d.admitted && d.uplink == uplink.id).count();
            assert!(on <= room.of_uplink, "more strangers on one uplink than there is room for");
        }
        for one in 0..6 {
            let of = devices.values().filter(|d| !d.admitted && d.source == Some(one)).count();
            assert!(of <= room.of_one, "more of one source than there is room for");
        }
        for (stream, device) in &devices {
            assert_eq!(roster.uplink_of(*stream), Some(device.uplink));
        }
    }
});
