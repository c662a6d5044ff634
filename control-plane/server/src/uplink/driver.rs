//! Carries one uplink: connects when the machine says so, hands its devices to the control link, and tells the rest of the
//! server how the uplink is. Every change of that is in the audit log.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use umbra_carrier::crowd::Crowd;
use umbra_protocol::gateway::{Attach, Attached, Rejected, ToGateway, VERSIONS, Withdraw};
use umbra_protocol::ids::ServerRoot;

use super::connection::{ConnectError, Connection, Event, Stream};
use super::devices::Reception;
use super::machine::{Ending, Input, Machine, Output};
use crate::audit::{self, Actor, Line};
use crate::gateways::{ForWhom, Order, UplinkId, end_code};
use crate::link::Seats;
use crate::random;
use crate::serve::Tls;
use crate::server::{Server, log_failure};
use crate::sessions;
use crate::shutdown::{Shutdown, Stop};
use crate::store::StoreError;
use crate::store::gateways::GatewayOnFile;
use crate::throttle::Source;

/// Orders that wait.
const ORDERS: usize = 256;
/// Devices that may come before the gateway has said that it takes this server.
const EARLY: usize = 64;
/// How long devices may take to hear that the server goes down.
const FAREWELL: Duration = Duration::from_secs(5);

/// What an uplink needs.
pub(super) struct Uplink {
    pub(super) server: Arc<Server>,
    pub(super) tls: Arc<Tls>,
    pub(super) gateway: Arc<GatewayOnFile>,
    pub(super) number: u64,
    /// Uplinks to the same gateway that end once this one stands.
    pub(super) older: Vec<Arc<Stop>>,
    pub(super) strangers: Crowd<Source>,
    pub(super) limit: watch::Receiver<Option<u32>>,
    /// Another one is to take this one's place: it goes on while it stands, and is not made anew.
    pub(super) retired: Shutdown,
    pub(super) stop: Shutdown,
}

/// What is there for as long as one connection.
struct Present {
    connection: Connection,
    orders: mpsc::Receiver<Order>,
    orders_in: mpsc::Sender<Order>,
    early: Vec<Stream>,
}

enum Happening {
    Stop,
    Retired,
    Deadline,
    Connected(Result<Connection, ConnectError>),
    Event(Event),
    Order(Order),
    Limit,
}

