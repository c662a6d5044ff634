//! The server's conversation with one device, in simulated time, with tasks that are answered late, wrongly or not at all. What holds:
//! nothing is done for a device before it was looked up; one task at a time until it is welcomed; a silent device is ended in time,
//! one that speaks is not, and one that answers heartbeats is asked in time; whatever ends the conversation is told once; and after the end there is neither an output nor a timer.
#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_protocol::enrolment::{Challenge, Enrol, Enrolled};
use umbra_protocol::hello::{DeviceFacts, Hello, Intent, TrustAnchors, Welcome, feature};
use umbra_protocol::link::{Beat, Goodbye, ServerBeat};
use umbra_protocol::message::Leave;
use umbra_protocol::session::{Presented, SessionVerify};
use umbra_protocol::settings::SettingsApplied;
use umbra_protocol::{DeviceId, FromDevice, FromServer, KeyId, Refusal, RefusalCode, Secret, limits, version};
use umbra_server::link::machine::{Closed, Input, Machine, Output, Reply, Task};

const HEARTBEAT: Duration = Duration::from_secs(40);

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    ToTheDeadline,
    Hello { intent: u8, versions: Vec<u16> },
    Enrol,
    Ping(u64),
    Verify(u64),
    Applied(u64),
    Leave,
    Goodbye,
    Refusal,
    Unknown,
    Unreadable,
    Answer(Answer),
    Say(u64),
    End,
    ShutDown,
    Pong(u64),
}

#[derive(Arbitrary, Debug)]
enum Answer {
    /// What the task asks for.
    Right,
    Refused(u8),
    Left,
    /// What no task asks for: a mistake of the server's own.
    Wrong(u8),
}

#[derive(Debug, PartialEq, Eq)]
enum Open {
    Challenge,
    Enrol,
    Open,
    Probe,
    File,
}

fn facts() -> DeviceFacts {
    DeviceFacts {
        unit_id: "00E0C5A1B2C3".parse().expect("a unit ID"),
        name: String::new(),
        os: String::new(),
        agent_version: String::new(),
        architecture: String::new(),
        shadowing: false,
        shadow_port: None,
        addresses: Vec::new(),
        secure_mode: true,
    }
}

fn reply(kind: &Open) -> Reply {
    let anchors = || TrustAnchors { roots: Vec::new(), ticket_keys: Vec::new() };
    match kind {
        Open::Challenge => Reply::Challenge(Challenge { version: 1, nonce: "n".into(), salt: "s".into(), rounds: 1 }),
        Open::Enrol => Reply::Enrolled(Enrolled {
            proof: String::new(),
            device_id: DeviceId::from_bytes([1; 32]),
            device_name: String::new(),
            anchors: anchors(),
            connectors: Vec::new(),
        }),
        Open::Open | Open::Probe => {
            let welcome = Welcome {
                version: 1,
                features: Vec::new(),
                heartbeat_seconds: 40,
                server_time: 0,
                device_name: String::new(),
                anchors: anchors(),
            };
            Reply::Welcome(welcome, vec![FromServer::Pong(Beat { number: 0 }); 2])
        }
        Open::File => Reply::Filed(vec![FromServer::Pong(Beat { number: 0 })]),
    }
}

