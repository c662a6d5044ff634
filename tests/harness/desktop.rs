//! A small RFB server that shows a moving, recognisable desktop: what stands behind the device in scenarios and in the
//! demo. Tests see every key that arrives, the very picture it shows, and can make it misbehave. It must never be
//! shipped: it holds no secrets well and serves whoever connects.

mod font;
mod scene;
mod session;

use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use crate::image::{Image, ImageError};
use scene::{Moment, Scene};

/// How often the picture moves.
const TICK: Duration = Duration::from_millis(100);
/// How many events are kept; enough for any scenario, and an end for a client that floods.
const MAX_EVENTS: usize = 10_000;

/// Where the desktop listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// On TCP; port 0 takes a free one.
    Tcp(SocketAddr),
    /// On a Unix socket; one left behind by an earlier run is replaced.
    Unix(PathBuf),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Listen::Unix(path.into())),
            None => text.parse().map(Listen::Tcp).map_err(|_| {
                format!("{text:?} is no address: 127.0.0.1:PORT or unix:PATH would be accepted")
            }),
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What the desktop looks like and who may see it.
#[derive(Debug, Clone)]
pub struct DesktopConfig {
    /// Where it listens.
    pub listen: Listen,
    /// Width and height in pixels.
    pub size: (u16, u16),
    /// The device's name, shown in the picture and told to the client.
    pub name: String,
    /// Demands this VNC password when set.
    pub password: Option<String>,
}

impl Default for DesktopConfig {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
            size: (800, 600),
            name: "thin-client-1".into(),
            password: None,
        }
    }
}

/// How the desktop behaves towards clients that connect from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Proper,
    /// Greets only after a while.
    GreetAfter(Duration),
    /// Accepts and never says a word.
    NeverGreet,
    /// Completes the handshake, then neither reads nor writes.
    StallAfterInit,
    /// Hangs up after this many updates.
    HangUpAfterUpdates(u32),
    /// Refuses with a reason, as RFB's handshake provides.
    Refuse(String),
}

/// What a client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The handshake was completed; `shared` is what the client asked for.
    Joined {
        /// Whether other clients may stay.
        shared: bool,
    },
    /// The VNC password was wrong.
    WrongPassword,
    /// A key.
    Key {
        /// Pressed or released.
        down: bool,
        /// X11 key symbol.
        keysym: u32,
    },
    /// The pointer.
    Pointer {
        /// The buttons held.
        buttons: u8,
        /// Place.
        x: u16,
        /// Place.
        y: u16,
    },
    /// Clipboard text.
    CutText(Vec<u8>),
    /// The client broke the protocol and was dropped.
    Broke(String),
    /// The client left.
    Left,
}

struct State {
    moment: Moment,
    /// Counts every change of `moment`.
    version: u64,
    painted: Option<(u64, Arc<Image>)>,
    frozen: bool,
    manner: Manner,
    events: Vec<Event>,
    connections: usize,
    active: usize,
}

struct Shared {
    config: DesktopConfig,
    scene: Scene,
    state: Mutex<State>,
    /// The picture's version.
    changed: watch::Sender<u64>,
    /// Counts the calls of [`Desktop::hang_up`].
    hang_ups: watch::Sender<u64>,
}

