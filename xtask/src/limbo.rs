//! `cargo xtask limbo`: holds the verification and the diagnosis of chains against the cases of C2SP's x509-limbo, which are
//! fetched apart from this project; docs/diagnosis.md says how.

use std::path::PathBuf;

use crate::step::{cargo, step};

/// What a person may say.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file with the cases, limbo.json
    #[arg(long, value_name = "FILE")]
    cases: PathBuf,
    /// Say of every case how it ended
    #[arg(long)]
    all: bool,
}

/// Runs all cases; a disagreement without a recorded reason ends it with failure.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut command = cargo();
    command.args([
        "run",
        "--quiet",
        "-p",
        "umbra-carrier",
        "--example",
        "limbo",
        "--",
    ]);
    command.arg(std::path::absolute(&arguments.cases)?);
    if arguments.all {
        command.arg("--all");
    }
    step("x509-limbo", &mut command)
}
