//! X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem, section 4): ML-KEM's part stands first in each share and in the secret, X25519's second.

use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};

use crate::ml_kem_768::{self, CIPHERTEXT, ENCAPSULATION_KEY, Ephemeral};

const INVALID: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

#[derive(Debug)]
pub(crate) struct X25519MlKem768;

impl SupportedKxGroup for X25519MlKem768 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let lattice = Ephemeral::generate()?;
        let curve = X25519.start()?;
        let share = [&lattice.public()[..], curve.pub_key()].concat();
        Ok(Box::new(Started {
            lattice,
            curve,
            share,
        }))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (lattice, curve) = share.split_at_checked(ENCAPSULATION_KEY).ok_or(INVALID)?;
        // The cheap half first: a share of a wrong length costs nothing more.
        let curve = X25519.start_and_complete(curve)?;
        let lattice = ml_kem_768::answer(lattice)?;
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [&lattice.ciphertext[..], &curve.pub_key].concat(),
            secret: together(&lattice.secret, &curve.secret),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// A client's key exchange between its first message and the server's answer.
struct Started {
    lattice: Ephemeral,
    curve: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let (lattice, curve) = share.split_at_checked(CIPHERTEXT).ok_or(INVALID)?;
        let curve = self.curve.complete(curve)?;
        Ok(together(&self.lattice.open(lattice)?, &curve))
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.curve.group(), self.curve.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.curve.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// Overwritten when it goes, as rustls does with every secret that it is given.
fn together(lattice: &[u8], curve: &SharedSecret) -> SharedSecret {
    SharedSecret::from([lattice, curve.secret_bytes()].concat())
}
