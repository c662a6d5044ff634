//! The application protocols that share the server's one port. The client names one in its first TLS message, and the
//! server chooses by it before it asks for any certificate.

/// The control link between a device and the server.
pub const CONTROL_LINK: &[u8] = b"umbra/1";

/// The server's API and web app; also what a client without ALPN gets.
pub const HTTP: &[u8] = b"http/1.1";

/// What a server speaks to a gateway, inside the envelope.
pub const UPLINK: &[u8] = b"umbra-uplink/1";
