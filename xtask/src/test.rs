//! `cargo xtask test`: everything that must hold before a change is good. Continuous integration runs exactly this.

use std::time::Instant;

use crate::step::{cargo, say, step, succeeds};
use crate::{dist, fuzz, setup};

/// What a person may say.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install nothing; tests that need what is missing fail
    #[arg(long)]
    no_install: bool,
}

/// Runs all steps; the first failure ends it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let start = Instant::now();
    setup::run(!arguments.no_install)?;
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    let lints = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    step("lints", cargo().args(lints))?;
    step(
        "programs",
        cargo().args(["build", "--workspace", "--locked"]),
    )?;
    if succeeds(cargo().args(["nextest", "--version"])) {
        step(
            "tests",
            cargo().args(["nextest", "run", "--workspace", "--locked"]),
        )?;
        step(
            "examples in documentation",
            cargo().args(["test", "--doc", "--workspace", "--locked"]),
        )?;
    } else {
        say(
            "    cargo-nextest is not installed: tests run with cargo test, which cannot end one that hangs",
        );
        step("tests", cargo().args(["test", "--workspace", "--locked"]))?;
    }
    let documentation = ["doc", "--no-deps", "--workspace", "--locked"];
    step(
        "documentation",
        cargo()
            .args(documentation)
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    fuzz::check()?;
    dist::hold(!arguments.no_install)?;
    say(&format!(
        "==> all is well, after {:.0} s",
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}
