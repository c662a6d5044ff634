//! Many devices at one gateway, and at one server. The devices are the agent's own code, all in one program (`herd`), since a process for
//! each would measure the machine; gateway and server are the programs that ship.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Wish;
use super::process::Family;
use super::report::{OURS, Quantity, Section, less, more};
use crate::eventually::eventually;
use crate::program::Program;
use crate::scratch::Scratch;
use crate::world::{Console, Gateway, GatewayConfig, Server, ServerConfig};

/// How many devices one program holds at most: each keeps several files open, of which a process has a limited number.
const OF_ONE_PROGRAM: u32 = 1000;

/// So many devices are made impatient, so that a return is quick: they try every 10 seconds. More of them do as devices do unless told
/// otherwise, since on one machine their attempts would take the time from those that succeed.
const IMPATIENT: u32 = 1000;

/// Longer than this, no crowd may take.
const LIMIT: Duration = Duration::from_secs(1200);

const DEVICES: Quantity = more("devices in this run", "devices");
const EACH: Quantity = less("memory per idle device", "KiB");
const HELD: Quantity = more("devices for each GB of memory", "devices");
const ENROLMENTS: Quantity = more(
    "devices taken on, one after the other eight at a time",
    "per s",
);
const ENROLMENT_CPU: Quantity = less("CPU per device taken on", "ms");
const BACK: Quantity = less("until all are back after a restart, jitter and all", "s");
const BACK_WORK: Quantity = less("work in that time, without the waiting: its CPU", "s");
const BACK_CPU: Quantity = less("CPU per device that came back", "ms");
const WELCOMES: Quantity = more("devices welcomed for each second of CPU", "devices");
const TICKETS: Quantity = more("tickets, each over a connection of its own", "per s");
const TICKET_CPU: Quantity = less("CPU per ticket", "ms");

const ABOUT_GATEWAY: &str = "Devices with nothing but their link through one `umbra-gateway`, which is killed and started again once all are there. \
Up to 1,000 try at least every 10 seconds, more \
of them every 90, as devices do. They come in two halves; memory is what the gateway grew by with the second, resident, so that what it needs once for any number is not in it.";
const ABOUT_SERVER: &str = "The same devices with a direct link to one `umbra-server`, which is killed and started again; and tickets for sessions \
with them, as a console asks for them.";

/// The programs with the devices.
struct Herd {
    programs: Vec<Program>,
    times_online: u32,
    enrolled: f64,
}

impl Herd {
    /// Takes on devices `first` and up, `count` of them, that know only one way to their server: the program at `address`, which is one of
    /// `way` (`ums`, `icg`). On this machine they could go directly too, and would stay there once the gateway is gone.
    async fn start(
        wish: &Wish,
        scratch: &Scratch,
        (first, count): (u32, u32),
        (way, address): (&str, SocketAddr),
        server: &Server<'_>,
        console: &Console<'_>,
    ) -> anyhow::Result<Self> {
        let file = wish
            .herd
            .as_ref()
            .context("the herd's program was not named")?;
        let made = console.tell(&["keys", "create", "--mass"], "").await?;
        let key = made.pointer("/0/key").or_else(|| made.get("key"));
        let key = key.and_then(serde_json::Value::as_str);
        let key_file = scratch.path(&format!("mass-key-{first}"));
        std::fs::write(&key_file, key.with_context(|| made.to_string())?)?;
        let mut herd = Self {
            programs: Vec::new(),
            times_online: 1,
            enrolled: 0.0,
        };
        let pause = match wish.devices {
            Some(devices) if devices > IMPATIENT => "90",
            Some(_) | None => "10",
        };
        let end = first + count;
        for from in (first..end).step_by(OF_ONE_PROGRAM as usize) {
            let name = format!("herd-{from}");
            let devices = OF_ONE_PROGRAM.min(end - from);
            let mut command = Command::new(file);
            command
                .arg(scratch.folder(&name)?)
                .args([
                    &format!("{from}+{devices}"),
                    way,
                    pause,
                    &address.to_string(),
                    server.fingerprint(),
                ])
                .arg(&key_file)
                .stdin(Stdio::null());
            let mut program = Program::start(scratch, &name, &mut command)?;
            let line = program.wait_for_line("enrolled in ", LIMIT).await?;
            let seconds = line.trim_start_matches("enrolled in ").trim();
            let seconds: f64 = seconds.parse().with_context(|| line.clone())?;
            herd.enrolled += seconds;
            program.wait_for_line("all online, time 1.", LIMIT).await?;
            herd.programs.push(program);
        }
        Ok(herd)
    }

    async fn until_all_back(&mut self) -> anyhow::Result<()> {
        self.times_online += 1;
        let line = format!("all online, time {}.", self.times_online);
        for program in &mut self.programs {
            program.wait_for_line(&line, LIMIT).await?;
        }
        Ok(())
    }
}

/// Every connection is a file.
fn raise_the_limit_of_files() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

fn quiet() -> ServerConfig {
    ServerConfig {
        heartbeat: 40,
        ..ServerConfig::default()
    }
}

