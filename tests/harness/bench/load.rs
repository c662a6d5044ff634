//! The load on a candidate: a VNC server that sends, takes or echoes what it is told to, and a console that measures. The opening
//! is RFB's, so that a proxy that looks at it sees what it expects; every candidate carries the same bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::pki::Chain;

/// The name in the certificate.
pub(super) const NAME: &str = "localhost";
/// What both ends read and write at a time.
const CHUNK: usize = 64 * 1024;
/// Longer than that, nothing may stand still.
const LIMIT: Duration = Duration::from_secs(60);
/// A key press with its echo, about.
const PING: usize = 64;

const GREETING: &[u8; 12] = b"RFB 003.008\n";
const NO_PASSWORD: [u8; 2] = [1, 1];

const DOWN: u8 = b'D';
const UP: u8 = b'U';
const ECHO: u8 = b'E';

/// Starts the VNC server that all candidates stand before; it serves until the program ends.
pub(super) fn vnc_server() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever hangs up has seen enough.
            std::thread::spawn(move || {
                stream.set_nodelay(true)?;
                serve(stream)
            });
        }
    });
    Ok(address)
}

/// The same behind TLS and a WebSocket's opening, as a reverse proxy expects it. After the opening such a proxy looks at nothing, so the
/// bytes go without frames.
pub(super) fn web_socket_server(chain: &Chain) -> anyhow::Result<SocketAddr> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain.presented_der(), chain.key_der())?;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                tcp.set_nodelay(true)?;
                let tls = ServerConnection::new(config).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(tls, tcp);
                head(&mut stream)?;
                stream.write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
                )?;
                serve(stream)
            });
        }
    });
    Ok(address)
}

/// Reads the head of a request or an answer, byte by byte since what follows is not ours.
fn head(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}

