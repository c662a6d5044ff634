//! `umbra-agent hands`: does, as root, what the agent may only ask for.

use std::io::Write;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Problem;
use crate::exit::Exit;
use crate::hands::{self, GLANCE};
use crate::logging;
use crate::paths::Paths;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Go on waiting for the next wish, until told to stop (SIGTERM).
    #[arg(long)]
    stay: bool,
}

pub(super) async fn run(
    arguments: &Arguments,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let _logging = logging::start("info");
    if !arguments.stay {
        let count = hands::serve(paths).await?;
        if count == 0 {
            writeln!(out, "Nobody has asked for anything.")?;
        }
        return Ok(Exit::Ok);
    }
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| Problem::of(Exit::Internal, &error))?;
    loop {
        hands::serve(paths).await?;
        tokio::select! {
            _ = terminate.recv() => return Ok(Exit::Ok),
            () = tokio::time::sleep(GLANCE * 10) => {}
        }
    }
}
