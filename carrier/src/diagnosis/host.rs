//! Whether a name in a certificate covers a host, by the same rules as in a TLS handshake (RFC 6125): names regardless
//! of case, an asterisk for exactly one whole label at the left, IP addresses only by entries of their own type.

use std::net::IpAddr;

use rustls::pki_types::DnsName;

use crate::x509::AltName;

/// A host that a certificate is to cover.
pub(super) enum Host<'a> {
    Dns(&'a str),
    Ip(IpAddr),
}

impl<'a> Host<'a> {
    pub(super) fn read(text: &'a str) -> Option<Self> {
        // The zone of a link-local address is about this machine's interfaces, not about the server.
        let address = text
            .split_once('%')
            .map_or(text, |(address, _zone)| address);
        if let Ok(ip) = address.parse() {
            return Some(Self::Ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        DnsName::try_from(name).is_ok().then_some(Self::Dns(name))
    }

    pub(super) fn is_covered_by(&self, name: &AltName) -> bool {
        match (self, name) {
            (Self::Ip(host), AltName::Ip(name)) => host == name,
            (Self::Dns(host), AltName::Dns(name)) => covers(name, host),
            (Self::Ip(_), AltName::Dns(_)) | (Self::Dns(_), AltName::Ip(_)) => false,
        }
    }

    /// A frequent mistake: an IP address that stands in the certificate as if it were a host name.
    pub(super) fn is_written_as_name(&self, name: &AltName) -> bool {
        match (self, name) {
            (Self::Ip(host), AltName::Dns(name)) => {
                name.parse().is_ok_and(|name: IpAddr| name == *host)
            }
            (Self::Ip(_), AltName::Ip(_)) | (Self::Dns(_), AltName::Dns(_) | AltName::Ip(_)) => {
                false
            }
        }
    }
}

fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        // An asterisk for all names below a top-level domain is for nobody.
        Some(parent) => {
            parent.contains('.')
                && host
                    .split_once('.')
                    .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent))
        }
        None => name.eq_ignore_ascii_case(host),
    }
}
