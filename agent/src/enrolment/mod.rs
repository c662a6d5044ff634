//! How a server takes the device on, and what the device keeps of it. An enrolment that can't be read is told loudly and never
//! replaced by a new one.

pub mod driver;
pub mod machine;
pub mod sources;

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use umbra_carrier::address::HostPort;
use umbra_protocol::DeviceId;
use umbra_protocol::enrolment::{Connector, ConnectorKind};
use umbra_protocol::hello::TrustAnchors;

use crate::files::{self, FileError, Files};
use crate::link::{Way, Ways};
use crate::paths::Paths;
use crate::registry::{Gateways, Manager, Ranking};

pub use driver::{EnrolError, EnrolRequest, Step, Trust, enroll};

/// Larger than any enrolment: 16 roots of 16 KiB and the rest.
const FILE_MAX: usize = 1024 * 1024;

/// What the device keeps of being taken on. Having one is what a link is built from.
///
/// A firmware that was rolled back finds the file of a newer one: what it doesn't know in it is passed over, and a field that
/// older ones don't write has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Host as a person typed it, or as a server moved the device to it: it worked then.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the server itself is there, or a gateway.
    #[serde(default = "directly")]
    pub kind: ConnectorKind,
    /// The ID under which the server files this device.
    pub device_id: DeviceId,
    /// The name under which the server files this device.
    pub device_name: String,
    /// Further ways to the server, as the server named them.
    pub connectors: Vec<Connector>,
    /// Pinned roots and ticket keys.
    pub anchors: TrustAnchors,
    /// The names in the server's certificate. Where a gateway lies in between, they tell the server from everything else that
    /// its root vouches for.
    #[serde(default)]
    pub server_names: Vec<String>,
    /// The way that led to a welcome last. It stays a last resort until another one has.
    #[serde(default)]
    pub last_good: Option<Connector>,
}

fn directly() -> ConnectorKind {
    ConnectorKind::Ums
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
                let enrolled: Self = umbra_protocol::json::from_slice(&bytes)
                    .map_err(|source| EnrolmentError::Damaged { path, source })?;
                enrolled.roots()?;
                Ok(Some(enrolled))
            }
        }
    }

    /// Keeps the enrolment. Afterwards there is this one, or after an error the one before.
    pub fn store(&self, paths: &Paths, files: &Files) -> Result<(), EnrolmentError> {
        let bytes =
            serde_json::to_vec(self).expect("an enrolment holds nothing that JSON cannot say");
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

    /// The ways to the server that the registry allows: those configured on the device, the one that the enrolment or the last
    /// move went over, those that the server named, and as a last resort the one that worked last. Each once.
    pub fn ways(&self, manager: &Manager) -> Ways {
        let own = Connector {
            kind: self.kind,
            address: self.host.clone(),
            port: self.port,
            roots: Vec::new(),
        };
        let connectors = manager
            .connectors
            .iter()
            .chain(std::iter::once(&own))
            .chain(&self.connectors);
        let mut list: Vec<Way> = Vec::new();
        // What was typed here passed the check of addresses; what the server named may not.
        for way in connectors.filter_map(Way::of) {
            match list.iter_mut().find(|other| other.is_same_place(&way)) {
                Some(known) if known.roots.is_empty() => known.roots = way.roots,
                Some(_) => {}
                None if is_allowed(manager, way.kind) => list.push(way),
                None => {}
            }
        }
        let preferred = match manager.gateways {
            Gateways::First => ConnectorKind::Icg,
            Gateways::Automatic | Gateways::Second | Gateways::Off => ConnectorKind::Ums,
        };
        if manager.gateways == Gateways::First {
            list.sort_by_key(|way| way.kind != ConnectorKind::Icg);
        }
        // Gateways that were switched off are not tried, but the one that the device was reached by is not burnt before the direct
        // way has worked: nobody could take the mistake back from afar.
        let last = self.last_good.as_ref().and_then(Way::of);
        if let Some(last) = &last
            && manager.ranking == Ranking::All
            && !list.iter().any(|way| way.is_same_place(last))
        {
            list.push(last.clone());
        }
        let decided = matches!(manager.gateways, Gateways::First | Gateways::Off);
        let start = last
            .filter(|last| !decided || last.kind == preferred)
            .and_then(|last| list.iter().position(|way| way.is_same_place(&last)))
            .unwrap_or(0);
        Ways {
            list,
            start,
            preferred: Some(preferred),
            decided,
        }
    }

    /// Where the server itself is, as far as the device knows; otherwise where the gateway is.
    pub fn server_address(&self) -> String {
        let own = (self.kind == ConnectorKind::Ums).then_some((&self.host, self.port));
        let named = self
            .connectors
            .iter()
            .find(|connector| connector.kind == ConnectorKind::Ums)
            .map(|connector| (&connector.address, connector.port));
        let (host, port) = own.or(named).unwrap_or((&self.host, self.port));
        HostPort::new(host, port).map_or_else(|_| host.clone(), |address| address.to_string())
    }

    /// The names that the server's certificate may be for, where it is not connected to by its own address.
    pub fn names(&self, manager: &Manager) -> Vec<String> {
        let own = (self.kind == ConnectorKind::Ums).then_some(&self.host);
        let direct = manager
            .connectors
            .iter()
            .chain(&self.connectors)
            .filter(|connector| connector.kind == ConnectorKind::Ums)
            .map(|connector| &connector.address);
        let mut names: Vec<String> = Vec::new();
        for name in self.server_names.iter().chain(own).chain(direct) {
            if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                names.push(name.clone());
            }
        }
        names
    }

    /// The enrolment after the server has replaced its ways by these, the first of which was proven to work.
    ///
    /// # Errors
    /// [`NoWay`] if the first is none.
    pub fn moved(&self, connectors: Vec<Connector>) -> Result<Self, NoWay> {
        let first = connectors.first().cloned().ok_or(NoWay)?;
        Ok(Self {
            host: first.address.clone(),
            port: first.port,
            kind: first.kind,
            connectors,
            last_good: Some(first),
            ..self.clone()
        })
    }
}

