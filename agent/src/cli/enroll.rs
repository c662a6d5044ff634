//! `umbra-agent enroll`: from arguments, from the environment, or from whatever an administrator laid ready. A server that nobody
//! vouched for is never enrolled with, wherever its address came from.

use std::io::Write;
use std::time::Duration;

use super::grammar::{Grammar, Line, Opt};
use super::{Problem, offline};
use crate::control::join::{JoinError, join};
use crate::discovery::{self, Sources};
use crate::enrolment::sources::{Given, Offer, SourceError, unattended};
use crate::enrolment::{EnrolRequest, Enrolled, Step, Trust};
use crate::exit::Exit;
use crate::paths::Paths;
use crate::registry::Registry;

/// How long looking for a server may take.
const FINDING: Duration = Duration::from_secs(15);

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "enroll",
    about: "Have a server take this device on.",
    more: "The administrator's credentials are needed: the server's address, the fingerprint of its root certificate, and a \
           first-authentication key.",
    examples: &[
        "umbra-agent enroll --address ums.example.com --fingerprint P1-P2-P3-P4 --key-file key.txt",
        "umbra-agent enroll --credentials /media/stick/credentials.txt",
    ],
    options: &[
        Opt {
            name: "address",
            about: "The server or a gateway of it: HOST or HOST:PORT (8443 unless said otherwise). Also: UMBRA_ADDRESS.",
            value: "HOST[:PORT]",
            ..Opt::FLAG
        },
        Opt {
            name: "fingerprint",
            about: "SHA-256 of the server's root certificate: four parts of 16 hexadecimal digits. Also: UMBRA_FINGERPRINT. Without it, \
                    a public certification authority has to vouch for the address.",
            value: "P1-P2-P3-P4",
            ..Opt::FLAG
        },
        Opt {
            name: "key-file",
            about: "File with the first-authentication key; “-” reads it from standard input. Also: UMBRA_KEY_FILE.",
            value: "FILE",
            ..Opt::FLAG
        },
        Opt {
            name: "credentials",
            about: "File with the administrator's credentials, text or XML (icg.xml), which hold all three; “-” reads them from standard \
                    input. All servers and gateways in it are tried in their order. Also: UMBRA_CREDENTIALS.",
            value: "FILE",
            excludes: &["address", "fingerprint", "key-file"],
            ..Opt::FLAG
        },
        Opt {
            name: "discover",
            about: "Look for the server in the network (DNS and DHCP) in place of --address.",
            excludes: &["address", "credentials"],
            ..Opt::FLAG
        },
        Opt {
            name: "unattended",
            about: "Take what was laid ready on this device: environment, credential of the service manager, kernel command line, \
                    /etc/umbra/icg.xml, /usr/share/umbra/icg.xml; the first that is there.",
            excludes: &[
                "address",
                "fingerprint",
                "key-file",
                "credentials",
                "discover",
            ],
            ..Opt::FLAG
        },
        Opt {
            name: "require-fingerprint",
            about: "Take no public certification authority's word: without a fingerprint, nothing is sent.",
            ..Opt::FLAG
        },
    ],
    ..Grammar::NEW
};

pub(super) async fn run(line: &Line, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let unattended = line.has("unattended");
    if unattended && let Some(enrolled) = Enrolled::load(paths)? {
        let server = enrolled.server_address();
        writeln!(
            out,
            "This device already belongs to {server}; there is nothing to do."
        )?;
        return Ok(Exit::Ok);
    }
    let offer = offer(line, paths)?;
    if unattended {
        writeln!(out, "Taking what was laid ready: {}.", offer.from)?;
    }
    let endpoints = if offer.endpoints.is_empty() {
        found(paths, &offer.trust, out).await?
    } else {
        offer.endpoints
    };
    if line.has("require-fingerprint")
        && endpoints.iter().any(|(_, trust)| *trust == Trust::PublicCa)
    {
        let sentence = format!(
            "{}: no fingerprint is given, and --require-fingerprint asks for one; nothing was sent",
            offer.from
        );
        return Err(Problem::new(Exit::Usage, sentence));
    }
    let count = endpoints.len();
    for (index, (address, trust)) in endpoints.into_iter().enumerate() {
        writeln!(out, "Asking {address} to take this device on …")?;
        out.flush()?;
        let request = EnrolRequest {
            address,
            trust,
            key: offer.key.clone(),
        };
        let mut steps = Vec::new();
        let joined = join(&request, paths, &mut |step| steps.push(step)).await;
        for step in steps {
            if let Some(sentence) = told(step, &request.trust) {
                writeln!(out, "{sentence}")?;
            }
        }
        match joined {
            Ok(joined) => {
                writeln!(out, "{}", joined.sentence)?;
                if !joined.running {
                    writeln!(out, "{}", offline::NOT_RUNNING)?;
                }
                return Ok(Exit::Ok);
            }
            Err(JoinError::Failed(failure)) if failure.is_of_address() && index + 1 < count => {
                writeln!(out, "{failure}\nTrying the next one.")?;
            }
            Err(error) => return Err(Problem::from(error)),
        }
    }
    Err(Problem::new(Exit::Unavailable, NOWHERE))
}

