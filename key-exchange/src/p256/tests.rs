//! Held against ring, which reads and writes the same.

use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
};

use super::*;

const MESSAGE: &[u8] = b"what is signed";

/// The same key, as ring has it.
fn of_ring(pair: &KeyPair) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &pair.to_pkcs8(),
        &SystemRandom::new(),
    )
    .expect("a key that ring reads")
}

fn verified_by_ring(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    ring::signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public)
        .verify(message, signature)
        .is_ok()
}

fn verified(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    is_signed(&digest::SHA256, public, message, signature)
}

#[test]
fn keys_and_signatures_are_those_of_ring() {
    // Often enough for numbers that are written shorter or with a zero before them.
    for _ in 0..300 {
        let ours = KeyPair::generate().expect("a key");
        let theirs = of_ring(&ours);
        assert_eq!(theirs.public_key().as_ref(), ours.public());
        let signature = ours.sign(MESSAGE).expect("a signature");
        assert!(verified_by_ring(ours.public(), MESSAGE, &signature));
        assert!(verified(ours.public(), MESSAGE, &signature));
        let signature = theirs
            .sign(&SystemRandom::new(), MESSAGE)
            .expect("a signature");
        assert!(verified(ours.public(), MESSAGE, signature.as_ref()));
        assert!(!verified(
            ours.public(),
            b"something else",
            signature.as_ref()
        ));
    }
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
        .expect("a key");
    let read = KeyPair::from_pkcs8(made.as_ref()).expect("a key that ring made");
    assert_eq!(&read.to_pkcs8()[..], made.as_ref());
}

#[test]
fn no_two_signatures_of_one_message_share_their_number() {
    let pair = KeyPair::generate().expect("a key");
    let firsts: std::collections::BTreeSet<Vec<u8>> = (0..100)
        .map(|_| {
            let signature = pair.sign(MESSAGE).expect("a signature");
            let both = der::read_signature(&signature).expect("two numbers");
            both[..SCALAR].to_vec()
        })
        .collect();
    assert_eq!(firsts.len(), 100);
}

#[test]
fn every_altered_bit_of_a_signature_is_noticed_as_ring_notices_it() {
    let pair = KeyPair::generate().expect("a key");
    let signature = pair.sign(MESSAGE).expect("a signature");
    for at in 0..signature.len() * 8 {
        let mut altered = signature.clone();
        altered[at / 8] ^= 1 << (at % 8);
        assert!(!verified_by_ring(pair.public(), MESSAGE, &altered));
        assert!(!verified(pair.public(), MESSAGE, &altered), "bit {at}");
    }
    for length in 0..signature.len() {
        assert!(!verified(pair.public(), MESSAGE, &signature[..length]));
    }
    assert!(!verified(
        pair.public(),
        MESSAGE,
        &[&signature[..], &[0]].concat()
    ));
}

#[test]
fn numbers_that_are_none_of_a_signature_are_refused() {
    let pair = KeyPair::generate().expect("a key");
    let order = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let one = [&[0; 31][..], &[1]].concat();
    for (r, s) in [
        (&order, &one),
        (&one, &order),
        (&vec![0; 32], &one),
        (&one, &vec![0; 32]),
        (&vec![0xff; 32], &one),
    ] {
        let both: [u8; POINT] = [&r[..], &s[..]].concat().try_into().expect("two numbers");
        let signature = der::write_signature(&both);
        assert!(!verified(pair.public(), MESSAGE, &signature));
        assert!(!verified_by_ring(pair.public(), MESSAGE, &signature));
    }
}

#[test]
fn a_signature_has_one_form_only() {
    let small = der::write_signature(
        &[[0; 31].as_slice(), &[7], &[0; 31], &[0x80]]
            .concat()
            .try_into()
            .expect("two"),
    );
    assert_eq!(small, [0x30, 7, 2, 1, 7, 2, 2, 0, 0x80]);
    assert!(der::read_signature(&small).is_some());
    for other in [
        // Longer than it has to be.
        &[0x30, 8, 2, 2, 0, 7, 2, 2, 0, 0x80][..],
        &[0x30, 0x81, 7, 2, 1, 7, 2, 2, 0, 0x80],
        // Negative, or nothing.
        &[0x30, 6, 2, 1, 7, 2, 1, 0x80],
        &[0x30, 6, 2, 1, 7, 2, 1, 0],
        &[0x30, 5, 2, 1, 7, 2, 0],
        // Something behind it, or in it.
        &[0x30, 7, 2, 1, 7, 2, 2, 0, 0x80, 0],
        &[0x30, 10, 2, 1, 7, 2, 2, 0, 0x80, 2, 1, 1],
        &[0x31, 7, 2, 1, 7, 2, 2, 0, 0x80],
        &[],
    ] {
        assert_eq!(der::read_signature(other), None, "{other:?}");
    }
    let mut long = vec![0x30, 38, 2, 33];
    long.extend([1; 33]);
    long.extend([2, 1, 1]);
    assert_eq!(der::read_signature(&long), None);
}

