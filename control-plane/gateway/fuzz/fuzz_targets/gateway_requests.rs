//! What anybody sends to a gateway's port behind TLS. The first byte chooses the size of the pieces. What holds: no request panics, none
//! is waited for without end, none gets more than one answer, and nobody is let in while no server is there.
#![no_main]

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use umbra_carrier::tls::TlsIdentity;
use umbra_gateway::accept::fuzzing::request;
use umbra_gateway::addresses::Network;
use umbra_gateway::gateway::Gateway;
use umbra_gateway::keystore::Keys;
use umbra_gateway::timing::Timing;

/// Gives bytes in pieces and then ends; keeps what is answered.
struct Stranger {
    bytes: Vec<u8>,
    given: usize,
    piece: usize,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Stranger {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = (self.given + self.piece.min(buffer.remaining())).min(self.bytes.len());
        buffer.put_slice(&self.bytes[self.given..end]);
        self.given = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stranger {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.answer.lock().expect("whole").extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["gw.test".to_owned()]).expect("a certificate");
        let identity = TlsIdentity::from_pem(&made.cert.pem(), &made.signing_key.serialize_pem()).expect("an identity");
        Keys { identity, servers: vec![made.cert.der().clone()], valid: i64::MIN..=i64::MAX, warnings: Vec::new() }
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let answer = Arc::new(Mutex::new(Vec::new()));
    let stranger =
        Stranger { bytes: bytes.to_vec(), given: 0, piece: usize::from(piece) + 1, answer: Arc::clone(&answer) };
    runtime.block_on(async {
        let gateway = Gateway::new(keys(), Timing::default());
        let from: IpAddr = "192.0.2.1".parse().expect("an address");
        let trusted: Arc<[Network]> = Arc::new(["192.0.2.0/24".parse().expect("a network")]);
        request(&gateway, stranger, from, trusted).await;
        gateway.tasks.close();
        // What was upgraded ends with its connection, or in its time.
        gateway.tasks.wait().await;
        let gauges = gateway.gauges();
        assert_eq!((gauges.devices, gauges.strangers, gauges.uplinks), (0, 0, 0), "somebody was let in");
        assert_eq!((gauges.tunnels_waiting, gauges.tunnels_running), (0, 0));
    });
    let answer = answer.lock().expect("whole");
    assert!(answer.len() < 16 * 1024, "more than an answer");
    if !answer.is_empty() {
        assert!(answer.starts_with(b"HTTP/1.1 ") || answer.starts_with(b"HTTP/1.0 "));
        if answer[9..12] == *b"101" {
            let head = String::from_utf8_lossy(bytes).to_ascii_lowercase();
            assert!(head.contains("sec-websocket-key") && head.contains("umbra."), "upgraded without having asked for it");
        }
    }
});
