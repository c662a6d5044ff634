//! The curve P-256 (FIPS 186-5, SEC 1) for programs that have to be small: signatures, their verification, and key agreement. What computes is HACL*, whose
//! source is proven to be correct and free of branches and addresses that depend on secrets (as libcrux extracts it to Rust); ring's is five
//! times as fast, with a table of 152 kB. Here is what HACL* leaves to its callers: lengths, encodings, and random numbers.

mod der;
mod tls;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac};
use zeroize::Zeroizing;

pub(crate) use tls::{P256Key, SECP256R1, SHA256_SIGNED, SHA384_SIGNED};

/// Bytes of a scalar: a private key, half of a signature.
const SCALAR: usize = 32;
/// Bytes of a point without what stands before it: x, then y.
const POINT: usize = 2 * SCALAR;
/// Bytes of a public key as it is sent: 4 for "both coordinates", then those.
pub const PUBLIC: usize = 1 + POINT;
/// As what the first byte of a public key has to be read.
const UNCOMPRESSED: u8 = 4;
/// More random numbers in a row that are no scalar have a chance of 2^-32 to the power of this.
const TRIES: usize = 8;

/// Why nothing came of it: a key that is none, or a system without random numbers. There is nothing more to say about either without saying too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable;

/// A private key with its public key.
pub struct KeyPair {
    private: Zeroizing<[u8; SCALAR]>,
    public: [u8; PUBLIC],
}

impl KeyPair {
    /// Makes a key.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn generate() -> Result<Self, Unusable> {
        let random = SystemRandom::new();
        for _ in 0..TRIES {
            let mut private = Zeroizing::new([0; SCALAR]);
            random.fill(&mut private[..]).map_err(|_| Unusable)?;
            if let Ok(pair) = Self::new(private) {
                return Ok(pair);
            }
        }
        Err(Unusable)
    }

    fn new(private: Zeroizing<[u8; SCALAR]>) -> Result<Self, Unusable> {
        let mut public = [UNCOMPRESSED; PUBLIC];
        // It refuses what is no scalar.
        if libcrux_p256::dh_initiator(&mut public[1..], &private[..]) {
            Ok(Self { private, public })
        } else {
            Err(Unusable)
        }
    }

    /// Reads a key in PKCS#8 (RFC 5958, with the key as in RFC 5915). A public key that stands beside it must be its own.
    ///
    /// # Errors
    /// For everything else.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Unusable> {
        let written = der::read_key(pkcs8).ok_or(Unusable)?;
        let pair = Self::new(written.private)?;
        match written.public {
            Some(public) if public != pair.public => Err(Unusable),
            Some(_) | None => Ok(pair),
        }
    }

    /// The key as [`Self::from_pkcs8`] and others read it.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        der::write_key(&self.private, &self.public)
    }

    /// The public key: 4, then both coordinates.
    pub fn public(&self) -> &[u8; PUBLIC] {
        &self.public
    }

    /// Signs with ECDSA and SHA-256; the signature is ASN.1, as in certificates and in TLS.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unusable> {
        let hash = digest::digest(&digest::SHA256, message);
        let random = SystemRandom::new();
        // Whoever learns, guesses or repeats this number knows the private key. As in ring, it is drawn from the system's randomness, from the
        // key and from the message, so that a poor source of randomness alone gives nothing away.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.private[..]);
        for _ in 0..TRIES {
            let mut seed = Zeroizing::new([0; 2 * SCALAR]);
            random.fill(&mut seed[..SCALAR]).map_err(|_| Unusable)?;
            seed[SCALAR..].copy_from_slice(hash.as_ref());
            let mut nonce = Zeroizing::new([0; SCALAR]);
            nonce.copy_from_slice(hmac::sign(&key, &seed[..]).as_ref());
            let mut signature = [0; POINT];
            if libcrux_p256::ecdsa_sign_p256_without_hash(
                &mut signature,
                32,
                hash.as_ref(),
                &self.private[..],
                &nonce[..],
            ) {
                return Ok(der::write_signature(&signature));
            }
        }
        Err(Unusable)
    }

    /// What both ends of a key agreement know: the x coordinate of the point that this key and their public key lead to (SP 800-56A).
    fn agree(&self, theirs: &[u8]) -> Result<Zeroizing<[u8; SCALAR]>, Unusable> {
        let theirs = point(theirs).ok_or(Unusable)?;
        let mut shared = Zeroizing::new([0; POINT]);
        // It refuses what is no point of the curve.
        if !libcrux_p256::dh_responder(&mut shared[..], theirs, &self.private[..]) {
            return Err(Unusable);
        }
        let mut x = Zeroizing::new([0; SCALAR]);
        x.copy_from_slice(&shared[..SCALAR]);
        Ok(x)
    }
}

/// Whether `signature` (ASN.1) is one of the message by the owner of the public key, with ECDSA and this hash of at least 32 bytes.
pub(crate) fn is_signed(
    hash: &'static digest::Algorithm,
    public: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let (Some(public), Some(signature)) = (point(public), der::read_signature(signature)) else {
        return false;
    };
    let (r, s) = signature.split_at(SCALAR);
    let hash = digest::digest(hash, message);
    // Of a longer hash, the first 32 bytes count (FIPS 186-5, section 6.4.2). It refuses what is no point of the curve.
    libcrux_p256::ecdsa_verif_without_hash(32, hash.as_ref(), public, r, s)
}

/// Both coordinates of a public key as it is sent.
fn point(public: &[u8]) -> Option<&[u8; POINT]> {
    match public.split_first() {
        Some((&UNCOMPRESSED, coordinates)) => coordinates.try_into().ok(),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests;
