//! What the machine asks the device for, and what the device answers. These never leave the process: some of them hold the key.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use umbra_protocol::{Fingerprint, Secret};

use crate::catalogue::Language;
use crate::report::Report;
use crate::view::{Input, State};

/// A moment on a clock that only ever runs forward.
pub type Moment = Duration;

/// Which piece of work an answer belongs to. Answers to work that was given up are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Job(pub u32);

/// Where a server or a gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Address {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

umbra_protocol::json::object!(Address { host, port;  });

/// Where one is, and what its root must be if that is known from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// SHA-256 of its root, as credentials name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Fingerprint>,
}

/// Where a proposal comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The device's own configuration.
    Configured,
    /// The name `igelrmserver` in DNS.
    Name {
        /// The full name.
        name: String,
    },
    /// A TXT record of this domain.
    Record {
        /// The domain.
        domain: String,
    },
    /// Option 224 of DHCP.
    Dhcp {
        /// Where the answer was read.
        interface: String,
    },
    /// A credentials file on a removable medium.
    Stick {
        /// Its name, as the system shows it.
        medium: String,
        /// The file's name.
        file: String,
    },
    /// A credentials text that the person pasted.
    Pasted,
}

/// A proposal: it is offered and never applied unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it comes from.
    pub source: Source,
    /// The ways in, best first; at least one.
    pub endpoints: Vec<Endpoint>,
    /// The key, where credentials were found.
    pub key: Option<Secret>,
}

/// What a check looks at, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The name is looked up (with a proxy: the proxy's name).
    Name,
    /// A connection is made (with a proxy: to the proxy).
    Tcp,
    /// The proxy opens a way.
    Proxy,
    /// What answers speaks TLS 1.3.
    Tls,
    /// Its certificates are in order.
    Chain,
    /// A gateway lets the device through.
    Gateway,
    /// The server answers.
    Server,
}

impl Stage {
    /// All, in their order.
    pub const ALL: [Stage; 7] = [
        Stage::Name,
        Stage::Tcp,
        Stage::Proxy,
        Stage::Tls,
        Stage::Chain,
        Stage::Gateway,
        Stage::Server,
    ];

    /// A word that never changes: for faces, for scripts, and for finding texts.
    pub fn id(self) -> &'static str {
        match self {
            Stage::Name => "name",
            Stage::Tcp => "tcp",
            Stage::Proxy => "proxy",
            Stage::Tls => "tls",
            Stage::Chain => "chain",
            Stage::Gateway => "gateway",
            Stage::Server => "server",
        }
    }
}

/// What a successful check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Where.
    pub address: Address,
    /// SHA-256 of the root that it presents; nothing if it presents none.
    pub root: Option<Fingerprint>,
    /// The public authority that vouches for it, if one does.
    pub public_ca: Option<String>,
}

/// Why the server behind an address is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its root is this one: a person or credentials said so.
    Fingerprint(Fingerprint),
    /// A public authority vouches for it; the key's proof binds the server itself.
    PublicCa,
}

/// Everything that logging on needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where.
    pub address: Address,
    /// Why it is trusted.
    pub trust: Trust,
    /// The first-authentication key.
    pub key: Secret,
}

/// How far logging on is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogOnStage {
    /// The server is being connected to.
    Connect,
    /// Both sides prove that they know the key.
    Prove,
    /// The result is written down.
    Store,
    /// The link to the server comes up.
    Online,
}

impl LogOnStage {
    /// All, in their order.
    pub const ALL: [LogOnStage; 4] = [
        LogOnStage::Connect,
        LogOnStage::Prove,
        LogOnStage::Store,
        LogOnStage::Online,
    ];

    /// As faces know it.
    pub fn id(self) -> &'static str {
        match self {
            LogOnStage::Connect => "connect",
            LogOnStage::Prove => "prove",
            LogOnStage::Store => "store",
            LogOnStage::Online => "online",
        }
    }
}

/// A server that has taken the device on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenOn {
    /// Where it is.
    pub address: Address,
    /// The name under which it files the device.
    pub device_name: String,
    /// Whether the link is up: nothing where no agent runs that could hold one.
    pub online: Option<bool>,
}

