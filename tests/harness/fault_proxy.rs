//! A TCP relay on loopback with named faults that are switched while it runs, for connections that are there and for
//! those to come. It keeps its port while what stands behind it restarts, counts, and records what passes so that a
//! scenario can search it for what must never be on a network. It understands nothing of what it relays.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// The most that is read, and so held back, at once in each direction.
const CHUNK: usize = 16 * 1024;
/// The most that is recorded in all; a recording that reaches it says so.
const MAX_RECORDING: usize = 64 << 20;
/// How long what stands behind may take to accept.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the one that dialled to what stands behind.
    ToServer,
    /// Back.
    ToClient,
}

/// What the relay does to connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: bytes pass as they are.
    Pass,
    /// Nobody listens: new connections are refused by the system; the ones that are there go on.
    Refuse,
    /// Bytes are taken and held back, both ways; they pass once the fault is over. A pulled cable.
    Stall,
    /// Connections that are there, and new ones, are reset.
    Reset,
    /// Bytes pass one at a time, each in a packet of its own.
    Slice,
    /// This many bytes pass in a second, each way.
    Slow(u32),
    /// One direction ends in an orderly manner; the other goes on.
    HalfClose(Direction),
    /// One bit in every chunk that passes this way is turned.
    Corrupt(Direction),
}

/// What passed, in the order of time, over all connections.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// What clients said.
    pub to_server: Vec<u8>,
    /// What the server said.
    pub to_client: Vec<u8>,
    /// The limit was reached: something is missing at the end.
    pub cut: bool,
}

impl Recording {
    /// Whether a sequence of bytes passed, either way.
    pub fn contains(&self, needle: &[u8]) -> bool {
        let within = |hay: &[u8]| {
            !needle.is_empty() && hay.windows(needle.len()).any(|window| window == needle)
        };
        within(&self.to_server) || within(&self.to_client)
    }
}

/// How many connections there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted in all.
    pub accepted: usize,
    /// There now.
    pub open: usize,
    /// What stands behind could not be reached.
    pub unreachable: usize,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    fault: watch::Sender<Fault>,
    counts: Mutex<Counts>,
    recording: Mutex<Option<Recording>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn record(&self, direction: Direction, bytes: &[u8]) {
        if let Some(recording) = lock(&self.recording).as_mut() {
            if recording.to_server.len() + recording.to_client.len() + bytes.len() > MAX_RECORDING {
                recording.cut = true;
                return;
            }
            match direction {
                Direction::ToServer => recording.to_server.extend_from_slice(bytes),
                Direction::ToClient => recording.to_client.extend_from_slice(bytes),
            }
        }
    }
}

/// A running relay; it ends, and every connection with it, when this is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
    /// Bound, never listening: the port stays ours while it refuses.
    _holder: TcpSocket,
}

fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}

impl FaultProxy {
    /// Starts on a free port of loopback, in front of `upstream`.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let holder = bind(0)?;
        let address = holder.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            fault: watch::Sender::new(Fault::Pass),
            counts: Mutex::default(),
            recording: Mutex::default(),
        });
        // Listens before this returns, so that nobody comes too early.
        let listener = bind(address.port())?.listen(1024)?;
        let accepting =
            tokio::spawn(accept(Arc::clone(&shared), address.port(), listener)).abort_handle();
        Ok(Self {
            address,
            shared,
            accepting,
            _holder: holder,
        })
    }

    /// Where it listens, for as long as it lives.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stands behind has moved; connections that are there stay where they are.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        *lock(&self.shared.upstream) = upstream;
    }

    /// Switches to a fault, or to [`Fault::Pass`].
    pub fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// How many connections there were and are.
    pub fn counts(&self) -> Counts {
        *lock(&self.shared.counts)
    }

    /// Records what passes from now on.
    pub fn record(&self) {
        *lock(&self.shared.recording) = Some(Recording::default());
    }

    /// What passed since [`FaultProxy::record`]; empty if that was never called.
    pub fn recording(&self) -> Recording {
        lock(&self.shared.recording).clone().unwrap_or_default()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(shared: Arc<Shared>, port: u16, first: TcpListener) {
    let mut fault = shared.fault.subscribe();
    let mut listener = Some(first);
    let mut connections = JoinSet::new();
    loop {
        let refusing = *fault.borrow_and_update() == Fault::Refuse;
        if refusing {
            listener = None;
        } else if listener.is_none() {
            listener = bind(port).and_then(|socket| socket.listen(1024)).ok();
        }
        let Some(open) = &listener else {
            if refusing {
                if fault.changed().await.is_err() {
                    return;
                }
            } else {
                sleep(Duration::from_millis(20)).await;
            }
            continue;
        };
        tokio::select! {
            changed = fault.changed() => if changed.is_err() { return },
            accepted = open.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(connection(Arc::clone(&shared), client))),
                // Out of descriptors or a client that left early: passing weather.
                Err(_) => sleep(Duration::from_millis(20)).await,
            },
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Counts a connection in, and out again however it ends.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        let mut counts = lock(&shared.counts);
        counts.accepted += 1;
        counts.open += 1;
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&self.0.counts).open -= 1;
    }
}

