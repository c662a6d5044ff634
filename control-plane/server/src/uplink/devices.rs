//! One device's stream of an uplink: its head, then the same control link as on the server's own port, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;
use umbra_carrier::crowd::Crowd;
use umbra_carrier::framed::FrameReader;
use umbra_carrier::tls::{Accepted, accept_by_alpn};
use umbra_protocol::gateway::{STREAM_HEAD, StreamHead, ToGateway};
use umbra_protocol::{Refusal, RefusalCode, limits};

use super::connection::Stream;
use crate::link::{Origin, Seat, Via, driver};
use crate::serve::Tls;
use crate::server::Server;
use crate::shutdown::Shutdown;
use crate::store::gateways::GatewayOnFile;
use crate::throttle::Source;

/// How long a gateway may take for the head of a stream.
const HEAD: Duration = Duration::from_secs(5);
/// When a device that found no room may come back.
const NO_ROOM: u32 = 30;

/// What every device of one uplink needs.
#[derive(Clone, Debug)]
pub(super) struct Reception {
    pub(super) server: Arc<Server>,
    pub(super) tls: Arc<Tls>,
    pub(super) gateway: Arc<GatewayOnFile>,
    pub(super) strangers: Crowd<Source>,
    pub(super) words: mpsc::Sender<ToGateway>,
    pub(super) shutdown: Shutdown,
}

impl Reception {
    /// Serves one device, for which a seat was taken. `full` says that there are more devices than this gateway, or all of
    /// them, may connect.
    pub(super) async fn serve(self, mut stream: Stream, seat: Seat, full: bool) {
        let came = Instant::now();
        let Some(head) = head(&mut stream).await else {
            tracing::debug!(gateway = self.gateway.name, "a stream without a head");
            return;
        };
        let origin = Origin {
            peer: SocketAddr::new(head.from, 0),
            came,
            via: Some(Via {
                gateway: self.gateway.name.as_str().into(),
                row: self.gateway.row,
                stream: head.stream,
                words: self.words,
            }),
        };
        if full {
            tracing::info!(
                gateway = self.gateway.name,
                "a device was turned away: the limit of connections is reached"
            );
            let sentence = "As many devices are connected through gateways as this server allows.";
            let refusal = Refusal::new(RefusalCode::ConnectionLimit, sentence);
            return origin.turn_away(refusal.retry_after(NO_ROOM));
        }
        let busy = || {
            let sentence = "Too many connections wait for this server; the device tries again.";
            Refusal::new(RefusalCode::Busy, sentence).retry_after(NO_ROOM)
        };
        let Some(mut place) = self.strangers.enter(origin.source(), came) else {
            return origin.turn_away(busy());
        };
        // It has said which device it carries.
        place.speaks(came);
        let mut shutdown = self.shutdown.clone();
        // The same for both: nothing but a control link is offered here.
        let link = self.tls.link();
        let accepted = tokio::select! {
            biased;
            () = shutdown.wait() => return,
            () = place.shown_out() => return origin.turn_away(busy()),
            accepted = accept_by_alpn(stream, Arc::clone(&link), link, limits::HELLO_DEADLINE)
                => accepted,
        };
        match accepted {
            Ok(Accepted::Link(stream, certificate)) => {
                driver::serve(
                    self.server,
                    stream,
                    certificate,
                    origin,
                    (place, Some(seat)),
                    self.shutdown,
                )
                .await;
            }
            Ok(Accepted::Http(_)) => {
                let sentence = "Only devices are let in through a gateway.";
                origin.turn_away(Refusal::new(RefusalCode::Malformed, sentence));
            }
            Err(error) => {
                tracing::debug!(gateway = self.gateway.name, %error, "no TLS");
                let sentence = "The device did not set up its connection to the server.";
                origin.turn_away(Refusal::new(RefusalCode::Malformed, sentence));
            }
        }
    }
}

async fn head(stream: &mut Stream) -> Option<StreamHead> {
    // The reader never takes more than the head.
    let mut reader = FrameReader::new(stream);
    let frame = timeout(HEAD, reader.next(STREAM_HEAD)).await.ok()?;
    StreamHead::decode(&frame.ok()??).ok()
}
