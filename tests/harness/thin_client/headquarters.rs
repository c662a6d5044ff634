//! The other end: server, gateway and the administrator's console, as child processes on loopback, told under which address
//! a machine in the emulator reaches them.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::demo::Story;
use crate::machine::HOST;
use crate::program::product;
use crate::scratch::Scratch;
use crate::world::{Console, Gateway, GatewayConfig, Server, ServerConfig};

/// Server, gateway and console.
pub(super) struct Headquarters<'s> {
    pub(super) console: Console<'s>,
    _gateway: Gateway<'s>,
    _server: Server<'s>,
}

impl<'s> Headquarters<'s> {
    pub(super) async fn start<W: Write>(
        scratch: &'s Scratch,
        story: &mut Story<W>,
    ) -> anyhow::Result<Self> {
        let mut server = Server::start(scratch, ServerConfig::default()).await?;
        let outside = |port| SocketAddr::from((HOST, port));
        // Which port it has is known only now.
        let public = outside(server.address().port()).to_string();
        server.set_arguments(&["--public-address", &public]);
        server.start_again().await?;
        let console = Console::administrator(scratch, &server).await?;
        let config = GatewayConfig {
            hosts: vec![HOST.to_string()],
            ..GatewayConfig::default()
        };
        let mut gateway = Gateway::start(scratch, &console, config).await?;
        gateway.put_behind(outside(gateway.internal().port()));
        let external = gateway.external().to_string();
        let set = ["gateways", "set", gateway.name(), "--external", &external];
        console.tell(&set, "").await?;
        gateway.wait_until_attached(&console, true).await?;
        story.step(&format!(
            "server and gateway run here; the machine reaches them at {public} and {external}"
        ))?;
        Ok(Self {
            console,
            _gateway: gateway,
            _server: server,
        })
    }

    /// What a person types in front of a command to this server.
    pub(super) fn typed(&self) -> anyhow::Result<String> {
        let umbra = product("umbra")?;
        let config = self.console.config().display();
        Ok(format!("{} --config {config}", umbra.display()))
    }

    /// Makes a key for one device and writes the credentials into a folder, as an administrator does onto a stick.
    pub(super) async fn credentials(&self, folder: &Path) -> anyhow::Result<()> {
        let file = folder.join("icg.xml").display().to_string();
        let create = ["keys", "create"];
        self.console.tell(&create, "").await?;
        let export = ["keys", "export", "--format", "xml", "--out", &file];
        self.console.tell(&export, "").await?;
        Ok(())
    }

    /// What the server has on file of a device; nothing if it doesn't know it.
    pub(super) async fn device(&self, unit: &str) -> anyhow::Result<Option<Value>> {
        let all = self.console.tell(&["devices"], "").await?;
        let all = all.as_array().context("the list of devices is none")?;
        let mut ours = all
            .iter()
            .filter(|device| device.get("unit_id").and_then(Value::as_str) == Some(unit));
        let found = ours.next().cloned();
        anyhow::ensure!(
            ours.next().is_none(),
            "the server has more than one device {unit}"
        );
        Ok(found)
    }
}
