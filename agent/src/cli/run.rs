//! `umbra-agent run`: the agent itself, from its first log line to its last.

use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Problem;
use crate::exit::Exit;
use crate::logging;
use crate::os::linux::Linux;
use crate::paths::Paths;
use crate::registry::Registry;
use crate::run::{Config, RunError};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How much to write to the journal, instead of what the parameter umbra.log.level says.
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    log: Option<String>,
}

pub(super) async fn run(arguments: Arguments, paths: Paths) -> Result<Exit, Problem> {
    let level = arguments
        .log
        .clone()
        .unwrap_or_else(|| Registry::open_quietly(&paths).snapshot().log_level.clone());
    let logging = logging::start(&level);
    let mut config = Config::new(paths.clone());
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
    crate::run::run(config, Arc::new(Linux::new(paths)), shutdown)
        .await
        .map_err(|error| {
            let RunError::Control(_) = &error;
            Problem::of(Exit::Unavailable, &error)
        })?;
    Ok(Exit::Ok)
}
