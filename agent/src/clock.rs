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

/// A day of our calendar.
pub(crate) struct Date {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
}

/// The day of a moment, in UTC; `None` outside of the years 1 to 9999.
pub(crate) fn calendar(seconds: i64) -> Option<Date> {
    // Counted in years that begin in March, so that leap days come last, from the March before the year 1 on.
    let days = seconds.div_euclid(86_400).checked_add(719_468)?;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (1..=9_999)
        .contains(&year)
        .then_some(Date { year, month, day })
}

/// A date for people, `2026-11-22`, or the plain number where it is no date of our calendar.
pub fn date(seconds: i64) -> String {
    calendar(seconds).map_or_else(
        || seconds.to_string(),
        |date| format!("{:04}-{:02}-{:02}", date.year, date.month, date.day),
    )
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

    proptest::proptest! {
        #[test]
        fn days_are_those_of_the_calendar(seconds in -62_135_596_800_i64..253_402_300_800) {
            let expected = time::OffsetDateTime::from_unix_timestamp(seconds).expect("a date");
            proptest::prop_assert_eq!(date(seconds), expected.date().to_string());
        }
    }

    #[test]
    fn dates_are_written_with_the_year_first() {
        assert_eq!(date(0), "1970-01-01");
        for beyond in [-62_135_596_801, 253_402_300_800, i64::MIN, i64::MAX] {
            assert_eq!(date(beyond), beyond.to_string());
        }
    }
}
