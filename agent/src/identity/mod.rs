//! Who this device is: a private key, made here and never leaving, and a self-signed certificate for it. A key that is on the disk
//! is never silently replaced by another: what can't be mended without losing the device's identity is refused, loudly.
//!
//! Every change goes the same way: the new key and the new certificate are written beside the present ones as the *next* pair,
//! and only when both are whole they take the present ones' names, the key first. So for every instant at which the power may
//! fail there is one right thing to do at the next start, and [`ensure`] does it.

mod certificate;
mod der;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use umbra_carrier::tls::TlsIdentity;
use umbra_protocol::Fingerprint;
use umbra_protocol::ids::{DeviceId, UnitId};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::files::{FileError, Files};
use crate::os::Os;
use crate::paths::Paths;
use certificate::{Certificate, Key};
pub use store::Next;
use store::Store;

/// The device's identity: a key and a certificate that belong together. Clones share them.
#[derive(Clone)]
pub struct DeviceIdentity {
    inner: Arc<Inner>,
}

struct Inner {
    certificate: Certificate,
    key: Key,
    unit_id: UnitId,
    tls: TlsIdentity,
}

impl DeviceIdentity {
    fn new(key: Key, certificate: Certificate, fallback: &UnitId) -> Result<Self, IdentityError> {
        let tls = TlsIdentity::of_device(&certificate.pem, &key.pem).map_err(IdentityError::Tls)?;
        let unit_id = certificate
            .unit_id
            .clone()
            .unwrap_or_else(|| fallback.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                certificate,
                key,
                unit_id,
                tls,
            }),
        })
    }

    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.inner.certificate.pem
    }

    /// The certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.inner.certificate.der
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.inner.certificate.fingerprint
    }

    /// The private key, PKCS#8 PEM: for the one place that serves shadowing with it.
    pub fn key_pem(&self) -> &Zeroizing<String> {
        &self.inner.key.pem
    }

    /// SHA-256 of the public key.
    pub fn device_id(&self) -> DeviceId {
        self.inner.key.device_id()
    }

    /// The label on the device.
    pub fn unit_id(&self) -> &UnitId {
        &self.inner.unit_id
    }

    /// From when on the certificate is valid, seconds since 1970.
    pub fn not_before(&self) -> i64 {
        self.inner.certificate.not_before
    }

    /// Until when the certificate is valid, seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.inner.certificate.not_after
    }

    /// For TLS, on either side.
    pub fn tls_identity(&self) -> TlsIdentity {
        self.inner.tls.clone()
    }

    /// Signs with the private key (ECDSA P-256, SHA-256, ASN.1).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let signature = self.inner.key.pair.sign(message);
        signature.map_err(|_| IdentityError::Making)
    }

    /// The facts for the status.
    pub fn facts(&self) -> crate::status::Identity {
        crate::status::Identity {
            unit_id: self.unit_id().clone(),
            device_id: self.device_id(),
            certificate: self.fingerprint(),
            not_after: self.not_after(),
        }
    }
}

impl std::fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "DeviceIdentity({}, {})",
            self.unit_id(),
            self.device_id()
        )
    }
}

/// What [`ensure`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Key and certificate are those that were there.
    Kept,
    /// There were none; both were made.
    Made,
    /// Something was mended.
    Replaced(Reason),
}

/// What was mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A change of the pair had been cut off by a power cut and was completed.
    Completed,
    /// There was a good key without a certificate: the key got a new one.
    CertificateMissing,
    /// The certificate could not be read: the key got a new one.
    CertificateUnreadable,
    /// Key and certificate did not belong together, and no server knew either: the key got a new certificate.
    Mismatch,
    /// There was a certificate without its key, and no server knew it: both were made anew.
    KeyMissing,
    /// Somebody asked for it.
    Asked,
}

