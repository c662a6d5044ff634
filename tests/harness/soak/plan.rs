//! Which fault comes when: made from a seed before anything runs, so that the same seed brings the same faults in the same order. Pure.

use std::fmt;
use std::time::Duration;

/// Numbers that look random and follow from a seed (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    /// The numbers of this seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a limit that is not zero.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.number() % limit).unwrap_or_default()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A kind of fault: a row of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    /// SIGKILL of an agent.
    KillAgent,
    /// SIGKILL of the gateway.
    KillGateway,
    /// SIGKILL of the server.
    KillServer,
    /// Connections are reset.
    Cut,
    /// Connections that are there are reset, and new ones refused.
    Refuse,
    /// Few bytes pass in a second.
    Delay,
    /// Bytes pass one at a time.
    Slice,
    /// Bits are turned.
    Corrupt,
    /// Bytes are swallowed in silence until it is over.
    BlackHole,
    /// One direction ends, the other goes on.
    HalfClose,
    /// The wall clock of a device jumps, and back.
    AgentClock,
    /// The wall clock of the server jumps, and back.
    ServerClock,
    /// The disk of a device is full.
    AgentDisk,
    /// The disk of the server is full.
    ServerDisk,
}

impl Row {
    /// All of them.
    pub(super) const ALL: [Row; 14] = [
        Row::KillAgent,
        Row::KillGateway,
        Row::KillServer,
        Row::Cut,
        Row::Refuse,
        Row::Delay,
        Row::Slice,
        Row::Corrupt,
        Row::BlackHole,
        Row::HalfClose,
        Row::AgentClock,
        Row::ServerClock,
        Row::AgentDisk,
        Row::ServerDisk,
    ];

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Row::KillAgent => "kill an agent",
            Row::KillGateway => "kill the gateway",
            Row::KillServer => "kill the server",
            Row::Cut => "cut a line",
            Row::Refuse => "refuse connections",
            Row::Delay => "delay",
            Row::Slice => "one byte at a time",
            Row::Corrupt => "corrupt",
            Row::BlackHole => "black hole",
            Row::HalfClose => "half-close",
            Row::AgentClock => "clock of a device",
            Row::ServerClock => "clock of the server",
            Row::AgentDisk => "full disk of a device",
            Row::ServerDisk => "full disk of the server",
        }
    }

    fn ends_a_program(self) -> bool {
        matches!(self, Row::KillAgent | Row::KillGateway | Row::KillServer)
    }
}

/// A line that faults happen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Between devices and the server.
    Server,
    /// Between devices and the gateway.
    Gateway,
    /// Between the gateway and the server and consoles.
    Uplink,
}

impl Line {
    /// All of them.
    pub(super) const ALL: [Line; 3] = [Line::Server, Line::Gateway, Line::Uplink];

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Line::Server => "devices to server",
            Line::Gateway => "devices to gateway",
            Line::Uplink => "server and consoles to gateway",
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its kind.
    pub(super) row: Row,
    /// The device that it happens to, where it happens to one.
    pub(super) device: usize,
    /// The line that it happens to, where it happens to one.
    pub(super) line: Line,
    /// Chooses among variants: a direction, a pace, how far a clock jumps.
    pub(super) variant: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row.name())?;
        match self.row {
            Row::KillGateway | Row::KillServer | Row::ServerClock | Row::ServerDisk => Ok(()),
            Row::KillAgent | Row::AgentClock | Row::AgentDisk => {
                write!(f, " (device-{})", self.device + 1)
            }
            Row::Cut
            | Row::Refuse
            | Row::Delay
            | Row::Slice
            | Row::Corrupt
            | Row::BlackHole
            | Row::HalfClose => write!(f, " ({})", self.line.name()),
        }
    }
}

/// Faults that happen together, and the time after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// One, or two that overlap.
    pub(super) faults: Vec<Fault>,
    /// How long they last.
    pub(super) hold: Duration,
    /// How long nothing happens afterwards.
    pub(super) recover: Duration,
}

/// What a plan is made for.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// The seed.
    pub(super) seed: u64,
    /// How long the faults may take in all.
    pub(super) time: Duration,
    /// How many devices there are; the first two are not killed once memory is compared.
    pub(super) devices: usize,
    /// The rows that are possible here.
    pub(super) rows: Vec<Row>,
}

/// All faults, in two parts. Between them memory and files are looked at for the first time; the second part leaves gateway, server and two
/// devices alive, so that what they were then can be compared with what they are at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Every row at least once, if there is time for it.
    pub(super) first: Vec<Step>,
    /// The rest.
    pub(super) second: Vec<Step>,
}

/// Devices that live through the second part: one on each way.
pub(super) const STEADY: usize = 2;
/// The part of the time that belongs to the first part, in percent.
const FIRST: u32 = 60;

