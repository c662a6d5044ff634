//! A task's steps: each says what it runs and how long that took, and the first one that fails ends the task with a
//! sentence on how to run it alone.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};

/// The workspace's top folder.
pub(crate) fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where builds go.
pub(crate) fn target_folder() -> std::io::Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => std::path::absolute(folder),
        None => Ok(top().join("target")),
    }
}

/// The cargo that runs this task, so that the toolchain stays the same.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(top());
    // What cargo tells this program of itself must not reach its next run: crates such as ring look at it, and would be built
    // anew after every build that a person has started by hand, and the other way round.
    for (name, _) in std::env::vars_os() {
        let known = name.to_string_lossy();
        if known.starts_with("CARGO_PKG_") || known.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Says a line at once, also to a pipe.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to tell when stdout is closed.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// A command as a person would type it in the top folder.
pub(crate) fn typed(command: &Command) -> String {
    let quoted = |text: &str| match text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./=:+,*@".contains(c))
    {
        true if !text.is_empty() => text.to_owned(),
        _ => format!("'{text}'"),
    };
    let mut words: Vec<String> = command
        .get_envs()
        // Where programs are found is no news to the person who types.
        .filter(|(name, _)| *name != "PATH")
        .filter_map(|(name, value)| {
            Some(format!(
                "{}={}",
                name.to_string_lossy(),
                quoted(&value?.to_string_lossy())
            ))
        })
        .collect();
    let program = Path::new(command.get_program());
    let name = program
        .file_name()
        .filter(|_| program.is_absolute() && !program.starts_with(top()));
    words.push(quoted(
        &name.unwrap_or(program.as_os_str()).to_string_lossy(),
    ));
    words.extend(
        command
            .get_args()
            .map(|argument| quoted(&argument.to_string_lossy())),
    );
    words.join(" ")
}

/// Runs one step with its output passed through.
pub(crate) fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    let shown = typed(command);
    say(&format!("==> {name}: {shown}"));
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{name}: {shown} cannot be started"))?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{name} failed after {seconds:.1} s ({status}). To run only that: {shown}");
    }
    say(&format!("    {name}: done in {seconds:.1} s"));
    Ok(())
}

/// Whether a command runs and succeeds; what it says is of no interest.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let mut command = Command::new("/usr/bin/cargo");
        command
            .args(["doc", "a b"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .env("PATH", "/bin");
        assert_eq!(
            typed(&command),
            "RUSTDOCFLAGS='-D warnings' cargo doc 'a b'"
        );
    }

    #[test]
    fn a_failed_step_says_how_to_run_only_that() {
        let failed = step("the false one", &mut Command::new("false"))
            .expect_err("fails")
            .to_string();
        assert!(
            failed.contains("the false one") && failed.ends_with("To run only that: false"),
            "{failed}"
        );
        assert!(step("the true one", &mut Command::new("true")).is_ok());
        assert!(step("the absent one", &mut Command::new("no-such-program")).is_err());
    }
}
