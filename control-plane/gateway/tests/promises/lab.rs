//! A gateway on loopback, a server that does what a test tells it to, and devices and consoles.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use umbra_carrier::dial::{DialError, Dialer};
use umbra_carrier::framed::{FrameReader, FrameWriter};
use umbra_carrier::io::{BoxIo, boxed};
use umbra_carrier::tls::{
    DatePolicy, EnvelopeTrust, ServerTrust, TlsIdentity, connect_tls, envelope_config,
    uplink_config,
};
use umbra_carrier::ws::{ByteStream, Closed, HeaderValue, Request};
use umbra_gateway::config::{Config, Keystore, Plaintext};
use umbra_gateway::run;
use umbra_gateway::shutdown::{self, Wishes};
use umbra_gateway::timing::Timing;
use umbra_protocol::gateway::{
    Attach, FromGateway, OpenRendezvous, PATH_ENDPOINT, PATH_TUNNEL, PATH_UPLINK, SUBPROTOCOL_LINK,
    SUBPROTOCOL_TUNNEL, SUBPROTOCOL_UPLINK, StreamHead, ToGateway, TunnelSide, VERSIONS,
    token_hash,
};
use umbra_protocol::{RendezvousId, ServerRoot, decode, encode};

/// The end of patience.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) type Outer = TlsStream<BoxIo>;
pub(crate) type Client = ByteStream<Outer>;

/// Whatever is waited for comes, or the test fails.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Waits for a state.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A CA with a certificate of the gateway.
pub(crate) struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { root }
    }

    /// A new chain and key of the gateway, as PEM.
    pub(crate) fn gateway(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "gateway");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.root).unwrap();
        (certificate.pem() + &self.root.pem(), key.serialize_pem())
    }
}

/// A server's uplink certificate.
pub(crate) fn uplink_identity() -> (TlsIdentity, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "umbra uplink");
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let pem = params.self_signed(&key).unwrap().pem();
    let identity = TlsIdentity::from_pem(&pem, &key.serialize_pem()).unwrap();
    (identity, pem)
}

/// A gateway with its keystore, and the identities of two servers that it knows.
pub(crate) struct Lab {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) plaintext: Option<SocketAddr>,
    pub(crate) wishes: Wishes,
    pub(crate) pki: Pki,
    pub(crate) servers: [TlsIdentity; 2],
    pub(crate) server_pems: [String; 2],
    pub(crate) folder: TempDir,
    serving: JoinHandle<()>,
}

fn keystore(folder: &Path) -> Keystore {
    Keystore {
        chain: folder.join("chain.pem"),
        key: folder.join("key.pem"),
        servers: folder.join("servers.pem"),
    }
}

