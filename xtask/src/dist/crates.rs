//! Which crates are in the agent's binary: those that the linker is given for one target with the features that the agent
//! alone asks for. Procedural macros and build scripts run while it is built and are not in it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::target::Target;
use crate::step::{cargo, top};

/// The package that ships.
pub(crate) const PACKAGE: &str = "umbra-agent";

/// A crate of the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// As an SPDX expression.
    pub(crate) license: Option<String>,
    /// SHA-256 of the package as the registry gives it out; none for what is in this repository.
    pub(crate) checksum: Option<String>,
    pub(crate) source: Source,
    /// The crates that it needs, as places in the list.
    pub(crate) needs: Vec<usize>,
}

/// Where a crate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// This repository.
    Local,
    /// crates.io, by way of whatever mirror.
    CratesIo,
    /// Anywhere else.
    Other,
}

/// The crates of the agent's binary for a target, in the order of their names.
pub(crate) fn of_agent(target: Target) -> anyhow::Result<Vec<Crate>> {
    let mut command = cargo();
    command.args(["tree", "--locked", "--package", PACKAGE, "--target"]);
    command.args([target.triple(), "--edges", "normal,no-proc-macro"]);
    command.args(["--prefix", "depth", "--format", "\t{p}\t{l}\t"]);
    let output = command.output().context("cargo cannot be started")?;
    if !output.status.success() {
        bail!(
            "cargo tree failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let lock =
        std::fs::read_to_string(top().join("Cargo.lock")).context("Cargo.lock cannot be read")?;
    parse(&String::from_utf8_lossy(&output.stdout), &lock)
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

/// Reads the tree, whose lines are depth, package and licence; a package's own crates are listed where it comes first.
fn parse(tree: &str, lock: &str) -> anyhow::Result<Vec<Crate>> {
    let lock: Lock = toml::from_str(lock).context("Cargo.lock cannot be understood")?;
    let mut locked: BTreeMap<(String, String), Locked> = BTreeMap::new();
    for package in lock.package {
        let key = (package.name.clone(), package.version.clone());
        if locked.insert(key, package).is_some() {
            bail!("Cargo.lock has one version of a crate from two sources");
        }
    }
    type Key = (String, String);
    let mut found: BTreeMap<Key, (String, BTreeSet<Key>)> = BTreeMap::new();
    let mut path: Vec<Key> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let strange = || format!("cargo tree said something strange: {line}");
        let mut fields = line.split('\t');
        let depth: usize = fields
            .next()
            .and_then(|depth| depth.parse().ok())
            .with_context(strange)?;
        let mut words = fields.next().with_context(strange)?.split(' ');
        let name = words.next().with_context(strange)?.to_owned();
        let version = words.next().and_then(|word| word.strip_prefix('v'));
        let key = (name, version.with_context(strange)?.to_owned());
        let license = fields.next().with_context(strange)?.to_owned();
        if depth > path.len() {
            bail!(strange());
        }
        path.truncate(depth);
        if let Some(parent) = path.last() {
            let parent = found.get_mut(parent).with_context(strange)?;
            parent.1.insert(key.clone());
        }
        found.entry(key.clone()).or_default().0 = license;
        path.push(key);
    }
    let place: BTreeMap<Key, usize> = found.keys().cloned().zip(0..).collect();
    let crates = found.into_iter().map(|(key, (license, needs))| {
        let package = locked.get(&key);
        let package = package.with_context(|| format!("{} is not in Cargo.lock", key.0))?;
        Ok(Crate {
            source: match package.source.as_deref() {
                None => Source::Local,
                Some(registry) if registry.contains("github.com/rust-lang/crates.io-index") => {
                    Source::CratesIo
                }
                Some(_) => Source::Other,
            },
            checksum: package.checksum.clone(),
            // Written with a slash before SPDX was asked for.
            license: (!license.is_empty()).then(|| license.replace('/', " OR ")),
            needs: needs
                .iter()
                .filter_map(|key| place.get(key).copied())
                .collect(),
            name: key.0,
            version: key.1,
        })
    });
    let crates = crates.collect::<anyhow::Result<Vec<Crate>>>()?;
    if !crates.iter().any(|found| found.name == PACKAGE) {
        bail!("cargo tree did not name {PACKAGE}");
    }
    Ok(crates)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const TREE: &str = "0\tumbra-agent v0.1.0 (/somewhere/agent)\tApache-2.0\t\n\
        1\tring v0.17.14\tApache-2.0 AND ISC\t\n\
        2\tlibc v0.2.1\tMIT/Apache-2.0\t\n\
        1\tumbra-carrier v0.1.0 (/somewhere/carrier)\tApache-2.0\t\n\
        2\tring v0.17.14\tApache-2.0 AND ISC\t (*)\n";
    const LOCK: &str = "version = 4\n\
        [[package]]\nname = \"umbra-agent\"\nversion = \"0.1.0\"\n\
        [[package]]\nname = \"umbra-carrier\"\nversion = \"0.1.0\"\n\
        [[package]]\nname = \"libc\"\nversion = \"0.2.1\"\nchecksum = \"aa\"\n\
        source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
        [[package]]\nname = \"ring\"\nversion = \"0.17.14\"\nchecksum = \"bb\"\n\
        source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
        [[package]]\nname = \"axum\"\nversion = \"0.8.9\"\nchecksum = \"cc\"\n\
        source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";

    /// Four crates, as cargo tells of them.
    pub(crate) fn some() -> Vec<Crate> {
        parse(TREE, LOCK).expect("understood")
    }

    #[test]
    fn the_tree_and_the_lock_file_give_each_crate_with_what_it_needs() {
        let crates = some();
        let names: Vec<_> = crates.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["libc", "ring", "umbra-agent", "umbra-carrier"]);
        assert_eq!(crates[2].needs, [1, 3]);
        assert_eq!(crates[3].needs, [1]);
        assert_eq!(crates[1].needs, [0]);
        assert_eq!(crates[1].checksum.as_deref(), Some("bb"));
        assert_eq!(crates[0].license.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(
            (crates[0].source, crates[3].source),
            (Source::CratesIo, Source::Local)
        );
        assert!(parse("ring v0.17.14", LOCK).is_err());
        assert!(parse(&TREE.replace("libc v0.2.1", "libc v0.2.2"), LOCK).is_err());
    }

    #[test]
    fn the_agents_crates_are_those_of_the_device_alone() {
        for target in Target::ALL {
            let crates = of_agent(target).expect("cargo tells");
            let has = |name: &str| crates.iter().any(|one| one.name == name);
            for name in [
                PACKAGE,
                "umbra-protocol",
                "umbra-carrier",
                "ring",
                "rustls",
                "tokio",
            ] {
                assert!(has(name), "{name} is missing for {}", target.triple());
            }
            for name in [
                "umbra-server",
                "umbra-tests",
                "axum",
                "syn",
                "serde_derive",
                "cc",
                "windows-sys",
            ] {
                assert!(!has(name), "{name} is no part of the agent");
            }
        }
    }
}
