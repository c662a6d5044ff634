//! What comes in from others is held to `deny.toml` without cargo-deny, which takes minutes to build: licences, sources, and crates
//! that are there in two versions. `cargo xtask deny` reads the same file with the tool itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The rules of `deny.toml`.
#[derive(Debug, Clone, Default)]
struct Rules {
    targets: Vec<String>,
    licences: BTreeSet<String>,
    /// Licences that one crate alone may have.
    exceptions: BTreeMap<String, BTreeSet<String>>,
    registries: BTreeSet<String>,
    /// Name and beginning of the version of what may be there beside another version.
    skip: Vec<(String, String)>,
}

/// A crate that is built into something.
#[derive(Debug, Clone)]
struct Crate {
    name: String,
    version: String,
    licence: String,
    /// `None` for our own.
    source: Option<String>,
}

impl Crate {
    fn read(package: &Value) -> Option<Self> {
        let text = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
        Some(Self {
            name: text("name")?,
            version: text("version")?,
            licence: text("license").unwrap_or_default(),
            source: text("source"),
        })
    }
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn texts(list: Option<&toml::Value>) -> Option<Vec<String>> {
    let one = |value: &toml::Value| Some(value.as_str()?.to_owned());
    list?.as_array()?.iter().map(one).collect()
}

impl Rules {
    fn load() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(top().join("deny.toml"))?;
        Self::read(&text.parse()?).context("deny.toml has another form than expected")
    }

    /// Fails where a rule is missing: one that is not read is not held.
    fn read(file: &toml::Table) -> Option<Self> {
        let of = |section: &str, key: &str| file.get(section)?.get(key);
        for (section, key) in [
            ("bans", "multiple-versions"),
            ("sources", "unknown-registry"),
            ("sources", "unknown-git"),
        ] {
            if of(section, key)?.as_str()? != "deny" {
                return None;
            }
        }
        let mut exceptions = BTreeMap::new();
        for exception in of("licenses", "exceptions")?.as_array()? {
            let name = exception.get("crate")?.as_str()?.to_owned();
            let allowed = texts(exception.get("allow"))?.into_iter().collect();
            exceptions.insert(name, allowed);
        }
        let mut skip = Vec::new();
        for entry in of("bans", "skip")?.as_array()? {
            entry
                .get("reason")?
                .as_str()
                .filter(|why| !why.is_empty())?;
            let (name, version) = entry.get("crate")?.as_str()?.split_once('@')?;
            skip.push((name.to_owned(), version.to_owned()));
        }
        Some(Self {
            targets: texts(of("graph", "targets"))?,
            licences: texts(of("licenses", "allow"))?.into_iter().collect(),
            exceptions,
            registries: texts(of("sources", "allow-registry"))?
                .into_iter()
                .collect(),
            skip,
        })
    }

