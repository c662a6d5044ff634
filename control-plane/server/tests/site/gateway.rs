//! A scripted gateway: real TLS, WebSocket and streams, and nothing that happens by itself. What a test does not say, it
//! does not say.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use umbra_carrier::framed::{FrameReader, FrameWriter};
use umbra_carrier::io::{BoxIo, boxed};
use umbra_carrier::tls::{
    SwappableIdentity, TlsIdentity, accept_tls, accept_uplink, certificates_from_pem,
    envelope_acceptor_config, uplink_acceptor_config,
};
use umbra_carrier::ws::{self, Closer, UpgradeHead, check_upgrade};
use umbra_protocol::gateway::{
    Attached, FRAME, FromGateway, PATH_UPLINK, SUBPROTOCOL_UPLINK, StreamHead, ToGateway,
};
use umbra_protocol::{decode, encode};

use super::{Api, PATIENCE};

/// A gateway that is on file and listens.
pub struct Gateway {
    pub name: String,
    pub address: SocketAddr,
    listener: TcpListener,
    envelope: Arc<ServerConfig>,
    inner: Arc<ServerConfig>,
}

impl Gateway {
    /// Makes one through the API, and has its keystore.
    pub async fn new(api: &Api, name: &str, more: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut wanted = json!({ "name": name, "internal": address.to_string() });
        for (name, value) in more.as_object().expect("an object") {
            wanted[name] = value.clone();
        }
        let (status, keystore) = api.ask("POST", "/gateways", Some(wanted)).await;
        assert_eq!(status, 201, "{keystore}");
        let text = |name: &str| keystore[name].as_str().expect("a PEM").to_owned();
        let identity = TlsIdentity::from_pem(&text("chain"), &text("key")).expect("a pair");
        let servers = certificates_from_pem(&text("servers")).expect("certificates");
        Self::with(name, listener, &identity, servers)
    }

    /// With an identity of one's own.
    pub fn with(
        name: &str,
        listener: TcpListener,
        identity: &TlsIdentity,
        servers: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            address: listener.local_addr().expect("an address"),
            listener,
            envelope: envelope_acceptor_config(SwappableIdentity::new(identity)),
            inner: uplink_acceptor_config(identity, servers),
        }
    }

    /// The next connection of the server, as far as the WebSocket.
    async fn websocket(&self) -> Option<(BoxIo, Closer)> {
        let (tcp, _) = self.listener.accept().await.ok()?;
        let mut tls = accept_tls(tcp, Arc::clone(&self.envelope), PATIENCE)
            .await
            .ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tls.read_u8().await.ok()?);
            assert!(head.len() < 8_192, "the head ends");
        }
        let head = String::from_utf8(head).expect("text");
        assert!(
            head.starts_with(&format!("GET {PATH_UPLINK} HTTP/1.1\r\n")),
            "{head}"
        );
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (field, value) = line.split_once(':')?;
                field.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let accept = check_upgrade(
            &UpgradeHead {
                connection: field("connection"),
                upgrade: field("upgrade"),
                version: field("sec-websocket-version"),
                key: field("sec-websocket-key"),
                subprotocols: field("sec-websocket-protocol"),
                origin: field("origin"),
            },
            SUBPROTOCOL_UPLINK,
        )
        .expect("an upgrade");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL_UPLINK}\r\n\r\n"
        );
        tls.write_all(answer.as_bytes()).await.ok()?;
        tls.flush().await.ok()?;
        let stream = ws::server_stream(tls, Vec::new(), None);
        let closer = stream.closer();
        Some((boxed(stream), closer))
    }

    /// The next uplink, which has said its first words; nothing was answered.
    pub async fn uplink(&self) -> Uplink {
        let all = async {
            loop {
                let Some((stream, closer)) = self.websocket().await else {
                    continue;
                };
                let accepted = accept_uplink(stream, Arc::clone(&self.inner), PATIENCE).await;
                let Ok((stream, certificate)) = accepted else {
                    continue;
                };
                return Uplink::new(stream, certificate, closer).await;
            }
        };
        timeout(PATIENCE, all).await.expect("an uplink in time")
    }

    /// The next uplink, attached.
    pub async fn attached(&self) -> Uplink {
        let mut uplink = self.uplink().await;
        uplink.attach().await;
        uplink
    }

    /// Lets the server's next connection go as far as the TLS inside and ends it there; says whether it showed a
    /// certificate that this gateway knows.
    pub async fn judges(&self) -> bool {
        let all = async {
            loop {
                if let Some((stream, _)) = self.websocket().await {
                    let inner = Arc::clone(&self.inner);
                    return accept_uplink(stream, inner, PATIENCE).await.is_ok();
                }
            }
        };
        timeout(PATIENCE, all).await.expect("a connection in time")
    }
}

type Control = Compat<yamux::Stream>;
type Wish = oneshot::Sender<Control>;

