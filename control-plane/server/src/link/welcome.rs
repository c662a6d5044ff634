//! How a device that is on file gets its link. Most come back as they went, a thousand of them at once after a restart: those cost the database a few
//! looks. Whoever brings news is written down, one after the other.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Instant;

use sqlx::SqliteConnection;
use umbra_protocol::hello::Hello;

use super::clones;
use super::desk::{Desk, Device, removed};
use super::machine::Reply;
use crate::audit::{self, Actor, Line};
use crate::hub::Online;
use crate::settings;
use crate::store::devices::{self, DeviceOnFile, Standing};
use crate::store::{StoreError, commands, sessions as session_rows};

impl Desk {
    /// Opens the link, or says why there is none.
    pub(super) async fn open(&mut self, hello: &Hello, version: u16) -> Result<Reply, StoreError> {
        let server = Arc::clone(&self.server);
        let fingerprint = self.certificate.fingerprint;
        let mut reading = server.store.read().await?;
        let standing = devices::standing(&mut reading, fingerprint).await?;
        match standing {
            Standing::Current(row) => {
                let device = devices::by_row(&mut reading, row).await?;
                if self.brings_news(&mut reading, hello, &device).await? {
                    drop(reading);
                    return self.open_with_news(hello, version).await;
                }
                if let Some(run) = hello.run {
                    // It says nothing, or it would have been news.
                    server.hub.takes_turns(row, run);
                }
                let reply = self.attach(&mut reading, hello, version, device).await?;
                // Whoever removed the device or changed its certificate in this very moment has looked for its link already.
                let standing = devices::standing(&mut reading, fingerprint).await?;
                if standing == Standing::Current(row) {
                    return Ok(reply);
                }
                self.device = None;
                self.attachment = None;
                drop(reading);
                Ok(Reply::Refused(self.stranger(hello, standing).await?))
            }
            Standing::Proposed(_) => {
                drop(reading);
                self.open_with_news(hello, version).await
            }
            // Strangers are told without a write lock.
            Standing::Removed | Standing::Unknown => {
                drop(reading);
                Ok(Reply::Refused(self.stranger(hello, standing).await?))
            }
        }
    }

    /// Whether anything has to be written down before the link stands. When the device was heard of is noted by itself, every while.
    async fn brings_news(
        &self,
        reading: &mut SqliteConnection,
        hello: &Hello,
        device: &DeviceOnFile,
    ) -> Result<bool, StoreError> {
        let peer = self.origin.text();
        let revision = hello.settings_revision;
        let (hub, row) = (&self.server.hub, device.row);
        Ok(device.unit_id != hello.device.unit_id
            // A device that is ahead of its server gets a number that is further ahead.
            || revision > device.settings_revision
            || hello.run.is_some_and(|run| hub.is_another_run(row, run))
            || !devices::is_noted(reading, row, &hello.device, &peer, revision).await?)
    }

    async fn open_with_news(&mut self, hello: &Hello, version: u16) -> Result<Reply, StoreError> {
        let server = Arc::clone(&self.server);
        let fingerprint = self.certificate.fingerprint;
        let now = server.clock.now();
        let unit = &hello.device.unit_id;
        let mut tx = server.store.begin().await?;
        let row = match devices::standing(&mut tx, fingerprint).await? {
            Standing::Current(row) => row,
            Standing::Proposed(row) => {
                let before = devices::by_row(&mut tx, row).await?.certificate.device_id;
                devices::take_over_proposed(&mut tx, row).await?;
                if before != self.certificate.device_id {
                    // Whoever still has the old key is not this device any more.
                    devices::clear_clone(&mut tx, row).await?;
                    server.hub.forget_runs(row);
                }
                let actor = Actor::Device(unit.clone());
                let line = Line::new(
                    actor,
                    "device.certificate_changed",
                    self.certificate.device_id,
                );
                audit::append(&mut tx, now, line.detail(fingerprint)).await?;
                row
            }
            // Removed in this very moment.
            Standing::Removed | Standing::Unknown => return Ok(Reply::Refused(removed())),
        };
        let device = devices::by_row(&mut tx, row).await?;
        if device.unit_id != *unit && devices::note_other_unit(&mut tx, row, unit).await? {
            let line = Line::new(
                Actor::Device(device.unit_id.clone()),
                "device.other_unit_id",
                self.certificate.device_id,
            );
            let detail = format!(
                "presents itself as {unit}: its network card was changed, or its disk was copied to another device"
            );
            audit::append(&mut tx, now, line.detail(detail)).await?;
        }
        let peer = self.origin.text();
        devices::note_facts(&mut tx, now, row, &hello.device, &peer).await?;
        devices::note_revision(&mut tx, row, hello.settings_revision).await?;
        if hello
            .run
            .is_some_and(|run| server.hub.takes_turns(row, run))
        {
            clones::suspect(&mut tx, now, &device, &peer).await?;
        }
        let reply = self.attach(&mut tx, hello, version, device).await?;
        tx.commit().await?;
        Ok(reply)
    }

