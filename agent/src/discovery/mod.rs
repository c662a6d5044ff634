//! Where the server may be, before anybody has said so: what is configured, what DNS and DHCP say. Whatever is found comes over
//! channels that anybody on the network can write to, so it is a proposal with its source, and never a reason to trust.

mod dhcp;
mod dns;
#[cfg(fuzzing)]
pub mod fuzzing;
mod names;
mod resolver;
mod txt;

use std::time::Duration;

use tokio::time::timeout;
use umbra_carrier::address::HostPort;
use umbra_protocol::credentials::shown_host;
use umbra_protocol::enrolment::{Connector, ConnectorKind};
use umbra_protocol::gateway::PATH_ENDPOINT;
use umbra_setup::{Code, Report};

use crate::paths::Paths;
use crate::registry::Snapshot;
pub use names::DeviceNames;
use resolver::{ResolveError, Resolver};

/// The port of a server or gateway unless something else is said.
pub const DEFAULT_PORT: u16 = 8_443;
/// The name that administrators of the field give their server.
const SERVER_NAME: &str = "igelrmserver";
/// Records of one domain that are proposed or complained about.
const RECORDS_MAX: usize = 8;

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
    /// What could not be used, and what to do.
    pub problems: Vec<Report>,
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
    let mut discovery = Discovery::default();
    for connector in &sources.configured {
        if let Ok(address) = HostPort::new(&connector.address, connector.port) {
            let sentence = format!("{address} is configured on this device.");
            discovery.add(address, connector.kind, Source::Configured, sentence);
        }
    }
    if !sources.configured.is_empty() {
        return discovery;
    }
    if sources.dns {
        let resolver = Resolver::read(&sources.paths);
        let asking = ask_dns(&resolver, &sources.domain, &mut discovery);
        let asked = timeout(deadline, asking).await;
        if asked.is_err() {
            discovery.problems.push(late());
        }
    }
    if sources.dhcp {
        for lease in dhcp::leases(&sources.paths) {
            let file = lease.file;
            match lease.server {
                Ok(address) => {
                    let sentence = format!(
                        "{} is named by this network's DHCP server (option 224, in {file}).",
                        shown(&address)
                    );
                    let source = Source::Dhcp { file };
                    discovery.add(address, ConnectorKind::Ums, source, sentence);
                }
                Err(why) => discovery.problems.push(Report::new(
                    Code::DhcpUnusable,
                    &[("file", &file)],
                    format!(
                        "This network's DHCP server names a server (option 224, in {file}), but not one that can be used: {why}. \
                         Ask your administrator to correct the option."
                    ),
                )),
            }
        }
    }
    discovery
}

/// Looks for the gateway of a person's e-mail address, or of a domain: the TXT record of its domain, and nothing else. Where there is
/// none, or none that can be used, the problems say so.
pub async fn of_mail(text: &str, sources: &Sources, deadline: Duration) -> Discovery {
    let resolver = Resolver::read(&sources.paths);
    of_mail_by(&resolver, text, deadline).await
}

async fn of_mail_by(resolver: &Resolver, text: &str, deadline: Duration) -> Discovery {
    let mut discovery = Discovery::default();
    let domain = match domain_of(text) {
        Ok(domain) => domain,
        Err(why) => {
            discovery.problems.push(why);
            return discovery;
        }
    };
    let asked = timeout(deadline, records(resolver, &domain, &mut discovery)).await;
    match asked {
        Ok(Ok(())) if discovery.found.is_empty() && discovery.problems.is_empty() => {
            let domain = shown_host(&domain);
            discovery.problems.push(Report::new(
                Code::RecordNone,
                &[("domain", &domain)],
                format!(
                    "The domain “{domain}” has no TXT record {}, so the gateway can't be found by an e-mail address. Compare the \
                     address with your administrator, or type the gateway's own address.",
                    txt::NAME,
                ),
            ));
        }
        Ok(Ok(())) => {}
        Ok(Err(error)) => discovery.problems.push(error.report()),
        Err(_) => discovery.problems.push(late()),
    }
    discovery
}

const LATE: &str =
    "DNS did not answer in time. Check the network, or type the address of the server or gateway.";

fn late() -> Report {
    Report::new(Code::DnsLate, &[], LATE)
}

