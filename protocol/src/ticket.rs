//! Session tickets: compact JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037), signed by the server, checked by the
//! device. Only this one algorithm is spoken; a header that names another is refused before anything is verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::fingerprint::Fingerprint;
use crate::hello::TicketKey;
use crate::ids::{DeviceId, SessionId, from_hex, to_hex};
use crate::limits;
use crate::session::Permissions;

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ticket {
    /// Which session.
    pub session: SessionId,
    /// Which device.
    pub device: DeviceId,
    /// SHA-256 of the device's certificate.
    pub certificate: Fingerprint,
    /// Display name of the operator.
    pub operator: String,
    /// What the operator may do.
    pub permissions: Permissions,
    /// 128 random bits, hexadecimal: no two tickets are alike.
    pub nonce: String,
    /// When it was issued, by the server's clock, seconds since 1970.
    pub iat: i64,
    /// When it ends, by the server's clock, seconds since 1970. The server checks it; the device's clock has no say.
    pub exp: i64,
}

crate::json::object!(Ticket { session, device, certificate, operator, permissions, nonce, iat, exp;  });

/// Why a ticket is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Over the size limit.
    #[error("the ticket is too long")]
    TooLong,
    /// Not three base64url parts with the expected JSON inside.
    #[error("the ticket cannot be read")]
    Malformed,
    /// Another algorithm than EdDSA, or critical extensions.
    #[error("the ticket is signed in a way that is not accepted here")]
    Algorithm,
    /// The key is not one of the server's.
    #[error("the ticket is signed with a key that this device does not know")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the ticket's signature is wrong")]
    Signature,
}

#[derive(Serialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<Vec<String>>,
}

crate::json::object!(Header { alg, typ, kid; crit });

const TYPE: &str = "umbra-ticket";

/// The server's key for signing tickets.
pub struct TicketSigner {
    pair: Ed25519KeyPair,
    kid: String,
}

impl std::fmt::Debug for TicketSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketSigner({})", self.kid)
    }
}

impl TicketSigner {
    /// Makes a new key; returns the signer and its PKCS#8 form for keeping.
    pub fn generate() -> (Self, Zeroizing<Vec<u8>>) {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .expect("the system gives random bytes");
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        let signer = Self::from_pkcs8(&pkcs8).expect("a key that was just made can be read");
        (signer, pkcs8)
    }

    /// Reads a key from its PKCS#8 form; `None` if it is not an Ed25519 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let digest = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
        let kid = to_hex(&digest.as_ref()[..8]);
        Some(Self { pair, kid })
    }

    /// The public half, for devices.
    pub fn public(&self) -> TicketKey {
        TicketKey {
            kid: self.kid.clone(),
            ed25519: to_hex(self.pair.public_key().as_ref()),
        }
    }

    /// Signs a ticket.
    pub fn sign(&self, ticket: &Ticket) -> String {
        let header = Header {
            alg: "EdDSA".into(),
            typ: TYPE.into(),
            kid: self.kid.clone(),
            crit: None,
        };
        let part = |json: Result<Vec<u8>, _>| B64.encode(json.expect("plain structs serialise"));
        let signed = format!(
            "{}.{}",
            part(serde_json::to_vec(&header)),
            part(serde_json::to_vec(ticket))
        );
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", B64.encode(signature.as_ref()))
    }
}

/// Checks the signature with the server's keys and reads the ticket. Whether it is for this device, still valid and
/// unused is not answered here.
pub fn verify(compact: &str, keys: &[TicketKey]) -> Result<Ticket, TicketError> {
    if compact.len() > limits::TICKET {
        return Err(TicketError::TooLong);
    }
    let (signed, signature) = compact.rsplit_once('.').ok_or(TicketError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(TicketError::Malformed)?;
    let part = |text: &str| B64.decode(text).map_err(|_| TicketError::Malformed);
    let header: Header =
        crate::json::from_slice(&part(header)?).map_err(|_| TicketError::Malformed)?;
    if header.alg != "EdDSA" || header.typ != TYPE || header.crit.is_some() {
        return Err(TicketError::Algorithm);
    }
    let key = keys
        .iter()
        .find(|key| key.kid == header.kid)
        .ok_or(TicketError::UnknownKey)?;
    let public = from_hex::<32>(&key.ed25519).ok_or(TicketError::UnknownKey)?;
    UnparsedPublicKey::new(&ED25519, public)
        .verify(signed.as_bytes(), &part(signature)?)
        .map_err(|_| TicketError::Signature)?;
    crate::json::from_slice(&part(payload)?).map_err(|_| TicketError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            session: SessionId::from_bytes([1; 16]),
            device: DeviceId::from_bytes([2; 32]),
            certificate: Fingerprint::from_bytes([3; 32]),
            operator: "Ada".into(),
            permissions: Permissions {
                control: true,
                clipboard: false,
            },
            nonce: "00".repeat(16),
            iat: 1,
            exp: 61,
        }
    }

    #[test]
    fn a_signed_ticket_reads_back() {
        let (signer, pkcs8) = TicketSigner::generate();
        let again = TicketSigner::from_pkcs8(&pkcs8).expect("kept keys can be read");
        let compact = again.sign(&ticket());
        assert_eq!(verify(&compact, &[signer.public()]), Ok(ticket()));
    }

    #[test]
    fn every_altered_character_is_noticed() {
        let (signer, _) = TicketSigner::generate();
        let compact = signer.sign(&ticket());
        for at in 0..compact.len() {
            let mut altered = compact.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("ASCII");
            assert!(
                verify(&altered, &[signer.public()]).is_err(),
                "position {at} of {compact}"
            );
        }
    }

    #[test]
    fn a_strangers_signature_is_refused_even_under_the_servers_key_name() {
        let (server, _) = TicketSigner::generate();
        let (stranger, _) = TicketSigner::generate();
        let compact = stranger.sign(&ticket());
        assert_eq!(
            verify(&compact, &[server.public()]),
            Err(TicketError::UnknownKey)
        );
        let posing = TicketKey {
            kid: stranger.public().kid,
            ed25519: server.public().ed25519,
        };
        assert_eq!(verify(&compact, &[posing]), Err(TicketError::Signature));
    }

    #[test]
    fn other_algorithms_are_refused_before_any_signature_is_looked_at() {
        let (signer, _) = TicketSigner::generate();
        for header in [
            format!(
                r#"{{"alg":"none","typ":"{TYPE}","kid":"{}"}}"#,
                signer.public().kid
            ),
            format!(
                r#"{{"alg":"HS256","typ":"{TYPE}","kid":"{}"}}"#,
                signer.public().kid
            ),
            format!(
                r#"{{"alg":"EdDSA","typ":"{TYPE}","kid":"{}","crit":["x"]}}"#,
                signer.public().kid
            ),
        ] {
            let compact = format!("{}.{}.", B64.encode(header), B64.encode(b"{}"));
            assert_eq!(
                verify(&compact, &[signer.public()]),
                Err(TicketError::Algorithm)
            );
        }
        assert_eq!(
            verify(&"x".repeat(limits::TICKET + 1), &[]),
            Err(TicketError::TooLong)
        );
    }
}
