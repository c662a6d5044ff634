//! The life of one uplink as a pure state machine: when to connect, when an uplink stands, when it is dead, and how long to
//! wait before the next attempt. It has no socket and no clock, so that a night of lost gateways can be tried in no time.

use std::time::{Duration, Instant};

use umbra_protocol::gateway::{
    ATTACH_DEADLINE, Attach, Attached, Draining, FromGateway, HEARTBEAT, Limit, Rejected,
    RendezvousEnded, SILENCE, ToGateway, VERSIONS,
};
use umbra_protocol::ids::RendezvousId;
use umbra_protocol::link::Beat;
use umbra_protocol::refusal::{Remedy, clip};

/// The first wait after a failure; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait that is chosen here.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait that a gateway is followed in.
const LONGEST_HINT: Duration = Duration::from_secs(120);
/// The wait where only a person can change anything.
const SELDOM: Duration = Duration::from_secs(60);

/// What happens to the machine.
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The connection stands; nothing was said on it.
    Connected,
    /// There is no connection, or none any more.
    Ended(Ending),
    /// The gateway said something.
    Heard(FromGateway),
    /// How many devices the gateway may connect from now on.
    Limit(Option<u32>),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// A sentence for a person.
    pub sentence: String,
    /// When the other side suggests to come back.
    pub retry_after: Option<Duration>,
}

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect.
    Connect,
    /// Say this.
    Send(ToGateway),
    /// The uplink stands.
    Up(Attached),
    /// It does not stand any more, or did not come about.
    Down {
        /// Why, as a sentence.
        sentence: String,
        /// Whether it stood.
        was_up: bool,
        /// When the next attempt is made.
        next: Duration,
    },
    /// End the connection.
    Disconnect,
    /// Both ends of a rendezvous may come.
    Ready(RendezvousId),
    /// A rendezvous is over.
    Over(RendezvousEnded),
    /// A device was turned away.
    Rejected(Rejected),
}

#[derive(Debug)]
enum State {
    Waiting {
        until: Instant,
    },
    Connecting,
    Attaching {
        until: Instant,
    },
    Up {
        silent_at: Instant,
        ping_at: Instant,
        number: u64,
    },
}

/// The life of one uplink.
#[derive(Debug)]
pub struct Machine {
    state: State,
    attach: Attach,
    failures: u32,
    hint: Option<Duration>,
    chance: u64,
}

impl Machine {
    /// Connects at once. `attach` is what the gateway is told first; `seed` is for spreading attempts.
    pub fn new(attach: Attach, seed: u64, now: Instant) -> Self {
        Self {
            state: State::Waiting { until: now },
            attach,
            failures: 0,
            hint: None,
            chance: seed | 1,
        }
    }

