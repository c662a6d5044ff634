//! `umbra-gateway`: parse, start logging, do what was asked, print the chain of causes, choose the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use umbra_gateway::cli::{Cli, Command};
use umbra_gateway::config::Config;
use umbra_gateway::timing::Timing;
use umbra_gateway::{run, shutdown};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    match act(cli.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a place to say it, the exit code has to do.
            let _ = writeln!(std::io::stderr().lock(), "umbra-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act(command: Command) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match command {
        Command::Check(args) => {
            for warning in run::check(&args.into())? {
                writeln!(out, "warning: {warning}")?;
            }
            writeln!(out, "the keystore can be used")?;
        }
        Command::Run(args) => {
            let (wishes, signals) = shutdown::channel();
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut hang_up = signal(SignalKind::hangup())?;
            let ready = run::start(&Config::new(args)?, Timing::default()).await?;
            writeln!(out, "{ready}")?;
            out.flush()?;
            let mut serving = tokio::spawn(ready.serve(signals));
            loop {
                tokio::select! {
                    ended = &mut serving => return Ok(ended?),
                    Some(()) = hang_up.recv() => wishes.reload(),
                    Some(()) = terminate.recv() => wishes.stop(),
                    Some(()) = interrupt.recv() => wishes.stop(),
                }
            }
        }
    }
    Ok(())
}
