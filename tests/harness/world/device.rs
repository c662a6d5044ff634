//! A device in a folder: the agent as a child process with everything that it keeps below a root of its own, so that
//! many devices fit on one machine and a power cut is a SIGKILL.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::{PATIENCE, Refused, Server, WorldError};
use crate::desktop::{Desktop, Listen};
use crate::eventually::eventually;
use crate::netns::{Island, prefixed};
use crate::program::{Program, product_command, run};
use crate::scratch::Scratch;

/// What the image maker decided for a device: parameters with their values as TOML.
#[derive(Debug, Clone)]
pub struct DeviceConfig(BTreeMap<String, String>);

impl Default for DeviceConfig {
    /// Shadowing on, on a free port of loopback, and nobody is asked.
    fn default() -> Self {
        let mut config = Self(BTreeMap::new());
        config.set("network.vncserver.enabled", "true");
        config.set("network.vncserver.port", "0");
        config.set("network.vncserver.promptuser", "false");
        config.set("umbra.vncserver.listen", "[\"127.0.0.1\"]");
        config.set("system.remotemanager.reconnect_interval", "2");
        config
    }
}

impl DeviceConfig {
    /// A device whose screen is the built-in desktop.
    pub fn with_desktop(desktop: &Desktop) -> Self {
        let mut config = Self::default();
        if let Some(listen) = desktop.address() {
            let upstream = match listen {
                Listen::Tcp(address) => format!("tcp:{address}"),
                Listen::Unix(path) => format!("unix:{}", path.display()),
            };
            config.set_text("umbra.vncserver.upstream", &upstream);
        }
        config
    }

    /// A device that starts a VNC server for each session.
    pub fn with_command(command: &[String], environment: &[String]) -> Self {
        let list = |items: &[String]| serde_json::to_string(items).unwrap_or_default();
        let mut config = Self::default();
        config.set_text("umbra.vncserver.upstream", "spawn");
        config.set("umbra.vncserver.command", &list(command));
        config.set("umbra.vncserver.environment", &list(environment));
        config
    }

    /// Sets a parameter to a value as TOML writes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets a parameter to a text.
    pub fn set_text(&mut self, name: &str, text: &str) -> &mut Self {
        // JSON's strings are TOML's basic strings.
        self.set(name, &Value::from(text).to_string())
    }

    fn to_toml(&self) -> String {
        self.0
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect()
    }
}

/// Gives a device's root a network adapter with this address, as the kernel describes one.
pub fn network_card(root: &Path, address: &str) -> std::io::Result<()> {
    let folder = root.join("sys/class/net/eth0");
    std::fs::create_dir_all(folder.join("device"))?;
    for (file, content) in [
        ("address", address),
        ("type", "1"),
        ("addr_assign_type", "0"),
    ] {
        std::fs::write(folder.join(file), format!("{content}\n"))?;
    }
    std::os::unix::fs::symlink("../../../../bus/pci", folder.join("device/subsystem"))
}

/// A device.
pub struct Device<'s> {
    scratch: &'s Scratch,
    name: String,
    root: PathBuf,
    program: Option<Program>,
    environment: Vec<(String, String)>,
    /// The words that run a program in the device's network.
    prefix: Vec<String>,
}

impl<'s> Device<'s> {
    /// Makes the root of a device, as an image would be installed; nothing runs yet.
    pub fn new(scratch: &'s Scratch, name: &str, config: DeviceConfig) -> Result<Self, WorldError> {
        let root = scratch
            .folder(name)
            .map_err(WorldError::file("the device's root cannot be made"))?;
        let device = Self {
            scratch,
            name: name.to_owned(),
            root,
            program: None,
            environment: Vec::new(),
            prefix: Vec::new(),
        };
        device.install(&config)?;
        Ok(device)
    }

    /// Writes the image maker's parameters; the agent reads them when it starts.
    pub fn install(&self, config: &DeviceConfig) -> Result<(), WorldError> {
        let folder = self.root.join("usr/lib/umbra");
        let doing = "the image maker's parameters cannot be written";
        std::fs::create_dir_all(&folder).map_err(WorldError::file(doing))?;
        std::fs::write(folder.join("registry.toml"), config.to_toml())
            .map_err(WorldError::file(doing))
    }

    /// Sets an environment variable for the agent's next start.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Puts the device on an island, before it is started for the first time.
    pub fn put_on(&mut self, island: &Island) {
        self.prefix = island.prefix();
    }

    /// The device's root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The device's certificate, once it has one.
    pub fn certificate(&self) -> PathBuf {
        self.root.join("wfs/ca-certs/tc_ca.crt")
    }

