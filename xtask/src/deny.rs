//! `cargo xtask deny`: holds what comes from others to `deny.toml` with cargo-deny: licences, sources, crates in two versions; and, where
//! a database of advisories is at hand, what is known against any of them. `cargo xtask test` holds all but the last without the tool.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use toml::{Table, Value};

use crate::step::{cargo, say, step, succeeds, target_folder, top};

/// The version of cargo-deny that is installed where there is none.
const CARGO_DENY: &str = "0.20.2";

/// Where the database of advisories is published; it is never asked for from there.
const DATABASE: &str = "https://github.com/RustSec/advisory-db";

/// What a person may say.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Look advisories up, too: in this clone of github.com/rustsec/advisory-db. Nothing is fetched
    #[arg(long, value_name = "FOLDER")]
    advisories: Option<PathBuf>,
}

/// Checks everything; the first kind of violation ends it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let path = path_with_cargo_deny()?;
    let deny = |config: &Path, checks: &[&str]| {
        let mut command = cargo();
        command
            .env("PATH", &path)
            .args(["deny", "--locked", "--config"])
            .arg(config)
            .arg("check")
            .args(checks);
        command
    };
    let rules = Path::new("deny.toml");
    step("deny", &mut deny(rules, &["licenses", "bans", "sources"]))?;
    let Some(database) = &arguments.advisories else {
        say(
            "    advisories were not looked up; --advisories FOLDER says where a clone of rustsec/advisory-db is",
        );
        return Ok(());
    };
    let database = std::fs::canonicalize(database).with_context(|| {
        format!(
            "there is no database of advisories at {}",
            database.display()
        )
    })?;
    let work = tempfile::tempdir().context("no folder for the copy of the database")?;
    let config = work.path().join("deny.toml");
    let text = std::fs::read_to_string(top().join(rules)).context("there is no deny.toml")?;
    std::fs::write(&config, with_database_in(&text, work.path())?)
        .context("the configuration cannot be written")?;
    // cargo-deny clones by an address on the network only; git is told where that is to be found.
    step(
        "advisories",
        deny(&config, &["advisories"])
            .env("GIT_CONFIG_COUNT", "1")
            .env(
                "GIT_CONFIG_KEY_0",
                format!("url.file://{}.insteadOf", database.display()),
            )
            .env("GIT_CONFIG_VALUE_0", DATABASE),
    )
}

/// The same rules with a folder of our own for the copy of the database, so that none of another day is used.
fn with_database_in(rules: &str, work: &Path) -> anyhow::Result<String> {
    let mut rules: Table = rules.parse().context("deny.toml cannot be read")?;
    let Some(Value::Table(advisories)) = rules.get_mut("advisories") else {
        bail!("deny.toml has no section [advisories]");
    };
    let folder = work.join("databases");
    let folder = folder.to_str().context("the folder's name is no text")?;
    advisories.insert("db-urls".into(), vec![DATABASE.to_owned()].into());
    advisories.insert("db-path".into(), folder.into());
    // That would ask the registry.
    advisories.insert("disable-yank-checking".into(), true.into());
    Ok(rules.to_string())
}

/// The search path, with a cargo-deny of our own in front where none is installed.
fn path_with_cargo_deny() -> anyhow::Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if succeeds(cargo().args(["deny", "--version"])) {
        return Ok(path);
    }
    let root = target_folder()?.join("tools");
    let tools = root.join("bin");
    if !tools.join("cargo-deny").is_file() {
        say(&format!(
            "==> installing cargo-deny {CARGO_DENY} into target/tools; that takes some minutes"
        ));
        let install = [
            "install",
            "cargo-deny",
            "--version",
            CARGO_DENY,
            "--locked",
            "--root",
        ];
        step("cargo-deny", cargo().args(install).arg(&root))?;
    }
    let folders = std::iter::once(tools).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("a folder on the search path has a colon in its name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_at_hand_is_used_and_every_other_rule_stays() {
        let rules = std::fs::read_to_string(top().join("deny.toml")).expect("the rules");
        let changed = with_database_in(&rules, Path::new("/work")).expect("changed");
        let before: Table = rules.parse().expect("before");
        let mut after: Table = changed.parse().expect("after");
        let advisories = after["advisories"].as_table_mut().expect("a section");
        let urls = vec![DATABASE.to_owned()].into();
        assert_eq!(advisories.remove("db-urls"), Some(urls));
        assert_eq!(advisories.remove("db-path"), Some("/work/databases".into()));
        let quiet = advisories.remove("disable-yank-checking");
        assert_eq!(quiet, Some(true.into()));
        assert_eq!(before, after);
        assert!(with_database_in("[bans]", Path::new("/work")).is_err());
    }
}
