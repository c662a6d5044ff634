//! What the tests need beyond a Rust toolchain: real X servers, VNC servers and viewers from Debian, a scriptable viewer
//! from PyPI. Installs only what is missing, and says what it installs before it does.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::image::Sources;
use crate::step::{say, step, succeeds, target_folder, top};

/// How to see that something is there.
enum Sign {
    /// A program on the search path.
    Program(&'static str),
    /// One of these files.
    File(&'static [&'static str]),
    /// Python can make virtual environments.
    PythonVenv,
}

/// Debian's packages, each with a sign that it, or something as good from elsewhere, is there.
const PACKAGES: &[(&str, Sign)] = &[
    ("busybox-static", Sign::Program("busybox")),
    ("dbus-daemon", Sign::Program("dbus-daemon")),
    ("dnsmasq-base", Sign::Program("dnsmasq")),
    ("grub-common", Sign::Program("grub-editenv")),
    ("haproxy", Sign::Program("haproxy")),
    ("iproute2", Sign::Program("ip")),
    (
        "libnginx-mod-stream",
        Sign::File(&["/usr/lib/nginx/modules/ngx_stream_module.so"]),
    ),
    ("nftables", Sign::Program("nft")),
    ("nginx", Sign::Program("nginx")),
    ("openssl", Sign::Program("openssl")),
    ("python3-venv", Sign::PythonVenv),
    ("rauc", Sign::Program("rauc")),
    ("squashfs-tools", Sign::Program("mksquashfs")),
    ("squid", Sign::Program("squid")),
    ("strace", Sign::Program("strace")),
    ("sway", Sign::Program("sway")),
    ("swaybg", Sign::Program("swaybg")),
    ("systemd", Sign::Program("systemd-analyze")),
    ("tigervnc-standalone-server", Sign::Program("Xtigervnc")),
    ("tigervnc-viewer", Sign::Program("vncviewer")),
    ("tmux", Sign::Program("tmux")),
    ("wayvnc", Sign::Program("wayvnc")),
    ("x11-apps", Sign::Program("xwd")),
    ("x11vnc", Sign::Program("x11vnc")),
    ("xclip", Sign::Program("xclip")),
    ("xdotool", Sign::Program("xdotool")),
    ("xterm", Sign::Program("xterm")),
    ("xvfb", Sign::Program("Xvfb")),
    (
        "libfaketime",
        Sign::File(&[
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        ]),
    ),
    // What the setup assistant's window opens at run time: X11, its keyboard, and OpenGL without a graphics processor.
    (
        "libgl1",
        Sign::File(&[
            "/usr/lib/x86_64-linux-gnu/libGL.so.1",
            "/usr/lib/aarch64-linux-gnu/libGL.so.1",
        ]),
    ),
    (
        "libgl1-mesa-dri",
        Sign::File(&[
            "/usr/lib/x86_64-linux-gnu/dri/swrast_dri.so",
            "/usr/lib/aarch64-linux-gnu/dri/swrast_dri.so",
        ]),
    ),
    (
        "libx11-xcb1",
        Sign::File(&[
            "/usr/lib/x86_64-linux-gnu/libX11-xcb.so.1",
            "/usr/lib/aarch64-linux-gnu/libX11-xcb.so.1",
        ]),
    ),
    (
        "libxcursor1",
        Sign::File(&[
            "/usr/lib/x86_64-linux-gnu/libXcursor.so.1",
            "/usr/lib/aarch64-linux-gnu/libXcursor.so.1",
        ]),
    ),
    (
        "libxi6",
        Sign::File(&[
            "/usr/lib/x86_64-linux-gnu/libXi.so.6",
            "/usr/lib/aarch64-linux-gnu/libXi.so.6",
        ]),
    ),
    (
        "libxkbcommon-x11-0",
        Sign::File(&[
            "/usr/lib/x86_64-linux-gnu/libxkbcommon-x11.so.0",
            "/usr/lib/aarch64-linux-gnu/libxkbcommon-x11.so.0",
        ]),
    ),
];

/// What `cargo xtask dist` needs where there is neither `cross` nor a musl target, and what runs the programs of the other
/// processor.
const FOR_DIST: [(&str, Sign); 4] = [
    ("cargo-web", Sign::File(&["/usr/bin/cargo"])),
    ("qemu-user-static", Sign::Program("qemu-aarch64-static")),
    (
        "rust-web-src",
        Sign::File(&["/usr/lib/rustlib/src/rust/library/std/Cargo.toml"]),
    ),
    ("rustc-web", Sign::File(&["/usr/bin/rustc"])),
];

