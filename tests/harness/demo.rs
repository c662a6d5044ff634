//! The demo: a server, a gateway, a device and a console on this machine, in a temporary folder, on loopback or in networks
//! of their own. With a person it stays and says how to shadow the device; without one it does the whole job itself and keeps
//! a picture of what it saw. It uses the programs that ship and nothing that a person could not do with them.

mod screen;
mod toggle;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;

pub use screen::Kind;
use screen::screen;

use crate::netns::Island;
use crate::program::product;
use crate::scratch::Scratch;
use crate::world::{Console, Device, Gateway, GatewayConfig, Server, ServerConfig};

/// The device's way to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Through a gateway.
    Icg,
    /// Directly.
    Direct,
}

/// What to do without a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// Shadow the device and save what was seen here.
    Picture(PathBuf),
    /// Switch the device's way to and fro.
    Toggle,
}

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What stands behind the device.
    pub kind: Kind,
    /// The device's way to its server.
    pub via: Via,
    /// Do everything without a person, and end.
    pub once: Option<Errand>,
    /// Whether this program is in a network of its own, in which islands may be made.
    pub isolated: bool,
}

/// Says what happens, one numbered step after the other.
pub(crate) struct Story<W> {
    out: W,
    steps: u32,
    start: Instant,
}

impl<W: Write> Story<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            steps: 0,
            start: Instant::now(),
        }
    }

    pub(crate) fn step(&mut self, text: &str) -> anyhow::Result<()> {
        self.steps += 1;
        writeln!(
            self.out,
            "{:>2}. [{:>4.1} s] {text}",
            self.steps,
            self.start.elapsed().as_secs_f64()
        )?;
        Ok(self.out.flush()?)
    }

    pub(crate) fn say(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }
}

/// Runs the demo until it is done or, with a person, until `stop` is.
pub async fn run(
    wish: &Wish,
    out: impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let scratch = Scratch::new().context("no temporary folder can be made")?;
    let told = tell(&scratch, wish, out, stop).await;
    if told.is_err() {
        // The folder goes; what the programs said last must not.
        let _ = write!(std::io::stderr().lock(), "{}", scratch.logs());
    }
    told
}

async fn tell(
    scratch: &Scratch,
    wish: &Wish,
    out: impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut story = Story::new(out);
    let (screen, config) = screen(scratch, wish.kind, &mut story).await?;
    let server = Server::start(scratch, ServerConfig::default()).await?;
    story.step(&format!(
        "the server listens on {}; its root is {}",
        server.address(),
        server.fingerprint()
    ))?;
    let console = Console::administrator(scratch, &server).await?;
    story
        .step("the administrator has logged in, and pinned the server's root by its fingerprint")?;
    let island = match wish.isolated && wish.via == Via::Icg {
        true => Some(Island::new(scratch, 1).await?),
        false => None,
    };
    let gateway = match wish.via {
        Via::Icg => Some(gateway(scratch, &mut story, &console, island.as_ref()).await?),
        Via::Direct => None,
    };
    let mut device = Device::new(scratch, "device", config)?;
    if let Some(island) = &island {
        device.put_on(island);
        story.step(&format!(
            "the device stands in a network of its own: of everything here it reaches {} alone, and nobody reaches it",
            island.site()
        ))?;
    }
    let name = take_on(&mut story, &server, gateway.as_ref(), &console, &mut device).await?;
    match &wish.once {
        Some(Errand::Picture(path)) => {
            watch::shadow_once(scratch, &mut story, &screen, &console, &name, path).await?;
            story.say("All is well.")
        }
        Some(Errand::Toggle) => {
            toggle::there_and_back(&mut story, &console, &device, &name).await?;
            story.say("All is well.")
        }
        None => stay(&mut story, &console, &name, stop).await,
    }
}

async fn gateway<'s, W: Write>(
    scratch: &'s Scratch,
    story: &mut Story<W>,
    console: &Console<'_>,
    island: Option<&Island>,
) -> anyhow::Result<Gateway<'s>> {
    let mut config = GatewayConfig::default();
    if let Some(island) = island {
        config.external = island.site();
    }
    let gateway = Gateway::start(scratch, console, config).await?;
    gateway.wait_until_attached(console, true).await?;
    story.step(&format!(
        "the gateway listens on {} for devices, and the server has dialled it",
        gateway.external()
    ))?;
    Ok(gateway)
}

/// Starts the device and has it taken on; gives its name.
async fn take_on<W: Write>(
    story: &mut Story<W>,
    server: &Server<'_>,
    gateway: Option<&Gateway<'_>>,
    console: &Console<'_>,
    device: &mut Device<'_>,
) -> anyhow::Result<String> {
    device.start()?;
    device.wait_until_up().await?;
    story.step(&format!(
        "the device has made its identity: {}",
        device.certificate().display()
    ))?;
    let key = console.one_time_key().await?;
    let address = gateway.map_or(server.address_for_devices(), Gateway::external);
    device.enrol_at(address, server.fingerprint(), &key).await?;
    let status = device.wait_for_stage("online").await?;
    let name = status
        .pointer("/identity/unit_id")
        .and_then(Value::as_str)
        .context("the device has no name")?
        .to_owned();
    let way = match gateway {
        Some(_) => "through the gateway, which saw nothing but TLS between the two",
        None => "directly",
    };
    story.step(&format!(
        "the device {name} was taken on with a one-time key, and is online {way}"
    ))?;
    if gateway.is_none() {
        let port = device.shadow_address().await?.port();
        story.step(&format!(
            "the device accepts shadowing on port {port}, and nothing but TLS"
        ))?;
    }
    Ok(name)
}

async fn stay<W: Write>(
    story: &mut Story<W>,
    console: &Console<'_>,
    device: &str,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let umbra = product("umbra")?;
    let typed = format!(
        "{} --config {}",
        umbra.display(),
        console.config().display()
    );
    story.say(&format!(
        "\nShadow it from another terminal:\n\n  {typed} shadow {device} --reason demo\n\nor with a viewer of your own:\n\n  \
         {typed} shadow {device} --reason demo --listen 127.0.0.1:5901\n  vncviewer 127.0.0.1::5901\n\nand look around:\n\n  \
         {typed} devices\n  {typed} gateways list\n  {typed} sessions\n\nCtrl-C ends everything and removes the folder."
    ))?;
    stop.await;
    story.say("\nEverything is stopped.")
}
