//! A link that stands: heartbeats, questions, messages, and changes from outside.

use super::*;

#[test]
fn an_unknown_message_is_answered_with_a_code_and_the_link_goes_on() {
    let mut sim = Sim::online();
    sim.feed(Input::Unreadable(DecodeError::UnknownType(
        "teleport".into(),
    )));
    assert!(!sim.closes() && sim.machine.is_online());
    let sent = sim.sent();
    let [FromDevice::Refusal(refusal)] = sent.as_slice() else {
        panic!("{sent:?}")
    };
    assert_eq!(refusal.code, RefusalCode::UnknownMessage);
    assert!(refusal.sentence.contains("teleport"));
}

#[test]
fn a_malformed_message_ends_the_link_with_a_code_and_a_slow_retry() {
    let mut sim = Sim::online();
    sim.feed(Input::Unreadable(DecodeError::Malformed("depth".into())));
    assert_eq!(sim.sent()[0].kind(), "refusal");
    assert!(sim.closes());
    assert!(sim.sleep() >= SLOW_RETRY);
}

#[test]
fn a_message_that_does_not_fit_the_state_names_both() {
    let mut sim = Sim::new();
    sim.connect();
    sim.frame(Beat { number: 1 });
    let sent = sim.sent();
    let [FromDevice::Refusal(refusal)] = sent.as_slice() else {
        panic!("{sent:?}")
    };
    assert_eq!(refusal.code, RefusalCode::UnexpectedMessage);
    assert!(refusal.sentence.contains("welcome") && refusal.sentence.contains("pong"));
    assert!(sim.closes());
    let mut sim = Sim::online();
    sim.frame(welcome(1));
    assert_eq!(sim.sent()[0].kind(), "refusal");
    assert!(sim.machine.is_online());
}

#[test]
fn a_pulled_cable_is_noticed_within_ninety_seconds_of_the_last_word() {
    for heartbeat in [0, 1, 40, u32::MAX] {
        let mut sim = Sim::new();
        sim.welcome(heartbeat);
        for number in 1..20 {
            sim.now += SECOND / 2;
            sim.frame(Beat { number });
        }
        let last_word = sim.now;
        let mut pings = 0;
        while sim.machine.is_online() {
            sim.sleep();
            pings += sim.sent().iter().filter(|m| m.kind() == "ping").count();
        }
        assert!(pings >= 1, "heartbeat {heartbeat}");
        assert!(sim.now - last_word <= 90 * SECOND, "heartbeat {heartbeat}");
        assert!(sim.closes());
        assert!(sim.sleep() <= HERD_SPREAD);
    }
}

#[test]
fn heartbeats_keep_an_idle_link_for_a_week() {
    let mut sim = Sim::online();
    let end = sim.now + 7 * 24 * 3600 * SECOND;
    let mut pings = 0;
    while sim.now < end {
        sim.sleep();
        let beats: Vec<Beat> = sim
            .sent()
            .into_iter()
            .filter_map(|message| {
                if let FromDevice::Ping(beat) = message {
                    Some(*beat)
                } else {
                    None
                }
            })
            .collect();
        for beat in beats {
            pings += 1;
            sim.frame(FromServer::Pong(beat));
        }
        assert!(sim.machine.is_online());
    }
    assert!(pings > 15_000 && pings < 15_300, "{pings}");
}

#[test]
fn where_the_server_sends_the_heartbeats_the_device_answers_and_wakes_up_for_nothing_else() {
    let mut sim = Sim::new();
    sim.connect();
    let mut asks = welcome(40);
    asks.features = vec![feature::SERVER_HEARTBEATS.into()];
    sim.frame(asks);
    for number in 1..1_000 {
        let due = sim.machine.next_deadline().expect("silence has an end");
        assert!(due - sim.now >= 80 * SECOND, "it would wake up before");
        sim.now += 40 * SECOND;
        let beat = ServerBeat { number };
        let echo = Output::Send(Box::new(FromDevice::Pong(beat)));
        assert_eq!(sim.frame(beat), [echo]);
    }
    // A network that changed is asked about at once, and only once.
    sim.feed(Input::NetworkChanged);
    assert_eq!(sim.sent()[0].kind(), "ping");
    sim.frame(FromServer::Pong(Beat { number: 1 }));
    assert_eq!(sim.sleep(), 80 * SECOND, "silence is noticed as ever");
    assert!(sim.closes());
}

#[test]
fn a_question_is_answered_by_the_server_by_time_or_by_the_loss_of_the_link() {
    let mut sim = Sim::online();
    sim.feed(ask(1));
    assert_eq!(sim.sent()[0].kind(), "session_verify");
    let request = SessionRequest {
        session: SessionId::from_bytes([1; 16]),
        operator: "Ada".into(),
        reason: String::new(),
        permissions: Permissions {
            control: true,
            clipboard: true,
        },
    };
    let verdict = |question| SessionVerdict {
        question,
        verdict: Verdict::Allowed(request.clone()),
    };
    sim.frame(verdict(1));
    assert_eq!(
        sim.answers(),
        [(1, &Answer::Verdict(Verdict::Allowed(request.clone())))]
    );
    assert!(sim.frame(verdict(1)).is_empty(), "a verdict counts once");
    assert!(sim.frame(verdict(99)).is_empty(), "nobody asked");

    sim.feed(ask(2));
    assert_eq!(sim.sleep(), limits::VERDICT_DEADLINE);
    assert_eq!(sim.answers(), [(2, &Answer::Unreachable)]);
    assert!(sim.frame(verdict(2)).is_empty(), "too late");

    sim.feed(ask(3));
    sim.feed(Input::Closed(broken()));
    assert_eq!(sim.answers(), [(3, &Answer::Unreachable)]);
    sim.feed(ask(4));
    assert_eq!(sim.answers(), [(4, &Answer::Unreachable)]);
}

