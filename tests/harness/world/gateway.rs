//! A gateway as a child process: made known to the server by the administrator's console, which also makes its keystore,
//! and started with that keystore on a port that it chose itself and keeps when it is started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Console, PATIENCE, WorldError};
use crate::eventually::eventually;
use crate::program::{Program, product};
use crate::scratch::Scratch;

/// How a gateway is set up.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Its name.
    pub name: String,
    /// The address under which devices reach it; loopback if nothing else is said.
    pub external: Ipv4Addr,
    /// Where devices reach it, if something stands in front of it.
    pub front: Option<SocketAddr>,
    /// More names for its certificate.
    pub hosts: Vec<String>,
    /// The company's own chain, where the server makes none.
    pub chain: Option<OwnChain>,
    /// More arguments for the program.
    pub arguments: Vec<String>,
}

/// A chain that somebody else's authority made, as PEM files.
#[derive(Debug, Clone)]
pub struct OwnChain {
    /// The gateway's certificate and what is above it.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The root that servers, consoles and devices are told of.
    pub root: PathBuf,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            name: "icg".into(),
            external: Ipv4Addr::LOCALHOST,
            front: None,
            hosts: Vec::new(),
            chain: None,
            arguments: Vec::new(),
        }
    }
}

/// A gateway.
pub struct Gateway<'s> {
    scratch: &'s Scratch,
    config: GatewayConfig,
    keystore: PathBuf,
    port: u16,
    metrics: SocketAddr,
    environment: Vec<(String, String)>,
    program: Program,
}

impl<'s> Gateway<'s> {
    /// Makes a gateway known to the server and starts it.
    pub async fn start(
        scratch: &'s Scratch,
        console: &Console<'_>,
        config: GatewayConfig,
    ) -> Result<Self, WorldError> {
        let keystore = scratch.path(&format!("{}-keystore", config.name));
        let folder = keystore.display().to_string();
        // Certificates name hosts and no ports: so it can be made before the gateway has chosen one.
        let internal = Ipv4Addr::LOCALHOST.to_string();
        let host = config.front.map(|front| front.ip().to_string());
        let external = host.unwrap_or_else(|| config.external.to_string());
        let mut hosts = vec!["--address", &internal, "--external", &external];
        for host in &config.hosts {
            hosts.extend(["--host", host]);
        }
        let root = config
            .chain
            .as_ref()
            .map(|own| own.root.display().to_string());
        if let Some(root) = &root {
            hosts.extend(["--root", root]);
        }
        let create = ["gateways", "create", &config.name, "--out", &folder];
        console
            .tell(&[&create[..], &hosts[..]].concat(), "")
            .await?;
        if let Some(own) = &config.chain {
            for (from, name) in [(&own.chain, "chain.pem"), (&own.key, "key.pem")] {
                std::fs::copy(from, keystore.join(name))
                    .map_err(WorldError::file("the gateway's own chain cannot be copied"))?;
            }
        }
        let started = launch(scratch, &config, &keystore, 0, &[]).await?;
        let gateway = Self {
            scratch,
            config,
            keystore,
            port: started.port,
            metrics: started.metrics,
            environment: Vec::new(),
            program: started.program,
        };
        let (internal, external) = (
            gateway.internal().to_string(),
            gateway.external().to_string(),
        );
        let hosts = ["--address", &internal, "--external", &external];
        let set = ["gateways", "set", gateway.name()];
        console.tell(&[&set[..], &hosts[..]].concat(), "").await?;
        Ok(gateway)
    }

