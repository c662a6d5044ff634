//! The soak as a program; `cargo xtask soak` builds everything and starts it.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use umbra_tests::netns::isolate;
use umbra_tests::soak::{FEWEST, GRACE, Wish, own_mounts, run};

const USAGE: &str = "cargo xtask soak: a whole installation under work and faults, and an audit afterwards

Usage: cargo xtask soak [--minutes N] [--seed S] [--devices N]

  --minutes  how long faults go on [default: 5]; it ends at most five minutes after that
  --seed     which faults come when [default: another one each time, which is printed]
  --devices  how many devices are there from the beginning [default: 4]

Exit code 0: nothing was lost, doubled, leaked or let in. As root it also fills disks, in mounts and a network of its own.
";

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to tell when stdout is closed.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn parse(mut given: impl Iterator<Item = String>) -> anyhow::Result<Option<Wish>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut wish = Wish {
        minutes: 5,
        seed: now.as_secs() ^ u64::from(now.subsec_nanos()),
        devices: 4,
        disks: false,
    };
    while let Some(flag) = given.next() {
        let mut number = || -> anyhow::Result<u64> {
            let value = given
                .next()
                .with_context(|| format!("{flag} needs a value"))?;
            value
                .parse()
                .with_context(|| format!("{flag} needs a whole number, and {value:?} is none"))
        };
        match flag.as_str() {
            "--help" | "-h" => return Ok(None),
            "--minutes" => wish.minutes = number()?,
            "--seed" => wish.seed = number()?,
            "--devices" => wish.devices = usize::try_from(number()?)?,
            other => bail!("{other:?} is not understood; --help lists what is"),
        }
    }
    if wish.minutes == 0 || wish.minutes > 24 * 60 {
        bail!("--minutes takes 1 to 1440");
    }
    if wish.devices < FEWEST || wish.devices > 50 {
        bail!("--devices takes {FEWEST} to 50");
    }
    Ok(Some(wish))
}

fn soaked() -> anyhow::Result<bool> {
    let Some(mut wish) = parse(std::env::args().skip(1))? else {
        std::io::stdout().lock().write_all(USAGE.as_bytes())?;
        return Ok(true);
    };
    // Before there are other threads.
    if nix::unistd::geteuid().is_root() {
        own_mounts().context("no mounts of our own can be made")?;
        isolate()?;
        wish.disks = true;
    }
    say(&format!(
        "it ends within {} minutes",
        wish.minutes + GRACE.as_secs() / 60
    ));
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut asked = signal(SignalKind::terminate())?;
        tokio::select! {
            well = run(&wish, say) => well,
            _ = tokio::signal::ctrl_c() => bail!("interrupted; all programs of the soak are ended"),
            _ = asked.recv() => bail!("asked to end; all programs of the soak are ended"),
        }
    })
}

fn main() -> ExitCode {
    match soaked() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "umbra-soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}
