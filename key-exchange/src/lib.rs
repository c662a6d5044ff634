//! How the two ends of a TLS connection agree on a secret: X25519MLKEM768 first (draft-ietf-tls-ecdhe-mlkem), which stays secret as long as
//! *one* of X25519 and ML-KEM-768 (FIPS 203) holds, also against somebody who records today and has a quantum computer tomorrow; then the
//! elliptic curves alone, for peers that know nothing else. One of the curves is here twice: fast for servers, small for devices. It does no I/O and keeps nothing.

mod hacl;
mod hybrid;
mod ml_kem_768;
pub mod p256;
mod ring_curves;

use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::{ALL_CIPHER_SUITES, default_provider, kx_group};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SupportedKxGroup,
    WebPkiSupportedAlgorithms,
};

use hybrid::X25519MlKem768;

/// X25519 and ML-KEM-768 together, as IANA's number 0x11ec stands for it: shares of 1,216 bytes to the server and 1,120 bytes back.
pub static X25519MLKEM768: &dyn SupportedKxGroup = &X25519MlKem768;

/// What every TLS connection of this product computes with: ring, and the key exchanges in the order in which they are preferred.
/// A client sends its shares for the first two at once, so that a peer that only knows X25519 costs no extra round trip.
/// P-256 is HACL*'s ([`hacl_provider`]) or, with the feature `ring-p256`, ring's ([`ring_provider`]).
///
/// Only TLS 1.3 has suites in it, whatever else is compiled in: nobody speaks an older version with it.
pub fn provider() -> CryptoProvider {
    #[cfg(feature = "ring-p256")]
    return ring_provider();
    #[cfg(not(feature = "ring-p256"))]
    return hacl_provider();
}

/// For devices, where every byte counts. It signs with keys on P-256, as devices have them.
pub fn hacl_provider() -> CryptoProvider {
    with(p256::SECP256R1, hacl::SIGNATURES, &hacl::Keys)
}

/// For everybody else: handshakes are what servers do all day. It signs with keys on P-256 and P-384, as consoles have them; whoever is given another kind
/// of key (servers and gateways with certificates of others) loads it itself, and only their programs carry what that takes.
pub fn ring_provider() -> CryptoProvider {
    let signatures = default_provider().signature_verification_algorithms;
    with(kx_group::SECP256R1, signatures, &ring_curves::Keys)
}

fn with(
    secp256r1: &'static dyn SupportedKxGroup,
    signature_verification_algorithms: WebPkiSupportedAlgorithms,
    key_provider: &'static dyn KeyProvider,
) -> CryptoProvider {
    let of_tls13 = |suite: &&SupportedCipherSuite| suite.tls13().is_some();
    CryptoProvider {
        cipher_suites: ALL_CIPHER_SUITES.iter().filter(of_tls13).copied().collect(),
        kx_groups: vec![
            X25519MLKEM768,
            kx_group::X25519,
            secp256r1,
            kx_group::SECP384R1,
        ],
        signature_verification_algorithms,
        secure_random: &SystemRandom,
        key_provider,
    }
}

/// The system's random numbers.
#[derive(Debug)]
struct SystemRandom;

impl SecureRandom for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        use ring::rand::SecureRandom as _;
        let filled = ring::rand::SystemRandom::new().fill(bytes);
        filled.map_err(|_| GetRandomFailed)
    }
}

/// [`provider`], as configurations take it.
pub fn shared_provider() -> Arc<CryptoProvider> {
    Arc::new(provider())
}
