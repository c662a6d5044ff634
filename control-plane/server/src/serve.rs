//! The one port: accepts connections, sets TLS up, and hands each to the control link or to the API. Whatever a stranger
//! does costs a bounded number of places for a bounded time; an error of `accept` is passing weather.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;
use umbra_carrier::crowd::{Crowd, FirstByte, Place};
use umbra_carrier::tls::{
    Accepted, TlsIdentity, accept_by_alpn, http_acceptor_config, link_acceptor_config,
};
use umbra_protocol::limits;

use crate::ca::{self, CaError, CaFiles};
use crate::http::{self, Peer};
use crate::link::{Origin, driver};
use crate::server::{Server, log_failure};
use crate::shutdown::Shutdown;
use crate::throttle::Source;
use crate::uplink;

/// Connections that have not said who they are.
const STRANGERS: usize = 512;
/// Connections of the API.
const API_CONNECTIONS: usize = 512;
/// How long a client may take for the head of a request, and may do nothing between two.
const HEAD: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes.
const HEAD_SIZE: usize = 64 * 1024;
/// Pause after an error of `accept`, such as no more file descriptors.
const WEATHER: Duration = Duration::from_millis(200);
/// How long connections may take to end in order.
const FAREWELL: Duration = Duration::from_secs(8);
/// How often the database hears who was heard of, and offers expire.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// How often it is looked whether the server certificate ends soon.
const RENEWAL: Duration = Duration::from_secs(12 * 60 * 60);

/// The TLS set-up of the two conversations; replaced when the server certificate was renewed.
#[derive(Debug)]
pub struct Tls {
    files: CaFiles,
    hosts: Vec<String>,
    present: RwLock<Pair>,
}

#[derive(Clone, Debug)]
struct Pair {
    link: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

impl Pair {
    fn new(identity: &TlsIdentity) -> Self {
        Self {
            link: link_acceptor_config(identity),
            http: http_acceptor_config(identity),
        }
    }
}

impl Tls {
    /// With the certificate that is there. `files` and `hosts` are what a new one is made with.
    pub fn new(identity: &TlsIdentity, files: CaFiles, hosts: Vec<String>) -> Self {
        Self {
            files,
            hosts,
            present: RwLock::new(Pair::new(identity)),
        }
    }

    /// How devices are met.
    pub(crate) fn link(&self) -> Arc<ServerConfig> {
        self.present().link
    }

    fn present(&self) -> Pair {
        self.present
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes a new server certificate if the present one ends soon; true if it did. The root stays.
    pub fn renew(&self, now: i64) -> Result<bool, CaError> {
        if !ca::is_due(&self.files, &self.hosts, now)? {
            return Ok(false);
        }
        let authority = ca::open(&self.files, &self.hosts, now)?;
        *self.present.write().unwrap_or_else(PoisonError::into_inner) =
            Pair::new(&authority.identity);
        Ok(true)
    }
}

#[derive(Clone)]
struct Door {
    server: Arc<Server>,
    router: Router,
    tls: Arc<Tls>,
    strangers: Crowd<Source>,
    api: Crowd<Source>,
    shutdown: Shutdown,
}

/// Serves until shutdown, then lets everybody go in order.
pub async fn serve(
    server: Arc<Server>,
    tls: Arc<Tls>,
    listener: TcpListener,
    mut shutdown: Shutdown,
) {
    let door = Door {
        router: http::router(Arc::clone(&server)),
        tls: Arc::clone(&tls),
        strangers: Crowd::new(STRANGERS),
        api: Crowd::new(API_CONNECTIONS),
        shutdown: shutdown.clone(),
        server: Arc::clone(&server),
    };
    let uplinks = tokio::spawn(uplink::keep(
        Arc::clone(&server),
        Arc::clone(&tls),
        shutdown.clone(),
    ));
    let housekeeping = tokio::spawn(keep_house(Arc::clone(&server), tls, shutdown.clone()));
    let mut connections = JoinSet::new();
    let mut bad_weather = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.wait() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if std::mem::take(&mut bad_weather) {
                    tracing::info!("connections are accepted again");
                }
                connections.spawn(door.clone().greet(stream, peer));
            }
            Err(error) => {
                // Said once for a spell of bad weather, not five times a second.
                if !std::mem::replace(&mut bad_weather, true) {
                    tracing::warn!(%error, "no connection can be accepted at the moment");
                }
                tokio::time::sleep(WEATHER).await;
            }
        }
    }
    drop(listener);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, all_gone).await.is_err() {
        tracing::warn!(left = connections.len(), "connections were cut off");
        connections.shutdown().await;
    }
    // They end by the same signal; their result is nothing.
    let _ = uplinks.await;
    let _ = housekeeping.await;
}

