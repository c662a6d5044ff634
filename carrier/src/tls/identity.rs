//! A certificate chain with its private key. The key is checked against the certificate when it is loaded, so that a
//! mix-up is told to the person who made it and not found out by every peer. The key never leaves this type again.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::sign;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use zeroize::Zeroizing;

use super::provider;
use crate::x509::{self, der};

/// PEM texts beyond this size are not read.
const MAX_PEM: usize = 1024 * 1024;

/// Why a chain and a key make no identity. Each sentence says which of the two files is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The file with the chain is no PEM.
    #[error("the certificate file is damaged: a PEM block in it can't be read")]
    ChainPem,
    /// The file with the chain has no certificate in it.
    #[error(
        "the certificate file holds no certificate: a “-----BEGIN CERTIFICATE-----” block is needed"
    )]
    NoCertificate,
    /// The file with the chain holds a key only.
    #[error(
        "the certificate file holds a private key instead of a certificate: the two files may be swapped"
    )]
    KeyInsteadOfCertificate,
    /// One of the certificates is damaged.
    #[error(
        "certificate {position} of the certificate file can't be read: it is damaged, or no X.509 certificate"
    )]
    CertificateUnreadable {
        /// Which one, counted from 1.
        position: usize,
    },
    /// The file with the key is no PEM.
    #[error("the key file is damaged: a PEM block in it can't be read")]
    KeyPem,
    /// The file with the key has no key in it.
    #[error("the key file holds no private key: a “-----BEGIN PRIVATE KEY-----” block is needed")]
    NoKey,
    /// The file with the key holds a certificate only.
    #[error(
        "the key file holds a certificate instead of a private key: the two files may be swapped"
    )]
    CertificateInsteadOfKey,
    /// The key is locked with a passphrase.
    #[error(
        "the private key is encrypted with a passphrase: decrypt it first, with “openssl pkey -in KEY.pem -out PLAIN.pem” \
         (or “openssl rsa” for an RSA key)"
    )]
    KeyEncrypted,
    /// A kind of key that TLS connections of this program can't use.
    #[error(
        "the private key is damaged or of a kind that can't be used: RSA with 2048 to 4096 bits, ECDSA P-256, ECDSA \
         P-384 and Ed25519 can"
    )]
    KeyUnusable,
    /// The key belongs to another certificate.
    #[error(
        "the private key doesn't belong to the first certificate of the certificate file: the end certificate must come \
         first, and the key must be its own"
    )]
    KeyMismatch,
}

/// A certificate chain, the end certificate first, with the private key of the end certificate.
#[derive(Clone)]
pub struct TlsIdentity {
    certified: Arc<CertifiedKey>,
}

impl TlsIdentity {
    /// An identity from certificates and key in binary form (DER).
    ///
    /// # Errors
    /// [`IdentityError`] if a part can't be used or the parts don't belong together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        Self::with(chain, key, any_key)
    }

    fn with(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        load: Load,
    ) -> Result<Self, IdentityError> {
        for (index, certificate) in chain.iter().enumerate() {
            x509::spki(certificate).map_err(|_| IdentityError::CertificateUnreadable {
                position: index + 1,
            })?;
        }
        let end = chain.first().ok_or(IdentityError::NoCertificate)?;
        let key = load(key).map_err(|_| IdentityError::KeyUnusable)?;
        let public = key.public_key().ok_or(IdentityError::KeyUnusable)?;
        let certified =
            x509::spki(end).map_err(|_| IdentityError::CertificateUnreadable { position: 1 })?;
        // The bits of the keys are compared: some issuers leave the algorithm's empty parameters out.
        let same = match (der::public_key(&public), der::public_key(certified)) {
            (Some(own), Some(certified)) => own.bits == certified.bits,
            (Some(_) | None, Some(_) | None) => false,
        };
        if !same {
            return Err(IdentityError::KeyMismatch);
        }
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(chain, key)),
        })
    }

    /// An identity from the texts of two PEM files. Other blocks in them are passed over.
    ///
    /// # Errors
    /// [`IdentityError`], saying which file is wrong and how.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        Self::read(chain_pem, key_pem, any_key)
    }

    /// The same for a device's own identity, whose key is on a curve: a program that never calls [`Self::from_pem`] carries nothing
    /// that signs with other keys.
    ///
    /// # Errors
    /// [`IdentityError`], saying which text is wrong and how.
    pub fn of_device(chain_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        Self::read(chain_pem, key_pem, |key| {
            provider().key_provider.load_private_key(key)
        })
    }

    fn read(chain_pem: &str, key_pem: &str, load: Load) -> Result<Self, IdentityError> {
        let chain = certificates_from_pem(chain_pem)?;
        if is_encrypted(key_pem) {
            return Err(IdentityError::KeyEncrypted);
        }
        let key_blocks = blocks(key_pem).ok_or(IdentityError::KeyPem)?;
        let holds_certificate = key_blocks
            .iter()
            .any(|(kind, _)| *kind == SectionKind::Certificate);
        let key = key_blocks
            .into_iter()
            .find_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der));
        match key {
            Some(key) => Self::with(chain, key, load),
            None if holds_certificate => Err(IdentityError::CertificateInsteadOfKey),
            None => Err(IdentityError::NoKey),
        }
    }

    /// The certificates, the end certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The end certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        // `new` refuses an empty chain.
        &self.certified.cert[0]
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

/// How a key is loaded.
type Load = fn(PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error>;

fn any_key(key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
    sign::any_supported_type(&Zeroizing::new(key))
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("certificates", &self.certified.cert.len())
            .field("key", &"MASKED")
            .finish()
    }
}

/// The certificates in the text of a PEM file; other blocks are passed over.
///
/// # Errors
/// [`IdentityError`] if it is no PEM, or without a certificate.
pub fn certificates_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let blocks = blocks(pem).ok_or(IdentityError::ChainPem)?;
    let holds_key = blocks.iter().any(|(kind, _)| is_key(*kind)) || is_encrypted(pem);
    let certificates: Vec<_> = blocks
        .into_iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der))
        .collect();
    match (certificates.is_empty(), holds_key) {
        (false, _) => Ok(certificates),
        (true, true) => Err(IdentityError::KeyInsteadOfCertificate),
        (true, false) => Err(IdentityError::NoCertificate),
    }
}

fn blocks(pem: &str) -> Option<Vec<(SectionKind, Vec<u8>)>> {
    if pem.len() > MAX_PEM {
        return None;
    }
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .ok()
}

fn is_key(kind: SectionKind) -> bool {
    [
        SectionKind::PrivateKey,
        SectionKind::RsaPrivateKey,
        SectionKind::EcPrivateKey,
    ]
    .contains(&kind)
}

/// Both ways in which OpenSSL marks a locked key: PKCS#8 by the label, the older form by a header.
fn is_encrypted(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || pem
            .lines()
            .any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}
