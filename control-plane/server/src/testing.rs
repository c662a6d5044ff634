//! What the tests of several modules need: a server without a port, and devices on file.

use std::time::Duration;

use umbra_carrier::proxy::ProxySettings;
use umbra_protocol::hello::DeviceFacts;
use umbra_protocol::{DeviceId, Fingerprint, KeyId};

use crate::ca::{self, CaFiles};
use crate::clock::Clock;
use crate::random;
use crate::server::{Endpoint, Parts, Server};
use crate::store::Store;
use crate::store::devices::{self, DeviceCertificate, Row};

/// A server in a temporary folder.
pub(crate) struct Site {
    pub(crate) server: std::sync::Arc<Server>,
    pub(crate) folder: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::system();
        let files = CaFiles::in_folder(folder.path());
        let authority = ca::open(&files, &["localhost".into()], clock.now()).expect("made");
        let store = Store::open(&folder.path().join("umbra.db"))
            .await
            .expect("opens");
        let endpoints = vec![Endpoint {
            host: "localhost".into(),
            port: 8443,
        }];
        let parts = Parts {
            store,
            clock,
            authority,
            endpoints,
            heartbeat: Duration::from_secs(40),
            gateway_proxy: ProxySettings::none(),
        };
        let server = Server::new(parts).await.expect("put together");
        Self {
            server: server.into(),
            folder,
        }
    }

    /// Files a device without asking for a key.
    pub(crate) async fn file_device(&self, unit: &str) -> Row {
        let mut tx = self.server.store.begin().await.expect("begins");
        let row = devices::add(
            &mut tx,
            self.server.clock.now(),
            &facts(unit),
            &certificate(),
            KeyId::from_bytes(random::bytes()),
        )
        .await
        .expect("filed");
        tx.commit().await.expect("committed");
        row
    }
}

/// Something that stands for a certificate; no test reads it.
pub(crate) fn certificate() -> DeviceCertificate {
    DeviceCertificate {
        fingerprint: Fingerprint::from_bytes(random::bytes()),
        device_id: DeviceId::from_bytes(random::bytes()),
        der: random::bytes::<8>().to_vec(),
    }
}

pub(crate) fn facts(unit: &str) -> DeviceFacts {
    DeviceFacts {
        unit_id: unit.parse().expect("a unit ID"),
        name: format!("desk-{}", unit.to_lowercase()),
        os: "Testix 1".into(),
        agent_version: "0.1.0".into(),
        architecture: "x86_64".into(),
        shadowing: true,
        shadow_port: Some(5900),
        addresses: vec!["192.0.2.10".into()],
        secure_mode: true,
    }
}
