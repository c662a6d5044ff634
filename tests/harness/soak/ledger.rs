//! What the soak knows that it did, and what it finds afterwards: the two sides that the audit compares. Nothing but data.

use std::collections::BTreeMap;

/// A device that was told that it is taken on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Its ID, which is its key.
    pub(super) id: String,
    /// Its certificate, as it lies on its disk.
    pub(super) certificate: String,
    /// The name that an administrator gave it, once that was confirmed.
    pub(super) name: Option<String>,
    /// Whether it was taken off the server's file again, by whomever.
    pub(super) removed: bool,
}

/// What was set on a device by the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Changes that the server confirmed.
    pub(super) acknowledged: usize,
    /// Changes of which nobody knows whether they took place, since the answer was lost.
    pub(super) unsure: usize,
    /// The values of which one must be in force: the last that was confirmed, and those of which nobody knows since.
    pub(super) possible: Vec<i64>,
}

/// A command that the server took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// Its ID.
    pub(super) id: String,
    /// The device that it was for.
    pub(super) unit: String,
    /// The text, where it is a message.
    pub(super) text: Option<String>,
}

/// How far an operator came with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Asked for; a fault came before anything was seen.
    Asked,
    /// A viewer could connect.
    Opened,
    /// The screen was seen.
    Viewed,
    /// Keys arrived, and what was seen was the screen, pixel by pixel.
    Compared,
}

/// A session from the operator's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    /// The reason that the operator gave: no other session has it.
    pub(super) reason: String,
    /// The device.
    pub(super) unit: String,
    /// How far it came.
    pub(super) stage: Stage,
}

/// What became of attempts of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    /// Somebody was there and said no, or nothing.
    pub(super) refused: usize,
    /// Nobody was there: a fault.
    pub(super) unanswered: usize,
    /// It worked.
    pub(super) let_in: usize,
}

/// What was done, and what was confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Devices by unit ID.
    pub(super) devices: BTreeMap<String, Known>,
    /// Settings by unit ID.
    pub(super) settings: BTreeMap<String, Settings>,
    /// Commands that the server took.
    pub(super) commands: Vec<Given>,
    /// Keys that the server made, by their IDs.
    pub(super) keys: Vec<String>,
    /// Sessions of operators.
    pub(super) looks: Vec<Look>,
    /// Operators who saw another screen than the one that they asked for.
    pub(super) wrong_screens: Vec<String>,
    /// Devices whose screen could not be seen and operated after everything was healed.
    pub(super) unseen: Vec<String>,
    /// Attempts of the intruder by kind.
    pub(super) attempts: BTreeMap<&'static str, Attempts>,
}

/// A device as the server has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OnFile {
    /// Unit ID.
    pub(super) unit: String,
    /// Device ID.
    pub(super) id: String,
    /// Name.
    pub(super) name: String,
    /// Whether it is linked.
    pub(super) online: bool,
    /// Commands that wait for it.
    pub(super) waiting: u64,
    /// Whether it is thought to be a copy.
    pub(super) suspected: bool,
    /// The value that was set, as the server keeps it.
    pub(super) setting: Option<i64>,
}

/// A device as it has itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Device ID.
    pub(super) id: String,
    /// The certificate on its disk.
    pub(super) certificate: String,
    /// The value in force.
    pub(super) setting: Option<i64>,
    /// Connections that its VNC server has had.
    pub(super) connections: usize,
}

/// A line of the server's audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number.
    pub(super) number: u64,
    /// Who.
    pub(super) actor: String,
    /// Did what.
    pub(super) action: String,
    /// To what.
    pub(super) subject: String,
    /// How it went.
    pub(super) outcome: String,
    /// More.
    pub(super) detail: String,
}

/// A session as the server has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filed {
    /// Its ID.
    pub(super) id: String,
    /// Why.
    pub(super) reason: String,
    /// How far it is.
    pub(super) state: String,
    /// Why it ended.
    pub(super) code: String,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Resident memory in KiB.
    pub(super) resident: u64,
    /// Open files, sockets included.
    pub(super) files: u64,
    /// Sockets.
    pub(super) sockets: u64,
    /// Threads.
    pub(super) threads: u64,
    /// Children, and of them those that are dead and not counted out.
    pub(super) children: u64,
    /// Dead children that nobody has counted out.
    pub(super) zombies: u64,
}

/// A process that lived from the first look to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lived {
    /// What it is.
    pub(super) name: String,
    /// Seconds between the two.
    pub(super) seconds: u64,
    /// After the first part, idle.
    pub(super) warm: Sample,
    /// At the end, idle.
    pub(super) end: Sample,
}

/// A number of the moment that must have one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gauge {
    /// What it counts.
    pub(super) name: String,
    /// What it says.
    pub(super) value: u64,
    /// What it must say.
    pub(super) wanted: u64,
}

/// What is found once everything is healed and idle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The server's devices.
    pub(super) devices: Vec<OnFile>,
    /// What devices say, by unit ID.
    pub(super) held: BTreeMap<String, Held>,
    /// The whole audit log, oldest first.
    pub(super) audit: Vec<Entry>,
    /// All sessions.
    pub(super) sessions: Vec<Filed>,
    /// How often each command began, by all logs of agents.
    pub(super) begun: BTreeMap<String, usize>,
    /// How often each message was shown on a device.
    pub(super) shown: BTreeMap<String, usize>,
    /// Processes that lived long enough to be compared.
    pub(super) lived: Vec<Lived>,
    /// Processes of the end that were not there at the first look.
    pub(super) young: usize,
    /// Numbers that must be what they are.
    pub(super) gauges: Vec<Gauge>,
    /// Files and sockets that nobody should have left behind.
    pub(super) leftovers: Vec<String>,
    /// Mistakes of a program that ended it, by log and sentence.
    pub(super) panics: Vec<String>,
    /// Secrets in logs, by log and name.
    pub(super) secrets: Vec<String>,
    /// How many logs, and secrets, were looked through.
    pub(super) searched: (usize, usize),
}
