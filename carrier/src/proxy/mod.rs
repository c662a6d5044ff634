//! A proxy on the way out: which one is used for which host, and how a tunnel through it is asked for. Names are resolved
//! by the proxy and never here, and credentials are sent to the proxy alone and shown to nobody.

mod connect;
mod environment;
mod error;
mod no_proxy;
mod socks;

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use zeroize::Zeroizing;

pub use environment::ProxySettingsError;
pub use error::ProxyError;
pub use no_proxy::NoProxy;

use crate::io::Prefixed;
use crate::ws::authority;

/// A user's name and password for a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

impl Credentials {
    /// Both parts as a person typed them.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: Zeroizing::new(password.into()),
        }
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MASKED")
    }
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP with CONNECT (RFC 9110, section 9.3.6).
    Http,
    /// SOCKS version 5 (RFC 1928).
    Socks5,
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it is shown if it asks who we are; an HTTP proxy is shown it at once.
    pub credentials: Option<Credentials>,
}

impl Proxy {
    /// How it is named to people: like `http://proxy.example.com:3128`, never with credentials.
    pub fn name(&self) -> String {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Socks5 => "socks5",
        };
        format!("{scheme}://{}", authority(&self.host, self.port, None))
    }
}

/// Which proxy is used, and for which hosts it isn't.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    proxy: Option<Proxy>,
    no_proxy: NoProxy,
}

impl ProxySettings {
    /// No proxy at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// An HTTP proxy.
    pub fn http(
        host: impl Into<String>,
        port: u16,
        credentials: Option<Credentials>,
        no_proxy: NoProxy,
    ) -> Self {
        Self::with(ProxyKind::Http, host.into(), port, credentials, no_proxy)
    }

    /// A SOCKS5 proxy.
    pub fn socks5(
        host: impl Into<String>,
        port: u16,
        credentials: Option<Credentials>,
        no_proxy: NoProxy,
    ) -> Self {
        Self::with(ProxyKind::Socks5, host.into(), port, credentials, no_proxy)
    }

    fn with(
        kind: ProxyKind,
        host: String,
        port: u16,
        credentials: Option<Credentials>,
        no_proxy: NoProxy,
    ) -> Self {
        Self {
            proxy: Some(Proxy {
                kind,
                host,
                port,
                credentials,
            }),
            no_proxy,
        }
    }

    /// The proxy for the way to this host.
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = self.proxy.as_ref()?;
        (!self.no_proxy.covers(host, port)).then_some(proxy)
    }

    /// The proxy that is used for hosts without an exception.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }
}

/// Asks the proxy at the other end of `io` for a tunnel to `host`, within `deadline`. The proxy resolves the name.
///
/// # Errors
/// [`ProxyError`], naming the proxy.
pub async fn through<IO>(
    io: IO,
    proxy: &Proxy,
    host: &str,
    port: u16,
    deadline: Duration,
) -> Result<Prefixed<IO>, ProxyError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = proxy.name();
    let tunnel = async {
        let honest = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
        if !honest || host.contains(['/', '@', '[', ']']) {
            return Err(ProxyError::BadTarget {
                target: crate::x509::printable(host, 80),
            });
        }
        match proxy.kind {
            ProxyKind::Http => connect::connect(io, proxy, host, port).await,
            ProxyKind::Socks5 => socks::connect(io, proxy, host, port).await,
        }
    };
    match timeout(deadline, tunnel).await {
        Ok(result) => result,
        Err(_) => Err(ProxyError::TimedOut { proxy: name }),
    }
}
