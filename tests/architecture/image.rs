//! What is laid into a device OS agrees with the program that it's for: units use real commands, options, users and paths, the
//! default parameters are read without a complaint, and the script that lays it all down does that and no more.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use umbra_agent::paths::Paths;
use umbra_agent::registry::{Registry, Upstream};

fn image() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../image")
}

/// What is laid down in any case, and what is for updates.
const TREES: [&str; 2] = ["rootfs", "rauc/rootfs"];

fn unit_files() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for tree in TREES {
        for entry in std::fs::read_dir(image().join(tree).join("usr/lib/systemd/system"))? {
            files.push(entry?.path());
        }
    }
    Ok(files)
}

/// A file of this name from all trees, one below the other.
fn all_of(folder: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    for tree in TREES {
        let folder = image().join(tree).join("usr/lib").join(folder);
        // A tree may have none.
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            text.push_str(&std::fs::read_to_string(entry?.path())?);
        }
    }
    Ok(text)
}

/// The units, by name.
fn units() -> anyhow::Result<Vec<(String, String)>> {
    let mut units = Vec::new();
    for path in unit_files()? {
        let name = path.file_name().context("no name")?;
        let name = name.to_str().context("no text")?.to_owned();
        units.push((name, std::fs::read_to_string(&path)?));
    }
    ensure!(units.len() >= 8, "few units: {units:?}");
    Ok(units)
}

fn values<'a>(unit: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    unit.lines()
        .filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}

/// The agent that was built with the tests.
fn agent() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("UMBRA_AGENT_BIN") {
        return Ok(named.into());
    }
    let here = std::env::current_exe()?;
    let built = here.parent().and_then(Path::parent).context("no folder")?;
    Ok(built.join("umbra-agent"))
}

#[test]
fn units_run_commands_and_options_that_the_agent_has() -> anyhow::Result<()> {
    let agent = agent()?;
    let mut seen = BTreeSet::new();
    for (name, unit) in units()? {
        for line in values(&unit, "ExecStart") {
            let Some(arguments) = line.strip_prefix("/usr/bin/umbra-agent ") else {
                continue;
            };
            let mut words = arguments.split(' ');
            let command = words.next().context("no command")?;
            let help = Command::new(&agent).args([command, "--help"]).output()?;
            ensure!(help.status.success(), "{name}: no command “{command}”");
            let help = String::from_utf8(help.stdout)?;
            for option in words.filter(|word| word.starts_with("--")) {
                ensure!(help.contains(option), "{name}: “{command}” has no {option}");
            }
            seen.insert(command.to_owned());
        }
    }
    let wanted = ["enroll", "hands", "identity", "run", "setup"].map(str::to_owned);
    ensure!(seen == BTreeSet::from(wanted), "{seen:?}");
    Ok(())
}

#[test]
fn users_and_folders_of_the_units_are_made_by_the_image() -> anyhow::Result<()> {
    let (users, folders) = (all_of("sysusers.d")?, all_of("tmpfiles.d")?);
    for (name, unit) in units()? {
        for user in values(&unit, "User")
            .chain(values(&unit, "Group"))
            .chain(values(&unit, "SocketGroup"))
        {
            ensure!(
                users.contains(&format!("u {user} ")),
                "{name}: nobody makes the user {user}"
            );
        }
        for folder in values(&unit, "ReadWritePaths") {
            let folder = folder.trim_start_matches('-');
            let makes = |line: &str| line.contains("/install -d ") && line.ends_with(folder);
            ensure!(
                folders.contains(&format!("d {folder} "))
                    || values(&unit, "ExecStartPre").any(makes),
                "{name}: nobody makes {folder}"
            );
        }
    }
    let paths = Paths::new("/");
    for folder in [
        paths.certificate_directory(),
        paths.kept(),
        paths.state_partition(),
        paths
            .update_noted()
            .parent()
            .context("no folder")?
            .to_owned(),
    ] {
        ensure!(
            folders.contains(&format!("d {} ", folder.display())),
            "nobody makes {}",
            folder.display()
        );
    }
    let hands = units()?
        .into_iter()
        .find(|(name, _)| name == "umbra-hands.path");
    let (_, hands) = hands.context("no such unit")?;
    let glob = format!("{}/*.json", paths.wishes().display());
    ensure!(
        values(&hands, "PathExistsGlob").eq([glob.as_str()]),
        "{hands}"
    );
    Ok(())
}

