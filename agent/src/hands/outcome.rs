//! What is noted of the last update, by the program that carries it out as root and by the check after the restart
//! (`image/rauc`). Root writes it, and it outlives a restart and a power cut: so the agent knows what became of an update that it
//! asked for in an earlier life. Six lines; what the program alone needs is skipped.

use umbra_protocol::CommandId;
use umbra_protocol::refusal::clip;

use super::name_of;
use crate::files;
use crate::paths::Paths;

/// More bytes than the six lines have.
const FILE_MAX: usize = 4096;

/// How far the update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is being installed.
    Installing,
    /// It is installed, and begins with a restart.
    Restart,
    /// It was given up; the device is going back to the system before.
    GivenUp,
    /// It is in use, for good.
    Good,
    /// The device restarted in the middle of it and runs what it ran before.
    Cut,
    /// The device runs what it ran before, or something is wrong.
    Failed,
}

/// What is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How far it is.
    pub word: Word,
    /// The boot in which that was noted.
    pub boot: String,
    /// What happened, as a sentence.
    pub sentence: String,
}

impl Outcome {
    /// What is noted of the update that this command asked for; nothing if the last update was another one.
    pub fn of(paths: &Paths, id: CommandId) -> Option<Self> {
        let bytes = files::read(&paths.update_noted(), FILE_MAX).ok()??;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let word = match lines.next()? {
            "installing" => Word::Installing,
            "restart" => Word::Restart,
            "bad" | "worse" => Word::GivenUp,
            "good" => Word::Good,
            "cut" => Word::Cut,
            "back" | "failed" => Word::Failed,
            _ => return None,
        };
        if lines.next()? != name_of(id) {
            return None;
        }
        let boot = lines.next()?.to_owned();
        let sentence = clip(lines.nth(2).unwrap_or_default().to_owned());
        Some(Self {
            word,
            boot,
            sentence,
        })
    }
}
