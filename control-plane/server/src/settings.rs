//! What the server decides for a device: its own settings, and over them what holds for all.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;
use umbra_protocol::api::Policy;
use umbra_protocol::settings::{Settings, Value};

use crate::store::devices::{self, Row};
use crate::store::{StoreError, meta};

/// The parameter that the policy decides.
pub const SECURE_MODE: &str = "network.vncserver.secure_mode";

/// A device's own settings with the policy over them.
pub fn in_force(mut own: Settings, policy: Policy) -> Settings {
    if policy.enforce_secure_mode {
        own.values.insert(SECURE_MODE.into(), Value::Bool(true));
    }
    own
}

/// What a device has to apply now.
pub async fn of_device(tx: &mut SqliteConnection, row: Row) -> Result<Settings, StoreError> {
    let own = devices::own_settings(tx, row).await?;
    Ok(in_force(own, meta::policy(tx).await?))
}

/// Sets what the administrators decide for a device.
pub async fn set(
    tx: &mut SqliteConnection,
    row: Row,
    values: &BTreeMap<String, Value>,
) -> Result<(), StoreError> {
    let floor = devices::own_settings(tx, row).await?.revision;
    let revision = meta::next_revision(tx, floor).await?;
    devices::set_own_settings(tx, row, values, revision).await
}

/// Sets what holds for all devices; true if that changed something, and every device has to hear of it.
pub async fn set_policy(tx: &mut SqliteConnection, policy: Policy) -> Result<bool, StoreError> {
    let before = meta::policy(tx).await?;
    if before == policy {
        return Ok(false);
    }
    meta::set_policy(tx, policy).await?;
    if before.enforce_secure_mode == policy.enforce_secure_mode {
        return Ok(true);
    }
    let revision = meta::next_revision(tx, 0).await?;
    devices::set_revision(tx, None, revision).await?;
    Ok(true)
}

/// Above this no revision of ours can be, and a device that claims one is not followed.
const HIGHEST: u64 = 1 << 52;

/// What to send to a device that says it has a revision: nothing if it has the newest. A device that is ahead (the
/// server was restored from a backup, or another one managed it before) gets a revision that is newer still.
pub async fn for_link(
    tx: &mut SqliteConnection,
    row: Row,
    has: u64,
) -> Result<Option<Settings>, StoreError> {
    let mut settings = of_device(tx, row).await?;
    if settings.revision == has {
        return Ok(None);
    }
    if has > settings.revision && has < HIGHEST {
        settings.revision = meta::next_revision(tx, has).await?;
        devices::set_revision(tx, Some(row), settings.revision).await?;
    }
    Ok(Some(settings))
}

/// A device that was just filed hears of the policy at its first link.
pub async fn begin(tx: &mut SqliteConnection, row: Row) -> Result<(), StoreError> {
    if meta::policy(tx).await?.enforce_secure_mode {
        let revision = meta::next_revision(tx, 0).await?;
        devices::set_revision(tx, Some(row), revision).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_policy_goes_over_what_a_device_is_set_to_and_away_again() {
        let own = Settings {
            revision: 1,
            values: BTreeMap::from([(SECURE_MODE.to_owned(), Value::Bool(false))]),
        };
        let enforced = Policy {
            enforce_secure_mode: true,
            gateway_connections: None,
        };
        assert_eq!(
            in_force(own.clone(), enforced).values[SECURE_MODE],
            Value::Bool(true)
        );
        assert_eq!(
            in_force(own, Policy::default()).values[SECURE_MODE],
            Value::Bool(false)
        );
    }

    #[tokio::test]
    async fn a_device_with_the_newest_settings_gets_none_and_one_that_is_ahead_gets_newer_ones() {
        let site = testing::Site::new().await;
        let row = site.file_device("A1").await;
        let mut tx = site.server.store.begin().await.expect("begins");
        assert_eq!(for_link(&mut tx, row, 0).await.expect("read"), None);
        set(&mut tx, row, &BTreeMap::new()).await.expect("set");
        let sent = for_link(&mut tx, row, 0).await.expect("read").expect("new");
        assert_eq!(
            for_link(&mut tx, row, sent.revision).await.expect("read"),
            None
        );
        let ahead = for_link(&mut tx, row, 1_000)
            .await
            .expect("read")
            .expect("ahead");
        assert!(ahead.revision > 1_000);
        let absurd = for_link(&mut tx, row, u64::MAX)
            .await
            .expect("read")
            .expect("ahead");
        assert_eq!(absurd.revision, ahead.revision, "no one is led to the end");
    }

    #[tokio::test]
    async fn a_change_of_policy_gives_every_device_a_new_revision() {
        let site = testing::Site::new().await;
        let (a, b) = (site.file_device("A1").await, site.file_device("B2").await);
        let mut tx = site.server.store.begin().await.expect("begins");
        let enforced = Policy {
            enforce_secure_mode: true,
            gateway_connections: None,
        };
        assert!(set_policy(&mut tx, enforced).await.expect("set"));
        assert!(!set_policy(&mut tx, enforced).await.expect("set again"));
        for row in [a, b] {
            let settings = for_link(&mut tx, row, 0)
                .await
                .expect("read")
                .expect("newer");
            assert_eq!(settings.values[SECURE_MODE], Value::Bool(true));
        }
    }
}
