//! The last word on a WebSocket that the gateway ends.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use umbra_carrier::ws::ByteStream;

/// How long it may take. The stream itself has shorter limits; this one is for clients that go on sending.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// Ends a WebSocket with a code and a reason, and waits until the client had its chance to read them.
pub(crate) async fn farewell<IO>(stream: &mut ByteStream<IO>, code: u16, reason: &str)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    stream.closer().close_with(code, reason);
    // Its buffer is not part of this task, of which thousands wait that never come here.
    let mut ignored = tokio::io::sink();
    // Whoever does not listen misses it.
    let _ = timeout(LIMIT, tokio::io::copy(stream, &mut ignored)).await;
}
