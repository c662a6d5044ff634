//! One device's link: from the end of its upgrade to its end, between its WebSocket and a stream of its server's uplink.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use umbra_carrier::framed::FrameWriter;
use umbra_carrier::ws;
use umbra_protocol::gateway::{StreamHead, close_reason};

use crate::addresses::Peer;
use crate::ending::Ending;
use crate::farewell::farewell;
use crate::gateway::{Gateway, Line};
use crate::relay::{self, End, RelayEnd, relay};
use crate::rendezvous::driver::WebSocket;

/// Bytes of a device in each direction that are held here. Its messages are small, and devices are many.
const BUFFER: usize = 8 * 1024;
/// How long the loss of an uplink may take to be known here, after its streams ended.
const LOSS_KNOWN: Duration = Duration::from_secs(1);
/// How long the end of one side may take to reach the other.
const FAREWELL: Duration = Duration::from_secs(3);

/// A device's place on its server's uplink, given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    /// The shared part.
    pub gateway: Arc<Gateway>,
    /// The number of its stream.
    pub stream: u64,
    /// Who it is, as far as addresses go.
    pub peer: Peer,
    /// What it calls itself.
    pub label: String,
    /// What is decided about it.
    pub line: watch::Receiver<Line>,
    /// Where to ask for the stream.
    pub streams: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
}

impl Seat {
    /// Gives the place back before the connection has ended: who only says farewell takes no room from whoever comes
    /// next, which may be the same device.
    fn leave(&self) {
        self.gateway.unseat(self.stream);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Serves a device.
pub async fn serve(mut seat: Seat, upgrade: OnUpgrade) {
    let timing = seat.gateway.timing;
    let Ok(Ok(upgraded)) = timeout(timing.handshake, upgrade).await else {
        return;
    };
    let mut device =
        ws::quiet_server_stream(TokioIo::new(upgraded), Vec::new(), Some(timing.keepalive));
    tracing::debug!(
        stream = seat.stream,
        label = seat.label,
        "a device connected"
    );
    if let Err(ending) = carry(&mut device, &mut seat).await {
        let code = ending.refusal.code;
        tracing::debug!(stream = seat.stream, label = seat.label, %code, "a device was sent away");
        seat.gateway.metrics.rejected(code);
        farewell(&mut device, ending.close, &close_reason(&ending.refusal)).await;
    }
}

/// Carries bytes until one of the two is gone, or the device has to go.
async fn carry(device: &mut WebSocket, seat: &mut Seat) -> Result<(), Ending> {
    let until = Instant::now() + seat.gateway.timing.admit;
    let mut server = timeout(seat.gateway.timing.admit, stream(seat))
        .await
        .map_err(|_| Ending::not_admitted())??;
    let head = StreamHead {
        stream: seat.stream,
        from: seat.peer.address,
        label: seat.label.clone(),
    };
    let sent = async { FrameWriter::new(&mut server).send(&head.encode()).await };
    if !matches!(timeout(seat.gateway.timing.admit, sent).await, Ok(Ok(()))) {
        return Err(lost(&mut seat.line).await);
    }
    let metrics = &seat.gateway.metrics;
    let limits = relay::Limits {
        buffer: BUFFER,
        idle: None,
    };
    let moved = |to, bytes| match to {
        End::A => metrics.bytes_to_devices.add(bytes),
        End::B => metrics.bytes_to_servers.add(bytes),
    };
    let end = {
        let mut carried = std::pin::pin!(relay(device, &mut server, limits, &moved));
        let mut admitted = false;
        loop {
            tokio::select! {
                biased;
                changed = seat.line.changed() => {
                    let line = seat.line.borrow_and_update().clone();
                    match line {
                        Line::Ended(ending) => return Err(ending),
                        Line::Admitted => admitted = true,
                        Line::Waiting => {}
                    }
                    if changed.is_err() {
                        // Nobody decides about this device any more, so its uplink is gone.
                        return Err(lost(&mut seat.line).await);
                    }
                }
                end = carried.as_mut() => break end,
                () = sleep_until(until), if !admitted => return Err(Ending::not_admitted()),
            }
        }
    };
    match end {
        RelayEnd::Closed(End::A) => {
            seat.leave();
            // Whether the server takes note is its own business; so it is with a device.
            let _ = timeout(FAREWELL, server.shutdown()).await;
            Ok(())
        }
        RelayEnd::Closed(End::B) if !server.get_ref().is_closed() => {
            seat.leave();
            part(device).await;
            Ok(())
        }
        RelayEnd::Failed(End::A) | RelayEnd::Idle => Ok(()),
        RelayEnd::Closed(End::B) | RelayEnd::Failed(End::B) => Err(lost(&mut seat.line).await),
    }
}

/// The server is done with the device in order. What the device still sends is read to its end: its own farewell stands
/// behind it, and nothing else says that ours has arrived.
async fn part(device: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let parting = async {
        let (mut reader, mut writer) = tokio::io::split(device);
        let mut unread = tokio::io::sink();
        let _ = tokio::join!(writer.shutdown(), tokio::io::copy(&mut reader, &mut unread));
    };
    // A device that goes on sending is not waited for.
    let _ = timeout(FAREWELL, parting).await;
}

async fn stream(seat: &mut Seat) -> Result<Compat<yamux::Stream>, Ending> {
    let (sender, stream) = oneshot::channel();
    if seat.streams.send(sender).await.is_ok()
        && let Ok(stream) = stream.await
    {
        return Ok(stream.compat());
    }
    Err(lost(&mut seat.line).await)
}

/// Why the uplink's end of the link is gone: what was decided about the device says it, a moment later at most.
async fn lost(line: &mut watch::Receiver<Line>) -> Ending {
    let ended = |line: &Line| matches!(line, Line::Ended(_));
    // How many share the loss isn't known here.
    let many = usize::MAX;
    match timeout(LOSS_KNOWN, line.wait_for(ended)).await {
        Ok(Ok(line)) => match &*line {
            Line::Ended(ending) => ending.clone(),
            Line::Waiting | Line::Admitted => Ending::server_gone(many),
        },
        Ok(Err(_)) | Err(_) => Ending::server_gone(many),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use tokio::io::{AsyncReadExt as _, duplex};

    #[test]
    fn the_task_of_a_device_is_small_since_there_are_thousands() {
        fn future_of<F>(_: impl FnOnce(Seat, OnUpgrade) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = future_of(serve);
        assert!(bytes <= 2_400, "{bytes} bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_answers_the_close_is_let_go_at_once_whatever_it_said_before() {
        let (mut device, near) = duplex(1_024);
        let mut stream = ws::server_stream(near, Vec::new(), None);
        let start = Instant::now();
        let parted = tokio::spawn(async move {
            part(&mut stream).await;
            stream
        });
        let mut close = [0; 4];
        device.read_exact(&mut close).await.unwrap();
        assert_eq!(close, [0x88, 0x02, 0x03, 0xe8]);
        // One byte that nobody needs any more, as the end of TLS is, then the answer.
        device
            .write_all(&[0x82, 0x81, 0, 0, 0, 0, b'x'])
            .await
            .unwrap();
        device
            .write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])
            .await
            .unwrap();
        parted.await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "it waited in vain");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_never_stops_sending_is_not_waited_for() {
        let (mut device, near) = duplex(1_024);
        let mut stream = ws::server_stream(near, Vec::new(), None);
        tokio::spawn(async move {
            loop {
                let frame = [0x82, 0x81, 0, 0, 0, 0, b'x'];
                if device.write_all(&frame).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        timeout(2 * FAREWELL, part(&mut stream))
            .await
            .expect("it gives up by itself");
    }
}
