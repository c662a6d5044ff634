//! What a person types as an address: a host with or without a port, an IP address, a web address copied from somewhere, or an
//! e-mail address, whose domain is then asked for its gateway. It only reads text.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use umbra_protocol::credentials::shown_host;

use crate::event::Address;

/// The port where none was typed.
pub const DEFAULT_PORT: u16 = 8443;
const HOST_MAX: usize = 253;
const LABEL_MAX: usize = 63;
/// As long as names of network interfaces are.
const ZONE_MAX: usize = 16;

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Where a server or a gateway is.
    Address(Address),
    /// An e-mail address of this domain.
    Mail(String),
}

/// Why it is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Nothing was typed.
    Empty,
    /// Not a port.
    Port,
    /// Not a host name and not an IP address.
    Host,
    /// Letters outside a–z.
    Letters,
    /// Not an e-mail address.
    Mail,
}

impl Typed {
    /// Reads what was typed; space around it is ignored.
    pub fn read(text: &str) -> Result<Self, Mistake> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Mistake::Empty);
        }
        if let Some((before, domain)) = text.rsplit_once('@')
            && !text.contains('/')
        {
            let domain = domain.trim_end_matches('.');
            let is_name = check_name(domain).is_ok() && domain.contains('.');
            if before.is_empty() || before.contains(char::is_whitespace) || !is_name {
                return Err(Mistake::Mail);
            }
            return Ok(Self::Mail(domain.to_ascii_lowercase()));
        }
        // A web address from a mail or a browser names the host as well.
        let text = ["https://", "http://"]
            .iter()
            .find_map(|scheme| {
                let start = text.get(..scheme.len())?;
                start
                    .eq_ignore_ascii_case(scheme)
                    .then(|| &text[scheme.len()..])
            })
            .unwrap_or(text);
        let place = text.split(['/', '?', '#']).next().unwrap_or(text);
        read_place(place).map(Self::Address)
    }
}

fn read_place(text: &str) -> Result<Address, Mistake> {
    let address = |host: &str, port: u16| Address {
        host: host.to_owned(),
        port,
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(Mistake::Host)?;
        check_v6(host)?;
        let port = match after.strip_prefix(':') {
            Some(port) => read_port(port)?,
            None if after.is_empty() => DEFAULT_PORT,
            None => return Err(Mistake::Port),
        };
        return Ok(address(host, port));
    }
    match text.matches(':').count() {
        0 => check_host(text).map(|()| address(text, DEFAULT_PORT)),
        1 => {
            let (host, port) = text.split_once(':').unwrap_or((text, ""));
            check_host(host)?;
            Ok(address(host, read_port(port)?))
        }
        _ => check_v6(text).map(|()| address(text, DEFAULT_PORT)),
    }
}

fn read_port(text: &str) -> Result<u16, Mistake> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(Mistake::Port),
        Ok(port) => Ok(port),
    }
}

/// An IPv6 address, possibly with a zone: the name of a network interface, and nothing else.
fn check_v6(text: &str) -> Result<(), Mistake> {
    let (plain, zone) = match text.split_once('%') {
        Some((plain, zone)) => (plain, Some(zone)),
        None => (text, None),
    };
    let is_zone = zone.is_none_or(|zone| {
        (1..=ZONE_MAX).contains(&zone.len())
            && zone
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    });
    if is_zone && plain.parse::<Ipv6Addr>().is_ok() {
        Ok(())
    } else {
        Err(Mistake::Host)
    }
}

fn check_host(text: &str) -> Result<(), Mistake> {
    let digits_and_dots = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if digits_and_dots {
        return text
            .parse::<Ipv4Addr>()
            .map(|_| ())
            .map_err(|_| Mistake::Host);
    }
    check_name(text)
}

fn check_name(text: &str) -> Result<(), Mistake> {
    if !text.is_ascii() {
        return Err(Mistake::Letters);
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if text.len() <= HOST_MAX && text.split('.').all(is_label) {
        Ok(())
    } else {
        Err(Mistake::Host)
    }
}

/// As a person may safely read it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", shown_host(&self.host), self.port)
        } else {
            write!(f, "{}:{}", shown_host(&self.host), self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_the_name_of_an_interface_and_nothing_else() {
        assert!(Typed::read("[fe80::1%eth0.7]:1").is_ok());
        for zone in [
            "",
            "eth0\"",
            "a b",
            "a%b",
            "\u{1b}[2J",
            "a]:1",
            &"e".repeat(17),
        ] {
            let typed = format!("fe80::1%{zone}");
            assert_eq!(Typed::read(&typed), Err(Mistake::Host), "{typed:?}");
        }
    }
}
