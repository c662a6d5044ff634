//! The one way out to people: every stage writes here what it does and why, and the command line, the service manager and the
//! journal read it. It holds no secret, and nothing here decides anything.

mod sentence;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use umbra_protocol::fingerprint::Fingerprint;
use umbra_protocol::ids::{DeviceId, SessionId, UnitId};
use umbra_protocol::refusal::clip;
use umbra_protocol::session::Permissions;

use crate::clock;
use crate::confine::Confined;
use crate::hands::Progress;

/// Most messages that are kept for the person at the device; older ones go first.
const MESSAGES_MAX: usize = 20;

/// How far the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The agent is coming up.
    Starting,
    /// The identity can't be used; nothing works before a person has looked at it.
    NoIdentity,
    /// No server has taken this device on.
    NotEnrolled,
    /// A server is being asked to take this device on.
    Enrolling,
    /// Remote management is switched off on this device.
    ManagementOff,
    /// A link is being set up.
    Connecting,
    /// The server has welcomed the device.
    Online,
    /// The last attempt failed; the next one is due.
    Waiting,
    /// The server refused the device; a person has to do something.
    Refused,
    /// The agent is going down.
    Stopping,
}

umbra_protocol::json::words!(Stage { Starting = "starting", NoIdentity = "no_identity", NotEnrolled = "not_enrolled", Enrolling = "enrolling", ManagementOff = "management_off", Connecting = "connecting", Online = "online", Waiting = "waiting", Refused = "refused", Stopping = "stopping" });

/// A moment, as seconds since the machine came up: the wall clock may jump, this does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self(clock::uptime())
    }

    /// This many seconds from now.
    pub fn in_seconds(seconds: u64) -> Self {
        Self(clock::uptime().saturating_add(seconds))
    }

    /// Seconds since then; 0 for a moment to come.
    pub fn seconds_ago(self) -> u64 {
        clock::uptime().saturating_sub(self.0)
    }

    /// Seconds until then; 0 for a moment that has passed.
    pub fn seconds_ahead(self) -> u64 {
        self.0.saturating_sub(clock::uptime())
    }
}

/// What the device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The label on the device.
    pub unit_id: UnitId,
    /// SHA-256 of its public key.
    pub device_id: DeviceId,
    /// SHA-256 of its certificate.
    pub certificate: Fingerprint,
    /// Until when the certificate is valid, seconds since 1970.
    pub not_after: i64,
}

umbra_protocol::json::object!(Identity { unit_id, device_id, certificate, not_after;  });

/// The server that took the device on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Where it is, `HOST:PORT`.
    pub address: String,
    /// The name under which it files this device.
    pub device_name: String,
}

umbra_protocol::json::object!(Server { address, device_name;  });

/// A way to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Way {
    /// `ums` for a direct one, `icg` for one through a gateway.
    pub kind: String,
    /// The server itself, or the gateway, `HOST:PORT`.
    pub address: String,
    /// The proxy on the way there, without credentials.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Whether the link stands on it.
    #[serde(default)]
    pub in_use: bool,
    /// Stable code of why it did not work last.
    #[serde(default)]
    pub code: Option<String>,
    /// Why it did not work last, as a sentence.
    #[serde(default)]
    pub trouble: Option<String>,
}

umbra_protocol::json::object!(Way { kind, address; proxy, in_use, code, trouble });

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStage {
    /// The server said that it is coming.
    Announced,
    /// The person at the device is being asked.
    Asking,
    /// The operator sees the screen.
    Running,
}

umbra_protocol::json::words!(SessionStage { Announced = "announced", Asking = "asking", Running = "running" });

/// A shadowing session on this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Which session.
    pub session: SessionId,
    /// Display name of the operator.
    pub operator: String,
    /// Why, as the operator said it.
    pub reason: String,
    /// What the operator may do.
    pub permissions: Permissions,
    /// How far it is.
    pub stage: SessionStage,
    /// Since when it is there.
    pub since: Moment,
    /// Where the operator's end is, once it has connected: an IP address, or the gateway that it comes through.
    #[serde(default)]
    pub from: Option<String>,
}

umbra_protocol::json::object!(Session { session, operator, reason, permissions, stage, since; from });

/// A question to the person at the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingConsent {
    /// Which session.
    pub session: SessionId,
    /// Display name of the operator.
    pub operator: String,
    /// Why, as the operator said it.
    pub reason: String,
    /// What the operator may do.
    pub permissions: Permissions,
    /// When no answer becomes an answer.
    pub until: Moment,
}

umbra_protocol::json::object!(PendingConsent { session, operator, reason, permissions, until;  });

/// A text from the administrators to the person at the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserMessage {
    /// The text.
    pub text: String,
    /// When it came.
    pub at: Moment,
}

umbra_protocol::json::object!(UserMessage { text, at;  });

