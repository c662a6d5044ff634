//! Where names lead. Programs of hosts ask the C library; a device's program asks by itself, so that it need not carry one.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

/// Addresses to come, those first that are to be tried first; none for a name that leads nowhere.
pub type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Finds the addresses of a host.
pub trait Lookup: fmt::Debug + Send + Sync {
    /// The addresses of `host`, a name or an address without brackets, with this port. It may take as long as it wants: the deadline is the caller's.
    fn addresses<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a>;
}

/// The C library (`getaddrinfo`), and so whatever the machine is configured to ask.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Lookup for System {
    fn addresses<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}
