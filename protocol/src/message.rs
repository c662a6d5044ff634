//! All messages of the control link, in both directions, and the limits that each is held to.

use serde::{Deserialize, Serialize};

use crate::codec::{count_within, text_within};
use crate::command::{Action, Command, CommandProgress, CommandResult};
use crate::enrolment::{Challenge, Connector, Enrol, Enrolled};
use crate::hello::{Hello, TrustAnchors, Welcome};
use crate::limits;
use crate::link::{Beat, CertificateFiled, CertificateProposed, Goodbye, ResultFiled, ServerBeat};
use crate::refusal::Refusal;
use crate::session::{
    CallerRefused, Presented, RecordFiled, SessionEnd, SessionRecord, SessionRequest,
    SessionStarted, SessionTunnel, SessionVerdict, SessionVerify, Verdict,
};
use crate::settings::{Settings, SettingsApplied, Value};

macro_rules! message_set {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $vdoc:literal])+ $variant:ident($body:ty) = $wire:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "type")]
        pub enum $name {
            $($(#[doc = $vdoc])+ #[serde(rename = $wire)] $variant($body),)+
        }

        impl $name {
            /// The message's `type` on the wire.
            pub fn kind(&self) -> &'static str {
                match self {
                    $($name::$variant(_) => $wire,)+
                }
            }
        }

        $(impl From<$body> for $name {
            fn from(body: $body) -> Self {
                $name::$variant(body)
            }
        })+

        impl $crate::codec::MessageSet for $name {
            const TYPES: &'static [&'static str] = &[$($wire),+];
            fn read(kind: &str, body: $crate::json::Json) -> Result<Option<Self>, serde_json::Error> {
                Ok(Some(match kind {
                    $($wire => $name::$variant(serde::Deserialize::deserialize(body)?),)+
                    _ => return Ok(None),
                }))
            }

            fn within_limits(&self) -> Result<(), String> {
                match self {
                    $($name::$variant(body) => $crate::message::Limited::check(body),)+
                }
            }
        }
    };
}

pub(crate) use message_set;

message_set! {
    /// What a device says.
    FromDevice {
        /// Its first message.
        Hello(Hello) = "hello",
        /// Proof of a first-authentication key.
        Enrol(Enrol) = "enrol",
        /// A heartbeat.
        Ping(Beat) = "ping",
        /// The echo of a heartbeat of the server.
        Pong(ServerBeat) = "pong",
        /// Settings were taken over.
        SettingsApplied(SettingsApplied) = "settings_applied",
        /// A command runs.
        CommandProgress(CommandProgress) = "command_progress",
        /// A command ended.
        CommandResult(CommandResult) = "command_result",
        /// Somebody presented a ticket or a password.
        SessionVerify(SessionVerify) = "session_verify",
        /// A session began.
        SessionStarted(SessionStarted) = "session_started",
        /// A session ended.
        SessionRecord(SessionRecord) = "session_record",
        /// A caller was turned away by the device alone.
        CallerRefused(CallerRefused) = "caller_refused",
        /// The next certificate.
        CertificateProposed(CertificateProposed) = "certificate_proposed",
        /// The device wants to be removed from the server's file.
        Leave(Leave) = "leave",
        /// An answer with a code to something that the device will not do.
        Refusal(Refusal) = "refusal",
        /// The link ends in good order.
        Goodbye(Goodbye) = "goodbye",
    }
}

message_set! {
    /// What the server says.
    FromServer {
        /// Prove a first-authentication key.
        Challenge(Challenge) = "challenge",
        /// The device is taken on.
        Enrolled(Enrolled) = "enrolled",
        /// The link stands.
        Welcome(Welcome) = "welcome",
        /// The echo of a heartbeat.
        Pong(Beat) = "pong",
        /// A heartbeat of the server.
        Ping(ServerBeat) = "ping",
        /// Parameters that the server decides.
        Settings(Settings) = "settings",
        /// A command.
        Command(Command) = "command",
        /// The result of a command was filed.
        ResultFiled(ResultFiled) = "result_filed",
        /// A session is coming.
        SessionRequest(SessionRequest) = "session_request",
        /// Meet the console at the gateway.
        SessionTunnel(SessionTunnel) = "session_tunnel",
        /// The answer to a device's question about a ticket or a password.
        SessionVerdict(SessionVerdict) = "session_verdict",
        /// A session shall end.
        SessionEnd(SessionEnd) = "session_end",
        /// A session's record was filed.
        RecordFiled(RecordFiled) = "record_filed",
        /// New roots or ticket keys.
        Anchors(TrustAnchors) = "anchors",
        /// The proposed certificate is on file.
        CertificateFiled(CertificateFiled) = "certificate_filed",
        /// The device was removed from the file, as it asked.
        Left(Left) = "left",
        /// An answer with a code to something that the server will not do.
        Refusal(Refusal) = "refusal",
        /// The link ends in good order.
        Goodbye(Goodbye) = "goodbye",
    }
}

