//! Counting failures by name, in simulated time, beside a plain reading of the same rule. What holds: nobody is shut out without as many
//! failures as it takes, within the window; whoever has them is, and is told a time after which the door is open; a success
//! forgives; and with fewer names than there is room for, it is the plain reading exactly.
#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_server::throttle::{Allowance, Throttle};

#[derive(Arbitrary, Debug)]
struct Run {
    failures: u8,
    window: u8,
    names: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    Fail(u8),
    Check(u8),
    Forgive(u8),
}

fuzz_target!(|run: Run| {
    static START: OnceLock<Instant> = OnceLock::new();
    let mut now = *START.get_or_init(Instant::now);
    let allowance = Allowance {
        failures: u32::from(run.failures % 8) + 1,
        window: Duration::from_secs(u64::from(run.window) + 1),
        names: usize::from(run.names % 8) + 1,
    };
    let throttle = Throttle::new(allowance);
    // Since when, and how many, and at which moments at all.
    let mut exact = true;
    let mut plain: BTreeMap<u8, (Instant, u32)> = BTreeMap::new();
    let mut all: BTreeMap<u8, Vec<Instant>> = BTreeMap::new();
    for step in run.steps.iter().take(300) {
        match step {
            Step::Wait(tenths) => now += Duration::from_millis(100) * u32::from(*tenths),
            Step::Fail(name) => {
                let name = name % 12;
                let shuts = throttle.fail(&name, now);
                all.entry(name).or_default().push(now);
                let count = plain.entry(name).or_insert((now, 0));
                if now - count.0 >= allowance.window {
                    *count = (now, 0);
                }
                count.1 += 1;
                // From the first name that does not fit on, others are forgotten.
                exact &= plain.len() <= allowance.names;
                if exact {
                    assert_eq!(shuts, plain[&name].1 == allowance.failures);
                }
            }
            Step::Check(name) => {
                let name = name % 12;
                let checked = throttle.check(&name, now);
                if let Err(seconds) = checked {
                    let recent = all.get(&name).map_or(0, |all| all.iter().filter(|at| now - **at < allowance.window).count());
                    assert!(u32::try_from(recent).is_ok_and(|recent| recent >= allowance.failures), "shut out for nothing");
                    assert!(seconds >= 1 && Duration::from_secs(seconds.into()) <= allowance.window + Duration::from_secs(1));
                    let later = now + Duration::from_secs(seconds.into());
                    assert_eq!(throttle.check(&name, later), Ok(()), "still shut after the time that was told");
                }
                if exact {
                    let shut = plain
                        .get(&name)
                        .is_some_and(|(since, count)| *count >= allowance.failures && now - *since < allowance.window);
                    assert_eq!(checked.is_err(), shut);
                }
            }
            Step::Forgive(name) => {
                let name = name % 12;
                throttle.forgive(&name);
                plain.remove(&name);
                all.remove(&name);
                assert_eq!(throttle.check(&name, now), Ok(()));
            }
        }
    }
});
