//! Whether a caller may see the screen, as a pure machine: ticket or password, the server's word, a free place, the person at the
//! device, the VNC server, in this order. Nothing but [`Output::Admit`] lets a byte of RFB flow, and every way that does not end
//! there ends in one refusal.

use std::time::Duration;

use umbra_protocol::session::{Permissions, Presented, SessionRequest, Verdict};
use umbra_protocol::ticket::Ticket;
use umbra_protocol::{Refusal, RefusalCode};

use crate::link::events::Answer;
use crate::registry::Unattended;

/// Time as the machine sees it: since some fixed moment, never jumping.
pub type Moment = Duration;

/// What the registry says about sessions at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether the person at the device is asked.
    pub ask: bool,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What happens when nobody is there to ask.
    pub unattended: Unattended,
    /// Whether a program asks; without one, only local control can answer.
    pub has_program: bool,
    /// Whether operators may use keyboard and pointer.
    pub remote_input: bool,
    /// Whether the person must see that somebody sees the screen.
    pub indicator: bool,
    /// What is known already to make a session impossible: the person is not bothered then.
    pub hindrance: Option<Turned>,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody with a ticket whose signature the device has checked.
    Ticket {
        /// The ticket.
        ticket: Box<Ticket>,
        /// As presented, for the server.
        presented: Presented,
    },
    /// Somebody with the one-time password of the field's older consoles.
    Legacy {
        /// As presented, for the server.
        presented: Presented,
    },
    /// A plain viewer, while secure mode is off: nobody vouches for it.
    Plain {
        /// What the device calls it.
        request: SessionRequest,
    },
}

/// What the person at the device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Yes.
    Accepted,
    /// No.
    Denied,
    /// Nobody is there.
    Nobody,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The server's answer, or that there is none.
    Answer(Answer),
    /// Whether there was a free place.
    Place(bool),
    /// What the person says.
    Consent(Consent),
    /// Whether the VNC server is ready; if not, a code and a sentence.
    Upstream(Result<(), (String, String)>),
    /// Whether the person would see that somebody sees the screen; if not, why.
    Indicator(Result<(), Turned>),
    /// Server, administrator, person or agent want no session any more.
    Withdrawn(Turned),
    /// Time has passed.
    Tick,
}

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Stable code.
    pub code: String,
    /// What happened, for the operator.
    pub sentence: String,
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code.as_str().to_owned(),
            sentence: refusal.sentence,
        }
    }
}

impl Turned {
    /// Turned away with one of the protocol's codes.
    pub fn new(code: RefusalCode, sentence: &str) -> Self {
        Refusal::new(code, sentence).into()
    }
}

/// What shall be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the server.
    AskServer(Presented),
    /// Take one of the places for sessions, if one is free.
    TakePlace(Box<SessionRequest>),
    /// Ask the person at the device.
    AskPerson {
        /// When no answer becomes an answer.
        until: Moment,
    },
    /// Take back the question to the person.
    StopAsking,
    /// Tell the operator what is being waited for.
    Wait(&'static str),
    /// Connect to the VNC server.
    Connect(Permissions),
    /// Have the person shown that somebody sees the screen.
    Indicate,
    /// The session begins.
    Admit,
    /// The session does not begin.
    Refuse(Turned),
}

#[derive(Debug)]
enum State {
    AskingServer {
        ticket: Option<Box<Ticket>>,
    },
    TakingPlace {
        permissions: Permissions,
    },
    AskingPerson {
        permissions: Permissions,
        until: Moment,
    },
    Connecting,
    Indicating,
    Ended,
}

/// One caller on the way to a session.
#[derive(Debug)]
pub struct Machine {
    rules: Rules,
    state: State,
}

impl Machine {
    /// A caller has said who it is.
    pub fn new(caller: Caller, rules: Rules) -> (Self, Vec<Output>) {
        let (state, output) = match caller {
            Caller::Ticket { ticket, presented } => (
                State::AskingServer {
                    ticket: Some(ticket),
                },
                Output::AskServer(presented),
            ),
            Caller::Legacy { presented } => (
                State::AskingServer { ticket: None },
                Output::AskServer(presented),
            ),
            Caller::Plain { request } => {
                let permissions = stricter(request.permissions, &rules);
                (
                    State::TakingPlace { permissions },
                    Output::TakePlace(Box::new(SessionRequest {
                        permissions,
                        ..request
                    })),
                )
            }
        };
        (Self { rules, state }, vec![output])
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        match self.state {
            State::AskingPerson { until, .. } => Some(until),
            State::AskingServer { .. }
            | State::TakingPlace { .. }
            | State::Connecting
            | State::Indicating
            | State::Ended => None,
        }
    }

