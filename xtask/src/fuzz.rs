//! `cargo xtask fuzz`: builds every fuzz target of the workspace and runs each for a bounded time, from its seeds and with its
//! dictionary. Finding no target at all is a failure, so that a renamed folder cannot pass for a clean run.
//! `docs/fuzzing.md` lists the targets; a test below holds that list.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, anyhow, bail};

use crate::step::{cargo, say, step, succeeds, target_folder, top};

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
    /// How many targets run beside each other; what they say is mixed then
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    at_once: u8,
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
    build(&targets, arguments, &path)?;
    let next = AtomicUsize::new(0);
    // A finding keeps nobody from looking for others.
    let in_turn = || -> Vec<anyhow::Error> {
        let mut findings = Vec::new();
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ran = running(target, arguments, &path)
                .and_then(|mut command| step(&format!("fuzz {}", target.name), &mut command));
            findings.extend(ran.err());
        }
        findings
    };
    let findings: Vec<anyhow::Error> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..arguments.at_once)
            .map(|_| scope.spawn(in_turn))
            .collect();
        let joined = running.into_iter().flat_map(|one| {
            let lost = |_| vec![anyhow!("a target could not be waited for")];
            one.join().unwrap_or_else(lost)
        });
        joined.collect()
    });
    for finding in &findings {
        say(&format!("==> {finding}"));
    }
    if !findings.is_empty() {
        bail!("{} of {} targets failed", findings.len(), targets.len());
    }
    say(&format!(
        "==> {} targets ran for {} s each and found nothing",
        targets.len(),
        arguments.seconds
    ));
    Ok(())
}

/// Builds all targets of a crate at once, so that running them takes the time that was asked for and no more. All crates share one
/// folder: what they have in common is compiled once.
fn build(targets: &[Target], arguments: &Arguments, path: &OsString) -> anyhow::Result<()> {
    for folder in folders(targets) {
        let mut command = cargo_fuzz("build", folder, arguments, path)?;
        if let (Some(_), [target]) = (&arguments.target, targets) {
            command.arg(&target.name);
        }
        step(&format!("build {}", short(folder).display()), &mut command)?;
    }
    Ok(())
}

/// The folders of the fuzz crates, each once.
fn folders(targets: &[Target]) -> Vec<&Path> {
    let mut folders: Vec<&Path> = targets
        .iter()
        .map(|target| target.folder.as_path())
        .collect();
    folders.dedup();
    folders
}

/// Whether all targets compile, with the versions in their lock files: no other build looks at them.
pub(crate) fn check() -> anyhow::Result<()> {
    for folder in folders(&targets(&top())?) {
        let manifest = folder.join("Cargo.toml");
        let mut command = cargo();
        command
            .env("RUSTFLAGS", "--cfg fuzzing")
            .args(["check", "--locked", "--target-dir"])
            .arg(target_folder()?.join("fuzz-check"))
            .arg("--manifest-path")
            .arg(&manifest);
        step(
            &format!("fuzz targets of {}", short(folder).display()),
            &mut command,
        )?;
    }
    Ok(())
}

/// A folder as seen from the top one, where all commands run.
fn short(folder: &Path) -> PathBuf {
    folder.strip_prefix(top()).unwrap_or(folder).to_owned()
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

/// `cargo fuzz` with what all of its commands share.
fn cargo_fuzz(
    what: &str,
    folder: &Path,
    arguments: &Arguments,
    path: &OsString,
) -> anyhow::Result<Command> {
    // Not `cargo()`: the toolchain that runs this task must give way to the one that can fuzz.
    let mut command = Command::new("cargo");
    command
        .current_dir(top())
        .env("PATH", path)
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    if has_nightly() {
        command.arg("+nightly");
    } else {
        // A stable toolchain can do it as well, told to accept unstable options.
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
        .args(["fuzz", what, "--sanitizer", &arguments.sanitizer])
        .arg("--target-dir")
        .arg(target_folder()?.join("fuzz"))
        .arg("--fuzz-dir")
        .arg(short(folder));
    Ok(command)
}

/// Runs a target on what it has found before, beginning from its seeds.
fn running(target: &Target, arguments: &Arguments, path: &OsString) -> anyhow::Result<Command> {
    let folder = short(&target.folder);
    let corpus = folder.join("corpus").join(&target.name);
    std::fs::create_dir_all(top().join(&corpus))
        .with_context(|| format!("cannot make {}", corpus.display()))?;
    let seeds = folder.join("seeds").join(&target.name);
    let dictionary = folder.join("dicts").join(format!("{}.dict", target.name));
    let mut command = cargo_fuzz("run", &target.folder, arguments, path)?;
    command.arg(&target.name).arg(corpus);
    if top().join(&seeds).is_dir() {
        command.arg(seeds);
    }
    command.args([
        "--",
        &format!("-max_total_time={}", arguments.seconds),
        "-timeout=10",
        "-rss_limit_mb=2048",
    ]);
    command.arg("-print_final_stats=1").arg("-verbosity=1");
    if top().join(&dictionary).is_file() {
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

    /// The names in the first column of the tables of the page.
    fn listed(page: &str) -> Vec<String> {
        let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
        page.lines().filter_map(name).collect()
    }

    #[test]
    fn every_target_is_on_the_list_and_the_list_names_no_other() {
        let page = std::fs::read_to_string(top().join("docs/fuzzing.md")).expect("the page");
        let mut listed = listed(&page);
        listed.sort();
        let mut names: Vec<String> = targets(&top())
            .expect("found")
            .into_iter()
            .map(|target| target.name)
            .collect();
        names.sort();
        assert_eq!(listed, names, "docs/fuzzing.md and the fuzz crates differ");
        let count = names.len();
        names.dedup();
        assert_eq!(
            names.len(),
            count,
            "two targets of one name: --target would run both"
        );
    }

    #[test]
    fn every_file_with_a_target_is_one_that_is_built_and_every_seed_belongs_to_one() {
        for target in targets(&top()).expect("found") {
            let file = target
                .folder
                .join(format!("fuzz_targets/{}.rs", target.name));
            assert!(file.is_file(), "{} is missing", file.display());
        }
        let names: Vec<String> = targets(&top())
            .expect("found")
            .into_iter()
            .map(|target| target.name)
            .collect();
        let mut folders: Vec<PathBuf> = targets(&top())
            .expect("found")
            .into_iter()
            .map(|target| target.folder)
            .collect();
        folders.dedup();
        for folder in folders {
            for part in ["fuzz_targets", "seeds", "dicts"] {
                let Ok(entries) = std::fs::read_dir(folder.join(part)) else {
                    continue;
                };
                for entry in entries.flatten() {
                    let path = entry.path();
                    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                    assert!(
                        names.iter().any(|name| *name == stem),
                        "{} belongs to no target",
                        path.display()
                    );
                }
            }
        }
    }
}
