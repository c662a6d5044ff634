//! The gateway's certificates and key, and the servers that may attach. Everything that is wrong is told in sentences,
//! all of it at once; a keystore with which no peer could work is never taken over.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use umbra_carrier::diagnosis::{self, Check, Expectation, Verdict};
use umbra_carrier::tls::{TlsIdentity, certificates_from_pem};
use umbra_carrier::x509::{self, CertificateFacts};
use zeroize::Zeroizing;

use crate::config::Keystore;
use crate::devices::roster::ServerKey;
use crate::status::CertificateState;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Most servers of one gateway.
pub const MOST_SERVERS: usize = 64;
/// So many seconds before it expires, a certificate becomes a warning.
const SOON: i64 = 7 * 24 * 60 * 60;

/// A keystore that works.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Certificates and key.
    pub identity: TlsIdentity,
    /// The servers' uplink certificates.
    pub servers: Vec<CertificateDer<'static>>,
    /// The dates between which all certificates of the chain are valid, in seconds since 1970.
    pub valid: std::ops::RangeInclusive<i64>,
    /// What works, and should be looked at nevertheless.
    pub warnings: Vec<String>,
}

/// A keystore that doesn't work, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct KeystoreError {
    /// All that is wrong.
    pub mistakes: Vec<String>,
}

impl fmt::Display for KeystoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the keystore can't be used:")?;
        self.mistakes
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Keys {
    /// Reads and checks the three files.
    ///
    /// # Errors
    /// [`KeystoreError`] with all that is wrong. Dates are no reason: a gateway whose certificate expired still serves,
    /// and its status says so.
    pub fn load(files: &Keystore) -> Result<Self, KeystoreError> {
        let mut mistakes = Vec::new();
        let chain = read(&files.chain, &mut mistakes);
        let key = read(&files.key, &mut mistakes);
        let servers = read(&files.servers, &mut mistakes);
        let identity = match (chain, key) {
            (Some(chain), Some(key)) => match TlsIdentity::from_pem(&chain, &key) {
                Ok(identity) => Some(identity),
                Err(error) => {
                    mistakes.push(format!(
                        "{} and {}: {error}",
                        files.chain.display(),
                        files.key.display()
                    ));
                    // What else there is to say about the chain should be said now, too.
                    if let Ok(chain) = certificates_from_pem(&chain) {
                        findings(&files.chain, &chain, &mut mistakes, &mut Vec::new());
                    }
                    None
                }
            },
            (Some(_) | None, Some(_) | None) => None,
        };
        let mut warnings = Vec::new();
        let mut valid = i64::MIN..=i64::MAX;
        if let Some(identity) = &identity {
            valid = findings(&files.chain, identity.chain(), &mut mistakes, &mut warnings);
        }
        let servers = servers
            .map(|pem| read_servers(&files.servers, &pem, &mut mistakes))
            .unwrap_or_default();
        match identity {
            Some(identity) if mistakes.is_empty() => Ok(Self {
                identity,
                servers,
                valid,
                warnings,
            }),
            Some(_) | None => Err(KeystoreError { mistakes }),
        }
    }

    /// How good the certificates are at the moment.
    pub fn state(valid: &std::ops::RangeInclusive<i64>, now: i64) -> CertificateState {
        if !valid.contains(&now) {
            CertificateState::Invalid
        } else if valid.end().saturating_sub(now) < SOON {
            CertificateState::EndsSoon
        } else {
            CertificateState::Good
        }
    }

    /// The servers, as the roster tells them apart.
    pub fn server_keys(&self) -> Vec<ServerKey> {
        self.servers.iter().map(|der| x509::sha256(der)).collect()
    }
}

/// The time in seconds since 1970.
pub fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|time| i64::try_from(time.as_secs()).ok())
        .unwrap_or(0)
}

fn read(path: &Path, mistakes: &mut Vec<String>) -> Option<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let result = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    match result {
        Ok(length) if u64::try_from(length).unwrap_or(u64::MAX) > MAX_FILE => {
            mistakes.push(format!(
                "{}: the file is larger than {MAX_FILE} bytes: it can't be the right one",
                path.display()
            ));
            None
        }
        Ok(_) => Some(text),
        Err(error) => {
            mistakes.push(format!("{}: {error}", path.display()));
            None
        }
    }
}

/// Diagnoses a chain and gives back the dates between which all of it is valid.
fn findings(
    path: &Path,
    chain: &[CertificateDer<'_>],
    mistakes: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> std::ops::RangeInclusive<i64> {
    let expectation = Expectation {
        now: Some(unix_now()),
        ..Expectation::default()
    };
    for finding in diagnosis::diagnose(chain, &expectation) {
        let list = match finding.verdict {
            Verdict::Pass => {
                tracing::info!(check = finding.check.id(), "{}", finding.sentence);
                continue;
            }
            // Dates may become right by themselves, and a wrong clock is no reason to stay away.
            Verdict::Fail if !matches!(finding.check, Check::Validity | Check::Clock) => {
                &mut *mistakes
            }
            Verdict::Fail | Verdict::Warn => &mut *warnings,
        };
        list.push(format!(
            "{}: {}. {}",
            path.display(),
            finding.sentence,
            finding.advice
        ));
    }
    chain
        .iter()
        .filter_map(|der| CertificateFacts::read(der).ok())
        .fold(i64::MIN..=i64::MAX, |range, facts| {
            facts.not_before.max(*range.start())..=facts.not_after.min(*range.end())
        })
}

fn read_servers(
    path: &Path,
    pem: &str,
    mistakes: &mut Vec<String>,
) -> Vec<CertificateDer<'static>> {
    let certificates = match certificates_from_pem(pem) {
        Ok(certificates) => certificates,
        Err(error) => {
            mistakes.push(format!("{}: {error}", path.display()));
            return Vec::new();
        }
    };
    if certificates.len() > MOST_SERVERS {
        mistakes.push(format!(
            "{}: there are {} certificates, and a gateway serves at most {MOST_SERVERS} servers",
            path.display(),
            certificates.len()
        ));
    }
    for (index, certificate) in certificates.iter().enumerate() {
        if let Err(error) = CertificateFacts::read(certificate) {
            mistakes.push(format!(
                "{}: certificate {}: {error}",
                path.display(),
                index + 1
            ));
        }
    }
    certificates
}

#[cfg(test)]
#[path = "keystore_tests.rs"]
mod tests;
