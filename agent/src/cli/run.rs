//! `umbra-agent run`: the agent itself, from its first log line to its last.

use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use super::Problem;
use crate::confine::Plan;
use crate::exit::Exit;
use crate::files;
use crate::logging;
use crate::os::linux::Linux;
use crate::paths::Paths;
use crate::registry::{Registry, Snapshot};
use crate::run::{self, Config, RunError};
use crate::status::Board;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How much to write to the journal, instead of what the parameter umbra.log.level says.
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    log: Option<String>,
}

pub(super) async fn run(arguments: Arguments, paths: Paths) -> Result<Exit, Problem> {
    let snapshot = Registry::open_quietly(&paths).snapshot();
    let level = arguments.log.as_ref().unwrap_or(&snapshot.log_level);
    let logging = logging::start(level);
    let mut config = Config::new(paths.clone());
    let board = Board::new();
    if snapshot.confinement {
        config.confined_to = Some(confine(&snapshot, &paths, &board));
    }
    if arguments.log.is_none() {
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
