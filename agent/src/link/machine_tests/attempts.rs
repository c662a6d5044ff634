//! Attempts to reach the server: when the next one comes, and what is said in it.

use super::*;

#[test]
fn waits_grow_while_only_tls_succeeds_and_start_anew_after_a_welcome() {
    let mut sim = Sim::new();
    let mut waits = Vec::new();
    for _ in 0..10 {
        sim.connect();
        sim.frame(refused(RefusalCode::Busy));
        assert!(sim.closes());
        waits.push(sim.sleep());
    }
    assert!(waits[0] <= 2 * SECOND, "{waits:?}");
    assert!(
        waits[8] >= 45 * SECOND && waits[9] >= 45 * SECOND,
        "{waits:?}"
    );
    sim.welcome(40);
    sim.feed(Input::Closed(broken()));
    assert!(sim.sleep() <= HERD_SPREAD);
}

#[test]
fn a_refusal_that_only_a_person_can_lift_is_retried_seldom_and_for_ever() {
    for code in [
        RefusalCode::UnknownDevice,
        RefusalCode::DeviceRemoved,
        RefusalCode::UnsupportedVersion,
        RefusalCode::Unknown,
    ] {
        let mut sim = Sim::new();
        for _ in 0..5 {
            sim.connect();
            sim.frame(refused(code));
            assert_eq!(sim.trouble().map(|t| t.code.as_str()), Some(code.as_str()));
            let wait = sim.sleep();
            assert!(
                (SLOW_RETRY..=SLOW_RETRY * 2).contains(&wait),
                "{code}: {wait:?}"
            );
        }
    }
}

#[test]
fn a_twin_with_the_same_identity_is_not_fought_every_second() {
    let mut sim = Sim::online();
    sim.frame(refused(RefusalCode::Superseded));
    sim.feed(Input::Ended);
    assert!(sim.closes());
    assert!(sim.sleep() >= SUPERSEDED_WAIT);
    assert!(sim.connects());
}

#[test]
fn a_refusal_on_a_standing_link_is_handed_on_and_is_the_reason_if_the_server_closes_now() {
    for (later, end, expected) in [
        (Duration::ZERO, Input::Ended, "device_removed"),
        (REASON_HOLDS * 2, Input::Ended, "closed"),
        (Duration::ZERO, Input::Closed(broken()), "closed"),
    ] {
        let mut sim = Sim::online();
        let refusal = refused(RefusalCode::DeviceRemoved);
        sim.frame(refusal.clone());
        assert!(sim.machine.is_online(), "one refusal does not end a link");
        assert_eq!(
            sim.out,
            [Output::Deliver(Box::new(Delivery::Refused(refusal)))]
        );
        sim.now += later;
        sim.feed(end);
        assert_eq!(sim.trouble().map(|t| t.code.as_str()), Some(expected));
        assert_eq!(sim.sleep() >= SLOW_RETRY, expected == "device_removed");
    }
}

#[test]
fn the_servers_wish_when_to_come_back_is_honoured_within_bounds() {
    let mut sim = Sim::new();
    sim.connect();
    sim.frame(refused(RefusalCode::Throttled).retry_after(120));
    let wait = sim.sleep();
    assert!((120 * SECOND..=151 * SECOND).contains(&wait), "{wait:?}");
    sim.welcome(40);
    sim.frame(Goodbye {
        sentence: "Maintenance.".into(),
        retry_after_seconds: Some(u32::MAX),
    });
    let wait = sim.sleep();
    assert!(
        wait <= limits::RETRY_AFTER_MAX && wait > 5 * 60 * SECOND,
        "{wait:?}"
    );
    assert!(sim.connects());
}

#[test]
fn frames_are_small_until_the_welcome() {
    let mut sim = Sim::new();
    sim.connect();
    assert_eq!(sim.machine.frame_limit(), limits::FRAME_BEFORE_WELCOME);
    sim.frame(welcome(40));
    assert_eq!(sim.machine.frame_limit(), limits::FRAME);
}

#[test]
fn a_version_that_the_device_does_not_speak_is_refused_with_its_number() {
    let mut sim = Sim::new();
    sim.connect();
    sim.frame(Welcome {
        version: 9,
        ..welcome(40)
    });
    assert!(!sim.machine.is_online());
    assert!(
        sim.trouble()
            .is_some_and(|trouble| trouble.sentence.contains("version 9"))
    );
    assert!(sim.sleep() >= SLOW_RETRY);
}
