//! Both ends against each other, and each end against scripted bytes.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tungstenite::protocol::Role;

use super::*;

/// Long enough never to be reached.
const LONG: Duration = Duration::from_secs(20);

fn pair() -> (ByteStream<DuplexStream>, ByteStream<DuplexStream>) {
    let (client, server) = duplex(4096);
    (
        ByteStream::new(client, Vec::new(), Role::Client, None),
        server_stream(server, Vec::new(), None),
    )
}

#[tokio::test]
async fn a_large_text_passes_both_ways_at_once_and_ends_cleanly() {
    let (client, server) = pair();
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let end = |stream: ByteStream<DuplexStream>| {
        let sent = sent.clone();
        async move {
            let (mut read, mut write) = split(stream);
            let writing = tokio::spawn(async move {
                write.write_all(&sent).await.unwrap();
                write.flush().await.unwrap();
                write
            });
            let mut got = vec![0; 300_000];
            read.read_exact(&mut got).await.unwrap();
            let write = writing.await.unwrap();
            (got, read.unsplit(write))
        }
    };
    let ((at_client, mut client), (at_server, mut server)) = tokio::join!(end(client), end(server));
    assert_eq!(at_client, sent);
    assert_eq!(at_server, sent);
    let mut rest = Vec::new();
    let (shut, read) = tokio::join!(client.shutdown(), server.read_to_end(&mut rest));
    shut.unwrap();
    assert_eq!(read.unwrap(), 0);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_closer_ends_both_ends_and_its_reason_reaches_the_peer() {
    let (mut client, mut server) = pair();
    let text = reason(
        "shutting_down",
        Some(Duration::from_secs(17)),
        "The gateway restarts.",
    );
    server.closer().close_with(close::RESTART, &text);
    let (mut there, mut here) = ([0; 8], [0; 8]);
    let (at_client, at_server) = tokio::join!(client.read(&mut there), server.read(&mut here));
    let at_client = at_client.expect_err("the stream is closed");
    let closed = Closed::of(&at_client).expect("it says why");
    assert_eq!(closed.code, close::RESTART);
    assert_eq!(closed.code_word(), Some("shutting_down"));
    assert_eq!(closed.sentence(), "The gateway restarts.");
    assert_eq!(closed.retry_after, Some(Duration::from_secs(17)));
    assert!(!closed.by_us);
    let at_server = at_server.expect_err("the stream is closed");
    assert!(Closed::of(&at_server).expect("it says why").by_us);
}

#[tokio::test]
async fn the_handshake_of_both_halves_fits_together() {
    let (client, mut server) = duplex(4096);
    let request = Request {
        host: "gateway.example.com".into(),
        port: 8443,
        path: "/usg/tunnel".into(),
        subprotocol: "umbra.tunnel.1".into(),
        headers: vec![("Authorization".into(), HeaderValue::bearer("secret"))],
    };
    assert!(!format!("{request:?}").contains("secret"));
    let serve = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(server.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let field = |name: &str| {
            let line = head.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": "))
                .map(|(_, value)| value)
        };
        assert!(head.starts_with("GET /usg/tunnel HTTP/1.1\r\n"));
        assert_eq!(field("Host"), Some("gateway.example.com:8443"));
        assert_eq!(field("Authorization"), Some("Bearer secret"));
        let upgrade = UpgradeHead {
            connection: field("Connection"),
            upgrade: field("Upgrade"),
            version: field("Sec-WebSocket-Version"),
            key: field("Sec-WebSocket-Key"),
            subprotocols: field("Sec-WebSocket-Protocol"),
            origin: field("Origin"),
        };
        let accept = check_upgrade(&upgrade, "umbra.tunnel.1").unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: umbra.tunnel.1\r\n\r\n"
        );
        server.write_all(answer.as_bytes()).await.unwrap();
        let mut stream = server_stream(server, Vec::new(), None);
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (client, _server) = tokio::join!(connect(client, &request, None, LONG), serve);
    let mut greeting = [0; 5];
    client.unwrap().read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello");
}