    /// Makes a running gateway known to a second server, as the administrator of that one would: with the root of its chain,
    /// and with that server's uplink certificate behind the others.
    pub async fn serve_also(
        &mut self,
        console: &Console<'_>,
        root: &Path,
    ) -> Result<(), WorldError> {
        let folder = self
            .scratch
            .path(&format!("{}-for-another", self.config.name));
        let (internal, external) = (self.internal().to_string(), self.external().to_string());
        let (root, out) = (root.display().to_string(), folder.display().to_string());
        let create = [
            "gateways",
            "create",
            self.name(),
            "--root",
            &root,
            "--out",
            &out,
        ];
        let hosts = ["--address", &internal, "--external", &external];
        console
            .tell(&[&create[..], &hosts[..]].concat(), "")
            .await?;
        let doing = "the second server's uplink certificate cannot be added";
        let own = self.keystore.join("servers.pem");
        let mut servers = std::fs::read_to_string(&own).map_err(WorldError::file(doing))?;
        let more = std::fs::read_to_string(folder.join("servers.pem"));
        servers.push_str(&more.map_err(WorldError::file(doing))?);
        std::fs::write(&own, servers).map_err(WorldError::file(doing))
    }

    /// Starts it again where it was, after it ended or was killed.
    pub async fn start_again(&mut self) -> Result<(), WorldError> {
        self.program.kill();
        let started = launch(
            self.scratch,
            &self.config,
            &self.keystore,
            self.port,
            &self.environment,
        )
        .await?;
        (self.program, self.metrics) = (started.program, started.metrics);
        Ok(())
    }

    /// Sets an environment variable for its next start.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// From now on devices are told to reach it here: something stands in front of it.
    pub fn put_behind(&mut self, front: SocketAddr) {
        self.config.front = Some(front);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Where the server and consoles reach it.
    pub fn internal(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Where devices reach it.
    pub fn external(&self) -> SocketAddr {
        self.config
            .front
            .unwrap_or(SocketAddr::from((self.config.external, self.port)))
    }

    /// Where its metrics are.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// The folder with its chain, its key and the servers that it lets in.
    pub fn keystore(&self) -> &Path {
        &self.keystore
    }

    /// Its process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Waits until the server says that its uplink to this gateway stands, or does not stand.
    pub async fn wait_until_attached(
        &self,
        console: &Console<'_>,
        attached: bool,
    ) -> Result<Value, WorldError> {
        let what = format!("{} to be attached: {attached}", self.config.name);
        let probe = || async {
            let shown = console
                .tell(&["gateways", "show", &self.config.name], "")
                .await
                .map_err(|error| error.to_string())?;
            if shown.get("attached").and_then(Value::as_bool) == Some(attached) {
                Ok(shown)
            } else {
                Err(shown.to_string())
            }
        };
        Ok(eventually(&what, PATIENCE, probe).await?)
    }
}

/// A gateway that says that it is ready.
struct Started {
    program: Program,
    port: u16,
    metrics: SocketAddr,
}

async fn launch(
    scratch: &Scratch,
    config: &GatewayConfig,
    keystore: &Path,
    port: u16,
    environment: &[(String, String)],
) -> Result<Started, WorldError> {
    let mut command = Command::new(product("umbra-gateway")?);
    let listen = if config.external.is_loopback() {
        Ipv4Addr::LOCALHOST
    } else {
        // The networks are the scenario's own.
        Ipv4Addr::UNSPECIFIED
    };
    command
        .arg("run")
        .arg("--keystore")
        .arg(keystore)
        .args(["--listen", &SocketAddr::from((listen, port)).to_string()])
        .args(["--metrics-listen", "127.0.0.1:0"])
        .args(&config.arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    let name = format!("umbra-gateway-{}", config.name);
    let mut program = Program::start(scratch, &name, &mut command)?;
    let line = program
        .wait_for_line("listening address=", PATIENCE)
        .await?;
    let named = |name: &str| -> Option<SocketAddr> {
        line.split(name)
            .nth(1)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    match (named("address="), named("metrics=")) {
        (Some(address), Some(metrics)) => Ok(Started {
            program,
            port: address.port(),
            metrics,
        }),
        _ => Err(WorldError::Unexpected {
            program: "umbra-gateway".into(),
            said: line,
        }),
    }
}
