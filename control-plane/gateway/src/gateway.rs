//! What all connections share: the roster of servers and devices, the table of rendezvous, the status, and the lines by
//! which one connection's task hears of a decision made in another's. Decisions are the machines'; here they are
//! carried out, under one lock that is never held while waiting.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use hyper::StatusCode;
use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;
use umbra_carrier::crowd::Crowd;
use umbra_carrier::tls::{SwappableIdentity, envelope_acceptor_config, uplink_acceptor_config};
use umbra_protocol::gateway::{Draining, FromGateway, TunnelEnd};
use umbra_protocol::{Refusal, RefusalCode, RendezvousId};

use crate::addresses::Source;
use crate::chance;
use crate::devices::roster::{Roster, ServerKey, UplinkId};
use crate::ending::{Ending, Rejection};
use crate::keystore::{Keys, unix_now};
use crate::metrics::{Gauges, Metrics};
use crate::rendezvous::driver::WebSocket;
use crate::rendezvous::machine::Table;
use crate::status::{Status, StatusMachine};
use crate::timing::Timing;

/// Connections of servers whose certificate was not seen so far.
const UPLINKS_AT_THE_DOOR: (usize, usize) = (64, 16);
/// When whoever comes while the gateway goes down may ask again, in seconds.
const AFTER_RESTART: RangeInclusive<u32> = 5..=30;

/// What is decided about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing so far.
    Waiting,
    /// It may stay.
    Admitted,
    /// It has to go.
    Ended(Ending),
}

/// The way to an uplink's task.
#[derive(Clone, Debug)]
pub struct UplinkLine {
    /// Messages for the control stream.
    pub events: mpsc::Sender<FromGateway>,
    /// Requests for a stream of its own.
    pub streams: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    /// Ends the uplink, for a reason.
    pub end: Arc<watch::Sender<Option<&'static str>>>,
    /// What the server calls itself.
    pub name: String,
}

/// The shared part.
#[derive(Debug)]
pub struct Gateway {
    /// How long things may take.
    pub timing: Timing,
    /// What is counted.
    pub metrics: Metrics,
    /// Connections that are being set up.
    pub door: Crowd<Source>,
    /// Uplinks that are being set up.
    pub uplink_door: Crowd<Source>,
    /// All tasks of connections.
    pub tasks: TaskTracker,
    identity: Arc<SwappableIdentity>,
    outer: Arc<ServerConfig>,
    keys: RwLock<Present>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Present {
    inner: Arc<ServerConfig>,
    servers: Vec<ServerKey>,
    valid: std::ops::RangeInclusive<i64>,
}

impl Present {
    fn new(keys: &Keys) -> Self {
        Self {
            inner: uplink_acceptor_config(&keys.identity, keys.servers.clone()),
            servers: keys.server_keys(),
            valid: keys.valid.clone(),
        }
    }
}

/// The ways to the tasks of uplinks.
pub(crate) type Uplinks = HashMap<UplinkId, UplinkLine>;

/// What is behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) roster: Roster,
    pub(crate) table: Table,
    pub(crate) status: StatusMachine,
    pub(crate) draining: bool,
    pub(crate) devices: HashMap<u64, Device>,
    pub(crate) uplinks: Uplinks,
    pub(crate) meetings: HashMap<RendezvousId, Meeting>,
}

/// The way to a device's task.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) line: watch::Sender<Line>,
    pub(crate) label: String,
}

/// The ways to the tasks of a tunnel's ends.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub(crate) over: watch::Sender<Option<TunnelEnd>>,
    pub(crate) first: Option<oneshot::Sender<WebSocket>>,
}

