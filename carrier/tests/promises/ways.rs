//! Whole ways: a dialer, a proxy, the envelope, the WebSocket and another TLS inside, on real sockets of this machine.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use umbra_carrier::dial::{DialError, Dialer, WsTarget};
use umbra_carrier::names::System;
use umbra_carrier::proxy::{Credentials, NoProxy, ProxySettings};
use umbra_carrier::tls::{
    Accepted, DatePolicy, EnvelopeTrust, SwappableIdentity, accept_by_alpn, accept_tls,
    connect_tls, envelope_acceptor_config, envelope_config, http_acceptor_config,
    link_acceptor_config,
};
use umbra_carrier::ws::{
    ByteStream, HeaderValue, UpgradeHead, WsError, check_upgrade, server_stream,
};

use crate::pki::*;

async fn head<IO: AsyncRead + Unpin>(io: &mut IO) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = head.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(": "))
        .map(|(_, value)| value)
}

struct Host {
    root: Authority,
    listener: TcpListener,
    identity: Arc<SwappableIdentity>,
}

impl Host {
    async fn new() -> Self {
        let root = Authority::root("root");
        let identity = root.server(&["gateway.test"]).identity(&[&root.der]);
        Self {
            root,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            identity: SwappableIdentity::new(&identity),
        }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    fn trust(&self) -> Arc<ClientConfig> {
        envelope_config(
            EnvelopeTrust::pinned(self.root.pinned()),
            DatePolicy::Enforce,
        )
        .unwrap()
    }

    fn target(&self) -> WsTarget {
        WsTarget {
            host: "gateway.test".to_owned(),
            port: self.port(),
            path: "/usg/tunnel".to_owned(),
            subprotocol: "umbra.tunnel.1".to_owned(),
            headers: vec![("Authorization".to_owned(), HeaderValue::bearer("token"))],
        }
    }

    async fn accept(&self) -> ByteStream<umbra_carrier::tls::ServerStream<TcpStream>> {
        let (tcp, _) = self.listener.accept().await.unwrap();
        let config = envelope_acceptor_config(Arc::clone(&self.identity));
        let mut tls = accept_tls(tcp, config, LONG).await.unwrap();
        let head = head(&mut tls).await;
        let upgrade = UpgradeHead {
            connection: field(&head, "Connection"),
            upgrade: field(&head, "Upgrade"),
            version: field(&head, "Sec-WebSocket-Version"),
            key: field(&head, "Sec-WebSocket-Key"),
            subprotocols: field(&head, "Sec-WebSocket-Protocol"),
            origin: field(&head, "Origin"),
        };
        let accept = check_upgrade(&upgrade, "umbra.tunnel.1").unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: umbra.tunnel.1\r\n\r\n"
        );
        tls.write_all(answer.as_bytes()).await.unwrap();
        tls.flush().await.unwrap();
        server_stream(tls, Vec::new(), None)
    }
}

/// A proxy that takes whatever name it is asked for as this machine's.
async fn http_proxy(expected: &'static str) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let run = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let head = head(&mut client).await;
        let target = head.split(' ').nth(1).unwrap().to_owned();
        if field(&head, "Proxy-Authorization") != (!expected.is_empty()).then_some(expected) {
            client.write_all(b"HTTP/1.1 407 No\r\n\r\n").await.unwrap();
            return target;
        }
        let port: u16 = target.rsplit_once(':').unwrap().1.parse().unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut server).await;
        target
    });
    (port, run)
}

async fn socks_proxy() -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let run = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 3];
        client.read_exact(&mut greeting).await.unwrap();
        client.write_all(&[5, 0]).await.unwrap();
        let mut request = [0; 5];
        client.read_exact(&mut request).await.unwrap();
        let mut name = vec![0; usize::from(request[4])];
        client.read_exact(&mut name).await.unwrap();
        let port = client.read_u16().await.unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client
            .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let _ = copy_bidirectional(&mut client, &mut server).await;
        String::from_utf8(name).unwrap()
    });
    (port, run)
}

async fn greet<A, B>(client: &mut A, server: &mut B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = [0; 5];
    client.write_all(b"hello").await.unwrap();
    client.flush().await.unwrap();
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
    server.write_all(b"there").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"there");
}

#[tokio::test]
async fn a_websocket_is_opened_through_either_kind_of_proxy_which_resolves_the_name() {
    // This name exists nowhere but in the proxies' minds.
    let host = Host::new().await;
    let (http, http_run) = http_proxy("Basic YWRhOmJ5cm9u").await;
    let (socks, socks_run) = socks_proxy().await;
    let credentials = Some(Credentials::new("ada", "byron"));
    let http = ProxySettings::http("127.0.0.1", http, credentials, NoProxy::default());
    let socks = ProxySettings::socks5("127.0.0.1", socks, None, NoProxy::default());
    let mut runs = vec![(http, http_run), (socks, socks_run)];
    for (settings, run) in runs.drain(..) {
        let dialer = Dialer::new(settings, &System);
        let target = host.target();
        let (client, mut server) = tokio::join!(
            dialer.websocket(&target, host.trust(), None, LONG),
            host.accept()
        );
        let mut client = client.unwrap();
        greet(&mut client, &mut server).await;
        let mut rest = Vec::new();
        let (shut, read) = tokio::join!(client.shutdown(), server.read_to_end(&mut rest));
        shut.unwrap();
        read.unwrap();
        drop((client, server));
        assert!(run.await.unwrap().starts_with("gateway.test"));
    }
}

