//! Devices, their certificates and their settings. A device keeps its row for life, whatever key or name it has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite, SqliteConnection};
use umbra_carrier::x509::{CertificateError, spki_sha256};
use umbra_protocol::hello::DeviceFacts;
use umbra_protocol::refusal::clip;
use umbra_protocol::settings::{Settings, SettingsApplied, Value};
use umbra_protocol::{DeviceId, Fingerprint, KeyId, UnitId};

use super::{StoreError, from_json, parsed, to_json};

/// A device's row: what it is called inside the database, for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row(pub i64);

/// A certificate with the names that follow from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 of its public key.
    pub device_id: DeviceId,
    /// The certificate.
    pub der: Vec<u8>,
}

impl DeviceCertificate {
    /// Reads the names out of a certificate.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self {
            fingerprint: Fingerprint::of_certificate(der),
            device_id: DeviceId::from_bytes(spki_sha256(der)?),
            der: der.to_vec(),
        })
    }
}

/// A device on file.
#[derive(Clone, Debug)]
pub struct DeviceOnFile {
    /// Its row.
    pub row: Row,
    /// Its label.
    pub unit_id: UnitId,
    /// The name that the administrators gave to it.
    pub name: String,
    /// The certificate on file.
    pub certificate: DeviceCertificate,
    /// Operating system.
    pub os: String,
    /// Version of its agent.
    pub agent_version: String,
    /// Where it accepts shadowing.
    pub shadow_port: Option<u16>,
    /// Its addresses, as it says.
    pub addresses: Vec<String>,
    /// From where its last link came.
    pub peer_address: Option<String>,
    /// When it was taken on.
    pub enrolled_at: i64,
    /// When something was last heard of it.
    pub last_seen: Option<i64>,
    /// Revision of the newest settings.
    pub settings_revision: u64,
    /// Revision that the device has applied.
    pub settings_applied: u64,
    /// What it refused.
    pub settings_refused: BTreeMap<String, String>,
    /// The certificate that somebody else presented under this label.
    pub conflict: Option<Fingerprint>,
    /// Since when two machines take turns under its key.
    pub clone_suspected_at: Option<i64>,
    /// Since when a copy of it is refused, which still has the key that a new one replaced.
    pub copy_refused_at: Option<i64>,
    /// Commands that wait for it.
    pub commands_waiting: u32,
    /// Whether it is no longer on file.
    pub removed: bool,
}

/// What a certificate means to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The certificate of a device on file.
    Current(Row),
    /// The next certificate of a device on file, which it now uses for the first time.
    Proposed(Row),
    /// That of a device which an administrator removed.
    Removed,
    /// No device on file has it.
    Unknown,
}

const COLUMNS: &str = "SELECT d.*, c.fingerprint, c.device_id, c.der, \
    (SELECT count(*) FROM commands WHERE commands.device = d.row AND commands.state IS NULL) AS waiting, \
    (SELECT min(old.refused_at) FROM device_certificates old WHERE old.device = d.row AND old.state = 'former') AS copy_refused_at \
    FROM devices d JOIN device_certificates c ON c.device = d.row AND c.state IN ('current', 'removed', 'left') ";

fn revision(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
}

