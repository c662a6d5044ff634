//! A folder of its own for every scenario, with the logs of all programs that it started. When a scenario fails, what
//! those programs said last is part of the failure; when it succeeds, nothing stays.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// The most that a scenario may take in all; the test runner's own limit lies beyond it, since it shows no logs.
pub const SCENARIO_LIMIT: Duration = Duration::from_secs(150);
/// How many lines of each log are shown.
const LINES_SHOWN: usize = 80;
/// Keeps the folder when set, even after a success.
const KEEP: &str = "UMBRA_KEEP_SCRATCH";

/// A scenario's folder.
pub struct Scratch {
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// Makes the folder; its name is short, since Unix sockets in it have a limit of 108 bytes.
    pub fn new() -> std::io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("umbra-").tempdir()?;
        let path = folder.path().to_owned();
        std::fs::create_dir(path.join("log"))?;
        Ok(Self {
            folder: Some(folder),
            path,
        })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a folder in the folder.
    pub fn folder(&self, name: &str) -> std::io::Result<PathBuf> {
        let path = self.path(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Where a program's log belongs; a second one of the same name gets a number.
    pub fn log(&self, name: &str) -> PathBuf {
        let mut path = self.path.join("log").join(format!("{name}.log"));
        let mut number = 2;
        while path.exists() {
            path = self.path.join("log").join(format!("{name}-{number}.log"));
            number += 1;
        }
        path
    }

    /// The log of programs that run for a moment, again and again under one name.
    pub fn append(&self, name: &str) -> std::io::Result<std::fs::File> {
        let path = self.path.join("log").join(format!("{name}.log"));
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
    }

    /// The end of every log, as one text.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let mut paths: Vec<_> = std::fs::read_dir(self.path.join("log"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        paths.sort();
        for path in paths {
            let log = std::fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().collect();
            let skipped = lines.len().saturating_sub(LINES_SHOWN);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "--- {name} ({} lines, the last {})",
                lines.len(),
                lines.len() - skipped
            );
            for line in &lines[skipped..] {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// Keeps the folder for a person to look into.
    pub fn keep(&mut self) -> &Path {
        if let Some(folder) = self.folder.take() {
            self.path = folder.keep();
        }
        &self.path
    }
}

impl Drop for Scratch {
    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows this with the test it belongs to"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}({KEEP}=1 keeps the scenario's folder)", self.logs());
        }
        if std::env::var_os(KEEP).is_some() {
            self.keep();
        }
    }
}

/// Runs a scenario in a folder of its own and within [`SCENARIO_LIMIT`]; a failure panics with its causes,
/// and the logs are shown.
pub async fn scenario<F>(body: F)
where
    F: AsyncFnOnce(&Scratch) -> anyhow::Result<()>,
{
    let scratch = Scratch::new().expect("a temporary folder");
    let outcome = tokio::time::timeout(SCENARIO_LIMIT, body(&scratch))
        .await
        .with_context(|| format!("the scenario took longer than {SCENARIO_LIMIT:?}"))
        .and_then(|outcome| outcome);
    if let Err(error) = outcome {
        // The logs follow when the folder is given up.
        panic!("{error:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_one_name_stay_apart_and_are_shown_by_their_end() {
        let scratch = Scratch::new().expect("a folder");
        let first = scratch.log("agent");
        let long: String = (0..200).map(|number| format!("line {number}\n")).collect();
        std::fs::write(&first, long).expect("written");
        let second = scratch.log("agent");
        assert_ne!(first, second);
        std::fs::write(&second, "short\n").expect("written");
        let shown = scratch.logs();
        assert!(
            shown.contains("line 199") && !shown.contains("line 5\n") && shown.contains("short"),
            "{shown}"
        );
    }

    #[test]
    fn the_folder_is_gone_afterwards() {
        let scratch = Scratch::new().expect("a folder");
        let path = scratch.root().to_owned();
        assert!(path.is_dir());
        drop(scratch);
        assert!(!path.exists());
    }

    #[tokio::test]
    #[should_panic(expected = "the door is shut")]
    async fn a_failed_scenario_panics_with_all_its_causes() {
        scenario(async |_| Err(anyhow::anyhow!("the door is shut").context("cannot get in"))).await;
    }
}
