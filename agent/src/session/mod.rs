//! Shadowing on the device: the port, the callers, the decision, the sessions and what is kept of them. Whoever comes in has a
//! ticket of the server, the server's word, a place, and the person's consent where that is asked for; while secure mode is
//! off, a plain viewer needs the latter two.

mod caller;
mod consent;
pub mod indicator;
pub mod listener;
pub mod machine;
mod meeting;
pub mod records;
pub mod table;
pub mod tickets;
mod vnc_server;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tracing::{info, warn};
use umbra_carrier::io::BoxIo;
use umbra_protocol::SessionId;
use umbra_protocol::hello::TicketKey;
use umbra_protocol::session::{SessionEnd, SessionRecord, SessionRequest};
use umbra_vnc_proxy::gate::Gate;
use umbra_vnc_proxy::tls::{device_server_config, device_server_config_with_tls12};

use crate::files::FileError;
use crate::identity::DeviceIdentity;
use crate::link::{LinkHandle, Trouble};
use crate::registry::Registry;
use crate::status::Board;
use machine::Consent;
use records::Records;
use table::{Ending, Table};
use tickets::{Bearer, Seen};

/// Callers through a gateway that are under way at the same time; more than sessions that could run.
const TUNNELS: usize = 16;

/// What callers are checked against and served with.
#[derive(Clone)]
struct Trust {
    tls: Arc<ServerConfig>,
    /// For the port, while consoles that know TLS 1.2 only are let in there.
    with_tls12: Arc<ServerConfig>,
    bearer: Bearer,
    ticket_keys: Vec<TicketKey>,
}

struct Shared {
    registry: Registry,
    board: Board,
    records: Mutex<Records>,
    table: Mutex<Table>,
    seen: Mutex<Seen>,
    trust: Mutex<Option<Trust>>,
    link: Mutex<Option<LinkHandle>>,
    /// Callers through a gateway who have not proven anything yet. They have places of their own: a flood on the port keeps none of
    /// them out, and they can only come when the server has said so.
    tunnels: Gate,
    /// How many callers and sessions there are, for the drain.
    attended: watch::Sender<usize>,
    stopping: watch::Sender<bool>,
    indicator: indicator::Indicator,
    port: watch::Sender<Option<u16>>,
}

/// All sessions of the device. Clones are the same sessions.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

/// Why the identity can't be used for sessions.
#[derive(Debug, thiserror::Error)]
#[error("the identity can't be used for sessions")]
pub struct UnusableIdentity;

