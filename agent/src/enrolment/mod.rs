//! How a server takes the device on, and what the device keeps of it. An enrolment that can't be read is told loudly and never
//! replaced by a new one.

pub mod driver;
pub mod machine;

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use umbra_carrier::address::HostPort;
use umbra_protocol::DeviceId;
use umbra_protocol::enrolment::{Connector, ConnectorKind};
use umbra_protocol::hello::TrustAnchors;

use crate::files::{self, FileError, Files};
use crate::paths::Paths;
use crate::registry::{Manager, Ranking};

pub use driver::{EnrolError, EnrolRequest, Step, enroll};

/// Larger than any enrolment: 16 roots of 16 KiB and the rest.
const FILE_MAX: usize = 1024 * 1024;

/// What the device keeps of being taken on. Having one is what a link is built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Host as a person typed it; the enrolment went over it, so it works.
    pub host: String,
    /// Port as a person typed it.
    pub port: u16,
    /// The ID under which the server files this device.
    pub device_id: DeviceId,
    /// The name under which the server files this device.
    pub device_name: String,
    /// Further ways to the server, as the server named them.
    pub connectors: Vec<Connector>,
    /// Pinned roots and ticket keys.
    pub anchors: TrustAnchors,
}

/// Why an enrolment can't be used.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The disk refused.
    #[error("the enrolment could not be read or written")]
    File(#[source] FileError),
    /// It can't be understood.
    #[error(
        "the enrolment in {} is damaged, and this device will not guess who its server is; restore the file, or remove it \
         with “umbra-agent leave” and enrol again", .path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A root can't be read.
    #[error("a root certificate in the enrolment can't be read; enrol again")]
    Root,
}

impl Enrolled {
    /// The enrolment on the disk, if there is one.
    pub fn load(paths: &Paths) -> Result<Option<Self>, EnrolmentError> {
        let path = paths.enrolment();
        match files::read(&path, FILE_MAX).map_err(EnrolmentError::File)? {
            None => Ok(None),
            Some(bytes) => {
                let enrolled: Self = serde_json::from_slice(&bytes)
                    .map_err(|source| EnrolmentError::Damaged { path, source })?;
                enrolled.roots()?;
                Ok(Some(enrolled))
            }
        }
    }

    /// Keeps the enrolment. Afterwards there is this one, or after an error the one before.
    pub fn store(&self, paths: &Paths, files: &Files) -> Result<(), EnrolmentError> {
        let bytes = serde_json::to_vec_pretty(self)
            .expect("an enrolment holds nothing that JSON cannot say");
        // It names ticket keys and roots: nothing secret, and nobody's business.
        files
            .write(&paths.enrolment(), &bytes, 0o600)
            .map_err(EnrolmentError::File)
    }

    /// Forgets the enrolment on the disk.
    pub fn remove(paths: &Paths, files: &Files) -> Result<(), EnrolmentError> {
        files
            .remove(&paths.enrolment())
            .map_err(EnrolmentError::File)
    }

    /// The pinned roots.
    pub fn roots(&self) -> Result<Vec<CertificateDer<'static>>, EnrolmentError> {
        roots(&self.anchors)
    }

    /// The ways to the server that the registry allows: those configured on the device, the one that was typed at the enrolment,
    /// those that the server named. Each once.
    pub fn ways(&self, manager: &Manager) -> Vec<HostPort> {
        let typed = Connector {
            kind: ConnectorKind::Ums,
            address: self.host.clone(),
            port: self.port,
            roots: Vec::new(),
        };
        let all = manager
            .connectors
            .iter()
            .chain(std::iter::once(&typed))
            .chain(&self.connectors);
        let mut ways = Vec::new();
        for connector in all {
            let allowed = match (connector.kind, manager.ranking) {
                (ConnectorKind::Ums, Ranking::All | Ranking::Ums) => true,
                (ConnectorKind::Icg, Ranking::All | Ranking::Icg) => manager.enable_icg,
                (ConnectorKind::Ums, Ranking::Icg) | (ConnectorKind::Icg, Ranking::Ums) => false,
            };
            // What was typed here passed the same check; what the server named may not.
            if let (true, Ok(way)) = (allowed, HostPort::new(&connector.address, connector.port))
                && !ways.contains(&way)
            {
                ways.push(way);
            }
        }
        ways
    }
}

