//! ML-KEM-768 (FIPS 203) as one half of a key exchange: the client's ephemeral key pair, and the server's answer to its public key. Random
//! numbers are ring's, as everywhere in the product.

use ml_kem::array::Array;
use ml_kem::kem::{Decapsulate as _, KeyExport as _};
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use ml_kem::{B32, Seed, SharedKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::crypto::GetRandomFailed;
use rustls::{Error, PeerMisbehaved};
use zeroize::Zeroizing;

/// A client's public key, in bytes.
pub(crate) const ENCAPSULATION_KEY: usize = 1184;
/// What a server answers with, in bytes.
pub(crate) const CIPHERTEXT: usize = 1088;

const INVALID: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

/// A client's key for one handshake; what it holds is overwritten when it goes.
pub(crate) struct Ephemeral(DecapsulationKey);

/// What a server sends back, and the secret that it shares with whoever holds the client's key.
pub(crate) struct Answer {
    pub(crate) ciphertext: [u8; CIPHERTEXT],
    pub(crate) secret: SharedKey,
}

impl Ephemeral {
    pub(crate) fn generate() -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0; 64]);
        random(&mut *seed)?;
        let seed = Zeroizing::new(Seed::from(*seed));
        Ok(Self(DecapsulationKey::from_seed(*seed)))
    }

    pub(crate) fn public(&self) -> [u8; ENCAPSULATION_KEY] {
        self.0.encapsulation_key().to_bytes().into()
    }

    /// The secret in a server's answer. One that was made for another key, or altered, gives a secret that the server doesn't have
    /// (FIPS 203's implicit rejection), and the handshake ends there.
    pub(crate) fn open(&self, ciphertext: &[u8]) -> Result<SharedKey, Error> {
        self.0.decapsulate_slice(ciphertext).map_err(|_| INVALID)
    }
}

/// The server's part, for a client's public key as it came in: a wrong length or a key that FIPS 203's check refuses is the client's fault.
pub(crate) fn answer(public: &[u8]) -> Result<Answer, Error> {
    let public = Array::try_from(public).map_err(|_| INVALID)?;
    let public = EncapsulationKey::new(&public).map_err(|_| INVALID)?;
    let mut message = Zeroizing::new([0; 32]);
    random(&mut *message)?;
    let message = Zeroizing::new(B32::from(*message));
    let (ciphertext, secret) = public.encapsulate_deterministic(&message);
    Ok(Answer {
        ciphertext: ciphertext.into(),
        secret,
    })
}

fn random(bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
    SystemRandom::new().fill(bytes).map_err(|_| GetRandomFailed)
}
