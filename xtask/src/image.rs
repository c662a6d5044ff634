//! `cargo xtask image`: how the agent becomes part of a device's OS. Debian packages from the agents that ship, and the example thin
//! client, built from such a package and booted in an emulator. What lies in an image is made by the scripts in `image/`; here is
//! only what they are given, in which order, and what can be kept from the last time.

mod deb;
mod sources;
mod system;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::dist::{self, Target};
use crate::setup;
use crate::step::{cargo, say, step, target_folder};
pub(crate) use sources::Sources;
use system::System;

/// What a person may say.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Makes Debian packages of the agents that ship, and lets lintian judge them where it is installed
    Deb(deb::Arguments),
    /// Boots the example thin client in QEMU, with server and gateway on this machine
    Boot(Boot),
    /// Boots it, shadows it, restarts it, cuts its power, and leaves a picture
    Test(Test),
}

#[derive(clap::Args)]
struct Boot {
    /// The processor of the thin client
    #[arg(long, value_enum, value_name = "PROCESSOR")]
    arch: Target,
    /// Shadow it, type, restart it and end, instead of staying until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Where to save what was seen [default: target/image/shadow-PROCESSOR.png]
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Test {
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// The agent for the image, instead of the one in target/dist (which is built if it is missing)
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Install nothing; end where something is missing
    #[arg(long)]
    no_install: bool,
}

/// Does one of them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.task {
        Task::Deb(arguments) => deb::run(arguments),
        Task::Boot(arguments) => {
            let errand = if arguments.once { "once" } else { "stay" };
            boot(
                errand,
                arguments.arch,
                arguments.out.clone(),
                &arguments.common,
            )
        }
        Task::Test(arguments) => boot("test", Target::X86_64, None, &arguments.common),
    }
}

/// Where all of this is kept.
fn folder() -> anyhow::Result<PathBuf> {
    let folder = target_folder()?.join("image");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Builds what a thin client needs, and hands over to the program that boots it, which lives with the tests.
fn boot(errand: &str, target: Target, out: Option<PathBuf>, common: &Common) -> anyhow::Result<()> {
    setup::for_image(!common.no_install)?;
    let agent = dist::agent(target, common.agent.as_deref(), !common.no_install)?;
    let folder = folder()?;
    let system = System::new(&folder, target);
    let package = deb::build(target, &agent, &folder)?;
    let kernel = system.kernel()?;
    let root = system.root(&package, &[])?;
    step(
        "programs",
        cargo().args(["build", "--workspace", "--bins", "--locked"]),
    )?;
    let out = match out {
        Some(out) => std::path::absolute(out)?,
        None => folder.join(format!("shadow-{}.png", target.processor())),
    };
    let us = std::env::current_exe().context("this program's own path cannot be found")?;
    // Cargo puts the programs of one build beside each other.
    let program = us.with_file_name("umbra-image-test");
    let mut command = Command::new(&program);
    command.args([errand, "--arch", target.processor()]);
    command.arg("--kernel").arg(kernel.join("linux"));
    command.arg("--initramfs").arg(kernel.join("initramfs"));
    command.arg("--root").arg(&root).arg("--out").arg(&out);
    say(&format!("==> {errand}: the example thin client"));
    let status = command
        .status()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    if !status.success() {
        bail!("the thin client's boot ended with {status}");
    }
    Ok(())
}
