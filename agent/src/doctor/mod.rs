//! What stands in the way, checked one by one on the device itself. A check looks and says; it never mends anything, and it never
//! sends a secret anywhere.

mod chain;
mod clock;
mod control;
mod dns;
mod enrolment;
mod identity;
mod port;
mod proxy;
mod registry;
mod server;
mod state;
mod vnc;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use umbra_carrier::causes::clause_of as chain;

use umbra_carrier::address::HostPort;
use umbra_protocol::Fingerprint;

use crate::clock::Clock;
use crate::enrolment::{Enrolled, EnrolmentError};
use crate::files::Files;
use crate::link::Network;
use crate::paths::Paths;
use crate::registry::{Registry, Snapshot};
use crate::status::Status;

/// The checks of the device itself; those of a server's chain begin with `chain.`.
pub const IDS: [&str; 12] = [
    "state-writable",
    "clock",
    "identity",
    "registry",
    "agent",
    "enrolment",
    "dns",
    "proxy",
    "server",
    "gateway",
    "vnc-server",
    "shadowing-port",
];

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is well.
    Good,
    /// It does not apply, or could not be looked at.
    Skipped,
    /// Something works in spite of it, or will not for long.
    Warning,
    /// Something does not work because of it.
    Bad,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Skipped => "-",
            Verdict::Warning => "warn",
            Verdict::Bad => "BAD",
        }
    }
}

/// A check and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Never changes: for scripts.
    pub id: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub sentence: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The address that was looked at, where there may be several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The certificate that it is about: its place in the server's chain, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<usize>,
    /// That certificate's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The part of the certificate, as certificate tools name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Check {
    fn new(id: &str, verdict: Verdict, sentence: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            verdict,
            sentence: capital(sentence.into()),
            advice: None,
            address: None,
            certificate: None,
            subject: None,
            field: None,
        }
    }

    fn at(self, address: &impl ToString) -> Self {
        Self {
            address: Some(address.to_string()),
            ..self
        }
    }

    fn good(id: &str, sentence: impl Into<String>) -> Self {
        Self::new(id, Verdict::Good, sentence)
    }

    fn skipped(id: &str, sentence: impl Into<String>) -> Self {
        Self::new(id, Verdict::Skipped, sentence)
    }

    fn warning(id: &str, sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..Self::new(id, Verdict::Warning, sentence)
        }
    }

    fn bad(id: &str, sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..Self::new(id, Verdict::Bad, sentence)
        }
    }
}

/// What the checks look at.
struct Patient<'a> {
    paths: &'a Paths,
    files: &'a Files,
    clock: &'a Clock,
    registry: Registry,
    enrolled: Result<Option<Enrolled>, EnrolmentError>,
    /// What the running agent says; nothing if none runs.
    status: Option<Status>,
    /// Whether this user may not look into the agent's directory.
    shut_out: bool,
}

impl Patient<'_> {
    /// The check for what this user may not see.
    fn out_of_sight(&self, id: &str) -> Option<Check> {
        self.shut_out.then(|| {
            let sentence = "This user may not read the device's parameters; try it as root or as the agent's own user.";
            Check::skipped(id, sentence)
        })
    }

    fn snapshot(&self) -> std::sync::Arc<Snapshot> {
        self.registry.snapshot()
    }
}

/// All checks, in the order in which a device comes up.
pub async fn examine(paths: &Paths, files: &Files, clock: &Clock) -> Vec<Check> {
    let (control, status) = control::check(paths).await;
    let patient = Patient {
        paths,
        files,
        clock,
        registry: Registry::open_quietly(paths),
        enrolled: Enrolled::load(paths),
        status,
        shut_out: std::fs::read_dir(paths.kept())
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied),
    };
    let mut checks = vec![
        state::check(&patient),
        clock::check(&patient),
        identity::check(&patient),
        registry::check(&patient),
        control,
        enrolment::check(&patient),
    ];
    checks.extend(server::checks(&patient).await);
    checks.push(vnc::check(&patient).await);
    checks.push(port::check(&patient).await);
    checks
}

/// What can be said of an address, whether or not a server has taken this device on: name, proxy, connection, certificates.
pub async fn examine_address(
    address: &HostPort,
    root: Option<Fingerprint>,
    paths: &Paths,
    clock: &Clock,
) -> Vec<Check> {
    let registry = Registry::open_quietly(paths);
    let mut checks = vec![clock::judge(clock)];
    let network = match Network::new(&registry.snapshot().network) {
        Ok(network) => network,
        Err(trouble) => {
            checks.push(proxy::unusable(&trouble));
            return checks;
        }
    };
    checks.push(dns::check(address, &network).await.at(address));
    checks.push(proxy::check(address, &network).await.at(address));
    checks.extend(chain::look(address, root, &network, clock).await);
    checks
}

/// The worst verdict.
pub fn worst(checks: &[Check]) -> Verdict {
    checks
        .iter()
        .map(|check| check.verdict)
        .max()
        .unwrap_or(Verdict::Good)
}

/// The checks for a terminal.
pub fn report(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let _ = writeln!(
            text,
            "{:>4}  {:<25}  {}",
            check.verdict.word(),
            check.id,
            check.sentence
        );
        if let (Some(subject), Some(field)) = (&check.subject, &check.field)
            && check.verdict != Verdict::Good
        {
            let _ = writeln!(text, "{:>4}  {:<25}  in “{subject}”, {field}", "", "");
        }
        if let Some(advice) = &check.advice {
            let _ = writeln!(text, "{:>4}  {:<25}  → {advice}", "", "");
        }
    }
    let closing = match worst(checks) {
        Verdict::Good | Verdict::Skipped => "Nothing stands in the way.",
        Verdict::Warning => "It works, but look at the lines marked “warn”.",
        Verdict::Bad => "Mend what is marked “BAD”, from top to bottom.",
    };
    let _ = writeln!(text, "{closing}");
    text
}

/// A clause as the beginning of a sentence.
fn capital(clause: String) -> String {
    let mut letters = clause.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests;
