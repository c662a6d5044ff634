//! What goes into the link's machine and what comes out of it. Plain values: they can be written down in a test and compared.

use std::time::Duration;

use umbra_protocol::codec::DecodeError;
use umbra_protocol::command::Command;
use umbra_protocol::hello::{Hello, TrustAnchors, Welcome};
use umbra_protocol::link::CertificateFiled;
use umbra_protocol::session::{Presented, SessionEnd, SessionRequest, SessionTunnel, Verdict};
use umbra_protocol::settings::Settings;
use umbra_protocol::{CommandId, FromDevice, FromServer, Refusal, SessionId};

use super::trouble::Trouble;

/// Time as the machine sees it: since some fixed moment, and going on while the device sleeps.
pub type Moment = Duration;

/// What the registry says about the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// How long an attempt may take until TLS stands.
    pub connect_timeout: Duration,
    /// The longest wait between two attempts.
    pub reconnect_interval: Duration,
    /// Whether the device may be managed at all.
    pub allowed: bool,
}

/// What happens to the link.
#[derive(Debug)]
pub enum Input {
    /// The device is ready to link.
    Start,
    /// TLS stands; this is what the device says first.
    Connected(Box<Hello>),
    /// No connection came about.
    ConnectFailed(Trouble),
    /// The server said something.
    Frame(Box<FromServer>),
    /// The server said something that cannot be read.
    Unreadable(DecodeError),
    /// The server ended the connection in order.
    Ended,
    /// The connection broke.
    Closed(Trouble),
    /// Time has passed.
    Tick,
    /// Somebody presented a ticket or a password; the number is unique in this process.
    Ask {
        /// Pairs the question with its answer.
        question: u64,
        /// What was presented.
        presented: Presented,
    },
    /// Something to say, if the link stands. What must arrive is kept elsewhere and said again after the next welcome.
    Tell(Box<FromDevice>),
    /// A person wants the device to be removed from the server's file.
    Leave,
    /// The registry says something new about the link.
    Settings(LinkSettings),
    /// What the hello said is not true any more (port, certificate): say it anew.
    Relink(String),
    /// The device's networks changed, or a person asks for an attempt now.
    NetworkChanged,
    /// Other ways are allowed than before, or in another order.
    Ways {
        /// For each way whether the device prefers it.
        preferred: Vec<bool>,
        /// The one to begin with.
        start: usize,
        /// Why the way that is in use, or being tried, is to be left at once.
        leave: Option<String>,
    },
    /// A way beside the one in use was tried: whether the server would welcome the device there.
    Probed {
        /// Which way.
        connector: usize,
        /// How it went.
        result: Result<(), Trouble>,
    },
    /// The agent ends.
    Shutdown,
}

/// What shall be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to the connector with this index.
    Connect(usize),
    /// Find out whether the server would welcome the device on this way, beside the link that stands.
    Probe(usize),
    /// This way did not work.
    Failed {
        /// Which way.
        connector: usize,
        /// Why.
        trouble: Trouble,
    },
    /// Send this.
    Send(Box<FromDevice>),
    /// Give up the connection or the attempt at one; what was sent before still goes out.
    Close,
    /// The link stands. Everything that must arrive is to be said now.
    Welcomed(Box<Welcome>),
    /// The server wants something of another part of the agent.
    Deliver(Box<Delivery>),
    /// The answer to a question.
    Answer {
        /// Which question.
        question: u64,
        /// The answer.
        answer: Answer,
    },
    /// How leaving went: the server confirmed it, or why it could not be asked.
    Left(Result<(), Trouble>),
    /// What people may see of the link.
    Status(LinkStatus),
    /// The machine has ended.
    Stopped,
}

/// What the server wants of other parts of the agent.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Parameters to take over.
    Settings(Settings),
    /// A command to run, once.
    Command(Command),
    /// A result needs to be kept no longer.
    ResultFiled(CommandId),
    /// A session is coming.
    SessionRequest(SessionRequest),
    /// The console of a session waits at the gateway.
    SessionTunnel(SessionTunnel),
    /// A session shall end.
    SessionEnd(SessionEnd),
    /// A record needs to be kept no longer.
    RecordFiled(SessionId),
    /// New roots and ticket keys.
    Anchors(TrustAnchors),
    /// The proposed certificate is on file.
    CertificateFiled(CertificateFiled),
    /// The server will not do one thing that the device said; the link goes on.
    Refused(Refusal),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server has spoken.
    Verdict(Verdict),
    /// The server could not be asked, or did not answer in time.
    Unreachable,
}

/// What people may see of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkStatus {
    /// Remote management is switched off, or the agent ends.
    Offline,
    /// An attempt is running.
    Connecting,
    /// The link stands.
    Online {
        /// The name that the administrators gave to the device.
        device_name: String,
    },
    /// The next attempt comes by itself.
    Waiting {
        /// Why there is no link.
        trouble: Trouble,
        /// When the next attempt comes.
        until: Moment,
    },
}
