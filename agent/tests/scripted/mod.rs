//! A server that says what a test tells it to, a VNC server that only greets, and a device in a folder. All on loopback, all on
//! ports that the system chose.

// Each test program uses a part of it.
#![allow(dead_code, unused_imports)]

pub(crate) mod gateway;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use umbra_agent::control::client::Client;
use umbra_agent::control::{Request, Response, TrustGiven};
use umbra_agent::files::Files;
use umbra_agent::os::fake::Fake;
use umbra_agent::paths::Paths;
use umbra_agent::run::{Config, RunError, run_with};
use umbra_agent::status::{Board, Status};
use umbra_carrier::framed::{FrameReader, FrameWriter};
use umbra_carrier::tls::{
    Accepted, TlsIdentity, accept_by_alpn, exporter, http_acceptor_config, link_acceptor_config,
};
use umbra_protocol::enrolment::{Challenge, Connector, Enrolled};
use umbra_protocol::first_auth::{EXPORTER_LABEL, FirstAuthKey, Transcript, Verifier};
use umbra_protocol::hello::{DeviceFacts, Intent, TrustAnchors, Welcome};
use umbra_protocol::ids::to_hex;
use umbra_protocol::message::{FromDevice, FromServer};
use umbra_protocol::secret::Secret;
use umbra_protocol::ticket::TicketSigner;
use umbra_protocol::{DeviceId, Fingerprint, decode, encode, limits};

/// Nothing here takes this long on a machine that works; on a slow one it may take a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const KEY: &str = "AB3DE-FGHJK-MNPQR-STVWX";
const SALT: [u8; 16] = [4; 16];
const ROUNDS: u32 = 10_000;

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// A server that says what a test tells it to.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) root: Fingerprint,
    pub(crate) signer: TicketSigner,
    pub(crate) root_pem: String,
    root_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    connectors: std::sync::Mutex<Vec<Connector>>,
    listener: TcpListener,
    link: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    verifier: Verifier,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::for_name("127.0.0.1").await
    }

    /// A server whose certificate holds this name.
    pub(crate) async fn for_name(name: &str) -> Self {
        let root_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&root_key).expect("a root");
        let issuer = Issuer::new(params, root_key);
        let identity = certificate(&issuer, root.der(), name);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stretched = FirstAuthKey::parse(KEY)
            .expect("a key")
            .stretch(&SALT, ROUNDS);
        Self {
            address: listener.local_addr().expect("an address"),
            root: Fingerprint::of_certificate(root.der()),
            signer: TicketSigner::generate().0,
            root_pem: root.pem(),
            root_der: root.der().clone(),
            issuer,
            connectors: std::sync::Mutex::default(),
            listener,
            link: link_acceptor_config(&identity),
            http: http_acceptor_config(&identity),
            verifier: stretched.verifier(),
        }
    }

    /// A certificate of the server's root for another host.
    pub(crate) fn certificate(&self, name: &str) -> TlsIdentity {
        certificate(&self.issuer, &self.root_der, name)
    }

    /// What devices are told at their enrolment.
    pub(crate) fn name_connectors(&self, connectors: Vec<Connector>) {
        *self.connectors.lock().expect("no panic") = connectors;
    }

    pub(crate) fn anchors(&self) -> TrustAnchors {
        TrustAnchors {
            roots: vec![self.root_pem.clone()],
            ticket_keys: vec![self.signer.public()],
        }
    }

    /// The next connection of a device, if it gets through TLS.
    pub(crate) async fn try_accept(&self) -> Option<Conversation> {
        let (tcp, _) = self.listener.accept().await.expect("accepted");
        match accept_by_alpn(
            tcp,
            Arc::clone(&self.link),
            Arc::clone(&self.http),
            PATIENCE,
        )
        .await
        {
            Ok(Accepted::Link(stream, certificate)) => Some(Conversation::new(stream, certificate)),
            Ok(Accepted::Http(_)) => panic!("a device asked for HTTP"),
            Err(_) => None,
        }
    }

    /// Somebody looks at the certificates and says nothing.
    pub(crate) async fn is_looked_at(&self) {
        let (tcp, _) = self.listener.accept().await.expect("accepted");
        let (link, http) = (Arc::clone(&self.link), Arc::clone(&self.http));
        let accepted = accept_by_alpn(tcp, link, http, PATIENCE).await;
        let Ok(Accepted::Http(mut stream)) = accepted else {
            panic!("no look, but a device")
        };
        let mut said = Vec::new();
        // However it ends.
        let _ = stream.read_to_end(&mut said).await;
        assert!(said.is_empty(), "{said:?}");
    }

    /// The next device that gets through TLS. Behind a gateway, one that does not know the server's names yet needs two attempts.
    pub(crate) async fn accept(&self) -> Conversation {
        soon("a connection", async {
            loop {
                if let Some(device) = self.try_accept().await {
                    return device;
                }
            }
        })
        .await
    }

    /// Takes a device on.
    pub(crate) async fn enrol(&self) -> CertificateDer<'static> {
        let mut device = self.accept().await;
        let facts = device.hello(Intent::Enrol).await;
        let challenge = Challenge {
            version: 1,
            nonce: "ab".repeat(32),
            salt: to_hex(&SALT),
            rounds: ROUNDS,
        };
        device.say(challenge.clone()).await;
        let FromDevice::Enrol(enrol) = device.hear().await else {
            panic!("no proof")
        };
        let transcript = Transcript::new(
            &device.exporter,
            &device.certificate,
            enrol.key_id,
            &facts.unit_id,
            &challenge.nonce,
            &enrol.nonce,
        );
        assert_eq!(enrol.key_id, self.verifier.key_id());
        assert!(
            self.verifier
                .client_proof_is_right(&enrol.proof, &transcript)
        );
        let connectors = self.connectors.lock().expect("no panic").clone();
        device
            .say(Enrolled {
                proof: self.verifier.server_proof(&transcript),
                device_id: device.device_id(),
                device_name: "Reception".into(),
                anchors: self.anchors(),
                connectors,
            })
            .await;
        device.certificate
    }

    /// Accepts a link and welcomes the device.
    pub(crate) async fn welcome(&self) -> (Conversation, DeviceFacts) {
        let mut device = self.accept().await;
        let facts = device.hello(Intent::Link).await;
        device.say(self.welcome_message()).await;
        (device, facts)
    }

    /// Answers a device that only wants to know whether it would be welcome.
    pub(crate) async fn answer_probe(&self) {
        let mut device = self.accept().await;
        device.hello(Intent::Probe).await;
        device.say(self.welcome_message()).await;
        assert!(
            device.try_hear().await.is_none(),
            "a probe says nothing else"
        );
    }

    fn welcome_message(&self) -> Welcome {
        Welcome {
            version: 1,
            features: Vec::new(),
            heartbeat_seconds: 1,
            server_time: 0,
            device_name: "Reception".into(),
            anchors: self.anchors(),
        }
    }

    /// Accepts links until the device says that it accepts sessions on a port.
    pub(crate) async fn welcome_with_port(&self) -> (Conversation, u16) {
        loop {
            let (device, facts) = self.welcome().await;
            if let Some(port) = facts.shadow_port {
                return (device, port);
            }
            // The device comes back by itself once the port is open.
            drop(device);
        }
    }
}

