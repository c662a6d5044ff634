//! `umbra-agent run`: the agent itself, from its first log line to its last.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use super::Problem;
use super::grammar::{Grammar, Line, Opt};
use crate::confine::Plan;
use crate::exit::Exit;
use crate::files;
use crate::logging;
use crate::os::linux::Linux;
use crate::paths::Paths;
use crate::registry::{Registry, Snapshot};
use crate::run::{self, Config, RunError};
use crate::status::Board;

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "run",
    about: "Run the agent until it is told to stop (SIGTERM); the service manager does this.",
    examples: &["umbra-agent run --log debug"],
    options: &[Opt {
        name: "log",
        about: "How much to write to the journal, instead of what the parameter umbra.log.level says.",
        value: "LEVEL",
        words: &["error", "warn", "info", "debug", "trace"],
        ..Opt::FLAG
    }],
    ..Grammar::NEW
};

pub(super) async fn run(line: &Line, paths: Paths) -> Result<Exit, Problem> {
    let snapshot = Registry::open_quietly(&paths).snapshot();
    let asked = line.text("log");
    let level = asked.as_ref().unwrap_or(&snapshot.log_level);
    let logging = logging::start(level);
    let mut config = Config::new(paths.clone());
    let board = Board::new();
    if snapshot.confinement {
        config.confined_to = Some(confine(&snapshot, &paths, &board));
    }
    if asked.is_none() {
        config.logging = Some(logging);
    }
    let signals = |kind| signal(kind).map_err(|error| Problem::of(Exit::Internal, &error));
    let (mut terminate, mut interrupt) = (
        signals(SignalKind::terminate())?,
        signals(SignalKind::interrupt())?,
    );
    // Files are looked at every few seconds anyway: the signal must only not end the agent.
    let _hangup = signals(SignalKind::hangup())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run::run_with(config, Arc::new(Linux::new(paths)), board, shutdown)
        .await
        .map_err(|error| {
            let RunError::Control(_) = &error;
            Problem::of(Exit::Unavailable, &error)
        })?;
    Ok(Exit::Ok)
}

/// Gives up what the configuration doesn't need, while this is the only thread.
fn confine(snapshot: &Snapshot, paths: &Paths, board: &Board) -> Plan {
    // Afterwards only what is there already can be reached. What can't be made is told by the agent itself, when it runs.
    for (folder, mode) in run::own_directories(paths) {
        let _ = files::make_directory(&folder, mode);
    }
    let _ = files::make_directory(&paths.run(), 0o755);
    let plan = Plan::derive(snapshot, paths);
    let confined = plan.apply();
    let lacking = confined
        .iter()
        .filter(|confined| confined.lacking)
        .map(|confined| format!("{}: {}.", confined.layer.name(), confined.sentence))
        .collect::<Vec<_>>()
        .join(" ");
    if !lacking.is_empty() {
        warn!(
            lacking,
            "the agent runs with less confinement than it could have"
        );
    }
    board.update(|status| status.confined = confined);
    plan
}