fuzz_target!(|steps: Vec<Step>| {
    static START: OnceLock<Instant> = OnceLock::new();
    let mut now = *START.get_or_init(Instant::now);
    let mut machine = Machine::new(now, HEARTBEAT);
    let mut open: Vec<Open> = Vec::new();
    let (mut over, mut linked, mut welcomed, mut heard) = (false, false, 0, now);
    // Whether the device is one that answers, and when it was asked last or welcomed.
    let (mut answers_beats, mut asked) = (false, now);
    for step in steps.iter().take(200) {
        let message = |message: FromDevice| Input::Message(message);
        let input = match step {
            Step::Wait(tenths) => {
                now += Duration::from_millis(100) * u32::from(*tenths);
                Input::Tick
            }
            Step::ToTheDeadline => {
                now = machine.deadline().unwrap_or(now).max(now);
                Input::Tick
            }
            Step::Hello { intent, versions } => message(
                Hello {
                    versions: versions.iter().map(|version| version % 3).collect(),
                    features: if *intent < 128 { Vec::new() } else { vec![feature::SERVER_HEARTBEATS.to_owned()] },
                    intent: [Intent::Enrol, Intent::Link, Intent::Probe][usize::from(intent % 3)],
                    device: facts(),
                    settings_revision: 0,
                    run: None,
                }
                .into(),
            ),
            Step::Enrol => message(
                Enrol { key_id: KeyId::from_bytes([1; 8]), nonce: String::new(), proof: String::new() }.into(),
            ),
            Step::Ping(number) => message(Beat { number: *number }.into()),
            Step::Pong(number) => message(ServerBeat { number: *number }.into()),
            Step::Verify(question) => {
                let presented = Presented::LegacyPassword { password: Secret::new("x") };
                message(SessionVerify { question: *question, presented }.into())
            }
            Step::Applied(revision) => {
                message(SettingsApplied { revision: *revision, refused: BTreeMap::new() }.into())
            }
            Step::Leave => message(Leave {}.into()),
            Step::Goodbye => message(Goodbye { sentence: "Bye.".into(), retry_after_seconds: None }.into()),
            Step::Refusal => message(Refusal::new(RefusalCode::UnknownMessage, "No.").into()),
            Step::Unknown => Input::UnknownType("x".into()),
            Step::Unreadable => Input::Unreadable(Refusal::new(RefusalCode::Malformed, "No.")),
            // The driver answers what was asked, in its order.
            Step::Answer(answer) if !open.is_empty() => {
                let task = open.remove(0);
                Input::Reply(match answer {
                    Answer::Left if task == Open::File => Reply::Left,
                    Answer::Right | Answer::Left => reply(&task),
                    Answer::Refused(code) => {
                        Reply::Refused(Refusal::new(RefusalCode::ALL[usize::from(*code) % RefusalCode::ALL.len()], "No."))
                    }
                    Answer::Wrong(which) => {
                        reply([&Open::Challenge, &Open::Enrol, &Open::Open, &Open::File][usize::from(which % 4)])
                    }
                })
            }
            Step::Answer(_) => continue,
            Step::Say(number) => Input::Say(FromServer::Pong(Beat { number: *number })),
            Step::End => Input::End(Refusal::new(RefusalCode::Superseded, "No.")),
            Step::ShutDown => Input::ShutDown(Goodbye { sentence: "Bye.".into(), retry_after_seconds: Some(3) }),
        };
        let was_linked = linked;
        let ticked = matches!(input, Input::Tick);
        let speaks = matches!(input, Input::Message(_) | Input::UnknownType(_));
        let answers = matches!(input, Input::Reply(_));
        let forced = matches!(input, Input::End(_) | Input::ShutDown(_) | Input::Unreadable(_));
        let outputs = machine.handle(input, now);
        assert!(outputs.len() <= 4, "{outputs:?}");
        if over {
            assert!(outputs.is_empty() && machine.deadline().is_none(), "something after the end");
            continue;
        }
        if speaks || answers {
            heard = now;
        }
        let closes = outputs.iter().filter(|output| matches!(output, Output::Close(_))).count();
        assert!(closes <= 1 && (closes == 0 || matches!(outputs.last(), Some(Output::Close(_)))), "{outputs:?}");
        for output in &outputs {
            match output {
                Output::Do(task) => {
                    assert!(speaks, "a task that no message asked for");
                    let kind = match task {
                        Task::Challenge(hello, agreed) | Task::Open(hello, agreed) | Task::Probe(hello, agreed) => {
                            answers_beats = !hello.features.is_empty();
                            assert!(!was_linked && welcomed == 0, "looked up twice");
                            assert!(version::SUPPORTED.contains(agreed) && hello.versions.contains(agreed));
                            match task {
                                Task::Challenge(..) => Open::Challenge,
                                Task::Probe(..) => Open::Probe,
                                _ => Open::Open,
                            }
                        }
                        Task::Enrol { nonce, .. } => {
                            assert_eq!(nonce, "n", "a proof without its challenge");
                            Open::Enrol
                        }
                        Task::File(_) => {
                            assert!(was_linked, "filed for a stranger");
                            Open::File
                        }
                    };
                    open.push(kind);
                    assert!(was_linked || open.len() == 1, "two tasks for a stranger");
                }
                Output::Send(FromServer::Welcome(_)) => {
                    assert!(answers, "welcomed without having been looked up");
                    welcomed += 1;
                    assert_eq!(welcomed, 1);
                    asked = now;
                }
                Output::Send(FromServer::Pong(beat)) if ticked || speaks => {
                    assert!(was_linked && matches!(step, Step::Ping(number) if *number == beat.number));
                }
                Output::Send(FromServer::Ping(_)) => {
                    assert!(was_linked && ticked && answers_beats, "a heartbeat for a device that doesn't know what that is");
                    assert!(now >= asked + HEARTBEAT, "asked too often");
                    asked = now;
                }
                Output::Send(_) => {}
                Output::Close(why) => {
                    over = true;
                    match why {
                        Closed::Silent => assert!(was_linked && ticked && now >= heard + HEARTBEAT * 2, "it was heard of"),
                        Closed::ByDevice => assert!(matches!(step, Step::Goodbye)),
                        // A probe that was answered, and only that, ends without a word.
                        Closed::ByServer => assert!(outputs.len() == 2 || (welcomed == 1 && !was_linked), "{outputs:?}"),
                    }
                }
            }
        }
        assert!(!forced || over, "it goes on");
        linked = machine.is_linked();
        assert!(!linked || (welcomed == 1 && !over));
        assert_eq!(machine.frame_limit() == limits::FRAME, linked, "a stranger may send as much as a friend");
        let late = linked && answers_beats && machine.deadline().is_none_or(|due| due > asked + HEARTBEAT);
        assert!(!late, "it lets a device sleep for too long");
        if !over {
            // Either the device has to say something in time, or the server is at work.
            assert!(machine.deadline().is_some() || !open.is_empty(), "it would wait for ever");
            assert!(!ticked || machine.deadline().is_none_or(|due| due > now), "a timer that does not fire");
        }
    }
});
