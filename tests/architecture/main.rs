//! The rules of the house that can be checked from outside of the code: who may know whom, and what the top folder
//! must hold. The graph comes from `cargo metadata`, so a rule cannot rot without this noticing.

mod image;
mod supply;
mod thin_client;
mod threats;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// Each crate of the workspace with the siblings that it may know, directly or through others; `None` for any.
const MAY_KNOW: [(&str, Option<&[&str]>); 14] = [
    ("umbra-protocol", Some(&[])),
    ("umbra-key-exchange", Some(&[])),
    ("umbra-last-words", Some(&[])),
    ("umbra-tls-stream", Some(&[])),
    (
        "umbra-carrier",
        Some(&["umbra-key-exchange", "umbra-tls-stream"]),
    ),
    (
        "umbra-vnc-proxy",
        Some(&["umbra-key-exchange", "umbra-tls-stream"]),
    ),
    ("umbra-setup", Some(&["umbra-protocol"])),
    (
        "umbra-setup-window",
        Some(&["umbra-protocol", "umbra-setup"]),
    ),
    (
        "umbra-agent",
        Some(&[
            "umbra-protocol",
            "umbra-key-exchange",
            "umbra-tls-stream",
            "umbra-carrier",
            "umbra-last-words",
            "umbra-vnc-proxy",
            "umbra-setup",
        ]),
    ),
    (
        "umbra-server",
        Some(&[
            "umbra-protocol",
            "umbra-key-exchange",
            "umbra-tls-stream",
            "umbra-carrier",
        ]),
    ),
    (
        "umbra-gateway",
        Some(&[
            "umbra-protocol",
            "umbra-key-exchange",
            "umbra-tls-stream",
            "umbra-carrier",
        ]),
    ),
    (
        "umbra-console",
        Some(&[
            "umbra-protocol",
            "umbra-key-exchange",
            "umbra-tls-stream",
            "umbra-carrier",
            "umbra-vnc-proxy",
        ]),
    ),
    ("umbra-tests", None),
    ("xtask", Some(&[])),
];

/// Crates from outside that a crate must never reach, not even through others: what the parties say is no matter of
/// sockets and tasks, and neither is what a person is asked. What draws windows stays out of the agent, and the window knows no TLS.
const NEVER: [(&str, &str); 4] = [
    ("umbra-protocol", "tokio"),
    ("umbra-setup", "tokio"),
    ("umbra-setup-window", "rustls"),
    ("umbra-agent", "egui"),
];

/// What the top folder holds under exactly these names, since people and tools look for them.
const TOP: [&str; 7] = [
    "Cargo.toml",
    "agent",
    "vnc-proxy",
    "image",
    "cross.toml",
    "tests",
    "README.md",
];

/// Who depends on whom, by name: what is compiled into the product, and what its tests use beside that.
#[derive(Default)]
struct Graph {
    members: BTreeSet<String>,
    normal: BTreeMap<String, BTreeSet<String>>,
    for_tests: BTreeMap<String, BTreeSet<String>>,
}

/// What cargo says of the workspace and all that it is made of, on these systems or on any.
fn metadata(targets: &[String]) -> anyhow::Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let targets = targets
        .iter()
        .flat_map(|target| ["--filter-platform", target]);
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--manifest-path",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .args(targets)
        .output()
        .context("cargo metadata cannot be run")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

impl Graph {
    fn load() -> anyhow::Result<Self> {
        Self::read(&metadata(&[])?).context("cargo metadata has another form than expected")
    }

    fn read(metadata: &Value) -> Option<Self> {
        let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let mut names = BTreeMap::new();
        for package in metadata.get("packages")?.as_array()? {
            names.insert(text(package, "id")?, text(package, "name")?);
        }
        let mut graph = Self::default();
        for member in metadata.get("workspace_members")?.as_array()? {
            graph.members.insert(names.get(member.as_str()?)?.clone());
        }
        for node in metadata.get("resolve")?.get("nodes")?.as_array()? {
            let from = names.get(&text(node, "id")?)?;
            for dependency in node.get("deps")?.as_array()? {
                let to = names.get(&text(dependency, "pkg")?)?;
                for kind in dependency.get("dep_kinds")?.as_array()? {
                    let edges = match kind.get("kind")?.as_str() {
                        Some("dev") => &mut graph.for_tests,
                        Some(_) | None => &mut graph.normal,
                    };
                    edges.entry(from.clone()).or_default().insert(to.clone());
                }
            }
        }
        Some(graph)
    }

    /// All that a crate reaches: through what it is made of, and one step further what its tests use.
    fn reaches(&self, from: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let tests = self.for_tests.get(from).into_iter().flatten();
        let mut open: Vec<&String> = self
            .normal
            .get(from)
            .into_iter()
            .flatten()
            .chain(tests)
            .collect();
        while let Some(name) = open.pop() {
            if reached.insert(name.clone()) {
                open.extend(self.normal.get(name).into_iter().flatten());
            }
        }
        reached
    }

    fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, allowed) in MAY_KNOW {
            let Some(allowed) = allowed else { continue };
            for reached in self.reaches(name).intersection(&self.members) {
                if reached != name && !allowed.contains(&reached.as_str()) {
                    found.push(format!("{name} knows {reached}"));
                }
            }
        }
        for (name, never) in NEVER {
            if self.reaches(name).contains(never) {
                found.push(format!("{name} knows {never}"));
            }
        }
        found
    }
}

#[test]
fn crates_know_only_whom_they_may() {
    let graph = Graph::load().expect("the workspace's graph");
    let ruled: BTreeSet<String> = MAY_KNOW
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(
        graph.members, ruled,
        "a crate without a rule, or a rule without a crate"
    );
    assert!(
        graph.reaches("umbra-agent").contains("umbra-protocol"),
        "the graph has no edges"
    );
    assert_eq!(graph.violations(), Vec::<String>::new());
}

#[test]
fn forbidden_knowledge_is_found_directly_and_through_others() {
    let members = MAY_KNOW
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let mut graph = Graph {
        members,
        ..Graph::default()
    };
    let mut edge = |from: &str, to: &str, for_tests: bool| {
        let edges = if for_tests {
            &mut graph.for_tests
        } else {
            &mut graph.normal
        };
        edges
            .entry(from.to_owned())
            .or_default()
            .insert(to.to_owned());
    };
    edge("umbra-agent", "umbra-protocol", false);
    edge("umbra-tests", "umbra-server", false);
    edge("umbra-console", "somewhere", false);
    edge("somewhere", "umbra-server", false);
    edge("umbra-server", "umbra-vnc-proxy", true);
    edge("umbra-protocol", "something", false);
    edge("something", "tokio", false);
    // What the tests of a crate in between use does not reach further.
    edge("umbra-protocol", "testing", false);
    edge("testing", "umbra-agent", true);
    let expected = [
        "umbra-server knows umbra-vnc-proxy",
        "umbra-console knows umbra-server",
        "umbra-protocol knows tokio",
    ];
    assert_eq!(graph.violations(), expected);
}

#[test]
fn the_top_folder_holds_what_people_look_for() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let names: BTreeSet<String> = std::fs::read_dir(&top)
        .expect("the top folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let missing: Vec<_> = TOP.iter().filter(|name| !names.contains(**name)).collect();
    assert!(missing.is_empty(), "missing in the top folder: {missing:?}");
}
