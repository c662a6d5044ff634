//! A device with two slots, without a boot loader and without a kernel of its own: RAUC as Debian ships it writes into two loop
//! devices and into a real grub environment, the file of the image (`image/rauc/system.conf`) says so, and what GRUB would do at
//! a start (`image/rauc/grub.cfg`) is done here. All of it lies in the scenario's folder and in a mount namespace of its own.
//! RAUC writes slowly, so that an update has a middle.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::eventually::eventually_is;
use crate::program::{Program, product_words, run};
use crate::scratch::Scratch;
use crate::world::PATIENCE;

/// Bytes of a slot.
pub const SLOT: usize = 4 * 1024 * 1024;
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How many microseconds each piece that is written to a slot takes: it has 8 KiB.
const SLOWNESS: u32 = 10_000;

/// The device's slots, and what runs on it besides the agent.
pub struct TwoSlots<'s> {
    scratch: &'s Scratch,
    root: PathBuf,
    /// Held open: the kernel takes the loop devices away when nobody does any more, however the scenario ends.
    slots: [(PathBuf, File); 2],
    boots: u32,
    running: Vec<Program>,
}

/// What the bundles are signed with.
pub struct Maker<'s> {
    scratch: &'s Scratch,
    name: String,
}

impl<'s> Maker<'s> {
    /// Somebody who makes bundles.
    pub async fn new(scratch: &'s Scratch, name: &str) -> anyhow::Result<Self> {
        let maker = Self {
            scratch,
            name: name.to_owned(),
        };
        let mut command = Command::new("openssl");
        command
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args([
                "-nodes",
                "-days",
                "2",
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
            ])
            .arg(maker.key())
            .arg("-out")
            .arg(maker.certificate());
        tool(scratch, &mut command).await?;
        Ok(maker)
    }

    /// The certificate that a device has to know.
    pub fn certificate(&self) -> PathBuf {
        self.scratch.path(&format!("{}.crt", self.name))
    }

    fn key(&self) -> PathBuf {
        self.scratch.path(&format!("{}.key", self.name))
    }

    /// Makes a bundle of one image.
    pub async fn bundle(&self, compatible: &str, image: &[u8], to: &Path) -> anyhow::Result<()> {
        let folder = tempfile::tempdir_in(self.scratch.root())?;
        std::fs::write(folder.path().join("rootfs.img"), image)?;
        std::fs::write(
            folder.path().join("manifest.raucm"),
            format!(
                "[update]\ncompatible={compatible}\nversion=2\n\n[bundle]\nformat=plain\n\n[image.rootfs]\nfilename=rootfs.img\n"
            ),
        )?;
        if to.exists() {
            std::fs::remove_file(to)?;
        }
        let mut command = Command::new("rauc");
        command
            .arg("bundle")
            .arg(format!("--cert={}", self.certificate().display()))
            .arg(format!("--key={}", self.key().display()))
            .arg(folder.path())
            .arg(to);
        tool(self.scratch, &mut command).await.map(drop)
    }
}

