//! The command line: what can be typed, and what is done for it. It asks the running agent where there is one, and works on the
//! device's files itself where there is none. Secrets are read from files or standard input, never from arguments.

mod certificate;
mod consent;
mod doctor;
mod enroll;
mod hands;
mod identity;
mod leave;
mod offline;
mod problem;
mod registry;
mod run;
mod setup;
mod status;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use problem::Problem;

use crate::control::client::{ACTION_DEADLINE, ANSWER_DEADLINE, Client, ClientError};
use crate::control::{Request, Response};
use crate::exit::{self, Exit};
use crate::paths::Paths;
use umbra_protocol::ids::SessionId;

/// The device program of Umbra: secure shadowing of this thin client.
///
/// The agent gives this device its identity, keeps a link to its server, and lets operators see and operate the screen: encrypted,
/// with the server's ticket, and with the consent of the person at the device.
#[derive(Debug, Parser)]
#[command(name = "umbra-agent", version, after_help = exit::help(), max_term_width = 100, disable_help_subcommand = true)]
pub struct Arguments {
    /// Look for all of the device's files below this directory (also: UMBRA_ROOT).
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until it is told to stop (SIGTERM); the service manager does this.
    #[command(after_help = "Example:\n  umbra-agent run --log debug")]
    Run(run::Arguments),
    /// As root: restart, switch off or update the device where the agent has asked for it; the service manager does this.
    #[command(
        after_help = "Example, where no service manager watches the folder:\n  umbra-agent hands --stay"
    )]
    Hands(hands::Arguments),
    /// Have a server take this device on.
    ///
    /// The administrator's credentials are needed: the server's address, the fingerprint of its root certificate, and a
    /// first-authentication key.
    #[command(
        after_help = "Examples:\n  umbra-agent enroll --address ums.example.com --fingerprint P1-P2-P3-P4 --key-file key.txt\n  \
                            umbra-agent enroll --credentials /media/stick/credentials.txt"
    )]
    Enroll(enroll::Arguments),
    /// Connect this device to its server, step by step.
    ///
    /// It asks for the address, checks the connection, compares the fingerprint and logs on with the first-authentication key.
    /// It can be left at any time and goes on where it stopped.
    #[command(
        after_help = "Examples:\n  umbra-agent setup\n  umbra-agent setup --plain --language de"
    )]
    Setup(setup::Arguments),
    /// Forget the server that took this device on.
    #[command(after_help = "Example:\n  umbra-agent leave")]
    Leave,
    /// Say what the device is, what the agent does, and what a person can do about it.
    #[command(
        after_help = "Examples:\n  umbra-agent status\n  umbra-agent status --watch\n  umbra-agent status --json"
    )]
    Status(status::Arguments),
    /// Check everything that shadowing needs, one by one.
    #[command(after_help = "Examples:\n  umbra-agent doctor\n  umbra-agent doctor --json")]
    Doctor(doctor::Arguments),
    /// Show and change the device's parameters.
    #[command(
        after_help = "Examples:\n  umbra-agent registry list network.vncserver\n  umbra-agent registry set network.vncserver.enabled true"
    )]
    Registry(registry::Arguments),
    /// Show the device's certificate.
    #[command(after_help = "Examples:\n  umbra-agent cert show\n  umbra-agent cert show --pem")]
    Cert(certificate::Arguments),
    /// Make the device's key and certificate if there are none, and show who the device is.
    #[command(after_help = "Examples:\n  umbra-agent identity\n  umbra-agent identity --replace")]
    Identity(identity::Arguments),
    /// Answer the question whether an operator may see this screen.
    #[command(
        after_help = "Examples:\n  umbra-agent consent accept\n  umbra-agent consent deny 0123456789abcdef0123456789abcdef"
    )]
    Consent(consent::Arguments),
    /// End a running shadowing session.
    #[command(
        after_help = "Examples:\n  umbra-agent end-session\n  umbra-agent end-session 0123456789abcdef0123456789abcdef"
    )]
    EndSession(SessionArgument),
}

/// A session, which may be left out where there is only one.
#[derive(Debug, Args)]
struct SessionArgument {
    /// Which session, as “umbra-agent status” shows it; may be left out if there is only one.
    session: Option<SessionId>,
}

/// Reads the command line. Help and mistakes are printed here; the error is how the program ends then.
///
/// # Errors
/// [`Exit::Ok`] after help, [`Exit::Usage`] after a mistake.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, Exit> {
    Arguments::try_parse_from(arguments).map_err(|error| {
        // Nothing is left to do if even that can't be printed.
        let _ = error.print();
        if error.use_stderr() {
            Exit::Usage
        } else {
            Exit::Ok
        }
    })
}

/// Does what was typed, printing to `out`.
///
/// # Errors
/// [`Problem`], with everything that stderr and the caller need.
pub async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Exit, Problem> {
    let root = arguments
        .root
        .or_else(|| std::env::var_os("UMBRA_ROOT").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("/"));
    let paths = Paths::new(root);
    match arguments.command {
        Command::Run(arguments) => run::run(arguments, paths).await,
        Command::Enroll(arguments) => enroll::run(arguments, &paths, out).await,
        Command::Setup(arguments) => setup::run(arguments, &paths, out).await,
        Command::Hands(arguments) => hands::run(&arguments, &paths, out).await,
        Command::Leave => leave::run(&paths, out).await,
        Command::Status(arguments) => status::run(&arguments, &paths, out).await,
        Command::Doctor(arguments) => doctor::run(&arguments, &paths, out).await,
        Command::Registry(arguments) => registry::run(arguments, &paths, out).await,
        Command::Cert(arguments) => certificate::run(&arguments, &paths, out),
        Command::Identity(arguments) => identity::run(&arguments, &paths, out).await,
        Command::Consent(arguments) => consent::answer(&arguments, &paths, out).await,
        Command::EndSession(arguments) => consent::end(&arguments, &paths, out).await,
    }
}

/// The running agent; nothing if none runs.
async fn agent(paths: &Paths) -> Result<Option<Client>, Problem> {
    match Client::connect(paths).await {
        Ok(client) => Ok(Some(client)),
        Err(ClientError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(Problem::from(error)),
    }
}

/// The running agent, for what only it can do.
async fn running_agent(paths: &Paths) -> Result<Client, Problem> {
    Ok(Client::connect(paths).await?)
}

/// Asks for something to be done and prints the sentence that comes back.
async fn tell(mut client: Client, request: &Request, out: &mut dyn Write) -> Result<Exit, Problem> {
    match client.ask(request, ACTION_DEADLINE).await? {
        Response::Done { sentence } => {
            writeln!(out, "{sentence}")?;
            Ok(Exit::Ok)
        }
        Response::Failed(failure) => Err(Problem::from(failure)),
        Response::Status(_) | Response::Registry { .. } => Err(Problem::from(ClientError::Answer)),
    }
}

/// The running agent's status.
async fn status_of(client: &mut Client) -> Result<crate::status::Status, Problem> {
    match client.ask(&Request::Status {}, ANSWER_DEADLINE).await? {
        Response::Status(status) => Ok(*status),
        Response::Failed(failure) => Err(Problem::from(failure)),
        Response::Done { .. } | Response::Registry { .. } => {
            Err(Problem::from(ClientError::Answer))
        }
    }
}

#[cfg(test)]
mod tests;
