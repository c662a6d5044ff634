//! Keys, points and signatures on P-256, as strangers send them and as files hold them. What holds: our reading of them and ring's come to the same
//! end, and what was read as a key is written as it stood.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::NamedGroup;
use rustls::crypto::CryptoProvider;
use umbra_key_exchange::p256::KeyPair;
use umbra_key_exchange::{hacl_provider, ring_provider};

const MESSAGE: &[u8] = b"what is signed";

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    match choice % 4 {
        0 => keys(bytes),
        1 => {
            let (public, signature) = bytes.split_at(bytes.len().min(65));
            signatures(public, signature);
        }
        // One by a real key, altered.
        2 => {
            let key = KeyPair::generate().expect("random numbers");
            let mut signature = key.sign(MESSAGE).expect("random numbers");
            alter(&mut signature, bytes);
            signatures(key.public(), &signature);
        }
        _ => points(bytes),
    }
});

fn alter(original: &mut Vec<u8>, bytes: &[u8]) {
    for pair in bytes.chunks_exact(2) {
        let at = usize::from(pair[0]);
        match pair[1] {
            0 => original.truncate(at),
            1 => original.push(pair[0]),
            other => {
                if let Some(byte) = original.get_mut(at) {
                    *byte ^= other;
                }
            }
        }
    }
}

fn keys(bytes: &[u8]) {
    let ours = KeyPair::from_pkcs8(bytes);
    let theirs = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes, &SystemRandom::new());
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(theirs.public_key().as_ref(), ours.public());
            if bytes.len() == 138 {
                assert_eq!(&ours.to_pkcs8()[..], bytes);
            }
        }
        // Ring wants the public key beside the private one.
        (Ok(_), Err(_)) => assert!(bytes.len() < 100, "a key that ring refuses"),
        (Err(_), Ok(_)) => panic!("a key that only ring reads"),
        (Err(_), Err(_)) => {}
    }
}

fn signatures(public: &[u8], signature: &[u8]) {
    let verdicts = |provider: CryptoProvider| {
        let all = provider.signature_verification_algorithms.all;
        [all[0], all[1]].map(|algorithm| algorithm.verify_signature(public, MESSAGE, signature).is_ok())
    };
    assert_eq!(verdicts(hacl_provider()), verdicts(ring_provider()));
}

fn points(bytes: &[u8]) {
    let accepted = |provider: CryptoProvider| {
        let mut groups = provider.kx_groups.into_iter();
        let group = groups.find(|group| group.name() == NamedGroup::secp256r1).expect("the group");
        group.start().expect("random numbers").complete(bytes).is_ok()
    };
    assert_eq!(accepted(hacl_provider()), accepted(ring_provider()));
}
