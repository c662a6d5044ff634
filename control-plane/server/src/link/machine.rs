//! The conversation with one device as a pure state machine: messages and replies in, messages and tasks out. It has no
//! socket, no clock and no database, so that every order of events can be tried in no time.

use std::time::{Duration, Instant};

use umbra_protocol::command::{CommandProgress, CommandResult};
use umbra_protocol::enrolment::{Challenge, Enrol, Enrolled};
use umbra_protocol::hello::{DeviceFacts, Hello, Intent, Welcome, feature};
use umbra_protocol::link::{Beat, CertificateProposed, Goodbye, ServerBeat};
use umbra_protocol::message::Left;
use umbra_protocol::session::{CallerRefused, SessionRecord, SessionStarted, SessionVerify};
use umbra_protocol::settings::SettingsApplied;
use umbra_protocol::{FromDevice, FromServer, Refusal, RefusalCode, limits, version};

/// How long a device may take to end a probe.
const PROBE_FAREWELL: Duration = Duration::from_secs(10);

/// What happens to the machine.
#[derive(Debug)]
pub enum Input {
    /// The device said something.
    Message(FromDevice),
    /// The device said something of a type that this build does not know.
    UnknownType(String),
    /// What the device said cannot be read.
    Unreadable(Refusal),
    /// A task is done.
    Reply(Reply),
    /// The server has something to say.
    Say(FromServer),
    /// The link has to end, and the device shall know why.
    End(Refusal),
    /// The server goes down.
    ShutDown(Goodbye),
    /// Time has passed.
    Tick,
}

/// What the machine wants done; each task is answered by one [`Reply`].
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Make a challenge, if this device may try.
    Challenge(Hello, u16),
    /// Check the proof and file the device.
    Enrol {
        /// What the device says of itself.
        facts: DeviceFacts,
        /// The nonce of the challenge.
        nonce: String,
        /// The proof.
        enrol: Enrol,
    },
    /// Look the device up, and welcome it if it is on file.
    Open(Hello, u16),
    /// Look the device up, say whether it would be welcome, and leave everything as it is.
    Probe(Hello, u16),
    /// File what the device reports on its link.
    File(Report),
}

/// What a device reports on its link.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// It applied settings.
    Applied(SettingsApplied),
    /// A command runs.
    Progress(CommandProgress),
    /// A command ended.
    Result(CommandResult),
    /// It asks about a session.
    Verify(SessionVerify),
    /// A session began.
    Started(SessionStarted),
    /// A session ended.
    Record(SessionRecord),
    /// It turned a caller away by itself.
    TurnedAway(CallerRefused),
    /// It proposes its next certificate.
    Proposed(CertificateProposed),
    /// It wants to be removed from the file.
    Leave,
}

/// How a task went.
#[derive(Debug)]
pub enum Reply {
    /// The device may try.
    Challenge(Challenge),
    /// The device is taken on.
    Enrolled(Enrolled),
    /// The device is on file, and this is what it has to hear first.
    Welcome(Welcome, Vec<FromServer>),
    /// What to answer to a report.
    Filed(Vec<FromServer>),
    /// The device is off the file, as it wished.
    Left,
    /// No.
    Refused(Refusal),
}

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Say this to the device.
    Send(FromServer),
    /// Do this.
    Do(Task),
    /// End the connection, after everything was said.
    Close(Closed),
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Nothing was heard in time.
    Silent,
    /// This side ends it: after an answer that ends the conversation, or because it must.
    ByServer,
    /// The device said goodbye.
    ByDevice,
}

#[derive(Debug)]
enum State {
    /// Nothing was heard yet.
    AwaitHello { until: Instant },
    /// A challenge is being made.
    Challenging { facts: DeviceFacts },
    /// The device computes its proof.
    AwaitProof {
        facts: DeviceFacts,
        nonce: String,
        until: Instant,
    },
    /// The proof is being checked.
    Proving,
    /// The device is being looked up.
    Opening { answers: bool },
    /// The device is being looked up, which only wants to know whether this way works.
    Probing,
    /// It knows; nothing else is said.
    Probed { until: Instant },
    /// The link stands.
    Linked {
        until: Instant,
        /// When the device is asked next, and how often it was, if it is one that answers.
        asks: Option<(Instant, u64)>,
    },
    /// It is over.
    Over,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::AwaitHello { .. } => "waiting for hello",
            State::Challenging { .. } | State::Proving | State::Opening { .. } | State::Probing => {
                "busy with an earlier message"
            }
            State::Probed { .. } => "ending a probe",
            State::AwaitProof { .. } => "waiting for enrol",
            State::Linked { .. } => "linked",
            State::Over => "over",
        }
    }
}

/// The conversation with one device.
#[derive(Debug)]
pub struct Machine {
    state: State,
    heartbeat: Duration,
}

