//! Which hosts are reached without the proxy, in the form that `NO_PROXY` has everywhere: names with all that is below
//! them, addresses, networks, `*`. It only compares texts and addresses: no name is looked up, so an entry with an
//! address never matches a host that is given by name.

use std::net::IpAddr;

/// The exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy {
    rules: Vec<Rule>,
    loopback_too: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// This name, and all below it.
    Name(String),
    /// The addresses that share so many first bits.
    Network(IpAddr, u8),
}

impl NoProxy {
    /// Reads a list, with commas or spaces between the entries: `example.com` or `.example.com` (with all names below),
    /// `192.0.2.1`, `[2001:db8::1]`, `10.0.0.0/8`, each also with `:PORT`, or `*`. As with curl, an entry that means nothing
    /// matches nothing. This machine itself is always an exception.
    pub fn parse(list: &str) -> Self {
        let entries = list.split(|character: char| character == ',' || character.is_whitespace());
        Self {
            rules: entries.filter_map(Rule::parse).collect(),
            loopback_too: false,
        }
    }

    /// Lets this machine's own addresses and names go through the proxy as well.
    #[must_use]
    pub fn with_loopback_proxied(mut self) -> Self {
        self.loopback_too = true;
        self
    }

    /// Whether this host is reached without the proxy.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let host = Host::read(host);
        if !self.loopback_too && host.is_loopback() {
            return true;
        }
        self.rules.iter().any(|rule| rule.matches(&host, port))
    }
}

/// A host as compared.
enum Host {
    Address(IpAddr),
    Name(String),
}

impl Host {
    fn read(text: &str) -> Self {
        let text = text.trim();
        let inside = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        let address = inside
            .split_once('%')
            .map_or(inside, |(address, _)| address);
        match address.parse::<IpAddr>() {
            Ok(address) => Self::Address(address.to_canonical()),
            Err(_) => Self::Name(text.trim_end_matches('.').to_ascii_lowercase()),
        }
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

impl Rule {
    fn parse(entry: &str) -> Option<Self> {
        if entry.is_empty() {
            return None;
        }
        let (host, port) = split_port(entry)?;
        if host == "*" {
            let hosts = Hosts::All;
            return Some(Self { hosts, port });
        }
        if let Some((address, bits)) = host.split_once('/') {
            let Host::Address(address) = Host::read(address) else {
                return None;
            };
            let bits = bits.parse().ok().filter(|bits| *bits <= width(address))?;
            let hosts = Hosts::Network(address, bits);
            return Some(Self { hosts, port });
        }
        let hosts = match Host::read(host.trim_start_matches("*.").trim_start_matches('.')) {
            Host::Address(address) => Hosts::Network(address, width(address)),
            Host::Name(name) if name.is_empty() => return None,
            Host::Name(name) => Hosts::Name(name),
        };
        Some(Self { hosts, port })
    }

    fn matches(&self, host: &Host, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        match (&self.hosts, host) {
            (Hosts::All, _) => true,
            (Hosts::Name(rule), Host::Name(name)) => name
                .strip_suffix(rule.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
            (Hosts::Network(network, bits), Host::Address(address)) => {
                same_network(*network, *address, *bits)
            }
            (Hosts::Name(_), Host::Address(_)) | (Hosts::Network(..), Host::Name(_)) => false,
        }
    }
}

/// The host and the port of an entry. Several colons without brackets are an IPv6 address.
fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    let port = |text: &str| text.parse().ok();
    if entry.starts_with('[') {
        let end = entry.find(']')? + 1;
        let (host, rest) = entry.split_at(end);
        return match rest.strip_prefix(':') {
            Some(text) => Some((host, Some(port(text)?))),
            // `[2001:db8::]/32`
            None => Some((entry, None)),
        };
    }
    match entry.split_once(':') {
        Some((host, text)) if !text.contains(':') => Some((host, Some(port(text)?))),
        Some(_) | None => Some((entry, None)),
    }
}

fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn same_network(network: IpAddr, address: IpAddr, bits: u8) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= u32::from(bits)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= u32::from(bits)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}
