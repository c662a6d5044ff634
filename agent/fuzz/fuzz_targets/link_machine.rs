//! The control link in simulated time, against any order of what a server, a network, a person and the registry can do. What
//! holds: an attempt only where it is allowed and none beside another; nothing is said without a connection; every question and
//! every wish to leave has one answer; no wait is longer than the longest or comes again at once; what a person has to mend is not
//! tried every second; nothing begins after the end; and over a good network the device is online within a bound.
#![no_main]

use std::collections::BTreeSet;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_agent::link::backoff::Backoff;
use umbra_agent::link::events::{Input, LinkSettings, LinkStatus, Moment, Output};
use umbra_agent::link::machine::{Machine, SLOW_RETRY};
use umbra_agent::link::trouble::Trouble;
use umbra_protocol::codec::DecodeError;
use umbra_protocol::command::CommandProgress;
use umbra_protocol::hello::{DeviceFacts, Hello, Intent, TrustAnchors, Welcome, feature};
use umbra_protocol::link::{Beat, Goodbye, ServerBeat};
use umbra_protocol::message::Left;
use umbra_protocol::session::{Presented, SessionVerdict, Verdict};
use umbra_protocol::{CommandId, FromDevice, FromServer, Refusal, RefusalCode, Remedy, Secret, limits};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Arbitrary, Debug)]
struct Run {
    seed: u64,
    ways: u8,
    allowed: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    ToTheDeadline,
    Start,
    Connected,
    ConnectFailed(Why),
    Welcome { version: u8, heartbeat: u8, features: u8 },
    Refused(u8, Option<u32>),
    Goodbye(Option<u32>),
    Pong,
    Verdict(u8),
    Left,
    Enrolled,
    Unreadable(u8),
    Ended,
    Closed(Why),
    Ask,
    Tell(bool),
    Leave,
    Settings { timeout: u8, longest: u16, allowed: bool },
    Relink,
    NetworkChanged,
    Ways { preferred: Vec<bool>, start: u8, leave: bool },
    Stays(u8, Option<u8>),
    Probed(u8, Option<Why>),
    Shutdown,
    Ping(u64),
}

#[derive(Arbitrary, Debug)]
struct Why {
    lasting: bool,
    of_way: bool,
    after: Option<u32>,
}

fn trouble(why: &Why) -> Trouble {
    let make = if why.lasting { Trouble::lasting } else { Trouble::passing };
    Trouble {
        of_way: why.of_way,
        retry_after: why.after.map(|seconds| Duration::from_secs(seconds.into())),
        ..make("x", "It did not work.")
    }
}

/// What a driver knows, and what it may rely on.
struct Driver {
    machine: Machine,
    now: Moment,
    ways: usize,
    allowed: bool,
    longest: Duration,
    /// An attempt is under way, or its connection stands.
    open: bool,
    /// The connection of the attempt stands.
    connected: bool,
    asked: BTreeSet<u64>,
    next_question: u64,
    leaving: bool,
    stopped: bool,
    /// The server sends heartbeats; the one that has no echo yet.
    server_asks: bool,
    heard: Option<u64>,
    /// Time passes, and nothing else.
    ticking: bool,
    /// When the last attempt began, and from when the next one may, if nobody asks for an earlier one.
    last_attempt: Option<Moment>,
    not_before: Moment,
}