/// What `cargo xtask image` needs to make and boot a thin client.
const FOR_IMAGE: [(&str, Sign); 8] = [
    ("cpio", Sign::Program("cpio")),
    (
        "e2fsprogs",
        Sign::File(&["/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4"]),
    ),
    ("kmod", Sign::File(&["/sbin/depmod", "/usr/sbin/depmod"])),
    ("mmdebstrap", Sign::Program("mmdebstrap")),
    ("squashfs-tools", Sign::Program("mksquashfs")),
    ("systemd", Sign::Program("systemd-sysusers")),
    ("xz-utils", Sign::Program("xz")),
    ("zstd", Sign::Program("zstd")),
];

/// The emulators and what they load.
const EMULATORS: [(&str, Sign); 4] = [
    ("qemu-system-x86", Sign::Program("qemu-system-x86_64")),
    ("qemu-system-arm", Sign::Program("qemu-system-aarch64")),
    (
        "qemu-system-common",
        Sign::File(&["/usr/lib/qemu/qemu-bridge-helper"]),
    ),
    ("seabios", Sign::File(&["/usr/share/seabios/bios-256k.bin"])),
];

/// What `cargo xtask bench` measures the product against, and what it measures with.
const FOR_BENCH: [(&str, Sign); 12] = [
    ("haproxy", Sign::Program("haproxy")),
    (
        "libnginx-mod-stream",
        Sign::File(&["/usr/lib/nginx/modules/ngx_stream_module.so"]),
    ),
    ("libssl-dev", Sign::File(&["/usr/include/openssl/ssl.h"])),
    ("nginx", Sign::Program("nginx")),
    ("openssl", Sign::Program("openssl")),
    ("pkg-config", Sign::Program("pkg-config")),
    ("socat", Sign::Program("socat")),
    ("stunnel4", Sign::Program("stunnel4")),
    ("tigervnc-standalone-server", Sign::Program("Xtigervnc")),
    ("valgrind", Sign::Program("valgrind")),
    ("x11vnc", Sign::Program("x11vnc")),
    ("xterm", Sign::Program("xterm")),
];

fn is_there(sign: &Sign) -> bool {
    match sign {
        Sign::Program(name) => on_path(name),
        Sign::File(paths) => paths.iter().any(|path| Path::new(path).is_file()),
        Sign::PythonVenv => {
            succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]))
        }
    }
}

/// Whether a program is on the search path.
pub(crate) fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Installs what is missing, or only says so.
pub(crate) fn run(install: bool) -> anyhow::Result<()> {
    debian("the tests", PACKAGES, install)?;
    python(&top().join(".test-env"), "tests/test-env.txt", install)?;
    python(&top().join(".tls-env"), "tests/tls-env.txt", install)
}

/// The same for what builds static programs and runs those of the other processor.
pub(crate) fn for_dist(install: bool) -> anyhow::Result<()> {
    debian("static programs", &FOR_DIST, install)?;
    python(&zig(), "xtask/dist-env.txt", install)
}

/// The same for what makes thin clients and boots them.
pub(crate) fn for_image(install: bool) -> anyhow::Result<()> {
    debian("images", &FOR_IMAGE, install)?;
    if EMULATORS.iter().all(|(_, sign)| is_there(sign)) {
        say("==> set-up: the emulators are there");
        return Ok(());
    }
    if !install {
        bail!("the emulators are missing (Debian's qemu-system-x86 and qemu-system-arm)");
    }
    emulators()
}

/// QEMU comes from the release's backports where it has some, as Debian's own parts of it on this machine may: one version does not
/// go with another's. The machine's own lists stay as they are.
fn emulators() -> anyhow::Result<()> {
    if !is_root() {
        bail!(
            "QEMU is missing, and only root can install it: run this once as root, or install qemu-system-x86 and qemu-system-arm"
        );
    }
    let lists = target_folder()?.join("image/apt");
    std::fs::create_dir_all(lists.join("partial"))
        .with_context(|| format!("cannot make {}", lists.display()))?;
    let sources = Sources::of_this_machine()?.with_backports();
    // Beside the lists: among them, the package manager takes it away as one that nobody needs.
    let file = sources.write(&lists.with_extension("list"))?;
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        for (name, value) in [
            ("Dir::Etc::sourcelist", file.display().to_string()),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::State::lists", lists.display().to_string()),
            ("Dir::Cache::pkgcache", String::new()),
            ("Dir::Cache::srcpkgcache", String::new()),
            ("DPkg::Lock::Timeout", "600".to_owned()),
        ] {
            command.arg("-o").arg(format!("{name}={value}"));
        }
        command.args(words);
        command
    };
    step("package lists with backports", &mut apt(&["update", "-qq"]))?;
    let suite = format!("{}-backports", sources.release());
    let packages = EMULATORS.map(|(package, _)| package);
    say(&format!(
        "==> set-up: installing from Debian's {suite}: {}",
        packages.join(" ")
    ));
    let mut install = apt(&[
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
        "--target-release",
        &suite,
    ]);
    step("emulators", install.args(packages))
}

