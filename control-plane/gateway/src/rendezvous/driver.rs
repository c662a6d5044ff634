//! The ends of a tunnel, each with a WebSocket: the first one waits, the second one brings its own to it, and the first
//! one's task moves the bytes of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use umbra_carrier::io::Prefixed;
use umbra_carrier::ws::{self, ByteStream};
use umbra_protocol::RendezvousId;
use umbra_protocol::gateway::{self as wire, TunnelEnd, TunnelSide};

use crate::ending::tunnel_end;
use crate::farewell::farewell;
use crate::gateway::Gateway;
use crate::relay::{self, End, RelayEnd, relay};

/// Bytes in each direction that are held here.
const BUFFER: usize = 64 * 1024;
/// Bytes that the first end may send before the second one is there.
const EARLY: usize = 16 * 1024;

/// A client's WebSocket.
pub type WebSocket = ByteStream<TokioIo<Upgraded>>;

/// An end's place in a rendezvous.
#[derive(Debug)]
pub enum TunnelSeat {
    /// It came first.
    First(First),
    /// It came second, and knows where the first one waits.
    Second(RendezvousId, oneshot::Sender<WebSocket>),
}

/// The first end. If it is dropped, the rendezvous is over.
#[derive(Debug)]
pub struct First {
    gateway: Arc<Gateway>,
    id: RendezvousId,
    side: TunnelSide,
    partner: oneshot::Receiver<WebSocket>,
    over: watch::Receiver<Option<TunnelEnd>>,
    to_device: AtomicU64,
    to_console: AtomicU64,
    end: TunnelEnd,
}

impl TunnelSeat {
    /// Of the first end.
    pub fn first(
        gateway: Arc<Gateway>,
        id: RendezvousId,
        side: TunnelSide,
        partner: oneshot::Receiver<WebSocket>,
        over: watch::Receiver<Option<TunnelEnd>>,
    ) -> Self {
        Self::First(First {
            gateway,
            id,
            side,
            partner,
            over,
            to_device: AtomicU64::new(0),
            to_console: AtomicU64::new(0),
            end: TunnelEnd::ConnectionLost,
        })
    }

    /// Of the second end.
    pub fn second(id: RendezvousId, partner: oneshot::Sender<WebSocket>) -> Self {
        Self::Second(id, partner)
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let bytes = (
            self.to_device.load(Ordering::Relaxed),
            self.to_console.load(Ordering::Relaxed),
        );
        self.gateway.finish_rendezvous(self.id, self.end, bytes);
    }
}

/// Serves one end.
pub async fn serve(gateway: Arc<Gateway>, seat: TunnelSeat, upgrade: OnUpgrade) {
    let Ok(Ok(upgraded)) = timeout(gateway.timing.handshake, upgrade).await else {
        return;
    };
    let stream = ws::server_stream(
        TokioIo::new(upgraded),
        Vec::new(),
        Some(gateway.timing.keepalive),
    );
    match seat {
        TunnelSeat::First(mut first) => join(&mut first, stream).await,
        TunnelSeat::Second(id, partner) => {
            if let Err(mut stream) = partner.send(stream) {
                tracing::debug!(%id, "the first end of a tunnel left as the second one came");
                part(&mut stream, TunnelEnd::ConnectionLost).await;
            }
        }
    }
}

