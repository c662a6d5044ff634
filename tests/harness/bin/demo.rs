//! The demo as a program; `cargo xtask demo` builds everything and starts it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use umbra_tests::demo::{Kind, Wish, run};

const USAGE: &str = "cargo xtask demo: a server, a device and a console in a temporary folder, on loopback only

Usage: cargo xtask demo [--desktop builtin|x11vnc] [--once --out FILE.png]

  --desktop  what stands behind the device: the built-in moving desktop (default), or a real X server with a
             terminal and x11vnc, which must be installed
  --once     do the whole job without a person: enrol, shadow, type, compare, and end
  --out      where to save what was seen (with --once)

Without --once it stays until Ctrl-C and says how to shadow the device.
";

fn parse(mut given: impl Iterator<Item = String>) -> anyhow::Result<Option<Wish>> {
    let (mut kind, mut once, mut out) = (Kind::Builtin, false, None);
    while let Some(flag) = given.next() {
        let mut value = || {
            given
                .next()
                .with_context(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--help" | "-h" => return Ok(None),
            "--once" => once = true,
            "--out" => out = Some(PathBuf::from(value()?)),
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
    match (once, out) {
        (true, Some(out)) => Ok(Some(Wish {
            kind,
            once: Some(out),
        })),
        (false, None) => Ok(Some(Wish { kind, once: None })),
        (true, None) | (false, Some(_)) => bail!("--once and --out belong together"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match parse(std::env::args().skip(1)) {
        Ok(None) => std::io::stdout()
            .lock()
            .write_all(USAGE.as_bytes())
            .map_err(anyhow::Error::from),
        Ok(Some(wish)) => {
            let stop = async {
                // Without a signal to wait for there is no reason to stay.
                let _ = tokio::signal::ctrl_c().await;
            };
            run(&wish, std::io::stdout(), stop).await
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "umbra-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
