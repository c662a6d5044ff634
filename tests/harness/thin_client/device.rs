//! One thin client: its disks, its stick and what is done with it from outside. Nothing of the harness runs in it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::Headquarters;
use crate::demo::Story;
use crate::eventually::eventually;
use crate::image::Image as Picture;
use crate::machine::{Engine, MachineConfig, Processor, free_port};
use crate::program::{Program, run};
use crate::rfb_client::{Options, RfbClient};
use crate::scratch::Scratch;
use crate::world::{PATIENCE, Shadow};

/// How long a machine may take from its first line to being reachable. Emulated, on a machine that does much else, that is minutes.
pub(super) const BOOT: Duration = Duration::from_secs(1200);
/// How long it may take to its first line.
const FIRST: Duration = Duration::from_secs(240);
/// The first line of the image's own.
pub(super) const UP: &str = "thin-client: the root is";
/// What the desktop says of itself.
const DESKTOP: &str = "the desktop is there";
/// A place inside of the terminal's window.
const IN_TERMINAL: (u16, u16) = (400, 400);
/// The indicator's colour, and how many pixels it has at least.
const INDICATOR: (u32, usize) = (0xb0_00_20, 2000);
/// How large the state partition is: far more than the agent needs.
const STATE: u64 = 32 << 20;

/// What is above the root that can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// A layer in memory over everything.
    Volatile,
    /// Nothing, but such a layer over `/var`.
    Readonly,
}

impl Root {
    fn word(self) -> &'static str {
        match self {
            Root::Volatile => "thinclient.root=volatile",
            Root::Readonly => "thinclient.root=readonly",
        }
    }
}

/// How a device is linked to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Whichever it has found.
    Any,
    /// Behind the gateway.
    Gateway,
    /// Without one.
    Direct,
}

impl Way {
    fn is_of(self, device: &Value) -> bool {
        let gateway = device.get("gateway").and_then(Value::as_str);
        match self {
            Way::Any => true,
            Way::Gateway => gateway == Some("icg"),
            Way::Direct => gateway.is_none(),
        }
    }
}

/// The files that a thin client is booted from.
#[derive(Debug, Clone)]
pub struct Image {
    /// For which processor.
    pub processor: Processor,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The root, as a squashfs.
    pub root: PathBuf,
}

/// A thin client.
pub(super) struct ThinClient<'s> {
    scratch: &'s Scratch,
    machine: MachineConfig,
    unit: String,
    stick: PathBuf,
    root: Root,
    /// The machine, while it is on.
    program: Option<Program>,
    begun: Instant,
    /// The device ID, once the server knows it.
    id: Option<String>,
}

impl<'s> ThinClient<'s> {
    /// A machine that was never switched on, with an empty state partition.
    pub(super) fn new(
        scratch: &'s Scratch,
        image: &Image,
        engine: Engine,
        number: u8,
    ) -> anyhow::Result<Self> {
        let name = format!("thin-client-{number}");
        let state = scratch.path(&format!("{name}.state"));
        let file = std::fs::File::create(&state)?;
        file.set_len(STATE)?;
        let mut format = Command::new("mkfs.ext4");
        let formatted = format
            .args(["-q", "-L", "umbra-state"])
            .arg(&state)
            .status();
        ensure!(
            formatted.context("mkfs.ext4 cannot be started")?.success(),
            "the state partition cannot be made"
        );
        let mac = format!("52:54:00:75:6d:{number:02x}");
        Ok(Self {
            scratch,
            unit: mac.replace(':', "").to_uppercase(),
            stick: scratch.folder(&format!("{name}.stick"))?,
            machine: MachineConfig {
                name,
                processor: image.processor,
                engine,
                kernel: image.kernel.clone(),
                initramfs: image.initramfs.clone(),
                words: Vec::new(),
                fixed: vec![image.root.clone()],
                disks: vec![state],
                stick: None,
                mac,
                port: free_port()?,
            },
            root: Root::Volatile,
            program: None,
            begun: Instant::now(),
            id: None,
        })
    }

