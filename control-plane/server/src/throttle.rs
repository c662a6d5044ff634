//! Slows down whoever guesses. The table is bounded: a stranger with many addresses can make it forget, never grow.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use umbra_carrier::crowd::site;

/// The network that failures are counted for: an IPv4 address, or the 64-bit prefix that one IPv6 site has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    network: IpAddr,
    gateway: Option<i64>,
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self {
            network: site(address),
            gateway: None,
        }
    }
}

impl Source {
    /// An address as a gateway names it: nobody who comes another way is meant by it.
    pub fn through(address: IpAddr, gateway: i64) -> Self {
        Self {
            gateway: Some(gateway),
            ..Self::from(address)
        }
    }
}

/// How much is too much.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Failures until the door stays shut.
    pub failures: u32,
    /// For how long they count.
    pub window: Duration,
    /// Most names in the table.
    pub names: usize,
}

#[derive(Debug)]
struct Count {
    failures: u32,
    since: Instant,
}

/// Counts failures by name.
#[derive(Debug)]
pub struct Throttle<K> {
    allowance: Allowance,
    counts: Mutex<HashMap<K, Count>>,
}

impl<K: Hash + Eq + Clone> Throttle<K> {
    /// An empty table.
    pub fn new(allowance: Allowance) -> Self {
        Self {
            allowance,
            counts: Mutex::new(HashMap::new()),
        }
    }

    /// Whether somebody may try now; else, in how many seconds.
    pub fn check(&self, name: &K, now: Instant) -> Result<(), u32> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = counts.get(name) else {
            return Ok(());
        };
        let age = now.saturating_duration_since(count.since);
        if count.failures < self.allowance.failures || age >= self.allowance.window {
            return Ok(());
        }
        let left = (self.allowance.window - age).as_secs() + 1;
        Err(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Counts a failure; true if the door is shut from now on.
    pub fn fail(&self, name: &K, now: Instant) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if !counts.contains_key(name) && counts.len() >= self.allowance.names {
            let window = self.allowance.window;
            counts.retain(|_, count| now.saturating_duration_since(count.since) < window);
            if counts.len() >= self.allowance.names
                && let Some(oldest) = counts
                    .iter()
                    .min_by_key(|(_, count)| count.since)
                    .map(|(name, _)| name.clone())
            {
                counts.remove(&oldest);
            }
        }
        let count = counts.entry(name.clone()).or_insert(Count {
            failures: 0,
            since: now,
        });
        if now.saturating_duration_since(count.since) >= self.allowance.window {
            *count = Count {
                failures: 0,
                since: now,
            };
        }
        count.failures += 1;
        count.failures == self.allowance.failures
    }

    /// Forgets the failures of somebody who proved that they know.
    pub fn forgive(&self, name: &K) {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(names: usize) -> Throttle<u32> {
        Throttle::new(Allowance {
            failures: 3,
            window: Duration::from_secs(60),
            names,
        })
    }

    #[test]
    fn the_door_shuts_after_the_allowed_failures_and_opens_again_in_time() {
        let (throttle, now) = (throttle(10), Instant::now());
        assert!(!throttle.fail(&1, now));
        assert!(!throttle.fail(&1, now));
        assert_eq!(throttle.check(&1, now), Ok(()));
        assert!(throttle.fail(&1, now), "the third failure shuts it");
        assert_eq!(
            throttle.check(&1, now + Duration::from_secs(20)),
            Err(41),
            "says how long"
        );
        assert_eq!(throttle.check(&2, now), Ok(()), "others may try");
        assert_eq!(throttle.check(&1, now + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn success_forgives_earlier_failures() {
        let (throttle, now) = (throttle(10), Instant::now());
        for _ in 0..3 {
            throttle.fail(&1, now);
        }
        throttle.forgive(&1);
        assert_eq!(throttle.check(&1, now), Ok(()));
    }

    #[test]
    fn the_table_never_grows_beyond_its_bound() {
        let (throttle, now) = (throttle(8), Instant::now());
        for name in 0..1_000 {
            throttle.fail(&name, now);
        }
        assert_eq!(throttle.counts.lock().expect("whole").len(), 8);
    }

    #[test]
    fn one_ipv6_site_is_one_source_and_mapped_ipv4_is_ipv4() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    #[test]
    fn what_one_gateway_says_of_an_address_is_not_held_against_it_elsewhere() {
        let address: IpAddr = "192.0.2.1".parse().expect("an address");
        let through = |gateway| Source::through(address, gateway);
        assert_eq!(through(1), through(1));
        assert_ne!(through(1), through(2));
        assert_ne!(through(1), Source::from(address));
    }
}
