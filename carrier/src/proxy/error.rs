//! Why there is no way through a proxy, for people. Each sentence names the proxy, and none of them its credentials.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::tcp::ConnectError;

/// Why a proxy gave no tunnel.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProxyError {
    /// The proxy itself can't be reached.
    #[error("the proxy {proxy} can't be reached")]
    Unreachable {
        /// The proxy.
        proxy: String,
        /// What came of it.
        #[source]
        source: Arc<ConnectError>,
    },
    /// The proxy wants to know who we are.
    #[error("the proxy {proxy} asks for a user name and a password, and none are configured")]
    CredentialsNeeded {
        /// The proxy.
        proxy: String,
    },
    /// The proxy knows us otherwise.
    #[error(
        "the proxy {proxy} doesn't accept the configured user name and password, or wants another kind of sign-in than \
         Basic"
    )]
    CredentialsRefused {
        /// The proxy.
        proxy: String,
    },
    /// The configured credentials can't be said to this kind of proxy.
    #[error(
        "the user name or the password for the proxy {proxy} has a form that this kind of proxy can't be told: too long, \
         or with a colon in the user name"
    )]
    CredentialsUnusable {
        /// The proxy.
        proxy: String,
    },
    /// The proxy doesn't want to.
    #[error("the proxy {proxy} doesn't allow connections to {target} ({answer})")]
    Refused {
        /// The proxy.
        proxy: String,
        /// Where to.
        target: String,
        /// How it said so.
        answer: String,
    },
    /// The proxy tried, and didn't get there.
    #[error("the proxy {proxy} can't reach {target} ({answer})")]
    TargetUnreachable {
        /// The proxy.
        proxy: String,
        /// Where to.
        target: String,
        /// How it said so.
        answer: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The answer is none that a proxy of this kind gives.
    #[error("what answers at {proxy} isn't a proxy of this kind")]
    Garbage {
        /// The proxy.
        proxy: String,
    },
    /// The end instead of an answer.
    #[error("the proxy {proxy} closed the connection instead of answering")]
    Closed {
        /// The proxy.
        proxy: String,
    },
    /// No answer.
    #[error("the proxy {proxy} didn't open a way in time")]
    TimedOut {
        /// The proxy.
        proxy: String,
    },
    /// The connection to the proxy failed.
    #[error("the connection to the proxy {proxy} failed")]
    Io {
        /// The proxy.
        proxy: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// No proxy can be asked for this.
    #[error("“{target}” is neither a host name nor an IP address")]
    BadTarget {
        /// The host.
        target: String,
    },
}

impl ProxyError {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "proxy_unreachable",
            Self::CredentialsNeeded { .. }
            | Self::CredentialsRefused { .. }
            | Self::CredentialsUnusable { .. } => "proxy_credentials",
            Self::Refused { .. } => "proxy_refused",
            Self::TargetUnreachable { .. } => "proxy_target_unreachable",
            Self::Garbage { .. } => "proxy_garbage",
            Self::Closed { .. } | Self::Io { .. } => "proxy_closed",
            Self::TimedOut { .. } => "proxy_timeout",
            Self::BadTarget { .. } => "bad_address",
        }
    }

    /// When the proxy wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TargetUnreachable { retry_after, .. } => *retry_after,
            Self::Unreachable { .. }
            | Self::CredentialsNeeded { .. }
            | Self::CredentialsRefused { .. }
            | Self::CredentialsUnusable { .. }
            | Self::Refused { .. }
            | Self::Garbage { .. }
            | Self::Closed { .. }
            | Self::TimedOut { .. }
            | Self::Io { .. }
            | Self::BadTarget { .. } => None,
        }
    }

    /// The end of the stream, or its failure.
    pub(super) fn of_stream(proxy: String, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Closed { proxy };
        }
        Self::Io {
            proxy,
            source: Arc::new(error),
        }
    }
}
