//! Where Debian's packages come from: from where this machine's own do. No mirror is named in this repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// What Debian signs its lists with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// This machine's mirrors and release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Address and suite of each list of Debian's main packages.
    lists: Vec<(String, String)>,
    /// The release's name.
    release: String,
}

impl Sources {
    /// What the machine's package manager is set up with.
    pub(crate) fn of_this_machine() -> anyhow::Result<Self> {
        let mut apt = Command::new("apt-get");
        apt.args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(CODENAME) $(ORIGIN) $(COMPONENT)",
            "Created-By: Packages",
        ]);
        let output = apt
            .output()
            .context("apt-get cannot be started: images are made on Debian")?;
        Self::parse(&String::from_utf8_lossy(&output.stdout)).context(
            "this machine's package manager names no Debian release: images are made on Debian, after “apt-get update”",
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lists: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [address, suite, "Debian", "main"] = words.as_slice() else {
                continue;
            };
            let list = ((*address).to_owned(), (*suite).to_owned());
            if !suite.ends_with("-backports") && !lists.contains(&list) {
                lists.push(list);
            }
        }
        let release = lists
            .iter()
            .find(|(_, suite)| !suite.contains('-'))?
            .1
            .clone();
        Some(Self { lists, release })
    }

    /// The release's name.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// The same with the release's newer programs that were made for it afterwards.
    pub(crate) fn with_backports(mut self) -> Self {
        let main = self.lists.iter().find(|(_, suite)| *suite == self.release);
        let backports =
            main.map(|(address, _)| (address.clone(), format!("{}-backports", self.release)));
        self.lists.extend(backports);
        self
    }

    /// As the package manager reads them, in a file.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<PathBuf> {
        ensure!(
            Path::new(KEYRING).is_file(),
            "{KEYRING} is missing (the package debian-archive-keyring), so nothing from Debian could be verified"
        );
        let lines = self
            .lists
            .iter()
            .map(|(address, suite)| format!("deb [signed-by={KEYRING}] {address} {suite} main\n"));
        std::fs::write(file, lines.collect::<String>())
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_and_its_lists_are_the_machines_own() {
        let told = "http://mirror.example/debian/ sid-and-a-half Other main\n\
                    http://mirror.example/debian/ bookworm-updates Debian main\n\
                    http://mirror.example/debian/ bookworm Debian main\n\
                    http://mirror.example/debian/ bookworm Debian main\n\
                    http://mirror.example/debian/ bookworm Debian contrib\n\
                    http://mirror.example/debian/ bookworm-backports Debian main\n\
                    http://mirror.example/debian-security/ bookworm-security Debian main\n";
        let sources = Sources::parse(told).expect("a release");
        assert_eq!(sources.release(), "bookworm");
        assert_eq!(sources.lists.len(), 3, "{sources:?}");
        let more = sources.with_backports();
        let last = more.lists.last().expect("lists");
        assert_eq!(last.0, "http://mirror.example/debian/");
        assert_eq!(last.1, "bookworm-backports");
        assert_eq!(Sources::parse("nothing of Debian's"), None);
    }
}