    fn is_skipped(&self, name: &str, version: &str) -> bool {
        self.skip.iter().any(|(skipped, prefix)| {
            let rest = version.strip_prefix(prefix.as_str());
            skipped == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// Whatever is against the rules, in words.
    fn violations(&self, crates: &[Crate]) -> Vec<String> {
        let mut found = Vec::new();
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for one in crates {
            let Crate { name, version, .. } = one;
            versions.entry(name).or_default().push(version);
            let own = self.exceptions.get(name);
            let allowed = |licence: &str| {
                self.licences.contains(licence) || own.is_some_and(|own| own.contains(licence))
            };
            if !Expression::holds(&one.licence, &allowed) {
                found.push(format!("{name} {version} is under {:?}", one.licence));
            }
            if let Some(source) = &one.source
                && !source
                    .strip_prefix("registry+")
                    .is_some_and(|registry| self.registries.contains(registry))
            {
                found.push(format!("{name} {version} comes from {source}"));
            }
        }
        for (name, all) in &versions {
            let left: Vec<_> = all
                .iter()
                .filter(|version| !self.is_skipped(name, version))
                .collect();
            if left.len() > 1 {
                found.push(format!("{name} is there as {left:?}"));
            }
        }
        for (name, prefix) in &self.skip {
            let all = versions.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            if all.len() < 2 || !all.iter().any(|version| version.starts_with(prefix)) {
                found.push(format!("{name} {prefix} is excused and not there twice"));
            }
        }
        found
    }
}

/// A licence as SPDX writes it: names with AND, OR, parentheses, and the old slash for OR.
struct Expression<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl Expression<'_> {
    /// Whether the licences that are allowed are enough; what cannot be read is not.
    fn holds(text: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
        let spaced = text
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let mut expression = Expression {
            words: spaced.split_whitespace().collect(),
            at: 0,
        };
        expression.either(allowed) == Some(true) && expression.at == expression.words.len()
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.words.get(self.at) == Some(&word);
        self.at += usize::from(there);
        there
    }

    fn either(&mut self, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
        let mut holds = self.both(allowed)?;
        while self.take("OR") {
            holds |= self.both(allowed)?;
        }
        Some(holds)
    }

    fn both(&mut self, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
        let mut holds = self.one(allowed)?;
        while self.take("AND") {
            holds &= self.one(allowed)?;
        }
        Some(holds)
    }

    fn one(&mut self, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
        if self.take("(") {
            let holds = self.either(allowed)?;
            return self.take(")").then_some(holds);
        }
        let name = *self.words.get(self.at)?;
        self.at += 1;
        if self.take("WITH") {
            let exception = self.words.get(self.at)?;
            self.at += 1;
            return Some(allowed(&format!("{name} WITH {exception}")));
        }
        Some(allowed(name))
    }
}

/// Every crate that the workspace's members reach on the systems that the rules name.
fn crates(targets: &[String]) -> anyhow::Result<Vec<Crate>> {
    let metadata = crate::metadata(targets)?;
    reached(&metadata).context("cargo metadata has another form than expected")
}

/// The names of optional dependencies that the features of a package which are switched on bring in. Cargo lists them all, since
/// a lock file has to name what any feature might need.
fn switched_on(package: &Value, features: &Value) -> Option<BTreeSet<String>> {
    let all = package.get("features")?.as_object()?;
    let on = features.as_array()?.iter().filter_map(Value::as_str);
    let needs = on
        .filter_map(|feature| all.get(feature)?.as_array())
        .flatten();
    let names = needs.filter_map(|need| {
        let need = need.as_str()?;
        match need.split_once('/') {
            // “If it is there at all” brings nothing in.
            Some((name, _)) => (!name.ends_with('?')).then_some(name),
            None => need.strip_prefix("dep:"),
        }
    });
    Some(names.map(str::to_owned).collect())
}

/// The dependencies that a package has for sure, by the names under which it knows them.
fn in_use(package: &Value, features: &Value) -> Option<BTreeSet<String>> {
    let on = switched_on(package, features)?;
    let mut names = BTreeSet::new();
    for dependency in package.get("dependencies")?.as_array()? {
        let name = dependency.get("name")?.as_str()?;
        let known_as = dependency.get("rename").and_then(Value::as_str);
        let known_as = known_as.unwrap_or(name);
        if dependency.get("optional")?.as_bool() == Some(false) || on.contains(known_as) {
            names.insert(name.to_owned());
        }
    }
    Some(names)
}

fn reached(metadata: &Value) -> Option<Vec<Crate>> {
    let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
    let mut packages = BTreeMap::new();
    for package in metadata.get("packages")?.as_array()? {
        packages.insert(text(package, "id")?, package);
    }
    let mut edges = BTreeMap::new();
    for node in metadata.get("resolve")?.get("nodes")?.as_array()? {
        let id = text(node, "id")?;
        let in_use = in_use(packages.get(&id)?, node.get("features")?)?;
        let mut next = Vec::new();
        for dependency in node.get("deps")?.as_array()? {
            let to = text(dependency, "pkg")?;
            if in_use.contains(packages.get(&to)?.get("name")?.as_str()?) {
                next.push(to);
            }
        }
        edges.insert(id, next);
    }
    let members = metadata.get("workspace_members")?.as_array()?;
    let mut open: Vec<String> = members
        .iter()
        .filter_map(|member| Some(member.as_str()?.to_owned()))
        .collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = open.pop() {
        if reached.insert(id.clone()) {
            open.extend(edges.get(&id)?.iter().cloned());
        }
    }
    packages
        .into_iter()
        .filter(|(id, _)| reached.contains(id))
        .map(|(_, package)| Crate::read(package))
        .collect()
}

#[test]
fn what_comes_from_others_keeps_to_the_rules_of_deny_toml() -> anyhow::Result<()> {
    let rules = Rules::load()?;
    let crates = crates(&rules.targets)?;
    ensure!(crates.len() > 300, "only {} crates", crates.len());
    let violations = rules.violations(&crates);
    ensure!(violations.is_empty(), "{}", violations.join("\n"));
    Ok(())
}

#[test]
fn no_licence_is_allowed_that_nothing_needs() -> anyhow::Result<()> {
    let rules = Rules::load()?;
    let crates = crates(&rules.targets)?;
    for licence in &rules.licences {
        let mut less = rules.clone();
        less.licences.remove(licence);
        ensure!(
            !less.violations(&crates).is_empty(),
            "nothing needs {licence}"
        );
    }
    for name in rules.exceptions.keys() {
        let mut less = rules.clone();
        less.exceptions.remove(name);
        ensure!(!less.violations(&crates).is_empty(), "{name} needs nothing");
    }
    Ok(())
}

#[test]
fn every_locked_crate_comes_from_an_allowed_registry_with_a_checksum() -> anyhow::Result<()> {
    let rules = Rules::load()?;
    let mut locks = vec!["Cargo.lock".to_owned()];
    for folder in [top(), top().join("control-plane")] {
        for entry in std::fs::read_dir(&folder)? {
            let lock = entry?.path().join("fuzz/Cargo.lock");
            if lock.is_file() {
                locks.push(lock.strip_prefix(top())?.display().to_string());
            }
        }
    }
    ensure!(locks.len() > 3, "only {locks:?}");
    for name in locks {
        let lock: toml::Table = std::fs::read_to_string(top().join(&name))
            .with_context(|| name.clone())?
            .parse()?;
        let packages = lock.get("package").and_then(toml::Value::as_array);
        let mut foreign = 0;
        for package in packages.context("no packages")? {
            let Some(source) = package.get("source").and_then(toml::Value::as_str) else {
                continue;
            };
            let registry = source.strip_prefix("registry+");
            ensure!(
                registry.is_some_and(|registry| rules.registries.contains(registry)),
                "{name}: {package:?}"
            );
            ensure!(package.get("checksum").is_some(), "{name}: {package:?}");
            foreign += 1;
        }
        ensure!(foreign > 20, "{name} names {foreign} crates of others");
    }
    Ok(())
}

#[test]
fn a_licence_a_source_and_a_second_version_that_are_not_allowed_are_found() -> anyhow::Result<()> {
    let rules = Rules {
        licences: ["MIT", "ISC", "Zlib"].map(str::to_owned).into(),
        exceptions: [("fonts".to_owned(), ["OFL-1.1".to_owned()].into())].into(),
        registries: ["https://crates.example".to_owned()].into(),
        skip: vec![
            ("twice".to_owned(), "1".to_owned()),
            ("gone".to_owned(), "1".to_owned()),
        ],
        ..Rules::default()
    };
    let one = |name: &str, version: &str, licence: &str, source: Option<&str>| Crate {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: licence.to_owned(),
        source: source.map(str::to_owned),
    };
    let good = Some("registry+https://crates.example");
    let crates = [
        one("ours", "0.1.0", "MIT", None),
        one("either", "1.0.0", "GPL-3.0 OR (MIT AND Zlib)", good),
        one("slashed", "1.0.0", "Apache-2.0/MIT", good),
        one("fonts", "1.0.0", "MIT AND OFL-1.1", good),
        one("twice", "1.4.0", "MIT", good),
        one("twice", "2.0.0", "MIT", good),
        one("both", "1.0.0", "(MIT OR ISC) AND GPL-3.0", good),
        one("letters", "1.0.0", "MIT AND OFL-1.1", good),
        one("silent", "1.0.0", "", good),
        one("broken", "1.0.0", "(MIT", good),
        one("with", "1.0.0", "MIT WITH exception", good),
        one("git", "1.0.0", "MIT", Some("git+https://crates.example")),
        one(
            "elsewhere",
            "1.0.0",
            "MIT",
            Some("registry+https://x.example"),
        ),
        one("thrice", "1.0.0", "MIT", good),
        one("thrice", "2.0.0", "MIT", good),
        // Beginning alike is not the same version.
        one("twice", "10.0.0", "MIT", good),
    ];
    let found = rules.violations(&crates);
    let expected = [
        "both 1.0.0 is under \"(MIT OR ISC) AND GPL-3.0\"",
        "letters 1.0.0 is under \"MIT AND OFL-1.1\"",
        "silent 1.0.0 is under \"\"",
        "broken 1.0.0 is under \"(MIT\"",
        "with 1.0.0 is under \"MIT WITH exception\"",
        "git 1.0.0 comes from git+https://crates.example",
        "elsewhere 1.0.0 comes from registry+https://x.example",
        "thrice is there as [\"1.0.0\", \"2.0.0\"]",
        "twice is there as [\"2.0.0\", \"10.0.0\"]",
        "gone 1 is excused and not there twice",
    ];
    ensure!(found == expected, "{found:#?}");
    Ok(())
}
