//! The machine in simulated time.

use umbra_protocol::CommandId;
use umbra_protocol::command::{Action, Command};
use umbra_protocol::enrolment::Enrol;
use umbra_protocol::hello::TrustAnchors;
use umbra_protocol::{DeviceId, KeyId};

use super::*;
use crate::testing::facts;

const HEARTBEAT: Duration = Duration::from_secs(40);

fn machine() -> (Machine, Instant) {
    let now = Instant::now();
    (Machine::new(now, HEARTBEAT), now)
}

fn hello(intent: Intent) -> Hello {
    Hello {
        versions: vec![1, 7],
        features: Vec::new(),
        intent,
        device: facts("A1"),
        settings_revision: 0,
        run: None,
    }
}

fn anchors() -> TrustAnchors {
    TrustAnchors {
        roots: Vec::new(),
        ticket_keys: Vec::new(),
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        features: Vec::new(),
        heartbeat_seconds: 40,
        server_time: 0,
        device_name: "desk".into(),
        anchors: anchors(),
    }
}

fn say(machine: &mut Machine, message: impl Into<FromDevice>, now: Instant) -> Vec<Output> {
    machine.handle(Input::Message(message.into()), now)
}

fn linked() -> (Machine, Instant) {
    let (mut machine, now) = machine();
    say(&mut machine, hello(Intent::Link), now);
    machine.handle(Input::Reply(Reply::Welcome(welcome(), Vec::new())), now);
    assert!(machine.is_linked());
    (machine, now)
}

/// The code of the refusal that ends it all.
fn last_refusal(outputs: &[Output]) -> RefusalCode {
    match outputs {
        [
            Output::Send(FromServer::Refusal(refusal)),
            Output::Close(Closed::ByServer),
        ] => refusal.code,
        other => panic!("no refusal and close: {other:?}"),
    }
}

#[test]
fn enrolment_goes_challenge_proof_answer_and_closes() {
    let (mut machine, now) = machine();
    let outputs = say(&mut machine, hello(Intent::Enrol), now);
    assert_eq!(
        outputs,
        [Output::Do(Task::Challenge(hello(Intent::Enrol), 1))]
    );
    let challenge = Challenge {
        version: 1,
        nonce: "ab".repeat(32),
        salt: "cd".repeat(16),
        rounds: 100_000,
    };
    let outputs = machine.handle(Input::Reply(Reply::Challenge(challenge.clone())), now);
    assert_eq!(outputs, [Output::Send(challenge.clone().into())]);
    let enrol = Enrol {
        key_id: KeyId::from_bytes([1; 8]),
        nonce: "ef".repeat(32),
        proof: "01".repeat(32),
    };
    let outputs = say(&mut machine, enrol.clone(), now);
    let expected = Task::Enrol {
        facts: facts("A1"),
        nonce: challenge.nonce,
        enrol,
    };
    assert_eq!(outputs, [Output::Do(expected)]);
    let enrolled = Enrolled {
        proof: "01".repeat(32),
        device_id: DeviceId::from_bytes([1; 32]),
        device_name: "desk".into(),
        anchors: anchors(),
        connectors: Vec::new(),
    };
    let outputs = machine.handle(Input::Reply(Reply::Enrolled(enrolled.clone())), now);
    assert_eq!(
        outputs,
        [
            Output::Send(enrolled.into()),
            Output::Close(Closed::ByServer)
        ]
    );
    assert!(
        say(&mut machine, hello(Intent::Link), now).is_empty(),
        "it is over"
    );
}

#[test]
fn the_welcome_is_said_before_everything_that_waits() {
    let (mut machine, now) = machine();
    say(&mut machine, hello(Intent::Link), now);
    assert_eq!(machine.frame_limit(), limits::FRAME_BEFORE_WELCOME);
    let command = Command {
        id: CommandId::from_bytes([1; 16]),
        action: Action::Reboot,
    };
    let first = vec![command.clone().into()];
    let outputs = machine.handle(Input::Reply(Reply::Welcome(welcome(), first)), now);
    assert_eq!(
        outputs,
        [Output::Send(welcome().into()), Output::Send(command.into())]
    );
    assert_eq!(machine.frame_limit(), limits::FRAME);
}

