//! One HTTP/1.1 request and its answer over TLS that the pinned root vouches for. Each request has a connection of its
//! own; nothing waits without a deadline, and no answer grows without bound.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use umbra_carrier::address::HostPort;
use umbra_carrier::alpn;
use umbra_carrier::names::System;
use umbra_carrier::tcp::{self, ConnectError};
use umbra_carrier::tls::{self, DatePolicy, ServerTrust, TlsError, TrustError};
use umbra_protocol::Secret;

/// How long the name lookup, TCP and TLS may each take; and how long the answer.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For TCP, and again for TLS.
    pub connect: Duration,
    /// From the sent request to the last byte of the answer.
    pub answer: Duration,
    /// The most bytes of an answer's body.
    pub body_max: usize,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            body_max: 8 * 1024 * 1024,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error("the server {server} can't be reached")]
    Connect {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// A connection, but not to a server that we trust.
    #[error("the connection to the server {server} is not secure, so nothing was sent")]
    Tls {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// The pinned root can't be used.
    #[error("the root certificate that is kept for the server {server} can't be used")]
    Root {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: TrustError,
    },
    /// The request can't be written as HTTP.
    #[error("this request can't be sent")]
    Unsendable(#[source] hyper::http::Error),
    /// The connection broke, or what came is no HTTP.
    #[error("the connection to the server {server} broke before the answer was complete")]
    Broken {
        /// The server.
        server: String,
        /// What was noticed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("the server {server} didn't answer within {} seconds", .after.as_secs())]
    TimedOut {
        /// The server.
        server: String,
        /// How long it had.
        after: Duration,
    },
    /// Too much of an answer.
    #[error("the server's answer is larger than {max} bytes")]
    TooLarge {
        /// The most that is read.
        max: usize,
    },
}

/// What is asked for.
#[derive(Debug)]
pub struct Ask<'a> {
    /// `GET`, `POST`…
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// A JSON document.
    pub body: Option<Vec<u8>>,
    /// Who asks.
    pub token: Option<&'a Secret>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// What kind of document the body is, as the server says.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

/// A server and whom to trust there.
#[derive(Clone, Debug)]
pub struct Server {
    address: HostPort,
    tls: Arc<ClientConfig>,
    deadlines: Deadlines,
}

impl Server {
    /// A server whose chain must end in this root.
    ///
    /// # Errors
    /// [`HttpError::Root`].
    pub fn new(
        address: HostPort,
        root: CertificateDer<'static>,
        deadlines: Deadlines,
    ) -> Result<Self, HttpError> {
        let tls = tls::device_config(
            None,
            ServerTrust::PinnedRoots(vec![root]),
            DatePolicy::Enforce,
            alpn::HTTP,
        )
        .map_err(|source| HttpError::Root {
            server: address.to_string(),
            source,
        })?;
        Ok(Self {
            address,
            tls,
            deadlines,
        })
    }

    /// Where it is.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn exchange(&self, ask: Ask<'_>) -> Result<Answer, HttpError> {
        let server = self.address.to_string();
        let request = self.request(ask)?;
        let host = self.address.host();
        let tcp = tcp::connect(host, self.address.port(), &System, self.deadlines.connect)
            .await
            .map_err(|source| HttpError::Connect {
                server: server.clone(),
                source,
            })?;
        let stream = tls::connect_tls(tcp, Arc::clone(&self.tls), host, self.deadlines.connect)
            .await
            .map_err(|source| HttpError::Tls {
                server: server.clone(),
                source,
            })?;
        let conversation = async {
            let broken = |source: hyper::Error| HttpError::Broken {
                server: server.clone(),
                source: source.into(),
            };
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(broken)?;
            let answering = async {
                let answer = sender.send_request(request).await.map_err(broken)?;
                self.read(answer).await
            };
            // The connection does the work; it ends by itself only after the answer, or by failing, and then the
            // answer says why.
            tokio::pin!(answering);
            tokio::select! {
                answer = &mut answering => answer,
                _ = connection => answering.await,
            }
        };
        match timeout(self.deadlines.answer, conversation).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::TimedOut {
                server: self.address.to_string(),
                after: self.deadlines.answer,
            }),
        }
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header(HOST, self.address.to_string())
            .header(USER_AGENT, concat!("umbra/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json, application/problem+json")
            .header(CONNECTION, "close");
        if let Some(token) = ask.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
                .map_err(|error| HttpError::Unsendable(error.into()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if ask.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::from(ask.body.unwrap_or_default()))
            .map_err(HttpError::Unsendable)
    }

    async fn read(&self, answer: hyper::Response<Incoming>) -> Result<Answer, HttpError> {
        let max = self.deadlines.body_max;
        let (head, body) = answer.into_parts();
        let content_type = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let body = Limited::new(body, max).collect().await.map_err(|source| {
            if source.is::<LengthLimitError>() {
                HttpError::TooLarge { max }
            } else {
                HttpError::Broken {
                    server: self.address.to_string(),
                    source,
                }
            }
        })?;
        Ok(Answer {
            status: head.status,
            content_type: content_type.to_owned(),
            body: body.to_bytes(),
        })
    }
}
