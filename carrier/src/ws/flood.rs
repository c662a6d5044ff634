//! How many frames without any data a peer may send: pings, pongs and empty messages cost work and bring nothing. A
//! bucket of tokens that time fills up again; it never sleeps and never asks for the time.

use std::time::Duration;

use tokio::time::Instant;

/// So many at once.
const BURST: u32 = 64;

/// Then one each time.
const REFILL: Duration = Duration::from_millis(250);

/// What a peer may still send.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: u32,
    since: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            since: now,
        }
    }

    /// Whether one more is fine.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        let gained = elapsed.as_millis() / REFILL.as_millis();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained >= BURST - self.tokens {
            self.tokens = BURST;
            self.since = now;
        } else {
            self.tokens += gained;
            self.since += REFILL * gained;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_fine_and_then_four_each_second() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(begin);
        let taken = |bucket: &mut Bucket, now| (0..1000).take_while(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, begin), 64);
        assert_eq!(taken(&mut bucket, begin + Duration::from_secs(1)), 4);
        // What is left of a time isn't lost, and nothing is saved up beyond a burst.
        assert_eq!(taken(&mut bucket, begin + Duration::from_millis(1200)), 0);
        assert_eq!(taken(&mut bucket, begin + Duration::from_millis(1250)), 1);
        assert_eq!(taken(&mut bucket, begin + Duration::from_secs(3600)), 64);
    }
}
