//! What a gateway says of itself, in simulated time. What holds: it is “ok” only with a good certificate and a server, “init” only in the
//! first seconds and before any server came; it is “err” exactly where a person has to do something; and what is told is never
//! older than the interval.
#![no_main]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_gateway::status::{CertificateState, INTERVAL, PATIENCE, Status, StatusMachine};

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    Attached,
    Recompute { certificate: u8, attached: u8 },
    ToTheDeadline { certificate: u8, attached: u8 },
}

fuzz_target!(|steps: Vec<Step>| {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    let mut now = start;
    let mut machine = StatusMachine::new(now);
    let mut ever = false;
    for step in steps.iter().take(200) {
        let (certificate, attached) = match step {
            Step::Wait(tenths) => {
                now += Duration::from_millis(100) * u32::from(*tenths);
                continue;
            }
            Step::Attached => {
                machine.attached();
                ever = true;
                continue;
            }
            Step::Recompute { certificate, attached } => (certificate, attached),
            Step::ToTheDeadline { certificate, attached } => {
                now = now.max(machine.next_deadline());
                (certificate, attached)
            }
        };
        let certificate =
            [CertificateState::Good, CertificateState::EndsSoon, CertificateState::Invalid][usize::from(certificate % 3)];
        let (due, before) = (machine.next_deadline() <= now, machine.told());
        machine.recompute(certificate, usize::from(attached % 3), now);
        if !due {
            assert_eq!(machine.told(), before, "worked out before its time");
            continue;
        }
        assert_eq!(machine.next_deadline(), now + INTERVAL);
        let there = attached % 3 > 0;
        ever |= there;
        let person = certificate == CertificateState::Invalid || (!there && !ever && now - start >= PATIENCE);
        assert_eq!(machine.told() == Status::Err, person);
        assert_eq!(machine.told() == Status::Ok, certificate == CertificateState::Good && there);
        assert!(machine.told() != Status::Init || (!ever && now - start < PATIENCE));
    }
});
