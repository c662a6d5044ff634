//! Identifiers as distinct types, so that one cannot stand where another belongs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not the expected number of lower-case hexadecimal digits.
    #[error("{what} is {digits} hexadecimal digits, which “{got}” is not")]
    NotHex {
        /// Which identifier was expected.
        what: &'static str,
        /// How many digits it has.
        digits: usize,
        /// What was there instead, shortened.
        got: String,
    },
    /// A unit ID with characters or a length that are not allowed.
    #[error(
        "a unit ID is 1 to 64 letters, digits, dots, dashes or underscores, which “{0}” is not"
    )]
    UnitId(String),
}

macro_rules! hex_id {
    ($(#[doc = $doc:literal])+ $name:ident, $bytes:literal, $what:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// From its bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                from_hex::<$bytes>(text).map(Self).ok_or_else(|| IdError::NotHex {
                    what: $what,
                    digits: $bytes * 2,
                    got: text.chars().take(80).collect(),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// A device: the SHA-256 of its public key (SubjectPublicKeyInfo, DER).
    DeviceId, 32, "a device ID"
);
hex_id!(
    /// One shadowing session, chosen at random by the server.
    SessionId, 16, "a session ID"
);
hex_id!(
    /// One command to a device, chosen at random by the server; running it twice is prevented by this ID.
    CommandId, 16, "a command ID"
);
hex_id!(
    /// Names a first-authentication key without revealing it: derived from the stretched key.
    KeyId, 8, "a key ID"
);
hex_id!(
    /// One rendezvous on a gateway, chosen at random by the server.
    RendezvousId, 16, "a rendezvous ID"
);
hex_id!(
    /// The SHA-256 of a one-time token: all that a gateway is told of it beforehand.
    TokenHash, 32, "the hash of a token"
);
hex_id!(
    /// A server as gateways tell servers apart: the SHA-256 of its root certificate.
    ServerRoot, 32, "the hash of a server's root certificate"
);

hex_id!(
    /// One run of a device's agent, chosen at random when it starts. It is no secret and no identity: two runs that take turns
    /// under one key show that a device was copied.
    RunId, 16, "the ID of an agent's run"
);

/// The label that people read on a device: its MAC address without separators by default. It is not identity.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct UnitId(String);

impl UnitId {
    /// The text, upper case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UnitId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let good = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if good {
            Ok(Self(text.to_ascii_uppercase()))
        } else {
            Err(IdError::UnitId(text.escape_debug().take(80).collect()))
        }
    }
}

impl<'de> Deserialize<'de> for UnitId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hexadecimal digits of some bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// Exactly `N` bytes from `2 N` hexadecimal digits of either case.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_print() {
        let id = SessionId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
    }

    #[test]
    fn wrong_lengths_and_digits_are_refused_with_what_was_expected() {
        let error = "xyz".parse::<SessionId>().expect_err("no hex");
        assert_eq!(
            error.to_string(),
            "a session ID is 32 hexadecimal digits, which “xyz” is not"
        );
        assert!("é".repeat(16).parse::<SessionId>().is_err());
    }

    #[test]
    fn unit_ids_are_upper_case_and_hold_no_shell_or_path_characters() {
        assert_eq!(
            "00e0c5a1b2c3".parse::<UnitId>().expect("a MAC").as_str(),
            "00E0C5A1B2C3"
        );
        for bad in ["", "a b", "../x", "a;b", "$(x)", "a\n", &"a".repeat(65)] {
            assert!(bad.parse::<UnitId>().is_err(), "{bad:?} was accepted");
        }
    }
}
