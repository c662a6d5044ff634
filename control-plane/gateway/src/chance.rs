//! Random pauses, so that many who were sent away at once do not come back at once.

use std::ops::RangeInclusive;

use ring::rand::{SecureRandom as _, SystemRandom};

/// A number of seconds out of a range, all equally likely but for a hair.
pub(crate) fn seconds(range: RangeInclusive<u32>) -> u32 {
    let mut bytes = [0; 4];
    // Without randomness, the middle is better than one of the ends.
    let random = match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u32::from_be_bytes(bytes),
        Err(_) => u32::MAX / 2,
    };
    let (low, high) = (*range.start(), *range.end());
    let width = u64::from(high.saturating_sub(low)) + 1;
    let offset = (u64::from(random) * width) >> 32;
    low.saturating_add(u32::try_from(offset).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_in_their_range_and_reach_all_of_it() {
        let drawn: std::collections::BTreeSet<u32> = (0..2_000).map(|_| seconds(3..=7)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        assert_eq!(seconds(9..=9), 9);
        let _ = seconds(0..=u32::MAX);
    }
}