impl Plan {
    /// The plan of a seed.
    pub(super) fn new(order: &Order) -> Self {
        let mut chance = Chance::new(order.seed);
        let first = part(order, &mut chance, order.time * FIRST / 100, false);
        let second = part(order, &mut chance, order.time * (100 - FIRST) / 100, true);
        Self { first, second }
    }

    /// The rows that occur.
    pub(super) fn rows(&self) -> Vec<Row> {
        let steps = self.first.iter().chain(&self.second);
        let mut rows: Vec<Row> = steps
            .flat_map(|step| step.faults.iter().map(|fault| fault.row))
            .collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

/// Rounds through all rows until the time is over: the first one fault by fault, the next ones in pairs.
fn part(order: &Order, chance: &mut Chance, time: Duration, steady: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut left = time;
    let mut together = if steady { 2 } else { 1 };
    loop {
        let mut rows: Vec<Row> = order.rows.clone();
        if steady {
            let others = order.devices > STEADY;
            rows.retain(|row| !row.ends_a_program() || (*row == Row::KillAgent && others));
        }
        if rows.is_empty() {
            return steps;
        }
        chance.shuffle(&mut rows);
        for rows in rows.chunks(together) {
            let faults: Vec<Fault> = rows
                .iter()
                .map(|row| fault(order, chance, *row, steady))
                .collect();
            // Longer than two heartbeats are missed, so that a silent line is noticed.
            let hold = Duration::from_millis(2500 + chance.number() % 4000);
            let recover = Duration::from_millis(3500 + chance.number() % 3000);
            let Some(rest) = left.checked_sub(hold + recover) else {
                return steps;
            };
            left = rest;
            steps.push(Step {
                faults,
                hold,
                recover,
            });
        }
        together = if together == 2 { 1 } else { 2 };
    }
}

fn fault(order: &Order, chance: &mut Chance, row: Row, steady: bool) -> Fault {
    let spared = if steady && row == Row::KillAgent {
        STEADY
    } else {
        0
    };
    Fault {
        row,
        device: spared + chance.below(order.devices.saturating_sub(spared)),
        line: Line::ALL[chance.below(Line::ALL.len())],
        variant: chance.below(1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64, seconds: u64) -> Order {
        Order {
            seed,
            time: Duration::from_secs(seconds),
            devices: 4,
            rows: Row::ALL.to_vec(),
        }
    }

    fn all(plan: &Plan) -> Vec<Step> {
        plan.first.iter().chain(&plan.second).cloned().collect()
    }

    #[test]
    fn a_seed_brings_the_same_faults_again_and_another_seed_brings_others() {
        assert_eq!(Plan::new(&order(7, 300)), Plan::new(&order(7, 300)));
        assert_ne!(Plan::new(&order(7, 300)), Plan::new(&order(8, 300)));
    }

    #[test]
    fn in_five_minutes_every_row_occurs_whatever_the_seed() {
        for seed in 0..500 {
            let plan = Plan::new(&order(seed, 270));
            assert_eq!(plan.rows(), Row::ALL, "seed {seed}");
        }
    }

    #[test]
    fn faults_come_alone_and_in_pairs_and_in_their_time() {
        for seconds in [5, 60, 270, 3600] {
            let steps = all(&Plan::new(&order(3, seconds)));
            let time: Duration = steps.iter().map(|step| step.hold + step.recover).sum();
            assert!(time <= Duration::from_secs(seconds), "{time:?}");
            if seconds >= 270 {
                assert!(steps.iter().any(|step| step.faults.len() == 1));
                assert!(steps.iter().any(|step| step.faults.len() == 2));
                assert!(time * 10 > Duration::from_secs(seconds) * 8, "{time:?}");
            }
        }
    }

    #[test]
    fn what_is_compared_lives_through_the_second_part() {
        for seed in 0..100 {
            let plan = Plan::new(&order(seed, 1800));
            let killed = plan.second.iter().flat_map(|step| &step.faults);
            for fault in killed {
                assert!(!matches!(fault.row, Row::KillGateway | Row::KillServer));
                assert!(fault.row != Row::KillAgent || (STEADY..4).contains(&fault.device));
            }
        }
    }

    #[test]
    fn with_two_devices_no_agent_is_killed_once_memory_is_compared() {
        let plan = Plan::new(&Order {
            devices: STEADY,
            ..order(1, 900)
        });
        let rows = plan.second.iter().flat_map(|step| &step.faults);
        assert!(rows.clone().count() > 10);
        assert!(rows.clone().all(|fault| fault.row != Row::KillAgent));
    }

    #[test]
    fn rows_that_are_not_possible_do_not_occur() {
        let mut order = order(1, 600);
        order.rows.retain(|row| *row != Row::ServerDisk);
        assert!(!Plan::new(&order).rows().contains(&Row::ServerDisk));
    }
}
