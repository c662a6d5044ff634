//! The way to the server's end of TLS, whatever lies between: directly, or inside a WebSocket to a gateway, through a proxy or not.
//! Whatever the carrier is, the server is checked end to end against its pinned root and its own names; a gateway is never
//! taken for the server.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use umbra_carrier::dial::{DialError, WsTarget};
use umbra_carrier::framed::{FrameReader, FrameWriter};
use umbra_carrier::io::{BoxIo, boxed};
use umbra_carrier::tls::{
    self, DatePolicy, EnvelopeTrust, ServerTrust, TlsError, TrustError, connect_tls,
    envelope_config,
};
use umbra_carrier::ws::{ByteStream, Closed, HeaderValue, WsError};
use umbra_carrier::x509::CertificateFacts;
use umbra_protocol::enrolment::ConnectorKind;
use umbra_protocol::gateway;
use umbra_protocol::hello::{Hello, Intent};
use umbra_protocol::ids::ServerRoot;
use umbra_protocol::session::SessionTunnel;
use umbra_protocol::{FromDevice, FromServer, decode, encode, limits};

use super::heard::Heard;
use super::network::Network;
use super::trouble::{Trouble, sentence};
use super::way::Way;

/// TLS with the server, over any carrier.
pub type Stream = TlsStream<BoxIo>;
/// A WebSocket to a gateway.
pub type GatewayStream = ByteStream<TlsStream<BoxIo>>;

/// A certificate with more names than this is a strange one; the others are not kept.
const NAMES_MAX: usize = 16;
/// What a person can do about a gateway whose certificate comes from elsewhere.
const OPENED: &str = "If something on the way opens TLS, umbra.proxy.ca_file has to name a file with its root certificate.";
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Everything that is needed to go to the server, on any of the ways.
#[derive(Clone)]
pub struct Approach {
    /// The way out of the device's network.
    pub network: Network,
    /// How TLS with the server is set up.
    pub tls: Arc<ClientConfig>,
    /// What a gateway's certificate may come from, beside what is configured.
    pub trust: ServerTrust,
    /// Whether dates in certificates count.
    pub dates: DatePolicy,
    /// The server's root, by which a gateway knows which server is meant; without it, any server will do.
    pub server: Option<ServerRoot>,
    /// What the device calls itself in a gateway's log; empty for nothing.
    pub label: String,
    /// The names that the server's certificate may be for when it is not connected to by its own address. Without any, its own
    /// are taken: then something else has to prove who it is.
    pub names: Vec<String>,
}

/// Why the server was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ApproachError {
    /// The carrier did not come about.
    #[error(transparent)]
    Dial(DialError),
    /// The roots for the gateway's certificate can't be used.
    #[error("the certificates that a gateway's one may come from can't be used")]
    Trust(#[source] TrustError),
    /// A configured file can't be used.
    #[error("{}", .0.sentence)]
    Settings(Trouble),
    /// The server's end of TLS did not come about, or is not the server's.
    #[error(transparent)]
    Server(TlsError),
    /// The gateway ended the connection before the server answered.
    #[error(transparent)]
    Closed(Closed),
}

impl Approach {
    /// TLS with the server on this way, within `deadline`.
    ///
    /// # Errors
    /// [`ApproachError`]
    pub async fn connect(&self, way: &Way, deadline: Duration) -> Result<Stream, ApproachError> {
        let address = &way.address;
        let end = Instant::now() + deadline;
        match way.kind {
            ConnectorKind::Ums => self
                .network
                .dialer
                .tls(
                    address.host(),
                    address.port(),
                    Arc::clone(&self.tls),
                    deadline,
                )
                .await
                .map_err(|error| match error {
                    DialError::Tls(error) => ApproachError::Server(error),
                    other @ (DialError::Connect(_)
                    | DialError::Proxy(_)
                    | DialError::WebSocket(_)) => ApproachError::Dial(other),
                }),
            ConnectorKind::Icg => {
                let name = self.names.first().map_or(address.host(), String::as_str);
                match self.inside(way, name, end).await {
                    Err(ApproachError::Server(TlsError::WrongName { names, .. })) => {
                        // The chain was right: it is one of the server's root. Which names are its own was learnt earlier.
                        let known = |name: &&String| {
                            self.names.is_empty()
                                || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
                        };
                        match names.iter().find(known) {
                            Some(name) => self.inside(way, name, end).await,
                            None => Err(ApproachError::Server(TlsError::WrongName {
                                wanted: self.names.join("”, “"),
                                names,
                            })),
                        }
                    }
                    other => other,
                }
            }
        }
    }

