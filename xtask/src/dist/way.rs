//! The three ways to build the agent as a static program, and which of them a machine can go. Each gives the command that
//! builds; none changes anything on the machine but the folder that it builds into.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::crates::PACKAGE;
use super::target::Target;
use crate::setup::{self, on_path};
use crate::step::{say, succeeds, top};

/// A way to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// `cross`, in a container
    Cross,
    /// Targets that rustup installed, with a C compiler for musl
    Rustup,
    /// Debian's newest compiler with its library's source, and zig as C compiler and linker
    Zig,
}

/// Where things lie while building.
pub(crate) struct Places<'a> {
    /// The source's top folder.
    pub(crate) source: &'a Path,
    /// Where cargo keeps what it builds.
    pub(crate) build: &'a Path,
    /// When the source was made, in seconds: the date in the binary.
    pub(crate) epoch: u64,
}

/// The profile that is for what ships; also the name of the folder that cargo puts it in.
pub(crate) const PROFILE: &str = "dist";

/// Debian's compiler, which stands beside the one that rustup installed.
const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
/// The source of its library.
const LIBRARY: &str = "/usr/lib/rustlib/src/rust";

/// What makes the program smaller and is in no compiler's stable settings; none of it is seen by the source. Panics have no words:
/// they end the program where they stand, and the last words say where that is. Where an error is written out for developers, a
/// value in it is named without what is in that. And sequences of instructions that come again and again are there once.
const SMALLER: &str = "-Zunstable-options -Cpanic=immediate-abort -Zlocation-detail=none -Zfmt-debug=shallow \
    -Cllvm-args=-enable-machine-outliner=always";

/// What stands for zig while linking.
const LINKING: &str = include_str!("ziglang.py");
/// What the linker leaves out.
const DISCARDED: &str = include_str!("discard.ld");

impl Way {
    /// The way that was asked for, or the first that this machine can go; the last one can be made possible.
    pub(crate) fn choose(
        wanted: Option<Self>,
        targets: &[Target],
        install: bool,
    ) -> anyhow::Result<Self> {
        let mut why_not = Vec::new();
        let all = [Self::Cross, Self::Rustup, Self::Zig];
        let ways = match wanted {
            Some(way) => vec![way],
            None => all.to_vec(),
        };
        for way in ways {
            if way == Self::Zig {
                setup::for_dist(install)?;
            }
            match way.obstacle(targets) {
                None => {
                    say(&format!("==> way: {}", way.sentence()));
                    return Ok(way);
                }
                Some(obstacle) => {
                    say(&format!("    not by {}: {obstacle}", way.name()));
                    why_not.push(format!("{}: {obstacle}", way.name()));
                }
            }
        }
        bail!(
            "this machine can't build static programs ({})",
            why_not.join("; ")
        )
    }

