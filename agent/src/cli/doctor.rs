//! `umbra-agent doctor`: all checks, as text or JSON.

use std::io::Write;

use umbra_carrier::address::HostPort;
use umbra_protocol::Fingerprint;

use super::Problem;
use super::grammar::{Grammar, Line, Opt};
use crate::clock::Clock;
use crate::doctor::{self, Verdict};
use crate::exit::Exit;
use crate::files::Files;
use crate::paths::Paths;

const SERVER_PORT: u16 = 8443;

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "doctor",
    about: "Check everything that shadowing needs, one by one.",
    examples: &["umbra-agent doctor", "umbra-agent doctor --json"],
    options: &[
        Opt::JSON,
        Opt {
            name: "address",
            about: "Look at what answers at this address instead, whether or not a server has taken this device on: name, proxy, and \
                    each of its certificates (port 8443 unless said otherwise).",
            value: "HOST[:PORT]",
            ..Opt::FLAG
        },
        Opt {
            name: "fingerprint",
            about: "SHA-256 of the root certificate that it should have: four parts of 16 hexadecimal digits.",
            value: "P1-P2-P3-P4",
            requires: "address",
            ..Opt::FLAG
        },
    ],
    ..Grammar::NEW
};

pub(super) async fn run(line: &Line, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let checks = match line.text("address") {
        None => doctor::examine(paths, &Files::new(), &Clock::system()).await,
        Some(address) => {
            let address = HostPort::parse(&address, SERVER_PORT)
                .map_err(|error| Problem::of(Exit::Usage, &error))?;
            let root = line
                .text("fingerprint")
                .map(|text| text.parse::<Fingerprint>())
                .transpose()
                .map_err(|error| Problem::of(Exit::Usage, &error))?;
            doctor::examine_address(&address, root, paths, &Clock::system()).await
        }
    };
    if line.has("json") {
        let json =
            serde_json::to_string(&checks).map_err(|error| Problem::of(Exit::Internal, &error))?;
        writeln!(out, "{json}")?;
    } else {
        write!(out, "{}", doctor::report(&checks))?;
    }
    Ok(match doctor::worst(&checks) {
        Verdict::Good | Verdict::Skipped | Verdict::Warning => Exit::Ok,
        Verdict::Bad => Exit::Failed,
    })
}
