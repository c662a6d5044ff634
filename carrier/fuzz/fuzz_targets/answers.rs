//! Whatever answers: a proxy, a gateway before the upgrade, a WebSocket after it. The first byte chooses who is asked. No
//! answer panics, none is waited for without end, and no secret of ours is in what is told about it.
#![no_main]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use umbra_carrier::proxy::{Credentials, NoProxy, Proxy, ProxyKind, ProxySettings, through};
use umbra_carrier::ws::{Closed, HeaderValue, Request, check_upgrade, connect, server_stream, UpgradeHead};

const SECRET: &str = "a-secret-of-ours";

/// Gives bytes in pieces and then ends; takes everything.
struct Answer<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl AsyncRead for Answer<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.piece.min(self.bytes.len()).min(buffer.remaining());
        let (now, later) = self.bytes.split_at(count);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Answer<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn told(shown: &str, answer: &[u8]) {
    // Somebody else may know it too; and a JSON text may have it escaped.
    let knew = answer.contains(&b'\\') || answer.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(knew || !shown.contains(SECRET), "{shown}");
    // No answer can steer a terminal.
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

async fn ask(who: u8, answer: Answer<'_>) {
    let deadline = Duration::from_secs(1);
    let bytes = answer.bytes;
    let credentials = (who & 4 != 0).then(|| Credentials::new("ada", SECRET));
    match who & 3 {
        kind @ (0 | 1) => {
            let kind = if kind == 0 { ProxyKind::Http } else { ProxyKind::Socks5 };
            let proxy = Proxy { kind, host: "proxy.test".to_owned(), port: 1, credentials };
            match through(answer, &proxy, "gateway.test", 8443, deadline).await {
                Ok(mut tunnel) => {
                    let _ = tunnel.read_to_end(&mut Vec::new()).await;
                }
                Err(error) => told(&format!("{error} {error:?}"), bytes),
            }
        }
        2 => {
            let request = Request {
                host: "gateway.test".to_owned(),
                port: 8443,
                path: "/".to_owned(),
                subprotocol: "umbra.link.1".to_owned(),
                headers: vec![("Authorization".to_owned(), HeaderValue::bearer(SECRET))],
            };
            if let Err(error) = connect(answer, &request, None, deadline).await {
                told(&format!("{error} {}", error.code()), bytes);
            }
        }
        _ => {
            let mut stream = server_stream(answer, Vec::new(), None);
            let mut read = Vec::new();
            let result = stream.read_to_end(&mut read).await;
            assert!(read.len() <= bytes.len());
            if let Err(error) = result {
                told(&error.to_string(), bytes);
                if let Some(closed) = Closed::of(&error) {
                    told(&format!("{:?} {:?}", closed.code_word(), closed.sentence()), bytes);
                }
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [who, piece, bytes @ ..] = data else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let piece = usize::from(*piece) + 1;
    runtime.block_on(ask(*who, Answer { bytes, piece }));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = ProxySettings::from_url(text, NoProxy::default());
        let _ = NoProxy::parse(text).covers(text, 1);
        let head = UpgradeHead {
            connection: Some("upgrade"),
            upgrade: Some("websocket"),
            version: Some("13"),
            key: Some(text),
            subprotocols: Some(text),
            origin: None,
        };
        let _ = check_upgrade(&head, "umbra.link.1");
    }
});