impl Reason {
    /// As a clause.
    pub fn clause(self) -> &'static str {
        match self {
            Reason::Completed => "a change that a power cut had interrupted was completed",
            Reason::CertificateMissing => "the certificate was missing; the key got a new one",
            Reason::CertificateUnreadable => {
                "the certificate could not be read; the key got a new one"
            }
            Reason::Mismatch => {
                "key and certificate did not belong together; the key got a new certificate"
            }
            Reason::KeyMissing => "the key was missing; both were made anew",
            Reason::Asked => "both were made anew because somebody asked for it",
        }
    }

    /// Whether a server that knew the previous certificate will refuse this one until an administrator agrees.
    pub fn server_will_ask(self) -> bool {
        match self {
            Reason::Completed => false,
            Reason::CertificateMissing
            | Reason::CertificateUnreadable
            | Reason::Mismatch
            | Reason::KeyMissing
            | Reason::Asked => true,
        }
    }
}

/// Why the device has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Others than the owner may read or change the key.
    #[error(
        "the private key {} can be read or changed by others (mode {mode:03o}), so it is not used. If nobody else had access to \
         this device: “chmod 600 {}”; otherwise make a new identity with “umbra-agent identity --replace” and enrol again.",
        .path.display(), .path.display()
    )]
    KeyOpen {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The key can't be used.
    #[error(
        "the private key {} can't be used: {problem}. It is left as it is. Put the right file back, or make a new identity with \
         “umbra-agent identity --replace”; the device then has to be enrolled again.",
        .path.display()
    )]
    KeyDamaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The certificate can't be read.
    #[error("{} is not a certificate; “umbra-agent identity” makes a new one for the device's key", .path.display())]
    CertificateDamaged {
        /// Which file.
        path: PathBuf,
    },
    /// This device was taken on by a server with a key that is gone.
    #[error(
        "the private key {} is gone, but a server has taken this device on with it. Put the file back, or make a new identity \
         with “umbra-agent identity --replace” and enrol again.",
        .path.display()
    )]
    KeyLost {
        /// Where it should be.
        path: PathBuf,
    },
    /// Key and certificate are of different devices, and a server knows one of them.
    #[error(
        "the key {} and the certificate {} don't belong together, and a server has taken this device on with one of them. Put \
         the right files back, or make a new identity with “umbra-agent identity --replace” and enrol again.",
        .key.display(), .certificate.display()
    )]
    Mismatch {
        /// Which key.
        key: PathBuf,
        /// Which certificate.
        certificate: PathBuf,
    },
    /// There is no next pair that could be promoted.
    #[error("there is no new certificate that could take the place of the present one")]
    NoNext,
    /// The system gave no random numbers, or a library failed.
    #[error(
        "the key or the certificate could not be made; the system may be out of random numbers"
    )]
    Making,
    /// The TLS library does not take the pair.
    #[error("key and certificate can't be used for connections")]
    Tls(#[source] umbra_carrier::tls::IdentityError),
    /// The disk.
    #[error("the identity could not be read or written")]
    File(#[source] FileError),
}

impl IdentityError {
    /// The exit code for it.
    pub fn exit(&self) -> crate::exit::Exit {
        use crate::exit::Exit;
        match self {
            IdentityError::KeyOpen { .. }
            | IdentityError::KeyDamaged { .. }
            | IdentityError::CertificateDamaged { .. }
            | IdentityError::KeyLost { .. }
            | IdentityError::Mismatch { .. }
            | IdentityError::Tls(_) => Exit::Data,
            IdentityError::NoNext => Exit::Unavailable,
            IdentityError::Making => Exit::Internal,
            IdentityError::File(FileError::Permission { .. }) => Exit::Permission,
            IdentityError::File(_) => Exit::Disk,
        }
    }
}

/// Brings up the identity: takes the one on the disk, completes what a power cut interrupted, or makes the first one.
/// Calling it again changes nothing.
///
/// # Errors
/// [`IdentityError`]: whatever is on the disk is left as it is then.
pub fn ensure(
    paths: &Paths,
    os: &dyn Os,
    clock: &Clock,
) -> Result<(DeviceIdentity, Done), IdentityError> {
    ensure_with(paths, &Files::new(), os, clock)
}

/// [`ensure`] with files of one's own, for tests that stop the world at a step.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_with(
    paths: &Paths,
    files: &Files,
    os: &dyn Os,
    clock: &Clock,
) -> Result<(DeviceIdentity, Done), IdentityError> {
    Store::open(paths, files)?.ensure(os, clock)
}