    /// Starts the agent.
    pub fn start(&mut self) -> Result<(), WorldError> {
        let mut command = self.command(&["run"])?;
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.program = Some(Program::start(
            self.scratch,
            &format!("{}-agent", self.name),
            &mut command,
        )?);
        Ok(())
    }

    /// Ends the agent in the middle of whatever it does, as a power cut would, and starts it again.
    pub fn restart_hard(&mut self) -> Result<(), WorldError> {
        self.kill();
        self.start()
    }

    /// Ends the agent in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// The agent's process, while it runs.
    pub fn program(&mut self) -> Option<&mut Program> {
        self.program.as_mut()
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, WorldError> {
        let mut command = product_command("umbra-agent")?;
        command.arg("--root").arg(&self.root).args(arguments);
        Ok(prefixed(&self.prefix, &command))
    }

    /// Runs a subcommand of the agent, whatever it ends with.
    pub async fn output(&self, arguments: &[&str], input: &str) -> Result<Output, WorldError> {
        let name = format!("{}-cli", self.name);
        Ok(run(
            self.scratch,
            &name,
            &mut self.command(arguments)?,
            input.as_bytes(),
            PATIENCE,
        )
        .await?)
    }

    /// Runs a subcommand that must succeed, and gives what it said.
    pub async fn tell(&self, arguments: &[&str], input: &str) -> Result<String, WorldError> {
        let output = self.output(arguments, input).await?;
        Refused::unless_success("umbra-agent", arguments, &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until the agent answers on its local socket.
    pub async fn wait_until_up(&self) -> Result<(), WorldError> {
        let what = format!("{} to answer on its socket", self.name);
        let probe = || async {
            self.status()
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        };
        Ok(eventually(&what, PATIENCE, probe).await?)
    }

    /// Has the agent be taken on by a server; the key goes through standard input.
    pub async fn enrol(&self, server: &Server<'_>, key: &str) -> Result<(), WorldError> {
        self.enrol_at(server.address_for_devices(), server.fingerprint(), key)
            .await
    }

    /// The same with everything named, right or wrong.
    pub async fn enrol_at(
        &self,
        address: SocketAddr,
        fingerprint: &str,
        key: &str,
    ) -> Result<(), WorldError> {
        self.wait_until_up().await?;
        let address = address.to_string();
        let arguments = [
            "enroll",
            "--address",
            &address,
            "--fingerprint",
            fingerprint,
            "--key-file",
            "-",
        ];
        self.tell(&arguments, key).await.map(drop)
    }

    /// What the agent says of itself.
    pub async fn status(&self) -> Result<Value, WorldError> {
        let said = self.tell(&["status", "--json"], "").await?;
        serde_json::from_str(&said).map_err(|_| WorldError::Unexpected {
            program: "umbra-agent status".into(),
            said,
        })
    }

    /// The label on the device.
    pub async fn unit_id(&self) -> Result<String, WorldError> {
        let status = self.status().await?;
        let name = status
            .pointer("/identity/unit_id")
            .and_then(Value::as_str)
            .map(str::to_owned);
        name.ok_or_else(|| WorldError::Unexpected {
            program: "umbra-agent status".into(),
            said: status.to_string(),
        })
    }

    /// Waits until the agent is at a stage (`online`, `waiting`, `refused`…), and gives the status.
    pub async fn wait_for_stage(&self, stage: &str) -> Result<Value, WorldError> {
        let what = format!("{} to be {stage}", self.name);
        let probe = || async {
            let status = self.status().await.map_err(|error| error.to_string())?;
            if status.get("stage").and_then(Value::as_str) == Some(stage) {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        };
        Ok(eventually(&what, PATIENCE, probe).await?)
    }

    /// Waits until the device has been welcomed by its server.
    pub async fn wait_until_online(&self) -> Result<(), WorldError> {
        self.wait_for_stage("online").await.map(drop)
    }

    /// Where shadowing is accepted, once it is.
    pub async fn shadow_address(&self) -> Result<SocketAddr, WorldError> {
        let what = format!("{} to accept shadowing", self.name);
        let probe = || async {
            let status = self.status().await.map_err(|error| error.to_string())?;
            let port = status
                .get("shadow_port")
                .and_then(Value::as_u64)
                .and_then(|port| u16::try_from(port).ok());
            port.ok_or_else(|| status.to_string())
        };
        let port = eventually(&what, PATIENCE, probe).await?;
        Ok(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Sets a parameter on the running device.
    pub async fn set(&self, name: &str, value: &str) -> Result<(), WorldError> {
        self.tell(&["registry", "set", name, value], "")
            .await
            .map(drop)
    }
}