const NOWHERE: &str =
    "no server was found in this network (DNS and DHCP); give the address, or credentials";

fn told(step: Step, trust: &Trust) -> Option<&'static str> {
    match (step, trust) {
        (Step::Connecting, _) => None,
        (Step::Proving, Trust::Fingerprint(_)) => {
            Some("The root certificate has the right fingerprint; proving the key …")
        }
        (Step::Proving, Trust::PublicCa) => {
            Some("A public certification authority vouches for the address; proving the key …")
        }
        (Step::Storing, _) => Some("The server has proven that it knows the key too."),
    }
}

fn offer(line: &Line, paths: &Paths) -> Result<Offer, Problem> {
    let environment = |name: &str| std::env::var(name).ok();
    if line.has("unattended") {
        return unattended(paths, environment)?.ok_or_else(|| {
            Problem::new(
                Exit::Unavailable,
                "nothing was laid ready to enrol with: no environment variables, no credential, nothing on the kernel's command \
                 line, and no icg.xml in /etc/umbra or /usr/share/umbra",
            )
        });
    }
    let typed = Given {
        address: line.text("address"),
        fingerprint: line.text("fingerprint"),
        key: None,
        key_file: line.path("key-file"),
        credentials: line.path("credentials"),
    };
    let discover = line.has("discover");
    let given = if typed.credentials.is_some() {
        typed
    } else {
        // What was not typed may stand in the environment.
        let around = Given::of_environment(environment);
        let nothing_typed = typed.is_empty() && !discover;
        Given {
            address: typed.address.or(around.address.filter(|_| !discover)),
            fingerprint: typed.fingerprint.or(around.fingerprint),
            key: None,
            key_file: typed.key_file.or(around.key_file),
            credentials: around.credentials.filter(|_| nothing_typed),
        }
    };
    if given.is_empty() {
        return Err(Problem::new(
            Exit::Usage,
            "give --address, --fingerprint and --key-file, or --credentials, or --unattended",
        ));
    }
    Ok(given.read("the arguments", discover)?)
}

/// Servers of this network, each with the trust that was given: whoever says where they are is not believed.
async fn found(
    paths: &Paths,
    trust: &Trust,
    out: &mut dyn Write,
) -> Result<Vec<(umbra_carrier::address::HostPort, Trust)>, Problem> {
    writeln!(out, "Looking for a server in this network …")?;
    out.flush()?;
    let snapshot = Registry::open_quietly(paths).snapshot();
    let discovery = discovery::find(&Sources::new(paths, &snapshot), FINDING).await;
    for problem in &discovery.problems {
        writeln!(out, "{problem}")?;
    }
    for found in &discovery.found {
        writeln!(out, "{}", found.sentence)?;
    }
    if discovery.found.is_empty() {
        return Err(Problem::new(Exit::Unavailable, NOWHERE));
    }
    let found = discovery.found.into_iter();
    Ok(found.map(|found| (found.address, trust.clone())).collect())
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        Self::of(error.exit(), &error)
    }
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Failed(failure) => Self::from(failure),
            JoinError::Agent(error) => Self::from(error),
            JoinError::Identity(error) => Self::from(error),
            JoinError::Registry(error) => Self::from(error),
            JoinError::Enrolment(error) => Self::from(error),
        }
    }
}