/// Waits for the second end and moves bytes until the tunnel ends.
async fn join(first: &mut First, mut own: WebSocket) {
    let mut early = Vec::new();
    let waited = loop {
        tokio::select! {
            biased;
            end = over(&mut first.over) => break Err(end),
            partner = &mut first.partner => break partner.map_err(|_| TunnelEnd::ConnectionLost),
            read = own.read_buf(&mut early), if early.len() < EARLY => {
                if !matches!(read, Ok(length) if length > 0) {
                    // It gave up waiting.
                    return;
                }
            }
        }
    };
    let mut other = match waited {
        Ok(other) => other,
        Err(end) => {
            first.end = end;
            part(&mut own, end).await;
            return;
        }
    };
    tracing::info!(id = %first.id, "a tunnel stands");
    let closer = own.closer();
    let mut own = Prefixed::new(early, own);
    let end = {
        let (to_own, to_other) = match first.side {
            TunnelSide::Device => (&first.to_device, &first.to_console),
            TunnelSide::Console => (&first.to_console, &first.to_device),
        };
        let metrics = &first.gateway.metrics;
        let moved = |to, bytes: usize| {
            metrics.bytes_in_tunnels.add(bytes);
            let counter = match to {
                End::A => to_own,
                End::B => to_other,
            };
            counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        let limits = relay::Limits {
            buffer: BUFFER,
            idle: Some(first.gateway.timing.tunnel_idle),
        };
        tokio::select! {
            biased;
            end = over(&mut first.over) => Err(end),
            end = relay(&mut own, &mut other, limits, &moved) => Ok(end),
        }
    };
    let closed_by = |end| match (end, first.side) {
        (End::A, TunnelSide::Device) | (End::B, TunnelSide::Console) => TunnelEnd::ClosedByDevice,
        (End::A, TunnelSide::Console) | (End::B, TunnelSide::Device) => TunnelEnd::ClosedByConsole,
    };
    let end = match end {
        Err(end) => end,
        Ok(RelayEnd::Closed(end)) => closed_by(end),
        Ok(RelayEnd::Failed(..)) => TunnelEnd::ConnectionLost,
        Ok(RelayEnd::Idle) => TunnelEnd::Idle,
    };
    first.end = end;
    tracing::info!(id = %first.id, end = end.as_str(), "a tunnel ended");
    let (code, reason) = last_word(end);
    closer.close_with(code, &reason);
    tokio::join!(drain(&mut own), part(&mut other, end));
}

/// Reads until the farewell is through.
async fn drain(own: &mut Prefixed<WebSocket>) {
    // Its buffer is not part of the task, which waits long before it comes here.
    let mut ignored = tokio::io::sink();
    // Whoever does not listen misses it.
    let _ = timeout(crate::farewell::LIMIT, tokio::io::copy(own, &mut ignored)).await;
}

/// Returns when somebody else ended the rendezvous.
async fn over(over: &mut watch::Receiver<Option<TunnelEnd>>) -> TunnelEnd {
    let end = over
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|end| *end);
    match end {
        Some(end) => end,
        // Nobody says it any more. It was said before, and heard.
        None => std::future::pending().await,
    }
}

async fn part(stream: &mut WebSocket, end: TunnelEnd) {
    let (code, reason) = last_word(end);
    farewell(stream, code, &reason).await;
}

/// What an end is told.
fn last_word(end: TunnelEnd) -> (u16, String) {
    let word = match end {
        // The word with which a token is refused that comes too late.
        TunnelEnd::Expired => umbra_protocol::RefusalCode::TunnelExpired.as_str(),
        TunnelEnd::ClosedByDevice
        | TunnelEnd::ClosedByConsole
        | TunnelEnd::ConnectionLost
        | TunnelEnd::Idle
        | TunnelEnd::Withdrawn
        | TunnelEnd::ShuttingDown
        | TunnelEnd::NotOpened
        | TunnelEnd::Unknown => end.as_str(),
    };
    let code = match end {
        TunnelEnd::ClosedByDevice | TunnelEnd::ClosedByConsole => ws::close::NORMAL,
        TunnelEnd::ShuttingDown => wire::CLOSE_RESTART,
        TunnelEnd::ConnectionLost => wire::CLOSE_TRY_AGAIN,
        TunnelEnd::Idle
        | TunnelEnd::Expired
        | TunnelEnd::Withdrawn
        | TunnelEnd::NotOpened
        | TunnelEnd::Unknown => wire::CLOSE_POLICY,
    };
    (code, ws::reason(word, None, tunnel_end(end)))
}
