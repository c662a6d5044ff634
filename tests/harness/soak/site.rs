//! What the soak stands on: a server, a gateway, devices on both ways, and a line with faults between any two of them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::disk::Disk;
use super::plan::{Line, Row};
use crate::desktop::{Desktop, DesktopConfig, Listen};
use crate::fault_proxy::FaultProxy;
use crate::scratch::Scratch;
use crate::world::{
    Console, Device, DeviceConfig, Gateway, GatewayConfig, Server, ServerConfig, network_card,
};

/// What is possible here.
#[derive(Debug, Clone)]
pub(super) struct Abilities {
    /// Disks of a size: for root alone.
    pub(super) disks: bool,
    /// The library that lies about the time.
    pub(super) clock: Option<PathBuf>,
}

impl Abilities {
    pub(super) fn here(disks: bool) -> Self {
        let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
        let library = |place| PathBuf::from(format!("/usr/lib/{place}/faketime/libfaketime.so.1"));
        Self {
            disks,
            clock: places.into_iter().map(library).find(|path| path.is_file()),
        }
    }

    /// The rows that are possible, and a sentence for each kind that is not.
    pub(super) fn rows(&self) -> (Vec<Row>, Vec<&'static str>) {
        let mut rows = Row::ALL.to_vec();
        let mut without = Vec::new();
        if !self.disks {
            rows.retain(|row| !matches!(row, Row::AgentDisk | Row::ServerDisk));
            without.push(
                "LEFT OUT: no disk gets full, since only root can make disks: run it as root",
            );
        }
        if self.clock.is_none() {
            rows.retain(|row| !matches!(row, Row::AgentClock | Row::ServerClock));
            without.push("LEFT OUT: no clock jumps, since libfaketime is not installed (Debian's package libfaketime)");
        }
        (rows, without)
    }
}

/// A device that is there from the beginning.
pub(super) struct Member<'s> {
    pub(super) name: String,
    pub(super) unit: String,
    /// Whether its way leads through the gateway.
    pub(super) behind: bool,
    pub(super) desktop: Desktop,
    /// The command line on the device.
    pub(super) hands: Device<'s>,
    /// Its agent, which faults may end and start.
    pub(super) body: RefCell<Device<'s>>,
    /// Where its time is written, where it can be changed.
    pub(super) clock: Option<PathBuf>,
    pub(super) disk: Option<Disk>,
    /// Where messages to its person end up.
    pub(super) shown: PathBuf,
}

/// The lines.
pub(super) struct Lines {
    server: FaultProxy,
    gateway: FaultProxy,
    uplink: FaultProxy,
}

impl Lines {
    pub(super) fn of(&self, line: Line) -> &FaultProxy {
        match line {
            Line::Server => &self.server,
            Line::Gateway => &self.gateway,
            Line::Uplink => &self.uplink,
        }
    }
}

/// All of it.
pub(super) struct Site<'s> {
    pub(super) server: Server<'s>,
    pub(super) gateway: Gateway<'s>,
    pub(super) console: Console<'s>,
    pub(super) members: Vec<Member<'s>>,
    pub(super) lines: Lines,
    pub(super) server_clock: Option<PathBuf>,
    pub(super) server_disk: Option<Disk>,
}

/// Room on a device's disk, and on the server's, in KiB.
const DEVICE_DISK: u32 = 1024;
const SERVER_DISK: u32 = 96 * 1024;

async fn line() -> anyhow::Result<FaultProxy> {
    // Known before what stands behind it is: it begins in front of nobody.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(FaultProxy::start(nobody.local_addr()?).await?)
}