impl Driver {
    fn feed(&mut self, input: Input) {
        let outputs = self.machine.handle(input, self.now);
        assert!(outputs.len() <= 8 + self.asked.len() + self.ways, "too much at once: {outputs:?}");
        for output in outputs {
            self.take(output);
        }
        assert_eq!(self.stopped, self.machine.next_deadline().is_none() && self.stopped, "a timer after the end");
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Connect(way) => {
                assert!(!self.stopped && self.allowed, "an attempt that nobody allows");
                assert!(!self.open, "an attempt beside another");
                assert!(way < self.ways, "a way that there is not");
                assert!(self.now >= self.not_before, "tried at {:?}, before {:?}", self.now, self.not_before);
                self.open = true;
                self.last_attempt = Some(self.now);
            }
            Output::Send(message) => {
                assert!(self.open && self.connected, "said to nobody");
                match *message {
                    FromDevice::Pong(beat) => assert_eq!(self.heard.take(), Some(beat.number), "an echo of nothing"),
                    FromDevice::Ping(_) => assert!(!self.server_asks || !self.ticking, "it asks although the server does"),
                    _ => {}
                }
            }
            Output::Close => (self.open, self.connected) = (false, false),
            Output::Answer { question, answer } => {
                assert!(self.asked.remove(&question), "an answer that nobody waits for: {answer:?}");
            }
            Output::Left(_) => assert!(std::mem::take(&mut self.leaving), "left without having wanted to"),
            Output::Status(LinkStatus::Waiting { trouble, until }) => {
                assert!(!self.open, "it waits with a connection");
                assert!(!self.stopped);
                assert!(until >= self.now, "a wait into the past");
                let most = limits::RETRY_AFTER_MAX.max(SLOW_RETRY * 5 / 4).max(self.longest);
                assert!(until - self.now <= most, "{:?}", until - self.now);
                assert!(until - self.now >= Duration::from_millis(500), "a wait that is none");
                self.not_before = until;
                if trouble.remedy != Remedy::Retry {
                    assert!(until - self.now >= SLOW_RETRY, "what a person has to mend is tried too soon");
                }
            }
            Output::Status(LinkStatus::Online { .. }) | Output::Welcomed(_) => {
                assert!(self.connected && self.machine.is_online());
            }
            Output::Stopped => {
                assert!(!std::mem::replace(&mut self.stopped, true), "ended twice");
                assert!(!self.open);
            }
            Output::Probe(way) => assert!(way < self.ways && self.machine.is_online()),
            Output::Failed { connector, .. } => assert!(connector < self.ways),
            Output::Status(LinkStatus::Offline | LinkStatus::Connecting) | Output::Deliver(_) => {}
        }
    }

    /// Lets time pass as a driver does: with a tick at each deadline.
    fn wait(&mut self, until: Moment) {
        let mut ticks_now = 0;
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= until) {
            if due > self.now {
                (self.now, ticks_now) = (due, 0);
            }
            ticks_now += 1;
            assert!(ticks_now <= 2 * self.ways + 6, "it runs hot at {:?}", self.now);
            self.ticking = true;
            self.feed(Input::Tick);
            self.ticking = false;
        }
        self.now = self.now.max(until);
    }

    /// Somebody may ask for an attempt before its time; then it is one second after the last one at the soonest.
    fn sooner(&mut self) {
        self.not_before = self.last_attempt.map_or(Duration::ZERO, |last| last + SECOND).min(self.not_before);
    }

    fn frame(&mut self, frame: impl Into<FromServer>) {
        if self.connected {
            self.feed(Input::Frame(Box::new(frame.into())));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(hundredths) => self.wait(self.now + Duration::from_millis(10) * u32::from(*hundredths)),
            Step::ToTheDeadline => {
                if let Some(due) = self.machine.next_deadline() {
                    self.wait(due);
                }
            }
            Step::Start => {
                // Only who is offline begins; that is no attempt again.
                self.not_before = if self.machine.next_deadline().is_none() { Duration::ZERO } else { self.not_before };
                self.feed(Input::Start);
            }
            Step::Connected if self.open && !self.connected => {
                self.connected = true;
                self.feed(Input::Connected(Box::new(hello())));
            }
            // It comes after the attempt was given up: it must be closed, and nothing else.
            Step::Connected if !self.open => {
                let outputs = self.machine.handle(Input::Connected(Box::new(hello())), self.now);
                assert_eq!(outputs, [Output::Close]);
            }
            Step::Connected => {}
            Step::ConnectFailed(why) if self.open && !self.connected => {
                self.feed(Input::ConnectFailed(trouble(why)));
            }
            Step::ConnectFailed(_) => {}
            Step::Welcome { version, heartbeat, features } => {
                let before = self.machine.is_online();
                self.frame(welcome(*version % 3, *heartbeat, *features));
                // A second one on the same link says nothing.
                if !before && self.machine.is_online() {
                    self.server_asks = features & 2 != 0;
                }
            }
            Step::Refused(code, after) => {
                let code = RefusalCode::ALL[usize::from(*code) % RefusalCode::ALL.len()];
                let mut refusal = Refusal::new(code, "No.");
                refusal.retry_after_seconds = *after;
                self.frame(refusal);
            }
            Step::Goodbye(after) => self.frame(Goodbye { sentence: "Bye.".into(), retry_after_seconds: *after }),
            Step::Pong => self.frame(Beat { number: 1 }),
            Step::Ping(number) => {
                self.heard = Some(*number);
                let online = self.machine.is_online();
                self.frame(ServerBeat { number: *number });
                assert!(!online || self.heard.is_none(), "a heartbeat without its echo");
                self.heard = None;
            }
            Step::Verdict(which) => {
                let verdict = Verdict::Refused(Refusal::new(RefusalCode::TicketInvalid, "No."));
                self.frame(SessionVerdict { question: u64::from(*which), verdict });
            }
            Step::Left => self.frame(Left {}),
            Step::Enrolled => self.frame(umbra_protocol::enrolment::Challenge {
                version: 1,
                nonce: String::new(),
                salt: String::new(),
                rounds: 1,
            }),
            Step::Unreadable(kind) if self.connected => {
                self.feed(Input::Unreadable(match kind % 3 {
                    0 => DecodeError::UnknownType("x".into()),
                    1 => DecodeError::Malformed("x".into()),
                    _ => DecodeError::TooLarge { size: 2, limit: 1 },
                }));
            }
            Step::Unreadable(_) => {}
            Step::Ended if self.connected => self.feed(Input::Ended),
            Step::Closed(why) if self.connected => self.feed(Input::Closed(trouble(why))),
            Step::Ended | Step::Closed(_) => {}
            Step::Ask => {
                let question = self.next_question;
                self.next_question += 1;
                self.asked.insert(question);
                let presented = Presented::LegacyPassword { password: Secret::new("x") };
                self.feed(Input::Ask { question, presented });
                assert!(self.asked.len() <= 64, "too many open questions");
            }
            Step::Tell(progress) => self.feed(Input::Tell(Box::new(if *progress {
                FromDevice::CommandProgress(CommandProgress {
                    id: CommandId::from_bytes([1; 16]),
                    sentence: "On its way.".into(),
                    percent: None,
                })
            } else {
                FromDevice::Ping(Beat { number: 1 })
            }))),
            // The driver answers a second wish by itself.
            Step::Leave if !self.leaving => {
                self.leaving = true;
                self.feed(Input::Leave);
            }
            Step::Leave => {}
            Step::Settings { timeout, longest, allowed } => {
                self.allowed = *allowed && !self.stopped;
                self.longest = Duration::from_secs((*longest).into()).max(self.longest);
                if *allowed {
                    // Switched on, it begins; changed, it looks whether that helps.
                    self.not_before = if self.machine.next_deadline().is_none() { Duration::ZERO } else { self.not_before };
                    self.sooner();
                }
                self.feed(Input::Settings(LinkSettings {
                    connect_timeout: Duration::from_secs(u64::from(*timeout) + 1),
                    reconnect_interval: Duration::from_secs((*longest).into()),
                    allowed: *allowed,
                }));
            }
            Step::Relink => self.feed(Input::Relink("Something is new.".into())),
            Step::NetworkChanged => {
                self.sooner();
                self.feed(Input::NetworkChanged);
            }
            Step::Ways { preferred, start, leave } => {
                let preferred: Vec<bool> = preferred.iter().copied().take(6).collect();
                self.ways = preferred.len().max(1);
                self.sooner();
                let leave = leave.then(|| "Another way.".to_owned());
                let input = Input::Ways { preferred, start: (*start).into(), leave };
                self.feed(input);
                self.sooner();
            }
            Step::Stays(way, fresh) => self.machine.stays((*way).into(), fresh.map(usize::from)),
            Step::Probed(way, why) => {
                let result = why.as_ref().map_or(Ok(()), |why| Err(trouble(why)));
                self.feed(Input::Probed { connector: (*way).into(), result });
            }
            Step::Shutdown => {
                self.feed(Input::Shutdown);
                assert!(self.stopped && self.asked.is_empty(), "somebody still waits for an answer");
            }
        }
        if self.open {
            // An attempt or a connection has an end, however silent the other side is.
            assert!(self.machine.next_deadline().is_some(), "it would wait for ever");
        }
        if self.leaving && !self.machine.is_online() {
            panic!("whoever wanted to leave is never answered");
        }
    }
}

