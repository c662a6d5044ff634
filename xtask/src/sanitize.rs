//! `cargo xtask sanitize`: runs the tests of the crates that have `unsafe` code of ours with AddressSanitizer in them, once it has caught a
//! mistake that is made on purpose: a sanitizer that sees nothing would pass everything.
//!
//! It sees reads and writes outside of memory that is ours, or after its end, on heap, stack and among statics. It does not see into the
//! standard library, which comes compiled, nor races, nor wrong references that touch no wrong memory. Those would be Miri's; but Miri knows
//! neither the processor's signals nor the linker's symbols, of which this code consists.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::step::{cargo, say, step, target_folder, typed};

/// The crates that have leave to be unsafe; a test below holds this list.
const CRATES: [&str; 1] = ["last-words"];

/// Has that crate's test `planted` make its mistake.
const PLANTED: &str = "LAST_WORDS_PLANTED";

/// What the sanitizer says of it.
const CAUGHT: &str = "AddressSanitizer: stack-buffer-overflow";

/// Shows that mistakes are caught, then runs the tests.
pub(crate) fn run() -> anyhow::Result<()> {
    let host = host()?;
    let tests = || -> anyhow::Result<Command> {
        let mut command = cargo();
        command
            // The toolchain that is pinned has the sanitizer, behind a flag that only unstable ones take by themselves.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-Zsanitizer=address")
            .env("RUST_BACKTRACE", "0")
            .args(["test", "--locked", "--target", &host, "--target-dir"])
            .arg(target_folder()?.join("sanitize"));
        for name in CRATES {
            command.args(["--package", &format!("umbra-{name}")]);
        }
        Ok(command)
    };
    let mut planted = tests()?;
    planted
        .args(["--test", "planted"])
        .env(PLANTED, "yes")
        .stdin(Stdio::null());
    say(&format!("==> a planted mistake: {}", typed(&planted)));
    let output = planted.output().context("cargo cannot be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout);
    ensure!(
        !output.status.success() && (said.contains(CAUGHT) || out.contains(CAUGHT)),
        "the sanitizer did not catch a mistake that was made on purpose:\n{out}{said}"
    );
    say("    caught");
    step("the tests of unsafe code", &mut tests()?)
}

/// What this machine's compiler builds for. It has to be named: what runs while others are built then has no sanitizer in it.
fn host() -> anyhow::Result<String> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler)
        .current_dir(crate::step::top())
        .arg("-vV")
        .output()
        .context("rustc cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host
        .context("rustc does not say for what it builds")?
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::top;

    #[test]
    fn every_crate_that_may_be_unsafe_is_run() {
        let manifests = std::fs::read_dir(top()).expect("the top folder");
        let mut unsafe_ones: Vec<String> = manifests
            .filter_map(|entry| {
                let folder = entry.ok()?;
                let text = std::fs::read_to_string(folder.path().join("Cargo.toml")).ok()?;
                let own = text.contains("unsafe_code = \"deny\"")
                    || text.contains("unsafe_code = \"allow\"");
                own.then(|| folder.file_name().to_string_lossy().into_owned())
            })
            .collect();
        unsafe_ones.sort();
        assert_eq!(unsafe_ones, CRATES);
    }
}
