//! A WebSocket client of the harness' own, for scenarios that meet a gateway without any program of the product: a console of
//! another make, or a device that does as it likes. It accepts any certificate of the gateway, since what counts goes
//! through it in TLS of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::time::timeout;

use crate::frames::{Frame, Whole, head};
use crate::tunnel::dial;

/// The most that waits in here for its reader, in each direction.
const BUFFER: usize = 64 * 1024;
/// The most that goes into one frame.
const PAYLOAD: usize = 16 * 1024;
/// Any mask will do: it is against proxies that are confused, and there is none.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// The line.
    #[error("the gateway cannot be reached")]
    Io(#[from] io::Error),
    /// An answer came in time, and it was a no.
    #[error("the gateway answered {status}: {body}")]
    Refused {
        /// Of the answer.
        status: u16,
        /// As it came.
        body: String,
    },
}

/// Connects, and gives what then is one stream of bytes; it ends when the gateway ends it, however it does.
pub async fn connect(
    address: SocketAddr,
    path: &str,
    subprotocol: &str,
    headers: &[(&str, &str)],
    limit: Duration,
) -> Result<DuplexStream, WebSocketError> {
    let more: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    // The key is the standard's example: nobody but the client itself has a use for it.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n{more}\r\n"
    );
    let mut line = dial(address, limit).await?.into_stream();
    let asking = async {
        line.write_all(request.as_bytes()).await?;
        line.flush().await?;
        head(&mut line).await
    };
    let (answer, mut rest) = timeout(limit, asking).await.map_err(io::Error::from)??;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    if status != Some(101) {
        // Whoever refuses closes; the words are short.
        let reading = line.take(BUFFER as u64).read_to_end(&mut rest).await;
        drop(reading);
        return Err(WebSocketError::Refused {
            status: status.unwrap_or_default(),
            body: String::from_utf8_lossy(&rest).into_owned(),
        });
    }
    let (near, far) = duplex(BUFFER);
    let (from_gateway, mut to_gateway) = split(line);
    let (mut from_us, mut to_us) = split(far);
    let mut incoming = Whole::new(rest, from_gateway);
    tokio::spawn(async move {
        let mut payload = vec![0; PAYLOAD];
        loop {
            // Both may be ready at any time; only whole frames are read or written between two looks.
            let frame = match from_us.read(&mut payload).await {
                Ok(0) | Err(_) => break,
                Ok(count) => Frame::masked(0x82, &payload[..count], MASK),
            };
            let sent = to_gateway.write_all(&frame.bytes()).await;
            if sent.is_err() || to_gateway.flush().await.is_err() {
                break;
            }
        }
        // It may have gone first.
        let _ = to_gateway.shutdown().await;
    });
    tokio::spawn(async move {
        // A close frame is an end as good as any; pings of a quarter of a minute's silence need no answer in a scenario.
        while let Ok(frame) = Frame::read(&mut incoming).await {
            if frame.is_close() {
                break;
            }
            if frame.is_data() && to_us.write_all(&frame.payload).await.is_err() {
                break;
            }
        }
        let _ = to_us.shutdown().await;
    });
    Ok(near)
}
