//! One shadowing session from the operator's side: an offer from the server, the device that the server named and no
//! other, its consent, then a viewer on loopback, and at the end the reason. No viewer starts, and no port opens, before the
//! device has said yes.

mod dial;
mod error;
mod meeting;
mod report;
mod viewer;

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};
use umbra_protocol::api::{NewSession, SessionOffer};
use umbra_protocol::session::Permissions;
use umbra_vnc_proxy::console_end::{self, ConsoleError, ViewerListener};
use umbra_vnc_proxy::tls::console_client_config;
use umbra_vnc_proxy::{EndReason, Limits, Outcome, StopCause};

pub use self::dial::DialLimits;
use self::dial::{Target, Tunnel, Way, dial};
pub use self::error::ShadowError;
use self::meeting::Envelope;
pub use self::viewer::{Viewer, ViewerError};
use crate::api::Client;
use crate::cli::ShadowArgs;
use crate::commands::{Call, certificate};
use crate::failure::{Exit, Failure};
use crate::text::printable;

/// How long the device may take to decide, its user included.
const DECISION: Duration = Duration::from_secs(5 * 60);
/// How long a viewer may take to connect.
const VIEWER: Duration = Duration::from_secs(5 * 60);
/// How long a viewer has after the end to close by itself, and the device to take a farewell.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the server may take to hear that a session will not begin.
const WITHDRAWAL: Duration = Duration::from_secs(3);
/// The most that a VNC server says before a viewer has said anything: its greeting.
const EARLY_MAX: usize = 1024;

type Interrupt<'a> = Pin<&'a mut dyn Future<Output = ()>>;

pub(crate) async fn run(
    call: &mut Call<'_, '_>,
    args: ShadowArgs,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut interrupt = std::pin::pin!(interrupt);
    let client = call.client()?;
    // Looked for first, so that nobody at a device is asked for the sake of a session that nobody could see.
    let viewer = match (&args.listen, &args.viewer) {
        (Some(_), _) => None,
        (None, Some(command)) => Some(Viewer::parse(command).map_err(ShadowError::from)?),
        (None, None) => {
            Some(Viewer::find(std::env::var_os("PATH").as_deref()).map_err(ShadowError::from)?)
        }
    };
    let permissions = Permissions {
        control: !args.view_only,
        clipboard: !args.view_only && !args.no_clipboard,
    };
    let new = NewSession {
        device: args.device.clone(),
        reason: args.reason,
        permissions,
        legacy: false,
    };
    let offer = tokio::select! {
        offer = client.offer(&new) => offer?.value,
        () = interrupt.as_mut() => return Err(Failure::Interrupted),
    };
    let device = printable(&offer.device_name);
    let session = async {
        let mut stream = tokio::select! {
            reached = reach(call, &offer, &device) => reached?,
            () = interrupt.as_mut() => return Err(Failure::Interrupted),
        };
        let session = async {
            tokio::select! {
                consent = consent(call, &offer, &mut stream) => consent?,
                () = interrupt.as_mut() => return Err(Failure::Interrupted),
            }
            call.around.note(&format!("connected to {device}"));
            show(
                call,
                &mut stream,
                viewer.as_ref(),
                args.listen,
                interrupt.as_mut(),
            )
            .await
        };
        let session = session.await;
        if session.is_err() {
            // With a farewell, the device knows that it was no accident of the network.
            let _ = timeout(FAREWELL, stream.shutdown()).await;
        }
        session
    };
    let (outcome, child) = match session.await {
        Ok(ended) => ended,
        Err(failure) => {
            withdraw(&client, &offer, &failure).await;
            return Err(failure);
        }
    };
    let report = report::of(&outcome, offer.session, &device, &client).await;
    if let Some(child) = child {
        farewell(child, matches!(outcome.reason, EndReason::Stopped(_))).await;
    }
    if call.json {
        event(call, &report.json)?;
    } else {
        call.write(|out| writeln!(out, "{}", report.sentence))?;
    }
    Ok(report.exit)
}

/// Connects to the device that the server named.
async fn reach(
    call: &mut Call<'_, '_>,
    offer: &SessionOffer,
    device: &str,
) -> Result<Tunnel, Failure> {
    let offer_ends = Instant::now() + Duration::from_secs(u64::from(offer.expires_in_seconds));
    let unusable = |source| ShadowError::Certificate {
        device: device.to_owned(),
        source,
    };
    let expected = certificate(&offer.device_certificate).ok_or_else(|| unusable(None))?;
    let tls = console_client_config(expected).map_err(|error| unusable(Some(error)))?;
    let way = match &offer.rendezvous {
        None => Way::Direct(&offer.addresses),
        Some(meeting) => {
            let root = call.pinned_root()?;
            let envelope = Envelope::new(meeting, root, call.around.environment)?;
            Way::Meeting(meeting, envelope)
        }
    };
    let target = Target {
        device,
        way,
        tls,
        offer_ends,
        limits: call.dial,
    };
    Ok(dial(target, |note| call.around.note(note)).await?)
}

/// Presents the ticket and waits until the device, and its user where there is one to ask, has said yes.
async fn consent(
    call: &mut Call<'_, '_>,
    offer: &SessionOffer,
    stream: &mut Tunnel,
) -> Result<(), ShadowError> {
    let password = umbra_vnc_proxy::Secret::new(offer.password.reveal());
    let deadline = Instant::now() + DECISION;
    let mut last = String::new();
    let on_wait = |sentence: &str| {
        // The device repeats itself to show that it is alive.
        if sentence != last {
            last = sentence.to_owned();
            let sentence = printable(sentence);
            call.around
                .note(&format!("waiting for the user at the device… {sentence}"));
        }
    };
    console_end::open(stream, offer.ticket.reveal(), &password, deadline, on_wait)
        .await
        .map_err(ShadowError::Device)
}

