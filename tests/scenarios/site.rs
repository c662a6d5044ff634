//! What scenarios with a gateway stand on: a server, a gateway that may have something in front of it, an administrator's
//! console, and devices that are taken on through the gateway.

use std::process::Output;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::desktop::Desktop;
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::netns::Island;
use umbra_tests::scratch::Scratch;
use umbra_tests::world::{
    Console, Device, DeviceConfig, Gateway, GatewayConfig, PATIENCE, Server, ServerConfig, desktop,
};

/// The gateway's name in the documentation, which scenarios keep.
pub(crate) const HOST: &str = "gateway.example.com";

/// An installation with a gateway.
pub(crate) struct Site<'s> {
    scratch: &'s Scratch,
    pub(crate) desktop: Desktop,
    pub(crate) server: Server<'s>,
    pub(crate) console: Console<'s>,
    pub(crate) gateway: Gateway<'s>,
}

impl<'s> Site<'s> {
    /// Starts it, with the gateway attached.
    pub(crate) async fn start(scratch: &'s Scratch) -> anyhow::Result<Self> {
        Self::start_with(scratch, GatewayConfig::default()).await
    }

    /// The same with a gateway of this kind.
    pub(crate) async fn start_with(
        scratch: &'s Scratch,
        config: GatewayConfig,
    ) -> anyhow::Result<Self> {
        let desktop = desktop(scratch).await?;
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let gateway = Gateway::start(scratch, &console, config).await?;
        gateway.wait_until_attached(&console, true).await?;
        Ok(Self {
            scratch,
            desktop,
            server,
            console,
            gateway,
        })
    }

    /// The same with the gateway on the cable to an island.
    pub(crate) async fn start_for(scratch: &'s Scratch, island: &Island) -> anyhow::Result<Self> {
        let config = GatewayConfig {
            external: island.site(),
            ..GatewayConfig::default()
        };
        Self::start_with(scratch, config).await
    }

    /// With a gateway that is known by [`HOST`].
    pub(crate) async fn named(scratch: &'s Scratch) -> anyhow::Result<Self> {
        let config = GatewayConfig {
            hosts: vec![HOST.into()],
            ..GatewayConfig::default()
        };
        let site = Self::start_with(scratch, config).await?;
        site.set_gateway("--external", &site.by_name()).await?;
        Ok(site)
    }

    /// [`HOST`] with the gateway's own port.
    pub(crate) fn by_name(&self) -> String {
        format!("{HOST}:{}", self.gateway.internal().port())
    }

    /// Changes where the gateway is reached.
    pub(crate) async fn set_gateway(&self, what: &str, address: &str) -> anyhow::Result<()> {
        let set = ["gateways", "set", self.gateway.name(), what, address];
        self.console.tell(&set, "").await?;
        Ok(())
    }

    /// Changes where the server reaches the gateway, and waits until its uplink goes there.
    pub(crate) async fn move_uplink(&mut self, address: &str) -> anyhow::Result<()> {
        let server = self.server.program();
        let attached = |lines: Vec<String>| {
            let said = |line: &&String| line.contains("attached to a gateway");
            lines.iter().filter(said).count()
        };
        let before = attached(server.lines());
        let set = ["gateways", "set", self.gateway.name(), "--address", address];
        self.console.tell(&set, "").await?;
        eventually_is("the server to attach again", PATIENCE, || {
            match attached(server.lines()) {
                now if now > before => Ok(()),
                same => Err(same),
            }
        })
        .await?;
        Ok(())
    }

    /// What a device is installed with: this screen, and gateways only.
    pub(crate) fn device_config(&self) -> DeviceConfig {
        let mut config = DeviceConfig::with_desktop(&self.desktop);
        config
            .set("system.remotemanager.enable_icg", "true")
            .set_text("system.remotemanager.connectorranking", "icg");
        config
    }

    /// A device that the server has taken on through the gateway, and its name.
    pub(crate) async fn device(
        &self,
        scratch: &'s Scratch,
        island: Option<&Island>,
    ) -> anyhow::Result<(Device<'s>, String)> {
        let mut config = DeviceConfig::with_desktop(&self.desktop);
        // Everything is on one machine: without this, a device whose gateway is gone would go to the server directly.
        config.set_text("system.remotemanager.connectorranking", "icg");
        self.device_with(scratch, island, "device", config).await
    }

    /// The same with parameters of the scenario's own.
    pub(crate) async fn device_with(
        &self,
        scratch: &'s Scratch,
        island: Option<&Island>,
        folder: &str,
        config: DeviceConfig,
    ) -> anyhow::Result<(Device<'s>, String)> {
        let mut device = Device::new(scratch, folder, config)?;
        if let Some(island) = island {
            device.put_on(island);
        }
        device.start()?;
        self.take_on(&device).await?;
        let name = device.unit_id().await?;
        Ok((device, name))
    }