#[test]
fn both_ends_of_an_agreement_have_the_same_secret_and_points_off_the_curve_are_refused() {
    for _ in 0..20 {
        let ours = KeyPair::generate().expect("a key");
        let random = SystemRandom::new();
        let theirs = EphemeralPrivateKey::generate(&ECDH_P256, &random).expect("a key");
        let public = theirs.compute_public_key().expect("its public key");
        let ring = UnparsedPublicKey::new(&ECDH_P256, ours.public());
        let secret = agree_ephemeral(theirs, &ring, <[u8]>::to_vec).expect("a secret");
        let own = ours.agree(public.as_ref()).expect("a secret");
        assert_eq!(own[..], secret[..]);
    }
    let ours = KeyPair::generate().expect("a key");
    let mut off = *ours.public();
    off[PUBLIC - 1] ^= 1;
    let compressed = [&[2][..], &ours.public()[1..33]].concat();
    let mut hybrid = *ours.public();
    hybrid[0] = 6;
    for point in [
        &off[..],
        &compressed,
        &hybrid,
        &[4; PUBLIC],
        &[0],
        &[],
        &off[..64],
    ] {
        assert_eq!(ours.agree(point).map(|secret| *secret), Err(Unusable));
        assert!(!verified(
            point,
            MESSAGE,
            &ours.sign(MESSAGE).expect("a signature")
        ));
    }
}

#[test]
fn altered_keys_are_refused_or_are_other_keys() {
    let pair = KeyPair::generate().expect("a key");
    let pkcs8 = pair.to_pkcs8();
    for at in 0..pkcs8.len() * 8 {
        let mut altered = pkcs8.to_vec();
        altered[at / 8] ^= 1 << (at % 8);
        // The public key stands beside it, so no bit can change unseen.
        assert!(KeyPair::from_pkcs8(&altered).is_err(), "bit {at}");
    }
    for length in 0..pkcs8.len() {
        assert!(KeyPair::from_pkcs8(&pkcs8[..length]).is_err());
    }
    assert!(KeyPair::from_pkcs8(&[&pkcs8[..], &[0]].concat()).is_err());
    // Keys of other kinds.
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let other = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        assert!(KeyPair::from_pkcs8(&other.serialize_der()).is_err());
    }
}

#[test]
fn a_key_may_stand_without_its_public_key_and_with_its_curve() {
    let pair = KeyPair::generate().expect("a key");
    let private = &pair.to_pkcs8()[36..68];
    let curve = hex("a00a06082a8648ce3d030107");
    let key = [&hex("020101")[..], &[4, 32], private, &curve].concat();
    let wrapped = [&[0x30, key.len() as u8][..], &key].concat();
    let algorithm = hex("301306072a8648ce3d020106082a8648ce3d030107");
    let inner = [
        &[2, 1, 0][..],
        &algorithm,
        &[4, wrapped.len() as u8],
        &wrapped,
    ]
    .concat();
    let pkcs8 = [&[0x30, inner.len() as u8][..], &inner].concat();
    let read = KeyPair::from_pkcs8(&pkcs8).expect("a key without its public key");
    assert_eq!(read.public(), pair.public());
    // Another curve is named.
    let mut other = pkcs8;
    *other.last_mut().expect("a byte") = 0x22;
    assert!(KeyPair::from_pkcs8(&other).is_err());
}

#[test]
fn scalars_beyond_the_curves_order_are_no_keys() {
    let order = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    for scalar in [order, vec![0; 32], vec![0xff; 32]] {
        let scalar: [u8; SCALAR] = scalar.try_into().expect("a scalar");
        assert!(KeyPair::new(Zeroizing::new(scalar)).is_err());
    }
}

/// RFC 6979, A.2.5: a key, its public key, and a signature with SHA-256 and one with SHA-384.
#[test]
fn the_vectors_of_rfc_6979_are_verified() {
    let private = hex("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721");
    let private: [u8; SCALAR] = private.try_into().expect("a scalar");
    let pair = KeyPair::new(Zeroizing::new(private)).expect("a key");
    let public = hex(
        "0460FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB67903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
    );
    assert_eq!(pair.public()[..], public[..]);
    for (hash, both) in [
        (
            &digest::SHA256,
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ),
        (
            &digest::SHA384,
            "0EAFEA039B20E9B42309FB1D89E213057CBF973DC0CFC8F129EDDDC800EF77194861F0491E6998B9455193E34E7B0D284DDD7149A74B95B9261F13ABDE940954",
        ),
    ] {
        let both: [u8; POINT] = hex(both).try_into().expect("two numbers");
        let signature = der::write_signature(&both);
        assert!(is_signed(hash, &public, b"sample", &signature));
        assert!(!is_signed(hash, &public, b"simple", &signature));
    }
}

fn hex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("digits");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        })
        .collect()
}
