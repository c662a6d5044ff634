//! One server's uplink: inner TLS in which the server shows its certificate, the multiplexer, the control stream. Devices'
//! streams are opened here and used elsewhere.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::{AsyncRead, AsyncWrite};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use umbra_carrier::causes::clause_of;
use umbra_carrier::framed::{FrameReader, FrameWriter};
use umbra_carrier::tls::accept_uplink;
use umbra_carrier::{ws, x509};
use umbra_protocol::gateway::{self as wire, Attached, FromGateway, ToGateway, label};
use umbra_protocol::{DecodeError, decode, encode};
use yamux::{Connection, ConnectionError, Mode};

use crate::addresses::Peer;
use crate::devices::roster::{MOST_DEVICES, ServerKey, UplinkId};
use crate::gateway::{Gateway, UplinkLine};
use crate::uplink::machine::{Conversation, Input, Output};

/// Messages that may wait for a server to read them.
const EVENTS: usize = 2_048;
/// Requests for streams that may wait.
const REQUESTS: usize = 1_024;
/// How long a message may take on its way.
const WRITE: Duration = Duration::from_secs(10);
/// How long the end of an uplink may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// What each stream may have under way, by the multiplexer's own rules.
const WINDOW: usize = 256 * 1024;

/// Serves a server.
pub async fn serve(gateway: Arc<Gateway>, peer: Peer, upgrade: OnUpgrade) {
    let until = Instant::now() + gateway.timing.attach;
    let Some(mut place) = gateway.uplink_door.enter(peer.source, Instant::now()) else {
        gateway.metrics.turned_away.one();
        tracing::debug!(from = %peer.address, "too many uplinks are being set up");
        return;
    };
    let handshake = async {
        let upgraded = timeout(gateway.timing.handshake, upgrade)
            .await
            .ok()?
            .ok()?;
        let envelope = ws::server_stream(
            TokioIo::new(upgraded),
            Vec::new(),
            Some(gateway.timing.keepalive),
        );
        let inner = gateway.inner_tls();
        match accept_uplink(envelope, inner, gateway.timing.handshake).await {
            Ok(accepted) => Some(accepted),
            Err(error) => {
                gateway.metrics.handshakes_failed.one();
                tracing::warn!(from = %peer.address, error = clause_of(&error), "an uplink was refused");
                None
            }
        }
    };
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = place.shown_out() => {
            gateway.metrics.turned_away.one();
            None
        }
    };
    let Some((tls, certificate)) = accepted else {
        return;
    };
    drop(place);
    let (streams, requests) = mpsc::channel(REQUESTS);
    let (inbound, control) = mpsc::channel(1);
    let multiplexer = Connection::new(tls.compat(), multiplexing(), Mode::Server);
    let (stop, stopped) = watch::channel(false);
    let mut driven = gateway
        .tasks
        .spawn(drive(multiplexer, requests, inbound, stopped));
    let mut session = Session {
        gateway: gateway.clone(),
        peer,
        server: x509::sha256(&certificate),
        streams,
        attached: None,
    };
    let why = tokio::select! {
        why = session.run(control, until) => why,
        lost = &mut driven => match lost {
            Ok(Err(error)) => format!("the connection was lost: {}", clause_of(&error)),
            Ok(Ok(())) | Err(_) => "the connection ended".to_owned(),
        },
    };
    session.over(&why);
    // Devices are told before their streams end.
    stop.send_replace(true);
    if !driven.is_finished() {
        let _ = timeout(2 * FAREWELL, driven).await;
    }
}

fn multiplexing() -> yamux::Config {
    let mut config = yamux::Config::default();
    // The control stream, and those that are on their way out.
    let streams = MOST_DEVICES + 1_024;
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(streams);
    // Not a byte more per stream than the smallest window: the largest sum is known.
    config.set_max_connection_receive_window(Some(WINDOW * streams));
    config
}

