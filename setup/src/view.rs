//! What a face shows and what it answers. A face needs to know nothing else: it draws the items in their order, offers the
//! actions, and sends what the person did. No view holds a key in clear unless the person has asked to see it.

use serde::{Deserialize, Deserializer, Serialize};
use umbra_protocol::Secret;
use umbra_protocol::json::{Fields, unknown_word};

use crate::catalogue::Language;

/// The version of this form, in every view. A face of another version says so instead of guessing.
pub const VIEW_VERSION: u32 = 1;

/// One screen, as a whole: whatever was shown before is replaced by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// [`VIEW_VERSION`].
    pub version: u32,
    /// Which screen.
    pub step: Step,
    /// Which of the steps this is, from 1; 0 for a screen beside the steps.
    pub number: u8,
    /// How many steps there are.
    pub of: u8,
    /// The language of all texts in it.
    pub language: Language,
    /// The heading.
    pub title: String,
    /// Paragraphs below the heading.
    pub text: Vec<String>,
    /// What is asked and shown, from top to bottom.
    pub items: Vec<Item>,
    /// What can be pressed, from left to right. At most one is the default: the enter key presses it.
    pub actions: Vec<Action>,
    /// What has just happened, if that needs a word.
    pub notice: Option<Notice>,
    /// Whether something is running that the person waits for.
    pub busy: bool,
}

/// Which screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// In which language.
    Language,
    /// Where the server is.
    Address,
    /// Whether it can be reached.
    Check,
    /// Whether it is the right one.
    Fingerprint,
    /// The first-authentication key.
    Key,
    /// Being taken on.
    LogOn,
    /// The connection is ready.
    Ready,
    /// Whether to leave the assistant. Beside the steps.
    Leave,
    /// The device has a server already. Beside the steps.
    Belongs,
    /// Another assistant is at work on this device. Beside the steps.
    Taken,
}

/// A part of the screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "item", rename_all = "snake_case")]
pub enum Item {
    /// One of several.
    Choice {
        /// For [`Input::Choose`].
        id: String,
        /// What it is about.
        label: String,
        /// From top to bottom.
        options: Vec<Choice>,
        /// The ID of the one that is chosen.
        selected: Option<String>,
    },
    /// A line to type or to paste.
    Entry {
        /// For [`Input::Set`] and [`Input::Reveal`].
        id: String,
        /// What it is.
        label: String,
        /// An example or a help, for below the line.
        hint: String,
        /// What is in it. While a secret is hidden, one “•” for each of its characters.
        text: String,
        /// Whether it is a secret: then it can be revealed and hidden again.
        secret: bool,
        /// Whether a secret is shown in clear.
        revealed: bool,
    },
    /// Something that runs or ran.
    Progress {
        /// Which.
        id: String,
        /// What it is.
        label: String,
        /// How far.
        state: State,
        /// What came of it; empty while there is nothing to say.
        sentence: String,
    },
    /// Something to read or to compare.
    Fact {
        /// What it is.
        label: String,
        /// What it says.
        value: String,
    },
}

/// One option of a choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// For [`Input::Choose`].
    pub id: String,
    /// What it is.
    pub label: String,
    /// More about it, for a smaller line; may be empty.
    pub detail: String,
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not begun.
    Waiting,
    /// Under way.
    Running,
    /// It does not apply here.
    Skipped,
    /// Done and well.
    Good,
    /// Done; something should be looked at.
    Warning,
    /// It did not work.
    Failed,
}

/// A button.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// For [`Input::Press`].
    pub id: String,
    /// What it says.
    pub label: String,
    /// Whether it can be pressed now.
    pub enabled: bool,
    /// Whether the enter key presses it.
    pub default: bool,
}

/// What has just happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// How it is meant.
    pub tone: Tone,
    /// In words.
    pub text: String,
}

/// How a notice is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// To know.
    Information,
    /// It went well.
    Good,
    /// To look at.
    Warning,
    /// It did not work.
    Problem,
}

/// What the person did. An input that does not fit the screen (an unknown ID, a button that can't be pressed) changes nothing:
/// the screen may have changed while it was on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// An entry holds this now, as a whole. It may be the key, so it is treated like one.
    Set {
        /// Which entry.
        entry: String,
        /// What is in it.
        text: Secret,
    },
    /// This option was chosen.
    Choose {
        /// Of which choice.
        choice: String,
        /// Which option.
        option: String,
    },
    /// A secret is to be shown, or hidden again.
    Reveal {
        /// Which entry.
        entry: String,
        /// Shown or hidden.
        on: bool,
    },
    /// This button was pressed.
    Press {
        /// Which.
        action: String,
    },
    /// The face is gone: the window was closed, the line was cut. What was entered stays, except the key.
    Close,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Fields::read(reader, |fields| {
            let input = match fields.take_text("input")?.as_str() {
                "set" => Input::Set {
                    entry: fields.take_text("entry")?,
                    text: fields.take("text")?,
                },
                "choose" => Input::Choose {
                    choice: fields.take_text("choice")?,
                    option: fields.take_text("option")?,
                },
                "reveal" => Input::Reveal {
                    entry: fields.take_text("entry")?,
                    on: fields.take("on")?,
                },
                "press" => Input::Press {
                    action: fields.take_text("action")?,
                },
                "close" => Input::Close,
                other => return Err(unknown_word(other)),
            };
            fields.nothing_else()?;
            Ok(input)
        })
    }
}
