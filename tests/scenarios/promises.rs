//! Holds the list of promises in `README.md` to what the scenarios keep, in both directions.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// All source files below a folder.
fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn the_list_of_promises_is_complete() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(folder.join("README.md"))?;
    let listed: Vec<String> = list
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .map(|promise| promise.replace(' ', "_"))
        .collect();
    let mut scenarios = Vec::new();
    for file in sources(&folder.join("scenarios"))? {
        let text = std::fs::read_to_string(&file)?;
        for part in text.split("#[tokio::test").skip(1) {
            let name = part
                .split("async fn ")
                .nth(1)
                .and_then(|rest| rest.split('(').next());
            scenarios.push(name.context("a test without a name")?.to_owned());
        }
    }
    // The marker in this very function is no scenario.
    scenarios.retain(|name| !name.contains('"'));
    ensure!(scenarios.len() > 80, "only {} scenarios", scenarios.len());
    let missing: Vec<String> = scenarios
        .iter()
        .filter(|name| !listed.contains(name))
        .map(|name| format!("- {}", name.replace('_', " ")))
        .collect();
    ensure!(
        missing.is_empty(),
        "tests/README.md lacks:\n{}",
        missing.join("\n")
    );
    for name in &listed {
        ensure!(
            scenarios.contains(name),
            "no scenario keeps: {}",
            name.replace('_', " ")
        );
    }
    Ok(())
}
