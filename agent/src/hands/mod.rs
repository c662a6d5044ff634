//! What only root may do, asked for by the agent and done by a program that does nothing else: restarting, switching off and updating
//! the device. The agent, which speaks with the network, can only leave one of three words in a folder; what they mean is
//! said in the image's own file, which the agent can't write. Nothing passes through a shell.
//!
//! The service manager starts `umbra-agent hands` when a wish lies there (`umbra-hands.path`); without one it may stay running
//! (`--stay`). A wish is answered by a file of the same name in a folder that only root can write.

#[cfg(fuzzing)]
pub mod fuzzing;
pub mod outcome;
mod serve;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Serialize;
use umbra_protocol::CommandId;
use umbra_protocol::refusal::clip;

use crate::files::{self, FileError, Files};
use crate::paths::Paths;

pub use serve::serve;

/// How long a wish may lie there before somebody takes it.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// How often is looked whether something has happened.
pub const GLANCE: Duration = Duration::from_millis(100);
/// Most bytes of a wish, and of an answer.
const FILE_MAX: usize = 4096;

/// What root is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// The device is to restart.
    Reboot,
    /// The device is to switch itself off.
    Shutdown,
    /// The device is to update its system.
    Update,
}

umbra_protocol::json::words!(Wish { Reboot = "reboot", Shutdown = "shutdown", Update = "update" });

/// A wish, as it lies in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Asked {
    wish: Wish,
}

umbra_protocol::json::object!(Asked { wish;  });

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Answer {
    done: bool,
    /// What happened, as a sentence.
    sentence: String,
}

umbra_protocol::json::object!(Answer { done, sentence;  });

/// How far a wish is, as the program that makes it come true says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// How much is done, 0 to 100, where that is known.
    #[serde(default)]
    pub percent: Option<u8>,
    /// What is being done.
    pub sentence: String,
}

umbra_protocol::json::object!(Progress { sentence; percent });

impl Progress {
    /// A line that begins with a number and `%` is progress: what RAUC and many others say.
    fn read(line: &str) -> Option<Self> {
        let (percent, rest) = line.trim_start().split_once('%')?;
        let percent = percent.parse().ok().filter(|percent| *percent <= 100)?;
        let sentence = clip(rest.trim().to_owned());
        Some(Self {
            percent: Some(percent),
            sentence,
        })
    }
}

/// Why a wish did not come true.
#[derive(Debug, thiserror::Error)]
pub enum HandsError {
    /// The wish could not be left, or the answer not be read.
    #[error("the device's helper for what only root may do could not be asked")]
    File(#[from] FileError),
    /// The answer is no answer.
    #[error("the device's helper for what only root may do gave an answer that can't be read")]
    Answer,
    /// Nobody is there.
    #[error(
        "nobody on this device does what only root may do. Its maker has to switch “umbra-hands.path” on, or name a program for it"
    )]
    Nobody,
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// It is not done yet.
    #[error("it was not done after {} seconds; the device's helper goes on with it", .0.as_secs())]
    TooSlow(Duration),
}

/// A wish that has been left.
#[derive(Debug)]
pub struct Waiting {
    wish: PathBuf,
    answer: PathBuf,
    since: Instant,
    deadline: Duration,
}

/// The wish that is left for a command: what becomes of it can be found again by whoever knows the command.
fn name_of(id: CommandId) -> String {
    id.to_string().chars().take(16).collect()
}

/// Leaves the wish for an update, as [`ask`] does.
///
/// # Errors
/// [`HandsError::File`] if it could not be left.
pub fn ask_update(paths: &Paths, id: CommandId, deadline: Duration) -> Result<Waiting, HandsError> {
    leave(paths, Wish::Update, &name_of(id), deadline)
}

/// Leaves a wish. What becomes of it is to be looked at every [`GLANCE`], for `deadline` at most.
///
/// # Errors
/// [`HandsError::File`] if it could not be left.
pub fn ask(paths: &Paths, wish: Wish, deadline: Duration) -> Result<Waiting, HandsError> {
    let mut name = [0; 8];
    SystemRandom::new()
        .fill(&mut name)
        .map_err(|_| HandsError::Nobody)?;
    let name = format!("{:016x}", u64::from_be_bytes(name));
    leave(paths, wish, &name, deadline)
}

fn leave(paths: &Paths, wish: Wish, name: &str, deadline: Duration) -> Result<Waiting, HandsError> {
    files::make_directory(&paths.wishes(), 0o700)?;
    let name = format!("{name}.json");
    let waiting = Waiting {
        wish: paths.wishes().join(&name),
        answer: paths.wishes_answered().join(&name),
        since: Instant::now(),
        deadline,
    };
    let text = serde_json::to_vec(&Asked { wish }).map_err(|_| HandsError::Answer)?;
    Files::new().write(&waiting.wish, &text, 0o600)?;
    Ok(waiting)
}

impl Waiting {
    /// How far it is, if that is told.
    pub fn progress(&self) -> Option<Progress> {
        let bytes = files::read(&progress_of(&self.answer), FILE_MAX).ok()??;
        let progress: Progress = umbra_protocol::json::from_slice(&bytes).ok()?;
        Some(Progress {
            sentence: clip(progress.sentence),
            ..progress
        })
    }

    /// What has become of it; nothing while that is open. Says what root's program said.
    pub fn look(&self) -> Option<Result<String, HandsError>> {
        match files::read(&self.answer, FILE_MAX) {
            Ok(Some(bytes)) => return Some(read_answer(&bytes)),
            Ok(None) => {}
            Err(error) => return Some(Err(error.into())),
        }
        let waited = self.since.elapsed();
        if waited >= TAKEN_WITHIN && self.wish.exists() {
            // Nobody is to find it later, when nobody expects it any more.
            return Some(match std::fs::remove_file(&self.wish) {
                Ok(()) => Err(HandsError::Nobody),
                // It has just been taken.
                Err(_) => return None,
            });
        }
        (waited >= self.deadline).then_some(Err(HandsError::TooSlow(self.deadline)))
    }
}

/// Where progress is told, beside the answer.
fn progress_of(answer: &Path) -> PathBuf {
    answer.with_extension("progress")
}

fn read_answer(bytes: &[u8]) -> Result<String, HandsError> {
    let answer: Answer = umbra_protocol::json::from_slice(bytes).map_err(|_| HandsError::Answer)?;
    let sentence = clip(answer.sentence);
    if answer.done {
        Ok(sentence)
    } else {
        Err(HandsError::Failed(sentence))
    }
}

#[cfg(test)]
mod tests;
