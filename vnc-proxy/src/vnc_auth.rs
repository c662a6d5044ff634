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
        // DES's well-known vector: key 133457799BBCDFF1, block 0123456789ABCDEF gives 85E813540F0AB405. A password is text, so
        // the key bytes must be ASCII after reversal; "\u{1}" repeated reverses to 80 80 ..., whose vector is from NBS SP 500-20.
        let challenge = [0u8; CHALLENGE_LEN];
        // Empty password: the all-zero key. DES(0, 0) = 8CA64DE9C1B123A7.
        let response = respond(&Secret::new(""), &challenge);
        assert_eq!(
            response[..8],
            [0x8C, 0xA6, 0x4D, 0xE9, 0xC1, 0xB1, 0x23, 0xA7]
        );
        assert_eq!(response[8..], response[..8]);
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