#[test]
fn the_preset_decides_about_every_unit_that_can_be_switched_on() -> anyhow::Result<()> {
    let preset = all_of("systemd/system-preset")?;
    let decided: BTreeSet<&str> = preset
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(what, _)| ["enable", "disable"].contains(what))
        .map(|(_, unit)| unit)
        // RAUC's own, in whose place ours comes.
        .filter(|unit| *unit != "rauc-mark-good.service")
        .collect();
    let units = units()?;
    let switchable: BTreeSet<&str> = units
        .iter()
        .filter(|(_, unit)| unit.contains("[Install]"))
        .map(|(name, _)| name.as_str())
        .collect();
    ensure!(decided == switchable, "{decided:?} {switchable:?}");
    Ok(())
}

#[test]
fn the_program_of_updates_is_a_shell_script_that_any_shell_reads_and_agrees_with_its_unit()
-> anyhow::Result<()> {
    let script = image().join("rauc/rootfs/usr/lib/umbra/update");
    for shell in ["dash", "bash"] {
        let read = Command::new(shell).arg("-n").arg(&script).output()?;
        ensure!(read.status.success(), "{shell}: {read:?}");
    }
    let units = units()?;
    let unit = units
        .iter()
        .find(|(name, _)| name == "umbra-update-check.service");
    let (_, unit) = unit.context("no such unit")?;
    ensure!(
        values(unit, "ExecStart").eq(["/usr/lib/umbra/update check"]),
        "{unit}"
    );
    // Whoever types nonsense is told what there is.
    let told = Command::new("sh").arg(&script).arg("dance").output()?;
    ensure!(told.status.code() == Some(1), "{told:?}");
    let told = String::from_utf8(told.stdout)?;
    ensure!(
        told.contains("install BUNDLE") && told.contains("check"),
        "{told}"
    );
    let noted = Paths::new("/").update_noted();
    let folder = noted.parent().and_then(Path::to_str).context("no folder")?;
    let script = std::fs::read_to_string(&script)?;
    ensure!(script.contains(&format!("${{UMBRA_STATE:-{folder}}}")));
    Ok(())
}

#[test]
fn the_parameters_of_the_image_are_read_without_a_complaint() -> anyhow::Result<()> {
    let registry = Registry::open_quietly(&Paths::new(image().join("rootfs")));
    ensure!(registry.problems().is_empty(), "{:?}", registry.problems());
    let upstream = registry.snapshot().vnc.upstream.clone();
    let units = units()?;
    let socket = units.iter().find(|(name, _)| name == "umbra-vnc.socket");
    let listens = values(&socket.context("no socket")?.1, "ListenStream").next();
    let Upstream::Unix(path) = upstream else {
        anyhow::bail!("{upstream:?}");
    };
    ensure!(
        Some(path.to_str().context("no text")?) == listens,
        "{path:?} {listens:?}"
    );
    Ok(())
}

#[test]
fn the_units_are_what_systemd_understands_and_as_tight_as_the_page_says() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let installed = install(&["--agent", "/bin/true"], root.path())?;
    ensure!(installed.status.success(), "{installed:?}");
    // What the units lean on, so that nothing is missing but mistakes in them.
    for name in ["getty@.service", "sysinit.target", "shutdown.target"] {
        let from = Path::new("/lib/systemd/system").join(name);
        let to = root.path().join("usr/lib/systemd/system").join(name);
        if from.is_file() {
            std::fs::copy(from, to)?;
        }
    }
    // In tenths: `systemd-analyze security --threshold`.
    let bounds = [
        ("umbra-agent.service", "14"),
        ("umbra-identity.service", "7"),
        ("umbra-enroll.service", "12"),
        ("umbra-setup.service", "16"),
        ("umbra-vnc@.service", "39"),
        // It speaks with RAUC, the boot loader and the service manager, as root.
        ("umbra-update-check.service", "79"),
        ("umbra-wayvnc.service", "35"),
    ];
    let files = unit_files()?;
    let file = |name: &str| files.iter().find(|file| file.ends_with(name));
    for (name, bound) in bounds {
        let judged = Command::new("systemd-analyze")
            .args([
                "security",
                "--offline=true",
                "--no-pager",
                "--threshold",
                bound,
            ])
            .arg(file(name).context("no such unit")?)
            .output()?;
        let said = String::from_utf8_lossy(&judged.stdout);
        ensure!(
            judged.status.success(),
            "{name}: {}",
            said.lines().last().unwrap_or_default()
        );
    }
    for (name, unit) in units()? {
        // Lines that systemd doesn't know are ignored by it with a warning, which is how a misspelt one shows.
        let checked = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no", "--no-pager"])
            .arg(file(&name).context("no such unit")?)
            .output()?;
        let said = String::from_utf8_lossy(&checked.stderr);
        let complaints: Vec<&str> = said
            .lines()
            .filter(|line| line.contains(&name))
            // Of systemd 254; before, the same pause is made every time.
            .filter(|line| !line.contains("RestartSteps") && !line.contains("RestartMaxDelaySec"))
            .filter(|line| {
                ["Unknown", "Failed to parse", "Invalid", "ignoring"]
                    .iter()
                    .any(|word| line.contains(word))
            })
            .collect();
        ensure!(complaints.is_empty(), "{complaints:?}");
        ensure!(
            unit.contains("Description="),
            "{name} says nothing about itself"
        );
    }
    Ok(())
}

