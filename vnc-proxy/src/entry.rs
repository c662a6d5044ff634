//! A session from the yes to its end: the viewer is greeted and waited for, then bytes are moved. A viewer of the version in which
//! the VNC server was asked gets its offer as it came; for one of another version the server is connected to anew. Nothing here
//! decides who may come in.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::device_end::SessionOptions;
use crate::greeting::Greeting;
use crate::inlet::Inlet;
use crate::input_filter::InputFilter;
use crate::outcome::{EndReason, StopCause};
use crate::spawned::Spawned;
use crate::splice::{Limits, Side, SpliceEnd, Spliced, splice};
use crate::upstream::{Connected, LocalStream, Phase, Upstream, UpstreamError, end, with_child};
use crate::viewer_handshake::{ViewerError, ViewerHandshake, ViewerLine};

/// How much a VNC server may say while the viewer is waited for: with 3.3, its challenge follows its offer.
const EARLY_MAX: usize = 256;

/// Carries a session to its end, with the VNC server's program reaped; why it ended, bytes to the device and to the console.
///
/// Only the moving of bytes is made for the kind of stream; what comes before is rare and the same for all. Both are boxed: while a session
/// stands still, it occupies what moving bytes needs, and that once.
pub(crate) async fn enter_and_carry<S>(
    stream: &mut S,
    connected: Connected,
    options: &SessionOptions,
    started: Instant,
    stop: &mut (impl Future<Output = StopCause> + Unpin),
) -> (EndReason, u64, u64)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut session = Session {
        stream: &mut *stream,
        options,
        total: options.limits.total.map(|total| started + total),
        to_device: 0,
        to_console: 0,
    };
    let Entered {
        mut vnc,
        mut child,
        inlet,
        said,
    } = match Box::pin(session.enter(connected, stop)).await {
        Ok(entered) => entered,
        Err(reason) => {
            let _ = timeout(options.handshake_limit, session.stream.shutdown()).await;
            return (reason, session.to_device, session.to_console);
        }
    };
    let (to_device_before, to_console_before) = (session.to_device, session.to_console);
    let limits = Limits {
        total: session
            .total
            .map(|total| total.saturating_duration_since(Instant::now())),
        ..options.limits
    };
    let carrying = Box::pin(splice(stream, &mut vnc, inlet, &said, limits, stop));
    let spliced = with_child(carrying, child.as_deref_mut()).await;
    // Closed first: a spawned server ends when its connection does.
    drop(vnc);
    end(child).await;
    let Spliced {
        end,
        to_device,
        to_console,
    } = spliced;
    (
        reason(end),
        to_device_before + to_device,
        to_console_before + to_console,
    )
}

/// A viewer and a VNC server that go on by themselves.
struct Entered {
    vnc: LocalStream,
    child: Option<Box<Spawned>>,
    inlet: Inlet,
    /// What the VNC server has said and the viewer has not heard yet.
    said: Vec<u8>,
}

/// A viewer's stream, of whatever kind.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

struct Session<'s> {
    stream: &'s mut dyn Duplex,
    options: &'s SessionOptions,
    total: Option<Instant>,
    /// Bytes of the viewer's that are at the VNC server.
    to_device: u64,
    /// Bytes of the VNC server's that are at the viewer.
    to_console: u64,
}

