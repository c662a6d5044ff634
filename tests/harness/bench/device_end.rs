//! The device end as a proxy: ends TLS, forwards to a VNC server.

use std::time::Instant;

use anyhow::Context as _;

use super::Wish;
use super::load::{Tunnel, Way, move_bytes};
use super::peers::{Candidate, Place, start};
use super::report::{Quantity, Section, less, more, percentile};
use crate::scratch::Scratch;

const ABOUT: &str = "One proxy process between a console that speaks TLS 1.3 (AES-256-GCM, ECDSA P-256 certificate, no resumption) and a VNC \
server on loopback that sends, takes or echoes bytes. `umbra` is the library's device end as the agent uses it, behind a door that lets \
everybody in (`vnc-proxy/examples/device_end.rs`). CPU is that of the proxy's processes alone, memory their resident pages in sum.";

const GIB: f64 = (1_u64 << 30) as f64;

struct Bulk {
    way: Way,
    tunnels: usize,
    cpu: Quantity,
    rate: Quantity,
}

const BULK: [Bulk; 4] = [
    Bulk {
        way: Way::Down,
        tunnels: 1,
        cpu: less("CPU, pixels' way, 1 tunnel", "s/GiB"),
        rate: more("throughput, pixels' way, 1 tunnel", "MiB/s"),
    },
    Bulk {
        way: Way::Down,
        tunnels: 8,
        cpu: less("CPU, pixels' way, 8 tunnels", "s/GiB"),
        rate: more("throughput, pixels' way, 8 tunnels", "MiB/s"),
    },
    Bulk {
        way: Way::Up,
        tunnels: 1,
        cpu: less("CPU, console to device, 1 tunnel", "s/GiB"),
        rate: more("throughput, console to device, 1 tunnel", "MiB/s"),
    },
    Bulk {
        way: Way::Up,
        tunnels: 8,
        cpu: less("CPU, console to device, 8 tunnels", "s/GiB"),
        rate: more("throughput, console to device, 8 tunnels", "MiB/s"),
    },
];

const MEDIAN: Quantity = less("64-byte ping-pong, p50", "µs");
const SLOWEST: Quantity = less("64-byte ping-pong, p99", "µs");
const OPENING: Quantity = less("CPU per tunnel opened (handshake and all)", "ms");
const OPENINGS: Quantity = more("tunnels opened one after the other", "per s");
const EMPTY: Quantity = less("memory, before the first tunnel", "KiB");
const CROWDED: Quantity = less("memory, with 100 idle tunnels", "KiB");
const EACH: Quantity = less("memory per idle tunnel", "KiB");

const CROWD: usize = 100;

pub(super) async fn measure(
    wish: &Wish,
    scratch: &Scratch,
    say: &impl Fn(&str),
) -> anyhow::Result<Section> {
    let mut section = Section::new("device-end", ABOUT);
    let place = Place::new(scratch)?;
    let mut candidates = start(wish, &place, &mut section.missing).await?;
    // Memory first: what has once moved many bytes is no longer as it was.
    for candidate in &candidates {
        memory(candidate, &mut section).with_context(|| format!("{}: memory", candidate.name))?;
    }
    let rounds = wish.pick(3, 7);
    for round in 1..=rounds {
        say(&format!("    round {round} of {rounds}"));
        // Nobody always follows the same other.
        candidates.rotate_left(1);
        for bulk in &BULK {
            for candidate in &candidates {
                carry(candidate, bulk, wish.pick(256 << 20, 1 << 30), &mut section)
                    .with_context(|| format!("{}: {}", candidate.name, bulk.cpu.name))?;
            }
        }
        for candidate in &candidates {
            ping(candidate, wish.pick(2000, 5000), &mut section)
                .with_context(|| format!("{}: ping-pong", candidate.name))?;
        }
        for candidate in &candidates {
            open(candidate, wish.pick(100, 400), &mut section)
                .with_context(|| format!("{}: openings", candidate.name))?;
        }
    }
    Ok(section.finished())
}

fn tunnels(candidate: &Candidate, count: usize) -> std::io::Result<Vec<Tunnel>> {
    (0..count)
        .map(|_| Tunnel::open(candidate.address, &candidate.door))
        .collect()
}

fn memory(candidate: &Candidate, section: &mut Section) -> std::io::Result<()> {
    let empty = candidate.family.resident_kib() as f64;
    let mut crowd = tunnels(candidate, CROWD)?;
    // Each has moved something, as a viewer's has before it stands still.
    for tunnel in &mut crowd {
        tunnel.down(1 << 20)?;
        tunnel.up(1 << 16)?;
        tunnel.ping(1)?;
    }
    let crowded = candidate.family.resident_kib() as f64;
    section.note(&EMPTY, candidate.name, empty);
    section.note(&CROWDED, candidate.name, crowded);
    section.note(&EACH, candidate.name, (crowded - empty) / CROWD as f64);
    Ok(())
}

fn carry(
    candidate: &Candidate,
    bulk: &Bulk,
    bytes: u64,
    section: &mut Section,
) -> std::io::Result<()> {
    let mut tunnels = tunnels(candidate, bulk.tunnels)?;
    let before = candidate.family.cpu_of_living();
    let took = move_bytes(&mut tunnels, bulk.way, bytes)?;
    let cpu = candidate.family.cpu_of_living() - before;
    section.note(&bulk.cpu, candidate.name, cpu * GIB / bytes as f64);
    let mib = bytes as f64 / f64::from(1 << 20);
    section.note(&bulk.rate, candidate.name, mib / took.as_secs_f64());
    Ok(())
}

fn ping(candidate: &Candidate, count: u64, section: &mut Section) -> std::io::Result<()> {
    let mut tunnel = Tunnel::open(candidate.address, &candidate.door)?;
    tunnel.ping(count / 10)?;
    let times: Vec<f64> = tunnel
        .ping(count)?
        .iter()
        .map(|time| time.as_secs_f64() * 1e6)
        .collect();
    section.note(&MEDIAN, candidate.name, percentile(&times, 50.0));
    section.note(&SLOWEST, candidate.name, percentile(&times, 99.0));
    Ok(())
}

fn open(candidate: &Candidate, count: usize, section: &mut Section) -> std::io::Result<()> {
    let before = candidate.family.cpu_of_all();
    let start = Instant::now();
    for _ in 0..count {
        Tunnel::open(candidate.address, &candidate.door)?;
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = candidate.family.cpu_of_all() - before;
    section.note(&OPENING, candidate.name, cpu * 1e3 / count as f64);
    section.note(&OPENINGS, candidate.name, count as f64 / took);
    Ok(())
}
