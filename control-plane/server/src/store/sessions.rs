//! Shadowing sessions, from the offer to the record. Tickets and passwords are here as hashes only.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use umbra_protocol::api::{SessionInfo, SessionState};
use umbra_protocol::session::{Permissions, SessionRecord, SessionRequest};
use umbra_protocol::{DeviceId, SessionId};

use super::devices::Row;
use super::{StoreError, parsed};

/// The end of a session that was allowed and of which the device then said nothing.
pub const DEVICE_SILENT: &str = "device_silent";

/// A session that is about to be offered.
#[derive(Debug)]
pub struct NewSession {
    /// What the device is told.
    pub request: SessionRequest,
    /// On which device.
    pub device: Row,
    /// The device's ID at this moment.
    pub device_id: DeviceId,
    /// Account of the operator.
    pub user: String,
    /// Hash of the ticket; none for an older console.
    pub ticket_hash: Option<String>,
    /// Hash of the password.
    pub password_hash: String,
    /// When the offer ends.
    pub expires_at: i64,
}

/// A session as the verdict needs it.
#[derive(Debug)]
pub struct SessionOnFile {
    /// On which device.
    pub device: Row,
    /// What the device is told.
    pub request: SessionRequest,
    /// Account of the operator.
    pub user: String,
    /// Hash of the ticket.
    pub ticket_hash: Option<String>,
    /// Hash of the password.
    pub password_hash: String,
    /// How far it is.
    pub state: SessionState,
    /// When the offer ends.
    pub expires_at: i64,
    /// Whether the viewer saw the screen.
    pub started_at: Option<i64>,
    /// Stable code of the end.
    pub end_code: Option<String>,
}

fn state_word(state: SessionState) -> &'static str {
    match state {
        SessionState::Offered => "offered",
        SessionState::Allowed => "allowed",
        SessionState::Running => "running",
        SessionState::Ended => "ended",
        SessionState::Refused => "refused",
    }
}

fn state(row: &SqliteRow) -> Result<SessionState, StoreError> {
    match row.try_get::<&str, _>("state")? {
        "offered" => Ok(SessionState::Offered),
        "allowed" => Ok(SessionState::Allowed),
        "running" => Ok(SessionState::Running),
        "ended" => Ok(SessionState::Ended),
        "refused" => Ok(SessionState::Refused),
        other => Err(StoreError::Unreadable(format!("a session's state {other}"))),
    }
}

fn permissions(row: &SqliteRow) -> Result<Permissions, StoreError> {
    Ok(Permissions {
        control: row.try_get("control")?,
        clipboard: row.try_get("clipboard")?,
    })
}

fn on_file(row: &SqliteRow) -> Result<SessionOnFile, StoreError> {
    Ok(SessionOnFile {
        device: Row(row.try_get("device")?),
        request: SessionRequest {
            session: parsed("a session ID", row.try_get("id")?)?,
            operator: row.try_get("operator")?,
            reason: row.try_get("reason")?,
            permissions: permissions(row)?,
        },
        user: row.try_get("user")?,
        ticket_hash: row.try_get("ticket_hash")?,
        password_hash: row.try_get("password_hash")?,
        state: state(row)?,
        expires_at: row.try_get("expires_at")?,
        started_at: row.try_get("started_at")?,
        end_code: row.try_get("end_code")?,
    })
}

/// Files an offer.
pub async fn add(
    tx: &mut SqliteConnection,
    now: i64,
    session: &NewSession,
) -> Result<(), StoreError> {
    let SessionRequest {
        session: id,
        operator,
        reason,
        permissions,
    } = &session.request;
    sqlx::query(
        "INSERT INTO sessions (id, device, device_id, user, operator, reason, control, clipboard, legacy, \
         ticket_hash, password_hash, state, created_at, expires_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'offered', ?, ?)",
    )
    .bind(id.to_string())
    .bind(session.device.0)
    .bind(session.device_id.to_string())
    .bind(&session.user)
    .bind(operator)
    .bind(reason)
    .bind(permissions.control)
    .bind(permissions.clipboard)
    .bind(session.ticket_hash.is_none())
    .bind(&session.ticket_hash)
    .bind(&session.password_hash)
    .bind(now)
    .bind(session.expires_at)
    .execute(tx)
    .await?;
    Ok(())
}

