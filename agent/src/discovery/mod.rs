//! Where the server may be, before anybody has said so: what is configured, what DNS and DHCP say. Whatever is found comes over
//! channels that anybody on the network can write to, so it is a proposal with its source, and never a reason to trust.

use std::time::Duration;

use umbra_carrier::address::HostPort;
use umbra_protocol::enrolment::{Connector, ConnectorKind};

use crate::paths::Paths;
use crate::registry::Snapshot;

/// The port of a server or gateway unless something else is said.
pub const DEFAULT_PORT: u16 = 8_443;

/// Where is looked, and what for.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Where the network's own files are: resolv.conf, leases.
    pub paths: Paths,
    /// Connectors that are configured on the device. Where there are any, nothing else is asked.
    pub configured: Vec<Connector>,
    /// Whether DNS is asked.
    pub dns: bool,
    /// Whether leases of DHCP are read.
    pub dhcp: bool,
    /// The domain whose record is asked for; empty means the search domains of the network.
    pub domain: String,
}

/// Where something was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Configured on the device.
    Configured,
    /// A TXT record of this domain.
    Txt {
        /// The domain.
        domain: String,
    },
    /// A well-known name.
    Name {
        /// The name in full.
        name: String,
    },
    /// Option 224 in a lease.
    Dhcp {
        /// The file that the lease is in.
        file: String,
    },
}

/// A place where a server or a gateway may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub address: HostPort,
    /// What is said to be there. What really answers is found out by [`crate::reach::check`].
    pub kind: ConnectorKind,
    /// Who says so.
    pub source: Source,
    /// For people: what was found where.
    pub sentence: String,
}

/// What looking around came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// In the order of the sources, each address once.
    pub found: Vec<Found>,
    /// What could not be used, for people: a sentence each, with what to do.
    pub problems: Vec<String>,
}

impl Sources {
    /// As the device's parameters say.
    pub fn new(paths: &Paths, snapshot: &Snapshot) -> Self {
        Self {
            paths: paths.clone(),
            configured: snapshot.manager.connectors.clone(),
            dns: snapshot.discovery.dns,
            dhcp: snapshot.discovery.dhcp,
            domain: snapshot.discovery.domain.clone(),
        }
    }
}

/// Looks for servers and gateways: configured ones; otherwise the TXT record, the well-known name, and DHCP, in this order. Never
/// takes longer than `deadline`, and never fails: what went wrong is among the problems.
pub async fn find(sources: &Sources, deadline: Duration) -> Discovery {
    let _ = (sources, deadline);
    Discovery::default()
}

/// Looks for the gateway of a person's e-mail address, or of a domain: the TXT record of its domain, and nothing else. Where there is
/// none, or none that can be used, the problems say so.
pub async fn of_mail(text: &str, sources: &Sources, deadline: Duration) -> Discovery {
    let _ = (text, sources, deadline);
    Discovery::default()
}