impl Uplink {
    pub(super) async fn run(mut self) {
        let limit = *self.limit.borrow_and_update();
        let seed = u64::from_be_bytes(random::bytes());
        let mut machine = Machine::new(self.attach(limit), seed, Instant::now());
        let mut dialling: Option<Dialling> = None;
        let mut present: Option<Present> = None;
        let mut devices = JoinSet::new();
        let seats = Seats::default();
        let mut retired = false;
        loop {
            while devices.try_join_next().is_some() {}
            let deadline = machine.deadline();
            let happening = tokio::select! {
                biased;
                () = self.stop.wait() => Happening::Stop,
                () = self.retired.wait(), if !retired => Happening::Retired,
                () = until(deadline) => Happening::Deadline,
                changed = self.limit.changed() => match changed {
                    Ok(()) => Happening::Limit,
                    Err(_) => Happening::Stop,
                },
                connected = dialled(&mut dialling) => {
                    dialling = None;
                    Happening::Connected(connected)
                }
                happening = next(&mut present) => happening,
            };
            let now = Instant::now();
            let outputs = match happening {
                Happening::Stop => break,
                Happening::Retired => {
                    retired = true;
                    Vec::new()
                }
                Happening::Deadline => machine.handle(Input::Tick, now),
                Happening::Limit => {
                    let limit = *self.limit.borrow_and_update();
                    machine.handle(Input::Limit(limit), now)
                }
                Happening::Connected(Ok(connection)) => {
                    let (orders_in, orders) = mpsc::channel(ORDERS);
                    present = Some(Present {
                        connection,
                        orders,
                        orders_in,
                        early: Vec::new(),
                    });
                    machine.handle(Input::Connected, now)
                }
                Happening::Connected(Err(error)) => {
                    machine.handle(Input::Ended(Ending::from(error)), now)
                }
                Happening::Event(Event::Heard(message)) => {
                    machine.handle(Input::Heard(message), now)
                }
                Happening::Event(Event::Ended(ending)) => {
                    present = None;
                    machine.handle(Input::Ended(ending), now)
                }
                Happening::Event(Event::Device(stream)) => {
                    if let Some(present) = &mut present
                        && present.early.len() < EARLY
                    {
                        present.early.push(stream);
                    }
                    Vec::new()
                }
                Happening::Order(order) => {
                    let word = match order {
                        Order::Open(open) => open.into(),
                        Order::Withdraw(id) => Withdraw { id }.into(),
                    };
                    vec![Output::Send(word)]
                }
            };
            for output in outputs {
                match output {
                    Output::Connect => dialling = Some(self.dial()),
                    Output::Send(word) => {
                        let words = present.as_ref().map(|present| &present.connection.words);
                        if words.is_some_and(|words| words.try_send(word).is_err()) {
                            // It takes nothing any more; its silence will tell.
                            tracing::debug!(gateway = self.gateway.name, "a word was not sent");
                        }
                    }
                    Output::Disconnect => present = None,
                    Output::Up(attached) => {
                        let orders = present.as_ref().map(|present| present.orders_in.clone());
                        self.up(attached, orders).await;
                        for older in self.older.drain(..) {
                            older.stop();
                        }
                    }
                    // The one that takes this one's place is on its way, or there: the gateway ends this one then.
                    Output::Down {
                        sentence, was_up, ..
                    } if retired => {
                        if was_up {
                            self.let_go(&sentence).await;
                        }
                    }
                    Output::Down {
                        sentence,
                        was_up,
                        next,
                    } => self.down(&sentence, was_up, next).await,
                    Output::Ready(id) => self.server.gateways.ready(self.gateway.row, id),
                    Output::Over(ended) => {
                        tracing::debug!(
                            gateway = self.gateway.name,
                            code = ended.code.as_str(),
                            to_device = ended.bytes_to_device,
                            to_console = ended.bytes_to_console,
                            "rendezvous over"
                        );
                        if let Some(whom) = self.server.gateways.ended(self.gateway.row, &ended) {
                            let code = end_code(ended.code);
                            self.not_met(whom, code, &ended.sentence).await;
                        }
                    }
                    Output::Rejected(rejected) => self.rejected(rejected).await,
                }
            }
            if retired && !machine.is_up() {
                break;
            }
            // A gateway has no devices for us before it has taken us; its word of that may come a moment later.
            if let Some(present) = present.as_mut().filter(|_| machine.is_up()) {
                for stream in present.early.drain(..) {
                    let reception = self.reception(present.connection.words.clone());
                    let full = self.is_full(seats.taken());
                    devices.spawn(reception.serve(stream, seats.take(), full));
                }
            }
        }
        drop(dialling);
        // Devices hear it themselves while the connection still stands.
        let all_gone = async { while devices.join_next().await.is_some() {} };
        if timeout(FAREWELL, all_gone).await.is_err() {
            tracing::warn!(gateway = self.gateway.name, "devices were cut off");
        }
        devices.shutdown().await;
        if let Some(present) = present {
            present.connection.close().await;
        }
        if machine.is_up() {
            self.let_go("The server has ended the uplink.").await;
        }
    }

    fn attach(&self, limit: Option<u32>) -> Attach {
        let chain = self.server.authority.identity.chain();
        let root = chain
            .last()
            .unwrap_or(self.server.authority.identity.certificate());
        let endpoint = self.server.endpoints.first();
        let name = endpoint.map_or("umbra", |endpoint| endpoint.host.as_str());
        Attach {
            versions: VERSIONS.to_vec(),
            server_root: ServerRoot::of_certificate(root),
            server_name: name.chars().take(64).collect(),
            limit,
        }
    }

    fn dial(&self) -> Dialling {
        let (server, gateway) = (Arc::clone(&self.server), Arc::clone(&self.gateway));
        Box::pin(async move { Connection::open(&server, &gateway).await })
    }

    fn reception(&self, words: mpsc::Sender<ToGateway>) -> Reception {
        Reception {
            server: Arc::clone(&self.server),
            tls: Arc::clone(&self.tls),
            gateway: Arc::clone(&self.gateway),
            strangers: self.strangers.clone(),
            words,
            shutdown: self.stop.clone(),
        }
    }

