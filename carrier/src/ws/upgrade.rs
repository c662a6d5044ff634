//! The server's half of the opening handshake (RFC 6455, section 4.2), on header values as text: whether a request may
//! become a WebSocket, and what proves to the client that it was understood.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The constant of RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The header fields of a request that matter here; `None` for a field that isn't there.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpgradeHead<'a> {
    /// `Connection`
    pub connection: Option<&'a str>,
    /// `Upgrade`
    pub upgrade: Option<&'a str>,
    /// `Sec-WebSocket-Version`
    pub version: Option<&'a str>,
    /// `Sec-WebSocket-Key`
    pub key: Option<&'a str>,
    /// `Sec-WebSocket-Protocol`
    pub subprotocols: Option<&'a str>,
    /// `Origin`
    pub origin: Option<&'a str>,
}

/// Why a request doesn't become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// A browser, which sends `Origin`.
    #[error("browsers have no business here: a request with an Origin header is refused")]
    Origin,
    /// No WebSocket handshake.
    #[error("this address speaks WebSocket only: the request must ask for an upgrade to it")]
    NotUpgrade,
    /// Another version of WebSocket.
    #[error("only version 13 of WebSocket is spoken here")]
    Version,
    /// No key, or none of 16 bytes.
    #[error("the request's Sec-WebSocket-Key is missing or has a wrong form")]
    Key,
    /// The subprotocol isn't among those that the client speaks.
    #[error("the request doesn't offer the subprotocol that is spoken at this address")]
    Subprotocol,
}

impl UpgradeError {
    /// The HTTP status to answer with. With 426 goes `Sec-WebSocket-Version: 13` and `Upgrade: websocket`.
    pub fn status(self) -> u16 {
        match self {
            Self::Origin => 403,
            Self::NotUpgrade | Self::Version => 426,
            Self::Key | Self::Subprotocol => 400,
        }
    }

    /// A stable word.
    pub fn code(self) -> &'static str {
        match self {
            Self::Origin => "browser_refused",
            Self::NotUpgrade => "not_websocket",
            Self::Version => "unsupported_version",
            Self::Key => "malformed",
            Self::Subprotocol => "wrong_subprotocol",
        }
    }
}

/// Whether the request may become a WebSocket that speaks `subprotocol`. Returns the value of `Sec-WebSocket-Accept`.
///
/// # Errors
/// [`UpgradeError`], which knows the answer to give.
pub fn check_upgrade(head: &UpgradeHead<'_>, subprotocol: &str) -> Result<String, UpgradeError> {
    if head.origin.is_some() {
        return Err(UpgradeError::Origin);
    }
    let named = |list: Option<&str>, wanted: &str| {
        list.is_some_and(|list| {
            list.split(',')
                .any(|one| one.trim().eq_ignore_ascii_case(wanted))
        })
    };
    if !named(head.connection, "upgrade") || !named(head.upgrade, "websocket") {
        return Err(UpgradeError::NotUpgrade);
    }
    if head.version.map(str::trim) != Some("13") {
        return Err(UpgradeError::Version);
    }
    let key = head.key.map(str::trim).ok_or(UpgradeError::Key)?;
    match STANDARD.decode(key) {
        Ok(bytes) if bytes.len() == 16 => {}
        Ok(_) | Err(_) => return Err(UpgradeError::Key),
    }
    let spoken = head
        .subprotocols
        .is_some_and(|list| list.split(',').any(|one| one.trim() == subprotocol));
    if !spoken {
        return Err(UpgradeError::Subprotocol);
    }
    Ok(accept_key(key))
}

/// What proves to a client that its key was read by a WebSocket server.
pub fn accept_key(key: &str) -> String {
    let text = format!("{}{GUID}", key.trim());
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}