async fn keep_house(server: Arc<Server>, tls: Arc<Tls>, mut shutdown: Shutdown) {
    let mut renewals = tokio::time::interval(RENEWAL);
    let mut rounds = tokio::time::interval(HOUSEKEEPING);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => return,
            _ = renewals.tick() => {
                if let Err(error) = tls.renew(server.clock.now()) {
                    log_failure("the server certificate could not be renewed", &error);
                }
                continue;
            }
            _ = rounds.tick() => {}
        }
        if let Err(error) = crate::sessions::expire(&server).await {
            log_failure("offers could not expire", &error);
        }
        if let Err(error) = crate::sessions::note_seen(&server).await {
            log_failure("who was heard of could not be noted", &error);
        }
    }
}

impl Door {
    async fn greet(self, stream: TcpStream, peer: SocketAddr) {
        let came = Instant::now();
        let source = Source::from(peer.ip());
        let Some(mut place) = self.strangers.enter(source, came) else {
            tracing::debug!(%peer, "too many connections are being set up; this one has to come again");
            return;
        };
        // Small messages both ways; where it cannot be set, they are slower.
        let _ = stream.set_nodelay(true);
        let mut shutdown = self.shutdown.clone();
        let Pair { link, http } = self.tls.present();
        let heard = tokio::select! {
            biased;
            () = shutdown.wait() => return,
            heard = place.first_byte(&stream, limits::HELLO_DEADLINE) => heard,
        };
        match heard {
            FirstByte::Came => {}
            FirstByte::Silence => {
                tracing::debug!(%peer, "a connection said nothing");
                return;
            }
            FirstByte::ShownOut => return,
        }
        let left = limits::HELLO_DEADLINE.saturating_sub(came.elapsed());
        let accepted = tokio::select! {
            biased;
            () = shutdown.wait() => return,
            () = place.shown_out() => return,
            accepted = accept_by_alpn(stream, link, http, left) => accepted,
        };
        match accepted {
            Ok(Accepted::Link(stream, certificate)) => {
                driver::serve(
                    self.server,
                    stream,
                    certificate,
                    Origin::direct(peer, came),
                    (place, None),
                    self.shutdown,
                )
                .await;
            }
            Ok(Accepted::Http(stream)) => {
                drop(place);
                let Some(place) = self.api.enter(source, Instant::now()) else {
                    tracing::debug!(%peer, "too many connections of the API at the same time");
                    return;
                };
                serve_http(self.router, stream, peer, place, self.shutdown).await;
            }
            Err(error) => tracing::debug!(%error, "no TLS"),
        }
    }
}

async fn serve_http<IO>(
    router: Router,
    stream: TlsStream<IO>,
    peer: SocketAddr,
    mut place: Place<Source>,
    mut shutdown: Shutdown,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request
            .extensions_mut()
            .insert(Peer(peer.ip().to_canonical()));
        // A task of its own: a client that hangs up does not stop a change half-way between database and device.
        let answer = tokio::spawn(router.clone().oneshot(request));
        async move { answer.await.map(|Ok(response)| response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        () = shutdown.wait() => {}
        () = place.shown_out() => return,
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection of the API failed");
            }
            return;
        }
    }
    connection.as_mut().graceful_shutdown();
    // The caller cuts off what takes too long.
    let _ = connection.await;
}
