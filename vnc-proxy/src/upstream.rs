//! The local VNC server: on loopback, on a Unix socket, or started for one session with the connection as its standard input and
//! output. No address beyond this machine, no shell, and no byte of what it says goes on before its greeting was recognised.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::greeting::{Greeting, GreetingParser};
use crate::secret::Secret;
use crate::server_handshake::{LoginError, ServerHandshake};
use crate::spawned::Spawned;

/// Where the local VNC server is.
#[derive(Clone, Debug)]
pub struct Upstream(Place);

#[derive(Clone)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Spawn(Program),
}

/// A program that speaks RFB on its standard input and output.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
            // Not its environment: that may hold a cookie.
            Self::Spawn(program) => write!(f, "{}", program.path.display()),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why the local VNC server can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The address isn't this machine's.
    #[error("{0} is not a loopback address; a VNC server is only ever looked for on this machine")]
    NotLoopback(SocketAddr),
    /// The path isn't absolute.
    #[error("the path {0} is not absolute")]
    NotAbsolute(PathBuf),
    /// Nobody listens there, or there is no such socket or program.
    #[error("the VNC server is not there: {at}")]
    Absent {
        /// Where it was looked for.
        at: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It didn't answer in time.
    #[error("the VNC server did not answer in time")]
    TimedOut,
    /// What answers there doesn't speak RFB.
    #[error("what answers in the VNC server's place does not speak RFB")]
    NotVnc,
    /// It closed before it had let us in; for a program, the last that it said.
    #[error("the VNC server ended before the session began{}", said(.0))]
    Ended(String),
    /// It refused, with its reason.
    #[error("the VNC server refused: {0}")]
    Refused(String),
    /// It refused the configured password.
    #[error("the VNC server refused the configured password")]
    WrongPassword,
    /// It wants a password and none is configured.
    #[error("the VNC server asks for a password, and none is configured")]
    PasswordMissing,
    /// It offers only authentication that isn't supported.
    #[error("the VNC server offers only kinds of authentication that are not supported: {0:?}")]
    Unsupported(Vec<u8>),
    /// The connection to it broke.
    #[error("the connection to the VNC server broke")]
    Lost(#[source] io::Error),
}

fn said(last: &str) -> String {
    if last.is_empty() {
        String::new()
    } else {
        format!("; it said: {last}")
    }
}

impl From<LoginError> for UpstreamError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused(reason) => Self::Refused(reason),
            LoginError::WrongPassword => Self::WrongPassword,
            LoginError::PasswordMissing => Self::PasswordMissing,
            LoginError::Unsupported(types) => Self::Unsupported(types),
            LoginError::Malformed => Self::NotVnc,
        }
    }
}

impl UpstreamError {
    /// Stable code for the peer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotLoopback(_) | Self::NotAbsolute(_) => "vnc_server_misconfigured",
            Self::Absent { .. } => "vnc_server_absent",
            Self::TimedOut => "vnc_server_timed_out",
            Self::NotVnc => "vnc_server_not_vnc",
            Self::Ended(_) => "vnc_server_ended",
            Self::Refused(_) => "vnc_server_refused",
            Self::WrongPassword => "vnc_password_wrong",
            Self::PasswordMissing => "vnc_password_missing",
            Self::Unsupported(_) => "vnc_security_unsupported",
            Self::Lost(_) => "vnc_server_lost",
        }
    }

    /// What the operator at the console is told: what happened and what to do, without the device's paths or the program's words.
    pub fn for_operator(&self) -> String {
        let sentence = match self {
            Self::NotLoopback(_) | Self::NotAbsolute(_) => {
                "The device's VNC server is configured wrongly. Correct the device's settings."
            }
            Self::Absent { .. } => {
                "No VNC server is running on the device. Check that one is installed and enabled."
            }
            Self::TimedOut => {
                "The device's VNC server did not answer in time. Try again; if it stays so, restart it."
            }
            Self::NotVnc => {
                "What answers on the device in the VNC server's place is not a VNC server. Check the device's settings."
            }
            Self::Ended(_) => {
                "The device's VNC server ended at once. The device's log says what it reported."
            }
            Self::Refused(reason) => return format!("The device's VNC server refused: {reason}"),
            Self::WrongPassword => {
                "The device's VNC server refused the password in the device's settings. Correct it there."
            }
            Self::PasswordMissing => {
                "The device's VNC server asks for a password, and the device's settings hold none."
            }
            Self::Unsupported(_) => {
                "The device's VNC server demands a kind of authentication that is not supported."
            }
            Self::Lost(_) => "The connection to the device's VNC server broke. Try again.",
        };
        sentence.to_owned()
    }
}

