//! The promises of the helpdesk's command line, each held against the library or the program itself: over real TLS, with a
//! scripted server, a scripted device, and nobody on the network.
#![allow(clippy::unwrap_used)]

mod answers;
mod gateways;
mod keys;
mod lab;
mod login;
mod mail;
mod meeting;
mod program;
mod shadow;
