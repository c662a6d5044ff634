//! One byte stream over WebSocket (RFC 6455), in both roles: binary frames whose borders mean nothing. The peer's frames
//! are bounded before anything is kept for them, its pings are answered within bounds, and its last word (the code and
//! reason of a Close) reaches the reader. Nothing in here looks at the bytes, and no header value reaches a log.

mod bridge;
mod closed;
mod connect;
mod drive;
mod flood;
mod state;
mod stream;
mod upgrade;

pub use closed::{Closed, reason};
pub(crate) use connect::authority;
pub use connect::{HeaderValue, Request, WsError, connect};
pub use stream::{ByteStream, Closer, Keepalive, quiet_server_stream, server_stream};
pub use upgrade::{UpgradeError, UpgradeHead, accept_key, check_upgrade};

/// The codes of a Close that this product uses (RFC 6455, section 7.4, and the registry of IANA).
pub mod close {
    /// All said.
    pub const NORMAL: u16 = 1000;
    /// The peer breaks the rules of the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// A kind of data that isn't taken, such as text.
    pub const UNSUPPORTED: u16 = 1003;
    /// Not here, not you, or not like this.
    pub const POLICY: u16 = 1008;
    /// A frame or message beyond the limit.
    pub const TOO_BIG: u16 = 1009;
    /// The other side restarts: come back.
    pub const RESTART: u16 = 1012;
    /// Come back later.
    pub const AGAIN: u16 = 1013;
}

/// The largest frame, and the largest message, that is accepted.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The largest frame that is sent.
pub const MAX_SENT: usize = 16 * 1024;

#[cfg(test)]
mod tests;
