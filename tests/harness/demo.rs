//! The demo: a server, a device and a console on this machine, in a temporary folder and on loopback only. With a person
//! it stays and says how to shadow the device; without one it does the whole job itself and keeps a picture of what it
//! saw. It uses the programs that ship and nothing that a person could not do with them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::desktop::Desktop;
use crate::eventually::eventually_is;
use crate::image::Image;
use crate::program::{Program, product};
use crate::rfb_client::RfbClient;
use crate::scratch::Scratch;
use crate::world::{
    Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig, Shadow, desktop,
};
use crate::x11::XServer;

/// What is typed through the tunnel.
const TYPED: &str = "hello from the helpdesk";
/// The size of the screen.
const SIZE: (u16, u16) = (800, 600);
/// A place inside of the terminal's window.
const IN_TERMINAL: (u16, u16) = (200, 200);

/// What stands behind the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The harness's own moving desktop: needs nothing installed.
    Builtin,
    /// A real X server, a terminal in it, and x11vnc, started for each session.
    X11vnc,
}

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What stands behind the device.
    pub kind: Kind,
    /// Do everything without a person, save what was seen here, and end.
    pub once: Option<PathBuf>,
}

/// The screen behind the device.
enum Screen {
    Builtin(Desktop),
    X11vnc {
        server: XServer,
        typed: PathBuf,
        _terminal: Program,
    },
}

impl Screen {
    /// The share of pixels in which a viewer's picture may differ from one taken at the source. The built-in desktop moves
    /// between the two; a real one stands still, and less than one missing letter shows.
    fn tolerance(&self) -> f64 {
        match self {
            Screen::Builtin(_) => 0.02,
            Screen::X11vnc { .. } => 0.000_01,
        }
    }
}

/// Says what happens, one numbered step after the other.
struct Story<W> {
    out: W,
    steps: u32,
    start: Instant,
}

impl<W: Write> Story<W> {
    fn step(&mut self, text: &str) -> anyhow::Result<()> {
        self.steps += 1;
        writeln!(
            self.out,
            "{:>2}. [{:>4.1} s] {text}",
            self.steps,
            self.start.elapsed().as_secs_f64()
        )?;
        Ok(self.out.flush()?)
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }
}

/// Runs the demo until it is done or, with a person, until `stop` is.
pub async fn run(
    wish: &Wish,
    out: impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let scratch = Scratch::new().context("no temporary folder can be made")?;
    let told = tell(&scratch, wish, out, stop).await;
    if told.is_err() {
        // The folder goes; what the programs said last must not.
        let _ = write!(std::io::stderr().lock(), "{}", scratch.logs());
    }
    told
}

async fn tell(
    scratch: &Scratch,
    wish: &Wish,
    out: impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut story = Story {
        out,
        steps: 0,
        start: Instant::now(),
    };
    let (screen, config) = screen(scratch, wish.kind, &mut story).await?;
    let server = Server::start(scratch, ServerConfig::default()).await?;
    story.step(&format!(
        "the server listens on {}; its root is {}",
        server.address(),
        server.fingerprint()
    ))?;
    let console = Console::administrator(scratch, &server).await?;
    story
        .step("the administrator has logged in, and pinned the server's root by its fingerprint")?;
    let mut device = Device::new(scratch, "device", config)?;
    device.start()?;
    device.wait_until_up().await?;
    story.step(&format!(
        "the device has made its identity: {}",
        device.certificate().display()
    ))?;
    let key = console.one_time_key().await?;
    device.enrol(&server, &key).await?;
    let status = device.wait_for_stage("online").await?;
    let name = status
        .pointer("/identity/unit_id")
        .and_then(Value::as_str)
        .context("the device has no name")?;
    story.step(&format!(
        "the device {name} was taken on with a one-time key, and is online"
    ))?;
    let port = device.shadow_address().await?.port();
    story.step(&format!(
        "the device accepts shadowing on port {port}, and nothing but TLS"
    ))?;
    match &wish.once {
        Some(path) => shadow_once(scratch, &mut story, &screen, &console, name, path).await,
        None => stay(&mut story, &console, name, stop).await,
    }
}

async fn screen<W: Write>(
    scratch: &Scratch,
    kind: Kind,
    story: &mut Story<W>,
) -> anyhow::Result<(Screen, DeviceConfig)> {
    match kind {
        Kind::Builtin => {
            let desktop = desktop(scratch).await?;
            story.step("the device's screen is the built-in moving desktop, on a Unix socket")?;
            let config = DeviceConfig::with_desktop(&desktop);
            Ok((Screen::Builtin(desktop), config))
        }
        Kind::X11vnc => {
            let server = XServer::xvfb(scratch, SIZE.0, SIZE.1).await?;
            let typed = scratch.path("typed");
            let terminal = server.terminal(scratch, &typed)?;
            eventually_is("the terminal to be there", PATIENCE, || {
                std::fs::metadata(&typed)
            })
            .await?;
            let config = DeviceConfig::with_command(&server.x11vnc_inetd()?, &server.environment());
            story.step("the device's screen is a real X server with a terminal; x11vnc starts for each session")?;
            Ok((
                Screen::X11vnc {
                    server,
                    typed,
                    _terminal: terminal,
                },
                config,
            ))
        }
    }
}

