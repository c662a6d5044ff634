//! How the two ends of a TLS connection agree on a secret: X25519MLKEM768 first (draft-ietf-tls-ecdhe-mlkem), which stays secret as long as
//! *one* of X25519 and ML-KEM-768 (FIPS 203) holds, also against somebody who records today and has a quantum computer tomorrow; then the
//! elliptic curves alone, for peers that know nothing else. It does no I/O and keeps nothing.

mod hybrid;
mod ml_kem_768;

use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::{default_provider, kx_group, sign};
use rustls::crypto::{CryptoProvider, KeyProvider, SupportedKxGroup};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

use hybrid::X25519MlKem768;

/// X25519 and ML-KEM-768 together, as IANA's number 0x11ec stands for it: shares of 1,216 bytes to the server and 1,120 bytes back.
pub static X25519MLKEM768: &dyn SupportedKxGroup = &X25519MlKem768;

/// What every TLS connection of this product computes with: ring, and the key exchanges in the order in which they are preferred.
/// It signs with keys on the curves P-256 and P-384, as devices and consoles have them; whoever is given another kind of key (servers
/// and gateways with certificates of others) loads it itself, and only their programs carry what that takes.
/// A client sends its shares for the first two at once, so that a peer that only knows X25519 costs no extra round trip.
///
/// Only TLS 1.3 has suites in it, whatever else is compiled in: nobody speaks an older version with it.
pub fn provider() -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.retain(is_of_tls13);
    CryptoProvider {
        kx_groups: vec![
            X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        key_provider: &CurveKeys,
        ..provider
    }
}

fn is_of_tls13(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_some()
}

/// Loads keys on elliptic curves and no others.
#[derive(Debug)]
struct CurveKeys;

impl KeyProvider for CurveKeys {
    fn load_private_key(
        &self,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        sign::any_ecdsa_type(&Zeroizing::new(key))
    }
}

/// [`provider`], as configurations take it.
pub fn shared_provider() -> Arc<CryptoProvider> {
    Arc::new(provider())
}
