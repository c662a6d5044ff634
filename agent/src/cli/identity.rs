//! `umbra-agent identity`: makes the device's key and certificate at boot, before the network is up.

use std::io::Write;

use super::grammar::{Grammar, Line, Opt};
use super::{Problem, agent};
use crate::clock::Clock;
use crate::exit::Exit;
use crate::identity::{self, Done};
use crate::os::linux::Linux;
use crate::paths::Paths;

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "identity",
    about: "Make the device's key and certificate if there are none, and show who the device is.",
    examples: &["umbra-agent identity", "umbra-agent identity --replace"],
    options: &[
        Opt {
            name: "replace",
            about: "Make a new key and certificate in place of those that are there; the device then has to be enrolled again.",
            ..Opt::FLAG
        },
        Opt {
            name: "new-unit-id",
            about: "With --replace: choose a new unit ID as well, as if the device started for the first time. For a machine whose \
                    disk is a copy of another one's.",
            requires: "replace",
            ..Opt::FLAG
        },
    ],
    ..Grammar::NEW
};

pub(super) async fn run(line: &Line, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let (os, clock) = (Linux::new(paths.clone()), Clock::system());
    let (identity, done) = if line.has("replace") {
        if agent(paths).await?.is_some() {
            let sentence = "the agent is running with the present identity; stop it first (“systemctl stop umbra-agent”)";
            return Err(Problem::new(Exit::Unavailable, sentence));
        }
        let identity = if line.has("new-unit-id") {
            identity::replace_all(paths, &os, &clock)?
        } else {
            identity::replace(paths, &os, &clock)?
        };
        (identity, Done::Replaced(identity::Reason::Asked))
    } else {
        identity::ensure(paths, &os, &clock)?
    };
    let what = match done {
        Done::Kept => "Key and certificate are in order.".to_owned(),
        Done::Made => "Key and certificate were made.".to_owned(),
        Done::Replaced(reason) => format!("The identity was mended: {}.", reason.clause()),
    };
    writeln!(out, "{what}")?;
    writeln!(out, "unit ID      {}", identity.unit_id())?;
    writeln!(out, "device ID    {}", identity.device_id())?;
    writeln!(out, "certificate  {}", identity.fingerprint())?;
    if let Done::Replaced(reason) = done
        && reason.server_will_ask()
        && paths.enrolment().exists()
    {
        writeln!(
            out,
            "The server that took this device on knows another certificate: tell your administrator, or run \
             “umbra-agent leave” and enrol again."
        )?;
    }
    Ok(Exit::Ok)
}
