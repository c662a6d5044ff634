//! A gateway that joins devices with a scripted server as the real one does, or does to them what a test tells it to. And a proxy
//! in front of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use umbra_carrier::tls::{ServerStream, SwappableIdentity, accept_tls, envelope_acceptor_config};
use umbra_carrier::ws::{self, ByteStream, UpgradeHead};
use umbra_protocol::gateway;

use super::{PATIENCE, Server, soon};

pub(crate) type WebSocket = ByteStream<ServerStream<TcpStream>>;

/// What the gateway does with the next device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Joins it with the server.
    Joins,
    /// Refuses before the upgrade.
    Refuses {
        status: u16,
        code: &'static str,
        retry_after: Option<u32>,
    },
    /// Upgrades, then closes with this code and reason.
    Closes(u16, String),
    /// Plays the server with its own certificate.
    Impersonates,
}

/// What a device asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

struct Inner {
    server: SocketAddr,
    envelope: Arc<ServerConfig>,
    impostor: Arc<ServerConfig>,
    mood: Mutex<Mood>,
    asked: Mutex<Vec<Asked>>,
    /// How many devices are joined with the server at this moment.
    joined: watch::Sender<usize>,
    attempts: AtomicUsize,
    tunnels: mpsc::UnboundedSender<(Asked, WebSocket)>,
    /// The close that all joined devices get.
    farewell: watch::Sender<Option<(u16, String)>>,
}

/// A gateway that runs.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) tunnels: mpsc::UnboundedReceiver<(Asked, WebSocket)>,
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

impl Gateway {
    /// In front of this server; its certificate comes from the server's root.
    pub(crate) async fn before(server: &Server) -> Self {
        Self::with_certificate_of(server, server).await
    }