/// The domain of what a person typed.
fn domain_of(text: &str) -> Result<String, Report> {
    let text = text.trim();
    let domain = text.rsplit_once('@').map_or(text, |(_, domain)| domain);
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    match HostPort::new(&domain, DEFAULT_PORT) {
        Ok(_) if resolver::is_name(&domain) && domain.parse::<std::net::IpAddr>().is_err() => {
            Ok(domain)
        }
        Ok(_) => {
            let domain = shown_host(&domain);
            Err(Report::new(
                Code::NoDomain,
                &[("domain", &domain)],
                format!(
                    "“{domain}” is no domain, so it has no TXT record. Type an e-mail address like user@example.com."
                ),
            ))
        }
        Err(error) => {
            let text = shown_host(text);
            Err(Report::new(
                Code::NoMail,
                &[("text", &text)],
                format!(
                    "“{text}” is no e-mail address whose gateway could be looked for: {error}."
                ),
            ))
        }
    }
}

/// Asks DNS for everything. An answer that does not come, or can't be used, is not waited for twice.
async fn ask_dns(resolver: &Resolver, domain: &str, discovery: &mut Discovery) {
    let domains: Vec<String> = if domain.is_empty() {
        resolver.search().to_vec()
    } else {
        vec![domain.to_ascii_lowercase()]
    };
    let asked: Result<(), ResolveError> = async {
        for domain in &domains {
            match records(resolver, domain, discovery).await {
                // One zone in disorder says nothing about the next.
                Err(error @ (ResolveError::Circle { .. } | ResolveError::Endless { .. })) => {
                    discovery.problems.push(error.report());
                }
                other => other?,
            }
        }
        let names = domains
            .iter()
            .map(|domain| format!("{SERVER_NAME}.{domain}"))
            .chain(domains.is_empty().then(|| SERVER_NAME.to_owned()));
        for name in names {
            let addresses = resolver.addresses(&name).await?;
            let Some(first) = addresses.first() else {
                continue;
            };
            if let Ok(address) = HostPort::new(&name, DEFAULT_PORT) {
                let sentence =
                    format!("This network's DNS knows a server by the name {name} ({first}).");
                discovery.add(address, ConnectorKind::Ums, Source::Name { name }, sentence);
            }
        }
        Ok(())
    }
    .await;
    if let Err(error) = asked {
        discovery.problems.push(error.report());
    }
}

/// The gateways that a domain's TXT records name.
async fn records(
    resolver: &Resolver,
    domain: &str,
    discovery: &mut Discovery,
) -> Result<(), ResolveError> {
    let name = format!("{}.{domain}", txt::NAME);
    let mut read: Vec<_> = resolver
        .txt(&name)
        .await?
        .iter()
        .map(|record| txt::read(record))
        .collect();
    if read.is_empty() {
        // Some administrators put it to the domain's own records, with its name in the text.
        let own = resolver.txt(domain).await?;
        read = own
            .iter()
            .filter_map(|record| txt::read_among_others(record))
            .collect();
    }
    for record in read.into_iter().take(RECORDS_MAX) {
        match record {
            Ok(address) => {
                let sentence = format!(
                    "{} is named by the TXT record {} of {domain}.",
                    shown(&address),
                    txt::NAME
                );
                let source = Source::Txt {
                    domain: domain.to_owned(),
                };
                discovery.add(address, ConnectorKind::Icg, source, sentence);
            }
            Err(why) => discovery.problems.push(Report::new(
                why.code(),
                &[("domain", domain)],
                format!(
                    "The TXT record {} of {domain} names no gateway: {why}. It should be like \
                     https://icg.{domain}:8443{PATH_ENDPOINT}; ask the administrator of the domain to correct it.",
                    txt::NAME
                ),
            )),
        }
    }
    Ok(())
}

fn shown(address: &HostPort) -> String {
    let host = shown_host(address.host());
    match host == address.host() {
        true => address.to_string(),
        false => format!("{host}, port {}", address.port()),
    }
}

impl Discovery {
    /// Each place once: who names it first is its source.
    fn add(&mut self, address: HostPort, kind: ConnectorKind, source: Source, sentence: String) {
        if !self.found.iter().any(|known| known.address == address) {
            self.found.push(Found {
                address,
                kind,
                source,
                sentence,
            });
        }
    }
}

#[cfg(test)]
mod tests;