/// The device wants to be removed from the server's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {}

/// The device was removed from the file, as it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {}

/// Counts and lengths of one message body.
pub(crate) trait Limited {
    fn check(&self) -> Result<(), String>;
}

macro_rules! small {
    ($($body:ty),+) => { $(impl $crate::message::Limited for $body { fn check(&self) -> Result<(), String> { Ok(()) } })+ };
}
pub(crate) use small;

small!(
    Beat,
    ServerBeat,
    SessionStarted,
    RecordFiled,
    ResultFiled,
    Leave,
    Left,
    CertificateFiled
);

impl Limited for Hello {
    fn check(&self) -> Result<(), String> {
        count_within("versions", self.versions.len(), 32, "entries")?;
        labels("features", &self.features, 64)?;
        labels("addresses", &self.device.addresses, 32)?;
        text_within("name", &self.device.name, limits::LABEL)?;
        text_within("os", &self.device.os, limits::LABEL)?;
        text_within("agent_version", &self.device.agent_version, limits::LABEL)?;
        text_within("architecture", &self.device.architecture, limits::LABEL)
    }
}

impl Limited for Challenge {
    fn check(&self) -> Result<(), String> {
        digits("nonce", &self.nonce, 64)?;
        digits("salt", &self.salt, 32)?;
        if limits::STRETCH_ROUNDS.contains(&self.rounds) {
            Ok(())
        } else {
            Err(format!(
                "rounds is {}, outside {:?}",
                self.rounds,
                limits::STRETCH_ROUNDS
            ))
        }
    }
}

impl Limited for Enrol {
    fn check(&self) -> Result<(), String> {
        digits("nonce", &self.nonce, 64)?;
        digits("proof", &self.proof, 64)
    }
}

impl Limited for Enrolled {
    fn check(&self) -> Result<(), String> {
        digits("proof", &self.proof, 64)?;
        text_within("device_name", &self.device_name, limits::LABEL)?;
        ways(&self.connectors)?;
        self.anchors.check()
    }
}

impl Limited for TrustAnchors {
    fn check(&self) -> Result<(), String> {
        count_within("roots", self.roots.len(), limits::ROOTS, "entries")?;
        for root in &self.roots {
            text_within("root", root, limits::CERTIFICATE_PEM)?;
        }
        count_within(
            "ticket_keys",
            self.ticket_keys.len(),
            limits::TICKET_KEYS,
            "entries",
        )?;
        for key in &self.ticket_keys {
            text_within("kid", &key.kid, 64)?;
            digits("ed25519", &key.ed25519, 64)?;
        }
        Ok(())
    }
}

impl Limited for Welcome {
    fn check(&self) -> Result<(), String> {
        labels("features", &self.features, 64)?;
        text_within("device_name", &self.device_name, limits::LABEL)?;
        self.anchors.check()
    }
}

impl Limited for Settings {
    fn check(&self) -> Result<(), String> {
        count_within("values", self.values.len(), limits::SETTINGS, "parameters")?;
        for (name, value) in &self.values {
            text_within("a parameter's name", name, limits::LABEL)?;
            match value {
                Value::Bool(_) | Value::Int(_) => {}
                Value::Text(text) => text_within(name, text, limits::PARAMETER_TEXT)?,
                Value::List(texts) => {
                    let size = texts.iter().map(|text| text.len() + 1).sum();
                    count_within(name, size, limits::PARAMETER_TEXT, "bytes")?;
                }
            }
        }
        Ok(())
    }
}

impl Limited for SettingsApplied {
    fn check(&self) -> Result<(), String> {
        count_within(
            "refused",
            self.refused.len(),
            limits::SETTINGS,
            "parameters",
        )?;
        self.refused.iter().try_for_each(|(name, sentence)| {
            text_within("a parameter's name", name, limits::LABEL)?;
            text_within("a sentence", sentence, limits::SENTENCE)
        })
    }
}

