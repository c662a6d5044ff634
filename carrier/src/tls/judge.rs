//! What a TLS connection would say of a chain, without a connection: the very verification of the handshake, for explaining
//! and for testing it. It says nothing about who holds the chain's key, so nobody may be trusted for what it says.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::client::read_name;
use super::error::TlsError;
use super::trust::{ChainVerifier, DatePolicy, ServerTrust, TrustError, read};

/// Whether a server that presents this chain (its own certificate first) under the name `host` would be taken for one that
/// `trust` vouches for, at the time `now` (seconds since 1970). Gateways are taken like servers.
///
/// # Errors
/// [`TlsError`]: why a connection would be refused.
pub fn judge_chain(
    chain: &[CertificateDer<'_>],
    trust: ServerTrust,
    host: &str,
    dates: DatePolicy,
    now: i64,
) -> Result<(), TlsError> {
    let Some((end, others)) = chain.split_first() else {
        return Err(TlsError::NoCertificate);
    };
    let name = read_name(host)?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    ChainVerifier::new(trust, dates)
        .map_err(in_terms_of_a_chain)?
        .or_gateway()
        .verify(end, others, &name, now)?;
    // In a handshake the server signs with this key, and no signature by another kind of key is taken.
    if read(end)?.key_is_usable {
        Ok(())
    } else {
        Err(TlsError::SignatureNotAccepted)
    }
}

/// A root that can't be pinned, as if the server had presented it.
fn in_terms_of_a_chain(error: TrustError) -> TlsError {
    match error {
        TrustError::NoRoots => TlsError::UnknownRoot,
        TrustError::Unreadable { .. } => TlsError::CertificateUnreadable,
        TrustError::NotCa { subject } => TlsError::NotCa { subject },
        TrustError::MayNotSign { subject } => TlsError::MayNotSign { subject },
    }
}
