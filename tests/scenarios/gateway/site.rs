//! What the scenarios of this folder stand on: a server, a gateway, an administrator's console and a device that was taken on
//! through the gateway.

use anyhow::Context as _;
use serde_json::Value;
use umbra_tests::desktop::Desktop;
use umbra_tests::eventually::eventually;
use umbra_tests::netns::Island;
use umbra_tests::scratch::Scratch;
use umbra_tests::world::{
    Console, Device, DeviceConfig, Gateway, GatewayConfig, PATIENCE, Server, ServerConfig, desktop,
};

/// An installation with a gateway.
pub(super) struct Site<'s> {
    pub(super) desktop: Desktop,
    pub(super) server: Server<'s>,
    pub(super) console: Console<'s>,
    pub(super) gateway: Gateway<'s>,
}

impl<'s> Site<'s> {
    /// Starts it, with the gateway attached.
    pub(super) async fn start(scratch: &'s Scratch) -> anyhow::Result<Self> {
        Self::start_with(scratch, GatewayConfig::default()).await
    }

    /// The same with a gateway of this kind.
    pub(super) async fn start_with(
        scratch: &'s Scratch,
        config: GatewayConfig,
    ) -> anyhow::Result<Self> {
        let desktop = desktop(scratch).await?;
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let gateway = Gateway::start(scratch, &console, config).await?;
        gateway.wait_until_attached(&console, true).await?;
        Ok(Self {
            desktop,
            server,
            console,
            gateway,
        })
    }

    /// The same with the gateway on the cable to an island.
    pub(super) async fn start_for(scratch: &'s Scratch, island: &Island) -> anyhow::Result<Self> {
        let config = GatewayConfig {
            external: island.site(),
            ..GatewayConfig::default()
        };
        Self::start_with(scratch, config).await
    }

    /// A device that the server has taken on through the gateway, and its name.
    pub(super) async fn device(
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
    pub(super) async fn device_with(
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

    /// Has a running device taken on through the gateway.
    pub(super) async fn take_on(&self, device: &Device<'_>) -> anyhow::Result<()> {
        let key = self.console.one_time_key().await?;
        device
            .enrol_at(self.gateway.external(), self.server.fingerprint(), &key)
            .await?;
        Ok(device.wait_until_online().await?)
    }

    /// Waits until the server has the device online behind this gateway, or directly; gives what it says of the device.
    pub(super) async fn wait_for_way(
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
    pub(super) async fn wait_until_offline(&self, name: &str) -> anyhow::Result<()> {
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
    pub(super) async fn shown(&self, name: &str) -> anyhow::Result<Value> {
        let shown = self.console.tell(&["devices", "show", name], "").await;
        shown.with_context(|| format!("the device {name}"))
    }
}
