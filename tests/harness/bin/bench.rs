//! The benchmark as a program; `cargo xtask bench` builds everything and starts it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use umbra_tests::bench::{Wish, run};

/// What is to be measured, and where the JSON and the Markdown go.
struct Order {
    wish: Wish,
    json: Option<PathBuf>,
    markdown: Option<PathBuf>,
}

fn parse(mut given: impl Iterator<Item = String>) -> anyhow::Result<Order> {
    let mut order = Order {
        wish: Wish::default(),
        json: None,
        markdown: None,
    };
    while let Some(flag) = given.next() {
        let mut value = || {
            given
                .next()
                .with_context(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--quick" => order.wish.quick = true,
            "--only" => order.wish.only = Some(value()?),
            "--json" => order.json = Some(value()?.into()),
            "--markdown" => order.markdown = Some(value()?.into()),
            "--device-end" => order.wish.device_end = Some(value()?.into()),
            "--beside" => order.wish.beside = Some(value()?.into()),
            "--herd" => order.wish.herd = Some(value()?.into()),
            "--handshakes" => order.wish.handshakes = Some(value()?.into()),
            "--alone" => order.wish.alone = true,
            "--foreign" => order.wish.foreign = Some(value()?.into()),
            "--devices" => order.wish.devices = Some(value()?.parse()?),
            "--peers" => order.wish.peers = Some(value()?.into()),
            other => bail!("{other:?} is not understood; start it with cargo xtask bench"),
        }
    }
    Ok(order)
}

fn say(line: &str) {
    // Nobody is left to tell when stdout is closed.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn measured() -> anyhow::Result<()> {
    let order = parse(std::env::args().skip(1))?;
    let (report, wrong) = tokio::runtime::Runtime::new()?.block_on(run(&order.wish, say))?;
    let table = report.markdown();
    say(&format!("\n{table}"));
    if let Some(path) = &order.json {
        let mut json = serde_json::to_vec_pretty(&report)?;
        json.push(b'\n');
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &order.markdown {
        std::fs::write(path, table).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

fn main() -> ExitCode {
    match measured() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "umbra-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
