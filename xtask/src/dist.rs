//! `cargo xtask dist`: the agent as it ships, one static file for each processor, with its sums and its list of parts, each
//! checked. The same source built by the same tools is to give the same bytes, wherever it lies; `--twice` holds it to that.

mod auditable;
mod check;
mod crates;
mod elf;
mod sbom;
mod target;
mod twice;
mod way;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::shipped;
use crate::step::{cargo, say, step, target_folder, top};
use crates::PACKAGE;
pub(crate) use target::Target;
use way::{Places, Way};

/// What a person may say.
#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// Build for this processor only; can be given more than once
    #[arg(long, value_enum, value_name = "PROCESSOR")]
    target: Vec<Target>,
    /// Where the files go, instead of target/dist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Build this way, instead of the first that the machine can go
    #[arg(long, value_enum, value_name = "WAY")]
    way: Option<Way>,
    /// Build a second time in another folder and compare every byte
    #[arg(long)]
    twice: bool,
    /// Run the core of the scenarios with what was built
    #[arg(long)]
    scenarios: bool,
    /// Build nothing; check these files
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with_all = ["target", "out", "way", "twice", "scenarios"])]
    check: Vec<PathBuf>,
    /// Install nothing; end where something is missing
    #[arg(long)]
    no_install: bool,
}

/// A binary that was built and found fit to ship.
pub(crate) struct Shipped {
    /// For whom.
    pub(crate) target: Target,
    /// The file.
    pub(crate) program: PathBuf,
}

/// Builds and checks, or only checks.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !arguments.check.is_empty() {
        return check::run(&arguments.check);
    }
    let shipped = ship(arguments)?;
    if arguments.scenarios {
        // With the tests' features, so that running them builds nothing again.
        step(
            "programs",
            cargo().args(["build", "--workspace", "--locked"]),
        )?;
        shipped::run(&shipped)?;
    }
    Ok(())
}

/// What `cargo xtask test` asks of the agent as it ships: both processors, each checked and led through the core of the scenarios
/// with the programs that are built already.
pub(crate) fn hold(install: bool) -> anyhow::Result<()> {
    let shipped = ship(&Arguments {
        no_install: !install,
        ..Arguments::default()
    })?;
    shipped::run(&shipped)
}

/// The agent for a processor: the one that was named, the one that was built before, or one that is built now.
pub(crate) fn agent(
    target: Target,
    named: Option<&Path>,
    install: bool,
) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        anyhow::ensure!(named.is_file(), "{} is not there", named.display());
        return Ok(std::path::absolute(named)?);
    }
    let name = format!(
        "{PACKAGE}-{}-{}",
        env!("CARGO_PKG_VERSION"),
        target.triple()
    );
    let built = target_folder()?.join("dist").join(name);
    if built.is_file() {
        say(&format!(
            "==> agent: {}, as it was built before",
            built.display()
        ));
        return Ok(built);
    }
    ship(&Arguments {
        target: vec![target],
        no_install: !install,
        ..Arguments::default()
    })?;
    Ok(built)
}

/// Builds what was asked for, and gives what came out.
fn ship(arguments: &Arguments) -> anyhow::Result<Vec<Shipped>> {
    let mut targets = arguments.target.clone();
    if targets.is_empty() {
        targets = Target::ALL.to_vec();
    }
    targets.sort();
    targets.dedup();
    let way = Way::choose(arguments.way, &targets, !arguments.no_install)?;
    let epoch = epoch()?;
    let folder = target_folder()?.join("dist");
    let out = match &arguments.out {
        Some(out) => std::path::absolute(out)?,
        None => folder.clone(),
    };
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let start = Instant::now();
    let (source, build) = (top(), folder.join("build"));
    let places = Places {
        source: &source,
        build: &build,
        epoch,
    };
    let programs = build_programs(way, &targets, &places)?;
    let mut shipped = Vec::new();
    for (target, program) in targets.into_iter().zip(programs) {
        if arguments.twice {
            twice::compare(way, target, &program, &folder.join("twice"), epoch)?;
        }
        shipped.push(Shipped {
            target,
            program: finish(way, target, &program, &out)?,
        });
    }
    write_sums(&out)?;
    let programs: Vec<PathBuf> = shipped.iter().map(|one| one.program.clone()).collect();
    check::run(&programs)?;
    say(&format!(
        "==> fit to ship, after {:.0} s:",
        start.elapsed().as_secs_f64()
    ));
    for program in &programs {
        let size = std::fs::metadata(program)?.len();
        say(&format!("    {size:>9} bytes  {}", program.display()));
    }
    Ok(shipped)
}

