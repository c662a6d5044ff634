//! The demo as a program; `cargo xtask demo` builds everything and starts it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use umbra_tests::demo::{Errand, Kind, Via, Wish, run};
use umbra_tests::netns;

const USAGE: &str = "cargo xtask demo: a server, a gateway, a device and a console in a temporary folder

Usage: cargo xtask demo [--via icg|direct] [--desktop builtin|x11vnc] [--once --out FILE.png | --once --toggle]

  --via      the device's way to the server: through a gateway (default), or directly
  --desktop  what stands behind the device: the built-in moving desktop (default), or a real X server with a
             terminal and x11vnc, which must be installed
  --once     do the whole job without a person: enrol, shadow, type, compare, and end; through a gateway, the
             device then stands in a network of its own, with no way to the server, where that is permitted (root)
  --out      where to save what was seen (with --once)
  --toggle   with --once: switch the device's way from the gateway to the direct one and back, live

Without --once it stays until Ctrl-C and says how to shadow the device.
";

fn parse(mut given: impl Iterator<Item = String>) -> anyhow::Result<Option<Wish>> {
    let (mut kind, mut via) = (Kind::Builtin, Via::Icg);
    let (mut once, mut toggle, mut out) = (false, false, None);
    while let Some(flag) = given.next() {
        let mut value = || {
            given
                .next()
                .with_context(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--help" | "-h" => return Ok(None),
            "--once" => once = true,
            "--toggle" => toggle = true,
            "--out" => out = Some(PathBuf::from(value()?)),
            "--via" => {
                via = match value()?.as_str() {
                    "icg" => Via::Icg,
                    "direct" => Via::Direct,
                    other => bail!("{other:?} is no way: icg and direct are"),
                }
            }
            "--desktop" => {
                kind = match value()?.as_str() {
                    "builtin" => Kind::Builtin,
                    "x11vnc" => Kind::X11vnc,
                    other => bail!("{other:?} is no desktop: builtin and x11vnc are"),
                }
            }
            other => bail!("{other:?} is not understood; --help lists what is"),
        }
    }
    let once = match (once, toggle, out) {
        (true, false, Some(out)) => Some(Errand::Picture(out)),
        (true, true, None) => Some(Errand::Toggle),
        (false, false, None) => None,
        _ => bail!("--once belongs together with --out or with --toggle"),
    };
    if once == Some(Errand::Toggle) && via == Via::Direct {
        bail!("--toggle begins at the gateway: leave --via out");
    }
    Ok(Some(Wish {
        kind,
        via,
        once,
        isolated: false,
    }))
}

/// Goes into a network of its own if that serves the demo and is permitted. There is no other thread yet.
fn isolate(wish: &mut Wish) -> anyhow::Result<()> {
    if wish.via != Via::Icg || !matches!(wish.once, Some(Errand::Picture(_))) {
        return Ok(());
    }
    match netns::isolate() {
        Ok(()) => wish.isolated = true,
        Err(error) => writeln!(
            std::io::stdout().lock(),
            "The device shares this machine's loopback: {error}."
        )?,
    }
    Ok(())
}

fn shown() -> anyhow::Result<()> {
    let Some(mut wish) = parse(std::env::args().skip(1))? else {
        return Ok(std::io::stdout().lock().write_all(USAGE.as_bytes())?);
    };
    isolate(&mut wish)?;
    let stop = async {
        // Without a signal to wait for there is no reason to stay.
        let _ = tokio::signal::ctrl_c().await;
    };
    tokio::runtime::Runtime::new()?.block_on(run(&wish, std::io::stdout(), stop))
}

fn main() -> ExitCode {
    match shown() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "umbra-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
