//! TLS 1.3 between two true ends: whose certificate is shown, whose is trusted, and what went wrong in words. There is
//! no older version, no resumption, no early data and no process-wide provider; nothing here falls back to plaintext.

mod client;
mod envelope;
mod error;
mod explain;
mod gateway;
mod identity;
mod judge;
mod public;
mod server;
mod trust;

use std::sync::Arc;

use rustls::ConnectionCommon;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite;
use rustls::pki_types::CertificateDer;

pub use client::{HostKind, connect_tls, device_config, fetch_chain, probe_kind, uplink_config};
pub use envelope::{EnvelopeTrust, envelope_config};
pub use error::TlsError;
pub(crate) use error::fingerprint;
pub use gateway::{
    SwappableIdentity, accept_tls, accept_uplink, envelope_acceptor_config, uplink_acceptor_config,
};
pub use identity::{IdentityError, TlsIdentity, certificates_from_pem};
pub use judge::judge_chain;
pub use public::{PublicRoots, vouched_for};
pub use server::{Accepted, accept_by_alpn, http_acceptor_config, link_acceptor_config};
pub use trust::{DatePolicy, ServerTrust, TrustError};
pub use umbra_tls_stream::ServerStream;

/// What every TLS connection of this program computes with; keys are agreed on as `umbra-key-exchange` says. Without AES instructions, as on small ARM boards,
/// ChaCha20 comes first: it is several times faster there, and doesn't leak through the cache.
pub fn provider() -> Arc<CryptoProvider> {
    let aes = [
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ];
    let chacha = [cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    let cipher_suites = if cpu_has_aes() {
        [&aes[..], &chacha[..]].concat()
    } else {
        [&chacha[..], &aes[..]].concat()
    };
    Arc::new(CryptoProvider {
        cipher_suites,
        ..umbra_key_exchange::provider()
    })
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn cpu_has_aes() -> bool {
    std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_aes() -> bool {
    false
}

/// The certificates that the other side presented, its own first; empty where it presented none. Takes the connection
/// of either side: `presented_chain(stream.get_ref().1)`.
pub fn presented_chain<Data>(connection: &ConnectionCommon<Data>) -> Vec<CertificateDer<'static>> {
    connection
        .peer_certificates()
        .map(<[_]>::to_vec)
        .unwrap_or_default()
}

/// 32 bytes that only the two ends of this very connection can compute (RFC 8446, section 7.5), without context. Takes
/// the connection of either side: `exporter(stream.get_ref().1, label)`.
///
/// # Errors
/// [`TlsError::RulesBroken`] where the handshake isn't complete.
pub fn exporter<Data>(
    connection: &ConnectionCommon<Data>,
    label: impl AsRef<[u8]>,
) -> Result<[u8; 32], TlsError> {
    Ok(connection.export_keying_material([0; 32], label.as_ref(), None)?)
}
