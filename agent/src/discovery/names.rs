//! Where names lead, as the C library would say it: addresses as such, /etc/hosts, then DNS, completed with the network's domains. Unlike the C library,
//! nothing waits in a thread of its own, and a wait that is given up is over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use umbra_carrier::names::{Addresses, Lookup};
use umbra_carrier::x509::printable;

use super::resolver::{ResolveError, Resolver, is_name, numeric};
use crate::files;
use crate::paths::Paths;

/// Larger than any hosts file of a device.
const FILE_MAX: usize = 256 * 1024;

/// What this machine knows of names: /etc/hosts, and the servers in /etc/resolv.conf.
#[derive(Clone, Copy, Debug)]
pub struct DeviceNames;

impl Lookup for DeviceNames {
    fn addresses<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move {
            // Those of the machine, wherever the device's own files are.
            let found = find(&Paths::new("/"), host, port).await?;
            Ok(in_order(found, leads_somewhere))
        })
    }
}

async fn find(paths: &Paths, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = numeric(host, port) {
        return Ok(vec![address]);
    }
    let with_port = |found: Vec<IpAddr>| {
        let addresses = found.into_iter();
        addresses
            .map(|address| SocketAddr::new(address, port))
            .collect()
    };
    // One dot at the end says that the name is whole.
    let bare = host.strip_suffix('.').unwrap_or(host);
    if !is_name(bare) {
        let name = printable(host, 80);
        return Err(io::Error::other(ResolveError::Name { name }));
    }
    let path = paths.hosts();
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    if let Ok(Some(bytes)) = files::read(&path, FILE_MAX) {
        let found = in_hosts(&String::from_utf8_lossy(&bytes), bare);
        if !found.is_empty() {
            return Ok(with_port(found));
        }
    }
    if is_this_machine(bare) {
        return Ok(with_port(vec![
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
        ]));
    }
    let resolver = Resolver::read(paths);
    let mut worst = None;
    for name in resolver.candidates(host) {
        match resolver.addresses(&name).await {
            Ok(found) if !found.is_empty() => return Ok(with_port(found)),
            Ok(_) => {}
            Err(error) => worst = Some(error),
        }
    }
    match worst {
        // A name that one server could not say anything about may exist.
        Some(error) => Err(io::Error::other(error)),
        None => Ok(Vec::new()),
    }
}

/// A name that no server is asked for (RFC 6761, section 6.3).
fn is_this_machine(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}

/// The addresses that a hosts file gives a name (hosts(5)).
pub(super) fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let addresses = text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        let named = words.any(|word| word.eq_ignore_ascii_case(name));
        named.then_some(address)
    });
    addresses.collect()
}

/// Those that a way leads to before the others, and IPv6 before IPv4, otherwise as they came (what of RFC 6724 counts on a device).
fn in_order(mut found: Vec<SocketAddr>, leads: impl Fn(&SocketAddr) -> bool) -> Vec<SocketAddr> {
    found.sort_by_cached_key(|address| (!leads(address), address.is_ipv4()));
    found
}

/// Whether the machine has a way to an address. Nothing is sent.
fn leads_somewhere(address: &SocketAddr) -> bool {
    let own: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(own).is_ok_and(|socket| socket.connect(address).is_ok())
}

#[cfg(test)]
mod tests;
