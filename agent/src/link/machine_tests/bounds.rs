//! What holds whatever happens: it ends when it should, never gives up, never runs hot, and leaves no question open.

use super::*;

#[test]
fn shutdown_ends_every_state_and_says_goodbye_only_on_a_standing_link() {
    type Make = fn() -> Sim;
    let states: [(&str, Make); 4] = [
        ("connecting", Sim::new),
        ("greeting", || {
            let mut sim = Sim::new();
            sim.connect();
            sim
        }),
        ("online", Sim::online),
        ("waiting", || {
            let mut sim = Sim::new();
            sim.feed(Input::ConnectFailed(broken()));
            sim
        }),
    ];
    for (name, make) in states {
        let mut sim = make();
        sim.feed(Input::Shutdown);
        assert_eq!(sim.out.last(), Some(&Output::Stopped), "{name}");
        assert!(sim.closes(), "{name}");
        let goodbyes = sim.sent().iter().filter(|m| m.kind() == "goodbye").count();
        assert_eq!(goodbyes, usize::from(name == "online"), "{name}");
        assert_eq!(sim.machine.next_deadline(), None, "{name}");
        assert!(sim.feed(Input::NetworkChanged).is_empty(), "{name}");
        assert!(sim.feed(Input::Shutdown).is_empty(), "{name}");
    }
}

#[test]
fn ten_days_of_every_kind_of_failure_never_make_it_give_up_or_run_hot() {
    for seed in 0..20 {
        let mut sim = Sim::with_connectors(2, seed);
        let end = sim.now + 10 * 24 * 3600 * SECOND;
        let mut attempts = 0u32;
        let mut step = seed;
        while sim.now < end {
            step += 1;
            if sim.connects() {
                attempts += 1;
                match step % 5 {
                    0 => sim.feed(Input::ConnectFailed(broken())),
                    1 => sim.feed(Input::Tick),
                    2 => {
                        sim.connect();
                        sim.feed(Input::Closed(broken()))
                    }
                    3 => {
                        sim.connect();
                        sim.frame(refused(RefusalCode::CertificateMismatch))
                    }
                    _ => {
                        sim.connect();
                        sim.feed(Input::Tick)
                    }
                };
            } else {
                sim.sleep();
            }
        }
        // Two ways per round at most every second; at least one round per slow retry.
        assert!(
            (2_000..40_000).contains(&attempts),
            "seed {seed}: {attempts} attempts"
        );
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    (0u8..15, any::<u64>()).prop_map(|(kind, number)| match kind {
        0 => Input::Connected(Box::new(hello())),
        1 => Input::ConnectFailed(broken()),
        2 => Input::Frame(Box::new(welcome(number as u32).into())),
        3 => Input::Frame(Box::new(
            refused(RefusalCode::ALL[number as usize % RefusalCode::ALL.len()])
                .retry_after(number as u32)
                .into(),
        )),
        4 => Input::Frame(Box::new(FromServer::Pong(Beat { number }))),
        5 => Input::Unreadable(DecodeError::UnknownType("x".into())),
        6 => Input::Unreadable(DecodeError::Malformed("x".into())),
        7 => Input::Closed(broken()),
        8 => ask(number),
        9 => Input::NetworkChanged,
        10 => Input::Relink("x".into()),
        11 => Input::Settings(SETTINGS),
        12 => Input::Start,
        13 => Input::Ended,
        _ => Input::Tick,
    })
}

proptest! {
    #[test]
    fn whatever_happens_there_is_always_a_next_step_and_every_question_has_one_answer(
        inputs in proptest::collection::vec((any_input(), 0u64..200_000), 1..120)
    ) {
        let mut sim = Sim::new();
        let mut open = std::collections::BTreeSet::new();
        for (input, millis) in inputs {
            sim.now += Duration::from_millis(millis);
            if let Input::Ask { question, .. } = &input && !open.insert(*question) {
                continue;
            }
            sim.feed(input);
            for (question, _) in sim.answers() {
                prop_assert!(open.remove(&question), "answered twice: {question}");
            }
            prop_assert!(sim.machine.next_deadline().is_some());
        }
        sim.feed(Input::Shutdown);
        for (question, _) in sim.answers() {
            prop_assert!(open.remove(&question));
        }
        prop_assert!(open.is_empty(), "unanswered: {open:?}");
    }
}
