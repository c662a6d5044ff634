//! Devices that come and go: each is taken on with a key of its own, and stays, is removed by an administrator, or leaves by itself.

use std::time::Duration;

use serde_json::json;

use super::gate::Worker;
use super::ledger::Known;
use super::site::{text, ways};
use super::workload::Work;
use crate::eventually::eventually;
use crate::world::{Device, DeviceConfig, network_card};

/// A device that came and stayed.
pub(super) struct Guest<'s> {
    pub(super) unit: String,
    pub(super) device: Device<'s>,
}

/// How many guests stay.
const PLACES: usize = 2;
/// How long a guest tries to be taken on before somebody is told; faults are over long before.
const LONGEST: Duration = Duration::from_secs(100);
/// How long a server may take to turn away whom an administrator removed, while there may be a fault.
const TURNED_AWAY: Duration = Duration::from_secs(25);

impl<'s> Work<'_, 's> {
    /// Devices that come and go, one after another.
    pub(super) async fn welcome(&self, mut worker: Worker<'_>) {
        let mut turn = 0_u16;
        while worker.next(Duration::from_secs(2)).await {
            turn += 1;
            if let Err(error) = self.guest(turn).await {
                let wrong = format!("guest {turn} could not be looked after: {error:#}");
                self.ledger.borrow_mut().unseen.push(wrong);
            }
        }
    }

    /// A key, however long it takes to get one.
    async fn key(&self) -> anyhow::Result<String> {
        let body = json!({"kind": "one_time", "count": 1});
        let made = eventually("a key to be made", LONGEST, async || {
            match self.ask("POST", "/api/v1/keys", Some(&body)).await {
                Some((201, made)) => Ok(made),
                other => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    Err(format!("{other:?}"))
                }
            }
        })
        .await?;
        let first = made.get(0).cloned().unwrap_or_default();
        let key = text(&first, "key");
        self.ledger.borrow_mut().keys.push(text(&first, "id"));
        let name = format!("one-time key {}", text(&first, "id"));
        self.secrets.borrow_mut().push((name, key.clone()));
        Ok(key)
    }

    async fn guest(&self, turn: u16) -> anyhow::Result<()> {
        let key = self.key().await?;
        let behind = turn.is_multiple_of(2);
        let mut config = DeviceConfig::default();
        ways(&mut config, behind);
        let name = format!("guest-{turn}");
        let mut device = Device::new(self.scratch, &name, config)?;
        let [high, low] = turn.to_be_bytes();
        network_card(device.root(), &format!("00:e0:c5:01:{high:02x}:{low:02x}"))?;
        device.start()?;
        device.wait_until_up().await?;
        let address = if behind {
            self.gateway
        } else {
            self.for_devices
        };
        let address = address.to_string();
        let words = [
            "enroll",
            "--address",
            &address,
            "--fingerprint",
            &self.fingerprint,
            "--key-file",
            "-",
        ];
        // Wherever a fault comes, the same key takes it on at the next attempt.
        eventually("a guest to be taken on", LONGEST, async || {
            match device.output(&words, &key).await {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    Err(String::from_utf8_lossy(&output.stderr).into_owned())
                }
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        let unit = device.unit_id().await?;
        let known = known(&device).await?;
        let id = known.id.clone();
        self.ledger.borrow_mut().devices.insert(unit.clone(), known);
        self.rename(&unit, &name).await?;
        let stays = self.guests.borrow().len() < PLACES && turn % 3 == 1;
        if stays {
            self.guests.borrow_mut().push(Guest { unit, device });
            return Ok(());
        }
        let left = turn.is_multiple_of(3) && {
            let said = device.tell(&["leave"], "").await.unwrap_or_default();
            said.contains("removed this device")
        };
        if !left {
            self.remove(&id).await?;
        }
        if let Some(known) = self.ledger.borrow_mut().devices.get_mut(&unit) {
            known.removed = true;
        }
        if !left {
            self.stays_away(&device).await;
        }
        device.kill();
        std::fs::remove_dir_all(device.root())?;
        Ok(())
    }

    /// An administrator gives a device a name, however often that has to be said.
    pub(super) async fn rename(&self, unit: &str, name: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/devices/{unit}");
        let body = json!({"name": name});
        eventually("a device to be renamed", LONGEST, async || {
            match self.ask("PATCH", &path, Some(&body)).await {
                Some((200, _)) => Ok(()),
                other => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    Err(format!("{other:?}"))
                }
            }
        })
        .await?;
        if let Some(known) = self.ledger.borrow_mut().devices.get_mut(unit) {
            known.name = Some(name.to_owned());
        }
        Ok(())
    }

    /// An administrator takes a device off the file, however often that has to be said.
    async fn remove(&self, id: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/devices/{id}");
        eventually("a device to be removed", LONGEST, async || {
            match self.ask("DELETE", &path, None).await {
                // It is gone already where the answer to the first attempt was lost, or where it left and could not be told so.
                Some((204 | 404, _)) => Ok(()),
                other => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    Err(format!("{other:?}"))
                }
            }
        })
        .await?;
        Ok(())
    }

    /// Whether a device that was removed is turned away.
    async fn stays_away(&self, device: &Device<'_>) {
        let turned_away =
            eventually(
                "a removed device to be refused",
                TURNED_AWAY,
                async || match device.status().await.map(|status| text(&status, "stage")) {
                    Ok(stage) if stage == "refused" || stage == "not_enrolled" => Ok(()),
                    Ok(stage) => Err(stage),
                    Err(error) => Err(error.to_string()),
                },
            );
        let online = turned_away.await.err();
        let mut ledger = self.ledger.borrow_mut();
        let attempts = ledger.attempts.entry("a removed device").or_default();
        match online {
            None => attempts.refused += 1,
            Some(state) if state.last.contains("online") => attempts.let_in += 1,
            Some(_) => attempts.unanswered += 1,
        }
    }
}

/// Who a device is.
pub(super) async fn known(device: &Device<'_>) -> anyhow::Result<Known> {
    let status = device.status().await?;
    let id = status.pointer("/identity/device_id");
    let id = id.and_then(serde_json::Value::as_str).unwrap_or_default();
    Ok(Known {
        id: id.to_owned(),
        certificate: std::fs::read_to_string(device.certificate())?,
        name: None,
        removed: false,
    })
}
