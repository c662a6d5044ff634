//! SHA-256 fingerprints of certificates, and the four-part form in which a person compares the root's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{from_hex, to_hex};

/// SHA-256 of a DER certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// Why a text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// Not four parts, nor one piece of 64 digits.
    #[error("a root fingerprint has four parts of 16 hexadecimal digits, and this text has {0}")]
    Parts(usize),
    /// One part is not 16 hexadecimal digits.
    #[error(
        "part {part} of the fingerprint must be 16 hexadecimal digits (0-9, A-F), which “{got}” is not"
    )]
    Part {
        /// Which part, from 1.
        part: usize,
        /// What was there, shortened.
        got: String,
    },
}

impl Fingerprint {
    /// From the 32 bytes of a SHA-256.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The fingerprint of a DER certificate.
    pub fn of_certificate(der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The four parts of 16 upper-case hexadecimal digits that a person compares.
    pub fn parts(&self) -> [String; 4] {
        let hex = to_hex(&self.0).to_ascii_uppercase();
        [0, 16, 32, 48].map(|at| hex[at..at + 16].to_owned())
    }
}

/// `P1-P2-P3-P4`, upper case.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts().join("-"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Accepts four parts apart by dashes, spaces or line ends, in either case, and the plain or colon-separated 64 digits
/// that `openssl x509 -fingerprint -sha256` prints. Nothing else.
impl FromStr for Fingerprint {
    type Err = FingerprintError;
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let text = text.trim();
        let joined: String = text.split(':').collect();
        if let Some(bytes) = from_hex::<32>(&joined) {
            return Ok(Self(bytes));
        }
        let parts: Vec<&str> = text
            .split(|c: char| c == '-' || c.is_ascii_whitespace())
            .filter(|part| !part.is_empty())
            .collect();
        if parts.len() != 4 {
            return Err(FingerprintError::Parts(parts.len()));
        }
        let mut bytes = [0; 32];
        for (index, part) in parts.iter().enumerate() {
            let eight = from_hex::<8>(part).ok_or_else(|| FingerprintError::Part {
                part: index + 1,
                got: part.escape_debug().take(40).collect(),
            })?;
            bytes[index * 8..index * 8 + 8].copy_from_slice(&eight);
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00112233445566AA-8899AABBCCDDEEFF-0123456789ABCDEF-FEDCBA9876543210";

    #[test]
    fn four_parts_of_sixteen_digits_read_back() {
        let fingerprint: Fingerprint = TEXT.parse().expect("a fingerprint");
        assert_eq!(fingerprint.to_string(), TEXT);
        assert_eq!(fingerprint.parts()[1], "8899AABBCCDDEEFF");
    }

    #[test]
    fn harmless_formatting_is_accepted() {
        let expected: Fingerprint = TEXT.parse().expect("a fingerprint");
        for same in [
            TEXT.to_lowercase(),
            TEXT.replace('-', " "),
            TEXT.replace('-', "\n"),
            TEXT.replace('-', ""),
            format!("  {TEXT}\n"),
        ] {
            assert_eq!(same.parse(), Ok(expected), "{same:?}");
        }
    }

    #[test]
    fn truncated_swapped_and_empty_texts_are_not_the_same_fingerprint() {
        let right: Fingerprint = TEXT.parse().expect("a fingerprint");
        let swapped = "8899AABBCCDDEEFF-00112233445566AA-0123456789ABCDEF-FEDCBA9876543210";
        assert_ne!(swapped.parse(), Ok(right));
        for bad in [
            "",
            "00112233445566AA",
            &TEXT[..TEXT.len() - 1],
            &TEXT.replace('0', "G"),
            &format!("{TEXT}-00"),
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_error_names_the_part_that_is_wrong() {
        let error = TEXT
            .replace("0123456789ABCDEF", "0123")
            .parse::<Fingerprint>()
            .expect_err("too short");
        assert_eq!(
            error.to_string(),
            "part 3 of the fingerprint must be 16 hexadecimal digits (0-9, A-F), which “0123” is not"
        );
    }
}