impl Shared {
    fn new(config: DesktopConfig) -> Arc<Self> {
        let scene = Scene::new(config.size.0, config.size.1, &config.name);
        let state = State {
            moment: Moment::default(),
            version: 0,
            painted: None,
            frozen: false,
            manner: Manner::Proper,
            events: Vec::new(),
            connections: 0,
            active: 0,
        };
        let (changed, hang_ups) = (watch::channel(0).0, watch::channel(0).0);
        Arc::new(Self {
            config,
            scene,
            state: Mutex::new(state),
            changed,
            hang_ups,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, event: Event) {
        let mut state = self.lock();
        match &event {
            Event::Key { down: true, keysym } => {
                state.moment.keys += 1;
                match keysym {
                    0x20..=0x7E => state.moment.typed.extend(char::from_u32(*keysym)),
                    0xFF08 => drop(state.moment.typed.pop()),
                    0xFF0D => state.moment.typed.push(' '),
                    _ => {}
                }
                let surplus = state.moment.typed.len().saturating_sub(scene::TYPED_SHOWN);
                state.moment.typed.drain(..surplus);
            }
            Event::Pointer { x, y, .. } => state.moment.pointer = Some((*x, *y)),
            Event::Joined { .. }
            | Event::WrongPassword
            | Event::Key { .. }
            | Event::CutText(_)
            | Event::Broke(_)
            | Event::Left => {}
        }
        if state.events.len() < MAX_EVENTS {
            state.events.push(event);
        }
        self.bump(state);
    }

    fn tick(&self) {
        let mut state = self.lock();
        if !state.frozen {
            state.moment.tick += 1;
            self.bump(state);
        }
    }

    fn bump(&self, mut state: MutexGuard<'_, State>) {
        state.version += 1;
        let version = state.version;
        drop(state);
        self.changed.send_replace(version);
    }

    /// The picture as it is now, with its version.
    fn picture(&self) -> (u64, Arc<Image>) {
        let mut state = self.lock();
        let version = state.version;
        if let Some((painted, image)) = &state.painted
            && *painted == version
        {
            return (version, Arc::clone(image));
        }
        let mut image = Image::new(0, 0);
        self.scene.paint(&state.moment, &mut image);
        let image = Arc::new(image);
        state.painted = Some((version, Arc::clone(&image)));
        (version, image)
    }
}

/// A running test desktop; it ends, and every client with it, when this is dropped.
pub struct Desktop {
    shared: Arc<Shared>,
    address: Option<Listen>,
    tasks: Vec<AbortHandle>,
}

impl Desktop {
    /// Starts to listen.
    pub async fn start(config: DesktopConfig) -> std::io::Result<Self> {
        let mut desktop = Self::unheard(config);
        let shared = Arc::clone(&desktop.shared);
        let (address, accepting) = match &desktop.shared.config.listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let address = Listen::Tcp(listener.local_addr()?);
                let accepting = async move {
                    let mut sessions = Sessions::default();
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => {
                                // Only costs latency when it fails.
                                let _ = stream.set_nodelay(true);
                                let (reader, writer) = stream.into_split();
                                sessions.start(&shared, reader, writer);
                            }
                            Err(_) => tokio::time::sleep(TICK).await,
                        }
                    }
                };
                (address, tokio::spawn(accepting).abort_handle())
            }
            Listen::Unix(path) => {
                if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
                {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                let address = Listen::Unix(path.clone());
                let accepting = async move {
                    let mut sessions = Sessions::default();
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => {
                                let (reader, writer) = stream.into_split();
                                sessions.start(&shared, reader, writer);
                            }
                            Err(_) => tokio::time::sleep(TICK).await,
                        }
                    }
                };
                (address, tokio::spawn(accepting).abort_handle())
            }
        };
        desktop.address = Some(address);
        desktop.tasks.push(accepting);
        Ok(desktop)
    }

    /// A desktop that listens nowhere; clients are handed to [`Desktop::serve`].
    pub fn unheard(config: DesktopConfig) -> Self {
        let shared = Shared::new(config);
        let ticking = Arc::clone(&shared);
        let ticker = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                ticking.tick();
            }
        });
        Self {
            shared,
            address: None,
            tasks: vec![ticker.abort_handle()],
        }
    }

    /// Serves one client on a pair of streams until it leaves.
    pub async fn serve<R, W>(&self, reader: R, writer: W)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin,
    {
        session::serve(Arc::clone(&self.shared), reader, writer).await;
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> Option<&Listen> {
        self.address.as_ref()
    }

    /// The TCP address, where it listens on one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self.address()? {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        }
    }

    /// Changes how clients are treated that connect from now on.
    pub fn set_manner(&self, manner: Manner) {
        self.shared.lock().manner = manner;
    }

    /// Stops or resumes what moves by itself; input still shows.
    pub fn freeze(&self, frozen: bool) {
        self.shared.lock().frozen = frozen;
    }

    /// Drops every client that is there, in the middle of whatever it does.
    pub fn hang_up(&self) {
        self.shared.hang_ups.send_modify(|count| *count += 1);
    }

    /// All that clients did so far.
    pub fn events(&self) -> Vec<Event> {
        self.shared.lock().events.clone()
    }

    /// The printable keys typed so far (the last few).
    pub fn typed(&self) -> String {
        self.shared.lock().moment.typed.clone()
    }

    /// How many connections there were in all.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// How many connections there are.
    pub fn active(&self) -> usize {
        self.shared.lock().active
    }

    /// The picture as it is now: the screenshot at the source.
    pub fn framebuffer(&self) -> Image {
        (*self.shared.picture().1).clone()
    }

    /// The picture as it is now, as a PNG's bytes.
    pub fn framebuffer_png(&self) -> Result<Vec<u8>, ImageError> {
        self.framebuffer().to_png()
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(Listen::Unix(path)) = &self.address {
            // Already gone when a scenario removed its folder first.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The clients of one listener; they end with it.
#[derive(Default)]
struct Sessions(Vec<JoinHandle<()>>);

impl Sessions {
    fn start<R, W>(&mut self, shared: &Arc<Shared>, reader: R, writer: W)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        self.0.retain(|session| !session.is_finished());
        self.0.push(tokio::spawn(session::serve(
            Arc::clone(shared),
            reader,
            writer,
        )));
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for session in &self.0 {
            session.abort();
        }
    }
}
