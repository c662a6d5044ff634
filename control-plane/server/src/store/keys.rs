//! First-authentication keys: verifiers, never the keys themselves.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use umbra_protocol::api::{KeyInfo, KeyKind, KeyState, KeyUse};
use umbra_protocol::first_auth::Verifier;
use umbra_protocol::{Fingerprint, KeyId, UnitId};

use super::devices::Row;
use super::{StoreError, parsed};

/// A key that is about to be filed.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What checks proofs.
    pub verifier: Verifier,
    /// Which kind.
    pub kind: KeyKind,
    /// For bound keys.
    pub units: Vec<UnitId>,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// How many devices it may take on.
    pub quota: Option<u32>,
    /// For finding it again.
    pub tag: String,
}

fn kind_word(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::OneTime => "one_time",
        KeyKind::Bound => "bound",
        KeyKind::Mass => "mass",
    }
}

/// Files a key; false if it is there already (a chosen key that was chosen before).
pub async fn add(
    tx: &mut SqliteConnection,
    now: i64,
    by: &str,
    key: &NewKey,
) -> Result<bool, StoreError> {
    let id = key.verifier.key_id().to_string();
    let done = sqlx::query(
        "INSERT INTO keys (id, stored_key, server_key, kind, created_at, created_by, expires_at, quota, tag) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(&id)
    .bind(key.verifier.stored_key.as_slice())
    .bind(key.verifier.server_key.as_slice())
    .bind(kind_word(key.kind))
    .bind(now)
    .bind(by)
    .bind(key.expires_at)
    .bind(key.quota)
    .bind(&key.tag)
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    for unit in &key.units {
        sqlx::query("INSERT INTO key_units (key, unit_id) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(&id)
            .bind(unit.as_str())
            .execute(&mut *tx)
            .await?;
    }
    Ok(true)
}

/// What checks proofs of a key.
pub async fn verifier(
    tx: &mut SqliteConnection,
    id: KeyId,
) -> Result<Option<Verifier>, StoreError> {
    let found = sqlx::query("SELECT stored_key, server_key FROM keys WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(tx)
        .await?;
    let Some(found) = found else { return Ok(None) };
    let part = |column: &str| -> Result<[u8; 32], StoreError> {
        found
            .try_get::<&[u8], _>(column)?
            .try_into()
            .map_err(|_| StoreError::Unreadable("a key's verifier".into()))
    };
    Ok(Some(Verifier {
        stored_key: part("stored_key")?,
        server_key: part("server_key")?,
    }))
}

fn info(row: &SqliteRow, now: i64) -> Result<KeyInfo, StoreError> {
    let kind = match row.try_get::<&str, _>("kind")? {
        "one_time" => KeyKind::OneTime,
        "bound" => KeyKind::Bound,
        "mass" => KeyKind::Mass,
        other => return Err(StoreError::Unreadable(format!("the kind of key {other}"))),
    };
    let expires_at: Option<i64> = row.try_get("expires_at")?;
    let quota: Option<u32> = row.try_get("quota")?;
    let used: u32 = row.try_get("used")?;
    let state = if row.try_get::<Option<i64>, _>("revoked_at")?.is_some() {
        KeyState::Revoked
    } else if row.try_get::<Option<i64>, _>("disabled_at")?.is_some() {
        KeyState::Disabled
    } else if quota.is_some_and(|quota| used >= quota) {
        KeyState::Used
    } else if expires_at.is_some_and(|at| at <= now) {
        KeyState::Expired
    } else {
        KeyState::Active
    };
    let units: Option<&str> = row.try_get("units")?;
    Ok(KeyInfo {
        id: parsed("a key ID", row.try_get("id")?)?,
        kind,
        units: units
            .unwrap_or_default()
            .split(' ')
            .filter(|unit| !unit.is_empty())
            .map(|unit| parsed("a unit ID", unit))
            .collect::<Result<_, _>>()?,
        created_at: row.try_get("created_at")?,
        created_by: row.try_get("created_by")?,
        expires_at,
        quota,
        used,
        tag: row.try_get("tag")?,
        state,
    })
}

/// One key, without its verifier.
pub async fn find(
    tx: &mut SqliteConnection,
    now: i64,
    id: KeyId,
) -> Result<Option<KeyInfo>, StoreError> {
    let found = sqlx::query(
        "SELECT *, (SELECT group_concat(unit_id, ' ') FROM key_units WHERE key = keys.id) AS units \
         FROM keys WHERE id = ?",
    )
    .bind(id.to_string())
    .fetch_optional(tx)
    .await?;
    found.map(|row| info(&row, now)).transpose()
}

/// All keys, newest first.
pub async fn list(tx: &mut SqliteConnection, now: i64) -> Result<Vec<KeyInfo>, StoreError> {
    let rows = sqlx::query(
        "SELECT *, (SELECT group_concat(unit_id, ' ') FROM key_units WHERE key = keys.id) AS units \
         FROM keys ORDER BY created_at DESC, rowid DESC",
    )
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| info(row, now)).collect()
}

/// Revokes a key; one that was revoked before stays so.
pub async fn revoke(tx: &mut SqliteConnection, now: i64, id: KeyId) -> Result<(), StoreError> {
    sqlx::query("UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?")
        .bind(now)
        .bind(id.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

/// Disables a key, or lets it be used again; one that is disabled keeps its time.
pub async fn set_enabled(
    tx: &mut SqliteConnection,
    now: i64,
    id: KeyId,
    enabled: bool,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE keys SET disabled_at = CASE WHEN ? THEN NULL ELSE coalesce(disabled_at, ?) END WHERE id = ?",
    )
    .bind(enabled)
    .bind(now)
    .bind(id.to_string())
    .execute(tx)
    .await?;
    Ok(())
}

/// The devices that came in with a key, the latest first.
pub async fn uses(tx: &mut SqliteConnection, id: KeyId) -> Result<Vec<KeyUse>, StoreError> {
    let rows = sqlx::query(
        "SELECT key_uses.at, key_uses.unit_id, key_uses.fingerprint, devices.name, \
         devices.removed_at IS NOT NULL AS removed \
         FROM key_uses JOIN devices ON devices.row = key_uses.device \
         WHERE key_uses.key = ? ORDER BY key_uses.at DESC, key_uses.rowid DESC",
    )
    .bind(id.to_string())
    .fetch_all(tx)
    .await?;
    let read = |row: &SqliteRow| -> Result<KeyUse, StoreError> {
        Ok(KeyUse {
            at: row.try_get("at")?,
            unit_id: parsed("a unit ID", row.try_get("unit_id")?)?,
            certificate: parsed("a fingerprint", row.try_get("fingerprint")?)?,
            device_name: row.try_get("name")?,
            removed: row.try_get("removed")?,
        })
    };
    rows.iter().map(read).collect()
}

/// The device that a certificate was filed as with a key.
pub async fn use_by(
    tx: &mut SqliteConnection,
    id: KeyId,
    fingerprint: Fingerprint,
) -> Result<Option<Row>, StoreError> {
    let row: Option<i64> =
        sqlx::query_scalar("SELECT device FROM key_uses WHERE key = ? AND fingerprint = ?")
            .bind(id.to_string())
            .bind(fingerprint.to_string())
            .fetch_optional(tx)
            .await?;
    Ok(row.map(Row))
}

/// Whether a unit has used a key.
pub async fn used_by_unit(
    tx: &mut SqliteConnection,
    id: KeyId,
    unit: &UnitId,
) -> Result<bool, StoreError> {
    let uses: i64 =
        sqlx::query_scalar("SELECT count(*) FROM key_uses WHERE key = ? AND unit_id = ?")
            .bind(id.to_string())
            .bind(unit.as_str())
            .fetch_one(tx)
            .await?;
    Ok(uses > 0)
}

/// Whether a key took this device on, by its certificate or its label, before an administrator removed it.
pub async fn used_before_removal(
    tx: &mut SqliteConnection,
    id: KeyId,
    fingerprint: Fingerprint,
    unit: &UnitId,
) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM key_uses u JOIN device_certificates c ON c.device = u.device AND c.state = 'removed' \
         WHERE u.key = ? AND (u.fingerprint = ? OR u.unit_id = ?) LIMIT 1",
    )
    .bind(id.to_string())
    .bind(fingerprint.to_string())
    .bind(unit.as_str())
    .fetch_optional(tx)
    .await?;
    Ok(found.is_some())
}

/// Counts a use.
pub async fn note_use(
    tx: &mut SqliteConnection,
    now: i64,
    id: KeyId,
    fingerprint: Fingerprint,
    unit: &UnitId,
    device: Row,
) -> Result<(), StoreError> {
    // The same certificate may come again with a key of many uses, after it was removed from the file.
    sqlx::query(
        "INSERT INTO key_uses (key, fingerprint, unit_id, device, at) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (key, fingerprint) DO UPDATE SET device = excluded.device, at = excluded.at",
    )
    .bind(id.to_string())
    .bind(fingerprint.to_string())
    .bind(unit.as_str())
    .bind(device.0)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE keys SET used = used + 1 WHERE id = ?")
        .bind(id.to_string())
        .execute(tx)
        .await?;
    Ok(())
}