/// One uplink of the server, seen from the gateway.
pub struct Uplink {
    pub certificate: CertificateDer<'static>,
    pub closer: Closer,
    /// The server's first words.
    pub first: ToGateway,
    reader: FrameReader<ReadHalf<Control>>,
    writer: FrameWriter<WriteHalf<Control>>,
    wishes: mpsc::Sender<Wish>,
    next: u64,
    tasks: JoinSet<()>,
}

impl Uplink {
    async fn new(
        stream: impl umbra_carrier::io::Io + 'static,
        certificate: CertificateDer<'static>,
        closer: Closer,
    ) -> Self {
        let mut config = yamux::Config::default();
        config.set_max_connection_receive_window(None);
        config.set_max_num_streams(10_000);
        let mut yamux = yamux::Connection::new(stream.compat(), config, yamux::Mode::Server);
        let (control_in, control) = oneshot::channel();
        let (wishes, mut wished) = mpsc::channel::<Wish>(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let Some(Ok(stream)) = std::future::poll_fn(|cx| yamux.poll_next_inbound(cx)).await
            else {
                return;
            };
            control_in.send(stream.compat()).expect("wanted");
            let mut pending: Option<Wish> = None;
            std::future::poll_fn(|cx| {
                loop {
                    if pending.is_none() {
                        match wished.poll_recv(cx) {
                            Poll::Ready(Some(wish)) => pending = Some(wish),
                            Poll::Ready(None) => return Poll::Ready(()),
                            Poll::Pending => {}
                        }
                    }
                    if pending.is_some() {
                        match yamux.poll_new_outbound(cx) {
                            Poll::Ready(Ok(stream)) => {
                                let wish = pending.take().expect("looked at");
                                let _ = wish.send(stream.compat());
                                continue;
                            }
                            Poll::Ready(Err(_)) => return Poll::Ready(()),
                            Poll::Pending => {}
                        }
                    }
                    match yamux.poll_next_inbound(cx) {
                        Poll::Ready(Some(Ok(_))) => panic!("the server opens one stream only"),
                        Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await;
        });
        let control = timeout(PATIENCE, control)
            .await
            .expect("a control stream in time")
            .expect("a control stream");
        let (read, write) = tokio::io::split(control);
        let mut uplink = Self {
            certificate,
            closer,
            first: umbra_protocol::link::Beat { number: 0 }.into(),
            reader: FrameReader::new(read),
            writer: FrameWriter::new(write),
            wishes,
            next: 1,
            tasks,
        };
        uplink.first = uplink.hear().await;
        uplink
    }

    pub async fn attach(&mut self) {
        self.say(Attached {
            version: 1,
            gateway_version: "7.7.7".into(),
            connections: 0,
        })
        .await;
    }

    pub async fn say(&mut self, word: impl Into<FromGateway>) {
        self.writer.send(&encode(&word.into())).await.expect("sent");
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        self.writer.send(bytes).await.expect("sent");
    }

    /// The server's next word, heartbeats left out.
    pub async fn hear(&mut self) -> ToGateway {
        loop {
            let frame = timeout(PATIENCE, self.reader.next(FRAME))
                .await
                .expect("heard in time")
                .expect("whole")
                .expect("not over");
            match decode(&frame, FRAME).expect("understood") {
                ToGateway::Ping(_) if self.next > 0 => {}
                word => return word,
            }
        }
    }

    /// Whether the server ends the uplink.
    pub async fn ends(&mut self) -> bool {
        loop {
            match timeout(PATIENCE, self.reader.next(FRAME)).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None) | Err(_)) => return true,
                Err(_) => return false,
            }
        }
    }

    /// A stream to the server, without a head.
    pub async fn stream(&mut self) -> Control {
        let (wish, wished) = oneshot::channel();
        self.wishes.send(wish).await.expect("the uplink stands");
        timeout(PATIENCE, wished)
            .await
            .expect("opened in time")
            .expect("opened")
    }

    /// A device's stream, with its head; says its number.
    pub async fn device_stream(&mut self, from: &str) -> (u64, Control) {
        let number = self.next;
        self.next += 1;
        let mut stream = self.stream().await;
        let head = StreamHead {
            stream: number,
            from: from.parse::<IpAddr>().expect("an address"),
            label: "TC-1".into(),
        };
        let head = head.encode();
        let length = u32::try_from(head.len()).expect("small");
        stream.write_all(&length.to_be_bytes()).await.expect("sent");
        stream.write_all(&head).await.expect("sent");
        stream.flush().await.expect("sent");
        (number, stream)
    }

    /// A place where one device can connect, as it would at the gateway.
    pub async fn door(&mut self, from: &str) -> (u64, SocketAddr) {
        let (number, mut stream) = self.device_stream(from).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        self.tasks.spawn(async move {
            let (mut tcp, _): (TcpStream, _) = listener.accept().await.expect("a device");
            let _ = tokio::io::copy_bidirectional(&mut tcp, &mut stream).await;
        });
        (number, address)
    }
}