/// The identity on the disk as it is, for reading only; nothing if there is none. Changes nothing.
///
/// # Errors
/// [`IdentityError`], as [`ensure`] would.
pub fn load(paths: &Paths) -> Result<Option<DeviceIdentity>, IdentityError> {
    store::load(paths)
}

/// The certificate alone, which every user of the device may read.
#[derive(Clone, Debug)]
pub struct CertificateFacts {
    /// PEM.
    pub pem: String,
    /// The label on the device, where the certificate names one.
    pub unit_id: Option<UnitId>,
    /// SHA-256 of the public key.
    pub device_id: DeviceId,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// From when on it is valid, seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, seconds since 1970.
    pub not_after: i64,
}

/// The certificate on the disk; nothing if there is none.
///
/// # Errors
/// [`IdentityError`] if it can't be read.
pub fn load_certificate(paths: &Paths) -> Result<Option<CertificateFacts>, IdentityError> {
    let certificate = store::certificate(paths)?;
    Ok(certificate.map(|certificate| CertificateFacts {
        device_id: certificate.device_id(),
        unit_id: certificate.unit_id,
        fingerprint: certificate.fingerprint,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        pem: certificate.pem,
    }))
}

/// Makes a new identity in place of whatever is there. A server that knew the old one will not know this one.
///
/// # Errors
/// [`IdentityError`]; the old identity is still there then.
pub fn replace(paths: &Paths, os: &dyn Os, clock: &Clock) -> Result<DeviceIdentity, IdentityError> {
    Store::open(paths, &Files::new())?.replace(os, clock)
}

/// The same for a machine whose disk is a copy of another one's: it gets a unit ID of its own as well.
///
/// # Errors
/// [`IdentityError`].
pub fn replace_all(
    paths: &Paths,
    os: &dyn Os,
    clock: &Clock,
) -> Result<DeviceIdentity, IdentityError> {
    Store::open(paths, &Files::new())?.replace_all(os, clock)
}

/// Makes the next certificate, and with [`Next::Rekey`] the next key, beside the present pair, which stays in use. A next pair of
/// the same kind that is already there is taken, so that after a power cut the same one is proposed again.
///
/// # Errors
/// [`IdentityError`]; the present pair is untouched.
pub fn propose_next(
    paths: &Paths,
    files: &Files,
    present: &DeviceIdentity,
    kind: Next,
    clock: &Clock,
) -> Result<DeviceIdentity, IdentityError> {
    Store::open(paths, files)?.propose_next(present, kind, clock)
}

/// The next pair, if a whole one is there.
///
/// # Errors
/// [`IdentityError`] if it can't be read.
pub fn pending_next(
    paths: &Paths,
    present: &DeviceIdentity,
) -> Result<Option<DeviceIdentity>, IdentityError> {
    store::pending(paths, present.unit_id())
}

/// The server has filed the next certificate: it takes the present one's place.
///
/// # Errors
/// [`IdentityError::NoNext`] if there is none; otherwise one of the pairs is in force, whichever step failed.
pub fn promote_next(paths: &Paths, files: &Files) -> Result<DeviceIdentity, IdentityError> {
    Store::open(paths, files)?.promote_next()
}

/// The server does not want the next certificate: it is forgotten.
///
/// # Errors
/// [`IdentityError::File`].
pub fn discard_next(paths: &Paths, files: &Files) -> Result<(), IdentityError> {
    Store::open(paths, files)?.discard_next()
}

#[cfg(test)]
mod tests;
