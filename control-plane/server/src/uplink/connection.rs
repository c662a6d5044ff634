//! One connection to a gateway: WebSocket, the TLS inside it, and the streams in that. The outer TLS is an envelope that a
//! proxy may open; who the gateway is, and who this server is, is settled inside.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use umbra_carrier::causes::{clause_of, sentence};
use umbra_carrier::dial::{DialError, Dialer, WsTarget};
use umbra_carrier::framed::{FrameError, FrameReader, FrameWriter};
use umbra_carrier::io::Io;
use umbra_carrier::names::System;
use umbra_carrier::tls::{
    DatePolicy, EnvelopeTrust, ServerTrust, TlsError, TrustError, connect_tls, envelope_config,
    uplink_config,
};
use umbra_carrier::ws::{Closed, Keepalive};
use umbra_protocol::gateway::{FRAME, FromGateway, PATH_UPLINK, SUBPROTOCOL_UPLINK, ToGateway};
use umbra_protocol::{DecodeError, decode, encode};
use yamux::{Config, Connection as Yamux, Mode};

use super::machine::Ending;
use crate::server::Server;
use crate::store::gateways::GatewayOnFile;

/// For everything from the name to the WebSocket.
const DIAL: Duration = Duration::from_secs(20);
/// For the TLS inside.
const TLS: Duration = Duration::from_secs(10);
/// How long the gateway may take to read one word.
const WRITE: Duration = Duration::from_secs(20);
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// What proxies between the two see of the connection, so that they keep it.
const KEEPALIVE: Keepalive = Keepalive {
    interval: Duration::from_secs(25),
    timeout: Duration::from_secs(60),
};
/// Streams at one time. More would end the connection: how many devices may come is decided stream by stream.
const STREAMS: usize = 65_536;
/// Words that wait to be sent.
const WORDS: usize = 4_096;
/// Events that wait to be looked at.
const EVENTS: usize = 256;

/// One stream of the connection.
pub(super) type Stream = Compat<yamux::Stream>;

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// The gateway said something.
    Heard(FromGateway),
    /// A device came.
    Device(Stream),
    /// The connection is over.
    Ended(Ending),
}

/// A connection that stands. Dropping it ends it at once.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) words: mpsc::Sender<ToGateway>,
    close: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("the gateway cannot be reached")]
    Dial(#[from] DialError),
    #[error("what answers as the gateway is not trusted")]
    Tls(#[from] TlsError),
    #[error("the gateway's root certificate cannot be used")]
    Trust(#[from] TrustError),
}

impl From<ConnectError> for Ending {
    fn from(error: ConnectError) -> Self {
        let retry_after = match &error {
            ConnectError::Dial(error) => error.retry_after(),
            ConnectError::Tls(_) | ConnectError::Trust(_) => None,
        };
        Ending {
            sentence: sentence(&error),
            retry_after,
        }
    }
}

impl Connection {
    /// Connects to a gateway and sets everything up; nothing is said yet.
    pub(super) async fn open(
        server: &Server,
        gateway: &GatewayOnFile,
    ) -> Result<Self, ConnectError> {
        let trust = ServerTrust::PinnedRoots(roots(server, gateway));
        let envelope = envelope_config(EnvelopeTrust::pinned(trust.clone()), DatePolicy::Enforce)?;
        let inner = uplink_config(&server.authority.uplink, trust, DatePolicy::Enforce)?;
        let host = gateway.internal.host();
        let target = WsTarget {
            host: host.to_owned(),
            port: gateway.internal.port(),
            path: PATH_UPLINK.to_owned(),
            subprotocol: SUBPROTOCOL_UPLINK.to_owned(),
            headers: Vec::new(),
        };
        let websocket = Dialer::new(server.gateway_proxy.clone(), &System)
            .websocket(&target, envelope, Some(KEEPALIVE), DIAL)
            .await?;
        let stream = connect_tls(websocket, inner, host, TLS).await?;
        Ok(Self::over(stream))
    }

    /// On a byte stream whose ends know each other.
    fn over(stream: impl Io + 'static) -> Self {
        let mut config = Config::default();
        config.set_max_connection_receive_window(None);
        config.set_max_num_streams(STREAMS);
        let yamux = Yamux::new(stream.compat(), config, Mode::Client);
        let (events_in, events) = mpsc::channel(EVENTS);
        let (words, words_out) = mpsc::channel(WORDS);
        let (close, closing) = oneshot::channel();
        let (control_in, control) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(carry(yamux, control_in, events_in.clone(), closing));
        tasks.spawn(async move {
            let Ok(control) = control.await else { return };
            let (read, write) = tokio::io::split(control);
            tokio::join!(listen(read, events_in), speak(write, words_out));
        });
        Self {
            events,
            words,
            close,
            tasks,
        }
    }

    /// Ends in order, after what was said has been sent.
    pub(super) async fn close(self) {
        let Self {
            events,
            words,
            close,
            mut tasks,
        } = self;
        drop((events, words));
        // Where it is over already, nobody hears.
        let _ = close.send(());
        let all = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(FAREWELL, all).await;
    }
}

/// The roots that a gateway's certificate may come from.
fn roots(
    server: &Server,
    gateway: &GatewayOnFile,
) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    if gateway.roots.is_empty() {
        let chain = server.authority.identity.chain();
        return chain.last().cloned().into_iter().collect();
    }
    // They were read when they were filed.
    gateway
        .roots
        .iter()
        .filter_map(|pem| rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).ok())
        .collect()
}