#[tokio::test]
async fn without_a_proxy_and_for_its_exceptions_the_way_is_direct() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The end of a connection holds its port without listening on it: whoever asks this proxy fails.
    let held = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    listener.accept().await.unwrap();
    let refusing = held.local_addr().unwrap().port();
    let nowhere = |no_proxy| ProxySettings::http("127.0.0.1", refusing, None, no_proxy);
    for dialer in [
        Dialer::direct(&System),
        Dialer::new(nowhere(NoProxy::default()), &System),
    ] {
        let (stream, accepted) =
            tokio::join!(dialer.tcp("127.0.0.1", port, LONG), listener.accept());
        greet(&mut stream.unwrap(), &mut accepted.unwrap().0).await;
    }
    let told = Dialer::new(nowhere(NoProxy::default().with_loopback_proxied()), &System);
    let Err(error) = told.tcp("127.0.0.1", port, LONG).await else {
        panic!("nothing listens at the proxy");
    };
    assert_eq!(error.code(), "proxy_unreachable");
    let said = format!("the proxy http://127.0.0.1:{refusing} can't be reached");
    assert_eq!(error.to_string(), said);
}

#[tokio::test]
async fn each_layer_of_the_way_has_its_own_words() {
    let host = Host::new().await;
    let (proxy, _run) = http_proxy("Basic somebody-else").await;
    let settings = ProxySettings::http("127.0.0.1", proxy, None, NoProxy::default());
    let error = Dialer::new(settings, &System)
        .websocket(&host.target(), host.trust(), None, LONG)
        .await;
    assert_eq!(error.expect_err("407").code(), "proxy_credentials");

    let local = WsTarget {
        host: "127.0.0.1".to_owned(),
        ..host.target()
    };
    let answer = async {
        let (tcp, _) = host.listener.accept().await.unwrap();
        let config = envelope_acceptor_config(Arc::clone(&host.identity));
        let _ = accept_tls(tcp, config, LONG).await;
    };
    let dialer = Dialer::direct(&System);
    let (error, ()) = tokio::join!(dialer.websocket(&local, host.trust(), None, LONG), answer);
    assert_eq!(error.expect_err("another name").code(), "tls_certificate");

    let identity = host.root.server(&["127.0.0.1"]).identity(&[]);
    host.identity.swap(&identity);
    let answer = async {
        let (tcp, _) = host.listener.accept().await.unwrap();
        let config = envelope_acceptor_config(Arc::clone(&host.identity));
        let mut tls = accept_tls(tcp, config, LONG).await.unwrap();
        head(&mut tls).await;
        let body =
            r#"{"code":"no_server","sentence":"No server is here.","retry_after_seconds":5}"#;
        let length = body.len();
        let answer = format!("HTTP/1.1 503 x\r\nContent-Length: {length}\r\n\r\n{body}");
        tls.write_all(answer.as_bytes()).await.unwrap();
        tls.flush().await.unwrap();
        let _ = tls.read(&mut [0; 1]).await;
    };
    let (error, ()) = tokio::join!(dialer.websocket(&local, host.trust(), None, LONG), answer);
    let error = error.expect_err("refused");
    assert!(matches!(
        error,
        DialError::WebSocket(WsError::Refused { status: 503, .. })
    ));
    assert_eq!(error.code(), "no_server");
    assert_eq!(error.retry_after().map(|delay| delay.as_secs()), Some(5));
}

#[tokio::test]
async fn an_inner_tls_ends_cleanly_through_a_splice_of_two_websockets() {
    let gateway = Host::new().await;
    let target = gateway.target();
    let local = Dialer::new(ProxySettings::none(), &System);
    gateway
        .identity
        .swap(&gateway.root.server(&["127.0.0.1"]).identity(&[]));
    let target = WsTarget {
        host: "127.0.0.1".to_owned(),
        ..target
    };
    let device = local.websocket(&target, gateway.trust(), None, LONG);
    let (device, mut from_device) = tokio::join!(device, gateway.accept());
    let console = local.websocket(&target, gateway.trust(), None, LONG);
    let (console, mut from_console) = tokio::join!(console, gateway.accept());
    let splice =
        tokio::spawn(async move { copy_bidirectional(&mut from_device, &mut from_console).await });

    // The device is the server of the inner TLS, as in a shadowing session.
    let root = Authority::root("inner");
    let identity = root.server(&["inner.test"]).identity(&[]);
    let (link, http) = (
        link_acceptor_config(&identity),
        http_acceptor_config(&identity),
    );
    let (inner_console, inner_device) = tokio::join!(
        connect_tls(
            console.unwrap(),
            http_client(root.pinned()),
            "inner.test",
            LONG
        ),
        accept_by_alpn(device.unwrap(), link, http, LONG)
    );
    let mut console = inner_console.unwrap();
    let Ok(Accepted::Http(mut device)) = inner_device else {
        panic!("no HTTP")
    };
    greet(&mut console, &mut device).await;

    // The device says a lot, and then that it is done; all of it arrives, and nobody is told of a broken connection.
    let much = vec![7; 1_000_000];
    let mut read = Vec::new();
    let saying = async {
        device.write_all(&much).await.unwrap();
        device.shutdown().await.unwrap();
    };
    let (result, ()) = tokio::join!(console.read_to_end(&mut read), saying);
    result.expect("an orderly end");
    assert_eq!(read.len(), much.len());
    console.shutdown().await.unwrap();
    splice.await.unwrap().expect("the splice ends in peace");
}
