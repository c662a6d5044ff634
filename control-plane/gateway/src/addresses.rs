//! Whom a connection is counted for: networks as an administrator writes them, sources as floods come from them, and the
//! client's address behind a reverse proxy that is trusted to tell it. Nobody else's word about addresses is taken.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use umbra_carrier::crowd::site;

/// The network that strangers are counted for: an IPv4 address, or the 64-bit prefix that one IPv6 site has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(site(address))
    }
}

/// A network in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "“{0}” is no network: give an address like 192.0.2.7, or one with a prefix like 192.0.2.0/24 or 2001:db8::/32"
)]
pub struct NotANetwork(String);

impl Network {
    /// Whether an address is part of it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => same_prefix(
                u128::from(u32::from(network)) << 96,
                u128::from(u32::from(address)) << 96,
                self.prefix,
            ),
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same_prefix(u128::from(network), u128::from(address), self.prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn same_prefix(a: u128, b: u128, prefix: u8) -> bool {
    (a ^ b).leading_zeros() >= u32::from(prefix)
}

impl FromStr for Network {
    type Err = NotANetwork;
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let no_network = || NotANetwork(text.escape_debug().take(80).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| no_network())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| no_network())?
            }
            Some(_) => return Err(no_network()),
        };
        if prefix > most {
            return Err(no_network());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's address, as far as it is known.
    pub address: IpAddr,
    /// What the client is counted for; nothing for all that come through a trusted proxy which doesn't tell them apart.
    pub source: Option<Source>,
}

impl Peer {
    /// The client behind a connection from `from`. `forwarded` is the value of `X-Forwarded-For`, which only counts if
    /// it was a trusted proxy that connected: then the last address in it that is no such proxy is the client's.
    pub fn behind(from: IpAddr, trusted: &[Network], forwarded: Option<&str>) -> Self {
        let from = from.to_canonical();
        let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
        if !is_trusted(from) {
            return Self {
                address: from,
                source: Some(from.into()),
            };
        }
        for hop in forwarded.unwrap_or_default().rsplit(',') {
            let Some(address) = hop_address(hop.trim()) else {
                break;
            };
            if !is_trusted(address) {
                return Self {
                    address,
                    source: Some(address.into()),
                };
            }
        }
        Self {
            address: from,
            source: None,
        }
    }
}

/// An address as proxies write it: alone, or with a port.
fn hop_address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse()
        .ok()
        .or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    #[test]
    fn a_network_contains_its_own_addresses_and_no_others() {
        assert!(network("192.0.2.0/24").contains(ip("192.0.2.255")));
        assert!(network("192.0.2.0/24").contains(ip("::ffff:192.0.2.9")));
        assert!(!network("192.0.2.0/24").contains(ip("192.0.3.0")));
        assert!(network("0.0.0.0/0").contains(ip("203.0.113.1")));
        assert!(!network("0.0.0.0/0").contains(ip("2001:db8::1")));
        assert!(network("2001:db8::/32").contains(ip("2001:db8:ffff::1")));
        assert!(!network("192.0.2.7").contains(ip("192.0.2.6")));
    }

    #[test]
    fn what_is_no_network_is_refused_by_name() {
        for wrong in [
            "",
            "x",
            "192.0.2.0/33",
            "::/129",
            "192.0.2.0/",
            "192.0.2.0/+8",
            "10/8",
        ] {
            let error = wrong.parse::<Network>().expect_err(wrong);
            assert!(error.to_string().contains(&format!("“{wrong}”")), "{error}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_about_the_hop_before_it() {
        let trusted = [network("127.0.0.0/8"), network("10.0.0.0/8")];
        let address = |from, forwarded| Peer::behind(ip(from), &trusted, forwarded).address;
        assert_eq!(address("203.0.113.5", Some("192.0.2.1")), ip("203.0.113.5"));
        assert_eq!(address("127.0.0.1", Some("192.0.2.1")), ip("192.0.2.1"));
        // The client invented the first one; the second is what the outer of two proxies saw.
        assert_eq!(
            address("127.0.0.1", Some("198.51.100.9, 192.0.2.1:4711, 10.1.1.1")),
            ip("192.0.2.1")
        );
        assert_eq!(
            address("127.0.0.1", Some("[2001:db8::7]:4711")),
            ip("2001:db8::7")
        );
    }

    #[test]
    fn clients_that_a_proxy_does_not_tell_apart_are_not_counted_as_one() {
        let trusted = [network("127.0.0.1")];
        for forwarded in [None, Some(""), Some("unknown"), Some("192.0.2.1, rubbish")] {
            let peer = Peer::behind(ip("127.0.0.1"), &trusted, forwarded);
            assert_eq!((peer.address, peer.source), (ip("127.0.0.1"), None));
        }
    }
}