fn serve(mut stream: impl Read + Write) -> io::Result<()> {
    stream.write_all(GREETING)?;
    stream.read_exact(&mut [0; 12])?;
    stream.write_all(&NO_PASSWORD)?;
    stream.read_exact(&mut [0])?;
    let mut chunk = vec![0x5A; CHUNK];
    loop {
        let mut order = [0; 9];
        stream.read_exact(&mut order)?;
        let [what, count @ ..] = order;
        let mut left = u64::from_be_bytes(count);
        match what {
            DOWN => {
                while left > 0 {
                    let now = chunk.len().min(usize::try_from(left).unwrap_or(CHUNK));
                    stream.write_all(&chunk[..now])?;
                    left -= now as u64;
                }
            }
            UP => {
                while left > 0 {
                    let now = chunk.len().min(usize::try_from(left).unwrap_or(CHUNK));
                    left -= stream.read(&mut chunk[..now]).and_then(some)? as u64;
                }
                stream.write_all(&[1])?;
            }
            ECHO => {
                for _ in 0..left {
                    stream.read_exact(&mut chunk[..PING])?;
                    stream.write_all(&chunk[..PING])?;
                }
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn some(count: usize) -> io::Result<usize> {
    match count {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

/// How a candidate is entered.
#[derive(Clone)]
pub(super) enum Door {
    /// TLS, then the VNC server.
    Tls(Arc<ClientConfig>),
    /// TLS, then the product's preface, then the VNC server.
    Preface(Arc<ClientConfig>),
    /// TLS, then a WebSocket's opening, then the VNC server.
    WebSocket(Arc<ClientConfig>),
    /// Without TLS: the candidate brings a console's end of its own.
    Plain,
}

/// What a console connects with: TLS 1.3 with AES-256-GCM, and nothing remembered of earlier connections.
pub(super) fn client(chain: &Chain) -> anyhow::Result<Arc<ClientConfig>> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
    let provider = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    for certificate in &chain.presented {
        roots.add(certificate.der().clone())?;
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

trait Both: Read + Write + Send {}

impl<T: Read + Write + Send> Both for T {}

/// A tunnel through a candidate, opened up to where the VNC server takes orders.
pub(super) struct Tunnel(Box<dyn Both>);

impl Tunnel {
    /// Opens one.
    pub(super) fn open(address: SocketAddr, door: &Door) -> io::Result<Self> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(LIMIT))?;
        tcp.set_write_timeout(Some(LIMIT))?;
        let mut stream: Box<dyn Both> = match door {
            Door::Plain => Box::new(tcp),
            Door::Tls(config) | Door::Preface(config) | Door::WebSocket(config) => {
                let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
                let tls = ClientConnection::new(Arc::clone(config), name);
                Box::new(StreamOwned::new(tls.map_err(io::Error::other)?, tcp))
            }
        };
        if let Door::Preface(_) = door {
            stream.write_all(b"UMBRA/1 ticket.of.abench password\n")?;
            let mut answer = [0; 11];
            stream.read_exact(&mut answer)?;
            if &answer != b"UMBRA/1 ok\n" {
                return Err(io::Error::other("the device end did not say yes"));
            }
        }
        if let Door::WebSocket(_) = door {
            stream.write_all(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            )?;
            if !head(&mut stream)?.starts_with(b"HTTP/1.1 101 ") {
                return Err(io::Error::other("the WebSocket was not opened"));
            }
        }
        let mut greeting = [0; 12];
        stream.read_exact(&mut greeting)?;
        if greeting != *GREETING {
            return Err(io::Error::other("it was not the VNC server that greeted"));
        }
        stream.write_all(GREETING)?;
        let mut offer = [0; 2];
        stream.read_exact(&mut offer)?;
        stream.write_all(&[1])?;
        Ok(Self(stream))
    }

    fn order(&mut self, what: u8, count: u64) -> io::Result<()> {
        let mut order = vec![what];
        order.extend(count.to_be_bytes());
        self.0.write_all(&order)
    }

    /// Has the VNC server send this many bytes.
    pub(super) fn down(&mut self, mut bytes: u64) -> io::Result<()> {
        self.order(DOWN, bytes)?;
        let mut chunk = vec![0; CHUNK];
        while bytes > 0 {
            bytes -= self.0.read(&mut chunk).and_then(some)? as u64;
        }
        Ok(())
    }

    /// Sends this many bytes to the VNC server.
    pub(super) fn up(&mut self, mut bytes: u64) -> io::Result<()> {
        self.order(UP, bytes)?;
        let chunk = vec![0x5A; CHUNK];
        while bytes > 0 {
            let now = chunk.len().min(usize::try_from(bytes).unwrap_or(CHUNK));
            self.0.write_all(&chunk[..now])?;
            bytes -= now as u64;
        }
        self.0.read_exact(&mut [0])
    }

    /// How long each of so many small messages took to the VNC server and back.
    pub(super) fn ping(&mut self, count: u64) -> io::Result<Vec<Duration>> {
        self.order(ECHO, count)?;
        let mut message = [0x5A; PING];
        (0..count)
            .map(|_| {
                let start = Instant::now();
                self.0.write_all(&message)?;
                self.0.read_exact(&mut message)?;
                Ok(start.elapsed())
            })
            .collect()
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// To the console: pixels.
    Down,
    /// To the VNC server.
    Up,
}

/// Moves so many bytes in all through these tunnels at the same time, and gives how long it took.
pub(super) fn move_bytes(tunnels: &mut [Tunnel], way: Way, bytes: u64) -> io::Result<Duration> {
    let each = bytes / tunnels.len().max(1) as u64;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = tunnels
            .iter_mut()
            .map(|tunnel| {
                scope.spawn(move || match way {
                    Way::Down => tunnel.down(each),
                    Way::Up => tunnel.up(each),
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            let died = |_| Err(io::Error::other("a console died"));
            worker.join().unwrap_or_else(died)
        })
    })?;
    Ok(start.elapsed())
}