    /// Its label.
    pub(super) fn unit(&self) -> &str {
        &self.unit
    }

    /// Where its serial line is written to.
    pub(super) fn log(&self) -> PathBuf {
        self.scratch
            .path("log")
            .join(format!("{}.log", self.machine.name))
    }

    /// Puts credentials with a key of its own on the stick, and the stick in.
    pub(super) async fn credentials(
        &mut self,
        headquarters: &Headquarters<'_>,
    ) -> anyhow::Result<()> {
        headquarters.credentials(&self.stick).await?;
        self.machine.stick = Some((self.stick.clone(), "UMBRA".into()));
        Ok(())
    }

    /// The machine, which is on.
    pub(super) fn program(&mut self) -> anyhow::Result<&mut Program> {
        self.program.as_mut().context("the machine is off")
    }

    /// Switches it on, and waits for the image's first line.
    pub(super) async fn switch_on<W: Write>(&mut self, story: &mut Story<W>) -> anyhow::Result<()> {
        self.machine.words = [
            "quiet",
            // Nobody else's programs run on it, and they cost an emulator most of its time.
            "mitigations=off",
            "systemd.show_status=0",
            "systemd.journald.forward_to_console=1",
            "systemd.journald.max_level_console=info",
            self.root.word(),
        ]
        .map(str::to_owned)
        .to_vec();
        self.begun = Instant::now();
        let (program, stalled) = self.machine.start_until(self.scratch, UP, FIRST).await?;
        if stalled > 0 {
            story.say(&format!(
                "    (the emulated processors stood still {stalled} times before the first line; switched off and on again)"
            ))?;
        }
        self.program = Some(program);
        Ok(())
    }

    /// Takes its power away, in the middle of whatever it does.
    pub(super) fn cut_power(&mut self) {
        self.program = None;
    }

