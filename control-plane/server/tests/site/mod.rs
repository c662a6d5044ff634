//! A real server on a loopback port, scripted devices that speak to it over real TLS, and operators that use its API
//! in-process.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "shared between test files")]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub mod gateway;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use clap::Parser as _;
use http_body_util::BodyExt as _;
use rcgen::{CertificateParams, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt as _;
use umbra_carrier::alpn;
use umbra_carrier::framed::{FrameReader, FrameWriter};
use umbra_carrier::tls::{
    DatePolicy, ServerTrust, TlsIdentity, connect_tls, device_config, exporter,
};
use umbra_protocol::enrolment::{Challenge, Enrol, Enrolled};
use umbra_protocol::first_auth::{EXPORTER_LABEL, FirstAuthKey, Transcript};
use umbra_protocol::hello::{DeviceFacts, Hello, Intent, Welcome};
use umbra_protocol::ids::from_hex;
use umbra_protocol::{FromDevice, FromServer, Refusal, RunId, decode, encode, limits};
use umbra_server::cli::{Cli, Command};
use umbra_server::clock::Clock;
use umbra_server::config::Config;
use umbra_server::http::{self, Peer};
use umbra_server::serve::Tls;
use umbra_server::server::Server;
use umbra_server::shutdown::{self, Stop};
use umbra_server::{random, run};

/// Longest wait for anything that happens at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server that runs.
pub struct Site {
    pub folder: Arc<tempfile::TempDir>,
    pub address: SocketAddr,
    pub server: Arc<Server>,
    pub tls: Arc<Tls>,
    pub first_words: String,
    stop: Stop,
    serving: JoinHandle<()>,
}

impl Site {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(arguments: &[&str]) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::in_folder(folder, "127.0.0.1:0", arguments).await
    }

    async fn in_folder(folder: Arc<tempfile::TempDir>, listen: &str, arguments: &[&str]) -> Self {
        let config = config(&folder.path().join("state"), listen, arguments);
        let mut out = Vec::new();
        let ready = run::start(&config, Clock::system(), &mut out)
            .await
            .expect("starts");
        let (stop, shutdown) = shutdown::channel();
        Self {
            address: ready.address,
            server: Arc::clone(ready.server()),
            tls: Arc::clone(ready.tls()),
            first_words: String::from_utf8(out).expect("text"),
            folder,
            stop,
            serving: tokio::spawn(ready.serve(shutdown)),
        }
    }

    /// Stops in good order.
    pub async fn stop(self) -> Arc<tempfile::TempDir> {
        self.stop.stop();
        timeout(PATIENCE, self.serving)
            .await
            .expect("stops in time")
            .expect("stops in order");
        self.folder
    }

    /// Stops in good order and starts again at the same address.
    pub async fn restart(self) -> Self {
        let address = self.address.to_string();
        let folder = self.stop().await;
        Self::in_folder(folder, &address, &[]).await
    }

    pub fn root(&self) -> CertificateDer<'static> {
        let chain = self.server.authority.identity.chain();
        chain.last().expect("a root").clone()
    }

    /// The API as an administrator.
    pub async fn api(&self) -> Api {
        let token = random::hex::<32>();
        let now = self.server.clock.now();
        let mut tx = self.server.store.begin().await.expect("begins");
        umbra_server::store::accounts::add_token(
            &mut tx,
            now,
            "admin",
            &random::digest(&token),
            now + 100_000,
        )
        .await
        .expect("filed");
        tx.commit().await.expect("committed");
        Api {
            router: http::router(Arc::clone(&self.server)),
            token,
        }
    }

    /// A device that was taken on, with its link up.
    pub async fn linked_device(&self, unit: &str) -> (Device, Link) {
        let device = Device::new(unit);
        let key = self.api().await.key(json!({})).await;
        device.enrol(self, &key).await.expect("taken on");
        let link = device.link(self).await.expect("welcomed");
        (device, link)
    }
}

/// The configuration that a command line gives.
pub fn config(state: &Path, listen: &str, arguments: &[&str]) -> Config {
    let state = state.to_str().expect("text");
    let all = ["umbra-server", "run", "--state", state, "--listen", listen];
    match Cli::try_parse_from(all.iter().chain(arguments))
        .expect("parses")
        .command
    {
        Command::Run(args) => Config::for_run(args).expect("no mistakes"),
        other => panic!("{other:?}"),
    }
}

