//! The link against a scripted server, in simulated time.

use proptest::prelude::*;
use umbra_protocol::hello::{DeviceFacts, Intent, TrustAnchors};
use umbra_protocol::link::ResultFiled;
use umbra_protocol::secret::Secret;
use umbra_protocol::session::{Permissions, SessionRequest, SessionVerdict, Verdict};
use umbra_protocol::{CommandId, SessionId};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SETTINGS: LinkSettings = LinkSettings {
    connect_timeout: Duration::from_secs(45),
    reconnect_interval: Duration::from_secs(90),
    allowed: true,
};

/// A machine, the time, and what came out last.
struct Sim {
    machine: Machine,
    now: Moment,
    out: Vec<Output>,
}

impl Sim {
    fn with_connectors(connectors: usize, seed: u64) -> Self {
        let backoff = Backoff::new(SECOND, 90 * SECOND, seed).expect("bounds");
        let mut sim = Self {
            machine: Machine::new(SETTINGS, connectors, backoff),
            now: 1_000 * SECOND,
            out: Vec::new(),
        };
        sim.feed(Input::Start);
        sim
    }

    fn new() -> Self {
        Self::with_connectors(1, 5)
    }

    fn online() -> Self {
        let mut sim = Self::new();
        sim.welcome(40);
        sim
    }

    fn feed(&mut self, input: Input) -> &[Output] {
        self.out = self.machine.handle(input, self.now);
        &self.out
    }

    fn frame(&mut self, frame: impl Into<FromServer>) -> &[Output] {
        self.feed(Input::Frame(Box::new(frame.into())))
    }

    /// Lets time pass until the machine wants to be woken; returns how long that was.
    fn sleep(&mut self) -> Duration {
        let deadline = self.machine.next_deadline().expect("a deadline");
        let slept = deadline.saturating_sub(self.now);
        self.now = self.now.max(deadline);
        self.feed(Input::Tick);
        slept
    }

    fn ways(&mut self, preferred: &[bool], start: usize, leave: Option<&str>) -> &[Output] {
        self.feed(Input::Ways {
            preferred: preferred.to_vec(),
            start,
            leave: leave.map(str::to_owned),
        })
    }

    fn connect(&mut self) {
        assert!(self.connects(), "{:?}", self.out);
        self.feed(Input::Connected(Box::new(hello())));
        assert!(matches!(&self.out[..], [Output::Send(hello)] if hello.kind() == "hello"));
    }

    fn welcome(&mut self, heartbeat_seconds: u32) {
        self.connect();
        self.frame(welcome(heartbeat_seconds));
        assert!(self.machine.is_online());
    }

    fn connects(&self) -> bool {
        self.out
            .iter()
            .any(|output| matches!(output, Output::Connect(_)))
    }

    fn closes(&self) -> bool {
        self.out.contains(&Output::Close)
    }

    fn sent(&self) -> Vec<&FromDevice> {
        self.out
            .iter()
            .filter_map(|output| {
                if let Output::Send(message) = output {
                    Some(&**message)
                } else {
                    None
                }
            })
            .collect()
    }

    fn trouble(&self) -> Option<&Trouble> {
        self.out.iter().find_map(|output| {
            if let Output::Status(LinkStatus::Waiting { trouble, .. }) = output {
                Some(trouble)
            } else {
                None
            }
        })
    }

    fn answers(&self) -> Vec<(u64, &Answer)> {
        self.out
            .iter()
            .filter_map(|output| {
                if let Output::Answer { question, answer } = output {
                    Some((*question, answer))
                } else {
                    None
                }
            })
            .collect()
    }
}

fn hello() -> Hello {
    Hello {
        versions: version::SUPPORTED.to_vec(),
        features: Vec::new(),
        intent: Intent::Link,
        device: DeviceFacts {
            unit_id: "00E0C5A1B2C3".parse().expect("a unit ID"),
            name: "tc".into(),
            os: "os".into(),
            agent_version: "1".into(),
            architecture: "x86_64".into(),
            shadowing: false,
            shadow_port: None,
            addresses: Vec::new(),
            secure_mode: true,
        },
        settings_revision: 0,
        run: None,
    }
}

fn welcome(heartbeat_seconds: u32) -> Welcome {
    Welcome {
        version: 1,
        features: Vec::new(),
        heartbeat_seconds,
        server_time: 0,
        device_name: "Reception".into(),
        anchors: TrustAnchors {
            roots: Vec::new(),
            ticket_keys: Vec::new(),
        },
    }
}

fn presented() -> Presented {
    Presented::LegacyPassword {
        password: Secret::new("x"),
    }
}

fn ask(question: u64) -> Input {
    Input::Ask {
        question,
        presented: presented(),
    }
}

fn refused(code: RefusalCode) -> Refusal {
    Refusal::new(code, "Because.")
}

fn broken() -> Trouble {
    Trouble::passing("closed", "The connection broke.")
}

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