#[test]
fn the_yocto_layer_gives_its_linter_nothing_to_complain_about() -> anyhow::Result<()> {
    let linter = match std::env::var_os("UMBRA_OELINT") {
        Some(named) => PathBuf::from(named),
        None => image().join("../.test-env/bin/oelint-adv"),
    };
    ensure!(
        linter.is_file(),
        "oelint-adv is not installed (`cargo xtask test` installs it)"
    );
    let layer = image().join("yocto/meta-umbra");
    let config = std::fs::read_to_string(layer.join("conf/layer.conf"))?;
    let releases = config
        .lines()
        .find_map(|line| line.strip_prefix("LAYERSERIES_COMPAT_umbra = "));
    let releases: Vec<&str> = releases
        .context("no releases")?
        .trim_matches('"')
        .split(' ')
        .collect();
    let mut files = vec![layer.join("conf/layer.conf")];
    for entry in std::fs::read_dir(layer.join("recipes-core/umbra-agent"))? {
        files.push(entry?.path());
    }
    ensure!(files.len() >= 2 && releases.len() >= 2, "{files:?}");
    // Nobody looks the home page up here; there is nothing for the build's own machine; and authors are in the history.
    let passed_over = [
        "oelint.vars.homepageping",
        "oelint.var.bbclassextend",
        "oelint.var.suggestedvar.AUTHOR",
    ];
    for release in releases {
        let mut command = Command::new(&linter);
        command.args(["--quiet", "--release", release]);
        for rule in passed_over {
            command.args(["--suppress", rule]);
        }
        let judged = command.args(&files).output()?;
        ensure!(
            judged.status.success(),
            "{release}: {}",
            String::from_utf8_lossy(&judged.stderr)
        );
    }
    Ok(())
}

fn install(arguments: &[&str], root: &Path) -> std::io::Result<Output> {
    Command::new("sh")
        .arg(image().join("install"))
        .arg("--root")
        .arg(root)
        .args(arguments)
        .output()
}

/// Every file below a folder, with its mode.
fn files(root: &Path) -> anyhow::Result<BTreeSet<(PathBuf, u32)>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(root)?.to_owned();
                found.insert((path, metadata.permissions().mode() & 0o7777));
            }
        }
    }
    Ok(found)
}

#[test]
fn the_script_lays_down_every_file_once_and_sees_what_is_changed() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let ok = |output: &Output| output.status.success();
    let told = install(&["--agent", "/bin/true"], root.path())?;
    ensure!(ok(&told), "{told:?}");
    let laid = files(root.path())?;
    let mut wanted: BTreeSet<(PathBuf, u32)> = files(&image().join("rootfs"))?
        .into_iter()
        .map(|(path, _)| (path, 0o644))
        .collect();
    wanted.insert(("usr/bin/umbra-agent".into(), 0o755));
    ensure!(laid == wanted, "{laid:?}");
    ensure!(ok(&install(&["--agent", "/bin/true"], root.path())?));
    ensure!(files(root.path())? == laid, "a second time is not the same");
    ensure!(ok(&install(
        &["--agent", "/bin/true", "--verify"],
        root.path()
    )?));

    let told = install(&["--agent", "/bin/true", "--update", "rauc"], root.path())?;
    ensure!(ok(&told), "{told:?}");
    let update = PathBuf::from("usr/lib/umbra/update");
    wanted.extend(
        files(&image().join("rauc/rootfs"))?
            .into_iter()
            .filter(|(path, _)| *path != update)
            .map(|(path, _)| (path, 0o644)),
    );
    wanted.insert((update, 0o755));
    let laid = files(root.path())?;
    ensure!(laid == wanted, "{laid:?}");

    let preset = root
        .path()
        .join("usr/lib/systemd/system-preset/50-umbra.preset");
    std::fs::write(&preset, "disable *\n")?;
    std::fs::remove_file(root.path().join("usr/lib/sysusers.d/umbra.conf"))?;
    let agent = root.path().join("usr/bin/umbra-agent");
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o4755))?;
    let seen = install(&["--agent", "/bin/true", "--verify"], root.path())?;
    let said = String::from_utf8(seen.stdout.clone())?;
    ensure!(seen.status.code() == Some(1), "{seen:?}");
    for line in [
        "different: /usr/lib/systemd/system-preset/50-umbra.preset",
        "missing: /usr/lib/sysusers.d/umbra.conf",
        "mode 4755 instead of 755: /usr/bin/umbra-agent",
    ] {
        ensure!(said.contains(line), "{said}");
    }
    ensure!(
        std::fs::read_to_string(&preset)? == "disable *\n",
        "it was only to look"
    );
    Ok(())
}

