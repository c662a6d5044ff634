//! Commands: kept until the device's result is here, and afterwards for the record.

use std::collections::BTreeMap;

use sqlx::{Row as _, SqliteConnection};
use umbra_protocol::CommandId;
use umbra_protocol::api::{CommandInfo, Progress};
use umbra_protocol::command::{Action, Command, CommandProgress, CommandResult, CommandState};
use umbra_protocol::refusal::clip;

use super::devices::Row;
use super::{StoreError, from_json, parsed, to_json};

/// Files a command.
pub async fn add(
    tx: &mut SqliteConnection,
    now: i64,
    by: &str,
    device: Row,
    command: &Command,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO commands (id, device, action, created_at, created_by) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(command.id.to_string())
    .bind(device.0)
    .bind(to_json(&command.action))
    .bind(now)
    .bind(by)
    .execute(tx)
    .await?;
    Ok(())
}

/// The commands without a result with numbers above `after`, oldest first, each with its number.
pub async fn waiting(
    tx: &mut SqliteConnection,
    device: Row,
    after: i64,
) -> Result<Vec<(i64, Command)>, StoreError> {
    let rows = sqlx::query(
        "SELECT number, id, action FROM commands WHERE device = ? AND state IS NULL AND number > ? ORDER BY number",
    )
    .bind(device.0)
    .bind(after)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            let command = Command {
                id: parsed("a command ID", row.try_get("id")?)?,
                action: from_json("a command", row.try_get("action")?)?,
            };
            Ok((row.try_get("number")?, command))
        })
        .collect()
}

fn state_word(state: CommandState) -> &'static str {
    match state {
        CommandState::Done => "done",
        CommandState::Failed => "failed",
        CommandState::Interrupted => "interrupted",
    }
}

/// A fact may have several lines; nothing else in it moves a cursor or turns text round.
fn printable(fact: &str) -> String {
    let lines: Vec<String> = fact.lines().map(|line| clip(line.to_owned())).collect();
    lines.join("\n")
}

/// Files a result, once; true if this is the first result of a command of this device.
pub async fn finish(
    tx: &mut SqliteConnection,
    now: i64,
    device: Row,
    result: &CommandResult,
) -> Result<bool, StoreError> {
    let facts: BTreeMap<String, String> = result
        .facts
        .iter()
        .map(|(name, fact)| (clip(name.clone()), printable(fact)))
        .collect();
    let done = sqlx::query(
        "UPDATE commands SET state = ?, sentence = ?, facts = ?, ended_at = ? \
         WHERE id = ? AND device = ? AND state IS NULL",
    )
    .bind(state_word(result.state))
    .bind(clip(result.sentence.clone()))
    .bind(to_json(&facts))
    .bind(now)
    .bind(result.id.to_string())
    .bind(device.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Files how far a command is that has no result yet.
pub async fn note_progress(
    tx: &mut SqliteConnection,
    now: i64,
    device: Row,
    progress: &CommandProgress,
) -> Result<(), StoreError> {
    let noted = Progress {
        percent: progress.percent,
        sentence: clip(progress.sentence.clone()),
        at: now,
    };
    sqlx::query("UPDATE commands SET progress = ? WHERE id = ? AND device = ? AND state IS NULL")
        .bind(to_json(&noted))
        .bind(progress.id.to_string())
        .bind(device.0)
        .execute(tx)
        .await?;
    Ok(())
}

/// The newest commands of a device, newest first.
pub async fn list(
    tx: &mut SqliteConnection,
    device: Row,
    limit: u32,
) -> Result<Vec<CommandInfo>, StoreError> {
    let rows = sqlx::query("SELECT * FROM commands WHERE device = ? ORDER BY number DESC LIMIT ?")
        .bind(device.0)
        .bind(limit)
        .fetch_all(tx)
        .await?;
    rows.iter()
        .map(|row| {
            let action: Action = from_json("a command", row.try_get("action")?)?;
            let state = match row.try_get::<Option<&str>, _>("state")? {
                None => None,
                Some("done") => Some(CommandState::Done),
                Some("failed") => Some(CommandState::Failed),
                Some("interrupted") => Some(CommandState::Interrupted),
                Some(other) => {
                    return Err(StoreError::Unreadable(format!("a command's state {other}")));
                }
            };
            Ok(CommandInfo {
                id: parsed::<CommandId>("a command ID", row.try_get("id")?)?,
                action: action.name().into(),
                created_at: row.try_get("created_at")?,
                created_by: row.try_get("created_by")?,
                state,
                sentence: row.try_get("sentence")?,
                facts: from_json("facts", row.try_get("facts")?)?,
                progress: row
                    .try_get::<Option<&str>, _>("progress")?
                    .map(|progress| from_json("progress", progress))
                    .transpose()?,
            })
        })
        .collect()
}
