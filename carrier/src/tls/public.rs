//! The certification authorities that everybody trusts. They vouch for a server's name, never for its being the right
//! server: who relies on them needs another proof inside the connection. The list is a value that is handed on; nothing on
//! the machine, no file and no variable, is ever read for it here.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::client::read_name;
use super::error::TlsError;
use super::trust::{ChainVerifier, DatePolicy, ServerTrust, can_be_root};
use crate::x509::printable;

/// Public certification authorities.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicRoots(Arc<[TrustAnchor<'static>]>);

impl PublicRoots {
    /// Those that Mozilla lists, as of the day on which this program was built.
    pub fn built_in() -> Self {
        Self(webpki_roots::TLS_SERVER_ROOTS.into())
    }

    /// Those whom somebody lists who may decide that. Certificates that can't be roots are passed over.
    pub fn of_certificates(certificates: &[CertificateDer<'_>]) -> Self {
        Self(
            certificates
                .iter()
                .filter(|certificate| can_be_root(certificate))
                .filter_map(|root| webpki::anchor_from_trusted_cert(root).ok())
                .map(|anchor| anchor.to_owned())
                .collect(),
        )
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.0
    }
}

impl fmt::Debug for PublicRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} public roots", self.count())
    }
}

/// The name of the public authority that vouches for this chain being `host`'s, at the time `now` (seconds since 1970). Says
/// nothing about who holds the chain's key: [`probe_kind`](super::probe_kind) does.
///
/// # Errors
/// [`TlsError`]: what is wrong with the chain, or that none of them vouches for it.
pub fn vouched_for(
    chain: &[CertificateDer<'_>],
    roots: &PublicRoots,
    host: &str,
    dates: DatePolicy,
    now: i64,
) -> Result<String, TlsError> {
    let Some((end, others)) = chain.split_first() else {
        return Err(TlsError::NoCertificate);
    };
    let name = read_name(host)?;
    let now = u64::try_from(now).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
    let trust = ServerTrust::PublicCa(roots.clone());
    let verifier = ChainVerifier::new(trust, dates)
        .map_err(|_| TlsError::UnknownRoot)?
        .or_gateway();
    let subject = verifier.verify_to(end, others, &name, now)?;
    Ok(name_text(&subject.unwrap_or_default()))
}

/// The name of an authority as people know it, from the content of a subject's sequence.
fn name_text(content: &[u8]) -> String {
    const UNNAMED: &str = "(no name)";
    let Ok(length) = u16::try_from(content.len()) else {
        return UNNAMED.to_owned();
    };
    let mut der = vec![0x30, 0x82];
    der.extend(length.to_be_bytes());
    der.extend(content);
    let Ok((_, name)) = X509Name::from_der(&der) else {
        return UNNAMED.to_owned();
    };
    let organization = name.iter_organization().next();
    let spoken = name
        .iter_common_name()
        .next()
        .or(organization)
        .and_then(|attribute| attribute.as_str().ok());
    match spoken {
        Some(text) => printable(text, 80),
        None => UNNAMED.to_owned(),
    }
}

/// A moment as people read it, in UTC.
pub fn date_text(unix: i64) -> String {
    let days = unix.div_euclid(86_400);
    let seconds = unix.rem_euclid(86_400);
    // Days since 1970 to a date of the Gregorian calendar, counted in years that begin in March, so that leap days come last.
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        seconds / 3_600,
        seconds % 3_600 / 60
    )
}

/// A text from a stranger, safe to show: control characters, and those that change the direction of writing, are
/// replaced, and it ends after `limit` characters.
pub fn printable(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            shown.push('…');
            break;
        }
        let changes_direction = matches!(character,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        shown.push(if character.is_control() || changes_direction {
            '\u{fffd}'
        } else {
            character
        });
    }
    shown
}

fn bounded(der: &[u8]) -> Result<(), CertificateError> {
    if der.len() > MAX_CERTIFICATE {
        Err(CertificateError::TooLarge { size: der.len() })
    } else {
        Ok(())
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn hex(bytes: &[u8], limit: usize) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(limit / 2) {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
