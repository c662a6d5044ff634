//! The test desktop as a program: for demos, for trying a viewer by hand, and as what an agent spawns per session.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use umbra_tests::desktop::{Desktop, DesktopConfig, Listen};

const USAGE: &str = "umbra-test-desktop: a moving desktop behind a small RFB server

Usage: umbra-test-desktop [--listen 127.0.0.1:PORT|unix:PATH | --inetd]
                          [--name NAME] [--size WxH] [--password FILE]

  --listen    where to listen (default 127.0.0.1:0, a free port); says `ready ADDRESS` once it does
  --inetd     serve one viewer on stdin and stdout, then end
  --name      the device's name, shown in the picture (default thin-client-1)
  --size      width and height in pixels (default 800x600)
  --password  demand the VNC password in the first line of this file
";

struct Arguments {
    config: DesktopConfig,
    inetd: bool,
}

fn parse(mut given: impl Iterator<Item = String>) -> anyhow::Result<Option<Arguments>> {
    let mut arguments = Arguments {
        config: DesktopConfig::default(),
        inetd: false,
    };
    while let Some(flag) = given.next() {
        let mut value = || {
            given
                .next()
                .with_context(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--help" | "-h" => return Ok(None),
            "--inetd" => arguments.inetd = true,
            "--listen" => {
                arguments.config.listen = value()?.parse::<Listen>().map_err(anyhow::Error::msg)?
            }
            "--name" => arguments.config.name = value()?,
            "--size" => {
                let size = value()?;
                let sides = size
                    .split_once('x')
                    .and_then(|(x, y)| Some((x.parse().ok()?, y.parse().ok()?)));
                let sides = sides.filter(|(x, y)| (1..=8192).contains(x) && (1..=8192).contains(y));
                arguments.config.size =
                    sides.with_context(|| format!("{size:?} is no size like 800x600"))?;
            }
            "--password" => {
                let path = PathBuf::from(value()?);
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                arguments.config.password = text.lines().next().map(str::to_owned);
            }
            other => bail!("{other:?} is not understood; --help lists what is"),
        }
    }
    Ok(Some(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.inetd {
        let desktop = Desktop::unheard(arguments.config);
        desktop.serve(tokio::io::stdin(), tokio::io::stdout()).await;
        return Ok(());
    }
    if let Listen::Tcp(address) = &arguments.config.listen {
        refuse_networks(*address)?;
    }
    let desktop = Desktop::start(arguments.config)
        .await
        .context("cannot listen")?;
    let address = desktop.address().context("listens nowhere")?;
    writeln!(std::io::stdout().lock(), "ready {address}")?;
    std::io::stdout().lock().flush()?;
    tokio::signal::ctrl_c()
        .await
        .context("cannot wait for Ctrl-C")
}

/// It serves whoever connects, so it stays on this machine.
fn refuse_networks(address: SocketAddr) -> anyhow::Result<()> {
    if !address.ip().is_loopback() {
        bail!(
            "{address} is not loopback; the test desktop lets anybody in and stays on this machine"
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    let outcome = parse(std::env::args().skip(1)).and_then(|arguments| match arguments {
        None => Ok(std::io::stdout().lock().write_all(USAGE.as_bytes())?),
        Some(arguments) => {
            let runtime = tokio::runtime::Runtime::new()?;
            let outcome = runtime.block_on(run(arguments));
            // A read of stdin that is still under way must not keep the program.
            runtime.shutdown_background();
            outcome
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "umbra-test-desktop: {error:#}");
            ExitCode::from(64)
        }
    }
}