impl Machine {
    /// A connection that came now. `heartbeat` is what devices are told.
    pub fn new(now: Instant, heartbeat: Duration) -> Self {
        Self {
            state: State::AwaitHello {
                until: now + limits::HELLO_DEADLINE,
            },
            heartbeat,
        }
    }

    /// When to call [`Machine::handle`] with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::AwaitHello { until }
            | State::AwaitProof { until, .. }
            | State::Probed { until } => Some(*until),
            State::Linked { until, asks } => Some(asks.map_or(*until, |(due, _)| due.min(*until))),
            State::Challenging { .. }
            | State::Proving
            | State::Opening { .. }
            | State::Probing
            | State::Over => None,
        }
    }

    /// How large the next frame may be.
    pub fn frame_limit(&self) -> usize {
        if self.is_linked() {
            limits::FRAME
        } else {
            limits::FRAME_BEFORE_WELCOME
        }
    }

    /// Whether the device was welcomed.
    pub fn is_linked(&self) -> bool {
        matches!(self.state, State::Linked { .. })
    }

    /// Takes one step.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Output> {
        if matches!(self.state, State::Over) {
            return Vec::new();
        }
        match input {
            Input::Message(message) => {
                self.heard(now);
                self.message(message)
            }
            Input::UnknownType(name) => {
                self.heard(now);
                vec![Output::Send(
                    Refusal::new(
                        RefusalCode::UnknownMessage,
                        format!("This server does not know messages of the type “{name}”."),
                    )
                    .into(),
                )]
            }
            Input::Unreadable(refusal) | Input::End(refusal) => self.refuse(refusal),
            Input::Reply(reply) => self.reply(reply, now),
            Input::Say(message) => {
                if self.is_linked() {
                    vec![Output::Send(message)]
                } else {
                    Vec::new()
                }
            }
            Input::ShutDown(goodbye) => {
                if self.is_linked() {
                    return self.over(vec![Output::Send(goodbye.into())], Closed::ByServer);
                }
                let mut refusal = Refusal::new(RefusalCode::ShuttingDown, goodbye.sentence);
                refusal.retry_after_seconds = goodbye.retry_after_seconds;
                self.refuse(refusal)
            }
            Input::Tick => self.tick(now),
        }
    }

    fn heard(&mut self, now: Instant) {
        let silence = self.silence();
        if let State::Linked { until, .. } = &mut self.state {
            *until = now + silence;
        }
    }

    /// After which silence a device is gone.
    fn silence(&self) -> Duration {
        self.heartbeat * limits::SILENCE_FACTOR
    }

    fn over(&mut self, mut outputs: Vec<Output>, why: Closed) -> Vec<Output> {
        self.state = State::Over;
        outputs.push(Output::Close(why));
        outputs
    }

    fn refuse(&mut self, refusal: Refusal) -> Vec<Output> {
        self.over(vec![Output::Send(refusal.into())], Closed::ByServer)
    }

    fn tick(&mut self, now: Instant) -> Vec<Output> {
        if self.deadline().is_none_or(|until| now < until) {
            return Vec::new();
        }
        match &mut self.state {
            State::Linked {
                until,
                asks: Some((due, asked)),
            } if now < *until => {
                *due = now + self.heartbeat;
                *asked += 1;
                let beat = ServerBeat { number: *asked };
                return vec![Output::Send(beat.into())];
            }
            State::Linked { .. } => return self.over(Vec::new(), Closed::Silent),
            State::Probed { .. } => return self.over(Vec::new(), Closed::ByServer),
            State::AwaitHello { .. }
            | State::Challenging { .. }
            | State::AwaitProof { .. }
            | State::Proving
            | State::Opening { .. }
            | State::Probing
            | State::Over => {}
        }
        self.refuse(Refusal::new(
            RefusalCode::TooSlow,
            "The device took too long for its next message.",
        ))
    }

    fn message(&mut self, message: FromDevice) -> Vec<Output> {
        match (&mut self.state, message) {
            (State::AwaitHello { .. }, FromDevice::Hello(hello)) => self.hello(hello),
            (State::AwaitProof { facts, nonce, .. }, FromDevice::Enrol(enrol)) => {
                let task = Task::Enrol {
                    facts: facts.clone(),
                    nonce: nonce.clone(),
                    enrol,
                };
                self.state = State::Proving;
                vec![Output::Do(task)]
            }
            (_, FromDevice::Goodbye(_)) => self.over(Vec::new(), Closed::ByDevice),
            (State::Linked { .. }, message) => self.on_link(message),
            (state, message) => {
                let sentence = format!(
                    "“{}” is not expected while {}.",
                    message.kind(),
                    state.name()
                );
                self.refuse(Refusal::new(RefusalCode::UnexpectedMessage, sentence))
            }
        }
    }

    fn hello(&mut self, hello: Hello) -> Vec<Output> {
        let Some(version) = version::agree(&hello.versions) else {
            return self.refuse(Refusal::new(
                RefusalCode::UnsupportedVersion,
                format!(
                    "Device and server have no protocol version in common: the server speaks {:?}, the device {:?}.",
                    version::SUPPORTED,
                    hello.versions
                ),
            ));
        };
        let task = match hello.intent {
            Intent::Enrol => {
                self.state = State::Challenging {
                    facts: hello.device.clone(),
                };
                Task::Challenge(hello, version)
            }
            Intent::Link => {
                let answers =
                    (hello.features.iter()).any(|name| name == feature::SERVER_HEARTBEATS);
                self.state = State::Opening { answers };
                Task::Open(hello, version)
            }
            Intent::Probe => {
                self.state = State::Probing;
                Task::Probe(hello, version)
            }
        };
        vec![Output::Do(task)]
    }

    fn on_link(&mut self, message: FromDevice) -> Vec<Output> {
        let report = match message {
            FromDevice::Ping(Beat { number }) => {
                return vec![Output::Send(FromServer::Pong(Beat { number }))];
            }
            // That it was heard is all.
            FromDevice::Pong(_) => return Vec::new(),
            FromDevice::SettingsApplied(applied) => Report::Applied(applied),
            FromDevice::CommandProgress(progress) => Report::Progress(progress),
            FromDevice::CommandResult(result) => Report::Result(result),
            FromDevice::SessionVerify(verify) => Report::Verify(verify),
            FromDevice::SessionStarted(started) => Report::Started(started),
            FromDevice::SessionRecord(record) => Report::Record(record),
            FromDevice::CallerRefused(refused) => Report::TurnedAway(refused),
            FromDevice::CertificateProposed(proposed) => Report::Proposed(proposed),
            FromDevice::Leave(_) => Report::Leave,
            FromDevice::Refusal(refusal) => {
                tracing::info!(code = refusal.code.as_str(), "the device refuses something");
                return Vec::new();
            }
            // Handled by the caller in every state.
            FromDevice::Goodbye(_) => return Vec::new(),
            FromDevice::Hello(_) | FromDevice::Enrol(_) => {
                let sentence = format!("“{}” is not expected while linked.", message.kind());
                let refusal = Refusal::new(RefusalCode::UnexpectedMessage, sentence);
                return vec![Output::Send(refusal.into())];
            }
        };
        vec![Output::Do(Task::File(report))]
    }

    fn reply(&mut self, reply: Reply, now: Instant) -> Vec<Output> {
        match (&mut self.state, reply) {
            (State::Challenging { facts }, Reply::Challenge(challenge)) => {
                self.state = State::AwaitProof {
                    facts: facts.clone(),
                    nonce: challenge.nonce.clone(),
                    until: now + limits::ENROLMENT_STEP,
                };
                vec![Output::Send(challenge.into())]
            }
            (State::Proving, Reply::Enrolled(enrolled)) => {
                self.over(vec![Output::Send(enrolled.into())], Closed::ByServer)
            }
            (State::Opening { answers }, Reply::Welcome(welcome, first)) => {
                let asks = answers.then_some((now + self.heartbeat, 0));
                self.state = State::Linked {
                    until: now + self.silence(),
                    asks,
                };
                let mut outputs = vec![Output::Send(welcome.into())];
                outputs.extend(first.into_iter().map(Output::Send));
                outputs
            }
            (State::Probing, Reply::Welcome(welcome, _)) => {
                self.state = State::Probed {
                    until: now + PROBE_FAREWELL,
                };
                vec![Output::Send(welcome.into())]
            }
            (State::Linked { .. }, Reply::Filed(answers)) => {
                // The task took time that the device is not to blame for.
                self.heard(now);
                answers.into_iter().map(Output::Send).collect()
            }
            (State::Linked { .. }, Reply::Left) => {
                self.over(vec![Output::Send(Left {}.into())], Closed::ByServer)
            }
            // A device says again after a welcome what was not filed, and not before: it has to come back for that.
            (State::Linked { .. }, Reply::Refused(refusal))
                if refusal.code == RefusalCode::Internal =>
            {
                self.refuse(refusal.retry_after(5))
            }
            (State::Linked { .. }, Reply::Refused(refusal)) => {
                self.heard(now);
                vec![Output::Send(refusal.into())]
            }
            (
                State::Challenging { .. } | State::Proving | State::Opening { .. } | State::Probing,
                Reply::Refused(refusal),
            ) => self.refuse(refusal),
            (state, _) => {
                // The driver answers the task that was asked; anything else is a mistake of ours.
                tracing::error!(state = state.name(), "an answer that nobody asked for");
                self.refuse(Refusal::new(
                    RefusalCode::Internal,
                    "The server has lost its place; the device connects again.",
                ))
            }
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
