//! How long to wait before the next attempt: exponential, jittered, within validated bounds. It never gives up and reads no
//! clock; its randomness comes from a seed, so that tests see the same waits again.

use std::time::Duration;

/// Why some bounds are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBounds {
    /// No wait at all would be a tight loop.
    #[error("the shortest wait between two attempts must be at least 100 ms")]
    TooShort,
    /// Upside down.
    #[error("the longest wait between two attempts must not be shorter than the shortest")]
    Reversed,
}

/// The shortest wait that makes no tight loop.
const FLOOR: Duration = Duration::from_millis(100);

/// Waits that grow with each failure.
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    failures: u32,
    random: Random,
}

impl Backoff {
    /// Waits between these bounds.
    pub fn new(shortest: Duration, longest: Duration, seed: u64) -> Result<Self, BadBounds> {
        if shortest < FLOOR {
            return Err(BadBounds::TooShort);
        }
        if longest < shortest {
            return Err(BadBounds::Reversed);
        }
        Ok(Self {
            shortest,
            longest,
            failures: 0,
            random: Random::new(seed),
        })
    }

    /// Takes over a new upper bound; one below the shortest wait means the shortest wait.
    pub fn set_longest(&mut self, longest: Duration) {
        self.longest = longest.max(self.shortest);
    }

    /// The wait after one more failure: between the half and the whole of a span that doubles each time.
    pub fn next_wait(&mut self) -> Duration {
        let exponent = self.failures.saturating_add(1).min(30);
        let span = self
            .shortest
            .saturating_mul(1 << exponent)
            .min(self.longest)
            .max(self.shortest);
        self.failures = self.failures.saturating_add(1);
        self.random
            .between(span / 2, span)
            .clamp(self.shortest, self.longest)
    }

    /// Any wait between the shortest and this one, within the bounds.
    pub fn anywhere_within(&mut self, wait: Duration) -> Duration {
        let end = wait.min(self.longest).max(self.shortest);
        self.random.between(self.shortest, end)
    }

    /// A wait of about this length, so that many devices do not come back in the same moment.
    pub fn about(&mut self, wait: Duration) -> Duration {
        self.random.between(wait, wait + wait / 4)
    }

    /// How many failures there were since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets all failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Enough randomness to spread devices over time; good for nothing secret (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let fraction = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        let span = high.saturating_sub(low);
        low + Duration::from_nanos(
            u64::try_from((span.as_nanos() * u128::from(fraction)) >> 32).unwrap_or(u64::MAX),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bounds_that_make_a_tight_loop_or_no_sense_are_refused() {
        assert_eq!(
            Backoff::new(Duration::ZERO, SECOND, 1).map(|_| ()),
            Err(BadBounds::TooShort)
        );
        assert_eq!(
            Backoff::new(SECOND, SECOND / 2, 1).map(|_| ()),
            Err(BadBounds::Reversed)
        );
        assert!(Backoff::new(SECOND, SECOND, 1).is_ok());
    }

    #[test]
    fn waits_grow_to_the_upper_bound_and_start_anew_after_a_reset() {
        let mut backoff = Backoff::new(SECOND, 90 * SECOND, 7).expect("bounds");
        let waits: Vec<Duration> = (0..12).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= 2 * SECOND, "{waits:?}");
        assert!(
            waits[10] >= 45 * SECOND && waits[11] >= 45 * SECOND,
            "{waits:?}"
        );
        backoff.reset();
        assert!(backoff.next_wait() <= 2 * SECOND);
    }

    #[test]
    fn two_devices_do_not_wait_equally_long() {
        let wait = |seed| {
            let mut backoff = Backoff::new(SECOND, 90 * SECOND, seed).expect("bounds");
            (0..8).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        let differing = wait(1)
            .iter()
            .zip(wait(9_871))
            .filter(|(a, b)| **a != *b)
            .count();
        assert!(differing >= 6, "{differing} of 8");
    }

    proptest! {
        #[test]
        fn every_wait_is_within_the_bounds(low in 100u64..10_000, more in 0u64..1_000_000, seed: u64, failures in 0usize..200) {
            let (low, high) = (Duration::from_millis(low), Duration::from_millis(low + more));
            let mut backoff = Backoff::new(low, high, seed).expect("bounds");
            for _ in 0..failures {
                let wait = backoff.next_wait();
                prop_assert!(wait >= low && wait <= high, "{wait:?}");
            }
        }
    }
}