#[test]
fn questions_are_bounded() {
    let mut sim = Sim::online();
    for question in 0..QUESTIONS as u64 {
        sim.feed(ask(question));
        assert!(sim.answers().is_empty());
    }
    sim.feed(ask(1_000));
    assert_eq!(sim.answers(), [(1_000, &Answer::Unreachable)]);
}

#[test]
fn switching_remote_management_off_and_on_ends_and_begins_the_link_at_once() {
    let mut sim = Sim::online();
    let off = LinkSettings {
        allowed: false,
        ..SETTINGS
    };
    sim.feed(Input::Settings(off));
    assert_eq!(sim.sent()[0].kind(), "goodbye");
    assert!(sim.closes());
    assert_eq!(sim.machine.next_deadline(), None);
    sim.feed(Input::Settings(SETTINGS));
    assert!(sim.connects());
}

#[test]
fn a_shorter_timeout_from_the_registry_holds_from_the_next_attempt() {
    let mut sim = Sim::new();
    sim.feed(Input::Settings(LinkSettings {
        connect_timeout: 3 * SECOND,
        ..SETTINGS
    }));
    sim.feed(Input::ConnectFailed(broken()));
    sim.sleep();
    assert!(sim.connects());
    assert_eq!(sim.sleep(), 3 * SECOND);
    assert!(sim.closes());
}

#[test]
fn what_the_hello_said_is_said_anew_soon_after_it_changed() {
    let mut sim = Sim::online();
    sim.feed(Input::Relink("The port changed.".into()));
    assert_eq!(sim.sent()[0].kind(), "goodbye");
    assert!(sim.closes());
    assert!(sim.sleep() <= 2 * SECOND);
    assert!(sim.connects());
}

#[test]
fn leaving_waits_for_the_servers_word_and_never_for_ever() {
    let mut sim = Sim::online();
    sim.feed(Input::Leave);
    assert_eq!(sim.sent()[0].kind(), "leave");
    sim.frame(umbra_protocol::message::Left {});
    assert!(sim.out.contains(&Output::Left(Ok(()))) && sim.closes());
    assert_eq!(sim.machine.next_deadline(), None);

    let mut sim = Sim::online();
    sim.feed(Input::Leave);
    sim.sleep();
    assert!(
        matches!(sim.out.first(), Some(Output::Left(Err(trouble))) if trouble.code == "timed_out")
    );

    let mut sim = Sim::online();
    sim.feed(Input::Leave);
    sim.feed(Input::Closed(broken()));
    assert!(
        sim.out
            .iter()
            .any(|output| matches!(output, Output::Left(Err(_))))
    );

    let mut sim = Sim::new();
    sim.feed(Input::Leave);
    assert!(matches!(&sim.out[..], [Output::Left(Err(trouble))] if trouble.code == "not_linked"));
}

#[test]
fn what_the_server_wants_reaches_the_other_parts() {
    let mut sim = Sim::online();
    let id = CommandId::from_bytes([7; 16]);
    sim.frame(ResultFiled { id });
    assert_eq!(
        sim.out,
        [Output::Deliver(Box::new(Delivery::ResultFiled(id)))]
    );
}

#[test]
fn how_far_a_command_is_is_told_only_to_servers_that_ask_for_it() {
    let progress = || {
        Input::Tell(Box::new(FromDevice::CommandProgress(CommandProgress {
            id: CommandId::from_bytes([7; 16]),
            percent: Some(3),
            sentence: "Copying".into(),
        })))
    };
    let mut sim = Sim::online();
    assert!(sim.feed(progress()).is_empty(), "an older server was told");

    let mut sim = Sim::new();
    sim.connect();
    let mut asks = welcome(40);
    asks.features = vec!["levitation".into(), feature::COMMAND_PROGRESS.into()];
    sim.frame(asks);
    sim.feed(progress());
    assert_eq!(sim.sent()[0].kind(), "command_progress");
    sim.feed(Input::Closed(broken()));
    assert!(sim.feed(progress()).is_empty(), "nobody is there");
}

#[test]
fn a_server_that_removes_the_device_unasked_or_too_late_does_not_end_the_link_for_good() {
    let unasked = Sim::online();
    let mut too_late = Sim::online();
    too_late.feed(Input::Leave);
    too_late.now += LEAVE_DEADLINE;
    too_late.feed(Input::Tick);
    for mut sim in [unasked, too_late] {
        sim.frame(umbra_protocol::message::Left {});
        assert!(sim.closes() && !sim.out.contains(&Output::Left(Ok(()))));
        assert_eq!(
            sim.trouble().map(|trouble| trouble.code.as_str()),
            Some("left")
        );
        assert!(sim.sleep() >= SLOW_RETRY);
        assert!(sim.connects(), "it never comes back");
    }
}

#[test]
fn whoever_wants_to_leave_hears_of_it_when_the_link_is_switched_off_or_the_agent_ends() {
    let off = Input::Settings(LinkSettings {
        allowed: false,
        ..SETTINGS
    });
    for end in [off, Input::Shutdown] {
        let mut sim = Sim::online();
        sim.feed(Input::Leave);
        sim.feed(end);
        let left = |output: &&Output| matches!(output, Output::Left(Err(_)));
        assert_eq!(sim.out.iter().filter(left).count(), 1, "{:?}", sim.out);
    }
}