/// What a test wants otherwise.
pub(crate) struct Wanted {
    pub(crate) timing: Timing,
    pub(crate) drain: Duration,
    pub(crate) trusted: &'static [&'static str],
    pub(crate) plaintext_from: Option<&'static str>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            drain: Duration::from_secs(10),
            trusted: &[],
            plaintext_from: None,
        }
    }
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::with(Wanted::default()).await
    }

    pub(crate) async fn timed(change: impl FnOnce(&mut Timing)) -> Self {
        let mut wanted = Wanted::default();
        change(&mut wanted.timing);
        Self::with(wanted).await
    }

    pub(crate) async fn with(wanted: Wanted) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let (chain, key) = pki.gateway();
        let (first, first_pem) = uplink_identity();
        let (second, second_pem) = uplink_identity();
        let files = keystore(folder.path());
        for (path, text) in [
            (&files.chain, &chain),
            (&files.key, &key),
            (&files.servers, &format!("{first_pem}{second_pem}")),
        ] {
            std::fs::write(path, text).unwrap();
        }
        let any = "127.0.0.1:0".parse().unwrap();
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let config = Config {
            keystore: files,
            listen: any,
            metrics: any,
            plaintext: wanted.plaintext_from.map(|from| Plaintext {
                listen: any,
                from: networks(&[from]),
            }),
            trusted: networks(wanted.trusted),
            drain: wanted.drain,
        };
        let ready = run::start(&config, wanted.timing).await.unwrap();
        let (wishes, signals) = shutdown::channel();
        Self {
            address: ready.address,
            metrics: ready.metrics,
            plaintext: ready.plaintext,
            wishes,
            pki,
            servers: [first, second],
            server_pems: [first_pem, second_pem],
            folder,
            serving: tokio::spawn(ready.serve(signals)),
        }
    }

    /// Asks the gateway to stop and waits for it.
    pub(crate) async fn stopped(self) {
        self.wishes.stop();
        within("the end of the gateway", self.serving)
            .await
            .unwrap();
    }

    pub(crate) fn keystore(&self) -> Keystore {
        keystore(self.folder.path())
    }

    fn trust(&self) -> ServerTrust {
        ServerTrust::PinnedRoots(vec![self.pki.root.der().clone()])
    }

    pub(crate) async fn tls(&self) -> Outer {
        self.try_tls().await.unwrap()
    }

    pub(crate) async fn try_tls(&self) -> Result<Outer, DialError> {
        let tls =
            envelope_config(EnvelopeTrust::pinned(self.trust()), DatePolicy::Enforce).unwrap();
        let port = self.address.port();
        Dialer::direct(&umbra_carrier::names::System)
            .tls("127.0.0.1", port, tls, LIMIT)
            .await
    }

    /// Over a connection that stands already.
    pub(crate) async fn tls_over(&self, stream: DuplexStream) -> Outer {
        let tls =
            envelope_config(EnvelopeTrust::pinned(self.trust()), DatePolicy::Enforce).unwrap();
        connect_tls(boxed(stream), tls, "127.0.0.1", LIMIT)
            .await
            .unwrap()
    }

    pub(crate) async fn dial(
        &self,
        path: &str,
        subprotocol: &str,
        headers: &[(&str, &str)],
    ) -> Result<Client, DialError> {
        let tls =
            envelope_config(EnvelopeTrust::pinned(self.trust()), DatePolicy::Enforce).unwrap();
        let request = Request {
            host: "127.0.0.1".to_owned(),
            port: self.address.port(),
            path: path.to_owned(),
            subprotocol: subprotocol.to_owned(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), HeaderValue::from(*value)))
                .collect(),
        };
        Dialer::direct(&umbra_carrier::names::System)
            .websocket(&request, tls, None, LIMIT)
            .await
    }

    pub(crate) async fn device(&self) -> Client {
        self.try_device(&[("Umbra-Device", "TC-1")]).await.unwrap()
    }

    pub(crate) async fn try_device(&self, headers: &[(&str, &str)]) -> Result<Client, DialError> {
        self.dial(PATH_ENDPOINT, SUBPROTOCOL_LINK, headers).await
    }

    pub(crate) async fn tunnel(&self, token: &str, side: TunnelSide) -> Result<Client, DialError> {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Umbra-Side", side.as_str()),
        ];
        self.dial(PATH_TUNNEL, SUBPROTOCOL_TUNNEL, &headers).await
    }

    /// The first server, attached.
    pub(crate) async fn server(&self) -> Server {
        self.attached(0, None).await
    }

    /// A server, attached; its root is its number.
    pub(crate) async fn attached(&self, number: usize, limit: Option<u32>) -> Server {
        let mut server = self.uplink(&self.servers[number]).await.unwrap();
        server.say(attach(number, limit)).await;
        let answer = server.heard().await;
        assert!(matches!(answer, FromGateway::Attached(_)), "{answer:?}");
        server
    }

    /// An uplink on which nothing was said so far.
    pub(crate) async fn uplink(&self, identity: &TlsIdentity) -> Result<Server, String> {
        let envelope = self
            .dial(PATH_UPLINK, SUBPROTOCOL_UPLINK, &[])
            .await
            .map_err(|error| error.code().to_owned())?;
        let config = uplink_config(identity, self.trust(), DatePolicy::Enforce).unwrap();
        let inner = connect_tls(envelope, config, "127.0.0.1", LIMIT)
            .await
            .map_err(|error| error.to_string())?;
        let (requests, wanted) = mpsc::channel(8);
        let (inbound, streams) = mpsc::channel(256);
        let connection = yamux::Connection::new(
            inner.compat(),
            yamux::Config::default(),
            yamux::Mode::Client,
        );
        let driving = tokio::spawn(drive(connection, wanted, inbound));
        let (sender, control) = oneshot::channel();
        requests.send(sender).await.unwrap();
        let (reader, writer) = split(control.await.map_err(|_| "no stream")?.compat());
        Ok(Server {
            reader: FrameReader::new(reader),
            writer: FrameWriter::new(writer),
            streams,
            driving,
            _requests: requests,
        })
    }

    /// The value of a metric; 0 if it isn't there.
    pub(crate) async fn metric(&self, name: &str) -> i64 {
        let page = http(self.metrics, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_default()
    }

    pub(crate) async fn until_metric(&self, name: &str, value: i64) {
        until(&format!("{name} to be {value}"), async || {
            self.metric(name).await == value
        })
        .await;
    }
}

/// The answer to a request without TLS.
pub(crate) async fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // An answer followed by a reset is an answer.
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn root(number: usize) -> ServerRoot {
    ServerRoot::from_bytes([u8::try_from(number).unwrap(); 32])
}

pub(crate) fn attach(number: usize, limit: Option<u32>) -> ToGateway {
    Attach {
        versions: VERSIONS.to_vec(),
        server_root: root(number),
        server_name: format!("ums-{number}"),
        limit,
    }
    .into()
}

