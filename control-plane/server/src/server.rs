//! What every part of the server shares: database, clock, certificates, who is online, who is guessing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use umbra_carrier::proxy::ProxySettings;
use umbra_protocol::enrolment::{Connector, ConnectorKind};
use umbra_protocol::first_auth::{FirstAuthKey, Verifier};

use crate::audit::{self, Line};
use crate::ca::Authority;
use crate::clock::Clock;
use crate::gateways::Gateways;
use crate::hub::Hub;
use crate::passwords::Passwords;
use crate::random;
use crate::store::{Store, StoreError, meta};
use crate::throttle::{Allowance, Source, Throttle};

/// Where devices and people reach this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Wrong proofs of a key from one source.
const PROOFS: Allowance = Allowance {
    failures: 10,
    window: Duration::from_secs(60),
    names: 4_096,
};
/// Wrong passwords of one account from one source.
const LOGINS: Allowance = Allowance {
    failures: 10,
    window: Duration::from_secs(60),
    names: 4_096,
};
/// Wrong passwords of any accounts from one source.
const LOGINS_OF_SOURCE: Allowance = Allowance {
    failures: 40,
    window: Duration::from_secs(60),
    names: 4_096,
};
/// Audit lines that strangers may cause in a minute, all together: they must not fill the disk.
const STRANGERS_LINES: u32 = 120;

/// The server, shared by all its connections.
#[derive(Debug)]
pub struct Server {
    /// The database.
    pub store: Store,
    /// The wall clock.
    pub clock: Clock,
    /// Certificates and ticket key.
    pub authority: Authority,
    /// Where devices reach it, best first; never empty.
    pub endpoints: Vec<Endpoint>,
    /// Between two heartbeats of a device.
    pub heartbeat: Duration,
    /// Who is online.
    pub hub: Hub,
    /// The gateways.
    pub gateways: Gateways,
    /// The way to the gateways.
    pub gateway_proxy: ProxySettings,
    /// Checks operators' passwords.
    pub passwords: Passwords,
    /// The salt of all first-authentication keys.
    pub key_salt: [u8; 16],
    /// Stands in for keys that do not exist, so that an unknown key costs the same work.
    pub nobodys_key: Verifier,
    /// Who guesses keys.
    pub proofs: Throttle<Source>,
    /// Who guesses an account's password.
    pub logins: Throttle<(Source, String)>,
    /// Who guesses passwords of many accounts.
    pub logins_of_source: Throttle<Source>,
    strangers: Mutex<Minute>,
}

#[derive(Debug)]
struct Minute {
    since: Instant,
    lines: u32,
    dropped: u64,
}

/// What a server is made of.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The wall clock.
    pub clock: Clock,
    /// Certificates and ticket key.
    pub authority: Authority,
    /// Where devices reach it, best first.
    pub endpoints: Vec<Endpoint>,
    /// Between two heartbeats of a device.
    pub heartbeat: Duration,
    /// The way to the gateways.
    pub gateway_proxy: ProxySettings,
}

/// Why a server could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The database failed.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// Passwords cannot be hashed.
    #[error("passwords cannot be checked")]
    Passwords(#[from] crate::passwords::PasswordError),
}

impl Server {
    /// Puts the parts together.
    pub async fn new(parts: Parts) -> Result<Self, ServerError> {
        let Parts {
            store,
            clock,
            authority,
            endpoints,
            heartbeat,
            gateway_proxy,
        } = parts;
        let mut tx = store.begin().await?;
        let key_salt = meta::key_salt(&mut tx).await?;
        tx.commit().await.map_err(StoreError::from)?;
        let gateways = Gateways::load(&store).await?;
        Ok(Self {
            // One round is enough: nobody knows this key.
            nobodys_key: FirstAuthKey::from_random(&random::bytes())
                .stretch(&key_salt, 1)
                .verifier(),
            store,
            clock,
            authority,
            endpoints,
            heartbeat,
            hub: Hub::default(),
            gateways,
            gateway_proxy,
            passwords: Passwords::new()?,
            key_salt,
            proofs: Throttle::new(PROOFS),
            logins: Throttle::new(LOGINS),
            logins_of_source: Throttle::new(LOGINS_OF_SOURCE),
            strangers: Mutex::new(Minute {
                since: Instant::now(),
                lines: 0,
                dropped: 0,
            }),
        })
    }

    /// Where a device connects from now on: directly if it can, through a gateway otherwise, and first through the one
    /// that it has come `through`.
    pub fn connectors(&self, through: Option<&str>) -> Vec<Connector> {
        let mut all = self.direct();
        all.extend(self.gateways.connectors(through));
        all
    }

    /// The ways without a gateway.
    pub fn direct(&self) -> Vec<Connector> {
        self.endpoints
            .iter()
            .map(|endpoint| Connector {
                kind: ConnectorKind::Ums,
                address: endpoint.host.clone(),
                port: endpoint.port,
                roots: Vec::new(),
            })
            .collect()
    }

    /// Whether a stranger may cause another line of the audit log in this minute; and how many lines the minute before
    /// could not be written.
    pub fn strangers_line(&self) -> (bool, u64) {
        let mut minute = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.saturating_duration_since(minute.since) >= Duration::from_secs(60) {
            let dropped = minute.dropped;
            *minute = Minute {
                since: now,
                lines: 1,
                dropped: 0,
            };
            return (true, dropped);
        }
        if minute.lines < STRANGERS_LINES {
            minute.lines += 1;
            return (true, 0);
        }
        minute.dropped += 1;
        (false, 0)
    }

    /// Writes a line about a stranger, if there is still room for one. A failure is logged: a stranger's refusal does
    /// not depend on it.
    pub async fn note_stranger(&self, line: Line) {
        let (room, dropped) = self.strangers_line();
        if !room {
            return;
        }
        let written = async {
            let mut tx = self.store.begin().await?;
            let now = self.clock.now();
            if dropped > 0 {
                let more = Line::new(audit::Actor::Server, "audit.strangers_omitted", dropped)
                    .detail(
                        "More refusals of strangers happened in one minute than are written down.",
                    );
                audit::append(&mut tx, now, more).await?;
            }
            audit::append(&mut tx, now, line).await?;
            tx.commit().await.map_err(StoreError::from)
        };
        if let Err(error) = written.await {
            log_failure("a refusal could not be written to the audit log", &error);
        }
    }
}

/// One line with the whole chain of causes.
pub fn log_failure(what: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error = umbra_carrier::causes::clause_of(error), "{what}");
}
