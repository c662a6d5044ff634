//! The decision about a caller, without a caller.

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
    indicator: false,
    hindrance: None,
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
    let withdrawn = || Input::Withdrawn(Turned::new(RefusalCode::SessionWithdrawn, "Withdrawn."));
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

#[test]
fn nobody_is_asked_about_a_session_that_can_not_be() {
    let hindrance = Turned {
        code: "vnc_server_absent".into(),
        sentence: "None is there.".into(),
    };
    let mut machine = begin(Rules {
        hindrance: Some(hindrance),
        ..ASK
    });
    machine.handle(allowed(), NOW);
    let outputs = machine.handle(Input::Place(true), NOW);
    assert_eq!(outputs.len(), 1, "{outputs:?}");
    assert_eq!(refused(&outputs), Some("vnc_server_absent"));
}

#[test]
fn where_the_person_must_see_it_a_session_begins_only_once_the_person_does() {
    let connected = || {
        let mut machine = begin(Rules {
            indicator: true,
            ..SILENT
        });
        machine.handle(allowed(), NOW);
        machine.handle(Input::Place(true), NOW);
        let outputs = machine.handle(Input::Upstream(Ok(())), NOW);
        assert_eq!(outputs, [Output::Indicate]);
        machine
    };
    let mut machine = connected();
    assert_eq!(machine.handle(Input::Tick, NOW), []);
    assert_eq!(
        machine.handle(Input::Indicator(Ok(())), NOW),
        [Output::Admit]
    );
    let turned = Turned::new(RefusalCode::IndicatorUnavailable, "It does not run.");
    let outputs = connected().handle(Input::Indicator(Err(turned)), NOW);
    assert_eq!(refused(&outputs), Some("indicator_unavailable"));
    let withdrawn = Turned::new(RefusalCode::SessionWithdrawn, "Withdrawn.");
    let outputs = connected().handle(Input::Withdrawn(withdrawn), NOW);
    assert_eq!(refused(&outputs), Some("session_withdrawn"));
}
