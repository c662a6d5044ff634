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

impl Fingerprint {
    /// Whether a person typed this part (0 to 3), with the same tolerance as for a whole fingerprint.
    pub fn part_is(&self, part: usize, typed: &str) -> bool {
        self.parts()
            .get(part)
            .is_some_and(|expected| *expected == digits(typed))
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

/// Accepts 64 digits however they are grouped: four parts, pairs with colons between as `openssl x509 -fingerprint -sha256`
/// prints them, or no groups at all; in either case, apart by spaces, line ends, colons or any dash, and with O typed for 0
/// and l or I for 1. Nothing else.
impl FromStr for Fingerprint {
    type Err = FingerprintError;
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let groups: Vec<String> = text
            .split(|c: char| is_dash(c) || c.is_whitespace())
            .map(digits)
            .filter(|group| !group.is_empty())
            .collect();
        let parts = match groups.as_slice() {
            // Four parts are looked at one by one: what is wrong can be told then.
            [_, _, _, _] => groups,
            all => {
                let joined = all.concat();
                return from_hex::<32>(&joined)
                    .map(Self)
                    .ok_or(FingerprintError::Parts(groups.len()));
            }
        };
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

/// What a person means by the digits of a part: no separators, upper case, and digits for the letters that look like them.
fn digits(text: &str) -> String {
    text.chars()
        .filter(|c| !(c.is_whitespace() || is_dash(*c) || *c == ':' || is_unseen(*c)))
        .map(|c| match c {
            'O' | 'o' => '0',
            'I' | 'l' => '1',
            c => c.to_ascii_uppercase(),
        })
        .collect()
}

/// Hyphens and dashes, also those that word processors and mail programs put in their place.
pub(crate) fn is_dash(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' | '\u{ff0d}'
    )
}

/// What comes along when text is copied, and takes no room: soft hyphens, zero-width spaces and joiners, byte order marks.
pub(crate) fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
    )
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
            TEXT.replace('0', "O"),
            TEXT.replace('0', "o").replace('1', "l"),
            TEXT.replace('-', "\u{2013}"),
            TEXT.replace('-', "-\u{200b}"),
            TEXT.replace('-', " - "),
            TEXT.replace('-', "\u{a0}"),
            colons(TEXT),
            colons(TEXT).to_lowercase(),
            colons(TEXT).replace(':', " "),
            format!("\u{feff}{}", TEXT.replace("44", "44 ")),
        ] {
            assert_eq!(same.parse(), Ok(expected), "{same:?}");
        }
    }

    fn colons(text: &str) -> String {
        let plain = text.replace('-', "");
        let pairs: Vec<&str> = (0..32).map(|at| &plain[at * 2..at * 2 + 2]).collect();
        pairs.join(":")
    }

    #[test]
    fn one_part_is_told_right_from_wrong_as_people_type_it() {
        let fingerprint: Fingerprint = TEXT.parse().expect("a fingerprint");
        for right in [
            "8899AABBCCDDEEFF",
            " 8899aabbccddeeff\n",
            "88:99:AA:BB:CC:DD:EE:FF",
            "8899 aabb ccdd eeff",
            "8899-AABB-CCDD-EEFF",
        ] {
            assert!(fingerprint.part_is(1, right), "{right:?}");
        }
        assert!(fingerprint.part_is(2, "Ol23456789ABCDEF"));
        for wrong in [
            "",
            "8899AABBCCDDEEF",
            "8899AABBCCDDEEFFF",
            "8899AABBCCDDEEFE",
            "00112233445566AA",
            "８899AABBCCDDEEFF",
            TEXT,
        ] {
            assert!(!fingerprint.part_is(1, wrong), "{wrong:?}");
        }
        assert!(!fingerprint.part_is(4, ""));
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