    /// Whether another device would be one too many. A gateway holds to what it was told; this is for one that does not,
    /// and for what only the server can count.
    fn is_full(&self, devices: usize) -> bool {
        let wanted = self.server.gateways.wanted();
        let others: u32 = wanted
            .gateways
            .iter()
            .filter(|gateway| gateway.row != self.gateway.row)
            .map(|gateway| self.server.hub.through(&gateway.name))
            .sum();
        let own = u32::try_from(devices).unwrap_or(u32::MAX);
        self.limit.borrow().is_some_and(|limit| own >= limit)
            || wanted
                .connections
                .is_some_and(|limit| own.saturating_add(others) >= limit)
    }

    fn id(&self) -> UplinkId {
        UplinkId {
            row: self.gateway.row,
            number: self.number,
        }
    }

    async fn up(&self, attached: Attached, orders: Option<mpsc::Sender<Order>>) {
        let Some(orders) = orders else { return };
        let now = self.server.clock.now();
        let version = umbra_protocol::refusal::clip(attached.gateway_version);
        tracing::info!(
            gateway = self.gateway.name,
            version,
            "attached to a gateway"
        );
        let line = Line::new(Actor::Server, "gateway.attached", &self.gateway.name)
            .detail(format!("version {version}, at {}", self.gateway.internal));
        self.server
            .gateways
            .attached(self.id(), now, version, orders);
        self.note(line).await;
    }

    async fn down(&self, sentence: &str, was_up: bool, next: Duration) {
        let now = self.server.clock.now();
        let (news, waiting) = self.server.gateways.detached(self.id(), now, sentence);
        if was_up || news {
            let (gateway, seconds) = (&self.gateway.name, next.as_secs());
            tracing::warn!(
                gateway,
                again_in_seconds = seconds,
                "no uplink to a gateway: {sentence}"
            );
        }
        if was_up {
            let line = Line::new(Actor::Server, "gateway.lost", &self.gateway.name);
            self.note(line.refused("lost").detail(sentence)).await;
        }
        for whom in waiting {
            let sentence = "The gateway at which device and console were to meet was lost.";
            self.not_met(whom, "tunnel_lost", sentence).await;
        }
    }

    /// The uplink ends for good.
    async fn let_go(&self, sentence: &str) {
        let now = self.server.clock.now();
        let (_, waiting) = self.server.gateways.detached(self.id(), now, sentence);
        tracing::info!(gateway = self.gateway.name, "detached from a gateway");
        self.note(Line::new(
            Actor::Server,
            "gateway.detached",
            &self.gateway.name,
        ))
        .await;
        for whom in waiting {
            self.not_met(whom, "tunnel_lost", sentence).await;
        }
    }

    async fn not_met(&self, whom: ForWhom, code: &'static str, sentence: &str) {
        if let Err(error) = sessions::not_met(&self.server, whom, code, sentence).await {
            log_failure("the end of a rendezvous could not be noted", &error);
        }
    }

    async fn rejected(&self, rejected: Rejected) {
        tracing::info!(
            gateway = self.gateway.name,
            code = rejected.code.as_str(),
            "the gateway turned a device away"
        );
        let line = Line::new(Actor::Server, "gateway.device_rejected", &self.gateway.name)
            .refused(rejected.code)
            .detail(rejected.label);
        // Strangers may cause it, as often as they like.
        self.server.note_stranger(line).await;
    }

    async fn note(&self, line: Line) {
        let written = async {
            let mut tx = self.server.store.begin().await?;
            audit::append(&mut tx, self.server.clock.now(), line).await?;
            tx.commit().await.map_err(StoreError::from)
        };
        if let Err(error) = written.await {
            log_failure(
                "a change of an uplink could not be written to the audit log",
                &error,
            );
        }
    }
}

/// An attempt; given up when it is dropped.
type Dialling = Pin<Box<dyn Future<Output = Result<Connection, ConnectError>> + Send>>;

async fn dialled(dialling: &mut Option<Dialling>) -> Result<Connection, ConnectError> {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}

async fn next(present: &mut Option<Present>) -> Happening {
    let Some(present) = present else {
        return std::future::pending().await;
    };
    tokio::select! {
        order = present.orders.recv() => match order {
            Some(order) => Happening::Order(order),
            // This very struct holds a sender.
            None => std::future::pending().await,
        },
        event = present.connection.events.recv() => Happening::Event(event.unwrap_or_else(|| {
            Event::Ended(Ending {
                sentence: "The uplink was lost.".into(),
                retry_after: None,
            })
        })),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