fn certificate(
    issuer: &Issuer<'_, KeyPair>,
    root: &CertificateDer<'static>,
    name: &str,
) -> TlsIdentity {
    let key = KeyPair::generate().expect("a key");
    let end = CertificateParams::new(vec![name.to_owned()])
        .expect("parameters")
        .signed_by(&key, issuer)
        .expect("a certificate");
    let chain = vec![end.der().clone(), root.clone()];
    TlsIdentity::new(
        chain,
        PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
    )
    .expect("an identity")
}

/// What a server has of one connection.
pub(crate) struct Conversation {
    reader: FrameReader<ReadHalf<TlsStream<TcpStream>>>,
    writer: FrameWriter<WriteHalf<TlsStream<TcpStream>>>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) exporter: [u8; 32],
}

impl Conversation {
    fn new(stream: TlsStream<TcpStream>, certificate: CertificateDer<'static>) -> Self {
        let exporter = exporter(stream.get_ref().1, EXPORTER_LABEL).expect("an exporter");
        let (read, write) = tokio::io::split(stream);
        Self {
            reader: FrameReader::new(read),
            writer: FrameWriter::new(write),
            certificate,
            exporter,
        }
    }

    pub(crate) fn device_id(&self) -> DeviceId {
        let spki = umbra_carrier::x509::spki_sha256(&self.certificate).expect("a public key");
        DeviceId::from_bytes(spki)
    }

    /// The next message, if the connection does not end first. Heartbeats are answered.
    pub(crate) async fn try_hear(&mut self) -> Option<FromDevice> {
        loop {
            let frame = soon("a message", self.reader.next(limits::FRAME))
                .await
                .ok()??;
            let message = decode(&frame, limits::FRAME).expect("a message");
            let FromDevice::Ping(beat) = message else {
                return Some(message);
            };
            self.say(FromServer::Pong(beat)).await;
        }
    }

    pub(crate) async fn hear(&mut self) -> FromDevice {
        self.try_hear()
            .await
            .expect("the device ended the connection")
    }

    /// The next message of a kind; others are passed over.
    pub(crate) async fn hear_kind(&mut self, kind: &str) -> FromDevice {
        loop {
            let message = self.hear().await;
            if message.kind() == kind {
                return message;
            }
        }
    }

    pub(crate) async fn hello(&mut self, intent: Intent) -> DeviceFacts {
        let FromDevice::Hello(hello) = self.hear().await else {
            panic!("no hello")
        };
        assert_eq!(hello.intent, intent);
        hello.device
    }

