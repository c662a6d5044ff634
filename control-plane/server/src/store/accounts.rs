//! Accounts and the tokens of those who are logged in.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use umbra_protocol::api::{Account, Role};

use super::StoreError;

/// An account with its password's hash.
#[derive(Debug)]
pub struct AccountOnFile {
    /// What may be shown.
    pub account: Account,
    /// Argon2id, PHC string.
    pub password: String,
}

/// The word under which a role is stored.
pub fn role_word(role: Role) -> &'static str {
    match role {
        Role::Administrator => "administrator",
        Role::Operator => "operator",
        Role::Auditor => "auditor",
    }
}

fn account(row: &SqliteRow) -> Result<Account, StoreError> {
    let role = match row.try_get::<&str, _>("role")? {
        "administrator" => Role::Administrator,
        "operator" => Role::Operator,
        "auditor" => Role::Auditor,
        other => return Err(StoreError::Unreadable(format!("the role {other}"))),
    };
    Ok(Account {
        user: row.try_get("user")?,
        display_name: row.try_get("display_name")?,
        role,
    })
}

/// Files an account; false if there is one of that name.
pub async fn add(
    tx: &mut SqliteConnection,
    now: i64,
    account: &Account,
    password: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO accounts (user, display_name, role, password, created_at) \
         VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(&account.user)
    .bind(&account.display_name)
    .bind(role_word(account.role))
    .bind(password)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// One account.
pub async fn find(
    tx: &mut SqliteConnection,
    user: &str,
) -> Result<Option<AccountOnFile>, StoreError> {
    let row = sqlx::query("SELECT user, display_name, role, password FROM accounts WHERE user = ?")
        .bind(user)
        .fetch_optional(tx)
        .await?;
    row.map(|row| {
        Ok(AccountOnFile {
            account: account(&row)?,
            password: row.try_get("password")?,
        })
    })
    .transpose()
}

/// All accounts, by name.
pub async fn list(tx: &mut SqliteConnection) -> Result<Vec<Account>, StoreError> {
    let rows = sqlx::query("SELECT user, display_name, role FROM accounts ORDER BY user")
        .fetch_all(tx)
        .await?;
    rows.iter().map(account).collect()
}

/// How many administrators there are.
pub async fn administrators(tx: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(
        sqlx::query_scalar("SELECT count(*) FROM accounts WHERE role = 'administrator'")
            .fetch_one(tx)
            .await?,
    )
}

/// Sets a password's hash and ends all log-ins of that account; false if there is none.
pub async fn set_password(
    tx: &mut SqliteConnection,
    user: &str,
    password: &str,
) -> Result<bool, StoreError> {
    sqlx::query("DELETE FROM tokens WHERE user = ?")
        .bind(user)
        .execute(&mut *tx)
        .await?;
    let done = sqlx::query("UPDATE accounts SET password = ? WHERE user = ?")
        .bind(password)
        .bind(user)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes an account and ends its log-ins; false if there is none.
pub async fn remove(tx: &mut SqliteConnection, user: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM accounts WHERE user = ?")
        .bind(user)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Files a token by its hash, and forgets those whose time is over.
pub async fn add_token(
    tx: &mut SqliteConnection,
    now: i64,
    user: &str,
    hash: &str,
    expires_at: i64,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tokens WHERE expires_at <= ?")
        .bind(now)
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO tokens (hash, user, created_at, expires_at) VALUES (?, ?, ?, ?)")
        .bind(hash)
        .bind(user)
        .bind(now)
        .bind(expires_at)
        .execute(tx)
        .await?;
    Ok(())
}

/// Whose token that is, if it is still valid.
pub async fn by_token(
    tx: &mut SqliteConnection,
    now: i64,
    hash: &str,
) -> Result<Option<Account>, StoreError> {
    let row = sqlx::query(
        "SELECT accounts.user, display_name, role FROM tokens \
         JOIN accounts ON accounts.user = tokens.user WHERE hash = ? AND expires_at > ?",
    )
    .bind(hash)
    .bind(now)
    .fetch_optional(tx)
    .await?;
    row.as_ref().map(account).transpose()
}

/// Forgets a token.
pub async fn end_token(tx: &mut SqliteConnection, hash: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tokens WHERE hash = ?")
        .bind(hash)
        .execute(tx)
        .await?;
    Ok(())
}
