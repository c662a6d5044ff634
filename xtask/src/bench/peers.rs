//! The programs that the product is measured against: from Debian, and, where Debian has none, from crates.io. One that can't be had is
//! no failure: the report names it.

use std::path::PathBuf;

use crate::setup;
use crate::step::{cargo, say, step, target_folder};

/// Crates with their versions, and how each is built. `wstunnel` is on no registry that a cargo, pip or npm asks: who has it on
/// the search path gets it measured.
const CRATES: [Peer; 1] = [Peer {
    name: "rathole",
    version: "0.5.0",
    options: &["--no-default-features", "--features", "client,server,tls"],
}];

struct Peer {
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
}

/// Installs what is missing; gives the folder with what is not from Debian.
pub(super) fn prepare(install: bool) -> anyhow::Result<PathBuf> {
    setup::for_bench(install)?;
    let folder = target_folder()?.join("tools/bench");
    for peer in &CRATES {
        if folder.join("bin").join(peer.name).is_file() {
            continue;
        }
        if !install {
            say(&format!(
                "==> set-up: {} is missing and not installed",
                peer.name
            ));
            continue;
        }
        let built = step(
            peer.name,
            cargo()
                // Not with the versions that it was released with: one of them no longer compiles.
                .args(["install", "--root"])
                .arg(&folder)
                .args([peer.name, "--version", peer.version])
                .args(peer.options),
        );
        if let Err(error) = built {
            say(&format!("    {} is left out: {error:#}", peer.name));
        }
    }
    Ok(folder)
}
