//! Which devices are online, and the way to each of them. It keeps nothing that matters: whatever must reach a device is
//! in the database first, and the hub only says that there is something new.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use umbra_protocol::hello::DeviceFacts;
use umbra_protocol::session::{SessionEnd, SessionRequest, SessionTunnel};
use umbra_protocol::{Refusal, RefusalCode, RunId};

use crate::store::devices::{DeviceCertificate, Row};

/// News that wait for one device; a device that lets more pile up is cut off and told at its next link.
const INBOX: usize = 64;

/// Runs of one device's agent that are remembered. As many copies of one disk can take turns without being missed.
const RUNS: usize = 256;

/// Something new for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Its settings have changed.
    Settings,
    /// There are commands.
    Commands,
    /// A session is coming.
    Session(SessionRequest),
    /// The console of a session that is coming is met at the gateway.
    Tunnel(SessionTunnel),
    /// A session shall end.
    EndSession(SessionEnd),
}

/// A device that is online.
#[derive(Clone, Debug)]
pub struct Online {
    /// From where its link comes.
    pub peer: SocketAddr,
    /// The gateway that its link goes through.
    pub gateway: Option<Arc<str>>,
    /// The certificate that its link is authenticated with.
    pub certificate: DeviceCertificate,
    /// What it says of itself.
    pub facts: DeviceFacts,
    /// When something was last heard of it.
    pub last_heard: Arc<AtomicI64>,
}

#[derive(Debug)]
struct Line {
    number: u64,
    online: Online,
    news: mpsc::Sender<News>,
    end: watch::Sender<Option<Refusal>>,
}

/// A link's end of its way to the hub. Dropping it takes the device offline, unless a newer link took over.
#[derive(Debug)]
pub struct Attachment {
    number: u64,
    row: Row,
    hub: Hub,
    /// What is new.
    pub news: mpsc::Receiver<News>,
    /// Set when the link has to end, with the reason that the device is told.
    pub end: watch::Receiver<Option<Refusal>>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut lines = self.hub.lines();
        if lines
            .get(&self.row)
            .is_some_and(|line| line.number == self.number)
        {
            lines.remove(&self.row);
        }
    }
}

/// The device has no link, or does not take its news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline;

/// All devices that are online.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    lines: Arc<Mutex<HashMap<Row, Line>>>,
    next: Arc<AtomicU64>,
    runs: Arc<Mutex<HashMap<Row, VecDeque<RunId>>>>,
}

impl Hub {
    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<Row, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link stands. An older one of the same device is told to end.
    pub fn attach(&self, row: Row, online: Online) -> Attachment {
        let (news_in, news) = mpsc::channel(INBOX);
        let (end_in, end) = watch::channel(None);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let line = Line {
            number,
            online,
            news: news_in,
            end: end_in,
        };
        if let Some(older) = self.lines().insert(row, line) {
            older.end.send_replace(Some(Refusal::new(
                RefusalCode::Superseded,
                "A newer connection of this device took over.",
            )));
        }
        Attachment {
            number,
            row,
            hub: self.clone(),
            news,
            end,
        }
    }

    /// Notes which run of a device's agent links now; true if that run had given way to another one before. A machine that
    /// restarts its agent never goes back to an earlier run, however its links cross on the way: two machines have one key.
    pub fn takes_turns(&self, row: Row, run: RunId) -> bool {
        let mut all = self.runs();
        let known = all.entry(row).or_default();
        if known.back() == Some(&run) {
            return false;
        }
        let before = known.len();
        known.retain(|earlier| *earlier != run);
        let returned = known.len() < before;
        if known.len() >= RUNS {
            known.pop_front();
        }
        known.push_back(run);
        returned
    }

    /// Whether noting this run would say anything: it is neither the one that links already nor the first since this server began.
    pub fn is_another_run(&self, row: Row, run: RunId) -> bool {
        let all = self.runs();
        let latest = all.get(&row).and_then(VecDeque::back);
        latest.is_some_and(|latest| *latest != run)
    }