/// The same for the benchmark and those it compares with.
pub(crate) fn for_bench(install: bool) -> anyhow::Result<()> {
    debian("the benchmark's peers", &FOR_BENCH, install)
}

/// Where zig and what leads cargo to it are, once they are installed.
pub(crate) fn zig() -> PathBuf {
    target_folder().unwrap_or_default().join("tools/zig")
}

fn debian(whom: &str, packages: &[(&'static str, Sign)], install: bool) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, sign)| !is_there(sign))
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        say(&format!(
            "==> set-up: everything that {whom} need from Debian is there"
        ));
    } else if install {
        install_packages(whom, &missing)?;
    } else {
        say(&format!(
            "==> set-up: missing and not installed, so {whom} will fail: {}",
            missing.join(" ")
        ));
    }
    Ok(())
}

fn install_packages(whom: &str, missing: &[&str]) -> anyhow::Result<()> {
    let packages = missing.join(" ");
    if !on_path("apt-get") {
        bail!(
            "{whom} need {packages} (Debian's names), and there is no apt-get to install them with"
        );
    }
    let with_sudo = !is_root();
    if with_sudo && !on_path("sudo") {
        bail!(
            "{whom} need {packages}; run as root: apt-get install --no-install-recommends {packages}"
        );
    }
    say(&format!("==> set-up: installing from Debian: {packages}"));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new(if with_sudo { "sudo" } else { "apt-get" });
        if with_sudo {
            command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        } else {
            command.env("DEBIAN_FRONTEND", "noninteractive");
        }
        command.args(arguments);
        command
    };
    step("package lists", &mut apt(&["update"]))?;
    step(
        "packages",
        apt(&["install", "-y", "--no-install-recommends"]).args(missing),
    )
}

/// A virtual environment; made anew when the list of what belongs into it has changed.
fn python(environment: &Path, list: &str, install: bool) -> anyhow::Result<()> {
    let wanted = top().join(list);
    let stamp = environment.join("installed.txt");
    // Nobody needs to read the whole path of what lies in the source.
    let shown = environment.strip_prefix(top()).unwrap_or(environment);
    let shown = shown.display();
    let content =
        std::fs::read(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if std::fs::read(&stamp).is_ok_and(|installed| installed == content) {
        say(&format!(
            "==> set-up: the Python environment {shown} is up to date"
        ));
        return Ok(());
    }
    if !install {
        say(&format!(
            "==> set-up: {shown} is missing or out of date and not installed, so what needs it will fail"
        ));
        return Ok(());
    }
    say(&format!(
        "==> set-up: installing from PyPI into {shown}: what {list} lists"
    ));
    step(
        "Python environment",
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(environment),
    )?;
    let mut pip = Command::new(environment.join("bin/pip"));
    step(
        "Python packages",
        pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&wanted),
    )?;
    std::fs::write(&stamp, content).with_context(|| format!("cannot write {}", stamp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_seen_and_what_is_not_is_missed() {
        assert!(is_there(&Sign::Program("sh")));
        assert!(!is_there(&Sign::Program("no-such-program")));
        assert!(is_there(&Sign::File(&[
            "/no/such/file",
            "/dev/../proc/self/status"
        ])));
        assert!(!is_there(&Sign::File(&["/no/such/file"])));
    }

    #[test]
    fn every_python_package_is_pinned() {
        for (list, one) in [
            ("tests/test-env.txt", "vncdotool=="),
            ("tests/tls-env.txt", "sslyze=="),
            ("xtask/dist-env.txt", "ziglang=="),
        ] {
            let list = std::fs::read_to_string(top().join(list)).expect("the list");
            let packages: Vec<_> = list.lines().filter(|line| !line.starts_with('#')).collect();
            assert!(packages.iter().any(|line| line.starts_with(one)), "{list}");
            assert!(packages.iter().all(|line| line.contains("==")), "{list}");
        }
    }
}
