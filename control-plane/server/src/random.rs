//! Random bytes from the system, and what is made of them. Nothing that an attacker must not guess comes from elsewhere.

use ring::rand::{SecureRandom as _, SystemRandom};
use umbra_protocol::Secret;
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_protocol::ids::to_hex;

/// `N` random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random bytes");
    bytes
}

/// `N` random bytes as hexadecimal digits.
pub fn hex<const N: usize>() -> String {
    to_hex(&bytes::<N>())
}

/// A password for a person to type: 100 bits in four groups of five.
pub fn password() -> Secret {
    FirstAuthKey::from_random(&bytes()).for_person()
}

/// A random UUID (version 4, RFC 9562), as the field's older consoles present it.
pub fn uuid() -> Secret {
    let mut raw = bytes::<16>();
    raw[6] = (raw[6] & 0x0f) | 0x40;
    raw[8] = (raw[8] & 0x3f) | 0x80;
    let hex = to_hex(&raw);
    Secret::new(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}

/// SHA-256 as hexadecimal digits: how tokens, tickets and session passwords are stored.
pub fn digest(text: &str) -> String {
    to_hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_that_it_is_random_and_no_two_are_alike() {
        let (a, b) = (uuid(), uuid());
        assert_ne!(a, b);
        let text = a.reveal();
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4", "version");
        assert!("89ab".contains(&text[19..20]), "variant");
    }
}