/// Bytes that are the same for the same seed, and have no runs of zeros in which a slot would be right by chance.
pub fn image(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(SLOT);
    while bytes.len() < SLOT {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

/// Moves this thread, and all programs that it starts from now on, into a mount namespace in which the kernel's boot ID is what a
/// file says. To be called before there are other threads.
pub fn isolate(scratch: &Scratch) -> anyhow::Result<()> {
    let needs = "a mount namespace can't be made: the tests of updates need root";
    unshare(CloneFlags::CLONE_NEWNS).context(needs)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context(needs)?;
    let ours = scratch.path("boot_id");
    std::fs::write(&ours, "boot-0\n")?;
    mount(Some(&ours), BOOT_ID, none, MsFlags::MS_BIND, none)
        .context("the boot ID of a device can't be put in place of the machine's")
}

impl<'s> TwoSlots<'s> {
    /// Slot A holds this image and is the one to start, slot B holds nothing. The device's root is where its agent will have it.
    pub async fn new(
        scratch: &'s Scratch,
        root: PathBuf,
        maker: &Maker<'_>,
        first: &[u8],
    ) -> anyhow::Result<Self> {
        let slots = [
            loop_device(scratch, "slot-a", first).await?,
            loop_device(scratch, "slot-b", &vec![0; SLOT]).await?,
        ];
        let device = Self {
            scratch,
            root,
            slots,
            boots: 0,
            running: Vec::new(),
        };
        std::fs::create_dir_all(device.state())?;
        std::fs::create_dir_all(scratch.path("bin"))?;
        device.configure(maker)?;
        let mut command = Command::new("grub-editenv");
        command.arg(device.grubenv()).arg("create");
        tool(scratch, &mut command).await?;
        device
            .set(&["ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0"])
            .await?;
        Ok(device)
    }

    /// Where the updates are noted.
    pub fn state(&self) -> PathBuf {
        self.root.join("wfs/umbra-update")
    }

    fn grubenv(&self) -> PathBuf {
        self.root.join("wfs/grubenv")
    }

    /// What RAUC's file of the image says, for these slots.
    fn configure(&self, maker: &Maker<'_>) -> anyhow::Result<()> {
        let shipped = std::fs::read_to_string(in_image("rauc/system.conf"))?;
        let mut text = String::new();
        for line in shipped.lines() {
            let ours = match line.split_once('=').unwrap_or((line, "")) {
                ("grubenv", _) => format!("grubenv={}", self.grubenv().display()),
                ("statusfile", _) => {
                    format!("statusfile={}", self.root.join("wfs/rauc.status").display())
                }
                // This kernel may have no device mapper.
                ("bundle-formats", _) => "bundle-formats=plain".to_owned(),
                ("path", _) => format!("path={}", maker.certificate().display()),
                ("device", "/dev/disk/by-partlabel/system-a") => {
                    format!("device={}", self.slots[0].0.display())
                }
                ("device", "/dev/disk/by-partlabel/system-b") => {
                    format!("device={}", self.slots[1].0.display())
                }
                ("device", other) => bail!("the image's file has another slot: {other}"),
                (_, _) => line.to_owned(),
            };
            text.push_str(&ours);
            text.push('\n');
            if line == "[system]" {
                let prefix = self.scratch.path("bundle");
                text.push_str(&format!("mountprefix={}\n", prefix.display()));
            }
        }
        std::fs::write(self.scratch.path("rauc.conf"), text)?;
        std::fs::write(
            self.scratch.path("bus.conf"),
            format!(
                "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
                 <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
                 </policy></busconfig>",
                self.bus().display()
            ),
        )?;
        let words: Vec<String> = product_words("umbra-agent")?
            .iter()
            .map(|word| word.display().to_string())
            .collect();
        self.script(
            "umbra-agent",
            &format!(
                "exec {} --root {} \"$@\"",
                words.join(" "),
                self.root.display()
            ),
        )?;
        self.script(
            "systemctl",
            &format!("echo \"$@\" >>{}", self.scratch.path("asked").display()),
        )
    }

    fn script(&self, name: &str, body: &str) -> anyhow::Result<()> {
        let path = self.scratch.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn bus(&self) -> PathBuf {
        self.scratch.path("bus")
    }

    /// The words that run the image's update program in this boot's surroundings.
    fn words(&self, patience: u32) -> Vec<String> {
        let path = std::env::var("PATH").unwrap_or_default();
        vec![
            "/usr/bin/env".to_owned(),
            format!("PATH={}:{path}", self.scratch.path("bin").display()),
            format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={}", self.bus().display()),
            format!("UMBRA_STATE={}", self.state().display()),
            format!("UMBRA_PATIENCE={patience}"),
            in_image("rauc/rootfs/usr/lib/umbra/update")
                .display()
                .to_string(),
        ]
    }

    /// What the image names as the update's program (`umbra.hands.update_command`), for this bundle.
    pub fn update_command(&self, bundle: &Path) -> Vec<String> {
        let mut words = self.words(1);
        words.extend(["install".to_owned(), bundle.display().to_string()]);
        words
    }

    /// What the image names as the program that restarts (`umbra.hands.reboot_command`): it only writes down that it was asked.
    pub fn reboot_command(&self) -> Vec<String> {
        let systemctl = self.scratch.path("bin").join("systemctl");
        vec![systemctl.display().to_string(), "reboot".to_owned()]
    }

    /// Waits until somebody has asked for a restart, and forgets it.
    pub async fn wait_until_restart_is_asked_for(&self) -> anyhow::Result<()> {
        let asked = self.scratch.path("asked");
        eventually_is(
            "a restart to be asked for",
            PATIENCE,
            || match std::fs::read_to_string(&asked) {
                Ok(said) if said == "reboot\n" => Ok(()),
                said => Err(said.map_err(|error| error.to_string())),
            },
        )
        .await?;
        std::fs::remove_file(asked)?;
        Ok(())
    }

    /// Whether somebody has asked for a restart.
    pub fn restart_is_asked_for(&self) -> bool {
        self.scratch.path("asked").exists()
    }

    /// The power comes: the boot loader chooses a slot, and what the service manager would start besides the agent is started.
    pub async fn boot(&mut self) -> anyhow::Result<char> {
        ensure!(self.running.is_empty(), "it runs already");
        self.boots += 1;
        std::fs::write(
            self.scratch.path("boot_id"),
            format!("boot-{}\n", self.boots),
        )?;
        let slot = self.choose().await?;
        let socket = self.bus();
        if socket.exists() {
            std::fs::remove_file(&socket)?;
        }
        let mut command = Command::new("dbus-daemon");
        command
            .arg(format!(
                "--config-file={}",
                self.scratch.path("bus.conf").display()
            ))
            .args(["--nofork", "--nopidfile"]);
        self.start("bus", &command)?;
        eventually_is("the bus to be there", PATIENCE, || {
            socket.exists().then_some(()).ok_or(())
        })
        .await?;
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=write", "-e"])
            .arg(format!("inject=write:delay_enter={SLOWNESS}"));
        for (slot, _) in &self.slots {
            command.arg("-P").arg(slot);
        }
        command
            .args(["rauc", "service"])
            .arg(format!(
                "--conf={}",
                self.scratch.path("rauc.conf").display()
            ))
            .arg(format!("--override-boot-slot={slot}"))
            .env(
                "DBUS_SYSTEM_BUS_ADDRESS",
                format!("unix:path={}", socket.display()),
            );
        self.start("rauc", &command)?;
        self.wait_for_rauc(slot).await?;
        let mut command = Command::new(self.scratch.path("bin").join("umbra-agent"));
        command.args(["hands", "--stay"]);
        self.start("hands", &command)?;
        Ok(slot)
    }

    /// In namespaces of its own: what it has started, and what it has mounted, ends with it.
    fn start(&mut self, name: &str, what: &Command) -> anyhow::Result<()> {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child=KILL"])
            .arg(what.get_program())
            .args(what.get_args())
            .envs(
                what.get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
        self.running
            .push(Program::start(self.scratch, name, &mut command)?);
        Ok(())
    }

    async fn wait_for_rauc(&self, slot: char) -> anyhow::Result<()> {
        crate::eventually::eventually("RAUC to answer", PATIENCE, async || {
            let said = self.rauc(&["status", "--output-format=shell"]).await;
            let said = said.map_err(|error| format!("{error:#}"))?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let wanted = format!("RAUC_SYSTEM_BOOTED_BOOTNAME='{slot}'");
            said.contains(&wanted).then_some(()).ok_or(said)
        })
        .await?;
        Ok(())
    }

    async fn rauc(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new("rauc");
        let bus = format!("unix:path={}", self.bus().display());
        command.args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", bus);
        Ok(run(self.scratch, "rauc-cli", &mut command, b"", PATIENCE).await?)
    }

    /// The power goes, in the middle of whatever happens.
    pub async fn power_cut(&mut self) -> anyhow::Result<()> {
        let mut gone = Vec::new();
        for program in &mut self.running {
            let children = format!("/proc/{0}/task/{0}/children", program.pid());
            let children = std::fs::read_to_string(children).unwrap_or_default();
            gone.extend(
                children
                    .split_whitespace()
                    .map(|pid| format!("/proc/{pid}")),
            );
            program.kill();
        }
        self.running.clear();
        eventually_is("everything to be dead", PATIENCE, || {
            gone.iter()
                .all(|process| !Path::new(process).exists())
                .then_some(())
                .ok_or(())
        })
        .await?;
        Ok(())
    }

    /// What the service manager starts in every boot: it confirms the running slot or gives it up.
    pub async fn check(&self, patience: u32) -> anyhow::Result<Output> {
        let words = self.words(patience);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("check");
        Ok(run(self.scratch, "check", &mut command, b"", PATIENCE * 2).await?)
    }

    /// Runs the update's program by hand.
    pub async fn install(&self, bundle: &Path) -> anyhow::Result<Output> {
        let words = self.update_command(bundle);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        Ok(run(self.scratch, "install", &mut command, b"", PATIENCE).await?)
    }

    /// The word that is noted of the last update.
    pub fn noted(&self) -> anyhow::Result<String> {
        let noted = std::fs::read_to_string(self.state().join("update"))?;
        Ok(noted.lines().next().unwrap_or_default().to_owned())
    }

    /// Waits until a word is noted.
    pub async fn wait_until_noted(&self, word: &str) -> anyhow::Result<()> {
        let what = format!("“{word}” to be noted");
        eventually_is(&what, PATIENCE, || match self.noted() {
            Ok(noted) if noted == word => Ok(()),
            noted => Err(noted.map_err(|error| error.to_string())),
        })
        .await?;
        Ok(())
    }

    /// Waits until something is written into a slot.
    pub async fn wait_until_written(&self, name: char, before: &[u8]) -> anyhow::Result<()> {
        let changed = || match self.slot(name) {
            Ok(now) if now != before => Ok(()),
            now => Err(now.map(|_| "the same").map_err(|error| error.to_string())),
        };
        eventually_is("a slot to be written", PATIENCE, changed).await?;
        Ok(())
    }

    /// Waits until the boot loader's order of slots is this one.
    pub async fn wait_until_first(&self, order: &str) -> anyhow::Result<()> {
        crate::eventually::eventually("the slots to be switched", PATIENCE, async || {
            let found = self
                .grub("ORDER")
                .await
                .map_err(|error| error.to_string())?;
            if found == order { Ok(()) } else { Err(found) }
        })
        .await?;
        Ok(())
    }

    /// Lets [`TwoSlots::hold_notes`] take effect at any time: to be called before the program that notes is started, since a shell looks
    /// for a program once.
    pub fn prepare_to_hold_notes(&self) -> anyhow::Result<()> {
        let body = format!(
            "[ ! -e {} ] || exec sleep infinity\nexec {} \"$@\"",
            self.held().display(),
            on_path("sync")?.display()
        );
        self.script("sync", &body)
    }

    /// From now on nothing is noted: whoever wants to waits, before the disk, for ever.
    pub fn hold_notes(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(self.held(), "")?)
    }

    /// It is noted again.
    pub fn go_on_noting(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.held())?;
        Ok(std::fs::remove_file(self.scratch.path("bin").join("sync"))?)
    }

    fn held(&self) -> PathBuf {
        self.scratch.path("held")
    }

    /// The same, but the power goes before its `step`th call of a program that changes something. Whether it went: the check has
    /// fewer steps otherwise.
    pub async fn check_until(&mut self, patience: u32, step: u32) -> anyhow::Result<bool> {
        let [steps, cut] = ["steps", "cut"].map(|name| self.scratch.path(name));
        for file in [&steps, &cut] {
            if file.exists() {
                std::fs::remove_file(file)?;
            }
        }
        for tool in ["sync", "mv", "rauc"] {
            let path = on_path(tool)?;
            self.script(
                tool,
                &format!(
                    "echo x >>{steps}; if [ \"$(wc -l <{steps})\" = {step} ]; then touch {cut}; exec sleep infinity; fi; exec {path} \"$@\"",
                    steps = steps.display(),
                    cut = cut.display(),
                    path = path.display()
                ),
            )?;
        }
        let words = self.words(patience);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("check");
        self.start("check", &command)?;
        let checks = self.running.last_mut().context("it does not run")?;
        let went = eventually_is("the check to end or the power to go", PATIENCE, || {
            match (cut.exists(), checks.exited()) {
                (true, _) => Ok(true),
                (false, Some(_)) => Ok(false),
                (false, None) => Err(()),
            }
        })
        .await?;
        self.power_cut().await?;
        for tool in ["sync", "mv", "rauc"] {
            std::fs::remove_file(self.scratch.path("bin").join(tool))?;
        }
        Ok(went)
    }

    /// What is noted and what the boot loader knows, to be put back by [`TwoSlots::set_back`].
    pub fn keep(&self) -> anyhow::Result<[Vec<u8>; 2]> {
        Ok([
            std::fs::read(self.grubenv())?,
            std::fs::read(self.state().join("update"))?,
        ])
    }

    /// Puts back what was kept, while the device is off.
    pub fn set_back(&self, kept: &[Vec<u8>; 2]) -> anyhow::Result<()> {
        std::fs::write(self.grubenv(), &kept[0])?;
        std::fs::write(self.state().join("update"), &kept[1])?;
        if self.restart_is_asked_for() {
            std::fs::remove_file(self.scratch.path("asked"))?;
        }
        Ok(())
    }

    /// What is in a slot.
    pub fn slot(&self, name: char) -> anyhow::Result<Vec<u8>> {
        Ok(std::fs::read(&self.slots[usize::from(name == 'B')].0)?)
    }

    /// What the boot loader's environment says.
    pub async fn grub(&self, name: &str) -> anyhow::Result<String> {
        let mut command = Command::new("grub-editenv");
        command.arg(self.grubenv()).arg("list");
        let said = tool(self.scratch, &mut command).await?;
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        Ok(line.unwrap_or_default().to_owned())
    }

    async fn set(&self, values: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("grub-editenv");
        command.arg(self.grubenv()).arg("set").args(values);
        tool(self.scratch, &mut command).await.map(drop)
    }

    /// What `image/rauc/grub.cfg` does: the first slot in order that is good and was not tried in vain.
    async fn choose(&self) -> anyhow::Result<char> {
        for slot in self.grub("ORDER").await?.split_whitespace() {
            let good = self.grub(&format!("{slot}_OK")).await? == "1";
            let tried = self.grub(&format!("{slot}_TRY")).await? == "1";
            if good && !tried {
                self.set(&[&format!("{slot}_TRY=1")]).await?;
                return slot.chars().next().context("a slot without a name");
            }
        }
        bail!("no slot starts: the device is lost")
    }
}

/// A file of the image.
fn on_path(tool: &str) -> anyhow::Result<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(tool))
        .find(|path| path.is_file())
        .with_context(|| format!("{tool} is not installed"))
}

fn in_image(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../image")
        .join(name)
}

async fn loop_device(
    scratch: &Scratch,
    name: &str,
    holds: &[u8],
) -> anyhow::Result<(PathBuf, File)> {
    let file = scratch.path(name);
    std::fs::write(&file, holds)?;
    let mut command = Command::new("losetup");
    command.args(["--find", "--show"]).arg(&file);
    let device = tool(scratch, &mut command)
        .await
        .context("this machine gives no loop device, which the slots of a device need")?;
    let device = PathBuf::from(device.trim());
    let held = OpenOptions::new().read(true).open(&device)?;
    // From now on it lives as long as somebody has it open.
    let mut command = Command::new("losetup");
    command.arg("--detach").arg(&device);
    tool(scratch, &mut command).await?;
    Ok((device, held))
}

async fn tool(scratch: &Scratch, command: &mut Command) -> anyhow::Result<String> {
    let what = format!("{command:?}");
    let output = run(scratch, "tools", command, b"", PATIENCE).await?;
    ensure!(
        output.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
