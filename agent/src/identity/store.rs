//! Key and certificate on the disk: what is there, what it means, and the order of steps in which it changes.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use umbra_protocol::ids::UnitId;
use zeroize::Zeroizing;

use super::certificate::{Certificate, Key};
use super::{DeviceIdentity, Done, IdentityError, Reason};
use crate::clock::Clock;
use crate::files::{self, Files};
use crate::os::{Os, choose_unit_id};
use crate::paths::Paths;

/// The largest key or certificate file.
const FILE_MAX: usize = 64 * 1024;
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// What the next pair is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A new certificate for the present key.
    Renew,
    /// A new key and a certificate for it.
    Rekey,
}

/// The identity's files, locked: two programs never change them at the same time.
pub(super) struct Store<'a> {
    paths: &'a Paths,
    files: &'a Files,
    _lock: Flock<std::fs::File>,
}

/// A certificate file.
enum OnDisk {
    Absent,
    Unreadable,
    Good(Box<Certificate>),
}

impl<'a> Store<'a> {
    pub(super) fn open(paths: &'a Paths, files: &'a Files) -> Result<Self, IdentityError> {
        files::make_directory(&paths.kept(), 0o700).map_err(IdentityError::File)?;
        files::make_directory(&paths.certificate_directory(), 0o755)
            .map_err(IdentityError::File)?;
        let failed = |source| {
            IdentityError::File(files::FileError::Other {
                verb: "lock",
                path: paths.kept(),
                source,
            })
        };
        let directory = std::fs::File::open(paths.kept()).map_err(failed)?;
        let lock = Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed(errno.into()))?;
        Ok(Self {
            paths,
            files,
            _lock: lock,
        })
    }

    pub(super) fn ensure(
        &self,
        os: &dyn Os,
        clock: &Clock,
    ) -> Result<(DeviceIdentity, Done), IdentityError> {
        let key = read_key(&self.paths.key())?;
        let certificate = read_certificate(&self.paths.certificate())?;
        let next = read_pair(&self.paths.next_key(), &self.paths.next_certificate());
        let enrolled = self.paths.enrolment().exists();
        let unit_id = |key: &Key| self.unit_id(Some(&certificate), os, key);
        let reason = match (key, &certificate) {
            (Some(key), _) if self.next_certificate_of(&key)? => {
                // The next key already has the present one's name, its certificate not yet.
                self.move_next_certificate()?;
                Reason::Completed
            }
            (Some(key), OnDisk::Good(good)) if good.public == key.public => {
                let unit_id = unit_id(&key)?;
                let good = Certificate::read(&good.pem).map_err(|_| IdentityError::Making)?;
                return Ok((DeviceIdentity::new(key, good, &unit_id)?, Done::Kept));
            }
            (Some(_), OnDisk::Good(_)) if enrolled => {
                return Err(IdentityError::Mismatch {
                    key: self.paths.key(),
                    certificate: self.paths.certificate(),
                });
            }
            (Some(key), certificate) => {
                let unit_id = unit_id(&key)?;
                let made = key.certify(&unit_id, clock)?;
                self.write(&self.paths.certificate(), &made.pem, CERTIFICATE_MODE)?;
                match certificate {
                    OnDisk::Absent => Reason::CertificateMissing,
                    OnDisk::Unreadable => Reason::CertificateUnreadable,
                    OnDisk::Good(_) => Reason::Mismatch,
                }
            }
            (None, _) if next.is_some() => {
                // Both were written, and neither has its name yet: a first pair that was interrupted.
                self.promote_next()?;
                Reason::Completed
            }
            (None, _) if enrolled => {
                return Err(IdentityError::KeyLost {
                    path: self.paths.key(),
                });
            }
            (None, certificate) => {
                self.make(os, clock, Some(certificate))?;
                match certificate {
                    OnDisk::Absent => return Ok((self.current(os)?, Done::Made)),
                    OnDisk::Unreadable | OnDisk::Good(_) => Reason::KeyMissing,
                }
            }
        };
        Ok((self.current(os)?, Done::Replaced(reason)))
    }

    /// For a machine whose disk is a copy: the label is chosen anew as well. A power cut in between leaves the old one.
    pub(super) fn replace_all(
        &self,
        os: &dyn Os,
        clock: &Clock,
    ) -> Result<DeviceIdentity, IdentityError> {
        self.files
            .remove(&self.paths.unit_id())
            .map_err(IdentityError::File)?;
        self.make(os, clock, None)?;
        self.current(os)
    }

    pub(super) fn replace(
        &self,
        os: &dyn Os,
        clock: &Clock,
    ) -> Result<DeviceIdentity, IdentityError> {
        let certificate = read_certificate(&self.paths.certificate())?;
        self.make(os, clock, Some(&certificate))?;
        self.current(os)
    }

    /// A wholly new pair takes the place of whatever is there.
    fn make(
        &self,
        os: &dyn Os,
        clock: &Clock,
        present: Option<&OnDisk>,
    ) -> Result<(), IdentityError> {
        let key = Key::generate()?;
        let unit_id = self.unit_id(present, os, &key)?;
        let certificate = key.certify(&unit_id, clock)?;
        self.write_next(&key, &certificate)?;
        self.promote_next().map(|_| ())
    }

    pub(super) fn propose_next(
        &self,
        present: &DeviceIdentity,
        kind: Next,
        clock: &Clock,
    ) -> Result<DeviceIdentity, IdentityError> {
        if let Some((key, certificate)) =
            read_pair(&self.paths.next_key(), &self.paths.next_certificate())
        {
            let same_key = key.device_id() == present.device_id();
            if same_key == (kind == Next::Renew) {
                return DeviceIdentity::new(key, certificate, present.unit_id());
            }
        }
        let key = match kind {
            Next::Renew => Key::read(present.key_pem()).map_err(|_| IdentityError::Making)?,
            Next::Rekey => Key::generate()?,
        };
        let certificate = key.certify(present.unit_id(), clock)?;
        self.write_next(&key, &certificate)?;
        DeviceIdentity::new(key, certificate, present.unit_id())
    }

    pub(super) fn promote_next(&self) -> Result<DeviceIdentity, IdentityError> {
        let (key, certificate) = read_pair(&self.paths.next_key(), &self.paths.next_certificate())
            .ok_or(IdentityError::NoNext)?;
        self.files
            .rename(&self.paths.next_key(), &self.paths.key())
            .map_err(IdentityError::File)?;
        self.move_next_certificate()?;
        let fallback = fallback_unit_id(&key)?;
        DeviceIdentity::new(key, certificate, &fallback)
    }

    pub(super) fn discard_next(&self) -> Result<(), IdentityError> {
        self.files
            .remove(&self.paths.next_certificate())
            .map_err(IdentityError::File)?;
        self.files
            .remove(&self.paths.next_key())
            .map_err(IdentityError::File)
    }

    fn move_next_certificate(&self) -> Result<(), IdentityError> {
        self.files
            .rename(&self.paths.next_certificate(), &self.paths.certificate())
            .map_err(IdentityError::File)
    }

    /// The old next certificate goes first and the new one comes last: a whole next pair is always one that belongs together.
    fn write_next(&self, key: &Key, certificate: &Certificate) -> Result<(), IdentityError> {
        self.files
            .remove(&self.paths.next_certificate())
            .map_err(IdentityError::File)?;
        self.write(&self.paths.next_key(), &key.pem, KEY_MODE)?;
        self.write(
            &self.paths.next_certificate(),
            &certificate.pem,
            CERTIFICATE_MODE,
        )
    }

    fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
        self.files
            .write(path, text.as_bytes(), mode)
            .map_err(IdentityError::File)
    }

    /// Whether a change of the pair was cut off after its first rename: then the next key has gone to the present key's name,
    /// and its certificate waits. No other order of steps leaves this behind.
    fn next_certificate_of(&self, key: &Key) -> Result<bool, IdentityError> {
        Ok(match read_certificate(&self.paths.next_certificate())? {
            OnDisk::Good(next) => next.public == key.public && !self.paths.next_key().exists(),
            OnDisk::Absent | OnDisk::Unreadable => false,
        })
    }

    fn current(&self, os: &dyn Os) -> Result<DeviceIdentity, IdentityError> {
        let (key, certificate) =
            read_pair(&self.paths.key(), &self.paths.certificate()).ok_or(IdentityError::Making)?;
        let unit_id = self.unit_id(None, os, &key)?;
        DeviceIdentity::new(key, certificate, &unit_id)
    }

    /// The unit ID: the one that was chosen once, else the one in the certificate, else chosen now: the serial
    /// number of the stick that the system runs from, else an adapter's address, else from the key. It is kept, so that a dock or
    /// another network adapter never changes it.
    fn unit_id(
        &self,
        certificate: Option<&OnDisk>,
        os: &dyn Os,
        key: &Key,
    ) -> Result<UnitId, IdentityError> {
        let path = self.paths.unit_id();
        let kept = files::read_text(&path, 256).map_err(IdentityError::File)?;
        if let Some(unit_id) = kept.and_then(|text| text.trim().parse().ok()) {
            return Ok(unit_id);
        }
        let certified = match certificate {
            Some(OnDisk::Good(certificate)) => certificate.unit_id.clone(),
            Some(OnDisk::Absent | OnDisk::Unreadable) | None => None,
        };
        let known = certified.is_some();
        let stick = || os.stick().and_then(|serial| serial.parse().ok());
        let chosen = certified
            .or_else(stick)
            .or_else(|| choose_unit_id(&os.adapters()));
        let unit_id = match chosen {
            Some(unit_id) => unit_id,
            None => fallback_unit_id(key)?,
        };
        match self.write(&path, &format!("{unit_id}\n"), 0o644) {
            // The certificate says it too: a full or read-only disk costs nothing then.
            Err(error) if known => tracing::debug!(%error, "the unit ID was not kept"),
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        Ok(unit_id)
    }
}

