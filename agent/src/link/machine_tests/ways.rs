//! Several ways to the server, changes of the network, and gateways.

use super::*;

#[test]
fn a_change_of_network_is_tried_at_once_but_a_storm_of_changes_is_not_a_tight_loop() {
    let mut sim = Sim::new();
    for _ in 0..8 {
        sim.feed(Input::ConnectFailed(broken()));
        sim.sleep();
    }
    sim.feed(Input::ConnectFailed(broken()));
    sim.now += 5 * SECOND;
    sim.feed(Input::NetworkChanged);
    assert!(sim.connects());
    let begin = sim.now;
    let mut attempts = 0;
    while sim.now < begin + 60 * SECOND {
        sim.feed(Input::ConnectFailed(broken()));
        sim.feed(Input::NetworkChanged);
        attempts += usize::from(sim.connects());
        sim.now += SECOND / 10;
        sim.feed(Input::Tick);
        attempts += usize::from(sim.connects());
    }
    assert!((10..=61).contains(&attempts), "{attempts}");
}

#[test]
fn after_a_change_of_network_a_half_open_link_is_found_within_seconds() {
    let mut sim = Sim::online();
    let changed = sim.now;
    sim.feed(Input::NetworkChanged);
    assert_eq!(sim.sent()[0].kind(), "ping");
    while sim.machine.is_online() {
        sim.sleep();
    }
    assert!(sim.now - changed <= PROBE);
    let mut sim = Sim::online();
    sim.feed(Input::NetworkChanged);
    sim.frame(FromServer::Pong(Beat { number: 1 }));
    sim.now += PROBE;
    sim.feed(Input::Tick);
    assert!(sim.machine.is_online(), "an answered probe keeps the link");
}

#[test]
fn ways_to_the_server_are_tried_in_turn_and_the_one_that_worked_comes_first() {
    let mut sim = Sim::with_connectors(3, 5);
    assert!(sim.out.contains(&Output::Connect(0)));
    sim.feed(Input::ConnectFailed(broken()));
    assert!(sim.out.contains(&Output::Connect(1)));
    sim.welcome(40);
    sim.feed(Input::Closed(broken()));
    sim.sleep();
    assert!(sim.out.contains(&Output::Connect(1)), "{:?}", sim.out);
    sim.feed(Input::ConnectFailed(broken()));
    assert!(sim.out.contains(&Output::Connect(2)));
    sim.feed(Input::ConnectFailed(broken()));
    assert!(sim.out.contains(&Output::Connect(0)));
    sim.feed(Input::ConnectFailed(broken()));
    assert!(!sim.connects() && sim.trouble().is_some());
}

#[test]
fn a_way_that_is_added_or_taken_away_counts_from_the_next_attempt() {
    let mut sim = Sim::new();
    sim.ways(&[false, false], 0, None);
    sim.feed(Input::ConnectFailed(broken()));
    assert!(sim.out.contains(&Output::Connect(1)));
    sim.ways(&[false], 0, None);
    sim.feed(Input::ConnectFailed(broken()));
    sim.sleep();
    assert!(sim.out.contains(&Output::Connect(0)));
}

/// Two ways: a direct one, which is preferred, and a gateway, over which the link stands.
fn by_gateway(seed: u64) -> Sim {
    let mut sim = Sim::with_connectors(2, seed);
    sim.ways(&[true, false], 0, None);
    sim.feed(Input::ConnectFailed(broken()));
    assert!(sim.out.contains(&Output::Connect(1)), "{:?}", sim.out);
    sim.welcome(40);
    sim
}

/// Keeps the link alive until the machine looks for a better way; returns how long that took.
fn until_probe(sim: &mut Sim, limit: Duration) -> Option<(Duration, usize)> {
    let begun = sim.now;
    while sim.now < begun + limit {
        sim.sleep();
        for output in &sim.out {
            if let Output::Probe(index) = output {
                return Some((sim.now - begun, *index));
            }
        }
        sim.frame(FromServer::Pong(Beat { number: 0 }));
        assert!(sim.machine.is_online(), "{:?}", sim.out);
    }
    None
}