/// The roots in some anchors.
pub(crate) fn roots(
    anchors: &TrustAnchors,
) -> Result<Vec<CertificateDer<'static>>, EnrolmentError> {
    anchors
        .roots
        .iter()
        .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| EnrolmentError::Root))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use umbra_protocol::hello::TicketKey;

    use super::*;

    fn root() -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        rcgen::CertificateParams::new(vec!["root".into()])
            .expect("a name")
            .self_signed(&key)
            .expect("a certificate")
            .pem()
    }

    fn enrolled() -> Enrolled {
        let way = |kind, address: &str| Connector {
            kind,
            address: address.into(),
            port: 8_443,
            roots: Vec::new(),
        };
        Enrolled {
            host: "ums.example.com".into(),
            port: 8_443,
            device_id: DeviceId::from_bytes([2; 32]),
            device_name: "Reception".into(),
            connectors: vec![
                way(ConnectorKind::Ums, "ums.example.com"),
                way(ConnectorKind::Icg, "icg.example.com"),
                way(ConnectorKind::Ums, "10.0.0.1"),
                way(ConnectorKind::Ums, "not a host"),
            ],
            anchors: TrustAnchors {
                roots: vec![root()],
                ticket_keys: vec![TicketKey {
                    kid: "k".into(),
                    ed25519: "00".repeat(32),
                }],
            },
        }
    }

    fn manager(ranking: Ranking, enable_icg: bool) -> Manager {
        Manager {
            allowed: true,
            connectors: Vec::new(),
            ranking,
            enable_icg,
            reconnect_interval: Duration::from_secs(90),
            connect_timeout: Duration::from_secs(45),
        }
    }

    #[test]
    fn an_enrolment_reads_back_and_a_missing_one_is_none() {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        files::make_directory(&paths.kept(), 0o700).expect("a folder");
        assert_eq!(Enrolled::load(&paths).expect("readable"), None);
        let enrolled = enrolled();
        enrolled.store(&paths, &Files::new()).expect("stored");
        assert_eq!(Enrolled::load(&paths).expect("readable"), Some(enrolled));
        Enrolled::remove(&paths, &Files::new()).expect("removed");
        assert_eq!(Enrolled::load(&paths).expect("readable"), None);
    }

    #[test]
    fn a_damaged_enrolment_is_an_error_and_not_a_missing_one() {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        files::make_directory(&paths.kept(), 0o700).expect("a folder");
        let unreadable_root = Enrolled {
            anchors: TrustAnchors {
                roots: vec!["nothing".into()],
                ticket_keys: Vec::new(),
            },
            ..enrolled()
        };
        let whole = serde_json::to_vec(&enrolled()).expect("serialises");
        for bytes in [
            b"".to_vec(),
            b"{}".to_vec(),
            whole[..whole.len() / 2].to_vec(),
            serde_json::to_vec(&unreadable_root).expect("serialises"),
        ] {
            std::fs::write(paths.enrolment(), &bytes).expect("written");
            assert!(Enrolled::load(&paths).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_registry_decides_which_ways_are_tried_and_each_is_tried_once() {
        let ways = |ranking, enable_icg| {
            enrolled()
                .ways(&manager(ranking, enable_icg))
                .iter()
                .map(|way| way.host().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(ways(Ranking::All, false), ["ums.example.com", "10.0.0.1"]);
        assert_eq!(
            ways(Ranking::All, true),
            ["ums.example.com", "icg.example.com", "10.0.0.1"]
        );
        assert_eq!(ways(Ranking::Icg, true), ["icg.example.com"]);
        assert!(ways(Ranking::Icg, false).is_empty());
        let configured = Manager {
            connectors: vec![Connector {
                kind: ConnectorKind::Ums,
                address: "first.example.com".into(),
                port: 443,
                roots: Vec::new(),
            }],
            ..manager(Ranking::Ums, true)
        };
        assert_eq!(
            enrolled().ways(&configured)[0].to_string(),
            "first.example.com:443"
        );
    }
}