/// For a machine without a network adapter of its own that does not run from a stick: from its key.
fn fallback_unit_id(key: &Key) -> Result<UnitId, IdentityError> {
    let digits: String = key.device_id().to_string().chars().take(12).collect();
    format!("K{digits}")
        .parse()
        .map_err(|_| IdentityError::Making)
}

pub(super) fn load(paths: &Paths) -> Result<Option<DeviceIdentity>, IdentityError> {
    let key = read_key(&paths.key())?;
    match (key, read_certificate(&paths.certificate())?) {
        (Some(key), OnDisk::Good(certificate)) if certificate.public == key.public => {
            let fallback = fallback_unit_id(&key)?;
            DeviceIdentity::new(key, *certificate, &fallback).map(Some)
        }
        (Some(_), OnDisk::Good(_)) => Err(IdentityError::Mismatch {
            key: paths.key(),
            certificate: paths.certificate(),
        }),
        (None, OnDisk::Good(_)) => Err(IdentityError::KeyLost { path: paths.key() }),
        (Some(_) | None, OnDisk::Absent | OnDisk::Unreadable) => Ok(None),
    }
}

pub(super) fn certificate(paths: &Paths) -> Result<Option<Certificate>, IdentityError> {
    match read_certificate(&paths.certificate())? {
        OnDisk::Good(certificate) => Ok(Some(*certificate)),
        OnDisk::Absent => Ok(None),
        OnDisk::Unreadable => Err(IdentityError::CertificateDamaged {
            path: paths.certificate(),
        }),
    }
}