/// An operator at the API.
pub struct Api {
    router: axum::Router,
    token: String,
}

impl Api {
    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .extension(Peer(IpAddr::from([127, 0, 0, 1])))
            .body(body)
            .expect("a request");
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("routers answer");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body");
        let body = serde_json::from_slice(&bytes.to_bytes()).unwrap_or(Value::Null);
        (status, body)
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// Makes a key, one-time unless `changes` say otherwise.
    pub async fn key(&self, changes: Value) -> FirstAuthKey {
        let mut wanted = json!({ "kind": "one_time", "count": 1 });
        for (name, value) in changes.as_object().expect("changes") {
            wanted[name] = value.clone();
        }
        let (status, body) = self.ask("POST", "/keys", Some(wanted)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        FirstAuthKey::parse(body[0]["key"].as_str().expect("a key")).expect("a key")
    }

    /// Offers a session with a device.
    pub async fn offer(&self, device: &str, legacy: bool) -> Value {
        let wanted = json!({
            "device": device, "reason": "printer", "legacy": legacy,
            "permissions": { "control": true, "clipboard": false },
        });
        let (status, body) = self.ask("POST", "/sessions", Some(wanted)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body
    }

    /// The audit log's actions with their outcomes, newest first.
    pub async fn audit(&self) -> Vec<(String, String)> {
        let lines = self.get("/audit?limit=1000").await;
        let text = |line: &Value, name: &str| line[name].as_str().expect("text").to_owned();
        lines
            .as_array()
            .expect("lines")
            .iter()
            .map(|line| (text(line, "action"), text(line, "outcome")))
            .collect()
    }

    /// Waits until a path answers what `good` wants.
    pub async fn until(&self, path: &str, good: impl Fn(&Value) -> bool) -> Value {
        eventually(async || {
            let body = self.get(path).await;
            good(&body).then_some(body)
        })
        .await
    }
}

/// Waits for a state.
pub async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let all = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, all)
        .await
        .expect("the state comes in time")
}

/// A device with its identity.
pub struct Device {
    pub facts: DeviceFacts,
    pub identity: TlsIdentity,
    pub settings_revision: u64,
    pub run: Option<RunId>,
}

/// A certificate for a device, with its key.
pub fn device_certificate(unit: &str, key: &KeyPair) -> (TlsIdentity, String) {
    let mut params = CertificateParams::new([unit.to_lowercase()]).expect("a name");
    params.is_ca = IsCa::ExplicitNoCa;
    let certificate = params.self_signed(key).expect("signed");
    let pem = certificate.pem();
    let identity = TlsIdentity::from_pem(&pem, &key.serialize_pem()).expect("a pair");
    (identity, pem)
}

/// The facts of a device.
pub fn facts(unit: &str) -> DeviceFacts {
    DeviceFacts {
        unit_id: unit.parse().expect("a unit ID"),
        name: format!("desk-{}", unit.to_lowercase()),
        os: "Testix 1".into(),
        agent_version: "0.1.0".into(),
        architecture: "x86_64".into(),
        shadowing: true,
        shadow_port: Some(5900),
        addresses: vec!["192.0.2.10".into(), "not an address".into()],
        secure_mode: true,
    }
}

impl Device {
    pub fn new(unit: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self {
            facts: facts(unit),
            identity: device_certificate(unit, &key).0,
            settings_revision: 0,
            run: None,
        }
    }

    /// A connection whose TLS is set up.
    pub async fn connect(&self, site: &Site) -> Link {
        self.connect_to(site.address, site.root()).await
    }

    /// A connection to a server that may be another process.
    pub async fn connect_to(&self, address: SocketAddr, root: CertificateDer<'static>) -> Link {
        let config = device_config(
            Some(&self.identity),
            ServerTrust::PinnedRoots(vec![root]),
            DatePolicy::Enforce,
            alpn::CONTROL_LINK,
        )
        .expect("a root");
        let tcp = TcpStream::connect(address).await.expect("connects");
        let stream = connect_tls(tcp, config, "127.0.0.1", PATIENCE)
            .await
            .expect("TLS");
        let exporter = exporter(stream.get_ref().1, EXPORTER_LABEL).expect("exported");
        let (read, write) = tokio::io::split(stream);
        Link {
            reader: FrameReader::new(read),
            writer: FrameWriter::new(write),
            exporter,
        }
    }