/// Keeps the multiplexer going until it ends or shall stop.
async fn drive<T>(
    mut multiplexer: Connection<T>,
    mut requests: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    inbound: mpsc::Sender<yamux::Stream>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), ConnectionError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut wanted: Option<oneshot::Sender<yamux::Stream>> = None;
    let going = std::future::poll_fn(|context| {
        loop {
            if wanted.is_none()
                && let Poll::Ready(Some(request)) = requests.poll_recv(context)
            {
                wanted = Some(request);
            }
            if wanted.is_some() {
                match multiplexer.poll_new_outbound(context) {
                    Poll::Ready(Ok(stream)) => {
                        if let Some(request) = wanted.take() {
                            // Whoever wanted it may have left.
                            let _ = request.send(stream);
                        }
                        continue;
                    }
                    Poll::Ready(Err(ConnectionError::TooManyStreams)) => {
                        wanted = None;
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            match multiplexer.poll_next_inbound(context) {
                // The first one is the control stream; the server opens no others, and what nobody takes is reset.
                Poll::Ready(Some(Ok(stream))) => drop(inbound.try_send(stream)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    let ended = tokio::select! {
        ended = going => Some(ended),
        _ = stopped.wait_for(|stopped| *stopped) => None,
    };
    match ended {
        Some(ended) => ended,
        None => {
            let closing = std::future::poll_fn(|context| multiplexer.poll_close(context));
            timeout(FAREWELL, closing).await.unwrap_or(Ok(()))
        }
    }
}

/// Returns when somebody else ends the uplink.
async fn ended_by(ended: &mut watch::Receiver<Option<&'static str>>) -> &'static str {
    let why = ended
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|why| *why);
    why.unwrap_or("nobody needs it any more")
}

type Control = Compat<yamux::Stream>;

struct Session {
    gateway: Arc<Gateway>,
    peer: Peer,
    server: ServerKey,
    streams: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    attached: Option<(UplinkId, String)>,
}

impl Session {
    /// Talks on the control stream until there is a reason to end.
    async fn run(&mut self, mut control: mpsc::Receiver<yamux::Stream>, until: Instant) -> String {
        let Ok(Some(control)) = tokio::time::timeout_at(until.into(), control.recv()).await else {
            return "the server opened no control stream".to_owned();
        };
        let (reader, writer) = split(control.compat());
        let mut reader: FrameReader<ReadHalf<Control>> = FrameReader::new(reader);
        let mut writer: FrameWriter<WriteHalf<Control>> = FrameWriter::new(writer);
        let (end, mut ended) = watch::channel(None::<&'static str>);
        let end = Arc::new(end);
        let (events, mut pending) = mpsc::channel(EVENTS);
        let mut conversation = Conversation::new(until, self.gateway.timing.silence);
        loop {
            let deadline = conversation.next_deadline().unwrap_or_else(Instant::now);
            let outputs = tokio::select! {
                frame = reader.next(wire::FRAME) => match frame {
                    Ok(Some(frame)) => {
                        let input = self.read(&frame);
                        conversation.handle(input, Instant::now())
                    }
                    Ok(None) => return "the server ended it".to_owned(),
                    Err(error) => return format!("its control stream failed: {}", clause_of(&error)),
                },
                Some(event) = pending.recv() => vec![Output::Say(event)],
                why = ended_by(&mut ended) => {
                    // What was said before the end should arrive.
                    while let Ok(event) = pending.try_recv() {
                        if self.say(&mut writer, &event).await.is_err() {
                            break;
                        }
                    }
                    return why.to_owned();
                }
                () = sleep_until(deadline.into()) => conversation.handle(Input::Tick, Instant::now()),
            };
            for output in outputs {
                match output {
                    Output::Attach(attach, version) => {
                        let name = label(&attach.server_name);
                        let line = UplinkLine {
                            events: events.clone(),
                            streams: self.streams.clone(),
                            end: end.clone(),
                            name: name.clone(),
                        };
                        let (uplink, connections) =
                            match self.gateway.attach(self.server, &attach, line) {
                                Ok(taken_on) => taken_on,
                                Err(refusal) => {
                                    let why = refusal.to_string();
                                    let told = self.say(&mut writer, &refusal.into()).await;
                                    return told.err().unwrap_or(why);
                                }
                            };
                        self.attached = Some((uplink, name.clone()));
                        tracing::info!(server = name, from = %self.peer.address, version, "a server attached");
                        let attached = Attached {
                            version,
                            gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
                            connections,
                        };
                        if let Err(why) = self.say(&mut writer, &attached.into()).await {
                            return why;
                        }
                    }
                    Output::Say(message) => {
                        if let Err(why) = self.say(&mut writer, &message).await {
                            return why;
                        }
                    }
                    Output::End(why) => {
                        let _ = timeout(FAREWELL, writer.close()).await;
                        return why;
                    }
                    Output::Limit(limit) => {
                        self.act(|uplink| self.gateway.set_limit(uplink, limit))
                    }
                    Output::Admit(stream) => self.act(|uplink| self.gateway.admit(uplink, stream)),
                    Output::Drop(drop) => self.act(|uplink| self.gateway.drop_stream(uplink, drop)),
                    Output::Open(request) => self.act(|uplink| {
                        self.gateway.open_rendezvous(uplink, self.server, &request);
                    }),
                    Output::Withdraw(id) => self.gateway.withdraw_rendezvous(self.server, id),
                }
            }
        }
    }

    fn read(&self, frame: &[u8]) -> Input {
        match decode::<ToGateway>(frame, wire::FRAME) {
            Ok(message) => Input::Heard(message),
            Err(DecodeError::UnknownType(_)) => {
                self.gateway.metrics.uplink_oddities.one();
                Input::HeardUnknown
            }
            Err(error @ (DecodeError::TooLarge { .. } | DecodeError::Malformed(_))) => {
                Input::HeardNonsense(error.to_string())
            }
        }
    }

    /// Does something that only an attached server may ask for; the conversation lets no other do so.
    fn act(&self, action: impl FnOnce(UplinkId)) {
        if let Some((uplink, _)) = &self.attached {
            action(*uplink);
        }
    }

    async fn say(
        &self,
        writer: &mut FrameWriter<WriteHalf<Control>>,
        message: &FromGateway,
    ) -> Result<(), String> {
        match timeout(WRITE, writer.send(&encode(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("its control stream failed: {}", clause_of(&error))),
            Err(_) => Err("the server does not read its control stream".to_owned()),
        }
    }

    /// The uplink is gone.
    fn over(&mut self, why: &str) {
        match self.attached.take() {
            Some((uplink, name)) => {
                tracing::info!(server = name, why, "an uplink ended");
                self.gateway.detach(uplink);
            }
            None => {
                tracing::warn!(from = %self.peer.address, why, "an uplink ended before it stood")
            }
        }
    }
}
