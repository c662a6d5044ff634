//! Whatever the other side sends as its share of a key, on either side of the handshake. What holds: it is refused or gives a secret
//! and a share of exactly the size that belongs to it; a share of a wrong length is refused; and two ends that were not tampered
//! with have the same secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_key_exchange::X25519MLKEM768;

const TO_SERVER: usize = 1_216;
const TO_CLIENT: usize = 1_120;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    match X25519MLKEM768.start_and_complete(bytes) {
        Ok(answer) => {
            assert_eq!((bytes.len(), answer.pub_key.len()), (TO_SERVER, TO_CLIENT));
            assert_eq!(answer.secret.secret_bytes().len(), 64);
        }
        Err(_) => {}
    }
    let client = X25519MLKEM768.start().expect("random numbers");
    assert_eq!(client.pub_key().len(), TO_SERVER);
    match choice % 3 {
        0 => {
            if let Ok(secret) = client.complete(bytes) {
                assert_eq!((bytes.len(), secret.secret_bytes().len()), (TO_CLIENT, 64));
            }
        }
        1 => {
            let answer = X25519MLKEM768.start_and_complete(client.pub_key()).expect("a share of our own");
            let secret = client.complete(&answer.pub_key).expect("an answer of our own");
            assert_eq!(secret.secret_bytes(), answer.secret.secret_bytes());
        }
        // Somebody in between alters an answer on its way.
        _ => {
            let answer = X25519MLKEM768.start_and_complete(client.pub_key()).expect("a share of our own");
            let mut share = answer.pub_key.clone();
            for (byte, altered) in share.iter_mut().zip(bytes) {
                *byte ^= altered;
            }
            // The top bit of a curve's share means nothing.
            let mut same = share.clone();
            same[TO_CLIENT - 1] ^= (share[TO_CLIENT - 1] ^ answer.pub_key[TO_CLIENT - 1]) & 0x80;
            if let Ok(secret) = client.complete(&share) {
                let agree = secret.secret_bytes() == answer.secret.secret_bytes();
                assert_eq!(agree, same == answer.pub_key, "an altered share is not noticed");
            }
        }
    }
});