impl Upstream {
    /// A server on loopback; any other address is refused.
    pub fn tcp(address: SocketAddr) -> Result<Self, UpstreamError> {
        if address.ip().to_canonical().is_loopback() {
            Ok(Self(Place::Tcp(address)))
        } else {
            Err(UpstreamError::NotLoopback(address))
        }
    }

    /// A server on a Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self, UpstreamError> {
        Ok(Self(Place::Unix(absolute(path.into())?)))
    }

    /// A program started for each session (`x11vnc -inetd`, `Xvnc -inetd`). Its environment is what is given here and `PATH`;
    /// arguments reach it as they are. Whatever it starts in its process group is ended with it.
    pub fn spawn(
        program: impl Into<PathBuf>,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Self, UpstreamError> {
        Ok(Self(Place::Spawn(Program {
            path: absolute(program.into())?,
            args,
            env,
        })))
    }

    /// Connects to the server, or starts it, and waits for its greeting.
    pub async fn connect(&self, deadline: Instant) -> Result<Connected, UpstreamError> {
        let connecting = async {
            let absent = |source| UpstreamError::Absent {
                at: self.to_string(),
                source,
            };
            let (stream, child) = match &self.0 {
                Place::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.map_err(absent)?;
                    stream.set_nodelay(true).map_err(UpstreamError::Lost)?;
                    (LocalStream::Tcp(stream), None)
                }
                Place::Unix(path) => (
                    LocalStream::Unix(UnixStream::connect(path).await.map_err(absent)?),
                    None,
                ),
                Place::Spawn(program) => {
                    let (stream, child) = Spawned::start(program).map_err(absent)?;
                    (LocalStream::Unix(stream), Some(Box::new(child)))
                }
            };
            Connected::greeted(self, stream, child).await
        };
        timeout_at(deadline, connecting)
            .await
            .unwrap_or(Err(UpstreamError::TimedOut))
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, UpstreamError> {
    if Path::is_absolute(&path) {
        Ok(path)
    } else {
        Err(UpstreamError::NotAbsolute(path))
    }
}

/// A VNC server that has greeted us. Nothing of it has gone to a console yet.
#[derive(Debug)]
pub struct Connected {
    /// Where it was found, for a viewer that speaks another version.
    pub(crate) upstream: Upstream,
    pub(crate) stream: LocalStream,
    pub(crate) child: Option<Box<Spawned>>,
    pub(crate) phase: Phase,
}

/// How far the handshake with the server is.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// It has greeted; the answer is still to come.
    Greeted(Greeting),
    /// It has our version and would let somebody in, by what it offers; the choice is still to come.
    Offered {
        greeting: Greeting,
        /// Its kinds of authentication, as they came.
        offer: Vec<u8>,
    },
    /// It has let us in; ClientInit comes next.
    LoggedIn,
}

impl Connected {
    async fn greeted(
        upstream: &Upstream,
        mut stream: LocalStream,
        mut child: Option<Box<Spawned>>,
    ) -> Result<Self, UpstreamError> {
        let mut parser = GreetingParser::new();
        loop {
            let mut byte = [0];
            match with_child(stream.read_exact(&mut byte), child.as_deref_mut()).await {
                Ok(_) => match parser.push(byte[0]) {
                    Ok(None) => {}
                    Ok(Some(greeting)) => {
                        return Ok(Self {
                            upstream: upstream.clone(),
                            stream,
                            child,
                            phase: Phase::Greeted(greeting),
                        });
                    }
                    Err(_) => {
                        drop(stream);
                        end(child).await;
                        return Err(UpstreamError::NotVnc);
                    }
                },
                Err(error) => {
                    drop(stream);
                    return Err(broken(error, child).await);
                }
            }
        }
    }