async fn shadow_once<W: Write>(
    scratch: &Scratch,
    story: &mut Story<W>,
    screen: &Screen,
    console: &Console<'_>,
    device: &str,
    out: &Path,
) -> anyhow::Result<()> {
    let mut shadow = console.shadow(device, &["--reason", "demo"]).await?;
    let mut viewer = shadow.view().await?;
    viewer.refresh().await?;
    let size = (viewer.image().width(), viewer.image().height());
    story.step(&format!(
        "a viewer sees “{}”, {}x{} pixels, through both proxies",
        viewer.greeting().name,
        size.0,
        size.1
    ))?;

    type_and_see(screen, &mut viewer).await?;
    story.step(&format!("the keys “{TYPED}” arrived at the device"))?;
    let apart = same_as_at_the_source(scratch, screen, &mut viewer).await?;
    viewer
        .save_png(out)
        .with_context(|| format!("cannot write {}", out.display()))?;
    let percent = apart * 100.0;
    story.step(&format!(
        "what the viewer sees is what the device shows ({percent:.2} % of pixels differ): {}",
        out.display()
    ))?;

    viewer.leave().await?;
    let record = end(&mut shadow, console).await?;
    story.step(&format!("the session is over, and on record: {record}"))?;
    story.say("All is well.")
}

async fn type_and_see(screen: &Screen, viewer: &mut RfbClient) -> anyhow::Result<()> {
    match screen {
        Screen::Builtin(desktop) => {
            viewer.type_text(TYPED).await?;
            let arrived = || match desktop.typed() {
                typed if typed == TYPED => Ok(()),
                other => Err(other),
            };
            eventually_is("the keys to arrive", PATIENCE, arrived).await?;
        }
        Screen::X11vnc { typed, .. } => {
            // Without a window manager the window under the pointer has the keyboard.
            viewer.pointer(0, IN_TERMINAL.0, IN_TERMINAL.1).await?;
            viewer.type_text(&format!("{TYPED}\n")).await?;
            let arrived = || match std::fs::read_to_string(typed) {
                Ok(text) if text == format!("{TYPED}\n") => Ok(()),
                other => Err(other),
            };
            eventually_is("the keys to arrive", PATIENCE, arrived).await?;
        }
    }
    Ok(())
}

/// The share of pixels that differ between the viewer's picture and one taken at the source.
async fn same_as_at_the_source(
    scratch: &Scratch,
    screen: &Screen,
    viewer: &mut RfbClient,
) -> anyhow::Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        viewer.refresh().await?;
        let source: Image = match screen {
            Screen::Builtin(desktop) => desktop.framebuffer(),
            Screen::X11vnc { server, .. } => server.screenshot(scratch).await?,
        };
        let apart = source
            .difference(viewer.image(), 8)
            .context("the viewer's picture has another size")?;
        if apart.differing_share <= screen.tolerance() && source.colours(3) == 3 {
            return Ok(apart.differing_share);
        }
        ensure!(
            Instant::now() < deadline,
            "what the viewer sees is not what the device shows: {apart:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The end of the session as the console tells it and as the server has it on record.
async fn end(shadow: &mut Shadow, console: &Console<'_>) -> anyhow::Result<String> {
    let ended = shadow.ended().await?;
    let (status, said) = shadow.finished().await?;
    if !status.success() {
        bail!("umbra shadow ended with {status}: {said}");
    }
    let id = ended
        .get("session")
        .and_then(Value::as_str)
        .context("the end names no session")?;
    let record = console.ended_session(id).await?;
    let text = |name: &str| {
        record
            .get(name)
            .map_or_else(String::new, |value| value.to_string().replace('"', ""))
    };
    Ok(format!(
        "by {}, reason “{}”, {} ms, {} bytes seen, {} bytes sent, ended with {}",
        text("user"),
        text("reason"),
        text("duration_ms"),
        text("bytes_to_console"),
        text("bytes_to_device"),
        text("end_code"),
    ))
}

async fn stay<W: Write>(
    story: &mut Story<W>,
    console: &Console<'_>,
    device: &str,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let umbra = product("umbra")?;
    let typed = format!(
        "{} --config {}",
        umbra.display(),
        console.config().display()
    );
    story.say(&format!(
        "\nShadow it from another terminal:\n\n  {typed} shadow {device} --reason demo\n\nor with a viewer of your own:\n\n  \
         {typed} shadow {device} --reason demo --listen 127.0.0.1:5901\n  vncviewer 127.0.0.1::5901\n\nand look around:\n\n  \
         {typed} devices\n  {typed} sessions\n\nCtrl-C ends everything and removes the folder."
    ))?;
    stop.await;
    story.say("\nEverything is stopped.")
}
