//! Connections that are being set up, from many sources, coming and going in any order. What holds: there are never more than there is
//! room for, nor more of one source than it may have; somebody has to go exactly when there is no room, of the source that has most:
//! the oldest that says nothing, or who has spoken longest; who began only just now stays and the newcomer has to go, unless its source
//! would still have less than the other.
#![no_main]

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_carrier::crowd::{Crowd, GRACE, Place};

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
    Pass(u8),
    Speak(u8),
}

struct Inside {
    place: Place<u8>,
    source: Option<u8>,
    spoke: Option<Instant>,
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
    let mut now = Instant::now();
    for step in run.steps.iter().take(300) {
        match step {
            Step::Enter(source) => {
                let source = source.map(|source| source % 5);
                let of = |inside: &[Inside], source: Option<u8>| inside.iter().filter(|one| one.source == source).count();
                let too_many_of_one = source.is_some() && of_one.is_some_and(|of_one| of(&inside, source) >= of_one);
                let full = inside.len() >= most;
                let place = crowd.enter(source, now);
                let gone: Vec<usize> =
                    inside.iter_mut().enumerate().filter_map(|(at, one)| has_to_go(&mut one.place).then_some(at)).collect();
                let somebody = usize::from(too_many_of_one || full);
                assert_eq!(gone.len() + usize::from(place.is_none()), somebody, "who has to go");
                let largest = inside.iter().map(|one| of(&inside, one.source)).max().unwrap_or(0);
                if let Some(at) = gone.first().copied() {
                    let Inside { source: of_gone, spoke, .. } = inside[at];
                    let before = inside[..at].iter().filter(|one| one.source == of_gone);
                    assert!(before.into_iter().all(|one| one.spoke > spoke), "not the first to go");
                    let after = inside[at..].iter().filter(|one| one.source == of_gone);
                    assert!(after.into_iter().all(|one| one.spoke >= spoke), "not the first to go");
                    if too_many_of_one {
                        assert_eq!(of_gone, source);
                    } else {
                        assert_eq!(of(&inside, of_gone), largest, "not of the source that has most");
                    }
                    let is_fair = largest > of(&inside, source) + 1 && !too_many_of_one;
                    assert!(is_fair || spoke.is_none_or(|spoke| now - spoke >= GRACE), "spoke only just now");
                    inside.remove(at);
                }
                match place {
                    Some(place) => inside.push(Inside { place, source, spoke: None }),
                    None => assert!(
                        too_many_of_one || largest <= of(&inside, source) + 1,
                        "the source that has most stays as it is"
                    ),
                }
            }
            Step::Pass(tenths) => now += Duration::from_millis(100) * u32::from(*tenths),
            Step::Speak(which) if !inside.is_empty() => {
                let at = usize::from(*which) % inside.len();
                inside[at].place.speaks(now);
                inside[at].spoke.get_or_insert(now);
            }
            Step::Leave(which) if !inside.is_empty() => {
                let at = usize::from(*which) % inside.len();
                inside.remove(at);
            }
            Step::Leave(_) | Step::Speak(_) => {}
        }
        assert_eq!(crowd.len(), inside.len());
        assert!(inside.len() <= most, "more than there is room for");
        assert!(inside.iter_mut().all(|one| !has_to_go(&mut one.place)), "told to go for nothing");
    }
});
