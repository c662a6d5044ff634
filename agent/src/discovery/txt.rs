//! What the TXT record `igel-cloud-gateway` says. It is a stranger's text: it is read strictly, and whatever is wrong with it is
//! said in words, so that the administrator of the zone can mend it.

use umbra_carrier::address::{AddressError, HostPort};
use umbra_carrier::x509::printable;
use umbra_protocol::gateway::PATH_ENDPOINT;
use umbra_setup::Code;

/// The name of the record.
pub(super) const NAME: &str = "igel-cloud-gateway";
/// The port of a web address that names none.
const HTTPS_PORT: u16 = 443;
/// A web address of a gateway is far shorter.
const TEXT_MAX: usize = 512;
/// How much of a wrong text is shown.
const SHOWN: usize = 80;

/// Why a record names no gateway.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TxtError {
    #[error("it is empty")]
    Empty,
    #[error("it has {0} bytes, and no address is that long")]
    TooLong(usize),
    #[error("“{0}” holds characters that no web address has")]
    NotText(String),
    #[error("“{0}” does not begin with https://")]
    NotHttps(String),
    #[error("“{path}” is not the path of a gateway, which is {PATH_ENDPOINT}")]
    Path { path: String },
    #[error(
        "“{0}” holds a user name, a question mark or a number sign, which does not belong there"
    )]
    Extra(String),
    #[error("it names no usable address: {0}")]
    Address(AddressError),
}

impl TxtError {
    /// What it means.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Empty => Code::RecordEmpty,
            Self::TooLong(_) => Code::RecordTooLong,
            Self::NotText(_) => Code::RecordNotText,
            Self::NotHttps(_) => Code::RecordNotHttps,
            Self::Path { .. } => Code::RecordPath,
            Self::Extra(_) => Code::RecordExtra,
            Self::Address(_) => Code::RecordAddress,
        }
    }
}

/// The gateway that a record at its own name names: `https://HOST:PORT/usg/endpoint`.
pub(super) fn read(record: &[u8]) -> Result<HostPort, TxtError> {
    if record.len() > TEXT_MAX {
        return Err(TxtError::TooLong(record.len()));
    }
    let shown = || printable(&String::from_utf8_lossy(record), SHOWN);
    let text = std::str::from_utf8(record).map_err(|_| TxtError::NotText(shown()))?;
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '"');
    let text = strip_name(text).unwrap_or(text);
    if text.is_empty() {
        return Err(TxtError::Empty);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TxtError::NotText(shown()));
    }
    let rest = strip_prefix(text, "https://").ok_or_else(|| TxtError::NotHttps(shown()))?;
    if rest.contains(['@', '?', '#', '\\']) {
        return Err(TxtError::Extra(shown()));
    }
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (rest, String::new()),
    };
    let path = path.trim_end_matches('/');
    if !path.is_empty() && path != PATH_ENDPOINT {
        return Err(TxtError::Path {
            path: printable(path, SHOWN),
        });
    }
    HostPort::parse(authority, HTTPS_PORT).map_err(TxtError::Address)
}

/// The same among the records of the domain itself, where all kinds of records are: only those that are meant for a gateway.
pub(super) fn read_among_others(record: &[u8]) -> Option<Result<HostPort, TxtError>> {
    let beginning = String::from_utf8_lossy(&record[..record.len().min(TEXT_MAX)]);
    let beginning = beginning.trim_matches(|c: char| c.is_ascii_whitespace() || c == '"');
    let meant = strip_name(beginning).is_some()
        || (strip_prefix(beginning, "https://").is_some() && beginning.ends_with(PATH_ENDPOINT));
    meant.then(|| read(record))
}

/// What follows the record's name where it is part of the text: `igel-cloud-gateway=https://…`.
fn strip_name(text: &str) -> Option<&str> {
    let rest = strip_prefix(text, NAME)?;
    let value = rest.trim_start_matches([' ', '\t', '=', ':']);
    (value.len() < rest.len() || rest.is_empty()).then_some(value)
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<String, TxtError> {
        read(text.as_bytes()).map(|address| address.to_string())
    }

    #[test]
    fn a_record_names_a_gateway_with_and_without_port_and_however_it_is_quoted() {
        for (text, expected) in [
            (
                "https://icg.example.com:8443/usg/endpoint",
                "icg.example.com:8443",
            ),
            (
                " https://icg.example.com:8443/usg/endpoint/ ",
                "icg.example.com:8443",
            ),
            (
                "\"https://icg.example.com/usg/endpoint\"",
                "icg.example.com:443",
            ),
            ("HTTPS://192.0.2.7:8443/usg/endpoint", "192.0.2.7:8443"),
            (
                "https://[2001:db8::1]:8443/usg/endpoint",
                "[2001:db8::1]:8443",
            ),
            ("https://icg.example.com:8443", "icg.example.com:8443"),
            (
                "igel-cloud-gateway=https://icg.example.com:1/usg/endpoint",
                "icg.example.com:1",
            ),
            (
                "igel-cloud-gateway https://icg.example.com:1/usg/endpoint",
                "icg.example.com:1",
            ),
        ] {
            assert_eq!(address(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_record_is_said_by_its_own_reason() {
        let said = |text: &str| address(text).expect_err(text).to_string();
        for (text, word) in [
            ("", "empty"),
            ("igel-cloud-gateway=", "empty"),
            ("v=spf1 -all", "characters that no web address"),
            ("icg.example.com:8443", "does not begin with https://"),
            (
                "http://icg.example.com/usg/endpoint",
                "does not begin with https://",
            ),
            ("https://icg.example.com/other", "“/other” is not the path"),
            ("https://admin@icg.example.com/usg/endpoint", "user name"),
            ("https://icg.example.com/usg/endpoint?x=1", "question mark"),
            ("https://icg.example.com:0/usg/endpoint", "isn't a port"),
            ("https:///usg/endpoint", "empty"),
            ("https://-icg-/usg/endpoint", "isn't a host name"),
            (
                "https://b\u{fc}cher.example/usg/endpoint",
                "characters that no web address",
            ),
        ] {
            assert!(said(text).contains(word), "{text}: {}", said(text));
        }
        assert!(matches!(read(&[0xff, 0xfe, 0]), Err(TxtError::NotText(_))));
        let long = vec![b'a'; 64 * 1024];
        assert_eq!(read(&long), Err(TxtError::TooLong(64 * 1024)));
        let sly = said("https://icg\u{1b}[31m/usg/endpoint");
        assert!(!sly.contains('\u{1b}'), "{sly:?}");
    }

    #[test]
    fn records_for_others_are_none_of_ours() {
        for other in [
            "v=spf1 -all",
            "https://example.com/",
            "igel-cloud-gatewayish=1",
            "",
        ] {
            assert_eq!(read_among_others(other.as_bytes()), None, "{other}");
        }
        for ours in [
            "igel-cloud-gateway=nonsense",
            "https://icg.example.com:8443/usg/endpoint",
        ] {
            assert!(read_among_others(ours.as_bytes()).is_some(), "{ours}");
        }
        assert_eq!(read_among_others(&[0xff; 70_000]), None);
    }
}