#[test]
fn the_script_serves_other_inits_and_leads_nowhere_else() -> anyhow::Result<()> {
    for (init, script) in [("openrc", "umbra-agent"), ("busybox", "S60umbra-agent")] {
        let root = tempfile::tempdir()?;
        let told = install(&["--agent", "/bin/true", "--init", init], root.path())?;
        ensure!(told.status.success(), "{told:?}");
        let laid = files(root.path())?;
        let script = PathBuf::from("etc/init.d").join(script);
        ensure!(laid.contains(&(script.clone(), 0o755)), "{laid:?}");
        ensure!(
            !laid
                .iter()
                .any(|(path, _)| path.starts_with("usr/lib/systemd")),
            "{laid:?}"
        );
        let checked = Command::new("sh")
            .arg("-n")
            .arg(root.path().join(script))
            .output()?;
        ensure!(checked.status.success(), "{checked:?}");
    }
    let (root, outside) = (tempfile::tempdir()?, tempfile::tempdir()?);
    std::fs::create_dir_all(root.path().join("usr/bin"))?;
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "precious")?;
    std::os::unix::fs::symlink(&victim, root.path().join("usr/bin/umbra-agent"))?;
    let told = install(&["--agent", "/bin/true"], root.path())?;
    ensure!(told.status.code() == Some(65), "{told:?}");
    ensure!(std::fs::read_to_string(&victim)? == "precious");
    for (wrong, code) in [
        (&["--init", "none"][..], 64),
        (&["--what"], 64),
        (&["--agent", "/none"], 64),
        (&["--update", "magic"], 64),
    ] {
        ensure!(
            install(wrong, root.path())?.status.code() == Some(code),
            "{wrong:?}"
        );
    }
    Ok(())
}

/// Makes a package of this version; any program serves as the agent.
fn package(version: &str, out: &Path) -> anyhow::Result<PathBuf> {
    let built = Command::new("sh")
        .arg(image().join("debian/build"))
        .args([
            "--agent",
            "/bin/true",
            "--arch",
            "amd64",
            "--version",
            version,
            "--out",
        ])
        .arg(out)
        .output()?;
    ensure!(built.status.success(), "{built:?}");
    Ok(String::from_utf8(built.stdout)?.trim().into())
}