pub(super) fn pending(
    paths: &Paths,
    fallback: &UnitId,
) -> Result<Option<DeviceIdentity>, IdentityError> {
    read_pair(&paths.next_key(), &paths.next_certificate())
        .map(|(key, certificate)| DeviceIdentity::new(key, certificate, fallback))
        .transpose()
}

/// A whole pair that belongs together, or nothing.
fn read_pair(key: &Path, certificate: &Path) -> Option<(Key, Certificate)> {
    let key = read_key(key).ok()??;
    match read_certificate(certificate).ok()? {
        OnDisk::Good(certificate) if certificate.public == key.public => Some((key, *certificate)),
        OnDisk::Good(_) | OnDisk::Absent | OnDisk::Unreadable => None,
    }
}

fn read_key(path: &Path) -> Result<Option<Key>, IdentityError> {
    let damaged = |problem| IdentityError::KeyDamaged {
        path: path.to_owned(),
        problem,
    };
    let Some(file) = files::open(path).map_err(IdentityError::File)? else {
        return Ok(None);
    };
    let metadata = file
        .metadata()
        .map_err(|_| damaged("its owner and mode can't be read"))?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::KeyOpen {
            path: path.to_owned(),
            mode,
        });
    }
    let bytes =
        Zeroizing::new(files::read_open(path, &file, FILE_MAX).map_err(IdentityError::File)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not a text"))?;
    Key::read(text).map(Some).map_err(damaged)
}

fn read_certificate(path: &Path) -> Result<OnDisk, IdentityError> {
    let Some(bytes) = files::read(path, FILE_MAX).map_err(IdentityError::File)? else {
        return Ok(OnDisk::Absent);
    };
    let read = String::from_utf8(bytes)
        .ok()
        .and_then(|text| Certificate::read(&text).ok());
    Ok(read.map_or(OnDisk::Unreadable, |certificate| {
        OnDisk::Good(Box::new(certificate))
    }))
}