/// One session.
pub async fn find(
    tx: &mut SqliteConnection,
    id: SessionId,
) -> Result<Option<SessionOnFile>, StoreError> {
    let found = sqlx::query("SELECT * FROM sessions WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(tx)
        .await?;
    found.as_ref().map(on_file).transpose()
}

/// The session of an older console, by its password's hash. Its password has 122 random bits: looking for it in an
/// index tells nobody anything.
pub async fn by_legacy_password(
    tx: &mut SqliteConnection,
    hash: &str,
) -> Result<Option<SessionOnFile>, StoreError> {
    let found = sqlx::query("SELECT * FROM sessions WHERE password_hash = ? AND legacy = 1")
        .bind(hash)
        .fetch_optional(tx)
        .await?;
    found.as_ref().map(on_file).transpose()
}

/// The offers to a device that are still open, oldest first.
pub async fn open_offers(
    tx: &mut SqliteConnection,
    now: i64,
    device: Row,
) -> Result<Vec<SessionRequest>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM sessions WHERE device = ? AND state = 'offered' AND expires_at > ? ORDER BY number",
    )
    .bind(device.0)
    .bind(now)
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| Ok(on_file(row)?.request)).collect()
}

/// How many offers to a device are open.
pub async fn open_offer_count(
    tx: &mut SqliteConnection,
    now: i64,
    device: Row,
) -> Result<u32, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM sessions WHERE device = ? AND state = 'offered' AND expires_at > ?",
    )
    .bind(device.0)
    .bind(now)
    .fetch_one(tx)
    .await?)
}

