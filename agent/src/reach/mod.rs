//! Whether a server can be reached, step by step and told as it happens, before there is any trust: nothing of the device is
//! sent, no certificate of its own and no key. What it finds out is for people to compare, and for nobody to believe.

use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use umbra_carrier::address::HostPort;
use umbra_carrier::diagnosis::Finding;
use umbra_protocol::Fingerprint;
use umbra_protocol::enrolment::ConnectorKind;

use crate::clock::Clock;
use crate::link::Network;

/// A step on the way, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The name is looked up (with a proxy: the proxy's name).
    Name,
    /// A connection is made (with a proxy: to the proxy).
    Tcp,
    /// The proxy opens a way.
    Proxy,
    /// What answers speaks TLS 1.3.
    Tls,
    /// Its certificates are in order.
    Chain,
    /// A gateway lets the device through.
    Gateway,
    /// The server answers.
    Server,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Stage; 7] = [
        Stage::Name,
        Stage::Tcp,
        Stage::Proxy,
        Stage::Tls,
        Stage::Chain,
        Stage::Gateway,
        Stage::Server,
    ];

    /// A word that never changes: for scripts, and for finding texts.
    pub fn id(self) -> &'static str {
        match self {
            Stage::Name => "name",
            Stage::Tcp => "tcp",
            Stage::Proxy => "proxy",
            Stage::Tls => "tls",
            Stage::Chain => "chain",
            Stage::Gateway => "gateway",
            Stage::Server => "server",
        }
    }
}

/// How far a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageState {
    /// It has begun.
    Running,
    /// All is well.
    Good,
    /// It does not apply.
    Skipped,
    /// It works in spite of something.
    Warning,
    /// It ends here.
    Failed,
}

/// What is told of a stage: once when it begins, and once when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageReport {
    /// Which.
    pub stage: Stage,
    /// How far.
    pub state: StageState,
    /// What happens or happened, for people.
    pub sentence: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
}

/// What answers at an address.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Where.
    pub address: HostPort,
    /// The server itself, or a gateway that leads to it.
    pub kind: ConnectorKind,
    /// SHA-256 of the root certificate that the server presents; nothing if it presents none. This is what a person compares.
    pub root_fingerprint: Option<Fingerprint>,
    /// The public authority that vouches for the address. Then no fingerprint need be compared: the first-authentication key proves
    /// the rest.
    pub public_ca: Option<String>,
    /// The server's certificates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Everything that was looked at in the certificates.
    pub findings: Vec<Finding>,
}

/// Why the server was not reached. The last report said the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct ReachError {
    /// Where it ended.
    pub stage: Stage,
    /// Stable code.
    pub code: String,
    /// What happened, for people.
    pub sentence: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
}

/// Looks at what answers at `address`. Every stage is told to `stages`; nobody need listen. Each stage has a deadline, so it ends
/// whatever the other side does; dropping the future ends it at once.
///
/// # Errors
/// [`ReachError`], with the stage at which it ended.
pub async fn check(
    address: &HostPort,
    network: &Network,
    clock: &Clock,
    stages: &mpsc::Sender<StageReport>,
) -> Result<Reached, ReachError> {
    let _ = (address, network, clock, stages);
    Err(ReachError {
        stage: Stage::Name,
        code: String::new(),
        sentence: String::new(),
        advice: String::new(),
    })
}