    /// In front of a server; its certificate comes from another one's root.
    pub(crate) async fn with_certificate_of(server: &Server, other: &Server) -> Self {
        let identity = other.certificate("127.0.0.1");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, tunnels) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            server: server.address,
            envelope: envelope_acceptor_config(SwappableIdentity::new(&identity)),
            impostor: umbra_carrier::tls::link_acceptor_config(&identity),
            mood: Mutex::new(Mood::Joins),
            asked: Mutex::default(),
            joined: watch::Sender::new(0),
            attempts: AtomicUsize::new(0),
            tunnels: sender,
            farewell: watch::Sender::new(None),
        });
        let serving = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let inner = Arc::clone(&serving);
                // Whoever does not get through is none of a test's business.
                tokio::spawn(async move { inner.meet(tcp).await });
            }
        });
        Self {
            address,
            tunnels,
            inner,
            task,
        }
    }

    pub(crate) fn mood(&self, mood: Mood) {
        *self.inner.mood.lock().expect("no panic") = mood;
    }

    pub(crate) fn attempts(&self) -> usize {
        self.inner.attempts.load(Ordering::SeqCst)
    }

    /// What was asked for at this path, oldest first.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.inner.asked.lock().expect("no panic");
        asked
            .iter()
            .filter(|asked| asked.path == path)
            .cloned()
            .collect()
    }

    pub(crate) async fn until_attempts(&self, attempts: usize) {
        soon("attempts", async {
            while self.attempts() < attempts {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    pub(crate) async fn until_joined(&self, devices: usize) {
        let mut joined = self.inner.joined.subscribe();
        soon("joining", joined.wait_for(|joined| *joined == devices))
            .await
            .expect("the gateway is there");
    }

    /// Ends all joined connections with this close.
    pub(crate) fn close_all(&self, code: u16, reason: &str) {
        self.inner
            .farewell
            .send_replace(Some((code, reason.to_owned())));
    }

    pub(crate) async fn tunnel(&mut self) -> (Asked, WebSocket) {
        soon("a tunnel", self.tunnels.recv())
            .await
            .expect("the gateway is there")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    async fn meet(self: Arc<Self>, tcp: TcpStream) -> Option<()> {
        let mut tls = accept_tls(tcp, Arc::clone(&self.envelope), PATIENCE)
            .await
            .ok()?;
        let asked = head(&mut tls).await?;
        self.attempts.fetch_add(1, Ordering::SeqCst);
        self.asked.lock().expect("no panic").push(asked.clone());
        let mood = self.mood.lock().expect("no panic").clone();
        let is_link = asked.path == gateway::PATH_ENDPOINT;
        if let (
            true,
            Mood::Refuses {
                status,
                code,
                retry_after,
            },
        ) = (is_link, &mood)
        {
            let hint = retry_after.map_or(String::new(), |s| format!("Retry-After: {s}\r\n"));
            let body = format!("{{\"code\":\"{code}\",\"sentence\":\"Not now.\"}}");
            let answer = format!(
                "HTTP/1.1 {status} No\r\nContent-Type: application/json\r\n{hint}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            tls.write_all(answer.as_bytes()).await.ok()?;
            tls.shutdown().await.ok()?;
            return None;
        }
        let upgrade = UpgradeHead {
            connection: asked.header("connection"),
            upgrade: asked.header("upgrade"),
            version: asked.header("sec-websocket-version"),
            key: asked.header("sec-websocket-key"),
            subprotocols: asked.header("sec-websocket-protocol"),
            origin: asked.header("origin"),
        };
        let subprotocol = if is_link {
            gateway::SUBPROTOCOL_LINK
        } else {
            gateway::SUBPROTOCOL_TUNNEL
        };
        let accept = ws::check_upgrade(&upgrade, subprotocol).expect("a proper upgrade");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        );
        tls.write_all(answer.as_bytes()).await.ok()?;
        tls.flush().await.ok()?;
        let mut websocket = ws::server_stream(tls, Vec::new(), None);
        if !is_link {
            return self.tunnels.send((asked, websocket)).ok();
        }
        match mood {
            Mood::Closes(code, reason) => {
                websocket.closer().close_with(code, &reason);
                let mut bytes = Vec::new();
                // Reading carries the close out.
                let _ = websocket.read_to_end(&mut bytes).await;
            }
            Mood::Impersonates => {
                let _ = accept_tls(websocket, Arc::clone(&self.impostor), PATIENCE).await;
            }
            Mood::Joins | Mood::Refuses { .. } => {
                let mut server = TcpStream::connect(self.server).await.ok()?;
                let closer = websocket.closer();
                let mut farewell = self.farewell.subscribe();
                self.joined.send_modify(|joined| *joined += 1);
                tokio::spawn(async move {
                    if farewell.changed().await.is_ok() {
                        let told = farewell.borrow_and_update().clone();
                        let (code, reason) = told.unwrap_or((ws::close::RESTART, String::new()));
                        closer.close_with(code, &reason);
                    }
                });
                let _ = copy_bidirectional(&mut websocket, &mut server).await;
                self.joined.send_modify(|joined| *joined -= 1);
            }
        }
        Some(())
    }
}

/// The head of a request.
async fn head(tls: &mut ServerStream<TcpStream>) -> Option<Asked> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(tls.read_u8().await.ok()?);
        assert!(bytes.len() < 16 * 1024, "an endless head");
    }
    let text = String::from_utf8(bytes).expect("text");
    let mut lines = text.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    Some(Asked { path, headers })
}

/// An HTTP proxy that asks for credentials.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `authorization`: what it insists on.
    pub(crate) async fn start(authorization: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let seeing = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let seen = Arc::clone(&seeing);
                tokio::spawn(async move { connect(client, authorization, &seen).await });
            }
        });
        Self { address, seen }
    }

    /// Where it was asked to connect to.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }
}

async fn connect(
    mut client: TcpStream,
    authorization: &str,
    seen: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(client.read_u8().await.ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    let target = text.split(' ').nth(1)?.to_owned();
    if !text.contains(authorization) {
        let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
        client.write_all(answer).await.ok()?;
        return None;
    }
    seen.lock().expect("no panic").push(target.clone());
    let mut server = TcpStream::connect(&target).await.ok()?;
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await
        .ok()?;
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}
