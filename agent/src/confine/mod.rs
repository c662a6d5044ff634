//! What the agent gives up once it has read its configuration: privileges, system calls and files that it will not need. Whoever
//! takes it over by a mistake in it gets little more than it uses. It never fails to start for want of a kernel feature: each layer
//! says in the status whether it's there.
//!
//! Programs that the agent starts (a VNC server, the question to the person) inherit all of this, so what is given up depends on
//! whether any are configured. It must happen before the process has a second thread: Landlock binds a thread and what it starts.

mod calls;
mod files;
mod privileges;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::paths::Paths;
use crate::registry::Snapshot;

/// One thing that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Nothing that is started gets more privileges than the agent has (`PR_SET_NO_NEW_PRIVS`).
    Privileges,
    /// Capabilities, and the bounding set of those that could come back.
    Capabilities,
    /// Files outside of what the agent needs (Landlock).
    Files,
    /// System calls that the agent doesn't need (seccomp).
    SystemCalls,
}

umbra_protocol::json::words!(Layer { Privileges = "privileges", Capabilities = "capabilities", Files = "files", SystemCalls = "system_calls" });

impl Layer {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Privileges => "new privileges",
            Layer::Capabilities => "capabilities",
            Layer::Files => "files",
            Layer::SystemCalls => "system calls",
        }
    }
}

/// How much of a layer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// All of it.
    Full,
    /// What this kernel knows of it, or what the configuration leaves.
    Part,
    /// None of it.
    None,
}

umbra_protocol::json::words!(Hold { Full = "full", Part = "part", None = "none" });

/// A layer, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confined {
    /// Which layer.
    pub layer: Layer,
    /// How much of it is there.
    pub hold: Hold,
    /// What that means here, as a sentence.
    pub sentence: String,
    /// Whether that is less than the configuration allows, so that somebody should look.
    #[serde(default)]
    pub lacking: bool,
}

umbra_protocol::json::object!(Confined { layer, hold, sentence; lacking });

impl Confined {
    fn new(layer: Layer, hold: Hold, sentence: impl Into<String>) -> Self {
        Self {
            layer,
            hold,
            sentence: sentence.into(),
            lacking: false,
        }
    }

    fn lacking(layer: Layer, hold: Hold, sentence: impl Into<String>) -> Self {
        Self {
            lacking: true,
            ..Self::new(layer, hold, sentence)
        }
    }
}

/// What the agent starts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Starts {
    /// Nothing.
    Nothing,
    /// Programs that serve or ask the person at the device.
    Programs,
    /// A program that updates the device, or switches it off: it may have to write anywhere.
    System,
}

/// What is to be given up, derived from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What has to go on working for programs.
    pub starts: Starts,
    /// Directories that are written.
    pub written: Vec<PathBuf>,
    /// Directories and files that are read.
    pub read: Vec<PathBuf>,
}

/// What a Linux system keeps for its programs to read: configuration of the network and the time, facts of the machine, leases,
/// and libraries (of which the shipped program needs none).
const READ: [&str; 13] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/run",
    "/proc",
    "/sys",
    "/dev",
    "/var/lib/dhcp",
    "/var/lib/dhcpcd",
    "/var/lib/NetworkManager",
    "/var/lib/misc",
];
/// Where programs of a desktop keep what they need for a while.
const WRITTEN_BY_PROGRAMS: [&str; 6] = ["/dev", "/run", "/tmp", "/var/tmp", "/home", "/proc"];

impl Plan {
    /// Derives it from the parameters.
    pub fn derive(snapshot: &Snapshot, paths: &Paths) -> Self {
        let starts = starts(snapshot);
        let mut written = vec![paths.state_partition(), paths.run(), paths.kept()];
        let mut read: Vec<PathBuf> = READ.iter().map(PathBuf::from).collect();
        if paths.root() != Path::new("/") {
            read.push(paths.root().to_owned());
        }
        // The folder, so that a file that is put in another's place is seen.
        let named = [&snapshot.network.ca_file, &snapshot.network.bundle_file];
        read.extend(named.into_iter().filter_map(|file| {
            let folder = Path::new(file).parent()?;
            Some(folder.to_owned()).filter(|folder| !folder.as_os_str().is_empty())
        }));
        if starts != Starts::Nothing {
            written.extend(WRITTEN_BY_PROGRAMS.iter().map(PathBuf::from));
            read = vec![PathBuf::from("/")];
        }
        Self {
            starts,
            written,
            read,
        }
    }

    /// Whether this needs nothing but what `given_up` has left.
    pub fn fits_in(&self, given_up: &Plan) -> bool {
        let readable = |path: &PathBuf| given_up.read.iter().any(|left| path.starts_with(left));
        self.starts <= given_up.starts && self.read.iter().all(readable)
    }

    /// Gives it up, for this process, for good.
    pub fn apply(&self) -> Vec<Confined> {
        // In this order: without the first, an unprivileged process may do neither of the last two.
        vec![
            privileges::no_new_ones(),
            privileges::drop_capabilities(self.starts),
            files::restrict(self),
            calls::restrict(self.starts),
        ]
    }
}

fn starts(snapshot: &Snapshot) -> Starts {
    let system = [
        &snapshot.update_command,
        &snapshot.reboot_command,
        &snapshot.shutdown_command,
    ];
    let programs = [
        &snapshot.consent.program,
        &snapshot.indicator.program,
        &snapshot.message_program,
    ];
    if system.iter().any(|command| !command.is_empty()) {
        Starts::System
    } else if snapshot.vnc.is_spawned() || programs.iter().any(|command| !command.is_empty()) {
        Starts::Programs
    } else {
        Starts::Nothing
    }
}

#[cfg(test)]
mod tests;
