//! What the agent asks of the operating system, as one trait: the real one is [`linux::Linux`], and [`fake::Fake`] lets a test
//! be a device with any adapters, that restarts without anything restarting. Nothing here passes text through a shell.

mod adapters;
pub mod fake;
pub mod linux;
mod medium;

use std::net::IpAddr;

pub use adapters::{Adapter, Bus, choose_unit_id};

/// The operating system, seen from the agent.
pub trait Os: Send + Sync + std::fmt::Debug {
    /// Network adapters of the machine, virtual ones included.
    fn adapters(&self) -> Vec<Adapter>;
    /// The serial number of the USB stick that the system runs from, as a label; nothing where it runs from another disk.
    fn stick(&self) -> Option<String>;
    /// The host name; `localhost` where there is none.
    fn host_name(&self) -> String;
    /// Name and version of the operating system, for people.
    fn os_name(&self) -> String;
    /// Addresses at which others may reach this machine: no loopback, no link-local ones.
    fn addresses(&self) -> Vec<IpAddr>;
    /// Changes with every start of the machine; empty where the system does not say.
    fn boot_id(&self) -> String;
    /// Restarts the machine with this program and its arguments, or has root do it where none is named. Returns once the program has ended (or after ten seconds);
    /// blocks that long, so call it where blocking is allowed.
    fn reboot(&self, command: &[String]) -> Result<(), OsError>;
    /// Switches the machine off; otherwise like [`Os::reboot`].
    fn shutdown(&self, command: &[String]) -> Result<(), OsError>;
}

/// Why the system did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum OsError {
    /// No absolute path, or nothing at all.
    #[error("“{program}” is not run: a program is named with its absolute path")]
    NotAbsolute {
        /// What was named.
        program: String,
    },
    /// Root did not do it.
    #[error(transparent)]
    Hands(#[from] crate::hands::HandsError),
    /// The program could not be started.
    #[error("the program {program} can't be started")]
    Start {
        /// Which program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program reported failure.
    #[error("the program {program} failed ({status})")]
    Failed {
        /// Which program.
        program: String,
        /// How it ended.
        status: String,
    },
}