/// Offers the screen on loopback to one viewer and carries the session until it ends.
async fn show(
    call: &mut Call<'_, '_>,
    stream: &mut Tunnel,
    viewer: Option<&Viewer>,
    listen: Option<SocketAddr>,
    mut interrupt: Interrupt<'_>,
) -> Result<(Outcome, Option<Child>), Failure> {
    let listener = console_end::listen_loopback(listen)
        .await
        .map_err(ShadowError::Listen)?;
    let address = listener.address();
    let mut child = match viewer {
        Some(viewer) => {
            call.around
                .note(&format!("starting {}", printable(viewer.program())));
            Some(viewer.start(address).map_err(ShadowError::from)?)
        }
        None if call.json => {
            let document = json!({"event": "listening", "address": address.to_string(), "host": address.ip(), "port": address.port()});
            event(call, &document)?;
            None
        }
        None => {
            call.write(|out| writeln!(out, "listening on {address}"))?;
            None
        }
    };
    let program = viewer.map_or("", Viewer::program);
    let mut early = Early::default();
    let screen = tokio::select! {
        screen = connected(call, listener) => screen.map_err(Failure::from),
        reason = early.read(stream) => Err(ShadowError::EndedEarly(reason.for_operator()).into()),
        error = gone(child.as_mut(), program) => Err(error.into()),
        () = interrupt.as_mut() => Err(Failure::Interrupted),
    };
    let screen = match screen {
        Ok(screen) => screen,
        Err(failure) => {
            if let Some(child) = child {
                farewell(child, true).await;
            }
            return Err(failure);
        }
    };
    let stop = async {
        interrupt.await;
        StopCause::Shutdown
    };
    let outcome =
        console_end::bridge_after_greeting(screen, stream, early.bytes(), Limits::default(), stop)
            .await;
    Ok((outcome, child))
}

async fn connected(
    call: &mut Call<'_, '_>,
    listener: ViewerListener,
) -> Result<TcpStream, ShadowError> {
    // Somebody who tries it again and again is told of once.
    let mut told = None;
    let turned_away = |user: u32| {
        if told.replace(user) != Some(user) {
            call.around.note(&format!(
                "a program of another user of this machine (user ID {user}) wanted the screen and was turned away"
            ));
        }
    };
    match listener
        .accept_one(Instant::now() + VIEWER, turned_away)
        .await
    {
        Ok(viewer) => Ok(viewer),
        Err(ConsoleError::NoViewer) => Err(ShadowError::NoViewer(VIEWER)),
        Err(error) => Err(ShadowError::Listen(error)),
    }
}

/// What the device says while no viewer is there to hear it; so its closing is noticed, too.
struct Early {
    bytes: [u8; EARLY_MAX],
    filled: usize,
}

impl Default for Early {
    fn default() -> Self {
        Self {
            bytes: [0; EARLY_MAX],
            filled: 0,
        }
    }
}

impl Early {
    /// Reads until the device closes; given up as soon as a viewer is there.
    async fn read(&mut self, stream: &mut Tunnel) -> EndReason {
        while self.filled < EARLY_MAX {
            match stream.read(&mut self.bytes[self.filled..]).await {
                Ok(0) => return EndReason::DeviceClosed,
                Ok(read) => self.filled += read,
                Err(_) => return EndReason::PeerVanished,
            }
        }
        std::future::pending().await
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// Completes when the viewer has failed before it connected. Some viewers hand over to a running instance and end well.
async fn gone(child: Option<&mut Child>, program: &str) -> ShadowError {
    let Some(child) = child else {
        return std::future::pending().await;
    };
    let how = match child.wait().await {
        Ok(status) if status.success() => return std::future::pending().await,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    ShadowError::ViewerEnded {
        program: printable(program),
        how,
    }
}

/// Gives the viewer time to close by itself. One that shows its own farewell is left alone, unless it has to go.
async fn farewell(mut child: Child, must_go: bool) {
    if timeout(FAREWELL, child.wait()).await.is_ok() || !must_go {
        return;
    }
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(id),
            nix::sys::signal::Signal::SIGTERM,
        );
    }
    if timeout(FAREWELL, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Tells the server that a session will not begin, where it can't know. If it can't be told, the offer ends by itself.
async fn withdraw(client: &Client, offer: &SessionOffer, failure: &Failure) {
    let refused = matches!(
        failure,
        Failure::Shadow(ShadowError::Device(ConsoleError::Refused { .. }))
    );
    if !refused {
        let _ = timeout(WITHDRAWAL, client.end_session(offer.session)).await;
    }
}

/// One line of JSON: a session has more than one moment to tell of.
fn event(call: &mut Call<'_, '_>, document: &serde_json::Value) -> Result<(), Failure> {
    call.write(|out| writeln!(out, "{document}"))
}

/// Waits a moment between two looks at the server's record.
async fn pause(until: Instant) -> bool {
    const STEP: Duration = Duration::from_millis(300);
    if Instant::now() + STEP >= until {
        return false;
    }
    sleep(STEP).await;
    true
}