#[test]
fn silence_before_hello_and_before_the_proof_is_refused_in_time() {
    let (mut machine, now) = machine();
    let until = machine.deadline().expect("a deadline");
    assert_eq!(until, now + limits::HELLO_DEADLINE);
    assert!(machine.handle(Input::Tick, now).is_empty());
    assert_eq!(
        last_refusal(&machine.handle(Input::Tick, until)),
        RefusalCode::TooSlow
    );
}

#[test]
fn two_heartbeats_of_silence_end_a_link_and_every_word_extends_it() {
    let (mut machine, now) = linked();
    let later = now + HEARTBEAT;
    let outputs = say(&mut machine, Beat { number: 7 }, later);
    assert_eq!(
        outputs,
        [Output::Send(FromServer::Pong(Beat { number: 7 }))]
    );
    assert!(
        machine
            .handle(
                Input::Tick,
                later + HEARTBEAT * 2 - Duration::from_millis(1)
            )
            .is_empty()
    );
    assert_eq!(
        machine.handle(Input::Tick, later + HEARTBEAT * 2),
        [Output::Close(Closed::Silent)]
    );
}

#[test]
fn a_device_that_answers_heartbeats_is_asked_and_no_other_one() {
    let (mut machine, mut now) = linked();
    assert_eq!(machine.deadline(), Some(now + HEARTBEAT * 2));
    assert!(machine.handle(Input::Tick, now + HEARTBEAT).is_empty());

    let (mut asked, _) = self::machine();
    let mut answers = hello(Intent::Link);
    answers.features = vec!["levitation".into(), feature::SERVER_HEARTBEATS.into()];
    say(&mut asked, answers, now);
    asked.handle(Input::Reply(Reply::Welcome(welcome(), Vec::new())), now);
    for number in 1..100 {
        // What it says of itself doesn't put the question off: it has to hear something as well.
        now += HEARTBEAT / 2;
        assert!(say(&mut asked, ServerBeat { number }, now).is_empty());
        now += HEARTBEAT / 2;
        assert_eq!(asked.deadline(), Some(now));
        let beat = ServerBeat { number };
        assert_eq!(asked.handle(Input::Tick, now), [Output::Send(beat.into())]);
    }
    // One that answers no more is gone.
    now += HEARTBEAT;
    let beat = ServerBeat { number: 100 };
    assert_eq!(asked.handle(Input::Tick, now), [Output::Send(beat.into())]);
    now += HEARTBEAT / 2;
    assert_eq!(asked.deadline(), Some(now));
    assert_eq!(
        asked.handle(Input::Tick, now),
        [Output::Close(Closed::Silent)]
    );
}

#[test]
fn no_common_version_is_refused_naming_both() {
    let (mut machine, now) = machine();
    let mut hello = hello(Intent::Link);
    hello.versions = vec![9];
    let outputs = say(&mut machine, hello, now);
    assert_eq!(last_refusal(&outputs), RefusalCode::UnsupportedVersion);
}

#[test]
fn unknown_messages_are_answered_and_ignored_in_every_state() {
    for (mut machine, now) in [machine(), linked()] {
        let outputs = machine.handle(Input::UnknownType("teleport".into()), now);
        match outputs.as_slice() {
            [Output::Send(FromServer::Refusal(refusal))] => {
                assert_eq!(refusal.code, RefusalCode::UnknownMessage);
            }
            other => panic!("{other:?}"),
        }
        assert!(machine.deadline().is_some(), "it goes on");
    }
}

