//! A caller on the way to a session, against any order of answers. What holds: nobody is admitted but after the server's word (or
//! secure mode being off), a free place, the person's yes where one is asked for, a VNC server and, where it must, a sign for the
//! person, in this order; nobody gets more than ticket, server and device allow, and never the keyboard where the device keeps it;
//! there is one end, and nothing after it; and a question to the person is taken back exactly once.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_agent::link::events::Answer;
use umbra_agent::registry::Unattended;
use umbra_agent::session::machine::{Caller, Consent, Input, Machine, Output, Rules, Turned};
use umbra_protocol::session::{Permissions, Presented, SessionRequest, Verdict};
use umbra_protocol::ticket::Ticket;
use umbra_protocol::{DeviceId, Fingerprint, Refusal, RefusalCode, Secret, SessionId};

#[derive(Arbitrary, Debug)]
struct Run {
    caller: u8,
    of_ticket: (bool, bool),
    of_plain: (bool, bool),
    ask: bool,
    timeout: u8,
    allow_unattended: bool,
    has_program: bool,
    remote_input: bool,
    indicator: bool,
    hindrance: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Step {
    Wait(u8),
    Unreachable,
    Refused,
    Allowed { session: bool, control: bool, clipboard: bool },
    Place(bool),
    Consent(u8),
    Upstream(bool),
    Indicator(bool),
    Withdrawn,
}

fn permissions((control, clipboard): (bool, bool)) -> Permissions {
    Permissions { control, clipboard }
}

fn request(number: u8, permissions: Permissions) -> SessionRequest {
    SessionRequest {
        session: SessionId::from_bytes([number; 16]),
        operator: "Ada".into(),
        reason: String::new(),
        permissions,
    }
}

fn turned() -> Turned {
    Turned::new(RefusalCode::SessionWithdrawn, "No.")
}

fuzz_target!(|run: Run| {
    let rules = Rules {
        ask: run.ask,
        timeout: Duration::from_secs(run.timeout.into()),
        unattended: if run.allow_unattended { Unattended::Allow } else { Unattended::Deny },
        has_program: run.has_program,
        remote_input: run.remote_input,
        indicator: run.indicator,
        hindrance: run.hindrance.then(turned),
    };
    let presented = Presented::LegacyPassword { password: Secret::new("x") };
    let plain = run.caller % 3 == 2;
    let caller = match run.caller % 3 {
        0 => Caller::Ticket {
            ticket: Box::new(Ticket {
                session: SessionId::from_bytes([1; 16]),
                device: DeviceId::from_bytes([1; 32]),
                certificate: Fingerprint::from_bytes([1; 32]),
                operator: "Ada".into(),
                permissions: permissions(run.of_ticket),
                nonce: String::new(),
                iat: 0,
                exp: 0,
            }),
            presented,
        },
        1 => Caller::Legacy { presented },
        _ => Caller::Plain { request: request(1, permissions(run.of_plain)) },
    };
    // The most that anybody with a say has allowed so far.
    let mut most = match run.caller % 3 {
        0 => permissions(run.of_ticket),
        1 => permissions((true, true)),
        _ => permissions(run.of_plain),
    };
    most.control &= run.remote_input;
    most.clipboard &= run.remote_input;

    let mut now = Duration::ZERO;
    let (mut server, mut place, mut person, mut upstream, mut sign) = (plain, false, !run.ask, false, !run.indicator);
    let (mut asking, mut ended, mut connecting, mut indicating) = (None, false, false, false);
    let (mut machine, mut outputs) = Machine::new(caller, rules);
    for step in run.steps.iter().take(64) {
        for output in std::mem::take(&mut outputs) {
            assert!(!ended, "something after the end: {output:?}");
            match output {
                Output::AskServer(_) => assert!(!plain && !server),
                Output::TakePlace(request) => {
                    assert!(server && !place, "a place before the server has spoken");
                    assert!(!request.permissions.control || most.control, "more than was allowed");
                    assert!(!request.permissions.clipboard || most.clipboard, "more than was allowed");
                }
                Output::AskPerson { until } => {
                    assert!(server && place && run.ask && asking.is_none());
                    assert_eq!(machine.next_deadline(), Some(until), "nobody would wake it");
                    asking = Some(until);
                }
                Output::StopAsking => assert!(asking.take().is_some(), "a question that nobody had asked"),
                Output::Wait(_) => {}
                Output::Connect(given) => {
                    assert!(server && place && person && asking.is_none() && !run.hindrance);
                    assert!(!given.control || most.control, "the keyboard of a session that may only look");
                    assert!(!given.clipboard || most.clipboard, "more than was allowed");
                    connecting = true;
                }
                Output::Indicate => {
                    assert!(run.indicator && upstream);
                    indicating = true;
                }
                Output::Admit => {
                    assert!(server && place && person && upstream && sign, "somebody came in too early");
                    ended = true;
                }
                Output::Refuse(_) => ended = true,
            }
        }
        if ended {
            assert_eq!((asking, machine.next_deadline()), (None, None), "the question stays open");
        }
        let input = match *step {
            Step::Wait(seconds) => {
                now += Duration::from_secs(seconds.into());
                // Without a program to ask, nobody is there; else no answer is a no.
                if asking.is_some_and(|until| until <= now) {
                    person = person || (!run.has_program && run.allow_unattended);
                }
                Input::Tick
            }
            Step::Unreachable => Input::Answer(Answer::Unreachable),
            Step::Refused => {
                let refusal = Refusal::new(RefusalCode::TicketInvalid, "No.");
                Input::Answer(Answer::Verdict(Verdict::Refused(refusal)))
            }
            Step::Allowed { session, control, clipboard } => {
                if !server && !ended {
                    server = session || run.caller % 3 == 1;
                    most.control &= control;
                    most.clipboard &= clipboard;
                }
                let request = request(if session { 1 } else { 2 }, permissions((control, clipboard)));
                Input::Answer(Answer::Verdict(Verdict::Allowed(request)))
            }
            Step::Place(free) => {
                place |= free && server;
                Input::Place(free)
            }
            Step::Consent(what) => {
                let consent = [Consent::Accepted, Consent::Denied, Consent::Nobody][usize::from(what % 3)];
                if asking.is_some() {
                    person |= consent == Consent::Accepted || (consent == Consent::Nobody && run.allow_unattended);
                }
                Input::Consent(consent)
            }
            Step::Upstream(good) => {
                upstream |= good && connecting;
                Input::Upstream(if good { Ok(()) } else { Err(("x".into(), "No.".into())) })
            }
            Step::Indicator(good) => {
                sign |= good && indicating;
                Input::Indicator(if good { Ok(()) } else { Err(turned()) })
            }
            Step::Withdrawn => Input::Withdrawn(turned()),
        };
        let withdrawn = matches!(input, Input::Withdrawn(_));
        outputs = machine.handle(input, now);
        assert!(outputs.len() <= 2);
        if withdrawn && !ended {
            assert!(matches!(outputs.last(), Some(Output::Refuse(_))), "withdrawn, and it goes on");
        }
    }
});
