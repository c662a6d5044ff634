//! `umbra-agent enroll`: through the running agent, or in this process where none runs.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use umbra_carrier::address::HostPort;
use umbra_carrier::tls::DatePolicy;
use umbra_protocol::credentials::Credentials;
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_protocol::hello::Intent;
use umbra_protocol::{Remedy, Secret};
use zeroize::Zeroizing;

use super::{Problem, agent, offline, tell};
use crate::clock::Clock;
use crate::control::{Request, TrustGiven};
use crate::enrolment::driver::Applicant;
use crate::enrolment::{self, EnrolRequest, Enrolled, Step, Trust};
use crate::exit::Exit;
use crate::files::{self, Files};
use crate::link::Network;
use crate::os::linux::Linux;
use crate::paths::Paths;
use crate::registry::Registry;
use crate::{facts, identity};

/// The largest file with a key or with credentials.
const FILE_MAX: usize = 64 * 1024;
const SERVER_PORT: u16 = 8443;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The server or a gateway of it: HOST or HOST:PORT (8443 unless said otherwise).
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        required_unless_present = "credentials",
        conflicts_with = "credentials"
    )]
    address: Option<String>,
    /// SHA-256 of the server's root certificate: four parts of 16 hexadecimal digits.
    #[arg(
        long,
        value_name = "P1-P2-P3-P4",
        required_unless_present = "credentials",
        conflicts_with = "credentials"
    )]
    fingerprint: Option<String>,
    /// File with the first-authentication key; “-” reads it from standard input.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "credentials",
        conflicts_with = "credentials"
    )]
    key_file: Option<PathBuf>,
    /// File with the administrator's credentials as text, which hold all three; “-” reads them from standard input.
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
}

/// What was given, as texts.
struct Given {
    address: String,
    fingerprint: String,
    key: Secret,
}

pub(super) async fn run(
    arguments: Arguments,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let given = given(arguments)?;
    // Mistakes are told before anybody is asked.
    let usage = |error: &dyn std::error::Error| Problem::of(Exit::Usage, error);
    let request = EnrolRequest {
        address: HostPort::parse(&given.address, SERVER_PORT).map_err(|error| usage(&error))?,
        trust: Trust::Fingerprint(given.fingerprint.parse().map_err(|error| usage(&error))?),
        key: FirstAuthKey::parse(given.key.reveal()).map_err(|error| usage(&error))?,
    };
    match agent(paths).await? {
        Some(client) => {
            writeln!(out, "Asking {} to take this device on …", request.address)?;
            out.flush()?;
            let Given {
                address,
                fingerprint,
                key,
            } = given;
            tell(
                client,
                &Request::Enrol {
                    address,
                    trust: TrustGiven::Fingerprint(fingerprint),
                    key,
                },
                out,
            )
            .await
        }
        None => here(&request, paths, out).await,
    }
}

fn given(arguments: Arguments) -> Result<Given, Problem> {
    let incomplete = || {
        Problem::new(
            Exit::Usage,
            "give --address, --fingerprint and --key-file, or --credentials",
        )
    };
    if let Some(file) = arguments.credentials {
        let text = read(&file)?;
        let credentials =
            Credentials::from_text(&text).map_err(|error| Problem::of(Exit::Data, &error))?;
        let endpoint = credentials.endpoints.first().ok_or_else(incomplete)?;
        let address = HostPort::new(&endpoint.host, endpoint.port)
            .map_err(|error| Problem::of(Exit::Data, &error))?;
        return Ok(Given {
            address: address.to_string(),
            fingerprint: endpoint.root_fingerprint.to_string(),
            key: credentials.key.for_person(),
        });
    }
    let (Some(address), Some(fingerprint), Some(file)) =
        (arguments.address, arguments.fingerprint, arguments.key_file)
    else {
        return Err(incomplete());
    };
    let key = Secret::new(read(&file)?.trim());
    Ok(Given {
        address,
        fingerprint,
        key,
    })
}

fn read(file: &Path) -> Result<Zeroizing<String>, Problem> {
    if file == Path::new("-") {
        let mut text = Zeroizing::new(String::new());
        let max = u64::try_from(FILE_MAX).unwrap_or(u64::MAX);
        std::io::stdin()
            .lock()
            .take(max)
            .read_to_string(&mut text)?;
        return Ok(text);
    }
    // A person may well point to a link; only a device's own files are held to be plain.
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    match files::read_text(&target, FILE_MAX)? {
        Some(text) => Ok(Zeroizing::new(text)),
        None => Err(Problem::new(
            Exit::Unavailable,
            format!("there is no file {}", file.display()),
        )),
    }
}

/// Without an agent that runs: this process takes its place for once.
async fn here(request: &EnrolRequest, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    if let Some(enrolled) = Enrolled::load(paths)? {
        let sentence = format!(
            "this device already belongs to the server {}:{}; run “umbra-agent leave” first",
            enrolled.host, enrolled.port
        );
        return Err(Problem::new(Exit::Permission, sentence));
    }
    let (clock, files, os) = (Clock::system(), Files::new(), Linux::new(paths.clone()));
    let (identity, _) = identity::ensure(paths, &os, &clock)?;
    let registry = Registry::open(paths, &files);
    registry.forget_server()?;
    let snapshot = registry.snapshot();
    let facts = facts::of_device(&identity, &os, &snapshot, None);
    let tls = identity.tls_identity();
    let applicant = Applicant {
        identity: &tls,
        device_id: identity.device_id(),
        hello: facts::hello(facts, Intent::Enrol, 0),
        connect_timeout: snapshot.manager.connect_timeout,
        network: Network::new(&snapshot.network)
            .map_err(|trouble| Problem::new(Exit::Data, trouble.to_string()))?,
        dates: if clock.believable().is_some() {
            DatePolicy::Enforce
        } else {
            DatePolicy::Ignore
        },
        require_fingerprint: snapshot.require_fingerprint,
    };
    let mut steps = Vec::new();
    let enrolled =
        enrolment::enroll(request, applicant, paths, &files, |step| steps.push(step)).await;
    for step in steps {
        let line = match step {
            Step::Connecting => format!("Connecting to {} …", request.address),
            Step::Proving => {
                "The root certificate has the right fingerprint; proving the key …".to_owned()
            }
            Step::Storing => "The server has proven that it knows the key too.".to_owned(),
        };
        writeln!(out, "{line}")?;
    }
    let enrolled = enrolled.map_err(|error| {
        let exit = match (&error, error.remedy()) {
            (enrolment::EnrolError::Store(_), _) => Exit::Disk,
            (enrolment::EnrolError::Connect { .. } | enrolment::EnrolError::Gateway { .. }, _) => {
                Exit::Unavailable
            }
            (_, Remedy::Retry) => Exit::TryAgain,
            (_, Remedy::AskPerson | Remedy::Stop) => Exit::Permission,
        };
        Problem::new(exit, format!("{} [{}]", error.for_person(), error.code()))
    })?;
    let name = umbra_protocol::refusal::clip(enrolled.device_name);
    writeln!(
        out,
        "{} has taken this device on as “{name}”.",
        request.address
    )?;
    writeln!(out, "{}", offline::NOT_RUNNING)?;
    Ok(Exit::Ok)
}
