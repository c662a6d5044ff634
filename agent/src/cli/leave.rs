//! `umbra-agent leave`: the device forgets its server. The identity stays, so that it can be taken on again.

use std::io::Write;

use super::grammar::Grammar;
use super::{Problem, agent, tell};
use crate::control::Request;
use crate::enrolment::Enrolled;
use crate::exit::Exit;
use crate::files::Files;
use crate::paths::Paths;
use crate::registry::Registry;

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "leave",
    about: "Forget the server that took this device on.",
    examples: &["umbra-agent leave"],
    ..Grammar::NEW
};

pub(super) async fn run(paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    if let Some(client) = agent(paths).await? {
        return tell(client, &Request::Leave {}, out).await;
    }
    if !paths.enrolment().exists() {
        return Err(Problem::new(
            Exit::Unavailable,
            "no server has taken this device on",
        ));
    }
    let files = Files::new();
    Enrolled::remove(paths, &files)?;
    Registry::open(paths, &files).forget_server()?;
    writeln!(
        out,
        "This device has forgotten its server. The administrator should remove it there as well."
    )?;
    Ok(Exit::Ok)
}
