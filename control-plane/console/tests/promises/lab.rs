//! What the promises of this program are held against: a management server that follows a script over real TLS, a person
//! with prepared answers, and a screen that can be read while the program runs.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;
use umbra_console::cli::Cli;
use umbra_console::commands::{self, Limits};
use umbra_console::failure::{Exit, Failure};
use umbra_console::surroundings::{Person, Surroundings};
use umbra_protocol::{Fingerprint, Secret};

/// The time that all tests have.
pub(crate) const NOW: i64 = 1_772_348_709;
/// A limit that only a broken program reaches.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// What the scripted server gives out, and nobody may see.
pub(crate) const TOKEN: &str = "t0ken-that-nobody-may-see";

/// Waits for something that has to happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen"),
    }
}

/// A root and a server certificate below it, made for one run.
pub(crate) struct Authority {
    pub(crate) root: CertificateDer<'static>,
    pub(crate) tls: Arc<rustls::ServerConfig>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let root_key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Test root");
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&root_key).expect("a root");
        let issuer = rcgen::Issuer::new(params, root_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params =
            rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let end = params.signed_by(&key, &issuer).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(
                vec![end.der().clone(), root.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .expect("a usable identity");
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            root: root.der().clone(),
            tls: Arc::new(tls),
        }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_certificate(&self.root)
    }
}

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `GET /api/v1/devices?q=x`
    pub(crate) line: String,
    pub(crate) token: Option<String>,
    pub(crate) body: Value,
}

/// What the server does with a request.
pub(crate) enum Reaction {
    Answer(u16, Value),
    /// These bytes instead of JSON.
    Raw(u16, Vec<u8>),
    /// Nothing, ever.
    Silence,
}

/// A management server that does what the test says.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Api {
    pub(crate) async fn start(
        authority: &Authority,
        react: impl Fn(&Seen) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(listener, authority, react)
    }

    pub(crate) fn on(
        listener: TcpListener,
        authority: &Authority,
        react: impl Fn(&Seen) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (tls, react, kept) = (
            Arc::clone(&authority.tls),
            Arc::new(react),
            Arc::clone(&seen),
        );
        let task = tokio::spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else {
                    continue;
                };
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls));
                let (react, kept) = (Arc::clone(&react), Arc::clone(&kept));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        respond(request, Arc::clone(&react), Arc::clone(&kept))
                    });
                    // A client that goes away is part of what is tested.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// The lines of all requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond<R: Fn(&Seen) -> Reaction>(
    request: Request<hyper::body::Incoming>,
    react: Arc<R>,
    kept: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let token = head
        .headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let seen = Seen {
        line: format!("{} {}", head.method, head.uri),
        token: token.map(str::to_owned),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    kept.lock().expect("not poisoned").push(seen.clone());
    let (status, bytes) = match react(&seen) {
        Reaction::Answer(status, value) => (status, value.to_string().into_bytes()),
        Reaction::Raw(status, bytes) => (status, bytes),
        Reaction::Silence => std::future::pending().await,
    };
    Ok(Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::from(bytes))
        .expect("a response"))
}

/// A server that lets anybody in and answers everything else with `rest`.
pub(crate) fn with_login(
    rest: impl Fn(&Seen) -> Reaction + Send + Sync + 'static,
) -> impl Fn(&Seen) -> Reaction + Send + Sync + 'static {
    move |seen| match seen.line.as_str() {
        "POST /api/v1/login" => Reaction::Answer(
            200,
            json!({"token": TOKEN, "display_name": "Anna", "role": "operator", "expires_in_seconds": 3_600}),
        ),
        _ => rest(seen),
    }
}

/// A problem document.
pub(crate) fn problem(status: u16, code: &str, detail: &str) -> Reaction {
    Reaction::Answer(
        status,
        json!({"status": status, "code": code, "detail": detail}),
    )
}

/// Something to write to that can be read and waited for meanwhile.
#[derive(Clone, Default)]
pub(crate) struct Screen {
    text: Arc<Mutex<Vec<u8>>>,
    changed: Arc<Notify>,
}