/// A list of ways without a way.
#[derive(Debug, thiserror::Error)]
#[error("the server named no way to it at all")]
pub struct NoWay;

/// Whether the registry allows ways of this kind.
pub fn is_allowed(manager: &Manager, kind: ConnectorKind) -> bool {
    match (kind, manager.ranking) {
        (ConnectorKind::Ums, Ranking::All | Ranking::Ums) => true,
        (ConnectorKind::Icg, Ranking::All | Ranking::Icg) => manager.gateways != Gateways::Off,
        (ConnectorKind::Ums, Ranking::Icg) | (ConnectorKind::Icg, Ranking::Ums) => false,
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
            kind: ConnectorKind::Ums,
            server_names: Vec::new(),
            last_good: None,
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

    fn manager(ranking: Ranking, gateways: Gateways) -> Manager {
        Manager {
            allowed: true,
            connectors: Vec::new(),
            ranking,
            gateways,
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

    fn hosts(ways: &Ways) -> Vec<&str> {
        ways.list.iter().map(|way| way.address.host()).collect()
    }

    #[test]
    fn the_registry_decides_which_ways_are_tried_and_each_is_tried_once() {
        let ways = |ranking, gateways| enrolled().ways(&manager(ranking, gateways));
        let direct = ["ums.example.com", "10.0.0.1"];
        let all = ["ums.example.com", "icg.example.com", "10.0.0.1"];
        assert_eq!(hosts(&ways(Ranking::All, Gateways::Off)), direct);
        assert_eq!(hosts(&ways(Ranking::Ums, Gateways::First)), direct);
        assert_eq!(hosts(&ways(Ranking::All, Gateways::Automatic)), all);
        assert_eq!(hosts(&ways(Ranking::All, Gateways::Second)), all);
        assert_eq!(
            hosts(&ways(Ranking::All, Gateways::First)),
            ["icg.example.com", "ums.example.com", "10.0.0.1"]
        );
        assert_eq!(
            hosts(&ways(Ranking::Icg, Gateways::Automatic)),
            ["icg.example.com"]
        );
        assert!(ways(Ranking::Icg, Gateways::Off).list.is_empty());
        let configured = Manager {
            connectors: vec![Connector {
                kind: ConnectorKind::Ums,
                address: "first.example.com".into(),
                port: 443,
                roots: Vec::new(),
            }],
            ..manager(Ranking::Ums, Gateways::First)
        };
        assert_eq!(
            enrolled().ways(&configured).list[0].to_string(),
            "ums first.example.com:443"
        );
    }

    #[test]
    fn a_gateway_that_is_switched_off_stays_a_last_resort_until_a_direct_way_has_worked() {
        let mut enrolled = enrolled();
        let gateway = enrolled.connectors[1].clone();
        enrolled.last_good = Some(gateway);
        let off = manager(Ranking::All, Gateways::Off);
        let ways = enrolled.ways(&off);
        assert_eq!(
            hosts(&ways),
            ["ums.example.com", "10.0.0.1", "icg.example.com"]
        );
        // It is not where the device begins.
        assert_eq!((ways.start, ways.preferred), (0, Some(ConnectorKind::Ums)));
        assert!(!ways.suits(&ways.list[2]) && ways.suits(&ways.list[0]));
        enrolled.last_good = Some(enrolled.connectors[2].clone());
        assert_eq!(hosts(&enrolled.ways(&off)), ["ums.example.com", "10.0.0.1"]);
        assert_eq!(enrolled.ways(&off).start, 1, "the one that worked last");
        // Who says “only direct ways” means it.
        enrolled.last_good = Some(enrolled.connectors[1].clone());
        let only = enrolled.ways(&manager(Ranking::Ums, Gateways::Off));
        assert_eq!(hosts(&only), ["ums.example.com", "10.0.0.1"]);
    }

    #[test]
    fn the_way_that_worked_last_is_the_first_unless_somebody_has_decided_otherwise() {
        let mut enrolled = enrolled();
        enrolled.last_good = Some(enrolled.connectors[1].clone());
        let start = |enrolled: &Enrolled, gateways| {
            let ways = enrolled.ways(&manager(Ranking::All, gateways));
            ways.list[ways.start].to_string()
        };
        let (icg, ums) = ("icg icg.example.com:8443", "ums ums.example.com:8443");
        assert_eq!(start(&enrolled, Gateways::Automatic), icg);
        assert_eq!(start(&enrolled, Gateways::First), icg);
        assert_eq!(start(&enrolled, Gateways::Off), ums);
        enrolled.last_good = Some(enrolled.connectors[0].clone());
        assert_eq!(start(&enrolled, Gateways::First), icg);
        assert_eq!(start(&enrolled, Gateways::Automatic), ums);
    }

    #[test]
    fn a_move_replaces_all_ways_and_what_was_typed_with_them() {
        let to = vec![Connector {
            kind: ConnectorKind::Icg,
            address: "new.example.com".into(),
            port: 443,
            roots: vec![root()],
        }];
        let moved = enrolled().moved(to.clone()).expect("a way");
        let ways = moved.ways(&manager(Ranking::All, Gateways::Automatic));
        assert_eq!(hosts(&ways), ["new.example.com"]);
        assert_eq!(ways.list[0].roots, to[0].roots);
        assert!(enrolled().moved(Vec::new()).is_err());
    }

    #[test]
    fn an_enrolment_of_an_older_agent_is_a_direct_one() {
        let whole = enrolled();
        let mut value = serde_json::to_value(&whole).expect("serialises");
        let fields = value.as_object_mut().expect("an object");
        for new in ["kind", "server_names", "last_good"] {
            assert!(fields.remove(new).is_some(), "{new}");
        }
        let read: Enrolled = serde_json::from_value(value).expect("reads");
        assert_eq!(read, whole);
        let names = read.names(&manager(Ranking::All, Gateways::Automatic));
        assert_eq!(names, ["ums.example.com", "10.0.0.1", "not a host"]);
    }
}
