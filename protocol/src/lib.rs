//! What device, server and console say to each other.
//!
//! Every message, code, limit, version and signed document of Umbra lives here and nowhere else. The crate opens no
//! socket, reads no file and knows no clock: bytes in, values out, and the other way round.
//!
//! The conversation on the control link, inside TLS 1.3 that both ends authenticated:
//!
//! ```text
//! device                                   server
//!   hello {versions, intent} ───────────►
//!                          intent enrol:  ◄── challenge {nonce, salt}
//!   enrol {key id, proof, facts} ───────►
//!                                         ◄── enrolled {proof, roots, ticket keys, connectors}
//!                           intent link:  ◄── welcome {heartbeat, roots, ticket keys}
//!   pong / settings_applied / …  ◄─────────►  ping / settings / command / …
//! ```
//!
//! Either side may answer anything with `refusal`, whose code is stable and says whether to retry, to ask a person, or
//! to stop.

#[cfg(feature = "api")]
pub mod api;
pub mod codec;
pub mod command;
pub mod credentials;
pub mod enrolment;
pub mod fingerprint;
pub mod first_auth;
pub mod gateway;
pub mod hello;
pub mod ids;
pub mod json;
pub mod limits;
pub mod link;
pub mod message;
pub mod refusal;
pub mod secret;
pub mod session;
pub mod settings;
pub mod ticket;
pub mod version;

pub use codec::{DecodeError, decode, encode};
pub use fingerprint::Fingerprint;
pub use ids::{
    CommandId, DeviceId, KeyId, RendezvousId, RunId, ServerRoot, SessionId, TokenHash, UnitId,
};
pub use message::{FromDevice, FromServer};
pub use refusal::{Refusal, RefusalCode, Remedy};
pub use secret::Secret;
