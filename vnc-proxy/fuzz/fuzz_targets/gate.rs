//! Callers who have not said who they are, from many addresses, coming and going in any order. What holds: there are never more than
//! there are places; somebody has to go exactly when there is none, the oldest of the address that holds most; and who was told to go
//! stays told.
#![no_main]

use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_vnc_proxy::gate::{Gate, PendingGuard};

#[derive(Arbitrary, Debug)]
struct Run {
    places: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Admit(Option<u8>),
    Leave(u8),
    Proven(u8),
}

fn revoked(guard: &PendingGuard) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    matches!(pin!(guard.revoked()).poll(&mut context), Poll::Ready(()))
}

fuzz_target!(|run: Run| {
    let places = usize::from(run.places % 10);
    let gate = Gate::new(places);
    let most = places.max(1);
    // Those who hold a place, the oldest first, and those who were told to go and have not gone yet.
    let mut pending: Vec<(Option<u8>, PendingGuard)> = Vec::new();
    let mut told: Vec<PendingGuard> = Vec::new();
    for step in run.steps.iter().take(300) {
        match step {
            Step::Admit(source) => {
                let source = source.map(|source| source % 5);
                let full = pending.len() >= most;
                let guard = match source {
                    Some(last) => gate.admit_from(IpAddr::from([192, 0, 2, last])),
                    None => gate.admit(),
                };
                let gone: Vec<usize> =
                    pending.iter().enumerate().filter_map(|(at, (_, guard))| revoked(guard).then_some(at)).collect();
                assert_eq!(gone.len(), usize::from(full), "who has to go");
                if let Some(at) = gone.first().copied() {
                    let held = |source: Option<u8>| pending.iter().filter(|(of, _)| *of == source).count();
                    let largest = pending.iter().map(|(of, _)| held(*of)).max();
                    let of_gone = pending[at].0;
                    assert_eq!(Some(held(of_gone)), largest, "not of the address that holds most");
                    assert!(pending[..at].iter().all(|(of, _)| held(*of) < held(of_gone)), "not the oldest");
                    told.push(pending.remove(at).1);
                }
                pending.push((source, guard));
            }
            Step::Leave(which) | Step::Proven(which) if !pending.is_empty() => {
                let (_, guard) = pending.remove(usize::from(*which) % pending.len());
                if matches!(step, Step::Proven(_)) {
                    guard.authenticated();
                }
            }
            Step::Leave(_) | Step::Proven(_) => {
                told.pop();
            }
        }
        assert_eq!(gate.pending(), pending.len());
        assert!(pending.len() <= most, "more than there are places");
        assert!(told.iter().all(revoked), "told to go, and then not");
        assert!(pending.iter().all(|(_, guard)| !revoked(guard)), "told to go for nothing");
    }
});