impl Limited for Command {
    fn check(&self) -> Result<(), String> {
        match &self.action {
            Action::Message { text } => text_within("text", text, limits::PARAMETER_TEXT),
            Action::Reboot
            | Action::Shutdown
            | Action::Update
            | Action::Inventory
            | Action::Renew
            | Action::Rekey => Ok(()),
            Action::Connectors { connectors } => {
                if connectors.is_empty() {
                    return Err("connectors is empty".into());
                }
                ways(connectors)
            }
        }
    }
}

impl Limited for CommandProgress {
    fn check(&self) -> Result<(), String> {
        if self.percent.is_some_and(|percent| percent > 100) {
            return Err("percent is more than 100".into());
        }
        text_within("sentence", &self.sentence, limits::SENTENCE)
    }
}

impl Limited for CommandResult {
    fn check(&self) -> Result<(), String> {
        text_within("sentence", &self.sentence, limits::SENTENCE)?;
        count_within("facts", self.facts.len(), limits::SETTINGS, "entries")?;
        self.facts.iter().try_for_each(|(name, fact)| {
            text_within("a fact's name", name, limits::LABEL)?;
            text_within("a fact", fact, limits::PARAMETER_TEXT)
        })
    }
}

impl Limited for SessionRequest {
    fn check(&self) -> Result<(), String> {
        text_within("operator", &self.operator, limits::LABEL)?;
        text_within("reason", &self.reason, limits::SENTENCE)
    }
}

impl Limited for SessionTunnel {
    fn check(&self) -> Result<(), String> {
        text_within("token", self.token.reveal(), limits::PASSWORD)
    }
}

impl Limited for SessionVerify {
    fn check(&self) -> Result<(), String> {
        match &self.presented {
            Presented::Ticket { ticket, password } => {
                text_within("ticket", ticket, limits::TICKET)?;
                text_within("password", password.reveal(), limits::PASSWORD)
            }
            Presented::LegacyPassword { password } => {
                text_within("password", password.reveal(), limits::PASSWORD)
            }
        }
    }
}

impl Limited for SessionVerdict {
    fn check(&self) -> Result<(), String> {
        match &self.verdict {
            Verdict::Allowed(request) => request.check(),
            Verdict::Refused(refusal) => refusal.check(),
        }
    }
}

impl Limited for SessionEnd {
    fn check(&self) -> Result<(), String> {
        text_within("sentence", &self.sentence, limits::SENTENCE)
    }
}

impl Limited for SessionRecord {
    fn check(&self) -> Result<(), String> {
        text_within("code", &self.code, limits::LABEL)?;
        text_within("sentence", &self.sentence, limits::SENTENCE)
    }
}

impl Limited for CallerRefused {
    fn check(&self) -> Result<(), String> {
        text_within("from", &self.from, limits::LABEL)?;
        self.refusal.check()
    }
}

impl Limited for CertificateProposed {
    fn check(&self) -> Result<(), String> {
        text_within("certificate", &self.certificate, limits::CERTIFICATE_PEM)?;
        text_within("proof", &self.proof, 256)
    }
}

impl Limited for Refusal {
    fn check(&self) -> Result<(), String> {
        text_within("sentence", &self.sentence, limits::SENTENCE)
    }
}

impl Limited for Goodbye {
    fn check(&self) -> Result<(), String> {
        text_within("sentence", &self.sentence, limits::SENTENCE)
    }
}

fn ways(connectors: &[Connector]) -> Result<(), String> {
    count_within("connectors", connectors.len(), 32, "entries")?;
    connectors.iter().try_for_each(|connector| {
        text_within("address", &connector.address, 255)?;
        count_within("roots", connector.roots.len(), limits::ROOTS, "entries")?;
        connector
            .roots
            .iter()
            .try_for_each(|root| text_within("root", root, limits::CERTIFICATE_PEM))
    })
}

fn labels(field: &str, texts: &[String], most: usize) -> Result<(), String> {
    count_within(field, texts.len(), most, "entries")?;
    texts
        .iter()
        .try_for_each(|text| text_within(field, text, limits::LABEL))
}

fn digits(field: &str, text: &str, count: usize) -> Result<(), String> {
    if text.len() == count && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(format!("{field} must be {count} hexadecimal digits"))
}
