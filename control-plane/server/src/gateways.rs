//! The gateways as the running server sees them: which ones there shall be, whether their uplinks stand, and which
//! rendezvous are open at them. What must survive a restart is in the database. It never keeps a token: a gateway is told
//! hashes, and the two ends are told their tokens once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use umbra_carrier::address::HostPort;
use umbra_protocol::enrolment::{Connector, ConnectorKind};
use umbra_protocol::gateway::{
    OpenRendezvous, READY_DEADLINE, RENDEZVOUS_SECONDS, RendezvousEnded, TunnelEnd, token_hash,
};
use umbra_protocol::ids::RendezvousId;
use umbra_protocol::{Secret, SessionId};

use crate::random;
use crate::store::devices::Row;
use crate::store::gateways::{self, GatewayOnFile};
use crate::store::{Store, StoreError, meta};

/// Open rendezvous that are remembered; a gateway that never says that one is over makes the oldest forgotten.
const REMEMBERED: usize = 4_096;
/// What an answer to a device may spend on gateways' own roots, in bytes: it has to fit one frame.
const ROOTS: usize = 6 * 1024;
/// Most gateways in one answer to a device.
const CONNECTORS: usize = 16;

/// Which gateways there shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All of them, oldest first.
    pub gateways: Vec<Arc<GatewayOnFile>>,
    /// How many devices all of them together may connect.
    pub connections: Option<u32>,
}

impl Wanted {
    /// How many devices a gateway is told that it may connect.
    pub fn limit_of(&self, gateway: &GatewayOnFile) -> Option<u32> {
        match (gateway.limit, self.connections) {
            (Some(own), Some(all)) => Some(own.min(all)),
            (own, all) => own.or(all),
        }
    }
}

/// How a gateway's uplink is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it stands.
    pub attached: bool,
    /// Since when, or when the last one ended.
    pub since: Option<i64>,
    /// Why there is none, or none with the settings as they are now, as a sentence.
    pub trouble: Option<String>,
    /// Version of the gateway, as it says.
    pub version: Option<String>,
}

/// What an uplink is told by the rest of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Two ends will come.
    Open(OpenRendezvous),
    /// They will not come after all.
    Withdraw(RendezvousId),
}

/// A rendezvous that a gateway is ready for: each end's token, and for how long.
#[derive(Debug)]
pub struct Meeting {
    /// Which one.
    pub id: RendezvousId,
    /// The device's token.
    pub device: Secret,
    /// The console's token.
    pub console: Secret,
    /// Seconds until an end that is alone is sent away.
    pub expires_in_seconds: u32,
}

/// Why there is no rendezvous.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeetingError {
    /// There is no uplink.
    #[error("the gateway is not attached to the server")]
    NotAttached,
    /// The gateway did not say that it is ready.
    #[error("the gateway did not answer in time")]
    NoAnswer,
    /// The gateway does not open one.
    #[error("the gateway refused: {0}")]
    Refused(String),
}

/// For whom a rendezvous was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForWhom {
    /// Which session.
    pub session: SessionId,
    /// On which device.
    pub device: Row,
}

/// One uplink: of several to the same gateway, the one with the highest number was begun last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkId {
    /// The gateway's number.
    pub row: i64,
    /// Counted up from the server's start.
    pub number: u64,
}

#[derive(Debug)]
struct Open {
    id: RendezvousId,
    uplink: UplinkId,
    whom: ForWhom,
    ready: Option<oneshot::Sender<Result<(), String>>>,
}

#[derive(Debug, Default)]
struct Uplink {
    status: Status,
    // The one that stands, and the way to it.
    standing: Option<(u64, mpsc::Sender<Order>)>,
}

impl Uplink {
    /// Why there is none; true if that is news.
    fn told(&mut self, trouble: &str) -> bool {
        self.status.trouble.replace(trouble.to_owned()).as_deref() != Some(trouble)
    }
}

/// All gateways of this server.
#[derive(Debug)]
pub struct Gateways {
    wanted: watch::Sender<Arc<Wanted>>,
    uplinks: Mutex<HashMap<i64, Uplink>>,
    open: Mutex<VecDeque<Open>>,
}