impl Sessions {
    /// Nobody is there yet. Needs a tokio runtime around it.
    pub fn new(registry: Registry, board: Board, records: Records) -> Self {
        let shared = Arc::new(Shared {
            registry,
            board,
            records: Mutex::new(records),
            table: Mutex::default(),
            seen: Mutex::default(),
            trust: Mutex::new(None),
            link: Mutex::new(None),
            tunnels: Gate::new(TUNNELS),
            attended: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
            indicator: indicator::Indicator::new(),
            port: watch::Sender::new(None),
        });
        crate::task::start(indicator::drive(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// What callers are shown and checked against from now on; running sessions go on.
    pub fn trust(
        &self,
        identity: &DeviceIdentity,
        ticket_keys: Vec<TicketKey>,
    ) -> Result<(), UnusableIdentity> {
        let chain = vec![CertificateDer::from(identity.certificate_der().to_vec())];
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes())
            .map_err(|_| UnusableIdentity)?;
        let with_tls12 = device_server_config_with_tls12(chain.clone(), key.clone_key())
            .map_err(|_| UnusableIdentity)?;
        let tls = device_server_config(chain, key).map_err(|_| UnusableIdentity)?;
        *lock(&self.shared.trust) = Some(Trust {
            tls,
            with_tls12,
            bearer: Bearer {
                device: identity.device_id(),
                certificate: identity.fingerprint(),
            },
            ticket_keys,
        });
        Ok(())
    }

    /// The link over which the server is asked, while there is one.
    pub fn link(&self, link: Option<LinkHandle>) {
        *lock(&self.shared.link) = link;
    }

    /// The port on which callers are accepted, while they are.
    pub fn port(&self) -> Option<u16> {
        *self.shared.port.borrow()
    }

    /// The port now and whenever it changes.
    pub fn watch_port(&self) -> watch::Receiver<Option<u16>> {
        self.shared.port.subscribe()
    }

    /// The server says that a session is coming.
    pub fn announce(&self, request: SessionRequest) {
        self.change(|table| table.announce(request));
    }

    /// The console of an announced session waits at a gateway: `dial` leads there. Its end of the tunnel is a caller like any other,
    /// but for speaking TLS in any case.
    pub fn tunnel<F>(&self, session: SessionId, gateway: String, dial: F)
    where
        F: Future<Output = Result<BoxIo, Trouble>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        if !shared.registry.snapshot().vnc.enabled {
            info!(%session, "a session waits at a gateway, but shadowing is switched off");
            return;
        }
        if !lock(&shared.table).expects(session) {
            warn!(%session, "a session waits at a gateway that was never announced");
            return;
        }
        // Counted before the dialling: however many the server names, no more are under way.
        let place = shared.tunnels.admit();
        let attended = caller::Attended::new(&shared);
        crate::task::start(async move {
            let dialled = tokio::select! {
                biased;
                () = place.revoked() => return,
                dialled = dial => dialled,
            };
            match dialled {
                Ok(stream) => {
                    info!(%session, gateway, "dialled the session's gateway");
                    let origin = caller::Origin::Gateway(gateway);
                    let arrival = caller::Arrival::Tunnel(stream);
                    caller::attend(attended, arrival, origin, place).await;
                }
                Err(trouble) => {
                    warn!(%session, gateway, code = trouble.code, cause = trouble.sentence, "the session's gateway was not reached");
                }
            }
        });
    }

    /// The server wants a session to end.
    pub fn end_by_server(&self, end: &SessionEnd) {
        self.change(|table| table.end(end.session, &Ending::Administrator));
    }

    /// The person at the device wants a session to end; whether there was one.
    pub fn end_by_user(&self, session: SessionId) -> bool {
        self.change(|table| table.end(session, &Ending::User))
    }

    /// The answer of the person at the device; whether anybody had asked.
    pub fn answer(&self, session: SessionId, accept: bool) -> bool {
        let consent = if accept {
            Consent::Accepted
        } else {
            Consent::Denied
        };
        self.change(|table| table.answer(session, consent))
    }

    /// Records that the server has not filed yet.
    pub fn unfiled(&self) -> Vec<SessionRecord> {
        lock(&self.shared.records).unfiled()
    }

    /// The server has filed a record.
    pub fn filed(&self, session: SessionId) {
        let filed = lock(&self.shared.records).filed(session);
        self.shared.noted(filed);
    }

    /// Tells all callers and sessions to end; resolves when they have.
    pub async fn stop(&self) {
        self.change(|table| table.end_all(&Ending::Shutdown));
        self.shared.stopping.send_replace(true);
        let mut attended = self.shared.attended.subscribe();
        // The sender lives in here: it can't be gone.
        let _ = attended.wait_for(|attended| *attended == 0).await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        self.shared.change(change)
    }
}

impl Shared {
    /// Changes the table and shows people what has become of it.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = lock(&self.table);
        let result = change(&mut table);
        let (sessions, questions) = (table.sessions(), table.questions());
        drop(table);
        self.indicator.sees(&sessions);
        self.board.update(|status| {
            status.sessions = sessions;
            status.consents = questions;
        });
        result
    }

    fn current_link(&self) -> Option<LinkHandle> {
        lock(&self.link).clone()
    }

    /// A record that the disk does not take is kept in memory; a person should know.
    fn noted(&self, result: Result<(), FileError>) {
        let problem = result.err().map(|error| {
            warn!(%error, "the records of sessions could not be written");
            format!("The records of sessions could not be written: {error}.")
        });
        self.board.update(|status| status.warn("records", problem));
    }

    fn record(&self, record: SessionRecord) {
        let mut records = lock(&self.records);
        let noted = records.end(record.clone());
        drop(records);
        self.noted(noted);
        if let Some(link) = self.current_link() {
            link.tell(record);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is locked here is changed in single steps: a panic in between leaves nothing half-made.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
