//! The screen of a Wayland compositor: sway without a screen of its own, and wayvnc as `umbra-wayvnc.service` starts it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use umbra_tests::eventually::eventually_is;
use umbra_tests::image::{Image, Rect};
use umbra_tests::program::{Program, run};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::units::{unit, value};
use umbra_tests::world::{Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig};
use umbra_tests::x11::installed;

/// Who sits at the device, and the group of the agent: nobody else on this machine has these numbers.
const PERSON: &str = "61233";
const AGENT: &str = "61234";
const STRANGER: &str = "61235";
/// What the whole screen shows.
const COLOUR: u32 = 0x33_66_99;

/// The words that run a program as a user who is in no other group.
fn as_user(user: &str, group: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", group, "--clear-groups", "--"]);
    command
}

/// A compositor with a screen in memory, and what shows it.
struct Screen {
    wayvnc: Program,
    _compositor: Program,
    socket: PathBuf,
    pressed: PathBuf,
}

impl Screen {
    async fn start(scratch: &Scratch) -> anyhow::Result<Self> {
        for program in ["sway", "swaybg", "wayvnc"] {
            installed(program)?;
        }
        // The person has to find the way to what is theirs.
        std::fs::set_permissions(scratch.root(), std::fs::Permissions::from_mode(0o711))?;
        let runtime = scratch.folder("runtime")?;
        let theirs: u32 = PERSON.parse()?;
        std::os::unix::fs::chown(&runtime, Some(theirs), Some(theirs))?;
        std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o700))?;
        let pressed = runtime.join("pressed");
        let config = scratch.path("sway.conf");
        let text = format!(
            "xwayland disable\noutput * mode 640x480@30Hz\noutput * bg #{COLOUR:06x} solid_color\n\
             bindsym x exec echo x >>{0}\nbindsym y exec echo y >>{0}\n",
            pressed.display()
        );
        std::fs::write(&config, text)?;
        let theirs = |command: &mut Command| {
            command
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("HOME", &runtime)
                .env("XDG_RUNTIME_DIR", &runtime);
        };
        let mut command = as_user(PERSON, PERSON);
        command.args(["sway", "--config"]).arg(&config);
        theirs(&mut command);
        command.envs([
            ("WLR_BACKENDS", "headless"),
            ("WLR_RENDERER", "pixman"),
            ("WLR_LIBINPUT_NO_DEVICES", "1"),
        ]);
        let compositor = Program::start(scratch, "sway", &mut command)?;
        eventually_is("the compositor's socket", PATIENCE, || {
            std::fs::metadata(runtime.join("wayland-1"))
        })
        .await?;

        // The unit's own commands, with this scenario's places and people in them.
        let unit = unit("umbra-wayvnc.service")?;
        let folder = scratch.path("umbra-wayvnc");
        let here = |line: &str| -> Vec<String> {
            let line = line.trim_start_matches('+').replace("${USER}", PERSON);
            let line = line.replace("/run/umbra-wayvnc", &folder.display().to_string());
            let word = |word: &str| if word == "umbra" { AGENT } else { word }.to_owned();
            line.split(' ').map(word).collect()
        };
        let before = here(value(&unit, "ExecStartPre").context("no preparation")?);
        let mut command = Command::new(&before[0]);
        let made = run(scratch, "before", command.args(&before[1..]), b"", PATIENCE).await?;
        ensure!(made.status.success(), "{made:?}");
        let umask = value(&unit, "UMask").context("no umask")?;
        let mut command = as_user(PERSON, PERSON);
        command.args(["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
        command.args(here(value(&unit, "ExecStart").context("no command")?));
        theirs(&mut command);
        command.env("WAYLAND_DISPLAY", "wayland-1");
        let wayvnc = Program::start(scratch, "wayvnc", &mut command)?;
        let socket = folder.join("vnc.socket");
        eventually_is("wayvnc's socket", PATIENCE, || std::fs::metadata(&socket)).await?;
        Ok(Self {
            wayvnc,
            _compositor: compositor,
            socket,
            pressed,
        })
    }

    /// The keys that arrived at the compositor, a line for each.
    fn pressed(&self) -> String {
        std::fs::read_to_string(&self.pressed).unwrap_or_default()
    }

    /// What somebody hears who connects to the socket.
    async fn greets(&self, scratch: &Scratch, user: &str, group: &str) -> anyhow::Result<String> {
        let script = "my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]); \
            unless ($s) { print $!{EACCES} ? 'no way in' : $!; exit } read($s, my $said, 12); print $said";
        let mut command = as_user(user, group);
        command.args([
            "/usr/bin/perl",
            "-MIO::Socket::UNIX",
            "-MErrno",
            "-e",
            script,
        ]);
        command.arg(&self.socket);
        let output = run(scratch, "caller", &mut command, b"", PATIENCE).await?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The sockets of wayvnc that belong to a network.
    fn on_a_network(&self) -> anyhow::Result<Vec<String>> {
        let process = PathBuf::from(format!("/proc/{}", self.wayvnc.pid()));
        let mut open = Vec::new();
        for file in std::fs::read_dir(process.join("fd"))?.flatten() {
            let to = std::fs::read_link(file.path()).unwrap_or_default();
            let to = to.display().to_string();
            let inode = to
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            open.extend(inode.map(str::to_owned));
        }
        ensure!(!open.is_empty(), "wayvnc has no socket at all");
        let mut found = Vec::new();
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let text = std::fs::read_to_string(process.join("net").join(table)).unwrap_or_default();
            for line in text.lines().skip(1) {
                let inode = line.split_whitespace().nth(9).unwrap_or_default();
                if open.iter().any(|open| open == inode) {
                    found.push(format!("{table}: {line}"));
                }
            }
        }
        Ok(found)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wayland_desktop_is_seen_and_operated_by_nobody_but_whom_the_device_lets_in() {
    scenario(async |scratch| {
        let screen = Screen::start(scratch).await?;
        ensure!(
            screen
                .greets(scratch, STRANGER, AGENT)
                .await?
                .starts_with("RFB 003"),
            "the agent's group has no way in"
        );
        let stranger = screen.greets(scratch, STRANGER, STRANGER).await?;
        ensure!(stranger == "no way in", "{stranger}");

        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let mut config = DeviceConfig::default();
        let upstream = format!("unix:{}", screen.socket.display());
        config.set_text("umbra.vncserver.upstream", &upstream);
        let mut device = Device::new(scratch, "device", config)?;
        device.start()?;
        device
            .enrol(&server, &console.one_time_key().await?)
            .await?;
        device.wait_until_online().await?;
        let name = device.unit_id().await?;

        // Who may only look sees everything, and nothing that they press arrives.
        let mut shadow = console.shadow(&name, &["--view-only"]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        // But for the pointer, all of it is the desktop's colour.
        let mut wanted = Image::new(640, 480);
        wanted.fill(Rect::new(0, 0, 640, 480), COLOUR);
        let apart = |image: &Image| image.difference(&wanted, 0);
        let shows = viewer
            .follow_until(PATIENCE, |image| {
                apart(image).is_some_and(|apart| apart.differing_share < 0.01)
            })
            .await?;
        ensure!(shows, "{:?}", apart(viewer.image()));
        viewer.type_text("x").await?;
        viewer.pointer(1, 10, 10).await?;
        // What is answered now was asked after the key was pressed.
        viewer.refresh().await?;
        viewer.leave().await?;
        shadow.finished().await?;

        let shadow = console.shadow(&name, &[]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        viewer.type_text("y").await?;
        eventually_is("the key to arrive", PATIENCE, || {
            match screen.pressed().as_str() {
                "y\n" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        let network = screen.on_a_network()?;
        ensure!(network.is_empty(), "{network:?}");
        Ok(())
    })
    .await;
}