    pub(crate) async fn say(&mut self, message: impl Into<FromServer>) {
        // A device that is gone is noticed by who listens.
        let _ = soon("sending", self.writer.send(&encode(&message.into()))).await;
    }
}

/// A VNC server that greets, offers to let anybody in, then echoes.
pub(crate) async fn vnc_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"RFB 003.008\n").await?;
                stream.read_exact(&mut [0; 12]).await?;
                stream.write_all(&[1, 1]).await?;
                let mut bytes = [0; 64];
                loop {
                    match stream.read(&mut bytes).await? {
                        0 => return Ok::<(), std::io::Error>(()),
                        read => stream.write_all(&bytes[..read]).await?,
                    }
                }
            });
        }
    });
    address
}

/// A device in a folder.
pub(crate) struct Device {
    _root: tempfile::TempDir,
    pub(crate) paths: Paths,
    pub(crate) board: Board,
    stop: Option<oneshot::Sender<()>>,
    cut: Option<oneshot::Sender<()>>,
    running: Option<std::thread::JoinHandle<Option<Result<(), RunError>>>>,
}

impl Device {
    /// A device with these parameters set on it; it runs.
    pub(crate) async fn start(registry: &str) -> Self {
        let mut device = Self::off(registry);
        device.boot(Files::new(), Fake::default()).await;
        device
    }

    pub(crate) fn off(registry: &str) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.kept()).expect("a folder");
        std::fs::write(paths.registry(), registry).expect("written");
        Self {
            _root: root,
            paths,
            board: Board::new(),
            stop: None,
            cut: None,
            running: None,
        }
    }

    pub(crate) async fn boot(&mut self, files: Files, os: Fake) {
        let (stop, stopped) = oneshot::channel::<()>();
        let (cut, power_cut) = oneshot::channel::<()>();
        self.board = Board::new();
        let config = Config {
            files,
            ..Config::new(self.paths.clone())
        };
        let board = self.board.clone();
        // A runtime of its own, so that nothing of the agent outlives a power cut.
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let shutdown = async move { drop(stopped.await) };
                tokio::select! {
                    ended = run_with(config, Arc::new(os), board, shutdown) => Some(ended),
                    _ = power_cut => None,
                }
            })
        });
        (self.stop, self.cut, self.running) = (Some(stop), Some(cut), Some(running));
        // It can be told something once it has an identity.
        self.until("an identity", |status| status.identity.is_some())
            .await;
    }

    /// Ends the agent in good order.
    pub(crate) async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(ended) = self.ended().await {
            ended.expect("a good end");
        }
    }

    /// Ends the agent as a power cut would: whatever it was doing is not done.
    pub(crate) async fn cut_power(&mut self) {
        drop(self.cut.take());
        assert!(self.ended().await.is_none(), "it ended by itself");
    }

    async fn ended(&mut self) -> Option<Result<(), RunError>> {
        let running = self.running.take()?;
        let joining = tokio::task::spawn_blocking(move || running.join().expect("no panic"));
        soon("the end of the agent", joining).await.expect("joined")
    }

    pub(crate) async fn until(&self, what: &str, which: impl Fn(&Status) -> bool) -> Status {
        let mut watching = self.board.subscribe();
        let found = timeout(PATIENCE, watching.wait_for(|status| which(status))).await;
        match found {
            Ok(status) => status.expect("the board is there").clone(),
            Err(_) => panic!("{what} did not come about: {:#?}", self.board.now()),
        }
    }

    pub(crate) async fn ask(&self, request: Request) -> Response {
        let mut client = Client::connect(&self.paths)
            .await
            .expect("the agent answers");
        client.ask(&request, PATIENCE).await.expect("an answer")
    }

    pub(crate) async fn enrol(&self, server: &Server) -> Response {
        self.enrol_with(&server.address.to_string(), server.root)
            .await
    }

    pub(crate) async fn enrol_with(&self, address: &str, root: Fingerprint) -> Response {
        self.ask(Request::Enrol {
            address: address.to_owned(),
            trust: TrustGiven::Fingerprint(root.to_string()),
            key: Secret::new(KEY),
        })
        .await
    }

    /// Has the device taken on.
    pub(crate) async fn enrolled_by(&self, server: &Server) {
        let (answer, _) = tokio::join!(self.enrol(server), server.enrol());
        assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Its thread ends when it sees that; nobody waits for it.
        drop((self.cut.take(), self.stop.take()));
    }
}

/// Parameters of a device that accepts sessions on loopback, with this VNC server.
pub(crate) fn shadowable(vnc: SocketAddr, more: &str) -> String {
    format!(
        "[umbra.vncserver]\nlisten = [\"127.0.0.1\"]\nupstream = \"tcp:{vnc}\"\n[network.vncserver]\nenabled = true\nport = 0\n{more}"
    )
}
