//! The management server: which devices there are, who may shadow them, and what happened.
//!
//! One process, one port, one SQLite file. Devices keep a control link to it ([`link`]), consoles use its API
//! ([`http`]); both are TLS 1.3 on the same port ([`serve`]). Modules, in the order in which a reader needs them:
//!
//! - [`cli`], [`config`]: what a person typed, and what it means.
//! - [`run`]: joins everything; the only module that knows all others.
//! - [`ca`], [`import`]: the server's certificates and its ticket key. [`files`]: how secrets get on the disk.
//! - [`store`]: the database. [`audit`]: the log that nobody can alter.
//! - [`server`]: what all connections share. [`hub`]: who is online. [`settings`]: what devices are told to be like.
//! - [`keys`], [`enrolment`]: first-authentication keys, and taking devices on with them.
//! - [`gateways`], [`uplink`]: devices that only reach a gateway.
//! - [`sessions`]: shadowing sessions from the offer to the record.
//! - [`passwords`], [`throttle`]: against guessing and flooding.
//! - [`clock`], [`random`], [`shutdown`]: the world outside.

pub mod audit;
pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
pub mod enrolment;
pub mod files;
pub mod gateways;
pub mod http;
pub mod hub;
pub mod import;
pub mod keys;
pub mod link;
pub mod passwords;
pub mod random;
pub mod run;
pub mod serve;
pub mod server;
pub mod sessions;
pub mod settings;
pub mod shutdown;
pub mod store;
pub mod throttle;
pub mod uplink;

#[cfg(test)]
mod testing;
