//! `cargo xtask demo`: builds the programs and hands over to the demo, which lives with the tests, since it is a
//! scenario that a person may watch.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::step::{cargo, step};

/// The packages with the programs that the demo starts.
const PACKAGES: [&str; 5] = [
    "umbra-agent",
    "umbra-gateway",
    "umbra-server",
    "umbra-console",
    "umbra-tests",
];

/// What a person may say.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// What the demo itself understands; `--help` lists it
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENTS"
    )]
    rest: Vec<String>,
}

/// Builds, then runs the demo with all that it says.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    step(
        "programs",
        cargo().args(["build", "--locked", "--bins"]).args(packages),
    )?;
    let us = std::env::current_exe().context("this program's own path cannot be found")?;
    // Cargo puts the programs of one build beside each other.
    let demo = us.with_file_name("umbra-demo");
    let status = Command::new(&demo)
        .args(&arguments.rest)
        .status()
        .with_context(|| format!("{} cannot be started", demo.display()))?;
    if !status.success() {
        bail!("the demo ended with {status}");
    }
    Ok(())
}