/// The programs as the linker made them, one for each target.
fn build_programs(
    way: Way,
    targets: &[Target],
    places: &Places<'_>,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let together = if way.at_once() { targets.len() } else { 1 };
    for group in targets.chunks(together.max(1)) {
        let names: Vec<_> = group.iter().map(|target| target.processor()).collect();
        let name = format!("{PACKAGE} for {}", names.join(" and "));
        step(&name, &mut way.command(group, places)?)?;
    }
    let read = |target: &Target| {
        let folder = places.build.join(target.triple()).join(way::PROFILE);
        let path = folder.join(PACKAGE);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    targets.iter().map(read).collect()
}

/// Puts the list of crates in and writes what ships, and beside it the same program with its symbols and lines, for which a
/// shipped agent's last words are; the path of what ships is the answer.
fn finish(way: Way, target: Target, linked: &[u8], out: &Path) -> anyhow::Result<PathBuf> {
    let crates = crates::of_agent(target)?;
    let program = auditable::embedded(linked, &crates)?;
    let name = format!(
        "{PACKAGE}-{}-{}",
        env!("CARGO_PKG_VERSION"),
        target.triple()
    );
    let path = out.join(&name);
    write_program(&path, &program)?;
    write_program(&out.join(format!("{name}.debug")), linked)?;
    let (compiler, linker) = way.tools()?;
    let about = sbom::About {
        target,
        sum: &sha256(&program),
        compiler: &compiler,
        linker: &linker,
    };
    let parts = out.join(format!("{name}.cdx.json"));
    std::fs::write(&parts, sbom::document(&crates, &about))
        .with_context(|| format!("cannot write {}", parts.display()))?;
    Ok(path)
}

/// A file that may be run, also where one of that name is running.
fn write_program(path: &Path, program: &[u8]) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let whole = || -> std::io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        std::fs::write(&new, program)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(&new, path)
    };
    whole().with_context(|| format!("cannot write {}", path.display()))
}

/// The sums of all that ships, as `sha256sum --check` wants them.
fn write_sums(out: &Path) -> anyhow::Result<()> {
    let entries =
        std::fs::read_dir(out).with_context(|| format!("cannot list {}", out.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&format!("{PACKAGE}-{}-", env!("CARGO_PKG_VERSION"))))
        .collect();
    names.sort();
    let mut sums = String::new();
    for name in names {
        let file = std::fs::read(out.join(&name)).with_context(|| format!("cannot read {name}"))?;
        sums.push_str(&format!("{}  {name}\n", sha256(&file)));
    }
    let path = out.join("SHA256SUMS");
    std::fs::write(&path, sums).with_context(|| format!("cannot write {}", path.display()))
}

/// A sum, in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let sum = ring::digest::digest(&ring::digest::SHA256, bytes);
    sum.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// When the source was made: what the environment says, or its last commit.
fn epoch() -> anyhow::Result<u64> {
    let told = std::env::var("SOURCE_DATE_EPOCH").ok();
    let text = match told {
        Some(told) => told,
        None => {
            let mut git = Command::new("git");
            git.args(["log", "-1", "--format=%ct"]).current_dir(top());
            let output = git.output().context("git cannot be started")?;
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    };
    match text.trim().parse() {
        Ok(epoch) => Ok(epoch),
        Err(_) => bail!(
            "it isn't known when this source was made: set SOURCE_DATE_EPOCH to the seconds since 1970"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_that_sha256sum_checks() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let name = format!("{PACKAGE}-{}-some", env!("CARGO_PKG_VERSION"));
        std::fs::write(folder.path().join(&name), "abc")?;
        std::fs::write(folder.path().join("something else"), "abc")?;
        write_sums(folder.path())?;
        let sums = std::fs::read_to_string(folder.path().join("SHA256SUMS"))?;
        anyhow::ensure!(sums.lines().count() == 1, "{sums}");
        let mut check = Command::new("sha256sum");
        check
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(folder.path());
        anyhow::ensure!(crate::step::succeeds(&mut check));
        std::fs::write(folder.path().join(&name), "abd")?;
        anyhow::ensure!(!crate::step::succeeds(&mut check));
        Ok(())
    }

    #[test]
    fn a_program_is_replaced_while_it_runs() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("sleeper");
        write_program(&path, &std::fs::read("/bin/sleep")?)?;
        let mut child = Command::new(&path).arg("60").spawn()?;
        let replaced = write_program(&path, &std::fs::read("/bin/true")?);
        child.kill()?;
        child.wait()?;
        replaced?;
        anyhow::ensure!(crate::step::succeeds(&mut Command::new(&path)));
        Ok(())
    }
}