pub(super) async fn gateway(
    wish: &Wish,
    scratch: &Scratch,
    say: &impl Fn(&str),
) -> anyhow::Result<Section> {
    raise_the_limit_of_files()?;
    let mut section = Section::new("gateway", ABOUT_GATEWAY);
    let half = wish.devices.map_or(wish.pick(50, 500), |all| all / 2);
    let server = Server::start(scratch, quiet()).await?;
    let console = Console::administrator(scratch, &server).await?;
    let mut gateway = Gateway::start(scratch, &console, GatewayConfig::default()).await?;
    gateway.wait_until_attached(&console, true).await?;
    let family = Family::of(gateway.program().pid());
    let way = ("icg", gateway.external());
    let half_of_all = f64::from(half);
    say(&format!("    {half} devices are taken on"));
    let mut first = Herd::start(wish, scratch, (0, half), way, &server, &console).await?;
    say("    as many again");
    let (with_half, before) = (family.resident_kib(), family.cpu_of_all());
    let mut second = Herd::start(wish, scratch, (half, half), way, &server, &console).await?;
    let many = 2.0 * half_of_all;
    let grown = family.resident_kib().saturating_sub(with_half) as f64;
    section.note(&DEVICES, OURS, many);
    section.note(&EACH, OURS, grown / half_of_all);
    section.note(&ENROLMENTS, OURS, half_of_all / second.enrolled);
    let cpu = family.cpu_of_all() - before;
    section.note(&ENROLMENT_CPU, OURS, cpu * 1e3 / half_of_all);
    say(&format!(
        "    the second half made it {grown} KiB larger; it is killed and started again"
    ));
    gateway.program().kill();
    let start = Instant::now();
    gateway.start_again().await?;
    let family = Family::of(gateway.program().pid());
    first.until_all_back().await?;
    second.until_all_back().await?;
    until_it_has(&console, &gateway, half * 2).await?;
    section.note(&BACK, OURS, start.elapsed().as_secs_f64());
    let cpu = family.cpu_of_all();
    section.note(&BACK_WORK, OURS, cpu);
    section.note(&BACK_CPU, OURS, cpu * 1e3 / many);
    Ok(section.finished())
}

/// Waits until the server says that all devices are at the gateway: one that came twice on the way was counted by the herd as back.
async fn until_it_has(
    console: &Console<'_>,
    gateway: &Gateway<'_>,
    devices: u32,
) -> anyhow::Result<()> {
    let probe = || async {
        let shown = console
            .tell(&["gateways", "show", gateway.name()], "")
            .await
            .map_err(|error| error.to_string())?;
        match shown.get("devices").and_then(serde_json::Value::as_u64) {
            Some(has) if has == u64::from(devices) => Ok(()),
            _ => Err(shown.to_string()),
        }
    };
    Ok(eventually("all devices to be at the gateway", LIMIT, probe).await?)
}

pub(super) async fn server(
    wish: &Wish,
    scratch: &Scratch,
    say: &impl Fn(&str),
) -> anyhow::Result<Section> {
    raise_the_limit_of_files()?;
    let mut section = Section::new("server", ABOUT_SERVER);
    let count = wish.devices.unwrap_or(wish.pick(100, 1000));
    let mut server = Server::start(scratch, quiet()).await?;
    let console = Console::administrator(scratch, &server).await?;
    let family = Family::of(server.program().pid());
    let before = family.cpu_of_all();
    say(&format!("    {count} devices are taken on"));
    let way = ("ums", server.address_for_devices());
    let mut herd = Herd::start(wish, scratch, (0, count), way, &server, &console).await?;
    let many = f64::from(count);
    section.note(&DEVICES, OURS, many);
    section.note(&ENROLMENTS, OURS, many / herd.enrolled);
    let cpu = family.cpu_of_all() - before;
    section.note(&ENROLMENT_CPU, OURS, cpu * 1e3 / many);
    say("    the server is killed and started again");
    let start = Instant::now();
    server.start_again().await?;
    let family = Family::of(server.program().pid());
    let empty = family.resident_kib();
    herd.until_all_back().await?;
    section.note(&BACK, OURS, start.elapsed().as_secs_f64());
    let cpu = family.cpu_of_all();
    section.note(&BACK_WORK, OURS, cpu);
    section.note(&BACK_CPU, OURS, cpu * 1e3 / many);
    section.note(&WELCOMES, OURS, many / cpu);
    let each = family.resident_kib().saturating_sub(empty) as f64 / many;
    section.note(&EACH, OURS, each);
    section.note(&HELD, OURS, 1e9 / 1024.0 / each);
    let devices = console.tell(&["devices"], "").await?;
    // One device takes only so many offers a minute.
    let ids = ids(&devices).with_context(|| devices.to_string())?;
    let tickets = wish.pick(50, 500);
    say(&format!("    {tickets} tickets"));
    let (start, before) = (Instant::now(), family.cpu_of_all());
    for (_, id) in (0..tickets).zip(ids.iter().cycle()) {
        console.offer(&server, id, false).await?;
    }
    let tickets = f64::from(tickets);
    section.note(&TICKETS, OURS, tickets / start.elapsed().as_secs_f64());
    let cpu = family.cpu_of_all() - before;
    section.note(&TICKET_CPU, OURS, cpu * 1e3 / tickets);
    drop(herd);
    Ok(section.finished())
}

/// The IDs of a list of devices: they all have the same name.
fn ids(devices: &serde_json::Value) -> Option<Vec<String>> {
    let list = devices
        .as_array()
        .or_else(|| devices.get("devices")?.as_array())?;
    let ids = list
        .iter()
        .map(|one| Some(one.get("id")?.as_str()?.to_owned()));
    ids.collect()
}