/// What helps after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Another key.
    Key,
    /// The same once more, later.
    Later,
    /// Another address.
    Address,
}

/// With what the assistant begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the beginning, proposing this language.
    Fresh(Language),
    /// Where it stopped.
    Resume(Progress),
    /// The device has a server.
    Belongs {
        /// In which language to say so.
        language: Language,
        /// Which.
        address: Address,
    },
    /// Another assistant is at work.
    Taken {
        /// In which language to say so.
        language: Language,
        /// Who: as the system knows them.
        who: String,
    },
}

/// What is kept on the disk while the assistant is not done. It never holds the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The form of this.
    pub version: u32,
    /// The chosen language.
    pub language: Language,
    /// What was typed as the address.
    #[serde(default)]
    pub typed: String,
    /// The ways in that were chosen, once they were.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Whether the person had gone on to the check.
    #[serde(default)]
    pub checking: bool,
    /// The root whose missing part the person knew.
    #[serde(default)]
    pub confirmed: Option<Fingerprint>,
    /// The root that was last asked about, and which of its parts (0 to 3) was missing: it stays the same one.
    #[serde(default)]
    pub asked: Option<(Fingerprint, u8)>,
    /// How often a part was wrong.
    #[serde(default)]
    pub wrong: u32,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The person did something.
    Input(Input),
    /// The search of the device's surroundings is over.
    Discovered {
        /// Which work.
        job: Job,
        /// What was found.
        found: Vec<Found>,
        /// What was wrong on the way.
        problems: Vec<Report>,
    },
    /// What lies on removable media now. It may come unasked.
    Sticks {
        /// Credentials that can be used.
        found: Vec<Found>,
        /// Files that can't.
        problems: Vec<Report>,
    },
    /// A stage of the check.
    Checking {
        /// Which work.
        job: Job,
        /// Which stage.
        stage: Stage,
        /// How far.
        state: State,
        /// What came of it.
        sentence: Report,
    },
    /// The check went through.
    Reached {
        /// Which work.
        job: Job,
        /// What it found.
        reached: Reached,
    },
    /// The check did not.
    NotReached {
        /// Which work.
        job: Job,
        /// What happened, and what helps.
        sentence: Report,
    },
    /// A stage of logging on has begun.
    LoggingOn {
        /// Which work.
        job: Job,
        /// Which stage.
        stage: LogOnStage,
    },
    /// The server has taken the device on.
    LoggedOn {
        /// Which work.
        job: Job,
        /// By whom and as what.
        taken: TakenOn,
    },
    /// It has not.
    Refused {
        /// Which work.
        job: Job,
        /// What happened, and what helps.
        sentence: Report,
        /// Where to go on.
        again: Again,
    },
    /// The device was taken on without this assistant.
    Belongs {
        /// By which server.
        address: Address,
    },
    /// The progress could not be written: told, and nothing else.
    NotStored {
        /// Why.
        sentence: Report,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look for servers around the device: [`Event::Discovered`].
    Discover {
        /// For the answer.
        job: Job,
    },
    /// Look for credentials on removable media: [`Event::Sticks`].
    LookAtSticks,
    /// Ask for the TXT record of a domain: [`Event::Discovered`].
    ResolveMail {
        /// For the answer.
        job: Job,
        /// The domain.
        domain: String,
    },
    /// Try a way in: [`Event::Checking`], then [`Event::Reached`] or [`Event::NotReached`].
    Check {
        /// For the answers.
        job: Job,
        /// Which.
        endpoint: Endpoint,
    },
    /// Have the device taken on: [`Event::LoggingOn`], then [`Event::LoggedOn`] or [`Event::Refused`].
    LogOn {
        /// For the answers.
        job: Job,
        /// With what.
        plan: Plan,
    },
    /// Give up whatever is running.
    Stop,
    /// Keep this on the disk.
    Store(Progress),
    /// Remove what is on the disk.
    Forget,
    /// The assistant is over.
    Finish(Outcome),
}

/// How the assistant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device has a server now.
    Ready,
    /// The device had one.
    Belonged,
    /// The person left; what was entered is kept.
    Left,
    /// Another assistant is at work.
    Taken,
}