    /// When to call [`Machine::handle`] with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Attaching { until } => Some(until),
            State::Up {
                silent_at, ping_at, ..
            } => Some(silent_at.min(ping_at)),
            // The dialler has its own deadlines.
            State::Connecting => None,
        }
    }

    /// Whether the uplink stands: only then devices are taken.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Takes one step.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Output> {
        match input {
            Input::Tick => self.tick(now),
            Input::Connected => match self.state {
                State::Connecting => {
                    self.state = State::Attaching {
                        until: now + ATTACH_DEADLINE,
                    };
                    vec![Output::Send(self.attach.clone().into())]
                }
                State::Waiting { .. } | State::Attaching { .. } | State::Up { .. } => {
                    vec![Output::Disconnect]
                }
            },
            Input::Ended(ending) => match self.state {
                // It was ended here, and that was told.
                State::Waiting { .. } => Vec::new(),
                State::Connecting | State::Attaching { .. } | State::Up { .. } => {
                    vec![self.down(&ending.sentence, ending.retry_after, now)]
                }
            },
            Input::Heard(message) => self.heard(message, now),
            Input::Limit(devices) => {
                self.attach.limit = devices;
                if self.is_up() {
                    vec![Output::Send(Limit { devices }.into())]
                } else {
                    Vec::new()
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Output> {
        match &mut self.state {
            State::Waiting { until } if *until <= now => {
                self.state = State::Connecting;
                vec![Output::Connect]
            }
            State::Attaching { until } if *until <= now => {
                let sentence = "The gateway did not answer the server's first words in time.";
                vec![Output::Disconnect, self.down(sentence, None, now)]
            }
            State::Up { silent_at, .. } if *silent_at <= now => {
                let sentence = format!(
                    "Nothing was heard of the gateway for {} seconds.",
                    SILENCE.as_secs()
                );
                vec![Output::Disconnect, self.down(&sentence, None, now)]
            }
            State::Up {
                ping_at, number, ..
            } if *ping_at <= now => {
                *ping_at = now + HEARTBEAT;
                *number += 1;
                vec![Output::Send(Beat { number: *number }.into())]
            }
            State::Waiting { .. }
            | State::Connecting
            | State::Attaching { .. }
            | State::Up { .. } => Vec::new(),
        }
    }

    fn heard(&mut self, message: FromGateway, now: Instant) -> Vec<Output> {
        if let State::Up { silent_at, .. } = &mut self.state {
            *silent_at = now + SILENCE;
        }
        match (&self.state, message) {
            // What still arrives from a connection that was given up.
            (State::Waiting { .. } | State::Connecting, _) => Vec::new(),
            (_, FromGateway::Refused(refusal)) => {
                self.hint = refusal
                    .retry_after_seconds
                    .map(|seconds| Duration::from_secs(seconds.into()))
                    .or(match refusal.code.remedy() {
                        Remedy::Retry => None,
                        Remedy::AskPerson | Remedy::Stop => Some(SELDOM),
                    });
                let sentence = format!("The gateway refuses this server: {}", refusal.sentence);
                vec![Output::Disconnect, self.down(&sentence, None, now)]
            }
            (State::Attaching { .. }, FromGateway::Attached(attached)) => {
                if !VERSIONS.contains(&attached.version) {
                    let sentence = format!(
                        "The gateway speaks version {} of the uplink, which this server does not: bring both up to date.",
                        attached.version
                    );
                    self.hint = Some(SELDOM);
                    return vec![Output::Disconnect, self.down(&sentence, None, now)];
                }
                self.state = State::Up {
                    silent_at: now + SILENCE,
                    ping_at: now + HEARTBEAT,
                    number: 0,
                };
                vec![Output::Up(attached)]
            }
            (
                State::Attaching { .. },
                FromGateway::Draining(Draining {
                    retry_after_seconds,
                }),
            ) => {
                self.hint = Some(Duration::from_secs(retry_after_seconds.into()));
                Vec::new()
            }
            (
                State::Attaching { .. },
                message @ (FromGateway::RendezvousReady(_)
                | FromGateway::RendezvousEnded(_)
                | FromGateway::Pong(_)
                | FromGateway::Rejected(_)),
            ) => {
                let sentence = format!(
                    "The gateway said “{}” before the uplink stood.",
                    message.kind()
                );
                vec![Output::Disconnect, self.down(&sentence, None, now)]
            }
            (State::Up { .. }, FromGateway::Attached(_)) => Vec::new(),
            (State::Up { .. }, FromGateway::Pong(_)) => {
                // An uplink that outlives its first heartbeat is no accident: a gateway that drops every server right
                // after it has attached does not get it back every second.
                self.failures = 0;
                Vec::new()
            }
            (State::Up { .. }, FromGateway::RendezvousReady(ready)) => {
                vec![Output::Ready(ready.id)]
            }
            (State::Up { .. }, FromGateway::RendezvousEnded(ended)) => vec![Output::Over(ended)],
            (State::Up { .. }, FromGateway::Rejected(rejected)) => vec![Output::Rejected(rejected)],
            (
                State::Up { .. },
                FromGateway::Draining(Draining {
                    retry_after_seconds,
                }),
            ) => {
                self.hint = Some(Duration::from_secs(retry_after_seconds.into()));
                Vec::new()
            }
        }
    }

    fn down(&mut self, sentence: &str, hint: Option<Duration>, now: Instant) -> Output {
        let was_up = self.is_up();
        let next = self.wait(hint);
        self.state = State::Waiting { until: now + next };
        Output::Down {
            sentence: clip(sentence.to_owned()),
            was_up,
            next,
        }
    }

    /// How long to wait: as the gateway said, within bounds and a little later, so that not all of its servers come in the
    /// same moment; else twice as long with each failure, half of it by chance.
    fn wait(&mut self, hint: Option<Duration>) -> Duration {
        let kept = self.hint.take();
        if let Some(hint) = hint.or(kept) {
            let hint = hint.clamp(FIRST_WAIT, LONGEST_HINT);
            return hint + self.part_of(hint / 4);
        }
        let doubled = FIRST_WAIT.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(LONGEST_WAIT);
        wait / 2 + self.part_of(wait / 2)
    }

    fn part_of(&mut self, most: Duration) -> Duration {
        // Marsaglia's xorshift: chance enough for spreading.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let thousandths = u32::try_from(self.chance % 1_001).unwrap_or(1_000);
        most * thousandths / 1_000
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