    /// A device that runs and is enrolled nowhere; `number` tells devices apart.
    pub(crate) async fn new_device(
        &self,
        number: u8,
        config: DeviceConfig,
        island: Option<&Island>,
    ) -> anyhow::Result<Device<'s>> {
        let mut device = Device::new(self.scratch, &format!("device-{number}"), config)?;
        let card = format!("00:e0:c5:00:00:{number:02x}");
        crate::enrolment::network_card(device.root(), &card)?;
        if let Some(island) = island {
            device.put_on(island);
        }
        device.start()?;
        device.wait_until_up().await?;
        Ok(device)
    }

    /// Asks a device to be taken on at an address, whatever comes of it.
    pub(crate) async fn enrol(&self, device: &Device<'_>, at: &str) -> anyhow::Result<Output> {
        let key = self.console.one_time_key().await?;
        let words = crate::enrolment::enroll_words(at, self.server.fingerprint());
        Ok(device.output(&words, &key).await?)
    }

    /// Has a running device taken on through the gateway.
    pub(crate) async fn take_on(&self, device: &Device<'_>) -> anyhow::Result<()> {
        let key = self.console.one_time_key().await?;
        device
            .enrol_at(self.gateway.external(), self.server.fingerprint(), &key)
            .await?;
        Ok(device.wait_until_online().await?)
    }

    /// Has a device taken on at an address, waits until it is online, and gives its name.
    pub(crate) async fn take_on_at(&self, device: &Device<'_>, at: &str) -> anyhow::Result<String> {
        let output = self.enrol(device, at).await?;
        ensure!(
            output.status.success(),
            "{}",
            crate::enrolment::said(&output)
        );
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        self.wait_for_way(&name, Some(self.gateway.name())).await?;
        Ok(name)
    }

    /// Waits until the server has the device online behind this gateway, or directly; gives what it says of the device.
    pub(crate) async fn wait_for_way(
        &self,
        name: &str,
        gateway: Option<&str>,
    ) -> anyhow::Result<Value> {
        let what = format!("{name} to be online behind {gateway:?}");
        let probe = || async {
            let shown = self.shown(name).await.map_err(|error| error.to_string())?;
            let online = shown.get("online").and_then(Value::as_bool) == Some(true);
            if online && shown.get("gateway").and_then(Value::as_str) == gateway {
                Ok(shown)
            } else {
                Err(shown.to_string())
            }
        };
        Ok(eventually(&what, PATIENCE, probe).await?)
    }

    /// Waits until the server has the device offline.
    pub(crate) async fn wait_until_offline(&self, name: &str) -> anyhow::Result<()> {
        let probe = || async {
            let shown = self.shown(name).await.map_err(|error| error.to_string())?;
            match shown.get("online").and_then(Value::as_bool) {
                Some(false) => Ok(()),
                _ => Err(shown.to_string()),
            }
        };
        Ok(eventually(&format!("{name} to be offline"), PATIENCE, probe).await?)
    }

    /// What the server says of a device.
    pub(crate) async fn shown(&self, name: &str) -> anyhow::Result<Value> {
        let shown = self.console.tell(&["devices", "show", name], "").await;
        shown.with_context(|| format!("the device {name}"))
    }

    /// Sends a message to the person at the device, which has to arrive.
    pub(crate) async fn send_message(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let command = ["devices", "command", "--wait", name, "message", text];
        let answer = self.console.tell(&command, "").await?;
        ensure!(
            answer.get("state").and_then(Value::as_str) == Some("done"),
            "{answer}"
        );
        Ok(())
    }

    /// Shadows the device, types a text into its screen, sees the screen, and ends the session.
    pub(crate) async fn see_and_operate(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let already = self.desktop.typed();
        let mut shadow = self.console.shadow(name, &["--reason", "a look"]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        viewer.type_text(text).await?;
        let expected = format!("{already}{text}");
        eventually_is("the keys to arrive", SOON, || match self.desktop.typed() {
            typed if typed == expected => Ok(()),
            other => Err(other),
        })
        .await?;
        self.desktop.freeze(true);
        let there = self.desktop.framebuffer();
        ensure!(
            viewer.follow_until(SOON, |seen| *seen == there).await?,
            "{:?}",
            viewer.image().difference(&there, 0)
        );
        self.desktop.freeze(false);
        viewer.leave().await?;
        shadow.ended().await?;
        let (status, said) = shadow.finished().await?;
        ensure!(status.success(), "{status}: {said}");
        Ok(())
    }
}
