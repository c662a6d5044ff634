//! The command line: what can be typed, and what is done for it. It asks the running agent where there is one, and works on the
//! device's files itself where there is none. Secrets are read from files or standard input, never from arguments.

mod certificate;
mod consent;
mod doctor;
mod enroll;
mod grammar;
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

pub use problem::Problem;

use grammar::{Grammar, Line, Opt, Stop};

use crate::control::client::{ACTION_DEADLINE, ANSWER_DEADLINE, Client, ClientError};
use crate::control::{Request, Response};
use crate::exit::{self, Exit};
use crate::paths::Paths;

const GRAMMAR: Grammar = Grammar {
    name: "umbra-agent",
    about: "The device program of Umbra: secure shadowing of this thin client.",
    more: "The agent gives this device its identity, keeps a link to its server, and lets operators see and operate the screen: \
           encrypted, with the server's ticket, and with the consent of the person at the device.",
    options: &[Opt {
        name: "root",
        about: "Look for all of the device's files below this directory (also: UMBRA_ROOT).",
        value: "DIR",
        ..Opt::FLAG
    }],
    commands: &[
        run::GRAMMAR,
        hands::GRAMMAR,
        enroll::GRAMMAR,
        setup::GRAMMAR,
        leave::GRAMMAR,
        status::GRAMMAR,
        doctor::GRAMMAR,
        registry::GRAMMAR,
        certificate::GRAMMAR,
        identity::GRAMMAR,
        consent::CONSENT,
        consent::END_SESSION,
    ],
    after: exit::help,
    ..Grammar::NEW
};

/// A command line that can be carried out.
#[derive(Debug)]
pub struct Arguments(Line);

/// Reads the command line. Help and mistakes are printed here; the error is how the program ends then.
///
/// # Errors
/// [`Exit::Ok`] after help, [`Exit::Usage`] after a mistake.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, Exit> {
    let stop = match grammar::read(&GRAMMAR, arguments) {
        Ok(line) => return Ok(Arguments(line)),
        Err(stop) => stop,
    };
    // Nothing is left to do if even that can't be printed.
    let (out, error) = (&mut std::io::stdout(), &mut std::io::stderr());
    let (exit, _printed) = match stop {
        Stop::Help(text) => (Exit::Ok, write!(out, "{text}")),
        Stop::Version => {
            let version = env!("CARGO_PKG_VERSION");
            (Exit::Ok, writeln!(out, "{} {version}", GRAMMAR.name))
        }
        Stop::Mistake(text) => (Exit::Usage, writeln!(error, "{}: {text}", GRAMMAR.name)),
    };
    Err(exit)
}

/// Does what was typed, printing to `out`.
///
/// # Errors
/// [`Problem`], with everything that stderr and the caller need.
pub async fn run(Arguments(line): Arguments, out: &mut dyn Write) -> Result<Exit, Problem> {
    let root = line
        .path("root")
        .or_else(|| std::env::var_os("UMBRA_ROOT").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("/"));
    let paths = Paths::new(root);
    let line = &line;
    match line.command(0) {
        "run" => run::run(line, paths).await,
        "hands" => hands::run(line, &paths, out).await,
        "enroll" => enroll::run(line, &paths, out).await,
        "setup" => setup::run(line, &paths, out).await,
        "leave" => leave::run(&paths, out).await,
        "status" => status::run(line, &paths, out).await,
        "doctor" => doctor::run(line, &paths, out).await,
        "registry" => registry::run(line, &paths, out).await,
        "cert" => certificate::run(line, &paths, out),
        "identity" => identity::run(line, &paths, out).await,
        "consent" => consent::answer(line, &paths, out).await,
        "end-session" => consent::end(line, &paths, out).await,
        // The grammar has no others.
        other => Err(Problem::new(
            Exit::Usage,
            format!("there is no command “{other}”"),
        )),
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
