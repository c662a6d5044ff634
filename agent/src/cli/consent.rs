//! `umbra-agent consent` and `umbra-agent end-session`: the say of the person at the device.

use std::io::Write;

use umbra_protocol::ids::{IdError, SessionId};

use super::grammar::{Count, Grammar, Line, Positional};
use super::{Problem, running_agent, status_of, tell};
use crate::control::Request;
use crate::exit::Exit;
use crate::paths::Paths;
use crate::status::SessionStage;

/// Which session.
const SESSION: &[Positional] = &[Positional {
    name: "SESSION",
    about: "Which session, as “umbra-agent status” shows it; may be left out if there is only one.",
    count: Count::Optional,
}];

pub(super) const CONSENT: Grammar = Grammar {
    name: "consent",
    about: "Answer the question whether an operator may see this screen.",
    examples: &[
        "umbra-agent consent accept",
        "umbra-agent consent deny 0123456789abcdef0123456789abcdef",
    ],
    commands: &[
        Grammar {
            name: "accept",
            about: "The operator may see this screen.",
            positionals: SESSION,
            ..Grammar::NEW
        },
        Grammar {
            name: "deny",
            about: "The operator may not see this screen.",
            positionals: SESSION,
            ..Grammar::NEW
        },
    ],
    ..Grammar::NEW
};

pub(super) const END_SESSION: Grammar = Grammar {
    name: "end-session",
    about: "End a running shadowing session.",
    examples: &[
        "umbra-agent end-session",
        "umbra-agent end-session 0123456789abcdef0123456789abcdef",
    ],
    positionals: SESSION,
    ..Grammar::NEW
};

/// The session that was named, if one was.
fn named(line: &Line) -> Result<Option<SessionId>, Problem> {
    let session = line.word().map(str::parse).transpose();
    session.map_err(|error: IdError| Problem::of(Exit::Usage, &error))
}

pub(super) async fn answer(
    line: &Line,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let (session, accept) = (named(line)?, line.command(1) == "accept");
    let mut client = running_agent(paths).await?;
    let asked: Vec<SessionId> = status_of(&mut client)
        .await?
        .consents
        .iter()
        .map(|consent| consent.session)
        .collect();
    let session = only(
        session,
        &asked,
        "question",
        "nobody asks to see this screen at the moment",
    )?;
    tell(client, &Request::Consent { session, accept }, out).await
}

pub(super) async fn end(line: &Line, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let session = named(line)?;
    let mut client = running_agent(paths).await?;
    let running: Vec<SessionId> = status_of(&mut client)
        .await?
        .sessions
        .iter()
        .filter(|session| session.stage == SessionStage::Running)
        .map(|session| session.session)
        .collect();
    let session = only(
        session,
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