    /// Forgets a device's runs: it has a new key, or an administrator has looked into it.
    pub fn forget_runs(&self, row: Row) {
        self.runs().remove(&row);
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, HashMap<Row, VecDeque<RunId>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device, if it is online.
    pub fn find(&self, row: Row) -> Option<Online> {
        self.lines().get(&row).map(|line| line.online.clone())
    }

    /// Tells a device that there is something new.
    pub fn tell(&self, row: Row, news: News) -> Result<(), Offline> {
        let mut lines = self.lines();
        let line = lines.get(&row).ok_or(Offline)?;
        if line.news.try_send(news).is_ok() {
            return Ok(());
        }
        // It takes nothing any more: its link ends, and what it missed is told at the next one.
        line.end.send_replace(Some(Refusal::new(
            RefusalCode::TooSlow,
            "This device does not take what the server sends; the connection is made anew.",
        )));
        lines.remove(&row);
        Err(Offline)
    }

    /// Tells all devices that there is something new.
    pub fn tell_all(&self, news: &News) {
        let rows: Vec<Row> = self.lines().keys().copied().collect();
        for row in rows {
            // Who is offline learns it at the next link.
            let _ = self.tell(row, news.clone());
        }
    }

    /// Ends a device's link with a reason.
    pub fn end(&self, row: Row, reason: Refusal) {
        if let Some(line) = self.lines().remove(&row) {
            line.end.send_replace(Some(reason));
        }
    }

    /// How many devices are linked through a gateway.
    pub fn through(&self, gateway: &str) -> u32 {
        let lines = self.lines();
        let those = lines
            .values()
            .filter(|line| line.online.gateway.as_deref() == Some(gateway));
        u32::try_from(those.count()).unwrap_or(u32::MAX)
    }

    /// When something was last heard of every device that is online.
    pub fn last_heard(&self) -> Vec<(Row, i64)> {
        self.lines()
            .iter()
            .map(|(row, line)| (*row, line.online.last_heard.load(Ordering::Relaxed)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use umbra_protocol::{DeviceId, Fingerprint};

    use super::*;

    fn online() -> Online {
        Online {
            peer: "192.0.2.1:1".parse().expect("an address"),
            gateway: None,
            certificate: DeviceCertificate {
                fingerprint: Fingerprint::from_bytes([1; 32]),
                device_id: DeviceId::from_bytes([2; 32]),
                der: Vec::new(),
            },
            facts: crate::testing::facts("A1"),
            last_heard: Arc::default(),
        }
    }

    #[test]
    fn a_second_link_ends_the_first_and_the_first_ones_end_does_not_take_the_device_offline() {
        let hub = Hub::default();
        let first = hub.attach(Row(1), online());
        let second = hub.attach(Row(1), online());
        let reason = first.end.borrow().clone().expect("told to end");
        assert_eq!(reason.code, RefusalCode::Superseded);
        drop(first);
        assert!(hub.find(Row(1)).is_some());
        assert_eq!(hub.tell(Row(1), News::Commands), Ok(()));
        drop(second);
        assert!(hub.find(Row(1)).is_none());
        assert_eq!(hub.tell(Row(1), News::Commands), Err(Offline));
    }

    #[test]
    fn only_a_run_that_comes_back_after_another_one_shows_two_machines() {
        let hub = Hub::default();
        let run = |number: u8| RunId::from_bytes([number; 16]);
        // Reconnects, restarts, and restarts that follow each other quickly.
        for number in [1, 1, 2, 2, 3, 4, 4] {
            assert!(!hub.takes_turns(Row(1), run(number)), "{number}");
        }
        assert!(!hub.takes_turns(Row(2), run(1)), "another device");
        assert!(hub.takes_turns(Row(1), run(2)));
        assert!(!hub.takes_turns(Row(1), run(2)), "it only reconnects");
        assert!(hub.takes_turns(Row(1), run(4)));
        hub.forget_runs(Row(1));
        assert!(!hub.takes_turns(Row(1), run(2)));
    }

    #[test]
    fn no_number_of_restarts_makes_the_memory_of_runs_grow() {
        let hub = Hub::default();
        for number in 0..10_000_u128 {
            assert!(!hub.takes_turns(Row(1), RunId::from_bytes(number.to_be_bytes())));
        }
        assert_eq!(hub.runs()[&Row(1)].len(), RUNS);
    }

    #[test]
    fn a_device_that_takes_nothing_is_cut_off() {
        let hub = Hub::default();
        let attachment = hub.attach(Row(1), online());
        for _ in 0..INBOX {
            assert_eq!(hub.tell(Row(1), News::Settings), Ok(()));
        }
        assert_eq!(hub.tell(Row(1), News::Settings), Err(Offline));
        let reason = attachment.end.borrow().clone().expect("told to end");
        assert_eq!(reason.code, RefusalCode::TooSlow);
    }
}
