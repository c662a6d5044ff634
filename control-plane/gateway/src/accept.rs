//! The ports: accepts connections, sets TLS up, reads one request of each. Whatever a stranger does costs a bounded
//! number of places for a bounded time; an error of `accept` is passing weather.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use umbra_carrier::crowd::{Crowd, FirstByte};
use umbra_carrier::tls::accept_tls;

use crate::addresses::{Network, Peer, Source};
use crate::gateway::Gateway;
use crate::http;
use crate::shutdown::Signals;

/// Pause after an error of `accept`, such as no more file descriptors.
const WEATHER: Duration = Duration::from_millis(200);
/// Largest head of a request, in bytes.
const HEAD_SIZE: usize = 16 * 1024;
/// Connections of Prometheus.
const METRICS_CONNECTIONS: (usize, usize) = (16, 16);

/// Who may connect to a port, and how.
#[derive(Clone, Debug)]
pub enum Door {
    /// Everybody, with TLS.
    Tls,
    /// Reverse proxies in these networks, without.
    Plaintext(Arc<[Network]>),
}

/// Accepts connections until the gateway stops.
pub async fn accept(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    door: Door,
    trusted: Arc<[Network]>,
    mut signals: Signals,
) {
    let mut weather = Weather::default();
    loop {
        let accepted = tokio::select! {
            () = signals.stop() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                gateway.metrics.accept_errors.one();
                weather.bad(&error);
                tokio::time::sleep(WEATHER).await;
                continue;
            }
        };
        weather.good();
        gateway.metrics.connections.one();
        let from = from.ip().to_canonical();
        if let Door::Plaintext(allowed) = &door
            && !allowed.iter().any(|network| network.contains(from))
        {
            tracing::debug!(%from, "a connection without TLS from elsewhere was closed");
            continue;
        }
        let connection = connection(gateway.clone(), stream, from, door.clone(), trusted.clone());
        gateway.tasks.spawn(connection);
    }
}

/// Says that accepting fails, and that it works again, once each.
#[derive(Default)]
struct Weather {
    is_bad: bool,
}

impl Weather {
    fn bad(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.is_bad, true) {
            tracing::warn!(%error, "no connection can be accepted at the moment");
        }
    }

    fn good(&mut self) {
        if std::mem::take(&mut self.is_bad) {
            tracing::info!("connections are accepted again");
        }
    }
}

async fn connection(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    from: IpAddr,
    door: Door,
    trusted: Arc<[Network]>,
) {
    // Small messages should not wait for large ones; a connection that refuses that still works.
    let _ = stream.set_nodelay(true);
    let source = Peer::behind(from, &trusted, None).source;
    let Some(mut place) = gateway.door.enter(source, Instant::now()) else {
        gateway.metrics.turned_away.one();
        tracing::debug!(%from, "too many connections are being set up; this one has to come again");
        return;
    };
    let until = Instant::now() + gateway.timing.handshake;
    match place.first_byte(&stream, gateway.timing.handshake).await {
        FirstByte::Came => {}
        FirstByte::Silence => {
            gateway.metrics.handshakes_failed.one();
            tracing::debug!(%from, "a connection said nothing");
            return;
        }
        FirstByte::ShownOut => return shown_out(&gateway, from),
    }
    let served = async {
        match door {
            Door::Plaintext(_) => request(&gateway, stream, from, trusted).await,
            Door::Tls => match accept_tls(stream, gateway.outer_tls(), left(until)).await {
                Ok(stream) => request(&gateway, stream, from, trusted).await,
                Err(error) => {
                    gateway.metrics.handshakes_failed.one();
                    tracing::debug!(%from, %error, "a TLS handshake failed");
                }
            },
        }
    };
    tokio::select! {
        () = served => {}
        () = place.shown_out() => shown_out(&gateway, from),
    }
}

fn shown_out(gateway: &Gateway, from: IpAddr) {
    gateway.metrics.turned_away.one();
    tracing::debug!(%from, "a connection made room for others");
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Reads one request and answers it.
async fn request<IO>(gateway: &Arc<Gateway>, stream: IO, from: IpAddr, trusted: Arc<[Network]>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service =
        service_fn(|request| http::answer(gateway.clone(), from, trusted.clone(), request));
    let served = builder(gateway.timing.handshake)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // The head has a deadline of its own; what is left is a client that does not read its answer.
    match timeout(2 * gateway.timing.handshake, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%from, %error, "a request failed"),
        Err(_) => tracing::debug!(%from, "a request took too long"),
    }
}

fn builder(head: Duration) -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_SIZE)
        .keep_alive(false);
    builder
}

/// Serves Prometheus until the gateway stops.
pub async fn metrics(gateway: Arc<Gateway>, listener: TcpListener, mut signals: Signals) {
    let crowd = Crowd::new(METRICS_CONNECTIONS.0).at_most_of_one(METRICS_CONNECTIONS.1);
    let mut weather = Weather::default();
    loop {
        let accepted = tokio::select! {
            () = signals.stop() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from): (TcpStream, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                gateway.metrics.accept_errors.one();
                weather.bad(&error);
                tokio::time::sleep(WEATHER).await;
                continue;
            }
        };
        weather.good();
        let Some(mut place) = crowd.enter(Source::from(from.ip()), Instant::now()) else {
            tracing::debug!(%from, "too many ask for the metrics at the same time");
            continue;
        };
        let serving = gateway.clone();
        gateway.tasks.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let page = (request.uri().path() == "/metrics" && request.method() == Method::GET)
                    .then(|| serving.metrics.render(&serving.gauges()));
                std::future::ready(Ok::<_, std::convert::Infallible>(match page {
                    Some(page) => http::plain(StatusCode::OK, "text/plain; version=0.0.4", page),
                    None => http::plain(StatusCode::NOT_FOUND, "text/plain", "try /metrics\n"),
                }))
            });
            let handshake = serving.timing.handshake;
            let served = builder(handshake).serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // A scraper that fails tries again by itself.
                _ = timeout(2 * handshake, served) => {}
                () = place.shown_out() => {}
            }
        });
    }
}

/// What fuzz targets reach of what is private here. It exists only while fuzzing.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::*;

    /// Reads one request from a stream and answers it, as behind TLS.
    pub async fn request<IO>(
        gateway: &Arc<Gateway>,
        stream: IO,
        from: IpAddr,
        trusted: Arc<[Network]>,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        super::request(gateway, stream, from, trusted).await;
    }
}
