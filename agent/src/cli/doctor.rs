//! `umbra-agent doctor`: all checks, as text or JSON.

use std::io::Write;

use clap::Args;

use super::Problem;
use crate::clock::Clock;
use crate::doctor::{self, Verdict};
use crate::exit::Exit;
use crate::files::Files;
use crate::paths::Paths;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// As JSON, for scripts.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    arguments: &Arguments,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let checks = doctor::examine(paths, &Files::new(), &Clock::system()).await;
    if arguments.json {
        let json = serde_json::to_string_pretty(&checks)
            .map_err(|error| Problem::of(Exit::Internal, &error))?;
        writeln!(out, "{json}")?;
    } else {
        write!(out, "{}", doctor::report(&checks))?;
    }
    Ok(match doctor::worst(&checks) {
        Verdict::Good | Verdict::Skipped | Verdict::Warning => Exit::Ok,
        Verdict::Bad => Exit::Failed,
    })
}
