//! The same source, built a second time in another folder with nothing of the first: what comes out must be the same to
//! the last byte.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::target::Target;
use super::way::{Places, Way};
use super::{auditable, build_programs, crates, sha256};
use crate::step::{say, top};

/// Builds again below a folder and compares.
pub(crate) fn compare(
    way: Way,
    target: Target,
    first: &[u8],
    below: &Path,
    epoch: u64,
) -> anyhow::Result<()> {
    let (source, build) = (below.join("another-place-for-the-source"), below.join("b"));
    let count = copy_source(&source)?;
    say(&format!(
        "    {count} files of source are in {}",
        source.display()
    ));
    let places = Places {
        source: &source,
        build: &build,
        epoch,
    };
    let second = build_programs(way, &[target], &places)?.concat();
    // What ships: what is only there to find mistakes with names the folder in which zig was installed.
    let crates = crates::of_agent(target)?;
    let first = &auditable::embedded(first, &crates)?;
    let second = auditable::embedded(&second, &crates)?;
    match difference(first, &second) {
        None => {
            say(&format!("    both builds are the same: {}", sha256(first)));
            Ok(())
        }
        Some(what) => {
            let kept = [below.join("first"), below.join("second")];
            for (path, bytes) in kept.iter().zip([first, &second]) {
                std::fs::write(path, bytes)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            bail!(
                "two builds for {} differ: {what} (they are kept: {} and {})",
                target.processor(),
                kept[0].display(),
                kept[1].display()
            )
        }
    }
}

fn difference(first: &[u8], second: &[u8]) -> Option<String> {
    if first == second {
        return None;
    }
    let different = first
        .iter()
        .zip(second)
        .filter(|(one, other)| one != other)
        .count();
    let at = first
        .iter()
        .zip(second)
        .position(|(one, other)| one != other);
    Some(format!(
        "{} and {} bytes long, {different} bytes differ, from {} on",
        first.len(),
        second.len(),
        at.unwrap_or(first.len().min(second.len()))
    ))
}

/// Copies what belongs to the source, committed or not yet, and says how many files that are.
fn copy_source(to: &Path) -> anyhow::Result<usize> {
    if to.exists() {
        std::fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let output = git
        .current_dir(top())
        .output()
        .context("git cannot be started")?;
    if !output.status.success() {
        bail!(
            "git cannot list the source: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let listed = String::from_utf8(output.stdout).context("a file's name is no text")?;
    let mut count = 0;
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (top().join(name), to.join(name));
        // What was removed and not committed is listed as well.
        if !from.is_file() {
            continue;
        }
        let folder = to.parent().map(PathBuf::from).unwrap_or_default();
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::copy(&from, &to))
            .with_context(|| format!("cannot copy {name}"))?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_with_where_it_begins() {
        assert_eq!(difference(b"same", b"same"), None);
        let told = difference(b"abcd", b"abXd").expect("they differ");
        assert!(told.contains("1 bytes differ, from 2 on"), "{told}");
        let told = difference(b"abc", b"abcd").expect("they differ");
        assert!(
            told.starts_with("3 and 4 bytes long") && told.ends_with("from 3 on"),
            "{told}"
        );
    }

    #[test]
    fn the_copy_holds_what_a_build_needs() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().join("copy");
        assert!(copy_source(&to).expect("copied") > 100);
        for name in [
            "Cargo.toml",
            "Cargo.lock",
            "agent/src/main.rs",
            "agent/build.rs",
        ] {
            assert!(to.join(name).is_file(), "{name}");
        }
        assert!(!to.join("target").exists());
    }
}
