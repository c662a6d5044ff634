use umbra_protocol::gateway::{RendezvousReady, TunnelEnd};
use umbra_protocol::ids::ServerRoot;
use umbra_protocol::{Refusal, RefusalCode};

use super::*;

fn machine(now: Instant) -> Machine {
    let attach = Attach {
        versions: VERSIONS.to_vec(),
        server_root: ServerRoot::from_bytes([1; 32]),
        server_name: "ums".into(),
        limit: Some(100),
    };
    Machine::new(attach, 7, now)
}

fn attached(version: u16) -> FromGateway {
    FromGateway::Attached(Attached {
        version,
        gateway_version: "0.1.0".into(),
        connections: 0,
    })
}

fn pong(number: u64) -> Input {
    Input::Heard(FromGateway::Pong(Beat { number }))
}

fn ended(sentence: &str) -> Input {
    Input::Ended(Ending {
        sentence: sentence.into(),
        retry_after: None,
    })
}

/// An uplink that stands.
fn up(now: Instant) -> Machine {
    let mut machine = machine(now);
    assert_eq!(machine.handle(Input::Tick, now), [Output::Connect]);
    let first = machine.handle(Input::Connected, now);
    assert!(matches!(&first[..], [Output::Send(ToGateway::Attach(_))]));
    assert!(!machine.is_up());
    let second = machine.handle(Input::Heard(attached(1)), now);
    assert!(matches!(&second[..], [Output::Up(_)]), "{second:?}");
    machine
}

/// When the next attempt is made, after the connection was lost.
fn next(outputs: &[Output]) -> Duration {
    match outputs.last() {
        Some(Output::Down { next, .. }) => *next,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_uplink_that_attaches_and_dies_at_once_is_tried_less_and_less_often() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    let mut waits = Vec::new();
    for _ in 0..12 {
        now = machine.deadline().expect("waits");
        assert_eq!(machine.handle(Input::Tick, now), [Output::Connect]);
        machine.handle(Input::Connected, now);
        machine.handle(Input::Heard(attached(1)), now);
        waits.push(next(&machine.handle(ended("Gone."), now)));
    }
    assert!(waits[0] <= FIRST_WAIT, "{waits:?}");
    assert!(waits[11] >= LONGEST_WAIT / 2, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT));
}

#[test]
fn a_heartbeat_that_came_back_makes_the_next_attempt_quick_again() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    for _ in 0..8 {
        now = machine.deadline().expect("waits");
        machine.handle(Input::Tick, now);
        machine.handle(ended("Refused."), now);
    }
    now = machine.deadline().expect("waits");
    machine.handle(Input::Tick, now);
    machine.handle(Input::Connected, now);
    machine.handle(Input::Heard(attached(1)), now);
    now += HEARTBEAT;
    assert!(matches!(
        &machine.handle(Input::Tick, now)[..],
        [Output::Send(ToGateway::Ping(Beat { number: 1 }))]
    ));
    assert_eq!(machine.handle(pong(1), now), []);
    let wait = next(&machine.handle(ended("Gone."), now));
    assert!(wait <= FIRST_WAIT, "{wait:?}");
}

#[test]
fn attempts_of_many_servers_are_spread() {
    let now = Instant::now();
    let waits: std::collections::BTreeSet<Duration> = (0..50)
        .map(|seed| {
            let mut machine = Machine::new(machine(now).attach, seed * 7919, now);
            machine.handle(Input::Tick, now);
            next(&machine.handle(ended("Refused."), now))
        })
        .collect();
    assert!(waits.len() > 25, "{} different waits", waits.len());
}

