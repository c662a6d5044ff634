//! The way out to a host, whatever lies on it: directly or through a proxy, and on top of that TLS and WebSocket. All of it
//! has one deadline, and what goes wrong is told as the one sentence of the layer that it went wrong in.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::io::{BoxIo, boxed};
use crate::names::Lookup;
use crate::proxy::{self, ProxyError, ProxySettings};
use crate::tcp::{self, ConnectError};
use crate::tls::{TlsError, connect_tls};
use crate::ws::{self, ByteStream, Keepalive, WsError};

pub use crate::ws::Request as WsTarget;

/// How this program gets out.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// The proxy, if any.
    pub proxy: ProxySettings,
    /// Who knows where names lead.
    pub names: &'static dyn Lookup,
}

/// Why the way out failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No TCP connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No way through the proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// No TLS connection.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No WebSocket.
    #[error(transparent)]
    WebSocket(#[from] WsError),
}

impl DialError {
    /// A stable word; where the other side said one, its own.
    pub fn code(&self) -> &str {
        match self {
            Self::Connect(error) => match error {
                ConnectError::NameNotFound { .. } => "name_not_found",
                ConnectError::Refused { .. } => "refused",
                ConnectError::Unreachable { .. } | ConnectError::Io { .. } => "unreachable",
                ConnectError::TimedOut { .. } => "timeout",
            },
            Self::Proxy(error) => error.code(),
            Self::Tls(TlsError::TimedOut) => "timeout",
            Self::Tls(error) if error.concerns_certificates() => "tls_certificate",
            Self::Tls(_) => "tls",
            Self::WebSocket(error) => error.code(),
        }
    }

    /// When the other side wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Connect(_) | Self::Tls(_) => None,
            Self::Proxy(error) => error.retry_after(),
            Self::WebSocket(error) => error.retry_after(),
        }
    }
}

impl Dialer {
    /// Through this proxy, where it is to be used.
    pub fn new(proxy: ProxySettings, names: &'static dyn Lookup) -> Self {
        Self { proxy, names }
    }

    /// Without a proxy.
    pub fn direct(names: &'static dyn Lookup) -> Self {
        Self::new(ProxySettings::none(), names)
    }

    /// A byte stream to `host` (a name or an address without brackets) within `deadline`.
    ///
    /// # Errors
    /// [`DialError`]
    pub async fn tcp(&self, host: &str, port: u16, deadline: Duration) -> Result<BoxIo, DialError> {
        let end = Instant::now() + deadline;
        let Some(proxy) = self.proxy.proxy_for(host, port) else {
            return Ok(boxed(tcp::connect(host, port, self.names, deadline).await?));
        };
        let stream = tcp::connect(&proxy.host, proxy.port, self.names, deadline)
            .await
            .map_err(|source| ProxyError::Unreachable {
                proxy: proxy.name(),
                source: Arc::new(source),
            })?;
        let tunnel = proxy::through(stream, proxy, host, port, left(end)).await?;
        Ok(boxed(tunnel))
    }

    /// TLS to `host` within `deadline`; the certificate must be for `host`.
    ///
    /// # Errors
    /// [`DialError`]
    pub async fn tls(
        &self,
        host: &str,
        port: u16,
        tls: Arc<ClientConfig>,
        deadline: Duration,
    ) -> Result<TlsStream<BoxIo>, DialError> {
        let end = Instant::now() + deadline;
        let io = self.tcp(host, port, deadline).await?;
        Ok(connect_tls(io, tls, host, left(end)).await?)
    }

    /// A WebSocket in TLS within `deadline`. `tls` is usually an [`envelope_config`](crate::tls::envelope_config).
    ///
    /// # Errors
    /// [`DialError`]
    pub async fn websocket(
        &self,
        target: &WsTarget,
        tls: Arc<ClientConfig>,
        keepalive: Option<Keepalive>,
        deadline: Duration,
    ) -> Result<ByteStream<TlsStream<BoxIo>>, DialError> {
        let end = Instant::now() + deadline;
        let io = self.tls(&target.host, target.port, tls, deadline).await?;
        Ok(ws::connect(io, target, keepalive, left(end)).await?)
    }
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}