fn clock_words(library: &Path, file: &Path) -> [(&'static str, String); 4] {
    [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

/// Sets a clock.
pub(super) fn set_clock(file: &Path, time: &str) -> std::io::Result<()> {
    let set = file.with_extension("set");
    std::fs::write(&set, format!("{time}\n"))?;
    std::fs::rename(&set, file)
}

/// The clock that runs as it should.
pub(super) const RIGHT: &str = "+0";

impl<'s> Site<'s> {
    /// Starts server and gateway, with lines in front of them.
    pub(super) async fn start(scratch: &'s Scratch, abilities: &Abilities) -> anyhow::Result<Self> {
        let lines = Lines {
            server: line().await?,
            gateway: line().await?,
            uplink: line().await?,
        };
        let state = scratch.folder("server")?;
        let server_disk = match abilities.disks {
            true => Some(Disk::mount(&state, SERVER_DISK)?),
            false => None,
        };
        let config = ServerConfig {
            public: Some(lines.server.address()),
            ..ServerConfig::default()
        };
        let mut server = Server::start(scratch, config).await?;
        lines.server.set_upstream(server.address());
        let mut server_clock = None;
        if let Some(library) = &abilities.clock {
            let file = scratch.path("clock-of-server");
            set_clock(&file, RIGHT)?;
            for (name, value) in clock_words(library, &file) {
                server.set_environment(name, &value);
            }
            server.start_again().await?;
            server_clock = Some(file);
        }
        let console = Console::administrator(scratch, &server).await?;
        let config = GatewayConfig {
            front: Some(lines.gateway.address()),
            ..GatewayConfig::default()
        };
        let gateway = Gateway::start(scratch, &console, config).await?;
        lines.gateway.set_upstream(gateway.internal());
        lines.uplink.set_upstream(gateway.internal());
        let uplink = lines.uplink.address().to_string();
        let set = ["gateways", "set", gateway.name(), "--address", &uplink];
        console.tell(&set, "").await?;
        gateway.wait_until_attached(&console, true).await?;
        Ok(Self {
            server,
            gateway,
            console,
            members: Vec::new(),
            lines,
            server_clock,
            server_disk,
        })
    }

    /// Adds a device and waits until it is online.
    pub(super) async fn add(
        &mut self,
        scratch: &'s Scratch,
        abilities: &Abilities,
        number: usize,
    ) -> anyhow::Result<()> {
        let name = format!("device-{number}");
        // Every other one is behind the gateway.
        let behind = number % 2 == 1;
        let desktop = Desktop::start(DesktopConfig {
            listen: Listen::Unix(scratch.path(&format!("{name}.sock"))),
            size: (320, 240),
            name: name.clone(),
            password: None,
        })
        .await?;
        let shown = scratch.path(&format!("shown-on-{name}"));
        let mut config = member_config(&desktop, behind);
        // It stays for a moment, as a window does: so there is always a command at which a fault may come.
        let script = format!(
            "t=$(cat); printf '%s\\n' \"$t\" >>'{}'; sleep 1",
            shown.display()
        );
        let program = serde_json::to_string(&["/bin/sh", "-c", &script])?;
        config.set("umbra.message.program", &program);
        let hands = Device::new(scratch, &name, config.clone())?;
        let mut body = Device::new(scratch, &name, config)?;
        network_card(hands.root(), &format!("00:e0:c5:00:00:{number:02x}"))?;
        let disk = match abilities.disks {
            true => Some(Disk::mount(&hands.root().join("wfs"), DEVICE_DISK)?),
            false => None,
        };
        let mut clock = None;
        if let Some(library) = &abilities.clock {
            let file = hands.root().join("clock");
            set_clock(&file, RIGHT)?;
            for (name, value) in clock_words(library, &file) {
                body.set_environment(name, &value);
            }
            clock = Some(file);
        }
        body.start()?;
        hands.wait_until_up().await?;
        let at = match behind {
            true => self.lines.gateway.address(),
            false => self.lines.server.address(),
        };
        let key = self.console.one_time_key().await?;
        hands
            .enrol_at(at, self.server.fingerprint(), &key)
            .await
            .with_context(|| format!("{name} was not taken on"))?;
        hands.wait_until_online().await?;
        let unit = hands.unit_id().await?;
        self.members.push(Member {
            name,
            unit,
            behind,
            desktop,
            hands,
            body: RefCell::new(body),
            clock,
            disk,
            shown,
        });
        Ok(())
    }
}

/// What a device is installed with.
pub(super) fn member_config(desktop: &Desktop, behind: bool) -> DeviceConfig {
    let mut config = DeviceConfig::with_desktop(desktop);
    ways(&mut config, behind);
    config
}

/// One way only: everything is on one machine, and without this a device whose gateway is gone would go to the server directly.
pub(super) fn ways(config: &mut DeviceConfig, behind: bool) {
    let ranking = if behind { "icg" } else { "ums" };
    config
        .set_text("system.remotemanager.connectorranking", ranking)
        .set("system.remotemanager.enable_icg", &behind.to_string())
        .set("system.remotemanager.connect_timeout", "6")
        .set("system.icg.websocket.pingpong_interval", "5")
        .set("system.icg.websocket.network_timeout", "3");
}

/// One request to the server's API; nothing if nobody answered in time.
pub(super) async fn ask(
    console: &Console<'_>,
    address: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Option<(u16, Value)> {
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(12);
    let asking = console.call_at(address, method, path, body);
    tokio::time::timeout(LIMIT, asking).await.ok()?.ok()
}

/// The same where an answer must come.
pub(super) async fn get(
    console: &Console<'_>,
    address: SocketAddr,
    path: &str,
) -> anyhow::Result<Value> {
    let (status, answer) = ask(console, address, "GET", path, None)
        .await
        .with_context(|| format!("the server does not answer to {path}"))?;
    ensure!(status == 200, "{path}: {status} {answer}");
    Ok(answer)
}

/// A text in a JSON document; empty if there is none.
pub(super) fn text(value: &Value, name: &str) -> String {
    let text = value.get(name).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}
