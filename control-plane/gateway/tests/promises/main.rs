//! Promises of the gateway, kept by a whole gateway in this process between scripted servers, devices and consoles.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]

mod devices;
mod lab;
mod life;
mod program;
mod quiet;
mod requests;
mod tunnels;
mod uplinks;
