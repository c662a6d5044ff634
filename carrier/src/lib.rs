//! Byte streams between the parties, and the TLS 1.3 set-up on top of them. This crate moves bytes and decides whom a
//! connection trusts; it never knows what the bytes say, keeps no file, and installs no process-wide provider.
//! Every time it needs is a deadline that the caller passes in.

pub mod address;
pub mod alpn;
pub mod causes;
pub mod crowd;
pub mod diagnosis;
pub mod dial;
pub mod framed;
mod http;
pub mod io;
pub mod names;
pub mod proxy;
pub mod tcp;
pub mod tls;
pub mod ws;
pub mod x509;
