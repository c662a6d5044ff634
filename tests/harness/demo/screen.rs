//! What stands behind the demo's device: where its pixels come from, what was typed into it, and how to compare what a
//! viewer saw with what it shows.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::Story;
use crate::desktop::Desktop;
use crate::eventually::eventually_is;
use crate::image::Image;
use crate::program::Program;
use crate::rfb_client::RfbClient;
use crate::scratch::Scratch;
use crate::world::{DeviceConfig, PATIENCE, desktop};
use crate::x11::XServer;

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

/// The screen behind the device.
pub(super) enum Screen {
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

pub(super) async fn screen<W: Write>(
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

/// Types through the tunnel, and waits until it arrived at the device.
pub(super) async fn type_and_see(
    screen: &Screen,
    viewer: &mut RfbClient,
    text: &str,
) -> anyhow::Result<()> {
    match screen {
        Screen::Builtin(desktop) => {
            viewer.type_text(text).await?;
            let arrived = || match desktop.typed() {
                typed if typed == text => Ok(()),
                other => Err(other),
            };
            eventually_is("the keys to arrive", PATIENCE, arrived).await?;
        }
        Screen::X11vnc { typed, .. } => {
            // Without a window manager the window under the pointer has the keyboard.
            viewer.pointer(0, IN_TERMINAL.0, IN_TERMINAL.1).await?;
            viewer.type_text(&format!("{text}\n")).await?;
            let arrived = || match std::fs::read_to_string(typed) {
                Ok(seen) if seen == format!("{text}\n") => Ok(()),
                other => Err(other),
            };
            eventually_is("the keys to arrive", PATIENCE, arrived).await?;
        }
    }
    Ok(())
}

/// The share of pixels that differ between the viewer's picture and one taken at the source.
pub(super) async fn same_as_at_the_source(
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
