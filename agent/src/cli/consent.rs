//! `umbra-agent consent` and `umbra-agent end-session`: the say of the person at the device.

use std::io::Write;

use clap::{Args, Subcommand};
use umbra_protocol::ids::SessionId;

use super::{Problem, SessionArgument, running_agent, status_of, tell};
use crate::control::Request;
use crate::exit::Exit;
use crate::paths::Paths;
use crate::status::SessionStage;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The operator may see this screen.
    Accept(SessionArgument),
    /// The operator may not see this screen.
    Deny(SessionArgument),
}

pub(super) async fn answer(
    arguments: &Arguments,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let (SessionArgument { session }, accept) = match &arguments.command {
        Command::Accept(session) => (session, true),
        Command::Deny(session) => (session, false),
    };
    let mut client = running_agent(paths).await?;
    let asked: Vec<SessionId> = status_of(&mut client)
        .await?
        .consents
        .iter()
        .map(|consent| consent.session)
        .collect();
    let session = only(
        *session,
        &asked,
        "question",
        "nobody asks to see this screen at the moment",
    )?;
    tell(client, &Request::Consent { session, accept }, out).await
}

pub(super) async fn end(
    arguments: &SessionArgument,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let mut client = running_agent(paths).await?;
    let running: Vec<SessionId> = status_of(&mut client)
        .await?
        .sessions
        .iter()
        .filter(|session| session.stage == SessionStage::Running)
        .map(|session| session.session)
        .collect();
    let session = only(
        arguments.session,
        &running,
        "session",
        "nobody sees this screen at the moment",
    )?;
    tell(client, &Request::EndSession { session }, out).await
}

/// The one that was named, else the only one there is.
fn only(
    named: Option<SessionId>,
    there: &[SessionId],
    what: &str,
    none: &str,
) -> Result<SessionId, Problem> {
    match (named, there) {
        (Some(session), _) => Ok(session),
        (None, [session]) => Ok(*session),
        (None, []) => Err(Problem::new(Exit::Unavailable, none)),
        (None, several) => Err(Problem::new(
            Exit::Usage,
            format!(
                "there is more than one {what}; name one of {}",
                several
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )),
    }
}