impl Gateways {
    /// Those on file.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let wanted = read(store).await?;
        Ok(Self {
            wanted: watch::Sender::new(Arc::new(wanted)),
            uplinks: Mutex::default(),
            open: Mutex::default(),
        })
    }

    /// Reads the file again, after something was changed in it.
    pub async fn reload(&self, store: &Store) -> Result<(), StoreError> {
        let wanted = Arc::new(read(store).await?);
        let rows: Vec<i64> = wanted.gateways.iter().map(|gateway| gateway.row).collect();
        self.uplinks().retain(|row, _| rows.contains(row));
        self.wanted.send_replace(wanted);
        Ok(())
    }

    /// Hears of changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Wanted>> {
        self.wanted.subscribe()
    }

    /// Which gateways there shall be.
    pub fn wanted(&self) -> Arc<Wanted> {
        Arc::clone(&self.wanted.borrow())
    }

    /// One gateway, by name.
    pub fn find(&self, name: &str) -> Option<Arc<GatewayOnFile>> {
        let wanted = self.wanted();
        let mut all = wanted.gateways.iter();
        all.find(|gateway| gateway.name.eq_ignore_ascii_case(name))
            .cloned()
    }

    /// The ways through gateways for a device that is being taken on: the one that it came through first. As many as one
    /// message holds.
    pub fn connectors(&self, first: Option<&str>) -> Vec<Connector> {
        let wanted = self.wanted();
        let (mut through, mut others): (Vec<_>, Vec<_>) = wanted
            .gateways
            .iter()
            .partition(|gateway| Some(gateway.name.as_str()) == first);
        through.append(&mut others);
        let mut room = ROOTS;
        through
            .into_iter()
            .filter(|gateway| {
                let size = gateway.roots.iter().map(String::len).sum();
                let fits = size <= room;
                room -= if fits { size } else { 0 };
                fits
            })
            .take(CONNECTORS)
            .map(|gateway| connector(gateway))
            .collect()
    }

    /// How a gateway's uplink is.
    pub fn status(&self, row: i64) -> Status {
        let uplinks = self.uplinks();
        uplinks
            .get(&row)
            .map(|uplink| uplink.status.clone())
            .unwrap_or_default()
    }

    /// An uplink stands, and takes orders; from now on in the place of any older one.
    pub fn attached(
        &self,
        uplink: UplinkId,
        now: i64,
        version: String,
        orders: mpsc::Sender<Order>,
    ) {
        let status = Status {
            attached: true,
            since: Some(now),
            trouble: None,
            version: Some(version),
        };
        let standing = Some((uplink.number, orders));
        let stands = Uplink { status, standing };
        self.uplinks().insert(uplink.row, stands);
    }

    /// An uplink does not stand, and this is why; true if that sentence is news. The rendezvous that may still have been
    /// waiting at the gateway because of it are forgotten and returned. Where another uplink to the same gateway stands,
    /// that one is what counts.
    pub fn detached(&self, uplink: UplinkId, now: i64, trouble: &str) -> (bool, Vec<ForWhom>) {
        let news = {
            let mut uplinks = self.uplinks();
            let known = uplinks.entry(uplink.row).or_default();
            let another = known.standing.as_ref().map(|(number, _)| *number);
            match another.filter(|number| *number != uplink.number) {
                // It was replaced in the meantime.
                Some(newer) if newer > uplink.number => false,
                Some(_) => known.told(&format!(
                    "The uplink stands as it was before its settings were changed; with the new ones there is none: {trouble}"
                )),
                None => {
                    known.standing = None;
                    if std::mem::take(&mut known.status.attached) {
                        known.status.since = Some(now);
                    }
                    known.told(trouble)
                }
            }
        };
        let mut open = self.open();
        let (gone, left) = open.drain(..).partition(|open| open.uplink == uplink);
        *open = left;
        let gone: VecDeque<Open> = gone;
        let whom = gone.into_iter().filter_map(|open| match open.ready {
            // Whoever waits for it hears it from there.
            Some(ready) => {
                let _ = ready.send(Err(trouble.to_owned()));
                None
            }
            None => Some(open.whom),
        });
        (news, whom.collect())
    }

    /// Makes a rendezvous at a gateway, and waits until the gateway is ready for both ends.
    pub async fn meet(&self, row: i64, whom: ForWhom) -> Result<Meeting, MeetingError> {
        let meeting = Meeting {
            id: RendezvousId::from_bytes(random::bytes()),
            device: token(),
            console: token(),
            expires_in_seconds: *RENDEZVOUS_SECONDS.end(),
        };
        let order = Order::Open(OpenRendezvous {
            id: meeting.id,
            device: token_hash(meeting.device.reveal()),
            console: token_hash(meeting.console.reveal()),
            expires_in_seconds: meeting.expires_in_seconds,
        });
        let (ready_in, ready) = oneshot::channel();
        let Some((number, orders)) = self.standing(row) else {
            return Err(MeetingError::NotAttached);
        };
        {
            let mut open = self.open();
            if open.len() >= REMEMBERED {
                open.pop_front();
            }
            open.push_back(Open {
                id: meeting.id,
                uplink: UplinkId { row, number },
                whom,
                ready: Some(ready_in),
            });
        }
        if orders.try_send(order).is_err() {
            self.forget(meeting.id);
            return Err(MeetingError::NotAttached);
        }
        match timeout(READY_DEADLINE, ready).await {
            Ok(Ok(Ok(()))) => Ok(meeting),
            Ok(Ok(Err(sentence))) => Err(MeetingError::Refused(sentence)),
            Ok(Err(_)) => Err(MeetingError::NotAttached),
            Err(_) => {
                self.forget(meeting.id);
                self.order(row, Order::Withdraw(meeting.id));
                Err(MeetingError::NoAnswer)
            }
        }
    }

    /// A gateway is ready for both ends of a rendezvous.
    pub fn ready(&self, row: i64, id: RendezvousId) {
        let mut open = self.open();
        let found = open
            .iter_mut()
            .find(|open| open.id == id && open.uplink.row == row);
        if let Some(ready) = found.and_then(|open| open.ready.take()) {
            // Nobody may be waiting any more; the rendezvous is withdrawn then.
            let _ = ready.send(Ok(()));
        }
    }

    /// A rendezvous is over; says whose it was, unless that is known already.
    pub fn ended(&self, row: i64, ended: &RendezvousEnded) -> Option<ForWhom> {
        let mut open = self.open();
        // A gateway has no say about what is open at another one.
        let at = open
            .iter()
            .position(|open| open.id == ended.id && open.uplink.row == row)?;
        let gone = open.remove(at)?;
        match gone.ready {
            Some(ready) => {
                let _ = ready.send(Err(ended.sentence.clone()));
                None
            }
            None => Some(gone.whom),
        }
    }

    /// A session that has not begun will not begin: its rendezvous, if it has one, is withdrawn.
    pub fn withdraw(&self, session: SessionId) {
        let found = {
            let mut open = self.open();
            let at = open.iter().position(|open| open.whom.session == session);
            at.and_then(|at| open.remove(at))
        };
        if let Some(open) = found {
            self.order(open.uplink.row, Order::Withdraw(open.id));
        }
    }

    fn order(&self, row: i64, order: Order) {
        if let Some((_, orders)) = self.standing(row)
            && orders.try_send(order).is_err()
        {
            // Its uplink is ending, or takes nothing: what is open there ends by itself.
            tracing::debug!(row, "an order did not reach a gateway");
        }
    }

    fn standing(&self, row: i64) -> Option<(u64, mpsc::Sender<Order>)> {
        self.uplinks().get(&row)?.standing.clone()
    }

    fn forget(&self, id: RendezvousId) {
        self.open().retain(|open| open.id != id);
    }

    fn uplinks(&self) -> MutexGuard<'_, HashMap<i64, Uplink>> {
        self.uplinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, VecDeque<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way through a gateway.
