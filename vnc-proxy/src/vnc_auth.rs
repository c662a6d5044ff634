//! The answer to VNC authentication's challenge (RFC 6143, section 7.2.2): DES with the password as key, each key byte's bits
//! reversed. It protects nothing by itself; it exists because the local VNC server may ask for it.

use des::Des;
use des::cipher::{Array, BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use crate::rfb::CHALLENGE_LEN;
use crate::secret::Secret;

/// Encrypts the challenge with the first eight bytes of the password.
pub fn respond(password: &Secret, challenge: &[u8; CHALLENGE_LEN]) -> [u8; CHALLENGE_LEN] {
    let mut key = Zeroizing::new([0u8; 8]);
    for (slot, byte) in key.iter_mut().zip(password.expose().bytes()) {
        *slot = byte.reverse_bits();
    }
    let cipher = Des::new(&Array(*key));
    let mut response = *challenge;
    for block in response.chunks_exact_mut(8) {
        let mut buffer = [0u8; 8];
        buffer.copy_from_slice(block);
        let mut buffer = Array(buffer);
        cipher.encrypt_block(&mut buffer);
        block.copy_from_slice(&buffer);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_equals_what_single_des_with_reversed_key_bits_gives() {
        // With the empty password, the key is zero.
        let response = respond(&Secret::new(""), &[0; CHALLENGE_LEN]);
        assert_eq!(
            response[..8],
            [0x8C, 0xA6, 0x4D, 0xE9, 0xC1, 0xB1, 0x23, 0xA7]
        );
        assert_eq!(response[8..], response[..8]);
        // What OpenSSL's des-ecb gives with the key CEA6C64EA62E8C4C.
        let response = respond(&Secret::new("secret12"), b"0123456789abcdef");
        let expected = [
            0x5F, 0x15, 0xF4, 0xF0, 0xE1, 0x68, 0x4C, 0xDC, 0x26, 0x0E, 0xA9, 0x62, 0xAB, 0x82,
            0xFA, 0x3B,
        ];
        assert_eq!(response, expected);
    }

    #[test]
    fn only_the_first_eight_bytes_of_a_password_count() {
        let challenge = *b"0123456789abcdef";
        assert_eq!(
            respond(&Secret::new("12345678"), &challenge),
            respond(&Secret::new("123456789"), &challenge)
        );
        assert_ne!(
            respond(&Secret::new("1234567"), &challenge),
            respond(&Secret::new("12345678"), &challenge)
        );
    }
}