fn of_gateway(retry_after: Option<Duration>) -> Trouble {
    Trouble {
        retry_after,
        of_way: true,
        ..Trouble::passing("shutting_down", "The gateway restarts.")
    }
}

#[test]
fn a_better_way_is_looked_for_beside_the_link_and_taken_when_it_answers() {
    let mut sim = by_gateway(5);
    // Soon after the first link of a run, then seldom.
    let (first, index) = until_probe(&mut sim, 120 * SECOND).expect("a look");
    assert!(
        (60..=75).contains(&first.as_secs()) && index == 0,
        "{first:?}"
    );
    let result = Err(broken());
    sim.feed(Input::Probed {
        connector: 0,
        result,
    });
    assert!(sim.machine.is_online(), "the link stays");
    assert!(matches!(
        &sim.out[..],
        [Output::Failed { connector: 0, .. }]
    ));
    let (next, _) = until_probe(&mut sim, 1_000 * SECOND).expect("a look");
    assert!((600..=750).contains(&next.as_secs()), "{next:?}");
    sim.feed(Input::Probed {
        connector: 0,
        result: Ok(()),
    });
    assert_eq!(sim.sent()[0].kind(), "goodbye");
    assert!(sim.closes() && !sim.machine.is_online());
    let waited = sim.sleep();
    assert!(waited <= 2 * SECOND, "{waited:?}");
    assert!(sim.out.contains(&Output::Connect(0)), "{:?}", sim.out);
    sim.welcome(40);
    // There is nothing better now.
    assert_eq!(until_probe(&mut sim, 3_000 * SECOND), None);
}

#[test]
fn a_change_of_network_is_a_reason_to_look_at_once_but_not_again_and_again() {
    let mut sim = by_gateway(5);
    sim.feed(Input::NetworkChanged);
    sim.frame(FromServer::Pong(Beat { number: 1 }));
    let (first, _) = until_probe(&mut sim, 120 * SECOND).expect("a look");
    assert!(first <= 5 * SECOND, "{first:?}");
    sim.feed(Input::Probed {
        connector: 0,
        result: Err(broken()),
    });
    for _ in 0..20 {
        sim.feed(Input::NetworkChanged);
        sim.frame(FromServer::Pong(Beat { number: 1 }));
    }
    let (second, _) = until_probe(&mut sim, 120 * SECOND).expect("a look");
    assert!((29..=31).contains(&second.as_secs()), "{second:?}");
}

#[test]
fn a_better_way_that_does_not_hold_is_looked_for_less_and_less_often() {
    let mut sim = by_gateway(5);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let (pause, _) = until_probe(&mut sim, 20_000 * SECOND).expect("a look");
        pauses.push(pause.as_secs());
        sim.feed(Input::Probed {
            connector: 0,
            result: Ok(()),
        });
        sim.sleep();
        // It answered when it was only looked at, and does not now.
        sim.feed(Input::ConnectFailed(broken()));
        assert!(sim.out.contains(&Output::Connect(1)), "{:?}", sim.out);
        sim.welcome(40);
    }
    assert!(pauses[1] >= 1_200 && pauses[2] >= 2_400, "{pauses:?}");
    assert!(pauses[5] >= 9_600 && pauses[5] <= 12_000, "{pauses:?}");
}

#[test]
fn a_look_that_never_ends_costs_neither_the_link_nor_the_next_look() {
    let mut sim = by_gateway(5);
    until_probe(&mut sim, 120 * SECOND).expect("a look");
    assert!(until_probe(&mut sim, 3_000 * SECOND).is_some());
}