pub fn connector(gateway: &GatewayOnFile) -> Connector {
    Connector {
        kind: ConnectorKind::Icg,
        address: gateway.external.host().to_owned(),
        port: gateway.external.port(),
        roots: gateway.roots.clone(),
    }
}

/// Where a console reaches a gateway, best first for where the console is.
pub fn addresses_for(gateway: &GatewayOnFile, console: std::net::IpAddr) -> Vec<String> {
    let mut addresses = [&gateway.internal, &gateway.external];
    if !is_inside(console, &gateway.internal) {
        addresses.reverse();
    }
    let mut texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.dedup();
    texts
}

/// Whether a console is in the internal network, as far as its address tells.
fn is_inside(console: std::net::IpAddr, internal: &HostPort) -> bool {
    use std::net::IpAddr;
    let same_network = |internal: IpAddr| match (console.to_canonical(), internal.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..3] == b.octets()[..3],
        (IpAddr::V6(a), IpAddr::V6(b)) => a.octets()[..8] == b.octets()[..8],
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    };
    let private = match console.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    private || internal.host().parse().is_ok_and(same_network)
}

/// How the end of a rendezvous is called where a session did not begin because of it.
pub fn end_code(end: TunnelEnd) -> &'static str {
    match end {
        TunnelEnd::Expired => "tunnel_expired",
        TunnelEnd::Withdrawn => "session_withdrawn",
        TunnelEnd::ClosedByDevice
        | TunnelEnd::ClosedByConsole
        | TunnelEnd::ConnectionLost
        | TunnelEnd::Idle
        | TunnelEnd::ShuttingDown
        | TunnelEnd::NotOpened
        | TunnelEnd::Unknown => "tunnel_lost",
    }
}

fn token() -> Secret {
    let bytes = zeroize::Zeroizing::new(random::bytes::<32>());
    Secret::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*bytes))
}

async fn read(store: &Store) -> Result<Wanted, StoreError> {
    let mut connection = store.read().await?;
    let gateways = gateways::list(&mut connection).await?;
    Ok(Wanted {
        gateways: gateways.into_iter().map(Arc::new).collect(),
        connections: meta::policy(&mut connection).await?.gateway_connections,
    })
}

#[cfg(test)]
#[path = "gateways_tests.rs"]
mod tests;
