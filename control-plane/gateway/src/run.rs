//! Joins everything: keystore, ports, signals, drain. What `main` calls, and what tests call in its place.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::accept::{self, Door};
use crate::addresses::Network;
use crate::config::{Config, Keystore};
use crate::gateway::Gateway;
use crate::keystore::{Keys, KeystoreError};
use crate::reload;
use crate::shutdown::Signals;
use crate::timing::Timing;

/// How long the last connections may take to end.
const FAREWELL: Duration = Duration::from_secs(6);
/// How often rendezvous are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates, key or servers.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// A port.
    #[error("{what} {address} can't be listened on")]
    Listen {
        /// Which port.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A gateway that listens.
#[derive(Debug)]
pub struct Ready {
    /// Where, with TLS.
    pub address: SocketAddr,
    /// Where Prometheus asks.
    pub metrics: SocketAddr,
    /// Where, without TLS.
    pub plaintext: Option<SocketAddr>,
    gateway: Arc<Gateway>,
    listeners: Vec<(TcpListener, Door)>,
    metrics_listener: TcpListener,
    trusted: Arc<[Network]>,
    files: Keystore,
    stamps: reload::Stamps,
    drain: Duration,
}

/// Reads the keystore and opens the ports.
///
/// # Errors
/// [`StartError`].
pub async fn start(config: &Config, timing: Timing) -> Result<Ready, StartError> {
    let stamps = reload::stamps(&config.keystore);
    let keys = Keys::load(&config.keystore)?;
    for warning in &keys.warnings {
        tracing::warn!("{warning}");
    }
    let (listener, address) = listen("the address", config.listen).await?;
    let (metrics_listener, metrics) = listen("the address for Prometheus", config.metrics).await?;
    let mut listeners = vec![(listener, Door::Tls)];
    let mut plaintext = None;
    if let Some(plain) = &config.plaintext {
        let (listener, address) = listen("the address without TLS", plain.listen).await?;
        listeners.push((listener, Door::Plaintext(plain.from.clone().into())));
        plaintext = Some(address);
    }
    Ok(Ready {
        address,
        metrics,
        plaintext,
        gateway: Gateway::new(&keys, timing),
        listeners,
        metrics_listener,
        trusted: config.trusted.clone().into(),
        files: config.keystore.clone(),
        stamps,
        drain: config.drain,
    })
}

async fn listen(
    what: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let error = |source| StartError::Listen {
        what,
        address,
        source,
    };
    let bound = match TcpListener::bind(address).await {
        // A machine without IPv6 has no `[::]`.
        Err(refused) if address.is_ipv6() && address.ip().is_unspecified() => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            TcpListener::bind(v4).await.map_err(|_| refused)
        }
        bound => bound,
    };
    let listener = bound.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    Ok((listener, address))
}

/// All that is wrong with a keystore, and all that is worth a look.
///
/// # Errors
/// [`KeystoreError`] if it can't be used.
pub fn check(files: &Keystore) -> Result<Vec<String>, KeystoreError> {
    Keys::load(files).map(|keys| keys.warnings)
}

impl Ready {
    /// Serves until it shall stop, and drains.
    pub async fn serve(self, mut signals: Signals) {
        let gateway = self.gateway;
        // Tasks of the program; those of connections are counted apart.
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(keep(gateway.clone()));
        tasks.spawn(reload::watch(
            gateway.clone(),
            self.files,
            self.stamps,
            signals.clone(),
        ));
        let mut accepting = tokio::task::JoinSet::new();
        for (listener, door) in self.listeners {
            let trusted = self.trusted.clone();
            accepting.spawn(accept::accept(
                gateway.clone(),
                listener,
                door,
                trusted,
                signals.clone(),
            ));
        }
        let metrics = accept::metrics(gateway.clone(), self.metrics_listener, signals.clone());
        accepting.spawn(metrics);
        signals.stop().await;
        accepting.join_all().await;
        drain(&gateway, self.drain).await;
    }
}

/// Ends rendezvous when their time is over, and works the status out now and then.
async fn keep(gateway: Arc<Gateway>) {
    loop {
        let now = Instant::now();
        gateway.expire_rendezvous(now);
        gateway.keep_status(now);
        sleep(TICK).await;
    }
}

/// Sends everybody away in order, and waits for tunnels as long as it may.
async fn drain(gateway: &Gateway, patience: Duration) {
    tracing::info!(
        seconds = patience.as_secs(),
        "draining: devices are sent away, tunnels may go on"
    );
    gateway.drain();
    let tunnels_end = async {
        while gateway.gauges().tunnels_running > 0 {
            sleep(TICK).await;
        }
    };
    if timeout(patience, tunnels_end).await.is_err() {
        tracing::warn!(
            tunnels = gateway.gauges().tunnels_running,
            "tunnels that still run are ended"
        );
        gateway.part_tunnels();
        let parted = async {
            while gateway.gauges().tunnels_running > 0 {
                sleep(TICK / 10).await;
            }
        };
        // An end that does not listen keeps nobody up.
        let _ = timeout(FAREWELL, parted).await;
    }
    gateway.end_uplinks();
    gateway.tasks.close();
    if timeout(FAREWELL, gateway.tasks.wait()).await.is_err() {
        tracing::warn!("some connections did not end in order");
    }
    tracing::info!("stopped");
}

/// What a supervisor, or a person, waits for on standard output.
impl std::fmt::Display for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "listening address={} metrics={}",
            self.address, self.metrics
        )?;
        match self.plaintext {
            Some(address) => write!(f, " plaintext={address}"),
            None => Ok(()),
        }
    }
}
