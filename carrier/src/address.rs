//! What people type as an address: `HOST`, `HOST:PORT`, an IPv6 address, `[IPv6]:PORT`. It only reads text: no name is
//! looked up here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Names may have this many bytes (RFC 1035).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing was typed.
    #[error("the address is empty: give a host name or an IP address")]
    Empty,
    /// A web address was typed.
    #[error(
        "this is a web address (URL): give only the host and, if needed, the port, like server.example.com:8443"
    )]
    Url,
    /// The port isn't a number from 1 to 65535.
    #[error("“{port}” isn't a port: a port is a number from 1 to 65535")]
    Port {
        /// What stands behind the colon.
        port: String,
    },
    /// Brackets without an IPv6 address in them, or not closed.
    #[error("the square brackets must hold an IPv6 address, like [2001:db8::1]:8443")]
    Brackets,
    /// Several colons, but no IPv6 address.
    #[error("“{host}” has several colons but isn't an IPv6 address")]
    Colons {
        /// What was typed.
        host: String,
    },
    /// Digits and dots, but no IPv4 address.
    #[error("“{host}” isn't an IP address: four numbers from 0 to 255 are needed")]
    Ipv4 {
        /// What was typed.
        host: String,
    },
    /// A name with characters outside ASCII.
    #[error("“{host}” has letters outside a–z: give the name in its xn-- form")]
    NotAscii {
        /// What was typed.
        host: String,
    },
    /// Not a host name.
    #[error("“{host}” isn't a host name: letters, digits, hyphens and single dots are allowed")]
    Name {
        /// What was typed.
        host: String,
    },
}

impl HostPort {
    /// An address from its parts. The host is checked as [`HostPort::parse`] does.
    ///
    /// # Errors
    /// [`AddressError`], naming what is wrong.
    pub fn new(host: &str, port: u16) -> Result<Self, AddressError> {
        if port == 0 {
            return Err(AddressError::Port {
                port: "0".to_owned(),
            });
        }
        Ok(Self {
            host: check_host(host)?,
            port,
        })
    }

    /// Reads what a person typed; without a port, `default_port` is meant. Space around it is ignored.
    ///
    /// # Errors
    /// [`AddressError`], naming what is wrong.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.contains(['/', '?', '#', '@', '\\']) {
            return Err(AddressError::Url);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or(AddressError::Brackets)?;
            if !is_ipv6(inside) {
                return Err(AddressError::Brackets);
            }
            let port = match after.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if after.is_empty() => default_port,
                None => return Err(AddressError::Brackets),
            };
            return Self::new(inside, port);
        }
        match text.matches(':').count() {
            0 => Self::new(text, default_port),
            1 => {
                let (host, port) = text.split_once(':').unwrap_or((text, ""));
                if host.is_empty() {
                    return Err(AddressError::Empty);
                }
                Self::new(host, parse_port(port)?)
            }
            _ => Self::new(text, default_port),
        }
    }

    /// The host: a name, an IPv4 address, or an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let wrong = || AddressError::Port {
        port: shorten(text),
    };
    // `parse` alone would also take a sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(wrong()),
    }
}

fn check_host(host: &str) -> Result<String, AddressError> {
    if host.is_empty() {
        return Err(AddressError::Empty);
    }
    if host.contains(':') {
        return if is_ipv6(host) {
            Ok(host.to_owned())
        } else {
            Err(AddressError::Colons {
                host: shorten(host),
            })
        };
    }
    if host.parse::<IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    if !host.is_ascii() {
        return Err(AddressError::NotAscii {
            host: shorten(host),
        });
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let labels_are_fine = name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    });
    if !labels_are_fine || name.len() > MAX_NAME {
        return Err(AddressError::Name {
            host: shorten(host),
        });
    }
    // No top-level domain is a number: this was meant as an IPv4 address.
    if name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(AddressError::Ipv4 {
            host: shorten(host),
        });
    }
    Ok(name.to_owned())
}

/// An IPv6 address, possibly with a zone (`fe80::1%eth0`).
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let zone_is_fine = zone.is_none_or(|zone| {
        !zone.is_empty()
            && zone.len() <= 16
            && zone
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    });
    zone_is_fine && address.parse::<Ipv6Addr>().is_ok()
}