/// Moves the bytes of all streams. Everything else on this connection stands still when this does.
async fn carry<IO>(
    mut yamux: Yamux<Compat<IO>>,
    control: oneshot::Sender<Stream>,
    events: mpsc::Sender<Event>,
    mut closing: oneshot::Receiver<()>,
) where
    IO: Io,
{
    match poll_fn(|cx| yamux.poll_new_outbound(cx)).await {
        Ok(stream) => {
            if control.send(stream.compat()).is_err() {
                return;
            }
        }
        Err(error) => {
            let _ = events.send(Event::Ended(ending(&error))).await;
            return;
        }
    }
    let over = loop {
        let next = tokio::select! {
            _ = &mut closing => break None,
            next = poll_fn(|cx| yamux.poll_next_inbound(cx)) => next,
        };
        match next {
            // A gateway that sends devices faster than they are looked at loses them; they come again.
            Some(Ok(stream)) => {
                if events.try_send(Event::Device(stream.compat())).is_err() {
                    tracing::debug!("a device's stream was turned away unseen");
                }
            }
            Some(Err(error)) => break Some(ending(&error)),
            None => {
                break Some(Ending {
                    sentence: "The gateway ended the uplink.".into(),
                    retry_after: None,
                });
            }
        }
    };
    match over {
        Some(ending) => {
            let _ = events.send(Event::Ended(ending)).await;
        }
        None => {
            let _ = timeout(FAREWELL, poll_fn(|cx| yamux.poll_close(cx))).await;
        }
    }
}

fn ending(error: &yamux::ConnectionError) -> Ending {
    match of_connection(error).and_then(Closed::of) {
        Some(closed) => Ending {
            sentence: format!("The gateway ended the uplink: {}", closed.sentence()),
            retry_after: closed.retry_after,
        },
        None => Ending {
            sentence: format!("The uplink was lost: {}.", lost(error)),
            retry_after: None,
        },
    }
}

/// What the connection below said. It ends in the middle of a frame as well as between two.
fn of_connection(error: &yamux::ConnectionError) -> Option<&std::io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// Why the streams' own protocol broke, without its words.
fn lost(error: &yamux::ConnectionError) -> String {
    match of_connection(error) {
        Some(error) => clause_of(error),
        None if matches!(error, yamux::ConnectionError::Closed) => {
            "the gateway has ended it".to_owned()
        }
        None => "the gateway does not keep to the rules of its streams".to_owned(),
    }
}

async fn listen(read: ReadHalf<Stream>, events: mpsc::Sender<Event>) {
    let mut reader = FrameReader::new(read);
    let sentence = loop {
        let frame = match reader.next(FRAME).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break "The gateway ended the conversation.".to_owned(),
            Err(error @ FrameError::TooLarge { .. }) => {
                break format!("The gateway does not keep to the protocol: {error}.");
            }
            // The connection itself says more.
            Err(FrameError::CutOff | FrameError::Unfinished | FrameError::Io(_)) => return,
        };
        match decode::<FromGateway>(&frame, FRAME) {
            Ok(message) => {
                if events.send(Event::Heard(message)).await.is_err() {
                    return;
                }
            }
            Err(DecodeError::UnknownType(kind)) => {
                tracing::debug!(kind, "a word of the gateway that this server does not know");
            }
            Err(error @ (DecodeError::TooLarge { .. } | DecodeError::Malformed(_))) => {
                break format!("The gateway does not keep to the protocol: {error}.");
            }
        }
    };
    let retry_after = None;
    let ended = Event::Ended(Ending {
        sentence,
        retry_after,
    });
    // Whoever gave the connection up does not need to hear that it is over.
    let _ = events.send(ended).await;
}

async fn speak(write: WriteHalf<Stream>, mut words: mpsc::Receiver<ToGateway>) {
    let mut writer = FrameWriter::new(write);
    while let Some(word) = words.recv().await {
        match timeout(WRITE, writer.send(&encode(&word))).await {
            Ok(Ok(())) => {}
            // Silence ends the uplink then.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
