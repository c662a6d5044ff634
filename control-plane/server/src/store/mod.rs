//! The database: one SQLite file, changed in transactions that either happen as a whole or not at all. It holds no
//! secret that could be used after it was stolen: passwords, tokens, tickets and keys are stored as hashes or verifiers.

pub mod accounts;
pub mod commands;
pub mod devices;
pub mod gateways;
pub mod keys;
pub mod meta;
pub mod sessions;

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::audit::Line;

/// Longest wait for the database: behind other transactions, or behind another process.
const PATIENCE: Duration = Duration::from_secs(8);

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room on the disk.
    #[error("the database cannot be written, because the disk is full")]
    Full(#[source] sqlx::Error),
    /// Nothing can be written: read-only, or broken.
    #[error("the database cannot be written")]
    NotWritable(#[source] sqlx::Error),
    /// Too many wait for it.
    #[error("the database is busy")]
    Busy(#[source] sqlx::Error),
    /// It holds something that this program did not write.
    #[error("the database holds something unreadable: {0}")]
    Unreadable(String),
    /// Its tables are from a newer version of this program, or were changed.
    #[error("the database could not be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// Anything else.
    #[error("the database failed")]
    Failed(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign, growing enum")]
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => return Self::Busy(error),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => {
                return Self::Unreadable(error.to_string());
            }
            _ => {}
        }
        // SQLite's primary result codes; the extended ones have more in the upper bits.
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .and_then(|code| code.parse::<i64>().ok())
            .map(|code| code & 0xff);
        match code {
            Some(5 | 6) => Self::Busy(error),
            Some(13) => Self::Full(error),
            Some(8 | 10 | 14) => Self::NotWritable(error),
            Some(_) | None => Self::Failed(error),
        }
    }
}

/// The open database: one connection that writes, so that transactions wait for each other in order, and some that
/// read.
#[derive(Clone, Debug)]
pub struct Store {
    write: SqlitePool,
    read: SqlitePool,
}

impl Store {
    /// Opens the file, makes it if it is not there, and brings its tables up to date.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A one-time key that was used stays used, even when the power fails in the same second.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            // A full disk makes SQLite take a transaction back by itself. The connection counts it as open for ever after and
            // would begin no other: a new one takes its place.
            .before_acquire(|connection, _| {
                let usable = !connection.is_in_transaction();
                Box::pin(async move { Ok(usable) })
            })
            .connect_with(options.clone())
            .await?;
        sqlx::migrate!()
            .run(&write)
            .await
            .map_err(StoreError::Migration)?;
        let read = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(PATIENCE)
            .connect_with(options.pragma("query_only", "ON"))
            .await?;
        Ok(Self { write, read })
    }

    /// Begins a transaction that may write. It waits for the one before it, and is taken back unless it is committed.
    pub async fn begin(&self) -> Result<Change, StoreError> {
        Ok(Change {
            transaction: self.write.begin_with("BEGIN IMMEDIATE").await?,
            lines: Vec::new(),
        })
    }

    /// A connection for reading only.
    pub async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.read.acquire().await?)
    }

    /// Writes a copy of the whole database to a file that must not exist yet.
    pub async fn backup(&self, file: &str) -> Result<(), StoreError> {
        let mut connection = self.write.acquire().await?;
        sqlx::query("VACUUM INTO ?")
            .bind(file)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Ends all connections; what is committed is on the disk.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    #[cfg(test)]
    pub(crate) async fn for_tests() -> (tempfile::TempDir, Self) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Self::open(&folder.path().join("test.db"))
            .await
            .expect("the database opens");
        (folder, store)
    }
}

/// A transaction that may write, and the lines of the audit log in it. The program's own log is told of those when they are
/// true, which is when the transaction is committed.
#[derive(Debug)]
pub struct Change {
    transaction: Transaction<'static, Sqlite>,
    lines: Vec<Line>,
}

impl Change {
    /// Tells the program's log of this line once it is committed.
    pub(crate) fn tell(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// Makes it all true.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await?;
        for line in self.lines {
            line.log();
        }
        Ok(())
    }

    /// Takes it all back, as dropping it does.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.transaction.rollback().await
    }
}

impl Deref for Change {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.transaction
    }
}

impl DerefMut for Change {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}

/// Reads a value that was stored as text.
fn parsed<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| StoreError::Unreadable(format!("{what}: {error}")))
}

/// Reads a value that was stored as JSON.
fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unreadable(format!("{what}: {error}")))
}

/// Writes a value as JSON.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("stored values have string keys and no foreign types")
}