    async fn inside(&self, way: &Way, name: &str, end: Instant) -> Result<Stream, ApproachError> {
        let carrier = self.carrier(way, left(end)).await?;
        let (carrier, last_word) = Heard::new(carrier);
        connect_tls(
            boxed(carrier),
            Arc::clone(&self.tls),
            // A certificate for all names below one is for this one too.
            &name.replace('*', "server"),
            left(end),
        )
        .await
        .map_err(|error| match last_word.get() {
            Some(closed) => ApproachError::Closed(closed.clone()),
            None => ApproachError::Server(error),
        })
    }

    /// A gateway's WebSocket, at whose other end is the server.
    ///
    /// # Errors
    /// [`ApproachError`]
    pub async fn carrier(
        &self,
        way: &Way,
        deadline: Duration,
    ) -> Result<GatewayStream, ApproachError> {
        let mut headers = Vec::new();
        if !self.label.is_empty() {
            let label = gateway::label(&self.label);
            headers.push((gateway::HEADER_DEVICE.to_owned(), label.as_str().into()));
        }
        if let Some(server) = self.server {
            headers.push((gateway::HEADER_SERVER.to_owned(), server.to_string().into()));
        }
        self.gateway(
            way,
            gateway::PATH_ENDPOINT,
            gateway::SUBPROTOCOL_LINK,
            headers,
            deadline,
        )
        .await
        // The gateway holds thousands of them.
        .map(ByteStream::in_small_frames)
    }

    /// What answers at the other end of a gateway's WebSocket, whoever it is, as [`tls::probe_kind`] looks.
    ///
    /// # Errors
    /// [`ApproachError`], with the gateway's last word where it said one.
    pub async fn look(
        carrier: GatewayStream,
        name: &str,
        deadline: Duration,
    ) -> Result<(tls::HostKind, Vec<CertificateDer<'static>>), ApproachError> {
        let (carrier, last_word) = Heard::new(carrier);
        tls::probe_kind(boxed(carrier), name, deadline)
            .await
            .map_err(|error| match last_word.get() {
                Some(closed) => ApproachError::Closed(closed.clone()),
                None => ApproachError::Server(error),
            })
    }

    /// The device's end of a rendezvous at this gateway.
    ///
    /// # Errors
    /// [`ApproachError`]
    pub async fn tunnel(
        &self,
        way: &Way,
        tunnel: &SessionTunnel,
        deadline: Duration,
    ) -> Result<BoxIo, ApproachError> {
        let headers = vec![
            (
                "authorization".to_owned(),
                HeaderValue::bearer(tunnel.token.reveal()),
            ),
            (
                gateway::HEADER_SIDE.to_owned(),
                gateway::TunnelSide::Device.as_str().into(),
            ),
        ];
        self.gateway(
            way,
            gateway::PATH_TUNNEL,
            gateway::SUBPROTOCOL_TUNNEL,
            headers,
            deadline,
        )
        .await
        .map(boxed)
    }

