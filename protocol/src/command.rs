//! Commands to a device: sent until the device has answered, run once however often they arrive.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::enrolment::Connector;
use crate::ids::CommandId;
use crate::json::{Fields, unknown_word};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Names this command for ever.
    pub id: CommandId,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
}

/// What a device can be told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Restart the device.
    Reboot,
    /// Switch the device off.
    Shutdown,
    /// Update the device's system, in the way that its maker has laid down on it.
    Update,
    /// Show a text to the person at the device.
    Message {
        /// The text.
        text: String,
    },
    /// Report what the device is and what runs on it.
    Inventory,
    /// Make a new certificate for the key that the device has.
    Renew,
    /// Make a new key and a certificate for it.
    Rekey,
    /// Use these ways to the server, best first, instead of those that it named before. The device tries the first one
    /// before it gives any other up: one that does not work changes nothing, and the result says why.
    Connectors {
        /// The ways, at least one.
        connectors: Vec<Connector>,
    },
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Fields::read(reader, |fields| {
            Ok(Self {
                id: fields.take("id")?,
                action: Action::read(fields)?,
            })
        })
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Fields::read(reader, Self::read)
    }
}

impl Action {
    fn read(fields: &mut Fields) -> Result<Self, serde_json::Error> {
        Ok(match fields.take_text("action")?.as_str() {
            "reboot" => Action::Reboot,
            "shutdown" => Action::Shutdown,
            "update" => Action::Update,
            "message" => Action::Message {
                text: fields.take_text("text")?,
            },
            "inventory" => Action::Inventory,
            "renew" => Action::Renew,
            "rekey" => Action::Rekey,
            "connectors" => Action::Connectors {
                connectors: fields.take("connectors")?,
            },
            other => return Err(unknown_word(other)),
        })
    }

    /// The action's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Reboot => "reboot",
            Action::Shutdown => "shutdown",
            Action::Update => "update",
            Action::Message { .. } => "message",
            Action::Inventory => "inventory",
            Action::Renew => "renew",
            Action::Rekey => "rekey",
            Action::Connectors { .. } => "connectors",
        }
    }
}

/// How a command went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandResult {
    /// Which command.
    pub id: CommandId,
    /// Whether it was carried out.
    pub state: CommandState,
    /// One sentence for a person.
    pub sentence: String,
    /// Named facts, for [`Action::Inventory`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

crate::json::object!(CommandResult { id, state, sentence; facts });

/// How far a command is that takes long. Said while it runs, to servers that ask for it with [`feature::COMMAND_PROGRESS`] only; it
/// may be lost, and the next one replaces it.
///
/// [`feature::COMMAND_PROGRESS`]: crate::hello::feature::COMMAND_PROGRESS
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandProgress {
    /// Which command.
    pub id: CommandId,
    /// How much of it is done, where that is known: 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// What is being done, as a sentence or the program's own words.
    pub sentence: String,
}

crate::json::object!(CommandProgress { id, sentence; percent });

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// It was carried out.
    Done,
    /// It was tried and did not work.
    Failed,
    /// The device may have died while carrying it out; it was not tried again.
    Interrupted,
}

crate::json::words!(CommandState { Done = "done", Failed = "failed", Interrupted = "interrupted" });