    /// As one types it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cross => "cross",
            Self::Rustup => "rustup",
            Self::Zig => "zig",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Cross => "cross, in a container, as cross.toml says (CROSS_CONFIG)",
            Self::Rustup => "rustup's targets, linked by a C compiler for musl",
            Self::Zig => {
                "Debian's compiler with its library built for the target, linked by zig with its own musl"
            }
        }
    }

    /// Why this machine can't go this way.
    fn obstacle(self, targets: &[Target]) -> Option<String> {
        match self {
            Self::Cross => {
                let engine = |name: &str| succeeds(Command::new(name).arg("ps"));
                if !on_path("cross") {
                    Some("it isn't installed".into())
                } else if !engine("docker") && !engine("podman") {
                    Some("no container engine answers".into())
                } else {
                    None
                }
            }
            Self::Rustup => targets.iter().find_map(|target| {
                let library = sysroot()?.join("lib/rustlib").join(target.triple());
                if !library.is_dir() {
                    Some(format!("the target {} isn't installed", target.triple()))
                } else if c_compiler(*target).is_none() {
                    let names = c_compilers(*target).join(" or ");
                    Some(format!("there is no {names}"))
                } else {
                    None
                }
            }),
            Self::Zig => {
                let missing = |path: &str| !Path::new(path).exists();
                if missing(RUSTC) || missing(CARGO) || missing(LIBRARY) {
                    Some("there is no rustc-web, cargo-web, rust-web-src of Debian".into())
                } else if !setup::zig().join("bin/cargo-zigbuild").is_file() {
                    Some("cargo-zigbuild and zig aren't installed".into())
                } else {
                    None
                }
            }
        }
    }

    /// Whether one command builds for several processors, side by side.
    pub(crate) fn at_once(self) -> bool {
        match self {
            // Each target has a container of its own.
            Self::Cross => false,
            Self::Rustup | Self::Zig => true,
        }
    }

    /// The command that builds the agent for these targets.
    pub(crate) fn command(
        self,
        targets: &[Target],
        places: &Places<'_>,
    ) -> anyhow::Result<Command> {
        let mut command = match self {
            Self::Cross => {
                let mut command = Command::new("cross");
                // By itself, cross reads only a file whose name has a capital letter.
                command.env("CROSS_CONFIG", places.source.join("cross.toml"));
                command.arg("build");
                command
            }
            Self::Rustup => {
                let mut command = Command::new(cargo_of_this_task());
                for target in targets {
                    let linker = c_compiler(*target).context("there is no C compiler for musl")?;
                    let triple = target.triple();
                    let upper = triple.to_uppercase().replace('-', "_");
                    command.env(format!("CARGO_TARGET_{upper}_LINKER"), &linker);
                    command.env(format!("CC_{}", triple.replace('-', "_")), &linker);
                }
                command.env("RUSTFLAGS", remapped(places, None)?);
                command.arg("build");
                command
            }
            Self::Zig => {
                let tools = setup::zig().join("bin");
                let mut command = Command::new(tools.join("cargo-zigbuild"));
                command.env("PATH", path_with(&tools)?);
                command.env("CARGO", CARGO).env("RUSTC", RUSTC);
                // For the standard library's source alone; no code of ours uses what isn't stable.
                command.env("RUSTC_BOOTSTRAP", "1");
                let library = std::fs::canonicalize(LIBRARY);
                let library = library.context("the library's source has no path")?;
                let flags = remapped(places, Some(&library))?;
                // Zig brings its own start files, and has to be told in its own words that the program may be loaded
                // anywhere. Tables for unwinding are of no use to a program that aborts.
                let ours = "-Clink-self-contained=no -Cforce-unwind-tables=no -Clink-arg=-pie";
                command.env("RUSTFLAGS", format!("{ours} {SMALLER} {flags}"));
                for target in targets {
                    let c = format!("CFLAGS_{}", target.triple().replace('-', "_"));
                    command.env(c, "-fno-asynchronous-unwind-tables -fno-unwind-tables");
                }
                // Where Python looks first for the package through which zig is started.
                command.env("PYTHONPATH", zig_with_linker(places)?);
                // Without symbols the library's printer of backtraces has nothing to print.
                command.args(["zigbuild", "-Zbuild-std=std,panic_abort"]);
                command.arg("-Zbuild-std-features=optimize_for_size");
                command
            }
        };
        command
            .current_dir(places.source)
            .args(["--profile", PROFILE, "--locked", "--package", PACKAGE])
            .args(
                targets
                    .iter()
                    .flat_map(|target| ["--target", target.triple()]),
            )
            .env("CARGO_TARGET_DIR", places.build)
            .env("SOURCE_DATE_EPOCH", places.epoch.to_string())
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        if self == Self::Zig {
            // What rustup set for the compiler that built this task.
            for name in ["LD_LIBRARY_PATH", "RUSTUP_TOOLCHAIN", "RUSTDOC"] {
                command.env_remove(name);
            }
        }
        Ok(command)
    }

    /// What the compiler and the linker say of themselves.
    pub(crate) fn tools(self) -> anyhow::Result<(String, String)> {
        match self {
            Self::Cross => Ok((
                says("cross", &["rustc", "--version"])?,
                says("cross", &["--version"])?,
            )),
            Self::Rustup => Ok((
                says("rustc", &["--version"])?,
                "a C compiler for musl".into(),
            )),
            Self::Zig => {
                let python = setup::zig().join("bin/python");
                let python = python.to_str().context("the path is no text")?;
                let zig = says(python, &["-m", "ziglang", "version"])?;
                Ok((says(RUSTC, &["--version"])?, format!("zig {zig}")))
            }
        }
    }
}

