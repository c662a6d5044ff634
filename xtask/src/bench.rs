//! `cargo xtask bench`: builds the programs as released, sees to the peers, and hands over to the benchmark, which lives with the tests,
//! since it drives the same programs through the same harness. `--write-docs` puts the tables where they are read.

mod docs;
mod peers;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::dist::{self, Target};
use crate::step::{cargo, say, step, target_folder, top};

/// Which figures the document holds.
const DOCUMENT: &str = "docs/performance.md";

/// What a person may say.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fewer rounds, less data, fewer devices: meant for under five minutes once everything is built
    #[arg(long)]
    quick: bool,
    /// Write every value of every round into this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only this section
    #[arg(long, value_name = "SECTION")]
    only: Option<String>,
    /// How many devices a gateway and a server get, instead of 1000 (100 with --quick)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(2..=50_000))]
    devices: Option<u32>,
    /// Measure another build of the device end beside this one: `vnc-proxy/examples/device_end.rs` of an earlier commit
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<PathBuf>,
    /// Measure no peers of the device end: for those who work on it
    #[arg(long)]
    alone: bool,
    /// Put the tables into docs/performance.md, in the place of those that are there
    #[arg(long)]
    write_docs: bool,
    /// Install nothing; peers that are missing are named in the report
    #[arg(long)]
    no_install: bool,
}

/// Builds, then measures.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let peers = peers::prepare(!arguments.no_install)?;
    // On a device runs what ships, not what cargo builds by itself.
    let ships = |target| dist::agent(target, None, !arguments.no_install);
    let agent = ships(Target::ours()?)?;
    let mut foreign = Vec::new();
    for target in Target::ALL.into_iter().filter(|target| !target.is_ours()) {
        foreign.push(ships(target)?);
    }
    build()?;
    let built = target_folder()?.join("release");
    let tables = tempfile::NamedTempFile::new().context("no temporary file can be made")?;
    let mut bench = Command::new(built.join("umbra-bench"));
    bench
        .current_dir(top())
        .env("UMBRA_AGENT_BIN", agent)
        .arg("--device-end")
        .arg(built.join("examples/device_end"))
        .arg("--herd")
        .arg(built.join("examples/herd"))
        .arg("--handshakes")
        .arg(built.join("examples/handshakes"))
        .arg("--peers")
        .arg(peers)
        .arg("--markdown")
        .arg(tables.path());
    for agent in foreign {
        bench.arg("--foreign").arg(agent);
    }
    if let Some(devices) = arguments.devices {
        bench.args(["--devices", &devices.to_string()]);
    }
    if arguments.quick {
        bench.arg("--quick");
    }
    if arguments.alone {
        bench.arg("--alone");
    }
    if let Some(only) = &arguments.only {
        bench.args(["--only", only]);
    }
    if let Some(beside) = &arguments.beside {
        bench.arg("--beside").arg(std::path::absolute(beside)?);
    }
    if let Some(json) = &arguments.json {
        // Where the person stands, not where the benchmark runs.
        bench.arg("--json").arg(std::path::absolute(json)?);
    }
    let status = bench.status().context("the benchmark cannot be started")?;
    if !status.success() {
        bail!("the benchmark ended with {status}");
    }
    if arguments.write_docs {
        let tables = std::fs::read_to_string(tables.path()).context("the tables are gone")?;
        let path = top().join(DOCUMENT);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        std::fs::write(&path, docs::with_tables(&text, &tables)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        say(&format!("==> {DOCUMENT} has the new tables"));
    }
    Ok(())
}

/// Builds everything else that takes part, each as those build it who ship it: what tests add to a crate is in none of the programs.
fn build() -> anyhow::Result<()> {
    let release = || {
        let mut command = cargo();
        command.args(["build", "--release", "--locked"]);
        command
    };
    let packages = ["umbra-gateway", "umbra-server", "umbra-console"];
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    step("programs", release().args(packages).arg("--bins"))?;
    let bench = ["--package", "umbra-tests", "--bin", "umbra-bench"];
    step(
        "the benchmark, and many devices in one program",
        release().args(bench).args(["--example", "herd"]),
    )?;
    let device_end = ["--package", "umbra-vnc-proxy", "--example", "device_end"];
    step("the device end alone", release().args(device_end))?;
    let handshakes = ["--package", "umbra-key-exchange", "--example", "handshakes"];
    step("handshakes", release().args(handshakes))
}
