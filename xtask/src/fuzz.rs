//! `cargo xtask fuzz`: runs every fuzz target of the workspace for a bounded time, from its seeds and with its
//! dictionary. Finding no target at all is a failure, so that a renamed folder cannot pass for a clean run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::step::{cargo, say, step, succeeds, top};

/// The version of cargo-fuzz that is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";

/// What a person may say.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Run only the target of this name
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// The sanitizer to build with; `none` where it isn't available
    #[arg(long, default_value = "address", value_name = "NAME")]
    sanitizer: String,
}

/// A fuzz target.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// The folder with the fuzz crate.
    folder: PathBuf,
    name: String,
}

/// Runs all targets; the first that finds something ends it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut targets = targets(&top())?;
    if targets.is_empty() {
        bail!("no fuzz target was found below {}", top().display());
    }
    if let Some(wanted) = &arguments.target {
        let names: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
        targets.retain(|target| target.name == *wanted);
        if targets.is_empty() {
            bail!(
                "there is no fuzz target {wanted:?}; there are: {}",
                names.join(", ")
            );
        }
    }
    let path = path_with_cargo_fuzz()?;
    for target in &targets {
        step(
            &format!("fuzz {}", target.name),
            &mut command(target, arguments, &path)?,
        )?;
    }
    say(&format!(
        "==> {} targets ran for {} s each and found nothing",
        targets.len(),
        arguments.seconds
    ));
    Ok(())
}

/// The targets of all fuzz crates, which stand outside of the workspace beside what they fuzz.
fn targets(top: &Path) -> anyhow::Result<Vec<Target>> {
    let mut found = Vec::new();
    for folder in subfolders(top)?
        .into_iter()
        .chain(subfolders(&top.join("control-plane"))?)
    {
        let manifest = folder.join("fuzz/Cargo.toml");
        if !manifest.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        let mut names: Vec<String> = bins(&text);
        if names.is_empty() {
            bail!("{} names no fuzz target", manifest.display());
        }
        names.sort();
        let folder = folder.join("fuzz");
        found.extend(names.into_iter().map(|name| Target {
            folder: folder.clone(),
            name,
        }));
    }
    Ok(found)
}

fn subfolders(of: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !of.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(of).with_context(|| format!("cannot list {}", of.display()))?;
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    Ok(folders)
}

/// The names of the `[[bin]]` sections of a manifest.
fn bins(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_bin = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_bin = line == "[[bin]]";
        } else if let (true, Some((key, value))) = (in_bin, line.split_once('='))
            && key.trim() == "name"
        {
            names.push(value.trim().trim_matches('"').to_owned());
        }
    }
    names
}

fn has_nightly() -> bool {
    succeeds(Command::new("rustc").args(["+nightly", "--version"]))
}

/// The search path, with a cargo-fuzz of our own in front where none is installed.
fn path_with_cargo_fuzz() -> anyhow::Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if succeeds(cargo().args(["fuzz", "--version"])) {
        return Ok(path);
    }
    let root = top().join("target/tools");
    let tools = root.join("bin");
    if !tools.join("cargo-fuzz").is_file() {
        say(&format!(
            "==> installing cargo-fuzz {CARGO_FUZZ} into target/tools"
        ));
        let install = [
            "install",
            "cargo-fuzz",
            "--version",
            CARGO_FUZZ,
            "--locked",
            "--root",
        ];
        step("cargo-fuzz", cargo().args(install).arg(&root))?;
    }
    let folders = std::iter::once(tools).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("a folder on the search path has a colon in its name")
}

fn command(target: &Target, arguments: &Arguments, path: &OsString) -> anyhow::Result<Command> {
    let top = top();
    // Everything below is named as seen from the top folder, where the command runs.
    let folder = target.folder.strip_prefix(&top).unwrap_or(&target.folder);
    let corpus = folder.join("corpus").join(&target.name);
    std::fs::create_dir_all(top.join(&corpus))
        .with_context(|| format!("cannot make {}", corpus.display()))?;
    let seeds = folder.join("seeds").join(&target.name);
    let dictionary = folder.join("dicts").join(format!("{}.dict", target.name));

    // Not `cargo()`: the toolchain that runs this task must give way to the one that can fuzz.
    let mut command = Command::new("cargo");
    command
        .current_dir(&top)
        .env("PATH", path)
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    if has_nightly() {
        command.arg("+nightly");
    } else {
        say(
            "    no nightly toolchain: fuzzing with the stable one, told to accept unstable options",
        );
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
        .args([
            "fuzz",
            "run",
            "--sanitizer",
            &arguments.sanitizer,
            "--fuzz-dir",
        ])
        .arg(folder);
    command.arg(&target.name).arg(corpus);
    if top.join(&seeds).is_dir() {
        command.arg(seeds);
    }
    command.args([
        "--",
        &format!("-max_total_time={}", arguments.seconds),
        "-timeout=10",
        "-rss_limit_mb=2048",
    ]);
    command.arg("-print_final_stats=1").arg("-verbosity=1");
    if top.join(&dictionary).is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
        [package]
        name = \"things-fuzz\"
        [[bin]]
        name = \"two\"
        path = \"two.rs\"
        [[bin]]
        path = \"one.rs\"
        name=\"one\"
        [dependencies]
        name = \"not-a-target\"
    ";

    #[test]
    fn targets_are_found_beside_what_they_fuzz_and_nowhere_else() {
        let folder = std::env::temp_dir().join(format!("umbra-xtask-{}", std::process::id()));
        for place in ["things/fuzz", "control-plane/server/fuzz", "empty"] {
            std::fs::create_dir_all(folder.join(place)).expect("a folder");
        }
        std::fs::write(folder.join("things/fuzz/Cargo.toml"), MANIFEST).expect("written");
        let server = "[[bin]]\nname = \"three\"\n";
        std::fs::write(folder.join("control-plane/server/fuzz/Cargo.toml"), server)
            .expect("written");
        let found = targets(&folder).expect("found");
        std::fs::write(folder.join("things/fuzz/Cargo.toml"), "[package]\n").expect("written");
        let none = targets(&folder);
        std::fs::remove_dir_all(&folder).expect("removed");
        let names: Vec<_> = found.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["one", "two", "three"]);
        assert!(none.is_err(), "a fuzz crate without targets passed");
    }
}