/// Typed text goes back to people in sentences: without control characters, and not longer than a line.
fn shorten(text: &str) -> String {
    crate::x509::printable(text, 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, u16), AddressError> {
        HostPort::parse(text, 8443).map(|address| (address.host, address.port))
    }

    #[test]
    fn hosts_and_ports_are_read_as_people_type_them() {
        for (text, host, port) in [
            ("server.example.com", "server.example.com", 8443),
            ("server", "server", 8443),
            ("  server.example.com:443\n", "server.example.com", 443),
            ("server.example.com.:443", "server.example.com", 443),
            ("my_server-1:65535", "my_server-1", 65535),
            ("192.0.2.1", "192.0.2.1", 8443),
            ("192.0.2.1:1", "192.0.2.1", 1),
            ("2001:db8::1", "2001:db8::1", 8443),
            ("::1", "::1", 8443),
            ("[2001:db8::1]", "2001:db8::1", 8443),
            ("[2001:db8::1]:443", "2001:db8::1", 443),
            ("[fe80::1%eth0]:443", "fe80::1%eth0", 443),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", 8443),
        ] {
            assert_eq!(read(text), Ok((host.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn web_addresses_are_refused_with_a_sentence() {
        for text in [
            "https://server.example.com:8443/usg/endpoint",
            "server/",
            "//server",
            "user@server",
            "server?a",
        ] {
            assert_eq!(read(text), Err(AddressError::Url), "{text}");
        }
        assert!(AddressError::Url.to_string().contains("web address"));
    }

    #[test]
    fn what_is_no_address_is_refused_by_its_own_reason() {
        assert_eq!(read(""), Err(AddressError::Empty));
        assert_eq!(read("  "), Err(AddressError::Empty));
        assert_eq!(read(":443"), Err(AddressError::Empty));
        for text in [
            "server:",
            "server:0",
            "server:65536",
            "server:+1",
            "server:https",
            "[::1]:",
            "[::1]:-1",
        ] {
            assert!(
                matches!(read(text), Err(AddressError::Port { .. })),
                "{text}: {:?}",
                read(text)
            );
        }
        for text in [
            "[::1",
            "[server]:443",
            "[192.0.2.1]",
            "[]",
            "[::1]443",
            "[::1%]",
        ] {
            assert_eq!(read(text), Err(AddressError::Brackets), "{text}");
        }
        for text in ["a:b:c", "2001:db8::1::2", "fe80::1%"] {
            assert!(
                matches!(read(text), Err(AddressError::Colons { .. })),
                "{text}: {:?}",
                read(text)
            );
        }
        for text in ["192.0.2", "192.0.2.256", "1.2.3.4.5", "server.1"] {
            assert!(
                matches!(read(text), Err(AddressError::Ipv4 { .. })),
                "{text}: {:?}",
                read(text)
            );
        }
        assert!(matches!(
            read("bücher.example"),
            Err(AddressError::NotAscii { .. })
        ));
        let long = "a".repeat(64);
        let longer = vec!["a".repeat(60); 5].join(".");
        for text in [
            "a..b",
            ".a",
            "-a",
            "a-",
            "two words",
            "a\u{0}b",
            "a;b",
            "$(reboot)",
            "*.a",
            &long,
            &longer,
        ] {
            assert!(
                matches!(read(text), Err(AddressError::Name { .. })),
                "{text}: {:?}",
                read(text)
            );
        }
    }

    #[test]
    fn an_address_is_written_so_that_it_can_be_read_again() {
        for text in [
            "server.example.com:443",
            "192.0.2.1:8443",
            "[2001:db8::1]:8443",
            "[fe80::1%eth0]:1",
        ] {
            let address = HostPort::parse(text, 1).expect("an address");
            assert_eq!(address.to_string(), text);
            assert_eq!(HostPort::parse(&address.to_string(), 2), Ok(address));
        }
    }

    #[test]
    fn an_address_from_parts_is_checked_as_well() {
        assert!(HostPort::new("server", 443).is_ok());
        assert!(matches!(
            HostPort::new("server", 0),
            Err(AddressError::Port { .. })
        ));
        assert!(matches!(
            HostPort::new("a b", 443),
            Err(AddressError::Name { .. })
        ));
    }

    #[test]
    fn what_was_typed_can_not_steer_a_terminal_through_an_error() {
        let error = read("a\u{1b}[31mb").expect_err("no name");
        assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
    }
}
