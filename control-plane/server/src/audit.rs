//! The audit log: one line for everything that changes something and for every refusal. Lines are written in the same
//! transaction as the change itself, so that neither exists without the other; nobody can alter or delete one.

use sqlx::{Row as _, SqliteConnection};
use umbra_protocol::UnitId;
use umbra_protocol::api::AuditEntry;
use umbra_protocol::refusal::clip;

use crate::store::{Change, StoreError};

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// An operator's account, or the name under which somebody tried to log in.
    Account(String),
    /// A device, by its label.
    Device(UnitId),
    /// The server itself, or the person at its command line.
    Server,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::Account(user) => f.write_str(user),
            Actor::Device(unit) => write!(f, "device:{unit}"),
            Actor::Server => f.write_str("server"),
        }
    }
}

/// One line that is about to be written.
#[derive(Clone, Debug)]
pub struct Line {
    actor: Actor,
    action: &'static str,
    subject: String,
    outcome: String,
    detail: String,
}

impl Line {
    /// `action` is a stable word such as `key.created`; the outcome is `ok` until [`Line::refused`] says otherwise.
    pub fn new(actor: Actor, action: &'static str, subject: impl ToString) -> Self {
        Self {
            actor,
            action,
            subject: subject.to_string(),
            outcome: "ok".into(),
            detail: String::new(),
        }
    }

    /// It did not work: a stable code.
    pub fn refused(mut self, code: impl ToString) -> Self {
        self.outcome = code.to_string();
        self
    }

    /// More, for a person.
    pub fn detail(mut self, detail: impl ToString) -> Self {
        self.detail = detail.to_string();
        self
    }

    /// Tells the program's own log.
    pub(crate) fn log(self) {
        let Self {
            actor,
            action,
            subject,
            outcome,
            detail,
        } = self;
        let (actor, subject, detail) = (clip(actor.to_string()), clip(subject), clip(detail));
        tracing::info!(action, outcome, "audit");
        tracing::debug!(action, actor, subject, detail, "audit");
    }
}

/// Writes one line.
pub async fn append(tx: &mut Change, now: i64, line: Line) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (at, actor, action, subject, outcome, detail) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(now)
    .bind(clip(line.actor.to_string()))
    .bind(line.action)
    .bind(clip(line.subject.clone()))
    .bind(&line.outcome)
    .bind(clip(line.detail.clone()))
    .execute(&mut **tx)
    .await?;
    tx.tell(line);
    Ok(())
}

/// At most `limit` lines with numbers below `before`, newest first.
pub async fn page(
    tx: &mut SqliteConnection,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    let before = before
        .and_then(|number| i64::try_from(number).ok())
        .unwrap_or(i64::MAX);
    let rows = sqlx::query(
        "SELECT number, at, actor, action, subject, outcome, detail FROM audit \
         WHERE number < ? ORDER BY number DESC LIMIT ?",
    )
    .bind(before)
    .bind(limit)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(AuditEntry {
                number: row.try_get::<i64, _>("number")?.unsigned_abs(),
                at: row.try_get("at")?,
                actor: row.try_get("actor")?,
                action: row.try_get("action")?,
                subject: row.try_get("subject")?,
                outcome: row.try_get("outcome")?,
                detail: row.try_get("detail")?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    async fn three_lines() -> (tempfile::TempDir, Store) {
        let (folder, store) = Store::for_tests().await;
        let mut tx = store.begin().await.expect("begins");
        for subject in ["one", "two", "three"] {
            let line = Line::new(Actor::Server, "test.line", subject).detail("a\u{1b}[2Jb");
            append(&mut tx, 5, line).await.expect("written");
        }
        tx.commit().await.expect("committed");
        (folder, store)
    }

    #[tokio::test]
    async fn lines_are_numbered_without_a_gap_and_read_back_newest_first() {
        let (_folder, store) = three_lines().await;
        let mut tx = store.begin().await.expect("begins");
        append(
            &mut tx,
            6,
            Line::new(Actor::Server, "test.line", "taken back"),
        )
        .await
        .expect("written");
        tx.rollback().await.expect("rolled back");
        let mut tx = store.begin().await.expect("begins");
        append(&mut tx, 6, Line::new(Actor::Server, "test.line", "four"))
            .await
            .expect("written");
        let lines = page(&mut tx, None, 10).await.expect("read");
        let numbers: Vec<u64> = lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [4, 3, 2, 1]);
        assert_eq!(lines[0].subject, "four");
        assert_eq!(
            lines[1].detail, "a [2Jb",
            "control characters are taken out"
        );
        let page = page(&mut tx, Some(3), 1).await.expect("read");
        assert_eq!(page.len(), 1);
        assert_eq!(page[0].number, 2);
    }

    /// What a log has been told.
    #[derive(Clone, Default)]
    struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("whole").clone()).expect("text")
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("whole").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_log_is_told_of_a_line_when_it_is_committed_and_not_before() {
        let log = Log::default();
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || written.clone())
            .with_ansi(false)
            .finish();
        let _told = tracing::subscriber::set_default(subscriber);
        let (_folder, store) = Store::for_tests().await;
        let line = |action| Line::new(Actor::Server, action, "x");
        let mut tx = store.begin().await.expect("begins");
        append(&mut tx, 5, line("test.taken_back"))
            .await
            .expect("written");
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        append(&mut tx, 5, line("test.kept"))
            .await
            .expect("written");
        assert!(!log.text().contains("test."), "{}", log.text());
        tx.commit().await.expect("committed");
        let text = log.text();
        assert!(text.contains("test.kept"), "{text}");
        assert!(!text.contains("test.taken_back"), "{text}");
    }

    #[tokio::test]
    async fn nobody_can_alter_delete_or_replace_a_line() {
        let (_folder, store) = three_lines().await;
        for attempt in [
            "UPDATE audit SET actor = 'x'",
            "DELETE FROM audit",
            "DELETE FROM audit WHERE number = 2",
            "INSERT OR REPLACE INTO audit VALUES (2, 0, 'x', 'x', 'x', 'x', 'x')",
        ] {
            let mut tx = store.begin().await.expect("begins");
            let error = sqlx::query(attempt)
                .execute(&mut *tx)
                .await
                .expect_err(attempt);
            assert!(error.to_string().contains("append-only"), "{error}");
        }
        let mut tx = store.begin().await.expect("begins");
        assert_eq!(page(&mut tx, None, 10).await.expect("read").len(), 3);
    }
}
