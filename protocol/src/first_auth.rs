//! First authentication: both sides prove that they know the first-authentication key, and nobody in between learns it.
//!
//! The proofs are those of SCRAM-SHA-256 (RFC 5802, RFC 7677) with the TLS exporter as channel binding (RFC 9266) and
//! the device's certificate in the transcript. The server stores a [`Verifier`], from which the key cannot be computed
//! and with which nobody can pose as a device.

use ring::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use crate::fingerprint::{is_dash, is_unseen};
use crate::ids::{KeyId, from_hex, to_hex};
use crate::limits;
use crate::secret::{Secret, same_bytes};

/// Label of the TLS exporter (RFC 8446, section 7.5) whose 32 bytes bind the proofs to the connection.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-umbra-first-auth";

/// Rounds of stretching for keys made from now on.
pub const ROUNDS: u32 = 100_000;

/// Letters and digits of made keys: Crockford's base 32, without those that look alike.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Characters of made keys, without dashes.
const MADE: usize = 20;

/// A first-authentication key in its normal form: case, spaces and dashes make no difference to a person who types it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstAuthKey(Secret);

/// Why a text is no first-authentication key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing was there.
    #[error("no first-authentication key was given")]
    Empty,
    /// Longer than any key.
    #[error("a first-authentication key has at most 128 characters")]
    TooLong,
    /// Characters that cannot be typed everywhere.
    #[error("a first-authentication key has printable ASCII characters only")]
    NotAscii,
    /// Chosen by a person and too short.
    #[error(
        "a chosen first-authentication key needs at least 12 characters, not counting spaces and dashes"
    )]
    TooShort,
    /// Chosen by a person and too regular.
    #[error("a chosen first-authentication key needs at least 6 different characters")]
    TooSimple,
}

impl FirstAuthKey {
    /// Reads a key as it was typed, pasted or written in a file: case, spaces, line ends and dashes of any kind make no
    /// difference. In a key that was made, O is read as 0, and I and L as 1: it has none of those letters.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let normal: Zeroizing<String> = Zeroizing::new(
            text.chars()
                .filter(|c| !(c.is_whitespace() || is_dash(*c) || is_unseen(*c)))
                .map(|c| c.to_ascii_uppercase())
                .collect(),
        );
        let normal = if looks_made(&normal) {
            Zeroizing::new(normal.chars().map(as_made).collect())
        } else {
            normal
        };
        if normal.is_empty() {
            return Err(KeyError::Empty);
        }
        if normal.len() > limits::KEY_MAX {
            return Err(KeyError::TooLong);
        }
        if !normal.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(KeyError::NotAscii);
        }
        Ok(Self(Secret::new(normal.as_str())))
    }

    /// Reads a key that a person made up, and refuses one that is easy to guess.
    pub fn chosen(text: &str) -> Result<Self, KeyError> {
        let key = Self::parse(text)?;
        let text = key.0.reveal();
        if text.len() < limits::CHOSEN_KEY_MIN {
            return Err(KeyError::TooShort);
        }
        let different: std::collections::HashSet<u8> = text.bytes().collect();
        if different.len() < 6 {
            return Err(KeyError::TooSimple);
        }
        Ok(key)
    }

    /// Whether the key has the form of one that was made.
    pub fn is_made(&self) -> bool {
        looks_made(self.0.reveal())
    }

    /// Makes a key from 20 random bytes: four groups of five characters, 100 bits.
    pub fn from_random(random: &[u8; MADE]) -> Self {
        let text: String = random
            .iter()
            .map(|b| char::from(ALPHABET[usize::from(b & 31)]))
            .collect();
        Self(Secret::new(text))
    }

    /// The key for a person to read: groups of five with dashes between.
    pub fn for_person(&self) -> Secret {
        let groups: Vec<&str> = self
            .0
            .reveal()
            .as_bytes()
            .chunks(5)
            .map(|c| std::str::from_utf8(c).unwrap_or_default())
            .collect();
        Secret::new(groups.join("-"))
    }

    /// Stretches the key. `salt` is the server's; takes tens of milliseconds.
    pub fn stretch(&self, salt: &[u8; 16], rounds: u32) -> Stretched {
        let rounds = std::num::NonZeroU32::new(rounds.max(1)).unwrap_or(std::num::NonZeroU32::MIN);
        let mut salted = Zeroizing::new([0u8; 32]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            salt,
            self.0.reveal().as_bytes(),
            &mut *salted,
        );
        let client_key = Zeroizing::new(mac(&salted, b"umbra first-auth client"));
        let server_key = Zeroizing::new(mac(&salted, b"umbra first-auth server"));
        Stretched {
            client_key,
            server_key,
        }
    }
}