/// Revisions are small numbers that this server counts; a larger one is nobody's.
fn stored(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn device(row: &SqliteRow) -> Result<DeviceOnFile, StoreError> {
    Ok(DeviceOnFile {
        row: Row(row.try_get("row")?),
        unit_id: parsed("a unit ID", row.try_get("unit_id")?)?,
        name: row.try_get("name")?,
        certificate: DeviceCertificate {
            fingerprint: parsed("a fingerprint", row.try_get("fingerprint")?)?,
            device_id: parsed("a device ID", row.try_get("device_id")?)?,
            der: row.try_get("der")?,
        },
        os: row.try_get("os")?,
        agent_version: row.try_get("agent_version")?,
        shadow_port: row.try_get("shadow_port")?,
        addresses: from_json("addresses", row.try_get("addresses")?)?,
        peer_address: row.try_get("peer_address")?,
        enrolled_at: row.try_get("enrolled_at")?,
        last_seen: row.try_get("last_seen")?,
        settings_revision: revision(row, "settings_revision")?,
        settings_applied: revision(row, "settings_applied")?,
        settings_refused: from_json("refused settings", row.try_get("settings_refused")?)?,
        conflict: row
            .try_get::<Option<&str>, _>("conflict_fingerprint")?
            .map(|text| parsed("a fingerprint", text))
            .transpose()?,
        clone_suspected_at: row.try_get("clone_suspected_at")?,
        copy_refused_at: row.try_get("copy_refused_at")?,
        commands_waiting: row.try_get("waiting")?,
        removed: row.try_get::<Option<i64>, _>("removed_at")?.is_some(),
    })
}

/// The beginning of every query for whole devices, with its end. Both are this module's own texts.
fn select(end: &'static str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("{COLUMNS} {end}"))
}

/// One device, also one that was removed.
pub async fn by_row(tx: &mut SqliteConnection, row: Row) -> Result<DeviceOnFile, StoreError> {
    let found = sqlx::query(select("WHERE d.row = ? LIMIT 1"))
        .bind(row.0)
        .fetch_one(tx)
        .await?;
    device(&found)
}

/// The devices on file whose label, name, ID or address contains `part`, by name.
pub async fn list(tx: &mut SqliteConnection, part: &str) -> Result<Vec<DeviceOnFile>, StoreError> {
    let rows = sqlx::query(select(
        "WHERE d.removed_at IS NULL AND (?1 = '' OR instr(lower(d.name), ?1) OR instr(lower(d.unit_id), ?1) \
         OR instr(c.device_id, ?1) = 1 OR instr(lower(d.os), ?1) OR instr(d.addresses, ?1) \
         OR instr(d.peer_address, ?1)) ORDER BY d.name COLLATE NOCASE, d.row",
    ))
    .bind(part.to_lowercase())
    .fetch_all(tx)
    .await?;
    rows.iter().map(device).collect()
}

/// The devices on file that a person may mean: that with this ID, else all with this label or this name. Devices choose their labels
/// themselves, so one that is labelled as another is named must not stand in for it.
pub async fn named(tx: &mut SqliteConnection, name: &str) -> Result<Vec<DeviceOnFile>, StoreError> {
    let rows = sqlx::query(select(
        "WHERE d.removed_at IS NULL AND (c.device_id = lower(?1) OR d.unit_id = upper(?1) OR lower(d.name) = lower(?1))",
    ))
    .bind(name)
    .fetch_all(tx)
    .await?;
    let all: Vec<DeviceOnFile> = rows.iter().map(device).collect::<Result<_, _>>()?;
    let exact = all.iter().position(|device| {
        device
            .certificate
            .device_id
            .to_string()
            .eq_ignore_ascii_case(name)
    });
    match exact {
        Some(at) => Ok(all.into_iter().skip(at).take(1).collect()),
        None => Ok(all),
    }
}

/// What a certificate means to this server.
pub async fn standing(
    tx: &mut SqliteConnection,
    fingerprint: Fingerprint,
) -> Result<Standing, StoreError> {
    let found = sqlx::query(
        "SELECT c.device, c.state FROM device_certificates c JOIN devices d ON d.row = c.device \
         WHERE c.fingerprint = ? AND (c.state <> 'former' OR d.removed_at IS NOT NULL) \
         ORDER BY c.state IN ('current', 'proposed') DESC, c.filed_at DESC, c.rowid DESC LIMIT 1",
    )
    .bind(fingerprint.to_string())
    .fetch_optional(tx)
    .await?;
    let Some(found) = found else {
        return Ok(Standing::Unknown);
    };
    let row = Row(found.try_get("device")?);
    Ok(match found.try_get::<&str, _>("state")? {
        "current" => Standing::Current(row),
        "proposed" => Standing::Proposed(row),
        // Every certificate that a removed device has had: it may have been away while it was about to change.
        "removed" | "former" => Standing::Removed,
        _ => Standing::Unknown,
    })
}

/// The device on file under a label.
pub async fn by_unit(tx: &mut SqliteConnection, unit: &UnitId) -> Result<Option<Row>, StoreError> {
    let row: Option<i64> =
        sqlx::query_scalar("SELECT row FROM devices WHERE unit_id = ? AND removed_at IS NULL")
            .bind(unit.as_str())
            .fetch_optional(tx)
            .await?;
    Ok(row.map(Row))
}

/// The device on file whose public key this is.
pub async fn by_key(tx: &mut SqliteConnection, key: DeviceId) -> Result<Option<Row>, StoreError> {
    let row: Option<i64> = sqlx::query_scalar(
        "SELECT device FROM device_certificates WHERE device_id = ? AND state IN ('current', 'proposed') LIMIT 1",
    )
    .bind(key.to_string())
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Row))
}