fn hello() -> Hello {
    Hello {
        versions: vec![1],
        features: Vec::new(),
        intent: Intent::Link,
        device: DeviceFacts {
            unit_id: "00E0C5A1B2C3".parse().expect("a unit ID"),
            name: String::new(),
            os: String::new(),
            agent_version: String::new(),
            architecture: String::new(),
            shadowing: false,
            shadow_port: None,
            addresses: Vec::new(),
            secure_mode: true,
        },
        settings_revision: 0,
        run: None,
    }
}

fn welcome(version: u8, heartbeat: u8, features: u8) -> Welcome {
    let known = [feature::COMMAND_PROGRESS, feature::SERVER_HEARTBEATS];
    let told = known.iter().enumerate().filter(|(bit, _)| features & (1 << bit) != 0);
    Welcome {
        version: version.into(),
        features: told.map(|(_, name)| (*name).to_owned()).collect(),
        heartbeat_seconds: heartbeat.into(),
        server_time: 0,
        device_name: "Till".into(),
        anchors: TrustAnchors { roots: Vec::new(), ticket_keys: Vec::new() },
    }
}

fuzz_target!(|run: Run| {
    let ways = usize::from(run.ways % 4) + 1;
    let longest = 90 * SECOND;
    let settings = LinkSettings { connect_timeout: 45 * SECOND, reconnect_interval: longest, allowed: run.allowed };
    let backoff = Backoff::new(SECOND, longest, run.seed).expect("bounds");
    let mut driver = Driver {
        machine: Machine::new(settings, ways, backoff),
        now: 1_000 * SECOND,
        ways,
        allowed: run.allowed,
        longest,
        open: false,
        connected: false,
        asked: BTreeSet::new(),
        next_question: 0,
        leaving: false,
        stopped: false,
        server_asks: false,
        heard: None,
        ticking: false,
        last_attempt: None,
        not_before: Duration::ZERO,
    };
    for step in run.steps.iter().take(256) {
        driver.step(step);
    }
    if driver.stopped {
        return;
    }
    // From here on the network is good and nobody forbids anything.
    driver.step(&Step::Settings { timeout: 45, longest: 90, allowed: true });
    driver.step(&Step::Start);
    let by = driver.now + limits::RETRY_AFTER_MAX.max(driver.longest) + SLOW_RETRY * 2;
    while !driver.machine.is_online() {
        if driver.open && !driver.connected {
            driver.step(&Step::Connected);
        } else if driver.connected {
            driver.step(&Step::Welcome { version: 1, heartbeat: 40, features: 3 });
        } else {
            driver.step(&Step::ToTheDeadline);
        }
        assert!(driver.now <= by, "still not online");
    }
    driver.step(&Step::Ask);
    driver.wait(driver.now + limits::VERDICT_DEADLINE);
    assert!(driver.asked.is_empty(), "a question without an answer");
    driver.step(&Step::Shutdown);
});