/// Whether a key in capitals has the length of a made one, and only its characters or those that look like them.
fn looks_made(key: &str) -> bool {
    key.len() == MADE
        && key
            .bytes()
            .all(|b| ALPHABET.contains(&b) || matches!(b, b'O' | b'I' | b'L'))
}

/// The character of a made key that a person meant.
fn as_made(c: char) -> char {
    match c {
        'O' => '0',
        'I' | 'L' => '1',
        c => c,
    }
}

/// A stretched key: what the device computes its proof from.
pub struct Stretched {
    client_key: Zeroizing<[u8; 32]>,
    server_key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Stretched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MASKED")
    }
}

impl Stretched {
    /// What the server stores.
    pub fn verifier(&self) -> Verifier {
        let stored_key = sha256(&[&*self.client_key]);
        Verifier {
            stored_key,
            server_key: *self.server_key,
        }
    }

    /// The device's proof, 64 hexadecimal digits.
    pub fn client_proof(&self, transcript: &Transcript) -> String {
        let stored_key = sha256(&[&*self.client_key]);
        let signature = mac(&stored_key, &transcript.0);
        to_hex(&xor(&self.client_key, &signature))
    }

    /// Whether the server's proof shows that it knows the key.
    pub fn server_proof_is_right(&self, proof: &str, transcript: &Transcript) -> bool {
        from_hex::<32>(proof)
            .is_some_and(|proof| same_bytes(&proof, &mac(&self.server_key, &transcript.0)))
    }

    /// Names the key towards the server.
    pub fn key_id(&self) -> KeyId {
        self.verifier().key_id()
    }
}

/// What the server stores of a key: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// SHA-256 of the client key (RFC 5802: StoredKey).
    pub stored_key: [u8; 32],
    /// Proves the server's knowledge (RFC 5802: ServerKey).
    pub server_key: [u8; 32],
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MASKED")
    }
}

impl Verifier {
    /// Names the key: first 8 bytes of a hash of the stored key.
    pub fn key_id(&self) -> KeyId {
        let hash = sha256(&[b"umbra key id", &self.stored_key]);
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        KeyId::from_bytes(id)
    }

    /// Whether the device's proof shows that it knows the key.
    pub fn client_proof_is_right(&self, proof: &str, transcript: &Transcript) -> bool {
        let Some(proof) = from_hex::<32>(proof) else {
            return false;
        };
        let signature = mac(&self.stored_key, &transcript.0);
        let client_key = Zeroizing::new(xor(&proof, &signature));
        same_bytes(&sha256(&[&*client_key]), &self.stored_key)
    }

    /// The server's proof, 64 hexadecimal digits.
    pub fn server_proof(&self, transcript: &Transcript) -> String {
        to_hex(&mac(&self.server_key, &transcript.0))
    }
}

/// Everything that both sides must agree on for the proofs to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript([u8; 32]);

impl Transcript {
    /// `exporter`: 32 bytes from the TLS exporter with [`EXPORTER_LABEL`]; `device_certificate`: DER as presented;
    /// nonces as they travelled.
    pub fn new(
        exporter: &[u8; 32],
        device_certificate: &[u8],
        key_id: KeyId,
        unit_id: &crate::ids::UnitId,
        server_nonce: &str,
        device_nonce: &str,
    ) -> Self {
        let parts: [&[u8]; 7] = [
            b"umbra first-auth v1",
            exporter,
            &sha256(&[device_certificate]),
            key_id.as_bytes(),
            unit_id.as_str().as_bytes(),
            server_nonce.as_bytes(),
            device_nonce.as_bytes(),
        ];
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 16] = [7; 16];

    fn transcript(exporter: u8) -> Transcript {
        let unit = "00E0C5A1B2C3".parse().expect("a unit ID");
        Transcript::new(
            &[exporter; 32],
            b"certificate",
            KeyId::from_bytes([1; 8]),
            &unit,
            "aa",
            "bb",
        )
    }

    fn stretched(text: &str) -> Stretched {
        FirstAuthKey::parse(text).expect("a key").stretch(&SALT, 10)
    }