async fn connection(shared: Arc<Shared>, mut client: TcpStream) {
    let _counted = Counted::new(&shared);
    let upstream = *lock(&shared.upstream);
    let Ok(Ok(mut server)) = timeout(DIAL_LIMIT, TcpStream::connect(upstream)).await else {
        lock(&shared.counts).unreachable += 1;
        // The client must see that nothing is there, not an orderly end.
        let _ = client.set_zero_linger();
        return;
    };
    for stream in [&client, &server] {
        // Slices would be glued together if this failed; the bytes are the same.
        let _ = stream.set_nodelay(true);
    }
    let reset = {
        let (client_in, client_out) = client.split();
        let (server_in, server_out) = server.split();
        let both = async {
            let there = relay(&shared, Direction::ToServer, client_in, server_out);
            let back = relay(&shared, Direction::ToClient, server_in, client_out);
            tokio::join!(there, back)
        };
        let mut fault = shared.fault.subscribe();
        tokio::select! {
            () = until(&mut fault, |fault| *fault == Fault::Reset) => true,
            _ = both => false,
        }
    };
    if reset {
        for stream in [&client, &server] {
            // Already gone if this fails.
            let _ = stream.set_zero_linger();
        }
    }
}

/// Waits until the fault is such a one; forever once the relay is gone, since then its tasks are gone as well.
async fn until(fault: &mut watch::Receiver<Fault>, such: impl FnMut(&Fault) -> bool) {
    if fault.wait_for(such).await.is_err() {
        std::future::pending().await
    }
}

/// Relays one direction until it ends; the end is passed on as such.
async fn relay(
    shared: &Shared,
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
) {
    let mut fault = shared.fault.subscribe();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = tokio::select! {
            count = from.read(&mut chunk) => count.unwrap_or(0),
            () = until(&mut fault, |fault| *fault == Fault::HalfClose(direction)) => 0,
        };
        // What was taken during a stall stays here until it is over.
        until(&mut fault, |fault| *fault != Fault::Stall).await;
        if count == 0 {
            break;
        }
        if *fault.borrow() == Fault::Corrupt(direction) {
            chunk[count / 2] ^= 0x10;
        }
        shared.record(direction, &chunk[..count]);
        if write(&mut to, &chunk[..count], &fault).await.is_err() {
            break;
        }
    }
    // Fails when the other side is gone, which is an end as well.
    let _ = to.shutdown().await;
}

