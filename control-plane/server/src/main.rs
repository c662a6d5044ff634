//! `umbra-server`: parse, start logging, do what was asked, print the chain of causes, choose the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use umbra_server::cli::{Cli, Command};
use umbra_server::clock::Clock;
use umbra_server::config::Config;
use umbra_server::{run, shutdown};

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
            let _ = writeln!(std::io::stderr().lock(), "umbra-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act(command: Command) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match command {
        Command::Init(args) => run::init(&Config::for_start(args)?, &mut out).await?,
        Command::Run(args) => {
            let config = Config::for_run(args)?;
            let (stop, shutdown) = shutdown::channel();
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let ready = run::start(&config, Clock::system(), &mut out).await?;
            writeln!(out, "listening address={}", ready.address)?;
            out.flush()?;
            tracing::info!(address = %ready.address, "listening");
            let serving = tokio::spawn(ready.serve(shutdown));
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            stop.stop();
            serving.await?;
        }
        Command::ImportChain(args) => run::import_chain(args, &mut out).await?,
        Command::Account(args) => {
            run::account(args.command, &mut std::io::stdin(), &mut out).await?
        }
        Command::Fingerprint(args) => run::fingerprint(&args.state, &mut out)?,
        Command::Backup(args) => run::backup(args, &mut out).await?,
    }
    Ok(())
}
