//! What this crate promises, held against real handshakes and real certificates. Certificates are made per run; no test
//! waits for a duration, and time-outs run in simulated time.

#![allow(clippy::unwrap_used, reason = "tests")]

mod agreement;
mod chains;
mod diagnosis;
mod envelope;
mod facts;
mod listener;
mod names;
mod peers;
mod pki;
mod proxies;
mod public;
mod readers;
mod ways;