/// Writes a chunk at the pace that the fault demands, which may change on the way.
async fn write(
    to: &mut WriteHalf<'_>,
    mut chunk: &[u8],
    fault: &watch::Receiver<Fault>,
) -> io::Result<()> {
    while !chunk.is_empty() {
        let now = fault.borrow().clone();
        let (count, pause) = match now {
            Fault::Slice => (1, None),
            Fault::Slow(rate) => ((rate / 20).max(1) as usize, Some(Duration::from_millis(50))),
            Fault::Pass
            | Fault::Refuse
            | Fault::Stall
            | Fault::Reset
            | Fault::HalfClose(_)
            | Fault::Corrupt(_) => (chunk.len(), None),
        };
        let (piece, rest) = chunk.split_at(count.min(chunk.len()));
        to.write_all(piece).await?;
        match pause {
            Some(pause) => sleep(pause).await,
            None => tokio::task::yield_now().await,
        }
        chunk = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::{SOON, eventually_is};

    /// A server that says everything back, and the relay in front of it.
    async fn echo() -> (FaultProxy, AbortOnDrop) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    let _ = to.write_all(b"bye").await;
                });
            }
        });
        (
            FaultProxy::start(address).await.expect("starts"),
            AbortOnDrop(serving.abort_handle()),
        )
    }

    struct AbortOnDrop(AbortHandle);

    impl Drop for AbortOnDrop {
        fn drop(&mut self) {
            self.0.abort();
        }
    }

    async fn dial(proxy: &FaultProxy) -> TcpStream {
        TcpStream::connect(proxy.address()).await.expect("connects")
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        timeout(SOON, stream.read_exact(&mut answer))
            .await
            .expect("an answer in time")?;
        Ok(answer)
    }

    #[tokio::test]
    async fn bytes_pass_and_are_recorded_and_connections_counted() {
        let (proxy, _echo) = echo().await;
        proxy.record();
        let mut stream = dial(&proxy).await;
        assert_eq!(
            say(&mut stream, b"canary-1").await.expect("passes"),
            b"canary-1"
        );
        let recording = proxy.recording();
        assert_eq!(
            (
                recording.to_server.as_slice(),
                recording.to_client.as_slice()
            ),
            (&b"canary-1"[..], &b"canary-1"[..])
        );
        assert!(recording.contains(b"ary-1") && !recording.contains(b"canary-2") && !recording.cut);
        assert_eq!(
            proxy.counts(),
            Counts {
                accepted: 1,
                open: 1,
                unreachable: 0
            }
        );
        drop(stream);
        eventually_is("the connection to end", SOON, || {
            match proxy.counts().open {
                0 => Ok(()),
                open => Err(open),
            }
        })
        .await
        .expect("ends");
    }

    #[tokio::test]
    async fn refusing_is_a_real_refusal_that_keeps_the_port_and_what_is_connected() {
        let (proxy, _echo) = echo().await;
        let mut before = dial(&proxy).await;
        say(&mut before, b"x").await.expect("passes");
        proxy.set(Fault::Refuse);
        eventually_is(
            "new connections to be refused",
            SOON,
            || match std::net::TcpStream::connect(proxy.address()) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                other => Err(other),
            },
        )
        .await
        .expect("refuses");
        say(&mut before, b"y").await.expect("still passes");
        proxy.set(Fault::Pass);
        eventually_is("the port to be open again", SOON, || {
            std::net::TcpStream::connect(proxy.address())
        })
        .await
        .expect("open again");
    }

    #[tokio::test]
    async fn a_stall_holds_bytes_back_and_loses_none() {
        let (proxy, _echo) = echo().await;
        let mut stream = dial(&proxy).await;
        say(&mut stream, b"x").await.expect("passes");
        proxy.set(Fault::Stall);
        stream.write_all(b"held").await.expect("taken");
        let mut answer = [0; 4];
        let waited = timeout(Duration::from_millis(100), stream.read_exact(&mut answer)).await;
        assert!(waited.is_err(), "something came through a stalled line");
        proxy.set(Fault::Pass);
        timeout(SOON, stream.read_exact(&mut answer))
            .await
            .expect("in time")
            .expect("passes");
        assert_eq!(&answer, b"held");
    }

    #[tokio::test]
    async fn a_reset_reaches_connections_that_are_there_and_new_ones() {
        let (proxy, _echo) = echo().await;
        let mut stream = dial(&proxy).await;
        say(&mut stream, b"x").await.expect("passes");
        proxy.set(Fault::Reset);
        let mut scrap = [0; 8];
        let ended = timeout(SOON, stream.read(&mut scrap))
            .await
            .expect("in time")
            .expect_err("no orderly end");
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
        let mut next = dial(&proxy).await;
        let ended = timeout(SOON, next.read(&mut scrap))
            .await
            .expect("in time")
            .expect_err("no orderly end");
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn slices_and_slowness_change_the_pace_and_not_the_bytes() {
        let (proxy, _echo) = echo().await;
        let mut stream = dial(&proxy).await;
        let text: Vec<u8> = (0..=255).collect();
        proxy.set(Fault::Slice);
        assert_eq!(say(&mut stream, &text).await.expect("passes"), text);
        proxy.set(Fault::Slow(10_000));
        assert_eq!(say(&mut stream, &text).await.expect("passes"), text);
    }

    #[tokio::test]
    async fn a_half_close_ends_one_direction_and_the_other_goes_on() {
        let (proxy, _echo) = echo().await;
        let mut stream = dial(&proxy).await;
        say(&mut stream, b"x").await.expect("passes");
        proxy.set(Fault::HalfClose(Direction::ToServer));
        let mut rest = Vec::new();
        timeout(SOON, stream.read_to_end(&mut rest))
            .await
            .expect("in time")
            .expect("an orderly end");
        assert_eq!(
            rest, b"bye",
            "the server noticed the end and still had its say"
        );
    }

    #[tokio::test]
    async fn corruption_turns_bits_in_its_direction_only() {
        let (proxy, _echo) = echo().await;
        proxy.record();
        let mut stream = dial(&proxy).await;
        proxy.set(Fault::Corrupt(Direction::ToClient));
        let answer = say(&mut stream, b"abc").await.expect("passes");
        assert_ne!(answer, b"abc");
        assert_eq!(proxy.recording().to_server, b"abc");
    }

    #[tokio::test]
    async fn the_port_stays_while_what_stands_behind_is_gone_and_moves() {
        let (proxy, first) = echo().await;
        say(&mut dial(&proxy).await, b"x").await.expect("passes");
        drop(first);
        let nowhere = bind(0).expect("binds");
        proxy.set_upstream(nowhere.local_addr().expect("bound"));
        let ended = say(&mut dial(&proxy).await, b"x")
            .await
            .expect_err("nobody there");
        assert!(
            matches!(
                ended.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
            "{ended}"
        );
        assert_eq!(proxy.counts().unreachable, 1);
        let (second, _echo) = echo().await;
        proxy.set_upstream(second.address());
        assert_eq!(
            say(&mut dial(&proxy).await, b"back").await.expect("passes"),
            b"back"
        );
    }
}
