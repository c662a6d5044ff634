//! What a person or a file needs to bring a device in: where to connect, the root's fingerprint in four parts, and a
//! first-authentication key. It is read from text and from XML as administrators export, save, copy and mangle them; nothing
//! is taken from a file that is not wholly understood, and what was taken is never trusted for having come in a file.
//!
//! The formats are specified in `docs/credentials.md`.

mod encoding;
mod host;
#[cfg(test)]
mod tests;
mod text;
mod xml;

pub use host::shown_host;

use crate::fingerprint::{Fingerprint, FingerprintError};
use crate::first_auth::{FirstAuthKey, KeyError};

/// Largest file with credentials, in bytes. Read at most this many and one more: [`Credentials::read`] tells about the rest.
pub const FILE_MAX: usize = 64 * 1024;
/// The names under which a device looks for credentials on a stick, best first.
pub const FILE_NAMES: [&str; 2] = ["icg.xml", "icg.txt"];
/// The port where none is said.
pub const DEFAULT_PORT: u16 = 8443;
/// Most servers and gateways in one file.
pub const ENDPOINTS_MAX: usize = 100;

/// Everything that a person needs to bring a device in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Servers or gateways to connect to, at least one.
    pub endpoints: Vec<Endpoint>,
    /// The first-authentication key.
    pub key: FirstAuthKey,
}

/// One server or gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// SHA-256 of its root certificate.
    pub root_fingerprint: Fingerprint,
}

impl Credentials {
    /// Reads the bytes of a file, text or XML, in UTF-8 or UTF-16 with a byte order mark, with the line ends of any system.
    ///
    /// # Errors
    /// [`CredentialsError`], whose sentence says what to do.
    pub fn read(bytes: &[u8]) -> Result<Self, CredentialsError> {
        if bytes.len() > FILE_MAX && is_html(&String::from_utf8_lossy(&bytes[..FILE_MAX / 16])) {
            return Err(CredentialsError::Html);
        }
        let text = encoding::text_of(bytes)?;
        let text = text.trim_start();
        if text.is_empty() {
            return Err(CredentialsError::Empty);
        }
        if !text.starts_with('<') {
            return Self::from_text(text);
        }
        if is_html(text) {
            return Err(CredentialsError::Html);
        }
        Self::from_xml(text)
    }
}

fn is_html(text: &str) -> bool {
    let start: String = text.chars().take(1_024).collect();
    let start = start.to_ascii_lowercase();
    start.contains("<!doctype html") || start.contains("<html")
}

/// Why a file holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Larger than any credentials.
    #[error(
        "this is larger than {} KiB, which no credentials are: take the icg.xml or icg.txt that “umbra keys export” writes",
        FILE_MAX / 1024
    )]
    TooLong,
    /// Nothing at all.
    #[error("the file is empty: copy it again")]
    Empty,
    /// Not text in an encoding that is understood.
    #[error("the file is no text (UTF-8, or UTF-16 with a byte order mark): copy it again")]
    NotText,
    /// The page for people.
    #[error(
        "this is the printable page (icg.html), made for people: take icg.xml or icg.txt, which stand for the same"
    )]
    Html,
    /// XML that ends in the middle.
    #[error("the file ends in the middle: copy it again")]
    Truncated,
    /// XML that is not well-formed.
    #[error("the file is damaged, it is no XML ({0}): copy it again")]
    Xml(String),
    /// XML with a document type definition.
    #[error(
        "the file has a document type definition (DTD), which credentials never have: it was not made by “umbra keys export”"
    )]
    Dtd,
    /// XML with more elements than any credentials.
    #[error(
        "the file has far more elements than credentials have: it was not made by “umbra keys export”"
    )]
    TooMuch,
    /// XML of another program.
    #[error(
        "this XML file holds no credentials, but “{0}”: take the icg.xml that “umbra keys export” writes"
    )]
    OtherXml(String),
    /// A newer format.
    #[error(
        "the file is of version {0}, and this program reads version 1: update this program, or export the file as text"
    )]
    Version(String),
    /// Something is missing.
    #[error("the credentials lack “{0}”: copy them again, from the first line to the last")]
    Missing(&'static str),
    /// The host is none.
    #[error(
        "“{0}” is not a host name or IP address (a name with other letters than a to z is needed in its xn-- form)"
    )]
    Host(String),
    /// The port is none.
    #[error("“{0}” is not a port (1 to 65535)")]
    Port(String),
    /// The fingerprint is none.
    #[error("the fingerprint in the credentials is not one: {0}")]
    Fingerprint(FingerprintError),
    /// The key is none.
    #[error("the key in the credentials is not one: {0}")]
    Key(KeyError),
    /// Two keys.
    #[error("the credentials hold two different first-authentication keys: leave one")]
    TwoKeys,
    /// More gateways than anybody has.
    #[error("the credentials name more than {ENDPOINTS_MAX} servers and gateways")]
    TooMany,
}

/// What was found in a file so far.
#[derive(Default)]
struct Gathered {
    endpoints: Vec<Endpoint>,
    key: Option<FirstAuthKey>,
}

impl Gathered {
    fn endpoint(&mut self, name: &str, port: u16, parts: &str) -> Result<(), CredentialsError> {
        if !host::is_host(name) {
            return Err(CredentialsError::Host(shown_host(name)));
        }
        if self.endpoints.len() == ENDPOINTS_MAX {
            return Err(CredentialsError::TooMany);
        }
        self.endpoints.push(Endpoint {
            host: name.to_owned(),
            port,
            root_fingerprint: parts.parse().map_err(CredentialsError::Fingerprint)?,
        });
        Ok(())
    }

    fn key(&mut self, text: &str) -> Result<(), CredentialsError> {
        let key = FirstAuthKey::parse(text).map_err(CredentialsError::Key)?;
        if self.key.as_ref().is_some_and(|known| *known != key) {
            return Err(CredentialsError::TwoKeys);
        }
        self.key = Some(key);
        Ok(())
    }

    fn end(self, labels: [&'static str; 2]) -> Result<Credentials, CredentialsError> {
        if self.endpoints.is_empty() {
            return Err(CredentialsError::Missing(labels[0]));
        }
        let key = self.key.ok_or(CredentialsError::Missing(labels[1]))?;
        Ok(Credentials {
            endpoints: self.endpoints,
            key,
        })
    }
}

/// The beginning of something unexpected, safe to show.
fn quoted(text: &str) -> String {
    text.escape_debug().take(60).collect()
}
