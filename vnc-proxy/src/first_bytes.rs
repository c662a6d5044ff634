//! Tells by the first byte who is calling on a port that TLS clients and plain VNC viewers share: a TLS client speaks first, a
//! viewer waits to be greeted. It takes no byte away and greets nobody: the caller decides what the secure mode allows.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// The type byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Who is calling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A TLS client.
    Tls,
    /// Nobody spoke until the wait was over: how a plain VNC viewer behaves.
    PlainViewer,
    /// The other side closed, or the connection broke.
    Closed,
    /// Somebody spoke who is neither.
    Garbage,
}

/// Looks at the first byte without taking it, for at most this long.
pub async fn sniff(stream: &TcpStream, wait: Duration) -> Opening {
    let mut first = [0];
    match timeout(wait, stream.peek(&mut first)).await {
        Err(_) => Opening::PlainViewer,
        Ok(Err(_) | Ok(0)) => Opening::Closed,
        Ok(Ok(_)) if first[0] == TLS_HANDSHAKE => Opening::Tls,
        Ok(Ok(_)) => Opening::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.expect("connected"), server.expect("accepted").0)
    }

    #[tokio::test]
    async fn a_tls_client_is_recognised_and_its_byte_left_in_place() {
        let (mut client, mut server) = pair().await;
        client.write_all(&[0x16, 3, 1]).await.expect("sent");
        assert_eq!(sniff(&server, LONG).await, Opening::Tls);
        let mut record = [0; 3];
        server.read_exact(&mut record).await.expect("still there");
        assert_eq!(record, [0x16, 3, 1]);
    }

    #[tokio::test]
    async fn a_silent_caller_is_taken_for_a_plain_viewer() {
        let (_client, server) = pair().await;
        assert_eq!(
            sniff(&server, Duration::from_millis(20)).await,
            Opening::PlainViewer
        );
    }

    #[tokio::test]
    async fn a_caller_that_closes_and_one_that_babbles_are_told_apart() {
        let (client, server) = pair().await;
        drop(client);
        assert_eq!(sniff(&server, LONG).await, Opening::Closed);
        let (mut client, server) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
        assert_eq!(sniff(&server, LONG).await, Opening::Garbage);
    }
}
