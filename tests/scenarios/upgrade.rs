//! The agent is replaced while it works, as a package's upgrade does it: the file first, then a restart. The port is held by
//! somebody else meanwhile, as `umbra-agent.socket` has systemd hold it.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use umbra_tests::program::{Program, product_words};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::tunnel;
use umbra_tests::units::{unit, value};
use umbra_tests::world::{Device, DeviceConfig, PATIENCE, desktop};

use crate::enrolment::{readable, site, text};

/// What holds the port and starts the agent with it.
struct Manager<'s> {
    scratch: &'s Scratch,
    port: TcpListener,
    /// Where the agent is installed.
    installed: PathBuf,
}

impl<'s> Manager<'s> {
    fn new(scratch: &'s Scratch) -> anyhow::Result<Self> {
        let manager = Self {
            scratch,
            port: TcpListener::bind("127.0.0.1:0")?,
            installed: scratch.folder("usr-bin")?.join("umbra-agent"),
        };
        manager.install()?;
        Ok(manager)
    }

    fn address(&self) -> std::io::Result<SocketAddr> {
        self.port.local_addr()
    }

    /// Lays the program down as dpkg does: beside the old one, and then under its name.
    fn install(&self) -> anyhow::Result<()> {
        let words = product_words("umbra-agent")?;
        let beside = self.installed.with_extension("dpkg-new");
        std::fs::copy(words.last().context("no agent")?, &beside)?;
        Ok(std::fs::rename(&beside, &self.installed)?)
    }

    /// Starts the agent with the port as the third of its open files, as systemd does.
    fn start(&self, root: &Path) -> anyhow::Result<Program> {
        let mut words = product_words("umbra-agent")?;
        words.pop();
        let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 </dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(words);
        command
            .arg(&self.installed)
            .arg("--root")
            .arg(root)
            .arg("run");
        let port = OwnedFd::from(self.port.try_clone()?);
        let agent = Program::start_with_input(self.scratch, "agent", &mut command, port.into())?;
        Ok(agent)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_ends_a_session_with_a_word_and_whoever_calls_meanwhile_is_served_afterwards() {
    scenario(async |scratch| {
        let screen = desktop(scratch).await?;
        let (server, console) = site(scratch).await?;
        let manager = Manager::new(scratch)?;
        let address = manager.address()?;
        let mut config = DeviceConfig::with_desktop(&screen);
        config.set("network.vncserver.port", &address.port().to_string());
        let device = Device::new(scratch, "device", config)?;
        let mut agent = manager.start(device.root())?;
        device
            .enrol(&server, &console.one_time_key().await?)
            .await?;
        let before = device.wait_for_stage("online").await?;
        ensure!(before["shadow_port"] == address.port(), "{before}");
        ensure!(before["warnings"] == serde_json::json!({}), "{before}");
        let name = device.unit_id().await?;

        let mut shadow = console.shadow(&name, &[]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        manager.install()?;
        // A file that is replaced is no reason to stop.
        viewer.type_text("still here").await?;
        viewer.refresh().await?;
        ensure!(agent.exited().is_none());

        let status = agent.terminate(PATIENCE).await?;
        ensure!(status.success(), "the agent ended with {status}");
        viewer.until_closed().await?;
        let ended = shadow.ended().await?;
        let sentence = text(&ended, "/sentence");
        readable(&sentence)?;
        ensure!(sentence.contains("being restarted"), "{ended}");
        let record = console.ended_session(&text(&ended, "/session")).await?;
        ensure!(
            text(&record, "/end_code") == "ended_by_shutdown",
            "{record}"
        );

        // While there is no agent, the port is nobody else's, and who calls is in line.
        let taken = TcpListener::bind(address).map(drop);
        let taken = taken.err().context("somebody else got the port")?;
        ensure!(taken.kind() == std::io::ErrorKind::AddrInUse, "{taken}");
        let waiting = tokio::net::TcpStream::connect(address).await?;

        let _agent = manager.start(device.root())?;
        let mut tunnel = tunnel::over(Box::new(waiting), address.ip(), PATIENCE).await?;
        let own = CertificateDer::from_pem_file(device.certificate())?;
        ensure!(tunnel.certificate() == Some(&own), "somebody else answers");
        tunnel.say(b"nonsense\n").await?;
        let after = device.wait_for_stage("online").await?;
        ensure!(after["identity"] == before["identity"], "{after}");
        ensure!(after["shadow_port"] == address.port(), "{after}");
        let shadow = console.shadow(&name, &[]).await?;
        shadow.view().await?.refresh().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_systemd_holds_beside_the_one_that_is_configured_is_told_and_not_used() {
    scenario(async |scratch| {
        // The unit's port is the default's, so that both agree unless somebody changes one of them.
        let socket = unit("umbra-agent.socket")?;
        let device = Device::new(scratch, "device", DeviceConfig::default())?;
        let get = ["registry", "get", "network.vncserver.port", "--json"];
        let fresh = Device::new(scratch, "fresh", DeviceConfig::default())?;
        std::fs::remove_file(fresh.root().join("usr/lib/umbra/registry.toml"))?;
        let default: serde_json::Value = serde_json::from_str(&fresh.tell(&get, "").await?)?;
        let listens = value(&socket, "ListenStream").context("no port")?;
        ensure!(
            default[0]["value"] == listens.parse::<u16>()?,
            "{default} {listens}"
        );

        let manager = Manager::new(scratch)?;
        let _agent = manager.start(device.root())?;
        let own = device.shadow_address().await?;
        ensure!(own.port() != manager.address()?.port(), "{own}");
        let status = device.status().await?;
        let warning = text(&status, "/warnings/shadow_port");
        ensure!(warning.contains("network.vncserver.port"), "{status}");
        readable(&warning)?;
        Ok(())
    })
    .await;
}