    /// Answers the greeting and hears what the server offers, so that a refusal is known before anybody is let in. Does nothing when
    /// that was done before.
    pub async fn hear_offer(self, deadline: Instant) -> Result<Self, UpstreamError> {
        let greeting = match &self.phase {
            Phase::Offered { .. } | Phase::LoggedIn => return Ok(self),
            Phase::Greeted(greeting) => *greeting,
        };
        let mut out = Vec::new();
        let handshake = ServerHandshake::hear_offer(&greeting, &mut out);
        let (mut connected, handshake) = self.play(handshake, out, deadline).await?;
        connected.phase = Phase::Offered {
            greeting,
            offer: handshake.into_offer(),
        };
        Ok(connected)
    }

    /// Plays the viewer's half of the handshake with the server, with the configured password if it asks for one. Does nothing
    /// when that was done before.
    pub async fn log_in(
        self,
        password: Option<&Secret>,
        deadline: Instant,
    ) -> Result<Self, UpstreamError> {
        let mut out = Vec::new();
        let handshake = match &self.phase {
            Phase::LoggedIn => return Ok(self),
            Phase::Greeted(greeting) => ServerHandshake::new(greeting, password.cloned(), &mut out),
            Phase::Offered { greeting, offer } => {
                let mut handshake = ServerHandshake::new(greeting, password.cloned(), &mut out);
                // It has our version already.
                out.clear();
                if let Err(error) = handshake.feed(offer, &mut out) {
                    self.close().await;
                    return Err(error.into());
                }
                handshake
            }
        };
        let (mut connected, _) = self.play(handshake, out, deadline).await?;
        connected.phase = Phase::LoggedIn;
        Ok(connected)
    }

    /// Plays a handshake to its end.
    async fn play(
        mut self,
        mut handshake: ServerHandshake,
        mut out: Vec<u8>,
        deadline: Instant,
    ) -> Result<(Self, ServerHandshake), UpstreamError> {
        let playing = async {
            // A server that refuses need not wait for what we say, and may have closed over it: its words are read all the same.
            let mut unheard = None;
            loop {
                let said = async {
                    self.stream.write_all(&out).await?;
                    self.stream.flush().await
                };
                if let Err(error) = said.await {
                    unheard = Some(error);
                }
                out.clear();
                if handshake.wants() == 0 {
                    return unheard.map_or(Ok(Ok(())), Err);
                }
                let mut part = vec![0; handshake.wants()];
                self.stream.read_exact(&mut part).await?;
                if let Err(error) = handshake.feed(&part, &mut out) {
                    return Ok(Err(error));
                }
            }
        };
        let played: Result<io::Result<Result<(), LoginError>>, _> =
            timeout_at(deadline, with_child(playing, self.child.as_deref_mut())).await;
        if let Ok(Ok(Ok(()))) = played {
            return Ok((self, handshake));
        }
        // Closed first: a spawned server ends when its connection does.
        drop(self.stream);
        match played {
            Ok(Err(error)) => return Err(broken(error, self.child).await),
            Ok(Ok(result)) => {
                end(self.child).await;
                result?;
            }
            Err(_) => end(self.child).await,
        }
        Err(UpstreamError::TimedOut)
    }

    /// Lets the server go, for example because the session was refused after all.
    pub async fn close(self) {
        drop(self.stream);
        end(self.child).await;
    }
}

/// Runs a future while reading what the child says, so that a talkative child is never blocked by it.
pub(crate) async fn with_child<F: Future>(future: F, child: Option<&mut Spawned>) -> F::Output {
    match child {
        None => future.await,
        Some(child) => tokio::select! {
            biased;
            output = future => output,
            never = Box::pin(child.listen()) => match never {},
        },
    }
}

pub(crate) async fn end(child: Option<Box<Spawned>>) {
    if let Some(child) = child {
        child.end().await;
    }
}

async fn broken(error: io::Error, child: Option<Box<Spawned>>) -> UpstreamError {
    match child {
        Some(child) => UpstreamError::Ended(child.end().await),
        None if error.kind() == io::ErrorKind::UnexpectedEof => UpstreamError::Ended(String::new()),
        None => UpstreamError::Lost(error),
    }
}

/// The connection to a local VNC server.
#[derive(Debug)]
pub(crate) enum LocalStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
