//! The certification authorities that everybody trusts. They vouch for a server's name, never for its being the right
//! server: who relies on them needs another proof inside the connection. The list is a value that is handed on; nothing on
//! the machine, no file and no variable, is ever read for it here.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};

use super::client::read_name;
use super::error::TlsError;
use super::trust::{ChainVerifier, DatePolicy, ServerTrust, can_be_root};
use crate::x509::{names, printable};

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
    let spoken = names::attribute(&der, names::COMMON_NAME)
        .or_else(|| names::attribute(&der, names::ORGANIZATION));
    match spoken {
        Some(text) => printable(&text, 80),
        None => UNNAMED.to_owned(),
    }
}
