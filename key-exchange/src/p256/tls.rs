//! The curve as TLS asks for it: a group to agree in, signatures of chains and handshakes, a key that signs.

use std::sync::Arc;

use ring::digest;
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm,
    SubjectPublicKeyInfoDer, alg_id,
};
use rustls::sign::{Signer, SigningKey, public_key_to_spki};
use rustls::{Error, NamedGroup, PeerMisbehaved, SignatureAlgorithm, SignatureScheme};

use super::{KeyPair, Unusable, is_signed};

/// The group secp256r1 (RFC 8446, section 4.2.8.2; RFC 8422).
pub(crate) static SECP256R1: &dyn SupportedKxGroup = &Group;

/// ECDSA with SHA-256, and with SHA-384.
pub(crate) static SHA256_SIGNED: &dyn SignatureVerificationAlgorithm = &Signed {
    hash: &digest::SHA256,
    signature: alg_id::ECDSA_SHA256,
};
pub(crate) static SHA384_SIGNED: &dyn SignatureVerificationAlgorithm = &Signed {
    hash: &digest::SHA384,
    signature: alg_id::ECDSA_SHA384,
};

#[derive(Debug)]
struct Group;

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let own = KeyPair::generate().map_err(|Unusable| Error::FailedToGetRandomBytes)?;
        Ok(Box::new(Started(own)))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}

struct Started(KeyPair);

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        match self.0.agree(theirs) {
            Ok(shared) => Ok(SharedSecret::from(&shared[..])),
            Err(Unusable) => Err(PeerMisbehaved::InvalidKeyShare.into()),
        }
    }

    fn pub_key(&self) -> &[u8] {
        self.0.public()
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}

#[derive(Debug)]
struct Signed {
    hash: &'static digest::Algorithm,
    signature: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Signed {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        match is_signed(self.hash, public_key, message, signature) {
            true => Ok(()),
            false => Err(InvalidSignature),
        }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

/// A private key that signs handshakes.
#[derive(Clone)]
pub(crate) struct P256Key(Arc<KeyPair>);

impl P256Key {
    /// Reads PKCS#8; other forms and other keys are refused.
    pub(crate) fn read(key: &PrivateKeyDer<'_>) -> Result<Self, Unusable> {
        let PrivateKeyDer::Pkcs8(key) = key else {
            return Err(Unusable);
        };
        KeyPair::from_pkcs8(key.secret_pkcs8_der()).map(|pair| Self(Arc::new(pair)))
    }
}

impl std::fmt::Debug for P256Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("P256Key")
    }
}

impl SigningKey for P256Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        match offered.contains(&self.scheme()) {
            true => Some(Box::new(self.clone())),
            false => None,
        }
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ECDSA_P256, self.0.public()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for P256Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.0.sign(message);
        signature.map_err(|Unusable| Error::FailedToGetRandomBytes)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