    /// Takes what happened; returns what shall be done, in this order. What does not fit the state changes nothing.
    pub fn handle(&mut self, input: Input, now: Moment) -> Vec<Output> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        match (state, input) {
            (State::Ended, _) => Vec::new(),
            (State::AskingPerson { .. }, Input::Withdrawn(turned)) => {
                vec![Output::StopAsking, Output::Refuse(turned)]
            }
            (
                State::AskingServer { .. }
                | State::TakingPlace { .. }
                | State::Connecting
                | State::Indicating,
                Input::Withdrawn(turned),
            ) => vec![Output::Refuse(turned)],
            (State::AskingServer { ticket }, Input::Answer(answer)) => {
                self.answered(ticket.as_deref(), answer)
            }
            (State::TakingPlace { permissions }, Input::Place(free)) => {
                self.placed(permissions, free, now)
            }
            (State::AskingPerson { permissions, .. }, Input::Consent(consent)) => {
                self.consented(permissions, consent)
            }
            (State::AskingPerson { permissions, until }, Input::Tick) if until <= now => {
                // Without a program there was nobody who could be seen to be away.
                if self.rules.has_program {
                    vec![
                        Output::StopAsking,
                        Output::Refuse(Turned::new(
                            RefusalCode::ConsentTimeout,
                            "The person at the device did not answer in time.",
                        )),
                    ]
                } else {
                    self.consented(permissions, Consent::Nobody)
                }
            }
            (State::Connecting, Input::Upstream(Ok(()))) if self.rules.indicator => {
                self.state = State::Indicating;
                vec![Output::Indicate]
            }
            (State::Connecting, Input::Upstream(Ok(())))
            | (State::Indicating, Input::Indicator(Ok(()))) => {
                vec![Output::Admit]
            }
            (State::Indicating, Input::Indicator(Err(turned))) => vec![Output::Refuse(turned)],
            (State::Connecting, Input::Upstream(Err((code, sentence)))) => {
                vec![Output::Refuse(Turned { code, sentence })]
            }
            (
                state @ (State::AskingServer { .. }
                | State::TakingPlace { .. }
                | State::AskingPerson { .. }
                | State::Connecting
                | State::Indicating),
                Input::Answer(_)
                | Input::Place(_)
                | Input::Consent(_)
                | Input::Indicator(_)
                | Input::Upstream(_)
                | Input::Tick,
            ) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    fn answered(&mut self, ticket: Option<&Ticket>, answer: Answer) -> Vec<Output> {
        let request = match answer {
            Answer::Unreachable => {
                return vec![Output::Refuse(Turned::new(
                    RefusalCode::ServerUnreachable,
                    "The device cannot ask its server at the moment, and without it nobody may come in. Ask for a new session in a moment: this one is used up.",
                ))];
            }
            Answer::Verdict(Verdict::Refused(refusal)) => {
                return vec![Output::Refuse(
                    Refusal::new(refusal.code, refusal.sentence).into(),
                )];
            }
            Answer::Verdict(Verdict::Allowed(request)) => request,
        };
        if ticket.is_some_and(|ticket| ticket.session != request.session) {
            return vec![Output::Refuse(Turned::new(
                RefusalCode::TicketInvalid,
                "The server's answer is about another session than the ticket.",
            ))];
        }
        // Of all who have a say, the strictest counts.
        let mut permissions = stricter(request.permissions, &self.rules);
        if let Some(ticket) = ticket {
            permissions.control &= ticket.permissions.control;
            permissions.clipboard &= ticket.permissions.clipboard;
        }
        self.state = State::TakingPlace { permissions };
        vec![Output::TakePlace(Box::new(SessionRequest {
            permissions,
            ..request
        }))]
    }

    fn placed(&mut self, permissions: Permissions, free: bool, now: Moment) -> Vec<Output> {
        if !free {
            return vec![Output::Refuse(Turned::new(
                RefusalCode::TooManySessions,
                "As many sessions as the device allows are running; try again when one has ended.",
            ))];
        }
        if let Some(turned) = self.rules.hindrance.take() {
            return vec![Output::Refuse(turned)];
        }
        if !self.rules.ask {
            self.state = State::Connecting;
            return vec![Output::Connect(permissions)];
        }
        let until = now + self.rules.timeout;
        self.state = State::AskingPerson { permissions, until };
        vec![
            Output::Wait("The person at the device is being asked."),
            Output::AskPerson { until },
        ]
    }

    fn consented(&mut self, permissions: Permissions, consent: Consent) -> Vec<Output> {
        let refused = match (consent, self.rules.unattended) {
            (Consent::Accepted, _) | (Consent::Nobody, Unattended::Allow) => {
                self.state = State::Connecting;
                return vec![Output::StopAsking, Output::Connect(permissions)];
            }
            (Consent::Denied, _) => Turned::new(
                RefusalCode::ConsentDenied,
                "The person at the device said no.",
            ),
            (Consent::Nobody, Unattended::Deny) => Turned::new(
                RefusalCode::NobodyToAsk,
                "The person at the device must be asked, and nobody is there to answer.",
            ),
        };
        vec![Output::StopAsking, Output::Refuse(refused)]
    }
}

fn stricter(permissions: Permissions, rules: &Rules) -> Permissions {
    Permissions {
        control: permissions.control && rules.remote_input,
        clipboard: permissions.clipboard && rules.remote_input,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