/// Puts that there as a package of Python, and gives the folder that it is in.
fn zig_with_linker(places: &Places<'_>) -> anyhow::Result<PathBuf> {
    let folder = places.build.join("python");
    let package = folder.join("ziglang");
    let put = || -> std::io::Result<()> {
        std::fs::create_dir_all(&package)?;
        std::fs::write(package.join("__init__.py"), "")?;
        std::fs::write(package.join("discard.ld"), DISCARDED)?;
        std::fs::write(package.join("__main__.py"), LINKING)
    };
    put().with_context(|| format!("cannot write into {}", package.display()))?;
    Ok(folder)
}

fn says(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(top())
        .output();
    let output = output.with_context(|| format!("{program} cannot be started"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().next().unwrap_or_default().trim();
    if !output.status.success() || line.is_empty() {
        bail!("{program} doesn't say its version");
    }
    Ok(line.to_owned())
}

fn cargo_of_this_task() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

fn sysroot() -> Option<PathBuf> {
    says("rustc", &["--print", "sysroot"])
        .ok()
        .map(PathBuf::from)
}

/// Under which names distributions and musl's own tools install C compilers for it.
fn c_compilers(target: Target) -> Vec<String> {
    let mut names = vec![format!("{}-linux-musl-gcc", target.processor())];
    if target.is_ours() {
        names.push("musl-gcc".into());
    }
    names
}

fn c_compiler(target: Target) -> Option<String> {
    c_compilers(target).into_iter().find(|name| on_path(name))
}

fn path_with(first: &Path) -> anyhow::Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(first.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("a folder on the search path has a colon in its name")
}

/// Flags with which the same source gives the same bytes wherever it lies.
fn remapped(places: &Places<'_>, library: Option<&Path>) -> anyhow::Result<String> {
    let home = std::env::home_dir().context("there is no home folder")?;
    let cargo_home =
        std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    // The last that fits counts, and what is built often lies below the source.
    let mut folders = vec![(places.source, "/umbra"), (&cargo_home, "/cargo")];
    folders.extend(library.map(|library| (library, "/rust")));
    folders.push((places.build, "/build"));
    let mut flags = Vec::new();
    for (folder, name) in folders {
        let folder = folder
            .to_str()
            .filter(|folder| !folder.contains([' ', '=']));
        let folder = folder.context(
            "a folder's name with a blank or an equals sign can't be told to the compiler",
        )?;
        flags.push(format!("--remap-path-prefix={folder}={name}"));
    }
    Ok(flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::typed;

    fn command(way: Way) -> String {
        let places = Places {
            source: Path::new("/src/umbra"),
            build: Path::new("/src/umbra/target/dist/build"),
            epoch: 1_700_000_000,
        };
        typed(&way.command(&[Target::Aarch64], &places).expect("a command"))
    }

    #[test]
    fn cross_is_told_where_its_settings_are_and_when_the_source_was_made() {
        let command = command(Way::Cross);
        assert!(
            command.contains("CROSS_CONFIG=/src/umbra/cross.toml"),
            "{command}"
        );
        assert!(
            command.contains("SOURCE_DATE_EPOCH=1700000000"),
            "{command}"
        );
        let ends = "cross build --profile dist --locked --package umbra-agent --target aarch64-unknown-linux-musl";
        assert!(command.ends_with(ends), "{command}");
    }

    #[test]
    fn no_folder_of_the_machine_gets_into_the_binary() {
        let flags = remapped(
            &Places {
                source: Path::new("/src/umbra"),
                build: Path::new("/src/umbra/target"),
                epoch: 0,
            },
            Some(Path::new("/usr/src/rustc")),
        )
        .expect("flags");
        let source = flags
            .find("--remap-path-prefix=/src/umbra=/umbra")
            .expect("the source");
        let build = flags
            .find("--remap-path-prefix=/src/umbra/target=/build")
            .expect("the build");
        assert!(source < build, "the narrower one has to come last: {flags}");
        assert!(
            flags.contains("--remap-path-prefix=/usr/src/rustc=/rust"),
            "{flags}"
        );
        let places = Places {
            source: Path::new("/my source"),
            build: Path::new("/b"),
            epoch: 0,
        };
        assert!(remapped(&places, None).is_err());
    }

    #[test]
    fn zigs_linker_is_called_once_more_with_more() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let places = Places {
            source: folder.path(),
            build: folder.path(),
            epoch: 0,
        };
        let ours = zig_with_linker(&places)?;
        // A zig that says how it links, as the real one does, and writes down how it was called.
        let theirs = folder.path().join("site-packages");
        let package = theirs.join("ziglang");
        std::fs::create_dir_all(&package)?;
        std::fs::write(package.join("__init__.py"), "")?;
        let zig = package.join("zig");
        let script = "#!/bin/sh\necho \"$@\" >> \"${0%/*}/calls\"\n[ \"$1\" = cc ] || exit 0\necho a warning >&2\n\
            [ -z \"$ZIG_VERBOSE_LINK\" ] || printf '%s\\n' 'ld.lld -pie -o program x.o libc.a' 'ld.lld -r -o start.o s.o' >&2\n\
            [ \"$2\" != broken ] || exit 3\n";
        std::fs::write(&zig, script)?;
        let mut executable = Command::new("chmod");
        anyhow::ensure!(succeeds(executable.arg("+x").arg(&zig)));
        let paths = std::env::join_paths([&ours, &theirs])?;
        let call = |arguments: &[&str]| -> anyhow::Result<_> {
            let mut python = Command::new("python3");
            python.args(["-m", "ziglang"]).args(arguments);
            Ok(python.env("PYTHONPATH", &paths).output()?)
        };
        let linked = call(&["cc", "-o", "program", "x.o"])?;
        anyhow::ensure!(linked.status.success(), "{linked:?}");
        let said = String::from_utf8_lossy(&linked.stderr).into_owned();
        anyhow::ensure!(said == "a warning\n", "{said}");
        anyhow::ensure!(call(&["ar", "x"])?.status.success());
        anyhow::ensure!(call(&["cc", "broken"])?.status.code() == Some(3));
        let calls = std::fs::read_to_string(package.join("calls"))?;
        let more = "--pack-dyn-relocs=relr --icf=all --no-eh-frame-hdr -T";
        let script = ours.join("ziglang/discard.ld");
        let expected = format!(
            "cc -o program x.o\nld.lld -pie -o program x.o libc.a {more} {}\nar x\ncc broken\n",
            script.display()
        );
        anyhow::ensure!(calls == expected, "{calls}");
        anyhow::ensure!(std::fs::read_to_string(script)?.contains("DISCARD"));
        Ok(())
    }

    #[test]
    fn the_settings_for_cross_fit_to_what_is_built() {
        let text = std::fs::read_to_string(top().join("cross.toml")).expect("cross.toml");
        let settings: toml::Table = toml::from_str(&text).expect("TOML");
        let build = settings["build"].as_table().expect("[build]");
        let default = build["default-target"].as_str().expect("a text");
        assert!(
            Target::ALL.iter().any(|target| target.triple() == default),
            "{default}"
        );
        let passed = build["env"]["passthrough"].as_array().expect("a list");
        assert!(
            passed
                .iter()
                .any(|name| name.as_str() == Some("SOURCE_DATE_EPOCH"))
        );
        // Settings for targets that nobody builds would only look as if they did something.
        for section in settings
            .get("target")
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten()
        {
            assert!(
                Target::ALL
                    .iter()
                    .any(|target| target.triple() == section.0),
                "{}",
                section.0
            );
        }
        // Cross would mix settings of the manifest with those of the file.
        let manifest = std::fs::read_to_string(top().join("Cargo.toml")).expect("Cargo.toml");
        assert!(!manifest.contains("metadata.cross"));
        assert!(
            !top().join("Cross.toml").exists(),
            "one file with settings is enough"
        );
    }
}