    /// From here on news are kept for this link; what is read here may be told twice, and is never missed.
    async fn attach(
        &mut self,
        tx: &mut SqliteConnection,
        hello: &Hello,
        version: u16,
        device: DeviceOnFile,
    ) -> Result<Reply, StoreError> {
        let server = Arc::clone(&self.server);
        let (row, now) = (device.row, server.clock.now());
        let last_heard = Arc::new(AtomicI64::new(now));
        self.attachment = Some(server.hub.attach(
            row,
            Online {
                peer: self.origin.peer,
                gateway: self.origin.gateway().cloned(),
                certificate: self.certificate.clone(),
                facts: hello.device.clone(),
                last_heard: Arc::clone(&last_heard),
            },
        ));
        let mut state = Device {
            row,
            unit: device.unit_id.clone(),
            settings_sent: hello.settings_revision,
            last_command: 0,
            progress: (Instant::now(), 0),
            last_heard,
        };
        let mut first = Vec::new();
        if let Some(settings) = settings::for_link(tx, row, hello.settings_revision).await? {
            state.settings_sent = settings.revision;
            first.push(settings.into());
        }
        for (number, command) in commands::waiting(tx, row, 0).await? {
            state.last_command = number;
            first.push(command.into());
        }
        for request in session_rows::open_offers(tx, now, row).await? {
            first.push(request.into());
        }
        tracing::info!(unit = %state.unit, "device online");
        self.device = Some(state);
        Ok(Reply::Welcome(self.welcome(version, device.name), first))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use umbra_protocol::hello::Intent;
    use umbra_protocol::ids::RunId;
    use umbra_protocol::{FromServer, KeyId, RefusalCode};

    use super::*;
    use crate::link::Origin;
    use crate::random;
    use crate::store::devices::{DeviceCertificate, Row};
    use crate::testing::{Site, certificate, facts};

    struct Known {
        site: Site,
        row: Row,
        certificate: DeviceCertificate,
    }

    impl Known {
        async fn new() -> Self {
            let (site, certificate) = (Site::new().await, certificate());
            let mut tx = site.server.store.begin().await.expect("begins");
            let key = KeyId::from_bytes(random::bytes());
            let row = devices::add(&mut tx, 1, &facts("A1"), &certificate, key)
                .await
                .expect("filed");
            tx.commit().await.expect("committed");
            Self {
                site,
                row,
                certificate,
            }
        }

        async fn opens(&self, hello: &Hello) -> (Desk, Reply) {
            let peer = "192.0.2.10:40000".parse().expect("an address");
            let origin = Origin::direct(peer, Instant::now());
            let server = Arc::clone(&self.site.server);
            let mut desk = Desk::new(server, origin, self.certificate.clone(), [0; 32]);
            let reply = desk.open(hello, 1).await.expect("the database works");
            (desk, reply)
        }

        async fn on_file(&self) -> DeviceOnFile {
            let mut reading = self.site.server.store.read().await.expect("reads");
            devices::by_row(&mut reading, self.row)
                .await
                .expect("on file")
        }
    }

    fn hello(run: RunId) -> Hello {
        Hello {
            versions: vec![1],
            features: Vec::new(),
            intent: Intent::Link,
            device: facts("A1"),
            settings_revision: 0,
            run: Some(run),
        }
    }

    fn is_welcome(reply: &Reply) -> bool {
        matches!(reply, Reply::Welcome(..))
    }

    #[tokio::test]
    async fn who_comes_back_as_it_went_changes_nothing_and_waits_for_nobody() {
        let known = Known::new().await;
        let (one, other) = (
            RunId::from_bytes(random::bytes()),
            RunId::from_bytes(random::bytes()),
        );
        let (_, reply) = known.opens(&hello(one)).await;
        assert!(is_welcome(&reply), "{reply:?}");
        let peer = known.on_file().await.peer_address;
        assert_eq!(
            peer.as_deref(),
            Some("192.0.2.10"),
            "the first link is news"
        );
        // Nobody else can write for as long as this lives.
        let writing = known.site.server.store.begin().await.expect("begins");
        let (desk, reply) = known.opens(&hello(one)).await;
        assert!(is_welcome(&reply) && desk.attachment.is_some(), "{reply:?}");
        for news in [
            hello(other),
            Hello {
                settings_revision: 1,
                ..hello(one)
            },
            Hello {
                device: umbra_protocol::hello::DeviceFacts {
                    os: "Testix 2".into(),
                    ..facts("A1")
                },
                ..hello(one)
            },
            Hello {
                device: facts("B2"),
                ..hello(one)
            },
        ] {
            let waits = timeout(Duration::from_millis(300), known.opens(&news)).await;
            assert!(waits.is_err(), "{news:?} is no news");
        }
        drop(writing);
        let mut newer = hello(one);
        newer.device.os = "Testix 2".into();
        assert!(is_welcome(&known.opens(&newer).await.1));
        assert_eq!(known.on_file().await.os, "Testix 2");
    }

    #[tokio::test]
    async fn commands_that_wait_and_removals_count_for_who_brings_no_news_too() {
        let known = Known::new().await;
        let run = RunId::from_bytes(random::bytes());
        known.opens(&hello(run)).await;
        let mut tx = known.site.server.store.begin().await.expect("begins");
        settings::set(&mut tx, known.row, &std::collections::BTreeMap::new())
            .await
            .expect("set");
        tx.commit().await.expect("committed");
        let (_, reply) = known.opens(&hello(run)).await;
        let Reply::Welcome(_, first) = &reply else {
            panic!("{reply:?}")
        };
        assert!(
            matches!(first.as_slice(), [FromServer::Settings(_)]),
            "{first:?}"
        );
        let mut tx = known.site.server.store.begin().await.expect("begins");
        devices::remove(&mut tx, 2, known.row, devices::Removal::ByAdministrator)
            .await
            .expect("removed");
        tx.commit().await.expect("committed");
        let (desk, reply) = known.opens(&hello(run)).await;
        assert!(
            matches!(&reply, Reply::Refused(refusal) if refusal.code == RefusalCode::DeviceRemoved),
            "{reply:?}"
        );
        assert!(desk.attachment.is_none());
    }
}