/// Files a new device.
pub async fn add(
    tx: &mut SqliteConnection,
    now: i64,
    facts: &DeviceFacts,
    certificate: &DeviceCertificate,
    key: KeyId,
) -> Result<Row, StoreError> {
    let name = if facts.name.trim().is_empty() {
        facts.unit_id.as_str()
    } else {
        facts.name.trim()
    };
    let row: i64 = sqlx::query_scalar(
        "INSERT INTO devices (unit_id, name, enrolled_at, enrolled_with) VALUES (?, ?, ?, ?) RETURNING row",
    )
    .bind(facts.unit_id.as_str())
    .bind(clip(name.into()))
    .bind(now)
    .bind(key.to_string())
    .fetch_one(&mut *tx)
    .await?;
    file_certificate(tx, now, Row(row), certificate, "current").await?;
    Ok(Row(row))
}

async fn file_certificate(
    tx: &mut SqliteConnection,
    now: i64,
    row: Row,
    certificate: &DeviceCertificate,
    state: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO device_certificates (device, fingerprint, device_id, der, state, filed_at) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(row.0)
    .bind(certificate.fingerprint.to_string())
    .bind(certificate.device_id.to_string())
    .bind(&certificate.der)
    .bind(state)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(())
}

/// What a device says of itself, as it is kept. It may say anything; what people will read is made safe here.
fn bind_facts<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    row: Row,
    facts: &DeviceFacts,
    peer: &'q str,
) -> Query<'q, Sqlite, SqliteArguments> {
    let own: Vec<&String> = facts
        .addresses
        .iter()
        .filter(|address| address.parse::<IpAddr>().is_ok())
        .collect();
    query
        .bind(row.0)
        .bind(clip(facts.os.clone()))
        .bind(clip(facts.agent_version.clone()))
        .bind(clip(facts.architecture.clone()))
        .bind(facts.shadow_port)
        .bind(to_json(&own))
        .bind(facts.secure_mode)
        .bind(peer)
}

/// Notes what a device says of itself, and from where.
pub async fn note_facts(
    tx: &mut SqliteConnection,
    now: i64,
    row: Row,
    facts: &DeviceFacts,
    peer: &str,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE devices SET os = ?2, agent_version = ?3, architecture = ?4, shadow_port = ?5, addresses = ?6, \
         secure_mode = ?7, peer_address = ?8, last_seen = ?9 WHERE row = ?1",
    );
    let query = bind_facts(query, row, facts, peer).bind(now);
    query.execute(tx).await?;
    Ok(())
}

/// Whether all that [`note_facts`] and [`note_revision`] would note is on file, but for the time.
pub async fn is_noted(
    tx: &mut SqliteConnection,
    row: Row,
    facts: &DeviceFacts,
    peer: &str,
    revision: u64,
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "SELECT 1 FROM devices WHERE row = ?1 AND os IS ?2 AND agent_version IS ?3 AND architecture IS ?4 AND shadow_port IS ?5 \
         AND addresses IS ?6 AND secure_mode IS ?7 AND peer_address IS ?8 AND settings_applied = min(?9, settings_revision)",
    );
    let query = bind_facts(query, row, facts, peer).bind(stored(revision));
    Ok(query.fetch_optional(tx).await?.is_some())
}

