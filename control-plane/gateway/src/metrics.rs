//! What monitoring sees, in Prometheus' text form: numbers only, never a name, an address or a token.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use umbra_protocol::RefusalCode;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more.
    pub fn add(&self, count: usize) {
        self.0
            .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers that only grow.
#[derive(Debug)]
pub struct Metrics {
    started: f64,
    /// Connections that were accepted.
    pub connections: Counter,
    /// Devices that a server admitted.
    pub admitted: Counter,
    /// TLS handshakes that failed, outer and inner.
    pub handshakes_failed: Counter,
    /// Connections that were closed for want of room while they were being set up.
    pub turned_away: Counter,
    /// Errors of `accept`.
    pub accept_errors: Counter,
    /// Keystores that were taken over.
    pub reloads: Counter,
    /// Keystores that were refused.
    pub reloads_refused: Counter,
    /// Bytes from devices to servers.
    pub bytes_to_servers: Counter,
    /// Bytes from servers to devices.
    pub bytes_to_devices: Counter,
    /// Bytes through tunnels.
    pub bytes_in_tunnels: Counter,
    /// Messages of unknown types on uplinks, and messages that could not be delivered on them.
    pub uplink_oddities: Counter,
    // Bounded by the number of codes.
    rejected: Mutex<BTreeMap<&'static str, u64>>,
}

/// Numbers of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections at the door.
    pub door: usize,
    /// Devices that are admitted.
    pub devices: usize,
    /// Devices that wait to be admitted.
    pub strangers: usize,
    /// Servers that are attached.
    pub uplinks: usize,
    /// Rendezvous that wait.
    pub tunnels_waiting: usize,
    /// Rendezvous that run.
    pub tunnels_running: usize,
    /// Seconds until the certificate expires; negative afterwards.
    pub certificate_seconds: i64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |time| time.as_secs_f64()),
            connections: Counter::default(),
            admitted: Counter::default(),
            handshakes_failed: Counter::default(),
            turned_away: Counter::default(),
            accept_errors: Counter::default(),
            reloads: Counter::default(),
            reloads_refused: Counter::default(),
            bytes_to_servers: Counter::default(),
            bytes_to_devices: Counter::default(),
            bytes_in_tunnels: Counter::default(),
            uplink_oddities: Counter::default(),
            rejected: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Somebody was turned away or sent away with a code.
    pub fn rejected(&self, code: RefusalCode) {
        let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        *rejected.entry(code.as_str()).or_default() += 1;
    }

    /// All numbers as text.
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut page = String::new();
        let mut number = |name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display| {
            // Writing to a string can't fail.
            let _ = writeln!(
                page,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            );
        };
        number(
            "process_start_time_seconds",
            "gauge",
            "When the gateway started, in seconds since 1970.",
            &self.started,
        );
        let now: [(&str, &str, i64); 7] = [
            (
                "umbra_gateway_door",
                "Connections that are being set up.",
                count(gauges.door),
            ),
            (
                "umbra_gateway_devices",
                "Devices that are connected and admitted.",
                count(gauges.devices),
            ),
            (
                "umbra_gateway_devices_waiting",
                "Devices that wait for their server to admit them.",
                count(gauges.strangers),
            ),
            (
                "umbra_gateway_uplinks",
                "Servers that are attached.",
                count(gauges.uplinks),
            ),
            (
                "umbra_gateway_tunnels_waiting",
                "Tunnels that wait for an end.",
                count(gauges.tunnels_waiting),
            ),
            (
                "umbra_gateway_tunnels",
                "Tunnels that run.",
                count(gauges.tunnels_running),
            ),
            (
                "umbra_gateway_certificate_expiry_seconds",
                "Seconds until the certificate expires.",
                gauges.certificate_seconds,
            ),
        ];
        for (name, help, value) in now {
            number(name, "gauge", help, &value);
        }
        let grown = [
            (
                "umbra_gateway_connections_total",
                "Connections that were accepted.",
                &self.connections,
            ),
            (
                "umbra_gateway_admitted_total",
                "Devices that were admitted.",
                &self.admitted,
            ),
            (
                "umbra_gateway_handshakes_failed_total",
                "TLS handshakes that failed.",
                &self.handshakes_failed,
            ),
            (
                "umbra_gateway_turned_away_total",
                "Connections that were closed for want of room while they were being set up.",
                &self.turned_away,
            ),
            (
                "umbra_gateway_accept_errors_total",
                "Errors while accepting connections.",
                &self.accept_errors,
            ),
            (
                "umbra_gateway_reloads_total",
                "Times that certificate and servers were replaced.",
                &self.reloads,
            ),
            (
                "umbra_gateway_reloads_refused_total",
                "Times that their replacement was refused.",
                &self.reloads_refused,
            ),
            (
                "umbra_gateway_bytes_to_servers_total",
                "Bytes from devices to servers.",
                &self.bytes_to_servers,
            ),
            (
                "umbra_gateway_bytes_to_devices_total",
                "Bytes from servers to devices.",
                &self.bytes_to_devices,
            ),
            (
                "umbra_gateway_bytes_in_tunnels_total",
                "Bytes through tunnels.",
                &self.bytes_in_tunnels,
            ),
            (
                "umbra_gateway_uplink_oddities_total",
                "Messages on uplinks that were not understood or not delivered.",
                &self.uplink_oddities,
            ),
        ];
        for (name, help, counter) in grown {
            number(name, "counter", help, &counter.get());
        }
        page.push_str("# HELP umbra_gateway_rejected_total Devices and ends of tunnels that were turned away, by code.\n# TYPE umbra_gateway_rejected_total counter\n");
        let rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        for (code, times) in &*rejected {
            let _ = writeln!(
                page,
                "umbra_gateway_rejected_total{{code=\"{code}\"}} {times}"
            );
        }
        page
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_help_a_type_and_a_value() {
        let metrics = Metrics::default();
        metrics.admitted.one();
        metrics.bytes_in_tunnels.add(7);
        metrics.rejected(RefusalCode::Busy);
        metrics.rejected(RefusalCode::Busy);
        let page = metrics.render(&Gauges {
            devices: 3,
            certificate_seconds: -5,
            ..Gauges::default()
        });
        for line in [
            "umbra_gateway_admitted_total 1",
            "umbra_gateway_bytes_in_tunnels_total 7",
            "umbra_gateway_rejected_total{code=\"busy\"} 2",
            "umbra_gateway_devices 3",
            "umbra_gateway_certificate_expiry_seconds -5",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} in\n{page}");
        }
        let values = page.lines().filter(|l| !l.starts_with('#')).count();
        for kind in ["# HELP ", "# TYPE "] {
            assert_eq!(page.lines().filter(|l| l.starts_with(kind)).count(), values);
        }
    }
}
