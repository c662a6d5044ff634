//! Both ends of the shadowing tunnel: TLS 1.3 between a console's end and a device, with a plain viewer on the one side and the device's
//! local VNC server on the other. It knows no server, no gateway and no ticket's content: whoever uses it decides who may come in.
//! It must never let a byte of RFB pass before that decision, nor a plaintext byte onto a network.
//!
//! The device's end in order: [`first_bytes::sniff`], [`device_end::accept_tls`], [`device_end::read_preface`], the caller's decision,
//! [`device_end::connect_upstream`], [`device_end::answer_ok`], [`device_end::serve`]. The console's end: [`console_end::connect`],
//! [`console_end::open`], [`console_end::listen_loopback`], [`console_end::bridge`].

// What the stream passes on the device's end, in order.
pub mod accept;
pub mod answer;
pub mod certificate;
pub mod device_end;
mod entry;
pub mod first_bytes;
pub mod gate;
pub mod preface;
mod spawned;
pub mod tls;
pub mod upstream;

pub mod console_end;
mod neighbour;

// RFB, in its two closed rooms: the greeting with its handshakes, and the input filter.
pub mod greeting;
pub mod inlet;
pub mod input_filter;
pub mod rfb;
pub mod server_handshake;
pub mod viewer_handshake;
pub mod vnc_auth;

// What both ends share.
pub mod outcome;
pub mod secret;
pub mod splice;
mod text;

pub use certificate::Fingerprint;
pub use input_filter::Policy;
pub use outcome::{EndReason, Outcome, StopCause};
pub use preface::Preface;
pub use secret::Secret;
pub use splice::Limits;
