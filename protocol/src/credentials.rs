//! The administrator's credentials as text, in the layout that administrators of the field know from their clipboard:
//! where to connect, the root's fingerprint in four parts, and a first-authentication key.

use crate::fingerprint::Fingerprint;
use crate::first_auth::FirstAuthKey;

/// Everything that a person needs to bring a device in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Servers or gateways to connect to.
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

const RULE: &str = "----------------------------------------";

impl Credentials {
    /// The text for clipboard, mail or paper. It holds the key: treat it like one.
    pub fn to_text(&self) -> zeroize::Zeroizing<String> {
        use std::fmt::Write as _;
        let mut text = zeroize::Zeroizing::new(String::new());
        for endpoint in &self.endpoints {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{RULE}\n{RULE}");
            let _ = writeln!(text, "Host: {}\nPort: {}", endpoint.host, endpoint.port);
            let _ = writeln!(text, "Root Certificate Fingerprint");
            for (index, part) in endpoint.root_fingerprint.parts().iter().enumerate() {
                let _ = writeln!(text, "Part {}: {part}", index + 1);
            }
        }
        let _ = writeln!(text, "{RULE}\n{RULE}");
        let _ = writeln!(
            text,
            "First-authentication key:\n{}\n{RULE}",
            self.key.for_person().reveal()
        );
        text
    }

    /// Reads the text back, however lines are indented or ended.
    pub fn from_text(text: &str) -> Result<Self, CredentialsError> {
        const TEXT_MAX: usize = 64 * 1024;
        if text.len() > TEXT_MAX {
            return Err(CredentialsError::TooLong);
        }
        let mut endpoints = Vec::new();
        let mut host = None;
        let mut port = None;
        let mut parts: Vec<&str> = Vec::new();
        let mut key = None;
        let mut key_follows = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.bytes().all(|b| b == b'-') {
                continue;
            }
            let (label, value) = line
                .split_once(':')
                .map_or((line, ""), |(l, v)| (l.trim(), v.trim()));
            match label {
                "Host" => host = Some(value.to_owned()),
                "Port" => {
                    port = Some(
                        value
                            .parse()
                            .map_err(|_| CredentialsError::Port(shorten(value)))?,
                    )
                }
                "Part 1" | "Part 2" | "Part 3" | "Part 4" => {
                    parts.push(value);
                    if parts.len() == 4 {
                        let root_fingerprint = parts
                            .join("-")
                            .parse()
                            .map_err(CredentialsError::Fingerprint)?;
                        let host = host
                            .take()
                            .filter(|h| !h.is_empty())
                            .ok_or(CredentialsError::Missing("Host"))?;
                        let port = port.take().unwrap_or(8443);
                        endpoints.push(Endpoint {
                            host,
                            port,
                            root_fingerprint,
                        });
                        parts.clear();
                    }
                }
                "First-authentication key" if value.is_empty() => key_follows = true,
                "First-authentication key" => key = Some(value),
                _ if key_follows => {
                    key = Some(line);
                    key_follows = false;
                }
                _ => {}
            }
        }
        if !parts.is_empty() {
            return Err(CredentialsError::Missing("Part 4"));
        }
        if endpoints.is_empty() {
            return Err(CredentialsError::Missing("Host"));
        }
        let key = key.ok_or(CredentialsError::Missing("First-authentication key"))?;
        let key = FirstAuthKey::parse(key).map_err(CredentialsError::Key)?;
        Ok(Self { endpoints, key })
    }
}

/// Why a text holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Larger than any credentials.
    #[error("this text is too long to be credentials")]
    TooLong,
    /// A line is missing.
    #[error("the credentials have no line “{0}:”")]
    Missing(&'static str),
    /// The port is no port.
    #[error("“{0}” is not a port (1 to 65535)")]
    Port(String),
    /// The fingerprint is none.
    #[error("the fingerprint in the credentials is not one: {0}")]
    Fingerprint(crate::fingerprint::FingerprintError),
    /// The key is none.
    #[error("the key in the credentials is not one: {0}")]
    Key(crate::first_auth::KeyError),
}

fn shorten(text: &str) -> String {
    text.escape_debug().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let endpoint = |host: &str, byte| Endpoint {
            host: host.into(),
            port: 8443,
            root_fingerprint: Fingerprint::from_bytes([byte; 32]),
        };
        Credentials {
            endpoints: vec![
                endpoint("ums.example.com", 0xab),
                endpoint("10.0.0.1", 0x01),
            ],
            key: FirstAuthKey::parse("ABCDEFGHJKMNPQRSTVWX").expect("a key"),
        }
    }

    #[test]
    fn the_text_has_the_fields_layout_and_reads_back() {
        let text = credentials().to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2..6],
            [
                "Host: ums.example.com",
                "Port: 8443",
                "Root Certificate Fingerprint",
                "Part 1: ABABABABABABABAB"
            ]
        );
        assert!(text.contains("First-authentication key:\nABCDE-FGHJK-MNPQR-STVWX\n"));
        assert_eq!(Credentials::from_text(&text), Ok(credentials()));
        assert_eq!(
            Credentials::from_text(&text.replace('\n', "\r\n  ")),
            Ok(credentials())
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = credentials().to_text();
        let without = |label: &str| {
            let kept: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with(label))
                .collect();
            Credentials::from_text(&kept.join("\n"))
                .expect_err("something is missing")
                .to_string()
        };
        assert_eq!(without("Host"), "the credentials have no line “Host:”");
        assert_eq!(
            without("First"),
            "the credentials have no line “First-authentication key:”"
        );
        assert!(without("Part 2").contains("Host") || without("Part 2").contains("Part 4"));
        assert!(Credentials::from_text("").is_err());
    }
}