/// All that people can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// How far the device is.
    pub stage: Stage,
    /// Since when.
    pub since: Moment,
    /// Why it is not further, as a sentence.
    #[serde(default)]
    pub cause: Option<String>,
    /// Stable code of the cause, where there is one (`protocol`'s refusal codes).
    #[serde(default)]
    pub code: Option<String>,
    /// When the next attempt is due.
    #[serde(default)]
    pub next_attempt: Option<Moment>,
    /// What the device is.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// Who took it on.
    #[serde(default)]
    pub server: Option<Server>,
    /// The connector in use, as `ums HOST:PORT`.
    #[serde(default)]
    pub connector: Option<String>,
    /// All ways to the server that the parameters allow, in the order in which they are tried.
    #[serde(default)]
    pub ways: Vec<Way>,
    /// The port on which shadowing is accepted, while it is.
    #[serde(default)]
    pub shadow_port: Option<u16>,
    /// Sessions, running or about to.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// Questions that wait for the person at the device.
    #[serde(default)]
    pub consents: Vec<PendingConsent>,
    /// How far the update is that the server asked for last, or how it ended.
    #[serde(default)]
    pub update: Option<Progress>,
    /// Texts for the person at the device.
    #[serde(default)]
    pub messages: Vec<UserMessage>,
    /// What the agent has given up, so that it can't be made to use it.
    #[serde(default)]
    pub confined: Vec<Confined>,
    /// What is not as it should be, by topic.
    #[serde(default)]
    pub warnings: BTreeMap<String, String>,
}

umbra_protocol::json::object!(Status { version, stage, since; cause, code, next_attempt, identity, server, connector, ways, shadow_port, sessions, consents, update, messages, confined, warnings });

impl Default for Status {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stage: Stage::Starting,
            since: Moment::now(),
            cause: None,
            code: None,
            next_attempt: None,
            identity: None,
            server: None,
            connector: None,
            ways: Vec::new(),
            shadow_port: None,
            sessions: Vec::new(),
            consents: Vec::new(),
            update: None,
            messages: Vec::new(),
            confined: Vec::new(),
            warnings: BTreeMap::new(),
        }
    }
}

impl Status {
    /// Goes to a stage; what was said about the previous one is forgotten.
    pub fn go(&mut self, stage: Stage) {
        self.stage = stage;
        self.cause = None;
        self.code = None;
        self.next_attempt = None;
        if stage != Stage::Online {
            self.connector = None;
        }
    }

    /// Goes to a stage for a reason.
    pub fn go_because(&mut self, stage: Stage, cause: impl Into<String>) {
        self.go(stage);
        self.cause = Some(clip(cause.into()));
    }

    /// Says that something is not as it should be, or with `None` that it is again. One sentence per topic.
    pub fn warn(&mut self, topic: &str, sentence: Option<String>) {
        match sentence {
            Some(sentence) => self.warnings.insert(topic.to_owned(), clip(sentence)),
            None => self.warnings.remove(topic),
        };
    }

    /// Adds a text for the person at the device.
    pub fn tell(&mut self, text: impl Into<String>) {
        if self.messages.len() >= MESSAGES_MAX {
            self.messages.remove(0);
        }
        self.messages.push(UserMessage {
            text: clip(text.into()),
            at: Moment::now(),
        });
    }
}

/// Where the status hangs. Clones are one board.
#[derive(Clone, Debug)]
pub struct Board {
    sender: Arc<watch::Sender<Status>>,
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// A board that says that the agent is starting.
    pub fn new() -> Self {
        Self {
            sender: Arc::new(watch::Sender::new(Status::default())),
        }
    }

    /// Changes the status. Who waits for changes is woken only if there was one; `since` follows the stage by itself.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.sender.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            if status.stage != before.stage {
                status.since = Moment::now();
            }
            *status != before
        });
    }

    /// The status as it is now.
    pub fn now(&self) -> Status {
        self.sender.borrow().clone()
    }

    /// The status now and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.sender.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_wakes_those_who_watch() {
        let board = Board::new();
        let mut watching = board.subscribe();
        watching.mark_unchanged();
        board.update(|status| status.go(Stage::Starting));
        assert!(!watching.has_changed().expect("the board is there"));
        board.update(|status| status.go_because(Stage::Waiting, "the server is away"));
        assert!(watching.has_changed().expect("the board is there"));
        assert_eq!(board.now().cause.as_deref(), Some("the server is away"));
    }

    #[test]
    fn a_new_stage_forgets_what_was_said_about_the_old_one() {
        let mut status = Status::default();
        status.go_because(Stage::Refused, "the key was used before");
        status.next_attempt = Some(Moment::in_seconds(60));
        status.go(Stage::Online);
        assert_eq!((status.cause, status.next_attempt), (None, None));
    }

    #[test]
    fn messages_are_bounded_and_cannot_play_tricks_on_a_terminal() {
        let mut status = Status::default();
        for number in 0..(MESSAGES_MAX + 5) {
            status.tell(format!("number {number}\u{1b}[2J"));
        }
        assert_eq!(status.messages.len(), MESSAGES_MAX);
        assert_eq!(status.messages[0].text, "number 5 [2J");
    }

    #[test]
    fn the_status_reads_back_from_json() {
        let board = Board::new();
        board.update(|status| status.warn("registry", Some("a line is wrong".into())));
        let json = serde_json::to_string(&board.now()).expect("it serialises");
        assert_eq!(
            serde_json::from_str::<Status>(&json).expect("it parses"),
            board.now()
        );
        board.update(|status| status.warn("registry", None));
        assert!(board.now().warnings.is_empty());
    }
}