/// Notes under which other label a device has presented itself; true if that is new.
pub async fn note_other_unit(
    tx: &mut SqliteConnection,
    row: Row,
    unit: &UnitId,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE devices SET other_unit_id = ?1 WHERE row = ?2 AND other_unit_id IS NOT ?1",
    )
    .bind(unit.as_str())
    .bind(row.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes when something was last heard of some devices.
pub async fn note_seen(tx: &mut SqliteConnection, seen: &[(Row, i64)]) -> Result<(), StoreError> {
    for (row, at) in seen {
        sqlx::query("UPDATE devices SET last_seen = max(coalesce(last_seen, 0), ?) WHERE row = ?")
            .bind(at)
            .bind(row.0)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Gives a device another name.
pub async fn rename(tx: &mut SqliteConnection, row: Row, name: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET name = ? WHERE row = ?")
        .bind(name)
        .bind(row.0)
        .execute(tx)
        .await?;
    Ok(())
}

/// How a device went off the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// An administrator removed it: it is told so when it comes back.
    ByAdministrator,
    /// It asked for it: it is unknown from now on.
    ByDevice,
}

/// Takes a device off the file. Its sessions and commands stay for the record.
pub async fn remove(
    tx: &mut SqliteConnection,
    now: i64,
    row: Row,
    how: Removal,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET removed_at = ? WHERE row = ?")
        .bind(now)
        .bind(row.0)
        .execute(&mut *tx)
        .await?;
    let (others, current) = match how {
        // It may come back with any of them.
        Removal::ByAdministrator => (
            "UPDATE device_certificates SET state = 'former' WHERE device = ? AND state = 'proposed'",
            "UPDATE device_certificates SET state = 'removed' WHERE device = ? AND state = 'current'",
        ),
        Removal::ByDevice => (
            "DELETE FROM device_certificates WHERE device = ? AND state IN ('proposed', 'former')",
            "UPDATE device_certificates SET state = 'left' WHERE device = ? AND state = 'current'",
        ),
    };
    for change in [others, current] {
        sqlx::query(change).bind(row.0).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Files the next certificate of a device beside the present one.
pub async fn propose(
    tx: &mut SqliteConnection,
    now: i64,
    row: Row,
    certificate: &DeviceCertificate,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM device_certificates WHERE device = ? AND state = 'proposed'")
        .bind(row.0)
        .execute(&mut *tx)
        .await?;
    file_certificate(tx, now, row, certificate, "proposed").await
}

/// Makes the proposed certificate the only one.
pub async fn take_over_proposed(tx: &mut SqliteConnection, row: Row) -> Result<(), StoreError> {
    for change in [
        "UPDATE device_certificates SET state = 'former' WHERE device = ? AND state = 'current'",
        "UPDATE device_certificates SET state = 'current' WHERE device = ? AND state = 'proposed'",
    ] {
        sqlx::query(change).bind(row.0).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Notes that two machines take turns under a device's key; true if that is news.
pub async fn suspect_clone(
    tx: &mut SqliteConnection,
    now: i64,
    row: Row,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE devices SET clone_suspected_at = ? WHERE row = ? AND clone_suspected_at IS NULL",
    )
    .bind(now)
    .bind(row.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// No longer suspects that; true if it was suspected.
pub async fn clear_clone(tx: &mut SqliteConnection, row: Row) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE devices SET clone_suspected_at = NULL WHERE row = ? AND clone_suspected_at IS NOT NULL",
    )
    .bind(row.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The device on file that has had this key and now has another one.
pub async fn by_replaced_key(
    tx: &mut SqliteConnection,
    certificate: &DeviceCertificate,
) -> Result<Option<Row>, StoreError> {
    let row: Option<i64> = sqlx::query_scalar(
        "SELECT old.device FROM device_certificates old \
         JOIN device_certificates new ON new.device = old.device AND new.state = 'current' \
         WHERE old.fingerprint = ? AND old.state = 'former' AND old.device_id <> new.device_id LIMIT 1",
    )
    .bind(certificate.fingerprint.to_string())
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Row))
}

/// Whether it was noted before that a machine with such a certificate was refused.
pub async fn refused_before(
    tx: &mut SqliteConnection,
    fingerprint: Fingerprint,
) -> Result<bool, StoreError> {
    let noted: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM device_certificates WHERE fingerprint = ? AND refused_at IS NOT NULL LIMIT 1",
    )
    .bind(fingerprint.to_string())
    .fetch_optional(tx)
    .await?;
    Ok(noted.is_some())
}

/// Notes that a machine with a certificate that was replaced, or of a removed device, was refused; true if that is news.
pub async fn note_refused(
    tx: &mut SqliteConnection,
    now: i64,
    fingerprint: Fingerprint,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE device_certificates SET refused_at = ? WHERE fingerprint = ? AND state IN ('former', 'removed') AND refused_at IS NULL",
    )
    .bind(now)
    .bind(fingerprint.to_string())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets that copies of a device were refused; true if any was. One that comes again is noted again.
pub async fn forget_copies(tx: &mut SqliteConnection, row: Row) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE device_certificates SET refused_at = NULL WHERE device = ? AND refused_at IS NOT NULL",
    )
    .bind(row.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Notes that somebody presented another certificate under a device's label; true if that is news. One that was refused is none.
pub async fn note_conflict(
    tx: &mut SqliteConnection,
    row: Row,
    fingerprint: Fingerprint,
    der: &[u8],
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE devices SET conflict_fingerprint = ?1, conflict_der = ?2 \
         WHERE row = ?3 AND conflict_fingerprint IS NOT ?1 AND refused_fingerprint IS NOT ?1",
    )
    .bind(fingerprint.to_string())
    .bind(der)
    .bind(row.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The certificate of a conflict.
pub async fn conflict(tx: &mut SqliteConnection, row: Row) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(
        sqlx::query_scalar::<_, Option<Vec<u8>>>("SELECT conflict_der FROM devices WHERE row = ?")
            .bind(row.0)
            .fetch_one(tx)
            .await?,
    )
}

/// Takes the certificate of a conflict off the file, and remembers that it was refused. The device's own stays.
pub async fn refuse_conflict(tx: &mut SqliteConnection, row: Row) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET refused_fingerprint = conflict_fingerprint, conflict_fingerprint = NULL, conflict_der = NULL \
         WHERE row = ? AND conflict_fingerprint IS NOT NULL",
    )
    .bind(row.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// Replaces a device's certificate by that of the conflict.
pub async fn replace_certificate(
    tx: &mut SqliteConnection,
    now: i64,
    row: Row,
    certificate: &DeviceCertificate,
) -> Result<(), StoreError> {
    for change in [
        "DELETE FROM device_certificates WHERE device = ? AND state = 'proposed'",
        "UPDATE device_certificates SET state = 'former' WHERE device = ? AND state = 'current'",
        "UPDATE devices SET conflict_fingerprint = NULL, conflict_der = NULL WHERE row = ?",
    ] {
        sqlx::query(change).bind(row.0).execute(&mut *tx).await?;
    }
    file_certificate(tx, now, row, certificate, "current").await
}

/// What the administrators decided for a device, without what holds for all.
pub async fn own_settings(tx: &mut SqliteConnection, row: Row) -> Result<Settings, StoreError> {
    let found = sqlx::query("SELECT settings_values, settings_revision FROM devices WHERE row = ?")
        .bind(row.0)
        .fetch_one(tx)
        .await?;
    Ok(Settings {
        revision: revision(&found, "settings_revision")?,
        values: from_json("settings", found.try_get("settings_values")?)?,
    })
}

/// Sets what the administrators decided for a device.
pub async fn set_own_settings(
    tx: &mut SqliteConnection,
    row: Row,
    values: &BTreeMap<String, Value>,
    revision: u64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET settings_values = ?, settings_revision = ? WHERE row = ?")
        .bind(to_json(values))
        .bind(stored(revision))
        .bind(row.0)
        .execute(tx)
        .await?;
    Ok(())
}

/// Gives the settings of one device a new revision, or those of all.
pub async fn set_revision(
    tx: &mut SqliteConnection,
    row: Option<Row>,
    revision: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET settings_revision = ?1 WHERE removed_at IS NULL AND (?2 IS NULL OR row = ?2)",
    )
    .bind(stored(revision))
    .bind(row.map(|row| row.0))
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes which settings a device has applied.
pub async fn note_applied(
    tx: &mut SqliteConnection,
    row: Row,
    applied: &SettingsApplied,
) -> Result<(), StoreError> {
    let refused: BTreeMap<String, String> = applied
        .refused
        .iter()
        .map(|(name, sentence)| (clip(name.clone()), clip(sentence.clone())))
        .collect();
    sqlx::query(
        "UPDATE devices SET settings_applied = min(?, settings_revision), settings_refused = ? WHERE row = ?",
    )
    .bind(stored(applied.revision))
    .bind(to_json(&refused))
    .bind(row.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes the revision that a device says it has, at the beginning of a link.
pub async fn note_revision(
    tx: &mut SqliteConnection,
    row: Row,
    revision: u64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET settings_applied = min(?, settings_revision) WHERE row = ?")
        .bind(stored(revision))
        .bind(row.0)
        .execute(tx)
        .await?;
    Ok(())
}
