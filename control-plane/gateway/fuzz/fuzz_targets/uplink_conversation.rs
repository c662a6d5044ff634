//! The conversation on a server's uplink, in simulated time. What holds: nothing is done for a server that has not attached; it
//! attaches once, with a version that both speak; a silent one is ended in time, one that speaks is not; every ping has its answer;
//! and after the end there is neither an output nor a timer.
#![no_main]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_gateway::uplink::machine::{Conversation, Input, Output};
use umbra_protocol::gateway::{
    ATTACH_DEADLINE, Admit, Attach, FromGateway, Limit, OpenRendezvous, SILENCE, ToGateway, VERSIONS, Withdraw, token_hash,
};
use umbra_protocol::link::Beat;
use umbra_protocol::{RendezvousId, ServerRoot};

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    ToTheDeadline,
    Attach(Vec<u16>),
    Limit(Option<u32>),
    Admit(u64),
    Open(u8),
    Withdraw(u8),
    Ping(u64),
    Unknown,
    Nonsense(String),
}

fuzz_target!(|steps: Vec<Step>| {
    static START: OnceLock<Instant> = OnceLock::new();
    let mut now = *START.get_or_init(Instant::now);
    let mut machine = Conversation::new(now + ATTACH_DEADLINE, SILENCE);
    let (mut attached, mut over, mut heard) = (false, false, now);
    for step in steps.iter().take(200) {
        let rendezvous = |number: u8| RendezvousId::from_bytes([number; 16]);
        let input = match step {
            Step::Wait(tenths) => {
                now += Duration::from_millis(100) * u32::from(*tenths);
                Input::Tick
            }
            Step::ToTheDeadline => {
                now = machine.next_deadline().unwrap_or(now).max(now);
                Input::Tick
            }
            Step::Attach(versions) => Input::Heard(
                Attach {
                    versions: versions.iter().map(|version| version % 3).collect(),
                    server_root: ServerRoot::from_bytes([1; 32]),
                    server_name: "ums".into(),
                    limit: None,
                }
                .into(),
            ),
            Step::Limit(devices) => Input::Heard(Limit { devices: *devices }.into()),
            Step::Admit(stream) => Input::Heard(Admit { stream: *stream }.into()),
            Step::Open(number) => Input::Heard(ToGateway::Rendezvous(OpenRendezvous {
                id: rendezvous(*number),
                device: token_hash("a"),
                console: token_hash("b"),
                expires_in_seconds: 30,
            })),
            Step::Withdraw(number) => Input::Heard(Withdraw { id: rendezvous(*number) }.into()),
            Step::Ping(number) => Input::Heard(Beat { number: *number }.into()),
            Step::Unknown => Input::HeardUnknown,
            Step::Nonsense(why) => Input::HeardNonsense(why.clone()),
        };
        let ticked = matches!(input, Input::Tick);
        let outputs = machine.handle(input, now);
        assert!(outputs.len() <= 2);
        if over {
            assert!(outputs.is_empty() && machine.next_deadline().is_none(), "something after the end");
            continue;
        }
        if !ticked {
            heard = now;
        }
        for output in &outputs {
            match output {
                Output::Attach(attach, version) => {
                    assert!(!attached, "attached twice");
                    assert!(VERSIONS.contains(version) && attach.versions.contains(version));
                    attached = true;
                }
                Output::Limit(_) | Output::Admit(_) | Output::Drop(_) | Output::Open(_) | Output::Withdraw(_) => {
                    assert!(attached, "done for a stranger");
                }
                Output::Say(FromGateway::Pong(beat)) => {
                    assert!(attached && matches!(step, Step::Ping(number) if *number == beat.number));
                }
                Output::Say(_) => assert!(matches!(outputs.last(), Some(Output::End(_)))),
                Output::End(_) => {
                    over = true;
                    if ticked {
                        assert!(!attached || now >= heard + SILENCE, "ended though it was heard of");
                    }
                }
            }
        }
        if matches!(step, Step::Ping(_)) && attached && !over {
            assert_eq!(outputs.len(), 1, "a ping without an answer");
        }
        if ticked && !over {
            assert!(machine.next_deadline().is_some_and(|due| due > now), "a timer that does not fire");
        }
    }
});