impl Session<'_> {
    async fn enter(
        &mut self,
        connected: Connected,
        stop: &mut (impl Future<Output = StopCause> + Unpin),
    ) -> Result<Entered, EndReason> {
        let Connected {
            upstream,
            stream: mut vnc,
            mut child,
            phase,
        } = connected;
        let entering = async {
            match &phase {
                Phase::Offered { greeting, offer } => {
                    let (line, said) = self.meet(&mut vnc, greeting, offer.clone()).await?;
                    let line = Some(line).filter(|line| line.line != *greeting.answer());
                    Ok((line, Inlet::transparent(), said))
                }
                Phase::LoggedIn => {
                    let said = self.play(&mut vnc).await?;
                    let policy = self.options.policy;
                    let filter = policy.needs_filter().then(|| InputFilter::new(policy));
                    // Who may only look must not throw out who works.
                    let inlet = Inlet::after_handshake(filter, !policy.keyboard_and_pointer);
                    Ok((None, inlet, said))
                }
                // Nobody is let in to a server that has not said yet whether it wants anybody.
                Phase::Greeted(_) => Err(EndReason::VncServerClosed),
            }
        };
        let entered = tokio::select! {
            biased;
            cause = &mut *stop => Err(EndReason::Stopped(cause)),
            entered = with_child(entering, child.as_deref_mut()) => entered,
        };
        let result = match entered {
            Ok((None, inlet, said)) => {
                return Ok(Entered {
                    vnc,
                    child,
                    inlet,
                    said,
                });
            }
            Ok((Some(line), ..)) => Ok(line),
            Err(reason) => Err(reason),
        };
        // Closed first: a spawned server ends when its connection does, and another may take one at a time.
        drop(vnc);
        end(child).await;
        let line = result?;
        tokio::select! {
            biased;
            cause = &mut *stop => Err(EndReason::Stopped(cause)),
            entered = self.connect_anew(&upstream, &line) => entered,
        }
    }

    /// Greets the viewer as the VNC server did; returns the viewer's version, and what the VNC server has said so far.
    async fn meet(
        &mut self,
        vnc: &mut LocalStream,
        greeting: &Greeting,
        mut said: Vec<u8>,
    ) -> Result<(Greeting, Vec<u8>), EndReason> {
        self.say(&greeting.line).await?;
        self.to_console = greeting.line.len() as u64;
        let mut byte = self.first_byte(vnc, &mut said).await?;
        let rest = async {
            let mut line = ViewerLine::new(self.options.legacy_preface);
            loop {
                if let Some(line) = line.push(byte)? {
                    return Ok(line);
                }
                byte = next_byte(self.stream).await?;
            }
        };
        let line = timeout(self.options.handshake_limit, rest)
            .await
            .unwrap_or(Err(EndReason::ViewerSilent))?;
        self.to_device = line.line.len() as u64;
        Ok((line, said))
    }

    /// Plays the VNC server's half of the handshake; returns what the VNC server has said meanwhile.
    async fn play(&mut self, vnc: &mut LocalStream) -> Result<Vec<u8>, EndReason> {
        let mut out = Vec::new();
        let mut handshake = ViewerHandshake::new(self.options.legacy_preface, &mut out);
        self.say(&out).await?;
        let mut said = Vec::new();
        let mut byte = self.first_byte(vnc, &mut said).await?;
        let rest = async {
            loop {
                out.clear();
                let pushed = handshake.push(byte, &mut out);
                let told = self.stream.write_all(&out).await;
                // Told if it can be told; it is turned away in any case.
                pushed?;
                told.map_err(|_| EndReason::PeerVanished)?;
                self.stream
                    .flush()
                    .await
                    .map_err(|_| EndReason::PeerVanished)?;
                if handshake.is_done() {
                    return Ok(());
                }
                byte = next_byte(self.stream).await?;
            }
        };
        timeout(self.options.handshake_limit, rest)
            .await
            .unwrap_or(Err(EndReason::ViewerSilent))?;
        Ok(said)
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), EndReason> {
        let saying = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(self.options.handshake_limit, saying).await {
            Ok(said) => said.map_err(|_| EndReason::PeerVanished),
            Err(_) => Err(EndReason::ViewerSilent),
        }
    }

    /// The viewer's first byte. At the console, a person may still have to start a viewer: only the session's own limits hold.
    async fn first_byte(
        &mut self,
        vnc: &mut LocalStream,
        said: &mut Vec<u8>,
    ) -> Result<u8, EndReason> {
        let idle = self.options.limits.idle.map(|idle| Instant::now() + idle);
        let mut part = [0; EARLY_MAX];
        let full = said.len() + EARLY_MAX;
        loop {
            tokio::select! {
                biased;
                byte = next_byte(self.stream) => return byte,
                read = vnc.read(&mut part), if said.len() < full => match read {
                    Ok(0) => return Err(EndReason::VncServerClosed),
                    Ok(count) => said.extend_from_slice(&part[..count]),
                    Err(error) => return Err(EndReason::VncServerLost(error)),
                },
                () = at(idle) => return Err(EndReason::IdleLimit),
                () = at(self.total) => return Err(EndReason::TotalLimit),
            }
        }
    }

    /// The viewer speaks another version than the one in which the VNC server was asked: what it offers then is not known, and
    /// goes from the one to the other.
    async fn connect_anew(
        &mut self,
        upstream: &Upstream,
        line: &Greeting,
    ) -> Result<Entered, EndReason> {
        let deadline = Instant::now() + self.options.handshake_limit;
        let Connected {
            stream: mut vnc,
            child,
            ..
        } = upstream
            .connect(deadline)
            .await
            .map_err(EndReason::Upstream)?;
        let reason = match timeout_at(deadline, vnc.write_all(&line.line)).await {
            Ok(Ok(())) => {
                return Ok(Entered {
                    vnc,
                    child,
                    inlet: Inlet::transparent(),
                    said: Vec::new(),
                });
            }
            Ok(Err(error)) => EndReason::VncServerLost(error),
            Err(_) => EndReason::Upstream(UpstreamError::TimedOut),
        };
        drop(vnc);
        end(child).await;
        Err(reason)
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The next byte of a side that may close in order or not.
async fn next_byte(stream: &mut dyn Duplex) -> Result<u8, EndReason> {
    let mut byte = [0];
    match stream.read(&mut byte).await {
        Ok(0) => Err(EndReason::ViewerClosed),
        Ok(_) => Ok(byte[0]),
        Err(_) => Err(EndReason::PeerVanished),
    }
}

fn reason(end: SpliceEnd) -> EndReason {
    match end {
        SpliceEnd::Closed(Side::Console) => EndReason::ViewerClosed,
        SpliceEnd::Closed(Side::Device) => EndReason::VncServerClosed,
        SpliceEnd::Lost(Side::Console, _) => EndReason::PeerVanished,
        SpliceEnd::Lost(Side::Device, error) => EndReason::VncServerLost(error),
        SpliceEnd::IdleLimit => EndReason::IdleLimit,
        SpliceEnd::TotalLimit => EndReason::TotalLimit,
        SpliceEnd::Stopped(cause) => EndReason::Stopped(cause),
        SpliceEnd::Violation(violation) => EndReason::InputViolation(violation),
    }
}

impl From<ViewerError> for EndReason {
    fn from(error: ViewerError) -> Self {
        Self::ViewerMisbehaved(error)
    }
}
