//! What fuzz targets reach of what is private here. It exists only while fuzzing.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use umbra_protocol::{Secret, UnitId};

use super::mail::Address;
use super::pouch::Pouch;
use super::smtp;

/// Reads a list of units.
///
/// # Errors
/// A sentence for each mistake.
pub fn units(bytes: &[u8]) -> Result<Vec<UnitId>, Vec<String>> {
    super::units::read(bytes)
}

/// Reads e-mail addresses.
///
/// # Errors
/// A sentence for each mistake.
pub fn addresses(text: &str) -> Result<Vec<String>, Vec<String>> {
    let all = Address::parse_all(text)?;
    Ok(all
        .iter()
        .map(|address| address.as_str().to_owned())
        .collect())
}

/// How many keys of this server a pouch beside this file holds.
///
/// # Errors
/// Why it can't be used, as a sentence.
pub fn pouch(config: &Path, server: &str) -> Result<usize, String> {
    let kept = Pouch::beside(config).of(server);
    kept.map(|kept| kept.len())
        .map_err(|error| error.to_string())
}

/// Greets a mail server, logs in, and hands in one e-mail.
///
/// # Errors
/// Why it was not taken, as a sentence.
pub async fn mail<S>(stream: S, user: &str, password: &Secret, mail: &str) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let address = Address::parse("a@example.com")?;
    let to = std::slice::from_ref(&address);
    let done = smtp::fuzzing::talk(
        stream,
        Duration::from_secs(1),
        (user, password),
        (&address, to, mail),
    );
    done.await.map_err(|error| error.to_string())
}
