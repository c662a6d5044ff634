//! Whether a caller may see the screen, as a pure machine: ticket or password, the server's word, a free place, the person at the
//! device, the VNC server, in this order. Nothing but [`Output::Admit`] lets a byte of RFB flow, and every way that does not end
//! there ends in one refusal.

use std::time::Duration;

use umbra_protocol::session::{Permissions, Presented, SessionRequest, Verdict};
use umbra_protocol::ticket::Ticket;
use umbra_protocol::{Refusal, RefusalCode};

use crate::link::machine::Answer;
use crate::registry::Unattended;

/// Time as the machine sees it: since some fixed moment, never jumping.
pub type Moment = Duration;

/// What the registry says about sessions at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
                State::AskingServer { .. } | State::TakingPlace { .. } | State::Connecting,
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
            (State::Connecting, Input::Upstream(Ok(()))) => vec![Output::Admit],
            (State::Connecting, Input::Upstream(Err((code, sentence)))) => {
                vec![Output::Refuse(Turned { code, sentence })]
            }
            (
                state @ (State::AskingServer { .. }
                | State::TakingPlace { .. }
                | State::AskingPerson { .. }
                | State::Connecting),
                Input::Answer(_)
                | Input::Place(_)
                | Input::Consent(_)
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
                    "The device cannot ask its server at the moment, and without it nobody may come in. Try again shortly.",
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
mod tests {
    use proptest::prelude::*;
    use umbra_protocol::secret::Secret;
    use umbra_protocol::{DeviceId, Fingerprint, SessionId};

    use super::*;

    const NOW: Moment = Duration::from_secs(100);
    const FULL: Permissions = Permissions {
        control: true,
        clipboard: true,
    };
    const SILENT: Rules = Rules {
        ask: false,
        timeout: Duration::from_secs(30),
        unattended: Unattended::Deny,
        has_program: true,
        remote_input: true,
    };
    const ASK: Rules = Rules {
        ask: true,
        ..SILENT
    };

    fn request() -> SessionRequest {
        SessionRequest {
            session: SessionId::from_bytes([1; 16]),
            operator: "Ada".into(),
            reason: "Printer".into(),
            permissions: FULL,
        }
    }

    fn presented() -> Presented {
        Presented::LegacyPassword {
            password: Secret::new("x"),
        }
    }

    fn with_ticket(permissions: Permissions) -> Caller {
        Caller::Ticket {
            ticket: Box::new(Ticket {
                session: request().session,
                device: DeviceId::from_bytes([2; 32]),
                certificate: Fingerprint::from_bytes([3; 32]),
                operator: "Ada".into(),
                permissions,
                nonce: "00".repeat(16),
                iat: 0,
                exp: 60,
            }),
            presented: presented(),
        }
    }

    fn allowed() -> Input {
        Input::Answer(Answer::Verdict(Verdict::Allowed(request())))
    }

    fn begin(rules: Rules) -> Machine {
        let (machine, outputs) = Machine::new(with_ticket(FULL), rules);
        assert_eq!(outputs, [Output::AskServer(presented())]);
        machine
    }

    fn asking(rules: Rules) -> Machine {
        let mut machine = begin(rules);
        machine.handle(allowed(), NOW);
        let outputs = machine.handle(Input::Place(true), NOW);
        assert!(matches!(
            outputs[..],
            [Output::Wait(_), Output::AskPerson { .. }]
        ));
        machine
    }

    fn refused(outputs: &[Output]) -> Option<&str> {
        outputs.iter().find_map(|output| {
            if let Output::Refuse(turned) = output {
                Some(turned.code.as_str())
            } else {
                None
            }
        })
    }

    #[test]
    fn a_session_begins_after_server_place_and_vnc_server_in_this_order() {
        let mut machine = begin(SILENT);
        assert_eq!(
            machine.handle(allowed(), NOW),
            [Output::TakePlace(Box::new(request()))]
        );
        assert_eq!(
            machine.handle(Input::Place(true), NOW),
            [Output::Connect(FULL)]
        );
        assert_eq!(
            machine.handle(Input::Upstream(Ok(())), NOW),
            [Output::Admit]
        );
    }

    #[test]
    fn the_servers_no_and_the_servers_silence_are_refusals_with_different_codes() {
        let refusal = Refusal::new(RefusalCode::TicketExpired, "Too late.");
        let mut machine = begin(SILENT);
        let outputs = machine.handle(
            Input::Answer(Answer::Verdict(Verdict::Refused(refusal))),
            NOW,
        );
        assert_eq!(refused(&outputs), Some("ticket_expired"));
        let mut machine = begin(SILENT);
        let outputs = machine.handle(Input::Answer(Answer::Unreachable), NOW);
        assert_eq!(refused(&outputs), Some("server_unreachable"));
    }

    #[test]
    fn an_answer_about_another_session_is_not_taken_for_this_one() {
        let other = SessionRequest {
            session: SessionId::from_bytes([9; 16]),
            ..request()
        };
        let mut machine = begin(SILENT);
        let outputs = machine.handle(Input::Answer(Answer::Verdict(Verdict::Allowed(other))), NOW);
        assert_eq!(refused(&outputs), Some("ticket_invalid"));
    }

    #[test]
    fn of_ticket_server_and_device_the_strictest_counts() {
        for ticket in [true, false] {
            for server in [true, false] {
                for device in [true, false] {
                    let rules = Rules {
                        remote_input: device,
                        ..SILENT
                    };
                    let permissions = |yes| Permissions {
                        control: yes,
                        clipboard: yes,
                    };
                    let (mut machine, _) = Machine::new(with_ticket(permissions(ticket)), rules);
                    let request = SessionRequest {
                        permissions: permissions(server),
                        ..request()
                    };
                    machine.handle(
                        Input::Answer(Answer::Verdict(Verdict::Allowed(request))),
                        NOW,
                    );
                    let expected = permissions(ticket && server && device);
                    assert_eq!(
                        machine.handle(Input::Place(true), NOW),
                        [Output::Connect(expected)],
                        "{ticket} {server} {device}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_person_decides_and_the_operator_is_told_to_wait() {
        for (consent, expected) in [
            (Consent::Denied, Some("consent_denied")),
            (Consent::Nobody, Some("nobody_to_ask")),
            (Consent::Accepted, None),
        ] {
            let mut machine = asking(ASK);
            let outputs = machine.handle(Input::Consent(consent), NOW);
            assert_eq!(outputs[0], Output::StopAsking);
            assert_eq!(refused(&outputs), expected, "{consent:?}");
            assert_eq!(outputs.contains(&Output::Connect(FULL)), expected.is_none());
        }
    }

    #[test]
    fn nobody_there_is_a_yes_only_where_the_registry_says_so() {
        let mut machine = asking(Rules {
            unattended: Unattended::Allow,
            ..ASK
        });
        let outputs = machine.handle(Input::Consent(Consent::Nobody), NOW);
        assert!(outputs.contains(&Output::Connect(FULL)));
        let mut machine = asking(Rules {
            unattended: Unattended::Allow,
            ..ASK
        });
        let outputs = machine.handle(Input::Consent(Consent::Denied), NOW);
        assert_eq!(
            refused(&outputs),
            Some("consent_denied"),
            "a no is a no in any case"
        );
    }

    #[test]
    fn a_question_without_an_answer_ends_in_time() {
        for (has_program, unattended, expected) in [
            (true, Unattended::Deny, Some("consent_timeout")),
            (true, Unattended::Allow, Some("consent_timeout")),
            (false, Unattended::Deny, Some("nobody_to_ask")),
            (false, Unattended::Allow, None),
        ] {
            let mut machine = asking(Rules {
                has_program,
                unattended,
                ..ASK
            });
            let until = machine.next_deadline().expect("a deadline");
            assert_eq!(until, NOW + ASK.timeout);
            assert!(machine.handle(Input::Tick, NOW).is_empty(), "too early");
            let outputs = machine.handle(Input::Tick, until);
            assert_eq!(refused(&outputs), expected, "{has_program} {unattended:?}");
            assert_eq!(outputs[0], Output::StopAsking);
        }
    }

    #[test]
    fn a_full_device_refuses_before_anybody_is_asked() {
        let mut machine = begin(ASK);
        machine.handle(allowed(), NOW);
        let outputs = machine.handle(Input::Place(false), NOW);
        assert_eq!(refused(&outputs), Some("too_many_sessions"));
        assert_eq!(machine.next_deadline(), None);
    }

    #[test]
    fn a_missing_vnc_server_is_told_with_its_own_code() {
        let mut machine = begin(SILENT);
        machine.handle(allowed(), NOW);
        machine.handle(Input::Place(true), NOW);
        let absent = ("vnc_server_absent".to_owned(), "None is there.".to_owned());
        let outputs = machine.handle(Input::Upstream(Err(absent)), NOW);
        assert_eq!(refused(&outputs), Some("vnc_server_absent"));
    }

    #[test]
    fn a_session_that_is_withdrawn_never_begins_whatever_comes_afterwards() {
        let withdrawn =
            || Input::Withdrawn(Turned::new(RefusalCode::SessionWithdrawn, "Withdrawn."));
        let mut machine = asking(ASK);
        let outputs = machine.handle(withdrawn(), NOW);
        assert_eq!(outputs[0], Output::StopAsking);
        assert_eq!(refused(&outputs), Some("session_withdrawn"));
        assert!(
            machine
                .handle(Input::Consent(Consent::Accepted), NOW)
                .is_empty()
        );
        assert!(machine.handle(Input::Upstream(Ok(())), NOW).is_empty());
    }

    #[test]
    fn a_plain_viewer_needs_a_place_and_consent_but_no_server() {
        let (mut machine, outputs) = Machine::new(
            Caller::Plain { request: request() },
            Rules {
                remote_input: false,
                ..ASK
            },
        );
        assert!(matches!(outputs[..], [Output::TakePlace(_)]));
        machine.handle(Input::Place(true), NOW);
        let outputs = machine.handle(Input::Consent(Consent::Accepted), NOW);
        let looking = Permissions {
            control: false,
            clipboard: false,
        };
        assert!(outputs.contains(&Output::Connect(looking)));
    }

    fn any_input() -> impl Strategy<Value = Input> {
        (0u8..9).prop_map(|kind| match kind {
            0 => allowed(),
            1 => Input::Answer(Answer::Unreachable),
            2 => Input::Place(true),
            3 => Input::Place(false),
            4 => Input::Consent(Consent::Accepted),
            5 => Input::Consent(Consent::Denied),
            6 => Input::Upstream(Ok(())),
            7 => Input::Upstream(Err(("x".into(), "y".into()))),
            _ => Input::Tick,
        })
    }

    proptest! {
        #[test]
        fn nobody_comes_in_without_every_yes(inputs in proptest::collection::vec(any_input(), 0..40), ask: bool) {
            let rules = Rules { ask, ..SILENT };
            let mut machine = begin(rules);
            let mut yes = Vec::new();
            let mut ends = 0;
            for input in inputs {
                let outputs = machine.handle(input.clone(), NOW);
                if !outputs.is_empty() {
                    yes.push(input);
                }
                let admitted = outputs.contains(&Output::Admit);
                ends += usize::from(admitted) + usize::from(refused(&outputs).is_some());
                if admitted {
                    let mut needed = vec![allowed(), Input::Place(true)];
                    if ask {
                        needed.push(Input::Consent(Consent::Accepted));
                    }
                    needed.push(Input::Upstream(Ok(())));
                    prop_assert_eq!(&yes, &needed);
                }
            }
            prop_assert!(ends <= 1, "a caller has one end");
        }
    }
}
