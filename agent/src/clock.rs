//! The device's wall clock and how far it can be believed. A thin client may come up in 1970 or in 2099, so nothing about a
//! session or a wait depends on it; it is only asked for the dates in a certificate and for what people read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds in a day.
pub const DAY: i64 = 24 * 60 * 60;
/// Seconds in a year, roughly.
pub const YEAR: i64 = 365 * DAY + DAY / 4;

/// A program older than this is not in use any more: a clock that says otherwise is wrong.
const PLAUSIBLE_YEARS: i64 = 15;

/// Whether a date can be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It can.
    Plausible,
    /// It is before this program was built.
    BeforeBuild,
    /// It is so long after this program was built that it cannot be true.
    FarFuture,
}

/// The wall clock, or in a test a hand-set one. Clones share one clock.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    build: i64,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self {
            source: Source::System,
            build: build_date(),
        }
    }

    /// A clock that stands until [`Clock::set`] is called: for tests, and for showing what a wrong clock does.
    pub fn fixed(now: i64) -> Self {
        Self {
            source: Source::Set(Arc::new(AtomicI64::new(now))),
            build: build_date(),
        }
    }

    /// Sets a fixed clock; the system's clock is not ours to set, and stays.
    pub fn set(&self, now: i64) {
        match &self.source {
            Source::System => {}
            Source::Set(value) => value.store(now, Ordering::Relaxed),
        }
    }

    /// Seconds since 1970, believable or not.
    pub fn now(&self) -> i64 {
        match &self.source {
            Source::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
            },
            Source::Set(value) => value.load(Ordering::Relaxed),
        }
    }

    /// When this program was built, in seconds since 1970.
    pub fn build_date(&self) -> i64 {
        self.build
    }

    /// How far the clock can be believed now.
    pub fn judge(&self) -> Judgement {
        let now = self.now();
        // A day of grace: build machines and time zones.
        if now < self.build - DAY {
            Judgement::BeforeBuild
        } else if now > self.build + PLAUSIBLE_YEARS * YEAR {
            Judgement::FarFuture
        } else {
            Judgement::Plausible
        }
    }

    /// The clock's time where it can be believed.
    pub fn believable(&self) -> Option<i64> {
        match self.judge() {
            Judgement::Plausible => Some(self.now()),
            Judgement::BeforeBuild | Judgement::FarFuture => None,
        }
    }
}

fn build_date() -> i64 {
    // Written by build.rs, which writes digits only.
    env!("UMBRA_BUILD_DATE").parse().unwrap_or(0)
}

/// A date for people, `2026-11-22`, or the plain number where it is no date of our calendar.
pub fn date(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| seconds.to_string(), |when| when.date().to_string())
}

/// Seconds since the machine came up, time asleep included. Never jumps.
pub fn uptime() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .ok()
        .and_then(|time| u64::try_from(time.tv_sec()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_1970_or_2099_is_not_believed() {
        let clock = Clock::fixed(0);
        assert_eq!(clock.judge(), Judgement::BeforeBuild);
        assert_eq!(clock.believable(), None);
        clock.set(4_070_908_800);
        assert_eq!(clock.judge(), Judgement::FarFuture);
    }

    #[test]
    fn the_time_of_the_build_and_some_years_later_are_believed() {
        let clock = Clock::system();
        let build = clock.build_date();
        assert!(build > 1_700_000_000, "the build date is {build}");
        for later in [0, DAY, 14 * YEAR] {
            assert_eq!(
                Clock::fixed(build + later).believable(),
                Some(build + later)
            );
        }
    }

    #[test]
    fn dates_are_written_with_the_year_first() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(i64::MAX), i64::MAX.to_string());
    }
}
