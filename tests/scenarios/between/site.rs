//! What the scenarios of this folder stand on: a server, a console, and a gateway that may have something in front of it; and
//! devices that go through gateways only.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Output;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::desktop::Desktop;
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::front::{Conversation, Front, WsRelay, nginx, snippet};
use umbra_tests::netns::Island;
use umbra_tests::scratch::Scratch;
use umbra_tests::world::{
    Console, Device, DeviceConfig, Gateway, GatewayConfig, PATIENCE, Server, ServerConfig, desktop,
};

/// The gateway's name in the documentation, which scenarios keep.
pub(super) const HOST: &str = "gateway.example.com";
/// Where TLS is taken off, in the documentation and here.
pub(super) const PLAINTEXT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8080);

/// An installation with a gateway.
pub(super) struct Site<'s> {
    scratch: &'s Scratch,
    pub(super) desktop: Desktop,
    pub(super) server: Server<'s>,
    pub(super) console: Console<'s>,
    pub(super) gateway: Gateway<'s>,
}

impl<'s> Site<'s> {
    /// Starts it, with the gateway attached.
    pub(super) async fn start(scratch: &'s Scratch, config: GatewayConfig) -> anyhow::Result<Self> {
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

    /// With a gateway that is known by [`HOST`].
    pub(super) async fn named(scratch: &'s Scratch) -> anyhow::Result<Self> {
        let config = GatewayConfig {
            hosts: vec![HOST.into()],
            ..GatewayConfig::default()
        };
        let site = Self::start(scratch, config).await?;
        site.set_gateway("--external", &site.by_name()).await?;
        Ok(site)
    }

    /// [`HOST`] with the gateway's own port.
    pub(super) fn by_name(&self) -> String {
        format!("{HOST}:{}", self.gateway.internal().port())
    }

    /// Changes where the gateway is reached.
    pub(super) async fn set_gateway(&self, what: &str, address: &str) -> anyhow::Result<()> {
        let set = ["gateways", "set", self.gateway.name(), what, address];
        self.console.tell(&set, "").await?;
        Ok(())
    }

    /// Changes where the server reaches the gateway, and waits until its uplink goes there.
    pub(super) async fn move_uplink(&mut self, address: &str) -> anyhow::Result<()> {
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
    pub(super) fn device_config(&self) -> DeviceConfig {
        let mut config = DeviceConfig::with_desktop(&self.desktop);
        config
            .set("system.remotemanager.enable_icg", "true")
            .set_text("system.remotemanager.connectorranking", "icg");
        config
    }

    /// A device that runs and is enrolled nowhere; `number` tells devices apart.
    pub(super) async fn new_device(
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
    pub(super) async fn enrol(&self, device: &Device<'_>, at: &str) -> anyhow::Result<Output> {
        let key = self.console.one_time_key().await?;
        let words = ["enroll", "--address", at, "--fingerprint"];
        let rest = [self.server.fingerprint(), "--key-file", "-"];
        Ok(device
            .output(&[&words[..], &rest[..]].concat(), &key)
            .await?)
    }

    /// Has a device taken on at an address, waits until it is online, and gives its name.
    pub(super) async fn take_on(&self, device: &Device<'_>, at: &str) -> anyhow::Result<String> {
        let output = self.enrol(device, at).await?;
        ensure!(output.status.success(), "{}", said(&output));
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        self.wait_for_way(&name, self.gateway.name()).await?;
        Ok(name)
    }

    /// Waits until the server has the device online behind a gateway; gives what it says of the device.
    pub(super) async fn wait_for_way(&self, name: &str, gateway: &str) -> anyhow::Result<Value> {
        let probe = || async {
            let shown = self.shown(name).await.map_err(|error| error.to_string())?;
            let online = shown.get("online").and_then(Value::as_bool) == Some(true);
            let way = shown.get("gateway").and_then(Value::as_str);
            if online && way == Some(gateway) {
                Ok(shown)
            } else {
                Err(shown.to_string())
            }
        };
        let what = format!("{name} to be online behind {gateway}");
        Ok(eventually(&what, PATIENCE, probe).await?)
    }

    /// What the server says of a device.
    pub(super) async fn shown(&self, name: &str) -> anyhow::Result<Value> {
        let shown = self.console.tell(&["devices", "show", name], "").await;
        shown.with_context(|| format!("the device {name}"))
    }

    /// Sends a message to the person at the device, which has to arrive.
    pub(super) async fn send_message(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let command = ["devices", "command", "--wait", name, "message", text];
        let answer = self.console.tell(&command, "").await?;
        ensure!(
            answer.get("state").and_then(Value::as_str) == Some("done"),
            "{answer}"
        );
        Ok(())
    }

    /// Shadows the device, types a text into its screen, sees the screen, and ends the session.
    pub(super) async fn see_and_operate(&self, name: &str, text: &str) -> anyhow::Result<()> {
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

/// A site whose gateway is reached through an nginx that takes TLS off, by devices, server and console alike. Between nginx
/// and the gateway stands a relay that sees what the gateway sees.
pub(super) struct Offloaded<'s> {
    pub(super) site: Site<'s>,
    pub(super) relay: WsRelay,
    /// Where nginx is.
    pub(super) front: SocketAddr,
    _nginx: Front,
}

impl<'s> Offloaded<'s> {
    /// Starts it, with nginx at port 443 of `at`.
    pub(super) async fn start(scratch: &'s Scratch, at: Ipv4Addr) -> anyhow::Result<Self> {
        let front = SocketAddr::from((at, 443));
        let plaintext = SocketAddr::from(PLAINTEXT);
        let config = GatewayConfig {
            front: Some(front),
            arguments: [
                "--listen-plaintext",
                &plaintext.to_string(),
                "--plaintext-from",
                "127.0.0.1",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..GatewayConfig::default()
        };
        let mut site = Site::start(scratch, config).await?;
        let relay = WsRelay::start(plaintext).await?;
        let keystore = site.gateway.keystore().display().to_string();
        let conf = snippet("nginx-offload")?
            .with("/etc/nginx/umbra", &keystore)?
            .with("127.0.0.1:8080", &relay.address().to_string())?;
        let nginx = nginx(scratch, "nginx", conf.text(), front).await?;
        site.move_uplink(&front.to_string()).await?;
        let came = |one: &Conversation| one.path == "/usg/uplink" && one.open;
        ensure!(
            relay.conversations().iter().any(came),
            "the uplink does not go through nginx"
        );
        Ok(Self {
            site,
            relay,
            front,
            _nginx: nginx,
        })
    }
}

/// Waits until a device says that it is not online for this reason, and gives what it says.
pub(super) async fn wait_for_code(device: &Device<'_>, code: &str) -> anyhow::Result<Value> {
    let probe = || async {
        let status = device.status().await.map_err(|error| error.to_string())?;
        let is =
            |name: &str, wanted: &str| status.get(name).and_then(Value::as_str) == Some(wanted);
        if is("code", code) && !is("stage", "online") {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    };
    let status = eventually(&format!("the code {code}"), PATIENCE, probe).await?;
    let cause = status
        .get("cause")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // A sentence for a person: words, and nothing of the program's inside.
    ensure!(cause.contains(' ') && !cause.contains("Error"), "{status}");
    Ok(status)
}

/// The sentence of a status.
pub(super) fn cause(status: &Value) -> String {
    crate::enrolment::text(status, "/cause")
}

/// How a program ended and what it said.
pub(super) fn said(output: &Output) -> String {
    crate::enrolment::said(output)
}
