//! A relay between a proxy that has opened TLS and a gateway, which understands WebSocket frames: it keeps what passes with the
//! masks taken off, and does to it what a hostile gateway could do. What it does is switched while it runs, for
//! conversations that are there and for those to come.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::fault_proxy::Direction;
use crate::frames::{Frame, Whole, head};

/// The most that is kept in all.
const KEPT: usize = 64 << 20;
/// Frames on their way to one end.
const QUEUE: usize = 16;

/// What is done to the frames of conversations. Only frames with data are touched: a gateway that is evil keeps the rules of
/// WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mischief {
    /// Nothing.
    None,
    /// One bit in the middle of every payload is turned.
    Flip(Direction),
    /// Every frame comes twice.
    Replay(Direction),
    /// Every two frames change places.
    Reorder(Direction),
    /// The last byte of every payload is missing.
    Shorten(Direction),
    /// The next frame ends in the middle, and the connection with it.
    CutInFrame(Direction),
    /// What this device says goes to the server as if the other one, by label, had said it.
    SwapWith(String),
}

/// For which conversations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Those with this path; all without.
    pub path: Option<String>,
    /// Those whose device has this label; all without.
    pub label: Option<String>,
}

impl Target {
    /// All on a path.
    pub fn path(path: &str) -> Self {
        Self {
            path: Some(path.to_owned()),
            label: None,
        }
    }

    /// The link of one device.
    pub fn device(label: &str) -> Self {
        Self {
            path: Some("/usg/endpoint".into()),
            label: Some(label.to_owned()),
        }
    }

    fn is(&self, conversation: &Conversation) -> bool {
        let fits = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
        };
        fits(&self.path, Some(&conversation.path))
            && fits(&self.label, conversation.label.as_deref())
    }
}

/// One connection, with what passed on it.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// What was asked for.
    pub path: String,
    /// What the device calls itself, if one said so.
    pub label: Option<String>,
    /// Head of the request.
    pub request: Vec<u8>,
    /// Head of the answer.
    pub answer: Vec<u8>,
    /// Payloads to the gateway, one after the other, without masks.
    pub to_server: Vec<u8>,
    /// Payloads from the gateway.
    pub to_client: Vec<u8>,
    /// How many frames something was done to.
    pub touched: usize,
    /// Still there.
    pub open: bool,
}

impl Conversation {
    /// Whether a sequence of bytes passed, either way, in a head or in a payload.
    pub fn contains(&self, needle: &[u8]) -> bool {
        [
            &self.request,
            &self.answer,
            &self.to_server,
            &self.to_client,
        ]
        .iter()
        .any(|hay| !needle.is_empty() && hay.windows(needle.len()).any(|part| part == needle))
    }
}

#[derive(Default)]
struct State {
    conversations: Vec<Conversation>,
    /// Where frames to the gateway go, by conversation.
    senders: Vec<Option<mpsc::Sender<Out>>>,
    kept: usize,
    cut: bool,
    mischief: Vec<(Target, Mischief)>,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running relay; it ends, and every connection with it, when this is dropped.
pub struct WsRelay {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl WsRelay {
    /// Starts on a free port of loopback, in front of `upstream`.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, this is done to these conversations, and nothing to all others.
    pub fn set(&self, target: Target, mischief: Mischief) {
        self.set_all(vec![(target, mischief)]);
    }

    /// From now on, these things are done; the first that fits a conversation counts.
    pub fn set_all(&self, mischief: Vec<(Target, Mischief)>) {
        self.shared.lock().mischief = mischief;
    }

    /// From now on, it does nothing but relay.
    pub fn behave(&self) {
        self.set_all(Vec::new());
    }

    /// All that there were, with what passed.
    pub fn conversations(&self) -> Vec<Conversation> {
        self.shared.lock().conversations.clone()
    }

    /// How many frames something was done to, over all conversations.
    pub fn touched(&self) -> usize {
        let state = self.shared.lock();
        state.conversations.iter().map(|one| one.touched).sum()
    }

