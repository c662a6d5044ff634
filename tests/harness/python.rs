//! Programs in Python that scenarios use as peers, each in the environment that `cargo xtask test` makes for it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A script of the scenarios, to be run by the interpreter of an environment: `.test-env` (viewers and WebSockets) or `.tls-env` (TLS).
/// `UMBRA_PYTHON` names another interpreter.
pub fn script(environment: &str, script: &str) -> Command {
    let mut command = Command::new(interpreter(environment));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
    command
}

/// The interpreter of an environment.
pub fn interpreter(environment: &str) -> PathBuf {
    std::env::var_os("UMBRA_PYTHON").map_or_else(
        || {
            let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            top.join(environment).join("bin/python")
        },
        PathBuf::from,
    )
}