#[test]
fn a_message_at_the_wrong_moment_ends_a_strangers_connection_and_is_passed_over_on_a_link() {
    let (mut machine, now) = machine();
    let outputs = say(&mut machine, Beat { number: 1 }, now);
    assert_eq!(last_refusal(&outputs), RefusalCode::UnexpectedMessage);
    let (mut machine, now) = linked();
    let outputs = say(&mut machine, hello(Intent::Link), now);
    assert!(matches!(
        outputs.as_slice(),
        [Output::Send(FromServer::Refusal(refusal))] if refusal.code == RefusalCode::UnexpectedMessage
    ));
    assert!(machine.is_linked());
}

#[test]
fn broken_frames_end_the_connection_after_a_refusal() {
    let (mut machine, now) = linked();
    let refusal = Refusal::new(RefusalCode::Malformed, "no JSON");
    assert_eq!(
        last_refusal(&machine.handle(Input::Unreadable(refusal), now)),
        RefusalCode::Malformed
    );
}

#[test]
fn what_a_device_may_not_is_refused_and_the_link_stays() {
    let (mut machine, now) = linked();
    let started = SessionStarted {
        session: umbra_protocol::SessionId::from_bytes([1; 16]),
    };
    assert_eq!(
        say(&mut machine, started, now),
        [Output::Do(Task::File(Report::Started(started)))]
    );
    let refusal = Refusal::new(RefusalCode::Malformed, "no certificate");
    assert_eq!(
        machine.handle(Input::Reply(Reply::Refused(refusal.clone())), now),
        [Output::Send(refusal.into())]
    );
    assert!(machine.is_linked());
}

#[test]
fn a_device_whose_report_could_not_be_filed_has_to_come_back_and_say_it_again() {
    let (mut machine, now) = linked();
    let started = SessionStarted {
        session: umbra_protocol::SessionId::from_bytes([7; 16]),
    };
    say(&mut machine, started, now);
    let refusal = Refusal::new(RefusalCode::Internal, "disk full");
    assert_eq!(
        machine.handle(Input::Reply(Reply::Refused(refusal.clone())), now),
        [
            Output::Send(refusal.retry_after(5).into()),
            Output::Close(Closed::ByServer)
        ]
    );
}

#[test]
fn shutting_down_says_goodbye_on_a_link_and_refuses_elsewhere() {
    let goodbye = Goodbye {
        sentence: "Going down.".into(),
        retry_after_seconds: Some(5),
    };
    let (mut link, now) = linked();
    assert_eq!(
        link.handle(Input::ShutDown(goodbye.clone()), now),
        [
            Output::Send(goodbye.clone().into()),
            Output::Close(Closed::ByServer)
        ]
    );
    let (mut stranger, now) = machine();
    assert_eq!(
        last_refusal(&stranger.handle(Input::ShutDown(goodbye), now)),
        RefusalCode::ShuttingDown
    );
}

#[test]
fn news_are_said_on_a_link_only() {
    let news = FromServer::Command(Command {
        id: CommandId::from_bytes([1; 16]),
        action: Action::Reboot,
    });
    let (mut stranger, now) = machine();
    assert!(stranger.handle(Input::Say(news.clone()), now).is_empty());
    let (mut link, now) = linked();
    assert_eq!(
        link.handle(Input::Say(news.clone()), now),
        [Output::Send(news)]
    );
}

#[test]
fn goodbye_and_leave_end_the_link() {
    let (mut machine, now) = linked();
    let goodbye = Goodbye {
        sentence: "Bye.".into(),
        retry_after_seconds: None,
    };
    assert_eq!(
        say(&mut machine, goodbye, now),
        [Output::Close(Closed::ByDevice)]
    );
    let (mut machine, now) = linked();
    say(&mut machine, umbra_protocol::message::Leave {}, now);
    assert_eq!(
        machine.handle(Input::Reply(Reply::Left), now),
        [
            Output::Send(Left {}.into()),
            Output::Close(Closed::ByServer)
        ]
    );
}
