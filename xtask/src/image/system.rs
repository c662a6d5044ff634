//! The parts of the example thin client: kernel, base and root. Each is made by a script in `image/thin-client`, and the slow ones
//! are made again only when what they are made from has changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::{Sources, deb};
use crate::dist::{self, Target};
use crate::step::{say, step, top};

/// A thin client's parts for one processor.
pub(crate) struct System {
    folder: PathBuf,
    target: Target,
}

impl System {
    /// Kept in this folder.
    pub(crate) fn new(folder: &Path, target: Target) -> Self {
        Self {
            folder: folder.to_owned(),
            target,
        }
    }

    fn script(name: &str) -> PathBuf {
        top().join("image/thin-client").join(name)
    }

    fn part(&self, name: &str) -> PathBuf {
        self.folder
            .join(format!("{name}-{}", self.target.processor()))
    }

    fn sources(&self) -> anyhow::Result<PathBuf> {
        Sources::of_this_machine()?.write(&self.folder.join("sources.list"))
    }

    /// The folder with `linux` and `initramfs`.
    pub(crate) fn kernel(&self) -> anyhow::Result<PathBuf> {
        let sources = self.sources()?;
        let from = [
            Self::script("kernel"),
            Self::script("init"),
            sources.clone(),
        ];
        let part = self.part("kernel");
        kept("kernel", &part, &from, || {
            let mut command = Command::new(Self::script("kernel"));
            command.args(["--arch", deb::architecture(self.target)]);
            command
                .arg("--sources")
                .arg(&sources)
                .arg("--out")
                .arg(&part);
            step("kernel", &mut command)
        })?;
        Ok(part)
    }

    /// The folder with Debian's packages, and nothing of ours; with more packages if there are lists of them.
    pub(crate) fn base(&self, more: &[PathBuf]) -> anyhow::Result<PathBuf> {
        let sources = self.sources()?;
        let (packages, offline) = (Self::script("packages"), Self::script("packages.offline"));
        let mut from = vec![
            Self::script("base"),
            sources.clone(),
            packages.clone(),
            offline.clone(),
        ];
        from.extend(more.iter().cloned());
        let part = self.part("base");
        kept("Debian root", &part, &from, || {
            let mut command = Command::new(Self::script("base"));
            command.args(["--arch", deb::architecture(self.target)]);
            command.arg("--sources").arg(&sources);
            for list in [&packages].into_iter().chain(more) {
                command.arg("--packages").arg(list);
            }
            command
                .arg("--offline")
                .arg(&offline)
                .arg("--out")
                .arg(&part);
            step("Debian root", &mut command)
        })?;
        Ok(part)
    }

    /// The root as a squashfs, with the package and these folders laid over it.
    pub(crate) fn root(&self, package: &Path, overlays: &[PathBuf]) -> anyhow::Result<PathBuf> {
        let base = self.base(&[])?;
        let mut from = vec![
            Self::script("root"),
            Self::script("rootfs"),
            package.to_owned(),
            self.stamp("base"),
        ];
        from.extend(overlays.iter().cloned());
        let part = self
            .folder
            .join(format!("root-{}.squashfs", self.target.processor()));
        kept("root file system", &part, &from, || {
            let mut command = Command::new(Self::script("root"));
            command
                .arg("--base")
                .arg(&base)
                .arg("--package")
                .arg(package);
            for overlay in overlays {
                command.arg("--overlay").arg(overlay);
            }
            step("root file system", command.arg("--out").arg(&part))
        })?;
        Ok(part)
    }

    fn stamp(&self, name: &str) -> PathBuf {
        stamp(&self.part(name))
    }
}

/// Where it is written down what a part was made from.
fn stamp(part: &Path) -> PathBuf {
    let mut name = part.file_name().unwrap_or_default().to_owned();
    name.push(".made-from");
    part.with_file_name(name)
}

/// Makes a part, unless it is there and was made from the same.
fn kept(
    name: &str,
    part: &Path,
    from: &[PathBuf],
    make: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let sum = sum(from)?;
    let stamp = stamp(part);
    if part.exists() && std::fs::read_to_string(&stamp).is_ok_and(|made| made == sum) {
        say(&format!("==> {name}: {} is up to date", part.display()));
        return Ok(());
    }
    // What is not finished is not kept.
    if stamp.exists() {
        std::fs::remove_file(&stamp)?;
    }
    make()?;
    std::fs::write(&stamp, sum).with_context(|| format!("cannot write {}", stamp.display()))
}

/// One sum over names and contents of all files.
fn sum(from: &[PathBuf]) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for path in from {
        files_below(path, &mut files)?;
    }
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let content =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        all.extend_from_slice(
            format!("{} {}\n", dist::sha256(&content), file.display()).as_bytes(),
        );
    }
    Ok(dist::sha256(&all))
}

fn files_below(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries =
        std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    for entry in entries {
        files_below(&entry?.path(), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_made_again_when_what_it_is_made_from_has_changed_or_making_it_failed()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let from = folder.path().join("from");
        std::fs::create_dir(&from)?;
        std::fs::write(from.join("one"), "1")?;
        let part = folder.path().join("part");
        let mut made = 0;
        let mut make = |fails: bool| {
            let outcome = kept("part", &part, std::slice::from_ref(&from), || {
                made += 1;
                std::fs::write(&part, "made")?;
                anyhow::ensure!(!fails, "it fails");
                Ok(())
            });
            (outcome.is_ok(), made)
        };
        anyhow::ensure!(make(true) == (false, 1));
        anyhow::ensure!(make(false) == (true, 2), "a failed one is not kept");
        anyhow::ensure!(make(false) == (true, 2), "a good one is");
        std::fs::write(from.join("one"), "2")?;
        anyhow::ensure!(make(true) == (false, 3));
        std::fs::write(from.join("one"), "1")?;
        anyhow::ensure!(
            make(false) == (true, 4),
            "what failed last is not taken for what was good before"
        );
        Ok(())
    }
}