#[test]
fn being_told_to_leave_a_way_ends_link_and_attempt_at_once() {
    let mut sim = by_gateway(5);
    sim.ways(&[true, false], 0, Some("The registry says so."));
    assert_eq!(sim.sent()[0].kind(), "goodbye");
    assert!(sim.closes());
    assert!(sim.sleep() <= 2 * SECOND);
    assert!(sim.out.contains(&Output::Connect(0)));
    // An attempt that hangs is not waited for either.
    sim.ways(&[false, true], 1, Some("The registry says so."));
    assert!(sim.closes() && sim.sent().is_empty());
    assert!(sim.sleep() <= 2 * SECOND);
    assert!(sim.out.contains(&Output::Connect(1)));
}

#[test]
fn ways_that_change_while_the_link_stands_leave_it_alone_and_a_new_one_comes_next() {
    let mut sim = Sim::online();
    sim.ways(&[false, false], 0, None);
    sim.machine.stays(1, Some(0));
    assert!(sim.out.is_empty() && sim.machine.is_online());
    sim.feed(Input::Closed(broken()));
    sim.sleep();
    assert!(sim.out.contains(&Output::Connect(0)), "{:?}", sim.out);
}

#[test]
fn a_gateway_that_asks_for_time_gets_it_while_another_way_is_tried_at_once() {
    let mut sim = by_gateway(5);
    sim.feed(Input::Closed(of_gateway(Some(100 * SECOND))));
    let waited = sim.sleep();
    assert!(waited <= 3 * SECOND, "{waited:?}");
    assert!(sim.out.contains(&Output::Connect(0)), "{:?}", sim.out);
    sim.feed(Input::ConnectFailed(broken()));
    // The gateway is still held back.
    assert!(!sim.out.contains(&Output::Connect(1)), "{:?}", sim.out);
    let begun = sim.now;
    while !sim.out.contains(&Output::Connect(1)) {
        sim.sleep();
        if sim.out.contains(&Output::Connect(0)) {
            sim.feed(Input::ConnectFailed(broken()));
        }
        assert!(sim.now < begun + 300 * SECOND, "the gateway is forgotten");
    }
    assert!(sim.now >= begun + 95 * SECOND, "{:?}", sim.now - begun);
}

#[test]
fn two_hundred_devices_do_not_come_back_to_a_gateway_in_the_same_second() {
    let mut seconds = std::collections::BTreeMap::new();
    for seed in 0..200 {
        let mut sim = Sim::with_connectors(1, seed * 7_919 + 1);
        sim.welcome(40);
        sim.feed(Input::Closed(of_gateway(Some(17 * SECOND))));
        let waited = sim.sleep();
        assert!((17..=22).contains(&waited.as_secs()), "{waited:?}");
        *seconds.entry(waited.as_millis() / 100).or_insert(0_u32) += 1;
    }
    let most = seconds.values().max().copied().unwrap_or_default();
    assert!(most <= 20, "{seconds:?}");
    // And a hint that makes no sense is cut.
    let mut sim = Sim::online();
    sim.feed(Input::Closed(of_gateway(Some(1_000_000 * SECOND))));
    assert!(sim.sleep() <= limits::RETRY_AFTER_MAX);
}

#[test]
fn trouble_with_one_way_alone_is_no_reason_not_to_try_the_next() {
    let mut sim = Sim::with_connectors(2, 5);
    sim.feed(Input::ConnectFailed(Trouble {
        of_way: true,
        ..Trouble::lasting("ca_file", "The file can't be read.")
    }));
    assert!(sim.out.contains(&Output::Connect(1)), "{:?}", sim.out);
}

#[test]
fn an_hour_of_sleep_with_a_look_under_way_ends_in_a_new_link() {
    let mut sim = by_gateway(5);
    until_probe(&mut sim, 120 * SECOND).expect("a look");
    sim.now += 3_600 * SECOND;
    sim.feed(Input::Tick);
    assert!(!sim.machine.is_online(), "the server thinks it is gone");
    assert!(sim.closes());
    // What the look found comes too late and changes nothing.
    sim.feed(Input::Probed {
        connector: 0,
        result: Ok(()),
    });
    assert!(sim.out.is_empty(), "{:?}", sim.out);
    assert!(sim.sleep() <= 3 * SECOND);
    sim.welcome(40);
}
