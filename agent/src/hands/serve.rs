//! The side of root: takes what lies in the folder, in order, and does it. The folder belongs to the agent's user, who may be in
//! somebody else's power: what is read there is bounded, never followed and never believed beyond its three words.

use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};
use umbra_protocol::refusal::clip;

use super::{Answer, Asked, FILE_MAX, Progress, Wish, progress_of};
use crate::commands::program::{self, Program};
use crate::files::{self, FileError, Files};
use crate::link::trouble::sentence;
use crate::paths::Paths;
use crate::registry::{Hands, Registry};

/// Wishes of one turn; more lie there for the next one.
const WISHES_MAX: usize = 16;
/// Answers that are kept.
const ANSWERS_MAX: usize = 16;
/// How long switching off may take to begin.
const POWER_DEADLINE: Duration = Duration::from_secs(10);
/// How long an update may take.
const UPDATE_DEADLINE: Duration = Duration::from_secs(3_600);

/// Does what lies there. Says how many wishes that were.
///
/// # Errors
/// [`FileError`] if the folder for the answers can't be made: nothing is done then.
pub async fn serve(paths: &Paths) -> Result<usize, FileError> {
    files::make_directory(&paths.wishes_answered(), 0o755)?;
    // A link in the folder's place would have root look elsewhere.
    if !std::fs::symlink_metadata(paths.wishes()).is_ok_and(|found| found.is_dir()) {
        return Ok(0);
    }
    let wishes = wishes(&paths.wishes());
    for name in &wishes {
        let wish = paths.wishes().join(name);
        let asked = files::read(&wish, FILE_MAX);
        // First it is taken away: whatever it does must not happen twice. If that fails it is not done, or it would be done for ever.
        if let Err(source) = std::fs::remove_file(&wish) {
            warn!(error = %source, name, "a wish can't be taken away, so it is not done");
            continue;
        }
        let answer = match asked {
            Ok(Some(bytes)) => carry_out(paths, name, &bytes).await,
            Ok(None) => continue,
            Err(error) => failed(sentence(&error)),
        };
        info!(
            name,
            done = answer.done,
            sentence = answer.sentence,
            "a wish was answered"
        );
        clear(&paths.wishes_answered());
        let text = serde_json::to_vec(&answer).unwrap_or_default();
        Files::new().write(&paths.wishes_answered().join(name), &text, 0o644)?;
    }
    Ok(wishes.len())
}

/// Names of what lies there, in the order of their names: sixteen digits and `.json`.
fn wishes(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            name.strip_suffix(".json").is_some_and(|name| {
                name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        })
        .take(WISHES_MAX)
        .collect();
    names.sort();
    names
}

/// Answers that nobody has come for go when there are many.
fn clear(folder: &Path) {
    let answers = wishes(folder);
    if answers.len() >= ANSWERS_MAX {
        for name in answers {
            // One that stays is one file more.
            let _ = std::fs::remove_file(folder.join(name));
        }
    }
}

async fn carry_out(paths: &Paths, name: &str, bytes: &[u8]) -> Answer {
    let Ok(Asked { wish }) = umbra_protocol::json::from_slice(bytes) else {
        return failed("What was asked for can't be read, so nothing was done.".to_owned());
    };
    let Hands {
        reboot,
        shutdown,
        update,
    } = Registry::of_the_image(paths);
    let (command, deadline, nameless) = match wish {
        Wish::Reboot => (reboot, POWER_DEADLINE, "umbra.hands.reboot_command"),
        Wish::Shutdown => (shutdown, POWER_DEADLINE, "umbra.hands.shutdown_command"),
        Wish::Update => (update, UPDATE_DEADLINE, "umbra.hands.update_command"),
    };
    if command.is_empty() {
        return failed(format!(
            "The device's maker has named no program for this ({nameless} in /usr/lib/umbra/registry.toml)."
        ));
    }
    let progress = progress_of(&paths.wishes_answered().join(name));
    let takes = |line: &str| {
        let Some(heard) = Progress::read(line) else {
            return false;
        };
        // Whoever waits looks once a second; if one is lost, the next one says more.
        let text = serde_json::to_vec(&heard).unwrap_or_default();
        let _ = Files::new().write(&progress, &text, 0o644);
        true
    };
    let program = Program {
        command: &command,
        // Under this name it notes what becomes of it: sixteen digits.
        environment: &[("UMBRA_WISH".to_owned(), name[..16].to_owned())],
        input: "",
        deadline,
        takes: &takes,
    };
    let ended = program::run(program).await;
    let _ = std::fs::remove_file(&progress);
    match ended {
        Ok(said) => Answer {
            done: true,
            sentence: said,
        },
        Err(error) => failed(sentence(&error)),
    }
}

fn failed(sentence: String) -> Answer {
    Answer {
        done: false,
        sentence: clip(sentence),
    }
}
