//! Connections that are being set up, from many sources, coming and going in any order. What holds: there are never more than there is
//! room for, nor more of one source than it may have; somebody has to go exactly when there is no room, the oldest of the source that
//! has most; and a newcomer of a source that has few is never kept out.
#![no_main]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_carrier::crowd::{Crowd, Place};

#[derive(Arbitrary, Debug)]
struct Run {
    most: u8,
    of_one: Option<u8>,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Enter(Option<u8>),
    Leave(u8),
}

struct Inside {
    place: Place<u8>,
    source: Option<u8>,
}

fn has_to_go(place: &mut Place<u8>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    matches!(pin!(place.shown_out()).poll(&mut context), Poll::Ready(()))
}

fuzz_target!(|run: Run| {
    let most = usize::from(run.most % 12) + 1;
    let of_one = run.of_one.map(|of_one| usize::from(of_one % 6) + 1);
    let mut crowd = Crowd::new(most);
    if let Some(of_one) = of_one {
        crowd = crowd.at_most_of_one(of_one);
    }
    let mut inside: Vec<Inside> = Vec::new();
    for step in run.steps.iter().take(300) {
        match step {
            Step::Enter(source) => {
                let source = source.map(|source| source % 5);
                let of = |inside: &[Inside], source: Option<u8>| inside.iter().filter(|one| one.source == source).count();
                let too_many_of_one = source.is_some() && of_one.is_some_and(|of_one| of(&inside, source) >= of_one);
                let full = inside.len() >= most;
                let place = crowd.enter(source);
                let gone: Vec<usize> =
                    inside.iter_mut().enumerate().filter_map(|(at, one)| has_to_go(&mut one.place).then_some(at)).collect();
                assert_eq!(gone.len(), usize::from(too_many_of_one || full), "who has to go");
                if let Some(at) = gone.first().copied() {
                    let of_gone = inside[at].source;
                    assert!(inside[..at].iter().all(|one| one.source != of_gone), "not the oldest");
                    if too_many_of_one {
                        assert_eq!(of_gone, source);
                    } else {
                        let largest = inside.iter().map(|one| of(&inside, one.source)).max();
                        assert_eq!(Some(of(&inside, of_gone)), largest, "not of the source that has most");
                    }
                    inside.remove(at);
                }
                inside.push(Inside { place, source });
            }
            Step::Leave(which) if !inside.is_empty() => {
                let at = usize::from(*which) % inside.len();
                inside.remove(at);
            }
            Step::Leave(_) => {}
        }
        assert_eq!(crowd.len(), inside.len());
        assert!(inside.len() <= most, "more than there is room for");
        assert!(inside.iter_mut().all(|one| !has_to_go(&mut one.place)), "told to go for nothing");
    }
});
