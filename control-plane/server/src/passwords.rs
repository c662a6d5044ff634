//! Operators' passwords: Argon2id, which costs an attacker memory and time, and this server no more than a bounded
//! number of computations at once. An account that does not exist costs as much as one that does.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;
use umbra_protocol::Secret;

use crate::random;

/// Fewest characters of a password.
pub const SHORTEST: usize = 12;
/// Most bytes of a password.
const LONGEST: usize = 1_024;
/// Computations at once; each takes 19 MiB.
const AT_ONCE: usize = 2;
/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a password was not hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error("a password has {SHORTEST} to {LONGEST} characters")]
    Length,
    /// Too many log in at once.
    #[error("too many passwords are being checked")]
    Busy,
    /// The computation failed.
    #[error("the password could not be hashed: {0}")]
    Failed(String),
}

/// Hashes a new password.
pub fn hash(password: &Secret) -> Result<String, PasswordError> {
    let text = password.reveal();
    if text.chars().count() < SHORTEST || text.len() > LONGEST {
        return Err(PasswordError::Length);
    }
    Argon2::default()
        .hash_password_with_salt(text.as_bytes(), &random::bytes::<16>())
        .map(|hash| hash.to_string())
        .map_err(|error| PasswordError::Failed(error.to_string()))
}

fn matches(password: &Secret, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(password.reveal().as_bytes(), &hash)
            .is_ok()
    })
}

/// Checks and hashes passwords, a few at a time.
#[derive(Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    nobodys: String,
}

impl Passwords {
    /// Makes the hash that stands in for accounts that do not exist.
    pub fn new() -> Result<Self, PasswordError> {
        Ok(Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            nobodys: hash(&random::password())?,
        })
    }

    /// Whether a password fits a hash; without one it takes as long and never fits.
    pub async fn check(
        &self,
        password: Secret,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobodys.clone());
        if password.reveal().len() > LONGEST {
            return Ok(false);
        }
        let fits = self.in_turn(move || matches(&password, &hash)).await?;
        Ok(fits && exists)
    }

    /// Hashes a new password.
    pub async fn hash(&self, password: Secret) -> Result<String, PasswordError> {
        self.in_turn(move || hash(&password)).await?
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(PasswordError::Busy);
        };
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        })
        .await
        .map_err(|error| PasswordError::Failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_an_account_that_exists_fits() {
        let passwords = Passwords::new().expect("hashes");
        let right = Secret::new("correct horse battery");
        let hash = passwords.hash(right.clone()).await.expect("hashed");
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        let check = |password: &Secret, hash: Option<String>| {
            let password = password.clone();
            let passwords = &passwords;
            async move { passwords.check(password, hash).await.expect("checked") }
        };
        assert!(check(&right, Some(hash.clone())).await);
        assert!(!check(&Secret::new("correct horse batterz"), Some(hash)).await);
        assert!(!check(&right, None).await);
    }

    #[test]
    fn short_passwords_are_refused() {
        assert!(matches!(
            hash(&Secret::new("elevenchars")),
            Err(PasswordError::Length)
        ));
    }
}
