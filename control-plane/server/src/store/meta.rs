//! What holds for the whole server: the salt of the first-authentication keys, the policy, the settings' counter.

use sqlx::SqliteConnection;
use umbra_protocol::api::Policy;
use umbra_protocol::ids::{from_hex, to_hex};

use super::StoreError;
use crate::random;

const SALT: &str = "key_salt";
const ENFORCE_SECURE_MODE: &str = "enforce_secure_mode";
const GATEWAY_CONNECTIONS: &str = "gateway_connections";
const SETTINGS_REVISION: &str = "settings_revision";

async fn get(tx: &mut SqliteConnection, name: &str) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT value FROM meta WHERE name = ?")
        .bind(name)
        .fetch_optional(tx)
        .await?)
}

async fn set(tx: &mut SqliteConnection, name: &str, value: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO meta (name, value) VALUES (?, ?) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(tx)
    .await?;
    Ok(())
}

/// The salt of all first-authentication keys; made when it is first asked for.
pub async fn key_salt(tx: &mut SqliteConnection) -> Result<[u8; 16], StoreError> {
    if let Some(salt) = get(tx, SALT).await? {
        return from_hex(&salt)
            .ok_or_else(|| StoreError::Unreadable("the salt of the keys".into()));
    }
    let salt = random::bytes();
    set(tx, SALT, &to_hex(&salt)).await?;
    Ok(salt)
}

/// What holds for every device.
pub async fn policy(tx: &mut SqliteConnection) -> Result<Policy, StoreError> {
    let enforce_secure_mode = get(tx, ENFORCE_SECURE_MODE).await?.as_deref() == Some("true");
    let gateway_connections = get(tx, GATEWAY_CONNECTIONS)
        .await?
        .and_then(|text| text.parse().ok());
    Ok(Policy {
        enforce_secure_mode,
        gateway_connections,
    })
}

/// Sets what holds for every device.
pub async fn set_policy(tx: &mut SqliteConnection, policy: Policy) -> Result<(), StoreError> {
    let Policy {
        enforce_secure_mode,
        gateway_connections,
    } = policy;
    let value = if enforce_secure_mode { "true" } else { "false" };
    set(tx, ENFORCE_SECURE_MODE, value).await?;
    let limit = gateway_connections.map_or_else(String::new, |limit| limit.to_string());
    set(tx, GATEWAY_CONNECTIONS, &limit).await
}

/// The next revision of settings, above `floor`. Revisions are never used twice, whatever device they are for, so that
/// a device that is filed anew cannot mistake new settings for those that it has.
pub async fn next_revision(tx: &mut SqliteConnection, floor: u64) -> Result<u64, StoreError> {
    let last = get(tx, SETTINGS_REVISION)
        .await?
        .map_or(Ok(0), |text| super::parsed("the settings' revision", &text))?;
    let next = last.max(floor) + 1;
    set(tx, SETTINGS_REVISION, &next.to_string()).await?;
    Ok(next)
}