    pub fn hello(&self, intent: Intent) -> FromDevice {
        FromDevice::Hello(Hello {
            versions: vec![1],
            features: Vec::new(),
            intent,
            device: self.facts.clone(),
            settings_revision: self.settings_revision,
            run: self.run,
        })
    }

    /// Presents a key; checks the server's proof.
    pub async fn enrol(&self, site: &Site, key: &FirstAuthKey) -> Result<Enrolled, Refusal> {
        let link = self.connect(site).await;
        self.enrol_on(link, key).await
    }

    /// The same on a connection that is there.
    pub async fn enrol_on(&self, mut link: Link, key: &FirstAuthKey) -> Result<Enrolled, Refusal> {
        link.say(self.hello(Intent::Enrol)).await;
        let challenge = match link.hear().await {
            FromServer::Challenge(challenge) => challenge,
            FromServer::Refusal(refusal) => return Err(refusal),
            other => panic!("{other:?}"),
        };
        let (enrol, transcript) = self.proof(&link, &challenge, key).await;
        link.say(enrol).await;
        match link.hear().await {
            FromServer::Enrolled(enrolled) => {
                let salt = from_hex(&challenge.salt).expect("a salt");
                let stretched = key.stretch(&salt, challenge.rounds);
                assert!(stretched.server_proof_is_right(&enrolled.proof, &transcript));
                assert!(link.ends().await, "enrolment ends the connection");
                Ok(enrolled)
            }
            FromServer::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// The proof of a key.
    pub async fn proof(
        &self,
        link: &Link,
        challenge: &Challenge,
        key: &FirstAuthKey,
    ) -> (Enrol, Transcript) {
        let salt = from_hex(&challenge.salt).expect("a salt");
        let (key, rounds) = (key.clone(), challenge.rounds);
        let stretched = tokio::task::spawn_blocking(move || key.stretch(&salt, rounds))
            .await
            .expect("stretched");
        let nonce = random::hex::<32>();
        let transcript = Transcript::new(
            &link.exporter,
            self.identity.certificate(),
            stretched.key_id(),
            &self.facts.unit_id,
            &challenge.nonce,
            &nonce,
        );
        let enrol = Enrol {
            key_id: stretched.key_id(),
            nonce,
            proof: stretched.client_proof(&transcript),
        };
        (enrol, transcript)
    }

    /// Brings the link up, as far as the welcome.
    pub async fn link(&self, site: &Site) -> Result<Link, Refusal> {
        let mut link = self.connect(site).await;
        link.say(self.hello(Intent::Link)).await;
        match link.hear().await {
            FromServer::Welcome(Welcome { version: 1, .. }) => Ok(link),
            FromServer::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }
}

/// A connection of a device.
pub struct Link {
    reader: FrameReader<ReadHalf<TlsStream<TcpStream>>>,
    writer: FrameWriter<WriteHalf<TlsStream<TcpStream>>>,
    pub exporter: [u8; 32],
}

impl Link {
    pub async fn say(&mut self, message: impl Into<FromDevice>) {
        self.say_bytes(&encode(&message.into())).await;
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        self.writer.send(bytes).await.expect("sent");
    }

    /// The next message.
    pub async fn hear(&mut self) -> FromServer {
        let frame = timeout(PATIENCE, self.reader.next(limits::FRAME))
            .await
            .expect("heard in time")
            .expect("whole")
            .expect("not over");
        decode(&frame, limits::FRAME).expect("understood")
    }

    /// The next message, which has to be a refusal.
    pub async fn refusal(&mut self) -> Refusal {
        match self.hear().await {
            FromServer::Refusal(refusal) => refusal,
            other => panic!("no refusal: {other:?}"),
        }
    }

    /// Whether the server ends the connection in order, without another word.
    pub async fn ends(&mut self) -> bool {
        let end = timeout(PATIENCE, self.reader.next(limits::FRAME)).await;
        matches!(end, Ok(Ok(None)))
    }

    /// Whether nothing more is said: the answer to a ping comes next.
    pub async fn is_quiet(&mut self) -> bool {
        self.say(umbra_protocol::link::Beat { number: 99 }).await;
        matches!(self.hear().await, FromServer::Pong(beat) if beat.number == 99)
    }
}
