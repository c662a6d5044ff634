//! `umbra-agent status`: what is the case, why, and what a person can do.

use std::io::Write;

use super::grammar::{Grammar, Line, Opt};
use super::{Problem, agent, offline, running_agent, status_of};
use crate::control::{Request, Response};
use crate::exit::Exit;
use crate::paths::Paths;
use crate::status::Status;

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "status",
    about: "Say what the device is, what the agent does, and what a person can do about it.",
    examples: &[
        "umbra-agent status",
        "umbra-agent status --watch",
        "umbra-agent status --json",
    ],
    options: &[
        Opt {
            about: "As JSON, for scripts; with --watch one object per line.",
            ..Opt::JSON
        },
        Opt {
            name: "watch",
            about: "Again whenever something changes, until Ctrl-C or the end of the agent.",
            ..Opt::FLAG
        },
    ],
    ..Grammar::NEW
};

pub(super) async fn run(line: &Line, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let json = line.has("json");
    if line.has("watch") {
        return watch(json, paths, out).await;
    }
    match agent(paths).await? {
        Some(mut client) => {
            let status = status_of(&mut client).await?;
            show(json, &status, true, out)?;
            Ok(Exit::Ok)
        }
        None => {
            show(json, &offline::status(paths), false, out)?;
            Ok(Exit::Unavailable)
        }
    }
}

async fn watch(json: bool, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let mut client = running_agent(paths).await?;
    client.send(&Request::Watch {}).await?;
    loop {
        match client.next().await? {
            Response::Status(status) => show(json, &status, true, out)?,
            Response::Failed(failure) => return Err(Problem::from(failure)),
            Response::Done { .. } | Response::Registry { .. } => {}
        }
        out.flush()?;
    }
}

fn show(json: bool, status: &Status, running: bool, out: &mut dyn Write) -> Result<(), Problem> {
    if json {
        let wrong = |error| Problem::of(Exit::Internal, &error);
        let object = serde_json::to_string(status).map_err(wrong)?;
        let sentence = serde_json::to_string(&sentence(status, running)).map_err(wrong)?;
        // Two more fields in the same object: the code for writing it is there anyway.
        let fields = object.strip_suffix('}').unwrap_or(&object);
        writeln!(
            out,
            "{fields},\"running\":{running},\"sentence\":{sentence}}}"
        )?;
    } else if running {
        write!(out, "{}", status.report())?;
    } else {
        writeln!(out, "{}", offline::NOT_RUNNING)?;
        write!(out, "{}", status.facts())?;
    }
    Ok(())
}

fn sentence(status: &Status, running: bool) -> String {
    if running {
        status.sentence()
    } else {
        offline::NOT_RUNNING.to_owned()
    }
}
