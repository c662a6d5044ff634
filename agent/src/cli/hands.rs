//! `umbra-agent hands`: does, as root, what the agent may only ask for.

use std::io::Write;

use tokio::signal::unix::{SignalKind, signal};

use super::Problem;
use super::grammar::{Grammar, Line, Opt};
use crate::exit::Exit;
use crate::hands::{self, GLANCE};
use crate::logging;
use crate::paths::Paths;

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "hands",
    about: "As root: restart, switch off or update the device where the agent has asked for it; the service manager does this.",
    more: "Where no service manager watches the folder, it has to stay.",
    examples: &["umbra-agent hands --stay"],
    options: &[Opt {
        name: "stay",
        about: "Go on waiting for the next wish, until told to stop (SIGTERM).",
        ..Opt::FLAG
    }],
    ..Grammar::NEW
};

pub(super) async fn run(line: &Line, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let _logging = logging::start("info");
    if !line.has("stay") {
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
