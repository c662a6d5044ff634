//! The server's uplink to a gateway, in simulated time, against a gateway and a network that do anything. What holds: one connection at
//! a time; nothing is said without one, and “attach” is the first; devices are only taken while it stands; no wait is longer than the
//! longest or comes again at once; what was down is told once; and to a gateway that works it is up within a bound.
#![no_main]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_protocol::gateway::{
    Attach, Attached, Draining, FromGateway, Rejected, RendezvousEnded, RendezvousReady, SILENCE, ToGateway, TunnelEnd,
    VERSIONS,
};
use umbra_protocol::link::Beat;
use umbra_protocol::{Refusal, RefusalCode, RendezvousId, ServerRoot};
use umbra_server::uplink::machine::{Ending, Input, Machine, Output};

#[derive(Arbitrary, Debug)]
struct Run {
    seed: u64,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    ToTheDeadline,
    Connected,
    Ended(Option<u32>),
    Attached(u8),
    Pong,
    Ready,
    Over,
    Rejected,
    Draining(u32),
    Refused(u8, Option<u32>),
    Limit(Option<u32>),
}

struct Driver {
    machine: Machine,
    now: Instant,
    dialling: bool,
    connected: bool,
    up: bool,
    /// Until when no attempt may be made.
    not_before: Instant,
    pings: u64,
}

impl Driver {
    fn feed(&mut self, input: Input) {
        let answers_connected = matches!(input, Input::Connected);
        let outputs = self.machine.handle(input, self.now);
        assert!(outputs.len() <= 2, "{outputs:?}");
        for output in outputs {
            match output {
                Output::Connect => {
                    assert!(!self.dialling && !self.connected, "a connection beside another");
                    assert!(self.now >= self.not_before, "too soon");
                    self.dialling = true;
                }
                Output::Send(message) => {
                    assert!(self.connected, "said to nobody");
                    match message {
                        ToGateway::Attach(_) => assert!(answers_connected && !self.up),
                        ToGateway::Ping(beat) => {
                            self.pings += 1;
                            assert!(self.up && beat.number == self.pings);
                        }
                        ToGateway::Limit(_) => assert!(self.up),
                        other => panic!("{other:?}"),
                    }
                }
                Output::Up(attached) => {
                    assert!(self.connected && !self.up && VERSIONS.contains(&attached.version));
                    (self.up, self.pings) = (true, 0);
                }
                Output::Down { sentence, was_up, next } => {
                    assert_eq!(was_up, self.up);
                    assert!(!sentence.chars().any(char::is_control));
                    assert!(next >= Duration::from_millis(500), "a wait that is none");
                    assert!(next <= Duration::from_secs(150), "it keeps off for {next:?}");
                    self.not_before = self.now + next;
                    (self.dialling, self.connected, self.up) = (false, false, false);
                }
                Output::Disconnect => (self.dialling, self.connected) = (false, false),
                Output::Ready(_) | Output::Over(_) | Output::Rejected(_) => assert!(self.up),
            }
        }
        assert_eq!(self.machine.is_up(), self.up);
        assert!(self.dialling || self.machine.deadline().is_some(), "it would wait for ever");
    }

    fn wait(&mut self, until: Instant) {
        let mut at_once = 0;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= until) {
            at_once = if due > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 4, "it runs hot");
            self.now = self.now.max(due);
            self.feed(Input::Tick);
        }
        self.now = self.now.max(until);
    }

    fn heard(&mut self, message: impl Into<FromGateway>) {
        if self.connected {
            self.feed(Input::Heard(message.into()));
        }
    }

    fn step(&mut self, step: &Step) {
        let id = RendezvousId::from_bytes([1; 16]);
        match step {
            Step::Wait(tenths) => self.wait(self.now + Duration::from_millis(100) * u32::from(*tenths)),
            Step::ToTheDeadline => {
                if let Some(due) = self.machine.deadline() {
                    self.wait(due);
                }
            }
            Step::Connected => {
                if self.dialling {
                    (self.dialling, self.connected) = (false, true);
                    self.feed(Input::Connected);
                }
            }
            Step::Ended(after) => {
                if self.dialling || self.connected {
                    self.feed(Input::Ended(Ending {
                        sentence: "Gone.".into(),
                        retry_after: after.map(|seconds| Duration::from_secs(seconds.into())),
                    }));
                    assert!(!self.dialling && !self.connected, "it holds what has ended");
                }
            }
            Step::Attached(version) => self.heard(Attached {
                version: u16::from(version % 3),
                gateway_version: String::new(),
                connections: 0,
            }),
            Step::Pong => self.heard(Beat { number: 1 }),
            Step::Ready => self.heard(RendezvousReady { id }),
            Step::Over => self.heard(RendezvousEnded {
                id,
                code: TunnelEnd::NotOpened,
                sentence: String::new(),
                bytes_to_device: 0,
                bytes_to_console: 0,
            }),
            Step::Rejected => self.heard(Rejected { label: String::new(), code: RefusalCode::ConnectionLimit }),
            Step::Draining(seconds) => self.heard(Draining { retry_after_seconds: *seconds }),
            Step::Refused(code, after) => {
                let mut refusal = Refusal::new(RefusalCode::ALL[usize::from(*code) % RefusalCode::ALL.len()], "No.\n");
                refusal.retry_after_seconds = *after;
                self.heard(refusal);
            }
            Step::Limit(devices) => self.feed(Input::Limit(*devices)),
        }
    }
}

fuzz_target!(|run: Run| {
    static START: OnceLock<Instant> = OnceLock::new();
    let now = *START.get_or_init(Instant::now);
    let attach = Attach {
        versions: VERSIONS.to_vec(),
        server_root: ServerRoot::from_bytes([1; 32]),
        server_name: "ums".into(),
        limit: None,
    };
    let mut driver = Driver {
        machine: Machine::new(attach, run.seed, now),
        now,
        dialling: false,
        connected: false,
        up: false,
        not_before: now,
        pings: 0,
    };
    for step in run.steps.iter().take(200) {
        driver.step(step);
    }
    // From here on the gateway works.
    let by = driver.now + Duration::from_secs(150);
    while !driver.up {
        if driver.dialling {
            driver.step(&Step::Connected);
        } else if driver.connected {
            driver.step(&Step::Attached(1));
        } else {
            driver.step(&Step::ToTheDeadline);
        }
        assert!(driver.now <= by, "still not up");
    }
    // And from here on it is silent.
    driver.wait(driver.now + SILENCE);
    assert!(!driver.up, "a dead gateway is taken for a living one");
});
