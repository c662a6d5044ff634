//! `cargo xtask image deb`: the Debian packages, made by `image/debian/build` from the agents that `cargo xtask dist` made.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::dist::{self, Target};
use crate::setup;
use crate::step::{say, step, top};

/// What a person may say.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Make the package for this processor only; can be given more than once
    #[arg(long, value_enum, value_name = "PROCESSOR")]
    arch: Vec<Architecture>,
    /// The agent for it, instead of the one in target/dist (which is built if it is missing); together with one --arch
    #[arg(long, value_name = "FILE", requires = "arch")]
    agent: Option<PathBuf>,
    /// Where the packages go, instead of target/image
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Install nothing; end where something is missing
    #[arg(long)]
    no_install: bool,
}

/// A processor by Debian's name.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    fn target(self) -> Target {
        match self {
            Architecture::Amd64 => Target::X86_64,
            Architecture::Arm64 => Target::Aarch64,
        }
    }
}

/// Debian's name of a processor.
pub(crate) fn architecture(target: Target) -> &'static str {
    match target {
        Target::X86_64 => "amd64",
        Target::Aarch64 => "arm64",
    }
}

/// Makes what was asked for.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let wanted = match arguments.arch.as_slice() {
        [] => &[Architecture::Amd64, Architecture::Arm64],
        some => some,
    };
    anyhow::ensure!(
        arguments.agent.is_none() || wanted.len() == 1,
        "--agent names one program, so say for which processor it is: one --arch"
    );
    let out = match &arguments.out {
        Some(out) => std::path::absolute(out)?,
        None => super::folder()?,
    };
    for architecture in wanted {
        let target = architecture.target();
        let agent = dist::agent(target, arguments.agent.as_deref(), !arguments.no_install)?;
        let package = build(target, &agent, &out)?;
        if setup::on_path("lintian") {
            let mut judge = Command::new("lintian");
            judge.args([
                "--allow-root",
                "--fail-on",
                "error,warning",
                "--tag-display-limit",
                "0",
            ]);
            step("lintian", judge.arg(&package))?;
        } else {
            say("    lintian is not installed: nobody has judged the package");
        }
        let size = std::fs::metadata(&package)?.len();
        say(&format!("    {size:>9} bytes  {}", package.display()));
    }
    Ok(())
}

/// Makes one package; its path is the answer.
pub(super) fn build(target: Target, agent: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let version = format!("{}-1", env!("CARGO_PKG_VERSION"));
    let mut build = Command::new(top().join("image/debian/build"));
    build.arg("--agent").arg(agent);
    build.args(["--arch", architecture(target), "--version", &version]);
    step("Debian package", build.arg("--out").arg(out))?;
    Ok(out.join(format!(
        "umbra-agent_{version}_{}.deb",
        architecture(target)
    )))
}
