//! The link against a scripted server, in simulated time.

use proptest::prelude::*;
use umbra_protocol::command::CommandProgress;
use umbra_protocol::hello::{DeviceFacts, Intent, TrustAnchors};
use umbra_protocol::link::{ResultFiled, ServerBeat};
use umbra_protocol::secret::Secret;
use umbra_protocol::session::{Permissions, SessionRequest, SessionVerdict, Verdict};
use umbra_protocol::{CommandId, SessionId};

use super::*;

mod attempts;
mod bounds;
mod standing;
mod ways;

const SECOND: Duration = Duration::from_secs(1);
const SETTINGS: LinkSettings = LinkSettings {
    connect_timeout: Duration::from_secs(45),
    reconnect_interval: Duration::from_secs(90),
    allowed: true,
};

/// A machine, the time, and what came out last.
struct Sim {
    machine: Machine,
    now: Moment,
    out: Vec<Output>,
}

impl Sim {
    fn with_connectors(connectors: usize, seed: u64) -> Self {
        let backoff = Backoff::new(SECOND, 90 * SECOND, seed).expect("bounds");
        let mut sim = Self {
            machine: Machine::new(SETTINGS, connectors, backoff),
            now: 1_000 * SECOND,
            out: Vec::new(),
        };
        sim.feed(Input::Start);
        sim
    }

    fn new() -> Self {
        Self::with_connectors(1, 5)
    }

    fn online() -> Self {
        let mut sim = Self::new();
        sim.welcome(40);
        sim
    }

    fn feed(&mut self, input: Input) -> &[Output] {
        self.out = self.machine.handle(input, self.now);
        &self.out
    }

    fn frame(&mut self, frame: impl Into<FromServer>) -> &[Output] {
        self.feed(Input::Frame(Box::new(frame.into())))
    }

    /// Lets time pass until the machine wants to be woken; returns how long that was.
    fn sleep(&mut self) -> Duration {
        let deadline = self.machine.next_deadline().expect("a deadline");
        let slept = deadline.saturating_sub(self.now);
        self.now = self.now.max(deadline);
        self.feed(Input::Tick);
        slept
    }

    fn ways(&mut self, preferred: &[bool], start: usize, leave: Option<&str>) -> &[Output] {
        self.feed(Input::Ways {
            preferred: preferred.to_vec(),
            start,
            leave: leave.map(str::to_owned),
        })
    }

    fn connect(&mut self) {
        assert!(self.connects(), "{:?}", self.out);
        self.feed(Input::Connected(Box::new(hello())));
        assert!(matches!(&self.out[..], [Output::Send(hello)] if hello.kind() == "hello"));
    }

    fn welcome(&mut self, heartbeat_seconds: u32) {
        self.connect();
        self.frame(welcome(heartbeat_seconds));
        assert!(self.machine.is_online());
    }

    fn connects(&self) -> bool {
        self.out
            .iter()
            .any(|output| matches!(output, Output::Connect(_)))
    }

    fn closes(&self) -> bool {
        self.out.contains(&Output::Close)
    }

    fn sent(&self) -> Vec<&FromDevice> {
        self.out
            .iter()
            .filter_map(|output| {
                if let Output::Send(message) = output {
                    Some(&**message)
                } else {
                    None
                }
            })
            .collect()
    }

    fn trouble(&self) -> Option<&Trouble> {
        self.out.iter().find_map(|output| {
            if let Output::Status(LinkStatus::Waiting { trouble, .. }) = output {
                Some(trouble)
            } else {
                None
            }
        })
    }

    fn answers(&self) -> Vec<(u64, &Answer)> {
        self.out
            .iter()
            .filter_map(|output| {
                if let Output::Answer { question, answer } = output {
                    Some((*question, answer))
                } else {
                    None
                }
            })
            .collect()
    }
}

fn hello() -> Hello {
    Hello {
        versions: version::SUPPORTED.to_vec(),
        features: Vec::new(),
        intent: Intent::Link,
        device: DeviceFacts {
            unit_id: "00E0C5A1B2C3".parse().expect("a unit ID"),
            name: "tc".into(),
            os: "os".into(),
            agent_version: "1".into(),
            architecture: "x86_64".into(),
            shadowing: false,
            shadow_port: None,
            addresses: Vec::new(),
            secure_mode: true,
        },
        settings_revision: 0,
        run: None,
    }
}

fn welcome(heartbeat_seconds: u32) -> Welcome {
    Welcome {
        version: 1,
        features: Vec::new(),
        heartbeat_seconds,
        server_time: 0,
        device_name: "Reception".into(),
        anchors: TrustAnchors {
            roots: Vec::new(),
            ticket_keys: Vec::new(),
        },
    }
}

fn presented() -> Presented {
    Presented::LegacyPassword {
        password: Secret::new("x"),
    }
}

fn ask(question: u64) -> Input {
    Input::Ask {
        question,
        presented: presented(),
    }
}

fn refused(code: RefusalCode) -> Refusal {
    Refusal::new(code, "Because.")
}

fn broken() -> Trouble {
    Trouble::passing("closed", "The connection broke.")
}
