//! `cargo xtask soak`: builds the programs and hands over to the soak, which lives with the tests, since it drives the same programs
//! through the same harness.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::step::{cargo, step};

/// What a person may say.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// What the soak itself understands; `--help` lists it
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENTS"
    )]
    rest: Vec<String>,
}

/// Builds, then runs the soak with all that it says.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    step(
        "programs",
        cargo().args(["build", "--workspace", "--bins", "--locked"]),
    )?;
    let us = std::env::current_exe().context("this program's own path cannot be found")?;
    // Cargo puts the programs of one build beside each other.
    let soak = us.with_file_name("umbra-soak");
    let status = Command::new(&soak)
        .args(&arguments.rest)
        .status()
        .with_context(|| format!("{} cannot be started", soak.display()))?;
    if !status.success() {
        bail!("the soak ended with {status}");
    }
    Ok(())
}
