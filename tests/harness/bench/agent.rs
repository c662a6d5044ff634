//! What the agent costs a device: on disk, in memory, while nothing happens, and until it is there after a start.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Wish;
use super::peers;
use super::process::Family;
use super::report::{OURS, Quantity, Section, less};
use crate::program::{foreign, is_dynamic, product, product_command};
use crate::scratch::Scratch;
use crate::world::{Console, Device, DeviceConfig, Server, ServerConfig};

const ABOUT: &str = "`umbra-agent` with a direct link to a server that asks for a sign of life every 40 seconds, as it does by default. Times are \
from the start of the process to the line in its log; beside its size, that of peers' programs without their libraries.";

const SIZE: Quantity = less("size on disk", "KiB");
const FIRST: Quantity = less(
    "first boot, until the device has a key and a certificate",
    "ms",
);
const FIRST_CPU: Quantity = less("CPU of the first boot", "ms");
const FIRST_INSTRUCTIONS: Quantity = less(
    "instructions for an identity, key and certificate",
    "million",
);
const WELCOME: Quantity = less("start to welcome, known device", "ms");
const WELCOME_CPU: Quantity = less("CPU from start to welcome", "ms");
const RESIDENT: Quantity = less("memory, idle with one link", "KiB");
const WAKES: Quantity = less("wake-ups while idle", "per minute");
/// The agent for the processor that this machine doesn't have: nothing of it can be timed here.
const FOREIGN: &str = "umbra for the other processor";
/// More instructions than that are no identity, but a program that doesn't end.
const INSTRUCTIONS_MAX: u64 = 2_000_000_000;

/// An agent that runs, and is ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Only fails when it has ended since.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) async fn measure(
    wish: &Wish,
    scratch: &Scratch,
    say: &impl Fn(&str),
) -> anyhow::Result<Section> {
    let mut section = Section::new("agent", ABOUT);
    let program = product("umbra-agent")?;
    let kind = match is_dynamic(&program)? {
        true => "as cargo builds it, with the system's C library",
        false => "static, as it ships",
    };
    section.about.push_str(&format!(" The agent is {kind}."));
    let kib = |path: &Path| std::fs::metadata(path).map(|file| file.len() as f64 / 1024.0);
    section.note(&SIZE, OURS, kib(&program)?);
    if let Some(program) = &wish.foreign {
        section.note(&SIZE, FOREIGN, kib(program)?);
    }
    for peer in ["stunnel", "haproxy", "rathole"] {
        if let Some(program) = peers::find(peer, wish) {
            section.note(&SIZE, peer, kib(&std::fs::canonicalize(program)?)?);
        }
    }

    let config = ServerConfig {
        heartbeat: 40,
        ..ServerConfig::default()
    };
    let server = Server::start(scratch, config).await?;
    let console = Console::administrator(scratch, &server).await?;
    let mut device = Device::new(scratch, "device", DeviceConfig::default())?;
    device.start()?;
    let key = console.one_time_key().await?;
    device.enrol(&server, &key).await?;
    device.wait_until_online().await?;
    device.kill();

    match instructions(&program, scratch)? {
        Some(million) => section.note(&FIRST_INSTRUCTIONS, OURS, million),
        None => section
            .missing
            .push("instructions: valgrind is not installed".into()),
    }
    match &wish.foreign {
        Some(program) => {
            let million = emulated_instructions(program, scratch)?;
            section.note(&FIRST_INSTRUCTIONS, FOREIGN, million);
        }
        None => section
            .missing
            .push("the other processor: its agent was not named".into()),
    }
    let rounds = wish.pick(3, 9);
    for round in 1..=rounds {
        say(&format!("    round {round} of {rounds}"));
        let fresh = Device::new(scratch, &format!("fresh-{round}"), DeviceConfig::default())?;
        let (agent, took, cpu) = until(&fresh, "the device's identity")?;
        drop(agent);
        section.note(&FIRST, OURS, took);
        section.note(&FIRST_CPU, OURS, cpu);
        let (agent, took, cpu) = until(&device, "linked to the server")?;
        drop(agent);
        section.note(&WELCOME, OURS, took);
        section.note(&WELCOME_CPU, OURS, cpu);
    }
    let (agent, _, _) = until(&device, "linked to the server")?;
    let family = Family::of(agent.0.id());
    // What belongs to the start is over by then: the runtime keeps threads for files for ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let interval = Duration::from_secs(wish.pick(80, 240));
    say(&format!("    idle for {} s", interval.as_secs()));
    let before = family.switches();
    tokio::time::sleep(interval).await;
    let wakes = (family.switches() - before) as f64;
    section.note(&WAKES, OURS, wakes * 60.0 / interval.as_secs_f64());
    section.note(&RESIDENT, OURS, family.resident_kib() as f64);
    drop(agent);
    Ok(section.finished())
}

/// What `umbra-agent identity` executes on a device that has none, in millions, as callgrind counts: the same on any machine of that processor.
fn instructions(program: &Path, scratch: &Scratch) -> anyhow::Result<Option<f64>> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(program).arg("--root");
    command.arg(scratch.folder("counted")?).arg("identity");
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("valgrind cannot be started"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "the agent under valgrind: {said}");
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = count.with_context(|| format!("valgrind counted nothing: {said}"))?;
    let count: f64 = count.trim().parse()?;
    Ok(Some(count / 1e6))
}

/// The same on another processor, in millions: QEMU's user mode emulator, told to take one instruction at a time, says each of them.
fn emulated_instructions(program: &Path, scratch: &Scratch) -> anyhow::Result<f64> {
    let emulator = foreign(program)?.context("it is a program for this machine's processor")?;
    let mut command = Command::new(&emulator);
    command
        // The first is its name before version 8.1, the second since.
        .env("QEMU_SINGLESTEP", "1")
        .env("QEMU_ONE_INSN_PER_TB", "1")
        .args(["-d", "exec,nochain"])
        .arg(program)
        .arg("--root")
        .arg(scratch.folder("counted-elsewhere")?)
        .arg("identity")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut running = Running(command.spawn().with_context(|| {
        format!(
            "{} cannot be started (Debian: qemu-user-static)",
            emulator.display()
        )
    })?);
    let said = running.0.stderr.take().context("the emulator has no log")?;
    let mut count = 0_u64;
    for line in BufReader::with_capacity(1 << 20, said).split(b'\n') {
        if line?.starts_with(b"Trace ") {
            count += 1;
        }
        anyhow::ensure!(count < INSTRUCTIONS_MAX, "the agent doesn't end");
    }
    let status = running.0.wait()?;
    anyhow::ensure!(status.success(), "the agent under {emulator:?}: {status}");
    anyhow::ensure!(count > 0, "{emulator:?} counted nothing");
    Ok(count as f64 / 1e6)
}

/// Starts the agent on a device's root; gives it with the milliseconds, and those of CPU, until it says this.
fn until(device: &Device<'_>, text: &str) -> anyhow::Result<(Running, f64, f64)> {
    let mut command = product_command("umbra-agent")?;
    command
        .arg("--root")
        .arg(device.root())
        .arg("run")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let mut running = Running(command.spawn().context("the agent cannot be started")?);
    let said = running.0.stderr.take().context("the agent has no log")?;
    let mut said = BufReader::new(said);
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        let count = said.read_line(&mut line)?;
        anyhow::ensure!(count > 0, "the agent ended before it said {text:?}");
    }
    let took = start.elapsed().as_secs_f64() * 1e3;
    let cpu = Family::of(running.0.id()).cpu_of_living() * 1e3;
    // Nobody reads on, but it must not block on a full pipe.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    Ok((running, took, cpu))
}