    /// Seconds since it was switched on.
    fn since(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Waits until the server has it online, on this way; it is the same device as ever.
    pub(super) async fn online(
        &mut self,
        headquarters: &Headquarters<'_>,
        way: Way,
        limit: Duration,
    ) -> anyhow::Result<Value> {
        let what = format!("{} to be online, {way:?}", self.unit);
        let unit = self.unit.clone();
        let device = eventually(&what, limit, || async {
            // The list is asked for once in a while, not all the time: the emulator needs the processor.
            tokio::time::sleep(Duration::from_secs(1)).await;
            match headquarters.device(&unit).await {
                Ok(Some(device))
                    if device.get("online") == Some(&Value::Bool(true)) && way.is_of(&device) =>
                {
                    Ok(device)
                }
                Ok(device) => Err(format!("{device:?}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
        let id = device
            .get("id")
            .and_then(Value::as_str)
            .context("no device ID")?;
        match &self.id {
            Some(before) => ensure!(before == id, "{before} has come back as another one: {id}"),
            None => self.id = Some(id.to_owned()),
        }
        Ok(device)
    }

    /// From the first start to a desktop and a link to the server, with nobody at the device.
    pub(super) async fn first_boot<W: Write>(
        &mut self,
        headquarters: &Headquarters<'_>,
        story: &mut Story<W>,
    ) -> anyhow::Result<()> {
        self.switch_on(story).await?;
        story.step(&format!(
            "switched on for the first time, with the stick in: Linux runs after {:.0} s",
            self.since()
        ))?;
        self.online(headquarters, Way::Any, BOOT).await?;
        story.step(&format!(
            "it has made its identity, read the stick, and was taken on as {}: online after {:.0} s",
            self.unit,
            self.since()
        ))?;
        // While nobody has said which way to take, it takes the direct one as soon as it has seen it.
        self.settings(headquarters, &["system.remotemanager.enable_icg=true"])
            .await?;
        self.online(headquarters, Way::Gateway, BOOT).await?;
        story.step("the server has set it to go through the gateway, and it does")?;
        self.desktop(story).await
    }

    async fn desktop<W: Write>(&mut self, story: &mut Story<W>) -> anyhow::Result<()> {
        self.program()?.wait_for_line(DESKTOP, BOOT).await?;
        story.step(&format!("its desktop is there after {:.0} s", self.since()))
    }

    /// Shadows it through the gateway and directly.
    pub(super) async fn shadow_both_ways<W: Write>(
        &mut self,
        headquarters: &Headquarters<'_>,
        story: &mut Story<W>,
        out: &Path,
    ) -> anyhow::Result<()> {
        self.shadow(headquarters, story, "hello through the gateway", Some(out))
            .await?;
        let port = format!("network.vncserver.port={}", self.machine.port);
        self.settings(
            headquarters,
            &[&port, "system.remotemanager.enable_icg=false"],
        )
        .await?;
        let device = self.online(headquarters, Way::Direct, BOOT).await?;
        let addresses = device.get("shadow_addresses").map(Value::to_string);
        story.step(&format!(
            "the server has switched it to the direct way; it is reached at {}",
            addresses.unwrap_or_default()
        ))?;
        self.shadow(headquarters, story, "hello without a gateway", None)
            .await?;
        self.settings(headquarters, &["system.remotemanager.enable_icg=true"])
            .await?;
        self.online(headquarters, Way::Gateway, BOOT).await?;
        story.step("the server has switched it back to the gateway")
    }

    async fn settings(&self, headquarters: &Headquarters<'_>, set: &[&str]) -> anyhow::Result<()> {
        let words = [&["devices", "settings", &self.unit], set].concat();
        headquarters.console.tell(&words, "").await?;
        Ok(())
    }

    /// One session: the screen is seen with the indicator on it, and keys arrive.
    async fn shadow<W: Write>(
        &mut self,
        headquarters: &Headquarters<'_>,
        story: &mut Story<W>,
        text: &str,
        out: Option<&Path>,
    ) -> anyhow::Result<()> {
        let mut shadow = self.open(headquarters).await?;
        let address = shadow.address().context("no address")?;
        let options = Options {
            limit: Duration::from_secs(120),
            ..Options::default()
        };
        let mut viewer = RfbClient::connect(address, &options).await?;
        viewer.refresh().await?;
        let begun = Instant::now();
        viewer.pointer(0, IN_TERMINAL.0, IN_TERMINAL.1).await?;
        viewer.pointer(1, IN_TERMINAL.0, IN_TERMINAL.1).await?;
        viewer.pointer(0, IN_TERMINAL.0, IN_TERMINAL.1).await?;
        viewer
            .type_text(&format!("logger -t keys {text}\n"))
            .await?;
        self.program()?
            .wait_for_line(&format!("]: {text}"), PATIENCE * 5)
            .await?;
        let (colour, least) = INDICATOR;
        let seen = viewer
            .follow_until(PATIENCE * 5, |picture| count(picture, colour) >= least)
            .await?;
        ensure!(seen, "no indicator is seen on the screen");
        viewer.refresh().await?;
        let (width, height) = (viewer.image().width(), viewer.image().height());
        if let Some(out) = out {
            viewer
                .save_png(out)
                .with_context(|| format!("cannot write {}", out.display()))?;
        }
        viewer.leave().await?;
        let ended = shadow.ended().await?;
        let id = ended
            .get("session")
            .and_then(Value::as_str)
            .context("no session")?;
        headquarters.console.ended_session(id).await?;
        story.step(&format!(
            "shadowed: {width}x{height} pixels with the indicator on them; the keys “{text}” arrived in its terminal after {:.1} s, and \
             the session is on record",
            begun.elapsed().as_secs_f64()
        ))
    }

    async fn open(&self, headquarters: &Headquarters<'_>) -> anyhow::Result<Shadow> {
        let mut shadow = headquarters
            .console
            .begin_shadow(&self.unit, &["--reason", "image"])?;
        match shadow.wait_until_open().await {
            Ok(_) => Ok(shadow),
            Err(error) => {
                let said = shadow.program().lines().join("\n");
                bail!("{error:#}: {said}")
            }
        }
    }

    /// Waits until the machine goes off by itself; whether that is for a restart.
    pub(super) async fn goes_off(&mut self) -> anyhow::Result<bool> {
        const FOREVER: Duration = Duration::from_secs(365 * 86_400);
        let (status, said) = self.program()?.wait_for_all(FOREVER).await?;
        ensure!(status.success(), "the emulator ended with {status}");
        Ok(said
            .iter()
            .any(|line| line.contains("reboot: Restarting system")))
    }

    /// Has the server restart it, takes the stick out meanwhile, and finds the same device again.
    pub(super) async fn restart<W: Write>(
        &mut self,
        headquarters: &Headquarters<'_>,
        story: &mut Story<W>,
    ) -> anyhow::Result<()> {
        let command = ["devices", "command", &self.unit, "reboot"];
        headquarters.console.tell(&command, "").await?;
        ensure!(
            tokio::time::timeout(BOOT, self.goes_off())
                .await
                .context("the machine does not restart")??,
            "the machine went off without a restart"
        );
        self.machine.stick = None;
        self.switch_on(story).await?;
        self.online(headquarters, Way::Gateway, BOOT).await?;
        story.step(&format!(
            "the server's command “reboot” restarted it, and it is the same device without the stick: online after {:.0} s, device ID {}",
            self.since(),
            self.id.as_deref().unwrap_or_default()
        ))?;
        self.program()?.wait_for_line(DESKTOP, BOOT).await?;
        self.shadow(headquarters, story, "hello after the restart", None)
            .await
    }

    /// Cuts the power and boots with another kind of root.
    pub(super) async fn with_another_root<W: Write>(
        &mut self,
        headquarters: &Headquarters<'_>,
        story: &mut Story<W>,
        root: Root,
    ) -> anyhow::Result<()> {
        self.cut_power();
        self.root = root;
        self.switch_on(story).await?;
        self.online(headquarters, Way::Gateway, BOOT).await?;
        story.step(&format!(
            "with {} and after a power cut it is the same device: online after {:.0} s",
            root.word(),
            self.since()
        ))?;
        self.program()?.wait_for_line(DESKTOP, BOOT).await?;
        self.shadow(headquarters, story, "hello with another root", None)
            .await
    }

    /// Whether this text lies anywhere on the state partition. Asked of a program that finds it in a moment: the next look
    /// must not come too late.
    pub(super) fn state_has(&self, text: &str) -> anyhow::Result<bool> {
        let state = self.machine.disks.first().context("no state partition")?;
        let mut search = Command::new("grep");
        search
            .args(["--quiet", "--text", "--fixed-strings", "--regexp", text])
            .arg(state);
        Ok(search.status().context("grep cannot be started")?.success())
    }

    /// What the state partition has of the certificate, looked at from outside while the machine is off.
    pub(super) async fn certificate(&self) -> anyhow::Result<String> {
        let state = self.machine.disks.first().context("no state partition")?;
        // What lies in the journal counts, as it does for the device; but it's the device's to bring it in.
        let copy = self
            .scratch
            .path(&format!("{}.looked-at", self.machine.name));
        std::fs::copy(state, &copy).context("the state partition cannot be copied")?;
        let mut replay = Command::new("e2fsck");
        let replayed = run(
            self.scratch,
            "e2fsck",
            replay.args(["-f", "-y"]).arg(&copy),
            b"",
            PATIENCE,
        )
        .await?;
        // 1: something was in the journal.
        ensure!(
            matches!(replayed.status.code(), Some(0 | 1)),
            "the state partition is damaged: {}",
            String::from_utf8_lossy(&replayed.stdout)
        );
        let mut command = Command::new("debugfs");
        command.args(["-R", "cat /ca-certs/tc_ca.crt"]).arg(&copy);
        let output = run(self.scratch, "debugfs", &mut command, b"", PATIENCE).await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn count(picture: &Picture, colour: u32) -> usize {
    let rows = (0..picture.height()).map(|y| picture.row(y));
    rows.flatten().filter(|pixel| **pixel == colour).count()
}