    /// Whether all that passed was kept.
    pub fn is_complete(&self) -> bool {
        !self.shared.lock().cut
    }
}

impl Drop for WsRelay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        // An error of accept is a client that left early.
        if let Ok((client, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                let mut number = None;
                // How a connection ends is for its ends to see.
                let _ = converse(client, &shared, &mut number).await;
                if let Some(number) = number {
                    let mut state = shared.lock();
                    state.conversations[number].open = false;
                    state.senders[number] = None;
                }
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(
    mut client: TcpStream,
    shared: &Arc<Shared>,
    number: &mut Option<usize>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(shared.upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (request, rest_of_client) = head(&mut client).await?;
    server.write_all(&request).await?;
    let (to_server, for_server) = mpsc::channel(QUEUE);
    let (to_client, for_client) = mpsc::channel(QUEUE);
    let mine = {
        let mut state = shared.lock();
        state.conversations.push(Conversation {
            path: path(&request),
            label: field(&request, "umbra-device"),
            request,
            open: true,
            ..Conversation::default()
        });
        state.senders.push(Some(to_server.clone()));
        state.conversations.len() - 1
    };
    *number = Some(mine);
    let (answer, rest_of_server) = head(&mut server).await?;
    client.write_all(&answer).await?;
    let upgraded = answer.starts_with(b"HTTP/1.1 101 ");
    shared.lock().conversations[mine].answer = answer;
    let (client_in, client_out) = client.split();
    let (server_in, server_out) = server.split();
    let pump = |direction, own: mpsc::Sender<Out>| Pump {
        shared,
        mine,
        direction,
        own,
        held: None,
        upgraded,
    };
    let there = pump(Direction::ToServer, to_server);
    let back = pump(Direction::ToClient, to_client);
    // Either direction's end is passed on; both have to end.
    tokio::join!(
        there.run(Whole::new(rest_of_client, client_in)),
        back.run(Whole::new(rest_of_server, server_in)),
        write(server_out, for_server),
        write(client_out, for_client),
    );
    Ok(())
}

/// What goes to one end.
enum Out {
    Bytes(Vec<u8>),
    End,
}

async fn write(mut to: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Out>) {
    while let Some(out) = queue.recv().await {
        match out {
            Out::Bytes(bytes) => {
                if to.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            Out::End => break,
        }
    }
    // Fails when the other side is gone, which is an end as well.
    let _ = to.shutdown().await;
}

/// One direction of one conversation.
struct Pump<'s> {
    shared: &'s Shared,
    mine: usize,
    direction: Direction,
    own: mpsc::Sender<Out>,
    held: Option<Frame>,
    upgraded: bool,
}

impl Pump<'_> {
    async fn run<R: AsyncRead + Unpin>(mut self, mut from: Whole<R>) {
        loop {
            let sent = if self.upgraded {
                match Frame::read(&mut from).await {
                    Ok(frame) => self.frame(frame).await,
                    Err(_) => break,
                }
            } else {
                match from.some().await {
                    Ok(bytes) if !bytes.is_empty() => {
                        self.own.send(Out::Bytes(bytes)).await.is_ok()
                    }
                    Ok(_) | Err(_) => break,
                }
            };
            if !sent {
                break;
            }
        }
        // The writer may be gone already.
        let _ = self.own.send(Out::End).await;
    }

    /// Passes a frame on, as it is or not; false when this direction is over.
    async fn frame(&mut self, mut frame: Frame) -> bool {
        let (mischief, other) = self.note(&frame);
        match mischief {
            Mischief::None => {}
            Mischief::Flip(_) => {
                let middle = frame.payload.len() / 2;
                if let Some(byte) = frame.payload.get_mut(middle) {
                    *byte ^= 0x10;
                }
            }
            Mischief::Replay(_) => {
                if self.own.send(Out::Bytes(frame.bytes())).await.is_err() {
                    return false;
                }
            }
            Mischief::Reorder(_) => match self.held.take() {
                None => {
                    self.held = Some(frame);
                    return true;
                }
                Some(earlier) => {
                    let both = [frame.bytes(), earlier.bytes()].concat();
                    return self.own.send(Out::Bytes(both)).await.is_ok();
                }
            },
            Mischief::Shorten(_) => {
                frame.payload.pop();
            }
            Mischief::CutInFrame(_) => {
                let bytes = frame.bytes();
                let half = bytes[..bytes.len() / 2].to_vec();
                // Whether it got through shows at the other end.
                let _ = self.own.send(Out::Bytes(half)).await;
                return false;
            }
            Mischief::SwapWith(_) => {
                if let Some(other) = other {
                    // The other one may be gone; then the bytes are lost.
                    let _ = other.send(Out::Bytes(frame.bytes())).await;
                    return true;
                }
            }
        }
        // What was held back while it was evil is let go.
        let mut bytes = self.held.take().map_or(Vec::new(), |held| held.bytes());
        bytes.extend(frame.bytes());
        self.own.send(Out::Bytes(bytes)).await.is_ok()
    }

    /// Keeps the frame, and says what is to be done to it, and where it goes if elsewhere.
    fn note(&self, frame: &Frame) -> (Mischief, Option<mpsc::Sender<Out>>) {
        let mut state = self.shared.lock();
        let state = &mut *state;
        if frame.is_data() {
            state.kept += frame.payload.len();
            state.cut |= state.kept > KEPT;
            let conversation = &mut state.conversations[self.mine];
            if !state.cut {
                match self.direction {
                    Direction::ToServer => conversation.to_server.extend(&frame.payload),
                    Direction::ToClient => conversation.to_client.extend(&frame.payload),
                }
            }
        }
        let conversation = &state.conversations[self.mine];
        let found = state
            .mischief
            .iter()
            .find(|(target, _)| target.is(conversation));
        let mischief = found.map_or(Mischief::None, |(_, mischief)| mischief.clone());
        let concerned = match &mischief {
            Mischief::None => false,
            Mischief::Flip(direction)
            | Mischief::Replay(direction)
            | Mischief::Reorder(direction)
            | Mischief::Shorten(direction)
            | Mischief::CutInFrame(direction) => *direction == self.direction,
            Mischief::SwapWith(_) => self.direction == Direction::ToServer,
        };
        if !concerned || !frame.is_data() {
            return (Mischief::None, None);
        }
        let other = match &mischief {
            Mischief::SwapWith(label) => state
                .conversations
                .iter()
                .zip(&state.senders)
                .rev()
                .find(|(one, _)| one.open && one.label.as_deref() == Some(label))
                .and_then(|(_, sender)| sender.clone()),
            Mischief::None
            | Mischief::Flip(_)
            | Mischief::Replay(_)
            | Mischief::Reorder(_)
            | Mischief::Shorten(_)
            | Mischief::CutInFrame(_) => None,
        };
        state.conversations[self.mine].touched += 1;
        (mischief, other)
    }
}

fn path(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    text.split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned()
}

fn field(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::eventually::{SOON, eventually_is};

    const REQUEST: &[u8] = b"GET /usg/endpoint HTTP/1.1\r\nUmbra-Device: one\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

    fn frame(payload: &[u8], mask: Option<[u8; 4]>) -> Frame {
        Frame {
            first: 0x82,
            mask,
            payload: payload.to_vec(),
        }
    }

    /// A relay, and both ends of a conversation through it.
    async fn pair() -> (WsRelay, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("binds");
        let relay = WsRelay::start(listener.local_addr().expect("bound"))
            .await
            .expect("starts");
        let mut client = TcpStream::connect(relay.address()).await.expect("there");
        client.write_all(REQUEST).await.expect("sent");
        let (mut server, _) = listener.accept().await.expect("comes");
        let mut got = vec![0; REQUEST.len()];
        server.read_exact(&mut got).await.expect("comes");
        assert_eq!(got, REQUEST);
        // A frame right behind the head.
        let bytes = [ANSWER, &frame(b"hi", None).bytes()].concat();
        server.write_all(&bytes).await.expect("sent");
        let mut got = vec![0; bytes.len()];
        client.read_exact(&mut got).await.expect("comes");
        assert_eq!(got, bytes);
        (relay, client, server)
    }

    async fn passed(
        client: &mut TcpStream,
        server: &mut TcpStream,
        frames: &[&[u8]],
    ) -> Vec<Vec<u8>> {
        for payload in frames {
            let bytes = frame(payload, Some([1, 2, 3, 4])).bytes();
            client.write_all(&bytes).await.expect("sent");
        }
        let mut whole = Whole::new(Vec::new(), server);
        let mut got = Vec::new();
        for _ in frames {
            got.push(Frame::read(&mut whole).await.expect("comes").payload);
        }
        got
    }

    #[tokio::test]
    async fn what_passes_is_kept_without_masks_and_only_what_is_evil_is_changed() {
        let (relay, mut client, mut server) = pair().await;
        let long = vec![7; 70_000];
        let sent: [&[u8]; 3] = [b"plain text", &long[..300], &long];
        assert_eq!(passed(&mut client, &mut server, &sent).await, sent);
        relay.set(Target::device("two"), Mischief::Flip(Direction::ToServer));
        assert_eq!(passed(&mut client, &mut server, &[b"abc"]).await, [b"abc"]);
        relay.set(Target::device("one"), Mischief::Flip(Direction::ToServer));
        assert_eq!(passed(&mut client, &mut server, &[b"abc"]).await, [b"arc"]);
        relay.set(Target::default(), Mischief::Shorten(Direction::ToServer));
        assert_eq!(passed(&mut client, &mut server, &[b"abc"]).await, [b"ab"]);
        relay.set(Target::default(), Mischief::Reorder(Direction::ToServer));
        assert_eq!(
            passed(&mut client, &mut server, &[b"a", b"b"]).await,
            [b"b", b"a"]
        );
        relay.set(Target::default(), Mischief::Replay(Direction::ToServer));
        assert_eq!(
            passed(&mut client, &mut server, &[b"a", b"b"]).await,
            [b"a", b"a"]
        );
        relay.behave();
        let kept = relay.conversations();
        let kept = kept.first().expect("one");
        assert_eq!(
            (kept.path.as_str(), kept.label.as_deref()),
            ("/usg/endpoint", Some("one"))
        );
        assert!(kept.contains(b"plain text") && kept.contains(b"Umbra-Device") && kept.open);
        assert!(!kept.contains(b"plain texts") && kept.to_client == b"hi");
        assert!(relay.is_complete() && relay.touched() == 6);
    }

    #[tokio::test]
    async fn a_cut_ends_both_connections_in_the_middle_of_a_frame() {
        let (relay, mut client, mut server) = pair().await;
        relay.set(Target::default(), Mischief::CutInFrame(Direction::ToServer));
        let whole = frame(b"never whole", Some([1, 2, 3, 4])).bytes();
        client.write_all(&whole).await.expect("sent");
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.expect("ends");
        assert_eq!(got, whole[..whole.len() / 2]);
        drop((client, server));
        eventually_is("the conversation to end", SOON, || {
            let kept = relay.conversations();
            if kept.iter().any(|one| one.open) {
                Err(kept.len())
            } else {
                Ok(())
            }
        })
        .await
        .expect("ends");
    }
}