impl Screen {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.text.lock().expect("not poisoned").clone()).expect("text")
    }

    /// Waits until this text is there, and returns everything.
    pub(crate) async fn shows(&self, text: &str) -> String {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                let all = self.text();
                if all.contains(text) {
                    return all;
                }
                changed.await;
            }
        };
        match timeout(LIMIT, waiting).await {
            Ok(all) => all,
            Err(_) => panic!("“{text}” never showed; there was:\n{}", self.text()),
        }
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        self.changed.notify_waiters();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A person with prepared answers; nobody at all without any.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) answers: VecDeque<String>,
    pub(crate) secrets: VecDeque<String>,
    pub(crate) input: Vec<u8>,
    pub(crate) asked: Vec<String>,
}

impl Person for Prepared {
    fn is_there(&self) -> bool {
        !(self.answers.is_empty() && self.secrets.is_empty())
    }

    fn ask(&mut self, question: &str) -> io::Result<Option<String>> {
        self.asked.push(question.to_owned());
        Ok(self.answers.pop_front())
    }

    fn ask_secret(&mut self, question: &str) -> io::Result<Secret> {
        self.asked.push(question.to_owned());
        self.secrets
            .pop_front()
            .map(Secret::new)
            .ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    fn standard_input(&mut self, _limit: u64) -> io::Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.input))
    }
}

/// One user's place: a configuration, a screen, and whoever sits there.
pub(crate) struct Desk {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) out: Screen,
    pub(crate) notes: Screen,
    pub(crate) person: Prepared,
    pub(crate) limits: Limits,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            out: Screen::default(),
            notes: Screen::default(),
            person: Prepared::default(),
            limits: Limits::default(),
        }
    }

    /// A desk at which Anna is logged in.
    pub(crate) async fn logged_in(authority: &Authority, api: &Api) -> Self {
        let mut desk = Self::new();
        let password = desk.folder.path().join("password");
        std::fs::write(&password, "correct horse\n").expect("written");
        let line = format!(
            "login {} --user anna --fingerprint {} --password-file {}",
            api.address,
            authority.fingerprint(),
            password.display()
        );
        let exit = desk.run(&line).await.expect("logged in");
        assert_eq!(exit, Exit::Done);
        desk.clear();
        desk
    }

    pub(crate) fn clear(&mut self) {
        self.out = Screen::default();
        self.notes = Screen::default();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("config/config.json")
    }

    /// Runs the program with words apart by spaces.
    pub(crate) async fn run(&mut self, line: &str) -> Result<Exit, Failure> {
        self.run_until(line, std::future::pending()).await
    }

    /// The same, until somebody interrupts it.
    pub(crate) async fn run_until(
        &mut self,
        line: &str,
        interrupt: impl Future<Output = ()>,
    ) -> Result<Exit, Failure> {
        let words: Vec<OsString> = std::iter::once("umbra")
            .chain(line.split_whitespace())
            .map(OsString::from)
            .collect();
        self.run_words(words, interrupt).await
    }

    pub(crate) async fn run_words(
        &mut self,
        words: Vec<OsString>,
        interrupt: impl Future<Output = ()>,
    ) -> Result<Exit, Failure> {
        use clap::Parser as _;
        let cli = Cli::try_parse_from(words).expect("a command line");
        let config = self.config();
        let (mut out, mut notes) = (self.out.clone(), self.notes.clone());
        let mut around = Surroundings {
            out: &mut out,
            notes: &mut notes,
            person: &mut self.person,
            now: || NOW,
            lot_of_four: || 2,
            environment: |_| None,
        };
        let running = commands::run(cli, &config, self.limits, &mut around, interrupt);
        soon("the end of the program", running).await
    }
}

/// Everything that a person would be told about a failure.
pub(crate) fn told(failure: &Failure) -> String {
    let mut told = Vec::new();
    failure.tell(false, &mut told);
    String::from_utf8(told).expect("text")
}