    #[test]
    fn both_sides_convince_each_other_when_they_know_the_same_key() {
        let device = stretched("ab3de-fghjk-mnpqr-stvwx");
        let server = stretched("AB3DEFGHJKMNPQRSTVWX").verifier();
        assert_eq!(device.key_id(), server.key_id());
        assert!(server.client_proof_is_right(&device.client_proof(&transcript(1)), &transcript(1)));
        assert!(device.server_proof_is_right(&server.server_proof(&transcript(1)), &transcript(1)));
    }

    #[test]
    fn a_proof_is_worth_nothing_on_another_connection() {
        let device = stretched("AB3DEFGHJKMNPQRSTVWX");
        let server = device.verifier();
        assert!(
            !server.client_proof_is_right(&device.client_proof(&transcript(1)), &transcript(2))
        );
        assert!(
            !device.server_proof_is_right(&server.server_proof(&transcript(1)), &transcript(2))
        );
    }

    #[test]
    fn another_key_convinces_nobody() {
        let device = stretched("AB3DEFGHJKMNPQRSTVWY");
        let server = stretched("AB3DEFGHJKMNPQRSTVWX").verifier();
        assert!(
            !server.client_proof_is_right(&device.client_proof(&transcript(1)), &transcript(1))
        );
        assert!(
            !device.server_proof_is_right(&server.server_proof(&transcript(1)), &transcript(1))
        );
        assert!(!server.client_proof_is_right("", &transcript(1)));
    }

    #[test]
    fn what_the_server_stores_makes_no_proof() {
        let device = stretched("AB3DEFGHJKMNPQRSTVWX");
        let stolen = device.verifier();
        let forged = to_hex(&xor(
            &stolen.stored_key,
            &mac(&stolen.stored_key, &transcript(1).0),
        ));
        assert!(!stolen.client_proof_is_right(&forged, &transcript(1)));
    }

    #[test]
    fn a_key_reads_as_it_was_meant_however_it_was_typed_or_copied() {
        let right = FirstAuthKey::parse("AB0DE-FGH1K-MNPQR-STVWX").expect("a key");
        for same in [
            "AB0DE-FGH1K-MNPQR-STVWX\n",
            "  ab0de fgh1k mnpqr stvwx\r\n",
            "ABODE-FGHIK-MNPQR-STVWX",
            "abode-fghlk-mnpqr-stvwx",
            "AB0DE\u{2013}FGH1K\u{2011}MNPQR\u{2212}STVWX",
            "\u{feff}AB0DE-\u{200b}FGH1K-\u{ad}MNPQR-STVWX\u{a0}",
        ] {
            let read = FirstAuthKey::parse(same).expect("a key");
            assert_eq!(read, right, "{same:?}");
        }
        // What a person made up keeps its letters, whichever they are.
        let chosen = FirstAuthKey::chosen("look into oils").expect("strong");
        assert_eq!(chosen.for_person().reveal(), "LOOKI-NTOOI-LS");
        // U is in no made key: this one was made up, though it is as long.
        let chosen = FirstAuthKey::parse("OIL UP OIL UP OIL UP OIL UP").expect("a key");
        assert!(chosen.for_person().reveal().starts_with("OILUP"));
        for bad in ["", " \n", "-- --", "\u{feff}\u{200b}"] {
            assert_eq!(FirstAuthKey::parse(bad), Err(KeyError::Empty), "{bad:?}");
        }
        assert_eq!(FirstAuthKey::parse("schlüssel"), Err(KeyError::NotAscii));
        assert_eq!(FirstAuthKey::parse("abc\u{1b}[2J"), Err(KeyError::NotAscii));
    }

    #[test]
    fn made_keys_read_well_and_chosen_ones_must_be_strong() {
        let key = FirstAuthKey::from_random(&std::array::from_fn(|i| i as u8));
        assert_eq!(key.for_person().reveal(), "01234-56789-ABCDE-FGHJK");
        assert_eq!(FirstAuthKey::parse("01234 56789 abcde-fghjk\n"), Ok(key));
        assert_eq!(FirstAuthKey::chosen("short"), Err(KeyError::TooShort));
        assert_eq!(
            FirstAuthKey::chosen("aaaaaaaaaaaaaaaa"),
            Err(KeyError::TooSimple)
        );
        assert_eq!(FirstAuthKey::parse("  - "), Err(KeyError::Empty));
        assert_eq!(
            FirstAuthKey::parse("schlüssel-schlüssel"),
            Err(KeyError::NotAscii)
        );
    }
}