/// Has dpkg do something in a root folder of its own, with the scripts of packages running on this side of it.
fn dpkg(root: &Path, what: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("dpkg")
        .arg(format!("--root={}", root.display()))
        .args(["--force-depends", "--force-script-chrootless"])
        .args(what)
        .output()?;
    ensure!(
        done.status.success(),
        "{what:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

#[test]
fn the_debian_package_is_the_same_each_time_it_is_made() -> anyhow::Result<()> {
    let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let first = std::fs::read(package("0.1.0-1", one.path())?)?;
    ensure!(first == std::fs::read(package("0.1.0-1", other.path())?)?);
    ensure!(first != std::fs::read(package("0.1.0-2", other.path())?)?);
    Ok(())
}

#[test]
fn the_debian_package_keeps_the_identity_until_it_is_purged() -> anyhow::Result<()> {
    let (packages, device) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let root = device.path();
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    for file in ["var/lib/dpkg/status", "etc/passwd", "etc/group"] {
        std::fs::write(root.join(file), "")?;
    }
    let first = package("0.1.0-1", packages.path())?;
    dpkg(root, &["--install", first.to_str().context("a path")?])?;
    let users = std::fs::read_to_string(root.join("etc/passwd"))?;
    ensure!(users.starts_with("umbra:"), "{users}");
    let mode = |path: &str| -> anyhow::Result<u32> {
        Ok(std::fs::metadata(root.join(path))?.permissions().mode() & 0o777)
    };
    ensure!(mode("wfs/umbra")? == 0o700 && mode("wfs/ca-certs")? == 0o755);
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    let enabled = |unit: &str| std::fs::symlink_metadata(wants.join(unit)).is_ok();
    ensure!(enabled("umbra-agent.service") && enabled("umbra-hands.path"));

    let (key, certificate) = (
        root.join("wfs/umbra/device.key"),
        root.join("wfs/ca-certs/tc_ca.crt"),
    );
    std::fs::write(&key, "key")?;
    std::fs::write(&certificate, "certificate")?;
    // What an administrator has switched off stays off.
    std::fs::remove_file(wants.join("umbra-hands.path"))?;
    let second = package("0.1.0-2", packages.path())?;
    dpkg(root, &["--install", second.to_str().context("a path")?])?;
    ensure!(
        std::fs::read_to_string(&key)? == "key",
        "an upgrade changed the identity"
    );
    ensure!(enabled("umbra-agent.service") && !enabled("umbra-hands.path"));

    dpkg(root, &["--remove", "umbra-agent"])?;
    ensure!(!root.join("usr/bin/umbra-agent").exists());
    ensure!(
        key.exists() && certificate.exists(),
        "a removal took the identity"
    );
    dpkg(root, &["--install", second.to_str().context("a path")?])?;
    ensure!(std::fs::read_to_string(&key)? == "key");
    ensure!(
        enabled("umbra-agent.service"),
        "it's masked after coming back"
    );
    dpkg(root, &["--purge", "umbra-agent"])?;
    ensure!(
        !key.exists() && !certificate.exists(),
        "the identity outlives a purge"
    );
    ensure!(!enabled("umbra-agent.service"));
    Ok(())
}

#[test]
fn the_tarball_lays_itself_into_a_root() -> anyhow::Result<()> {
    let (out, root) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let built = Command::new("sh")
        .arg(image().join("tarball"))
        .args([
            "--agent",
            "/bin/true",
            "--arch",
            "x86_64",
            "--version",
            "0.1.0",
            "--out",
        ])
        .arg(out.path())
        .output()?;
    ensure!(built.status.success(), "{built:?}");
    let unpacked = Command::new("tar")
        .args(["-xzf", "umbra-agent-0.1.0-x86_64.tar.gz"])
        .current_dir(out.path())
        .status()?;
    ensure!(unpacked.success());
    let folder = out.path().join("umbra-agent-0.1.0-x86_64");
    let sums = Command::new("sha256sum")
        .args(["--check", "--quiet", "--strict", "SHA256SUMS"])
        .current_dir(&folder)
        .output()?;
    ensure!(sums.status.success(), "{sums:?}");
    let laid = Command::new(folder.join("install"))
        .arg("--root")
        .arg(root.path())
        .output()?;
    ensure!(laid.status.success(), "{laid:?}");
    let agent = root.path().join("usr/bin/umbra-agent");
    ensure!(std::fs::read(agent)? == std::fs::read("/bin/true")?);
    Ok(())
}

#[test]
fn every_builder_names_the_version_and_the_units_of_this_source() -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let recipe = image().join(format!(
        "yocto/meta-umbra/recipes-core/umbra-agent/umbra-agent_{version}.bb"
    ));
    let recipe =
        std::fs::read_to_string(&recipe).context("the Yocto recipe is of another version")?;
    let make = image().join("buildroot/package/umbra-agent/umbra-agent.mk");
    let make = std::fs::read_to_string(make)?;
    ensure!(
        make.contains(&format!("UMBRA_AGENT_VERSION = {version}\n")),
        "{make}"
    );
    let preset = image().join("rootfs/usr/lib/systemd/system-preset/50-umbra.preset");
    let preset = std::fs::read_to_string(preset)?;
    let postinst = std::fs::read_to_string(image().join("debian/postinst"))?;
    for unit in preset
        .lines()
        .filter_map(|line| line.strip_prefix("enable "))
    {
        ensure!(
            recipe.contains(unit),
            "the Yocto recipe doesn't switch {unit} on"
        );
        ensure!(
            postinst.contains(unit),
            "the Debian package doesn't switch {unit} on"
        );
    }
    Ok(())
}