/// The device is allowed to begin, once: true only for the first question about an open offer.
pub async fn allow(tx: &mut SqliteConnection, id: SessionId) -> Result<bool, StoreError> {
    let done =
        sqlx::query("UPDATE sessions SET state = 'allowed' WHERE id = ? AND state = 'offered'")
            .bind(id.to_string())
            .execute(tx)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// A session that has not begun will not begin; true if it was still to come.
pub async fn refuse(
    tx: &mut SqliteConnection,
    now: i64,
    id: SessionId,
    code: &str,
    sentence: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE sessions SET state = 'refused', ended_at = ?, end_code = ?, end_sentence = ? \
         WHERE id = ? AND state = 'offered'",
    )
    .bind(now)
    .bind(code)
    .bind(sentence)
    .bind(id.to_string())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes who asked for a session's end.
pub async fn note_end_asked(
    tx: &mut SqliteConnection,
    id: SessionId,
    by: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE sessions SET end_asked_by = coalesce(end_asked_by, ?) WHERE id = ?")
        .bind(by)
        .bind(id.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

/// The viewer sees the screen; true if that is news.
pub async fn start(
    tx: &mut SqliteConnection,
    now: i64,
    device: Row,
    id: SessionId,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE sessions SET state = 'running', started_at = ?, ended_at = NULL, end_code = NULL, end_sentence = NULL \
         WHERE id = ? AND device = ? AND (state = 'allowed' OR (state = 'refused' AND end_code = ?))",
    )
    .bind(now)
    .bind(id.to_string())
    .bind(device.0)
    .bind(DEVICE_SILENT)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Files a record; true if it is the first.
pub async fn finish(
    tx: &mut SqliteConnection,
    now: i64,
    record: &SessionRecord,
    state: SessionState,
    started_at: Option<i64>,
) -> Result<bool, StoreError> {
    let size = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let done = sqlx::query(
        "UPDATE sessions SET state = ?, started_at = ?, \
         ended_at = CASE WHEN end_code = ? THEN ? ELSE coalesce(ended_at, ?) END, end_code = ?, \
         end_sentence = ?, duration_ms = ?, bytes_to_device = ?, bytes_to_console = ? \
         WHERE id = ? AND duration_ms IS NULL",
    )
    .bind(state_word(state))
    .bind(started_at)
    .bind(DEVICE_SILENT)
    .bind(now)
    .bind(now)
    .bind(umbra_protocol::refusal::clip(record.code.clone()))
    .bind(umbra_protocol::refusal::clip(record.sentence.clone()))
    .bind(size(record.duration_ms))
    .bind(size(record.bytes_to_device))
    .bind(size(record.bytes_to_console))
    .bind(record.session.to_string())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Offers whose time is over become refused; returns which.
pub async fn expire(
    tx: &mut SqliteConnection,
    now: i64,
    code: &str,
    sentence: &str,
) -> Result<Vec<SessionId>, StoreError> {
    let ids: Vec<String> = sqlx::query_scalar(
        "UPDATE sessions SET state = 'refused', ended_at = expires_at, end_code = ?, end_sentence = ? \
         WHERE state = 'offered' AND expires_at <= ? RETURNING id",
    )
    .bind(code)
    .bind(sentence)
    .bind(now)
    .fetch_all(tx)
    .await?;
    ids.iter().map(|id| parsed("a session ID", id)).collect()
}

/// Sessions that were allowed, and whose ticket expired at `before` or earlier, become refused at `now`; returns which. The device
/// has not said that they began, nor why they did not; if it still does, that counts.
pub async fn give_up(
    tx: &mut SqliteConnection,
    now: i64,
    before: i64,
    sentence: &str,
) -> Result<Vec<SessionId>, StoreError> {
    let ids: Vec<String> = sqlx::query_scalar(
        "UPDATE sessions SET state = 'refused', ended_at = ?, end_code = ?, end_sentence = ? \
         WHERE state = 'allowed' AND expires_at <= ? RETURNING id",
    )
    .bind(now)
    .bind(DEVICE_SILENT)
    .bind(sentence)
    .bind(before)
    .fetch_all(tx)
    .await?;
    ids.iter().map(|id| parsed("a session ID", id)).collect()
}

fn info(row: &SqliteRow) -> Result<SessionInfo, StoreError> {
    let size = |column: &str| -> Result<Option<u64>, StoreError> {
        Ok(row
            .try_get::<Option<i64>, _>(column)?
            .map(i64::unsigned_abs))
    };
    Ok(SessionInfo {
        session: parsed("a session ID", row.try_get("id")?)?,
        device_name: row.try_get("device_name")?,
        device: parsed("a device ID", row.try_get("device_id")?)?,
        user: row.try_get("user")?,
        reason: row.try_get("reason")?,
        permissions: permissions(row)?,
        state: state(row)?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
        end_code: row.try_get("end_code")?,
        end_sentence: row.try_get("end_sentence")?,
        duration_ms: size("duration_ms")?,
        bytes_to_device: size("bytes_to_device")?,
        bytes_to_console: size("bytes_to_console")?,
    })
}

/// One session, to be shown.
pub async fn show(
    tx: &mut SqliteConnection,
    id: SessionId,
) -> Result<Option<SessionInfo>, StoreError> {
    let found = sqlx::query(
        "SELECT s.*, d.name AS device_name FROM sessions s JOIN devices d ON d.row = s.device WHERE s.id = ?",
    )
    .bind(id.to_string())
    .fetch_optional(tx)
    .await?;
    found.as_ref().map(info).transpose()
}

/// The newest sessions of all devices or of one, newest first.
pub async fn list(
    tx: &mut SqliteConnection,
    device: Option<Row>,
    limit: u32,
) -> Result<Vec<SessionInfo>, StoreError> {
    let rows = sqlx::query(
        "SELECT s.*, d.name AS device_name FROM sessions s JOIN devices d ON d.row = s.device \
         WHERE ?1 IS NULL OR s.device = ?1 ORDER BY s.number DESC LIMIT ?2",
    )
    .bind(device.map(|row| row.0))
    .bind(limit)
    .fetch_all(tx)
    .await?;
    rows.iter().map(info).collect()
}