/// A rendezvous with the tokens “device N” and “console N”.
pub(crate) fn rendezvous(number: u8, seconds: u32) -> OpenRendezvous {
    OpenRendezvous {
        id: RendezvousId::from_bytes([number; 16]),
        device: token_hash(&token(number, TunnelSide::Device)),
        console: token_hash(&token(number, TunnelSide::Console)),
        expires_in_seconds: seconds,
    }
}

pub(crate) fn token(number: u8, side: TunnelSide) -> String {
    format!("{side}-{number}")
}

/// A server's uplink.
pub(crate) struct Server {
    reader: FrameReader<ReadHalf<Compat<yamux::Stream>>>,
    writer: FrameWriter<WriteHalf<Compat<yamux::Stream>>>,
    streams: mpsc::Receiver<yamux::Stream>,
    driving: JoinHandle<()>,
    _requests: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
}

/// A device's stream, as its server sees it.
pub(crate) struct Carried {
    pub(crate) head: StreamHead,
    pub(crate) stream: Compat<yamux::Stream>,
}

impl Server {
    pub(crate) async fn say(&mut self, message: impl Into<ToGateway>) {
        self.say_raw(&encode(&message.into())).await;
    }

    pub(crate) async fn say_raw(&mut self, bytes: &[u8]) {
        self.writer.send(bytes).await.unwrap();
    }

    pub(crate) async fn heard(&mut self) -> FromGateway {
        let frame = within("the gateway's word", self.reader.next(16 * 1024)).await;
        decode(&frame.unwrap().expect("not the end"), 16 * 1024).unwrap()
    }

    /// Reads until the uplink is over.
    pub(crate) async fn over(mut self) {
        within("the end of the uplink", async {
            while matches!(self.reader.next(16 * 1024).await, Ok(Some(_))) {}
        })
        .await;
    }

    /// The next device.
    pub(crate) async fn carried(&mut self) -> Carried {
        let stream = within("a device", self.streams.recv()).await;
        let mut stream = stream.expect("the uplink stands").compat();
        let mut reader = FrameReader::new(&mut stream);
        let head = within("its head", reader.next(1024))
            .await
            .unwrap()
            .unwrap();
        Carried {
            head: StreamHead::decode(&head).unwrap(),
            stream,
        }
    }

    /// The next device, admitted.
    pub(crate) async fn admitted(&mut self) -> Carried {
        let carried = self.carried().await;
        let stream = carried.head.stream;
        self.say(umbra_protocol::gateway::Admit { stream }).await;
        carried
    }

    pub(crate) fn nobody_else(&mut self) -> bool {
        self.streams.try_recv().is_err()
    }

    /// As if the cable were cut.
    pub(crate) fn cut(self) {
        self.driving.abort();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

async fn drive<T>(
    mut connection: yamux::Connection<T>,
    mut wanted: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    inbound: mpsc::Sender<yamux::Stream>,
) where
    T: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin,
{
    std::future::poll_fn(|context| {
        loop {
            if let Poll::Ready(Some(request)) = wanted.poll_recv(context) {
                match connection.poll_new_outbound(context) {
                    Poll::Ready(Ok(stream)) => drop(request.send(stream)),
                    other => panic!("{other:?}"),
                }
                continue;
            }
            match connection.poll_next_inbound(context) {
                Poll::Ready(Some(Ok(stream))) => drop(inbound.try_send(stream)),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// How a WebSocket ends that only ever is read.
pub(crate) async fn end_of(client: &mut Client) -> Closed {
    let error = within("the end of a WebSocket", async {
        let mut ignored = [0; 4096];
        loop {
            match client.read(&mut ignored).await {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(error),
            }
        }
    })
    .await;
    match error {
        None => Closed::read(1000, ""),
        Some(error) => match Closed::of(&error) {
            Some(closed) => closed.clone(),
            None => panic!("no farewell: {error:?}"),
        },
    }
}

/// Sends and receives, both ways.
pub(crate) async fn talk(
    a: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    b: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
) {
    for (from, to) in [(b"ping", b"pong"), (b"tick", b"tock")] {
        within("an answer", async {
            let mut heard = [0; 4];
            a.write_all(from).await.unwrap();
            a.flush().await.unwrap();
            b.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, from);
            b.write_all(to).await.unwrap();
            b.flush().await.unwrap();
            a.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, to);
        })
        .await;
    }
}

/// The code of a refusal before the upgrade.
pub(crate) fn refused(result: Result<Client, DialError>) -> (String, Option<Duration>) {
    match result {
        Ok(_) => panic!("it was let in"),
        Err(DialError::WebSocket(error)) => (error.code().to_owned(), error.retry_after()),
        Err(error) => panic!("{error:?}"),
    }
}