    async fn gateway(
        &self,
        way: &Way,
        path: &str,
        subprotocol: &str,
        headers: Vec<(String, HeaderValue)>,
        deadline: Duration,
    ) -> Result<GatewayStream, ApproachError> {
        let authorities = self
            .network
            .authorities()
            .map_err(ApproachError::Settings)?;
        let mut extra = authorities.opening;
        extra.extend(
            way.roots
                .iter()
                .filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok()),
        );
        let trust = EnvelopeTrust {
            pinned: self.trust.clone(),
            extra,
            bundle: authorities.public,
            public: authorities.built_in,
        };
        let envelope = envelope_config(trust, self.dates).map_err(ApproachError::Trust)?;
        let target = WsTarget {
            host: way.address.host().to_owned(),
            port: way.address.port(),
            path: path.to_owned(),
            subprotocol: subprotocol.to_owned(),
            headers,
        };
        let keepalive = Some(self.network.keepalive);
        self.network
            .dialer
            .websocket(&target, envelope, keepalive, deadline)
            .await
            .map_err(ApproachError::Dial)
    }

    /// Whether the server welcomes the device on this way, without leaving the way that is in use. The names in the server's
    /// certificate are the answer.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn prove(
        &self,
        way: &Way,
        hello: Hello,
        deadline: Duration,
    ) -> Result<Vec<String>, Trouble> {
        let end = Instant::now() + deadline;
        let late = || {
            Trouble::passing(
                "timed_out",
                format!("The server did not answer in time {}.", way.described()),
            )
        };
        let talk = async {
            let stream = self
                .connect(way, deadline)
                .await
                .map_err(|error| error.trouble(way))?;
            let names = names_of(&stream);
            let (read, write) = tokio::io::split(stream);
            let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
            let hello = Hello {
                intent: Intent::Probe,
                ..hello
            };
            let broken =
                |error: &(dyn std::error::Error + 'static)| Trouble::because("closed", error);
            writer
                .send(&encode(&FromDevice::from(hello)))
                .await
                .map_err(|error| broken(&error))?;
            let frame = reader
                .next(limits::FRAME)
                .await
                .map_err(|error| broken(&error))?
                .ok_or_else(|| Trouble::passing("closed", "The server closed the connection."))?;
            let answer = decode::<FromServer>(&frame, limits::FRAME)
                .map_err(|error| Trouble::protocol(sentence(&error)))?;
            // The farewell is a courtesy.
            let _ = tokio::time::timeout(FAREWELL, writer.close()).await;
            welcomed(answer).map(|()| names)
        };
        tokio::time::timeout_at(end, talk)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else the server says, it is no welcome"
)]
fn welcomed(answer: FromServer) -> Result<(), Trouble> {
    match answer {
        FromServer::Welcome(_) => Ok(()),
        FromServer::Refusal(refusal) => Err(Trouble::refused(&refusal)),
        FromServer::Goodbye(goodbye) => Err(Trouble::goodbye(&goodbye)),
        other => Err(Trouble::protocol(format!(
            "The server said “{}” where a welcome was expected.",
            other.kind()
        ))),
    }
}

impl ApproachError {
    /// For the link and for people: what it means on this way.
    pub fn trouble(&self, way: &Way) -> Trouble {
        let trouble = match self {
            Self::Dial(error) => {
                let code = match error {
                    DialError::Connect(_) => "unreachable",
                    DialError::Tls(error) if error.concerns_certificates() => "gateway_certificate",
                    DialError::Tls(_) => "gateway_tls",
                    DialError::Proxy(_) | DialError::WebSocket(_) => error.code(),
                };
                let refused = matches!(error, DialError::WebSocket(WsError::Refused { .. }));
                let said = match (way.kind, refused) {
                    (ConnectorKind::Icg, true) => {
                        format!(
                            "The gateway {} turned the device away: {}",
                            way.address,
                            sentence(error)
                        )
                    }
                    (ConnectorKind::Icg, false) => {
                        let said = format!(
                            "The gateway {} can't be used: {}",
                            way.address,
                            sentence(error)
                        );
                        match comes_from_elsewhere(error) {
                            true => format!("{said} {OPENED}"),
                            false => said,
                        }
                    }
                    (ConnectorKind::Ums, _) => sentence(error),
                };
                Trouble {
                    retry_after: error.retry_after(),
                    ..Trouble::passing(code, said)
                }
            }
            Self::Trust(error) => Trouble::because("bad_roots", error),
            Self::Settings(trouble) => trouble.clone(),
            Self::Server(error) => Trouble::of_tls(error),
            Self::Closed(closed) => Trouble::of_gateway(closed),
        };
        Trouble {
            of_way: true,
            ..trouble
        }
    }
}

/// Whether a gateway's certificate is from a root that this device does not know: what another machine shows in its place, or
/// whatever opens TLS on the way.
pub fn comes_from_elsewhere(error: &DialError) -> bool {
    matches!(
        error,
        DialError::Tls(
            TlsError::UnknownRoot
                | TlsError::IssuerMissing { .. }
                | TlsError::FingerprintMismatch { .. }
                | TlsError::RootNotPresented
        )
    )
}

/// The names that the server's certificate is for.
pub fn names_of(stream: &Stream) -> Vec<String> {
    let chain = tls::presented_chain(stream.get_ref().1);
    let facts = chain.first().map(|end| CertificateFacts::read(end));
    let mut names = match facts {
        Some(Ok(facts)) => facts.san,
        Some(Err(_)) | None => Vec::new(),
    };
    names.truncate(NAMES_MAX);
    names
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}
