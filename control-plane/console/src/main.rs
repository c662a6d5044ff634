//! The program `umbra`: reads the command line, does what it says, and ends with a code that tells how it went.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use clap::Parser;
use umbra_console::cli::Cli;
use umbra_console::commands::{self, Limits};
use umbra_console::config;
use umbra_console::failure::{Exit, Failure};
use umbra_console::surroundings::{
    AtTerminal, Surroundings, interrupted, system_clock, system_environment, system_lot,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    let exit = match begin(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            failure.tell(json, &mut std::io::stderr().lock());
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
}

fn begin(cli: Cli) -> Result<Exit, Failure> {
    let config = config::locate(cli.config.as_deref(), |name| std::env::var_os(name))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Terminal)?;
    // A lock would be held while a person is asked, who is asked through the same stderr.
    let (mut out, mut notes) = (BufWriter::new(std::io::stdout().lock()), std::io::stderr());
    let mut around = Surroundings {
        out: &mut out,
        notes: &mut notes,
        person: &mut AtTerminal,
        now: system_clock,
        lot_of_four: system_lot,
        environment: system_environment,
    };
    let exit = runtime.block_on(commands::run(
        cli,
        &config,
        Limits::default(),
        &mut around,
        interrupted(),
    ))?;
    out.flush().map_err(Failure::Output)?;
    Ok(exit)
}