#[test]
fn a_silent_gateway_is_given_up_and_one_that_says_anything_is_not() {
    let start = Instant::now();
    let mut machine = up(start);
    let mut now = start;
    while now < start + SILENCE * 3 {
        now = machine.deadline().expect("up").min(now + HEARTBEAT);
        machine.handle(Input::Tick, now);
        let ready = RendezvousReady {
            id: RendezvousId::from_bytes([1; 16]),
        };
        machine.handle(Input::Heard(ready.into()), now);
    }
    assert!(machine.is_up());
    let heard = now;
    loop {
        now = machine.deadline().expect("a deadline");
        let outputs = machine.handle(Input::Tick, now);
        if let [Output::Disconnect, Output::Down { was_up, .. }] = &outputs[..] {
            assert!(was_up);
            break;
        }
        assert!(matches!(&outputs[..], [Output::Send(ToGateway::Ping(_))]));
    }
    assert_eq!(now - heard, SILENCE);
    assert!(!machine.is_up());
    assert_eq!(
        machine.handle(ended("The end of it."), now),
        [],
        "told already"
    );
}

#[test]
fn a_gateway_that_does_not_answer_the_first_words_is_given_up() {
    let now = Instant::now();
    let mut machine = machine(now);
    machine.handle(Input::Tick, now);
    assert_eq!(machine.deadline(), None, "the dialler has its own");
    machine.handle(Input::Connected, now);
    assert_eq!(machine.deadline(), Some(now + ATTACH_DEADLINE));
    let outputs = machine.handle(Input::Tick, now + ATTACH_DEADLINE);
    assert!(matches!(
        &outputs[..],
        [Output::Disconnect, Output::Down { was_up: false, .. }]
    ));
}

#[test]
fn a_draining_gateways_hint_is_followed_within_bounds_and_once() {
    let now = Instant::now();
    for (said, least, most) in [(17, 17, 22), (0, 1, 2), (100_000, 120, 150)] {
        let mut machine = up(now);
        let draining = Draining {
            retry_after_seconds: said,
        };
        assert_eq!(machine.handle(Input::Heard(draining.into()), now), []);
        let wait = next(&machine.handle(ended("It restarts."), now));
        assert!(wait >= Duration::from_secs(least), "{said}: {wait:?}");
        assert!(wait <= Duration::from_secs(most), "{said}: {wait:?}");
        let later = machine.deadline().expect("waits");
        machine.handle(Input::Tick, later);
        let wait = next(&machine.handle(ended("Refused."), later));
        assert!(wait <= FIRST_WAIT, "{wait:?}");
    }
}

#[test]
fn a_refusal_that_only_a_person_can_change_is_tried_seldom_and_shown() {
    let now = Instant::now();
    let mut machine = machine(now);
    machine.handle(Input::Tick, now);
    machine.handle(Input::Connected, now);
    let refusal = Refusal::new(RefusalCode::UnsupportedVersion, "No version in common.");
    let outputs = machine.handle(Input::Heard(refusal.into()), now);
    assert!(next(&outputs) >= SELDOM);
    let [Output::Disconnect, Output::Down { sentence, .. }] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert!(sentence.contains("No version in common."), "{sentence}");
}

#[test]
fn a_version_that_this_server_does_not_speak_and_words_out_of_turn_end_the_attempt() {
    let now = Instant::now();
    let over = FromGateway::RendezvousEnded(RendezvousEnded {
        id: RendezvousId::from_bytes([1; 16]),
        code: TunnelEnd::Idle,
        sentence: String::new(),
        bytes_to_device: 0,
        bytes_to_console: 0,
    });
    for bad in [attached(99), over] {
        let mut machine = machine(now);
        machine.handle(Input::Tick, now);
        machine.handle(Input::Connected, now);
        let outputs = machine.handle(Input::Heard(bad), now);
        assert!(
            matches!(&outputs[..], [Output::Disconnect, Output::Down { .. }]),
            "{outputs:?}"
        );
    }
}

#[test]
fn a_new_limit_is_said_at_once_where_the_uplink_stands_and_at_the_next_attach_otherwise() {
    let now = Instant::now();
    let mut machine = up(now);
    assert_eq!(
        machine.handle(Input::Limit(Some(5)), now),
        [Output::Send(Limit { devices: Some(5) }.into())]
    );
    machine.handle(ended("Gone."), now);
    assert_eq!(machine.handle(Input::Limit(Some(6)), now), []);
    let later = machine.deadline().expect("waits");
    machine.handle(Input::Tick, later);
    let outputs = machine.handle(Input::Connected, later);
    let [Output::Send(ToGateway::Attach(attach))] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(attach.limit, Some(6));
}
