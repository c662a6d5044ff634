//! Keys of whoever is no device, by ring.

use std::sync::Arc;

use rustls::crypto::KeyProvider;
use rustls::crypto::ring::sign;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

/// Loads keys on elliptic curves and no others.
#[derive(Debug)]
pub(crate) struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(
        &self,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        sign::any_ecdsa_type(&Zeroizing::new(key))
    }
}