impl Gateway {
    /// With such keys.
    pub fn new(keys: &Keys, timing: Timing) -> Arc<Self> {
        let identity = SwappableIdentity::new(&keys.identity);
        Arc::new(Self {
            timing,
            metrics: Metrics::default(),
            door: Crowd::new(timing.door.0).at_most_of_one(timing.door.1),
            uplink_door: Crowd::new(UPLINKS_AT_THE_DOOR.0).at_most_of_one(UPLINKS_AT_THE_DOOR.1),
            tasks: TaskTracker::new(),
            outer: envelope_acceptor_config(identity.clone()),
            identity,
            keys: RwLock::new(Present::new(keys)),
            state: Mutex::new(State {
                roster: Roster::new(timing.room),
                table: Table::default(),
                status: StatusMachine::new(Instant::now()),
                draining: false,
                devices: HashMap::new(),
                uplinks: HashMap::new(),
                meetings: HashMap::new(),
            }),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with the lock broke nothing that the next one needs: all is told apart by numbers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// TLS towards everybody.
    pub fn outer_tls(&self) -> Arc<ServerConfig> {
        self.outer.clone()
    }

    /// TLS inside of an uplink.
    pub fn inner_tls(&self) -> Arc<ServerConfig> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.inner.clone()
    }

    /// Whether a server is in the list.
    pub(crate) fn is_listed(&self, server: &ServerKey) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.servers.contains(server)
    }

    /// Takes other keys over. Connections go on as they are, except for uplinks of servers that are no longer known.
    pub fn take_over(&self, keys: &Keys) {
        self.identity.swap(&keys.identity);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Present::new(keys);
        let state = self.state();
        for uplink in state.roster.strange_uplinks(&keys.server_keys()) {
            if let Some(line) = state.uplinks.get(&uplink) {
                tracing::warn!(
                    server = line.name,
                    "this server is no longer listed and loses its uplink"
                );
                line.end
                    .send_replace(Some("the server is no longer listed"));
            }
        }
    }

    /// Works the status out if it is time, and says when it will be next.
    pub fn keep_status(&self, now: Instant) -> Instant {
        let valid = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            keys.valid.clone()
        };
        let mut state = self.state();
        let attached = state.roster.servers();
        state
            .status
            .recompute(Keys::state(&valid, unix_now()), attached, now);
        state.status.next_deadline()
    }

    /// What `check-status` says.
    pub fn status(&self) -> Status {
        self.state().status.told()
    }

    /// Numbers of the moment.
    pub fn gauges(&self) -> Gauges {
        let expiry = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            *keys.valid.end()
        };
        let state = self.state();
        let (tunnels_waiting, tunnels_running) = state.table.counts();
        Gauges {
            door: self.door.len(),
            devices: state.roster.admitted(),
            strangers: state.roster.strangers(),
            uplinks: state.roster.servers(),
            tunnels_waiting,
            tunnels_running,
            certificate_seconds: expiry.saturating_sub(unix_now()),
        }
    }

    /// The refusal that everybody new gets while the gateway goes down.
    ///
    /// # Errors
    /// That refusal.
    pub fn open(&self) -> Result<(), Rejection> {
        if self.state().draining {
            return Err(self.reject(
                RefusalCode::ShuttingDown,
                "The gateway is going down or restarting.",
                AFTER_RESTART,
            ));
        }
        Ok(())
    }

    /// Counts somebody who is refused for now.
    pub(crate) fn reject(
        &self,
        code: RefusalCode,
        sentence: &str,
        again: RangeInclusive<u32>,
    ) -> Rejection {
        self.metrics.rejected(code);
        Rejection {
            status: StatusCode::SERVICE_UNAVAILABLE,
            refusal: Refusal::new(code, sentence).retry_after(chance::seconds(again)),
        }
    }

    /// A message for a server's control stream.
    pub(crate) fn tell(&self, line: Option<&UplinkLine>, event: FromGateway) {
        // A server that does not read is found dead by other means; nobody waits for it here.
        if line.is_some_and(|line| line.events.try_send(event).is_err()) {
            self.metrics.uplink_oddities.one();
        }
    }

    /// Tells servers and devices that the gateway goes down; nobody new is let in. Tunnels that run go on.
    pub fn drain(&self) {
        let mut state = self.state();
        state.draining = true;
        let count = state.devices.len();
        for line in state.uplinks.values() {
            let retry_after_seconds = chance::seconds(1..=3);
            self.tell(
                Some(line),
                Draining {
                    retry_after_seconds,
                }
                .into(),
            );
        }
        for device in state.devices.values() {
            end(&device.line, Ending::restart(count));
        }
        state.devices.clear();
        let over = state.table.close(Instant::now());
        self.all_over(&mut state, over, TunnelEnd::ShuttingDown);
    }

    /// Ends the tunnels that still run.
    pub fn part_tunnels(&self) {
        for meeting in self.state().meetings.values() {
            meeting.over.send_replace(Some(TunnelEnd::ShuttingDown));
        }
    }

    /// Ends the uplinks.
    pub fn end_uplinks(&self) {
        for line in self.state().uplinks.values() {
            line.end.send_replace(Some("the gateway goes down"));
        }
    }
}

/// Tells a device its end, unless it was told before.
pub(crate) fn end(line: &watch::Sender<Line>, ending: Ending) {
    line.send_if_modified(|line| match line {
        Line::Waiting | Line::Admitted => {
            *line = Line::Ended(ending);
            true
        }
        Line::Ended(_) => false,
    });
}
