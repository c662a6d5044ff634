//! An operator's console: the program `umbra` with a configuration of its own in the scenario's folder, and the
//! shadowing sessions that it opens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use serde_json::Value;

use super::{PATIENCE, Server, WorldError};
use crate::eventually::eventually;
use crate::program::{Program, product, run};
use crate::rfb_client::{Options, RfbClient, RfbError};
use crate::scratch::Scratch;

/// A program ended with a failure.
#[derive(Debug, thiserror::Error)]
#[error("{command} ended with {status}: {said}")]
pub struct Refused {
    /// What was typed.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it said to the person.
    pub said: String,
}

impl Refused {
    pub(super) fn unless_success(
        program: &str,
        arguments: &[&str],
        output: &Output,
    ) -> Result<(), Refused> {
        if output.status.success() {
            return Ok(());
        }
        Err(Refused {
            command: format!("{program} {}", arguments.join(" ")),
            status: output.status,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// A console.
pub struct Console<'s> {
    scratch: &'s Scratch,
    name: String,
    config: PathBuf,
    environment: Vec<(String, String)>,
}

impl<'s> Console<'s> {
    /// A console of which nobody is logged in.
    pub fn new(scratch: &'s Scratch, name: &str) -> Self {
        Self {
            scratch,
            name: name.to_owned(),
            config: scratch.path(&format!("{name}.json")),
            environment: Vec::new(),
        }
    }

    /// The first administrator's console, logged in.
    pub async fn administrator(
        scratch: &'s Scratch,
        server: &Server<'_>,
    ) -> Result<Self, WorldError> {
        let console = Self::new(scratch, "console");
        console
            .log_in(server, "admin", &server.password_file())
            .await?;
        Ok(console)
    }

    /// Logs in, with the server's fingerprint given.
    pub async fn log_in(
        &self,
        server: &Server<'_>,
        user: &str,
        password: &Path,
    ) -> Result<(), WorldError> {
        let (address, password) = (server.address().to_string(), password.display().to_string());
        let fingerprint = ["--fingerprint", server.fingerprint()];
        let arguments = [
            "login",
            &address,
            "--user",
            user,
            "--password-file",
            &password,
        ];
        self.tell(&[&arguments[..], &fingerprint[..]].concat(), "")
            .await
            .map(drop)
    }

    /// The file in which it keeps servers and log-ins.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Sets an environment variable for all its commands from now on.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, WorldError> {
        let mut command = Command::new(product("umbra")?);
        command
            .args(["--json", "--config"])
            .arg(&self.config)
            .args(arguments);
        command
            .env_remove("UMBRA_CONFIG")
            .env("HOME", self.scratch.root())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Runs a command, whatever it ends with.
    pub async fn output(&self, arguments: &[&str], input: &str) -> Result<Output, WorldError> {
        let mut command = self.command(arguments)?;
        Ok(run(
            self.scratch,
            &self.name,
            &mut command,
            input.as_bytes(),
            PATIENCE,
        )
        .await?)
    }

    /// Runs a command that must succeed, and gives its JSON document.
    pub async fn tell(&self, arguments: &[&str], input: &str) -> Result<Value, WorldError> {
        let output = self.output(arguments, input).await?;
        Refused::unless_success("umbra", arguments, &output)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&said).map_err(|_| WorldError::Unexpected {
            program: format!("umbra {}", arguments.join(" ")),
            said,
        })
    }

    /// Waits for a line of the audit log with this action and outcome.
    pub async fn wait_for_audit(&self, action: &str, outcome: &str) -> Result<(), WorldError> {
        let field = |line: &Value, name: &str| {
            line.get(name).and_then(Value::as_str)
                == Some(match name {
                    "action" => action,
                    _ => outcome,
                })
        };
        eventually(
            &format!("{action} with {outcome} in the audit log"),
            PATIENCE,
            || async {
                let audit = self
                    .tell(&["audit"], "")
                    .await
                    .map_err(|error| error.to_string())?;
                let lines = audit.as_array().map(Vec::as_slice).unwrap_or_default();
                if lines
                    .iter()
                    .any(|line| field(line, "action") && field(line, "outcome"))
                {
                    Ok(())
                } else {
                    Err(audit.to_string())
                }
            },
        )
        .await?;
        Ok(())
    }

    /// Makes a key for one device.
    pub async fn one_time_key(&self) -> Result<String, WorldError> {
        let made = self.tell(&["keys", "create"], "").await?;
        // One key or a list of one.
        let key = made
            .pointer("/0/key")
            .or_else(|| made.pointer("/keys/0/key"))
            .or_else(|| made.get("key"));
        let key = key.and_then(Value::as_str).map(str::to_owned);
        key.ok_or_else(|| WorldError::Unexpected {
            program: "umbra keys create".into(),
            said: made.to_string(),
        })
    }

    /// The server's record of a session.
    pub async fn session(&self, id: &str) -> Result<Value, WorldError> {
        self.tell(&["sessions", "show", id], "").await
    }

    /// Waits until the server's record of a session says that it has ended, and gives it.
    pub async fn ended_session(&self, id: &str) -> Result<Value, WorldError> {
        let probe = || async {
            let record = self.session(id).await.map_err(|error| error.to_string())?;
            let ended = record.get("state").and_then(Value::as_str) == Some("ended");
            if ended {
                Ok(record)
            } else {
                Err(record.to_string())
            }
        };
        Ok(eventually("the session's record to be complete", PATIENCE, probe).await?)
    }

    /// Opens a shadowing session and waits until a viewer may connect.
    pub async fn shadow(&self, device: &str, more: &[&str]) -> Result<Shadow, WorldError> {
        let mut shadow = self.begin_shadow(device, more)?;
        shadow.wait_until_open().await?;
        Ok(shadow)
    }

    /// Opens a shadowing session without waiting for it.
    pub fn begin_shadow(&self, device: &str, more: &[&str]) -> Result<Shadow, WorldError> {
        let mut command = self.command(&["shadow", device, "--listen", "127.0.0.1:0"])?;
        let program = Program::start(self.scratch, "umbra-shadow", command.args(more))?;
        Ok(Shadow {
            program,
            address: None,
        })
    }
}

/// A shadowing session that a console has opened; giving it up ends the console's program at once.
pub struct Shadow {
    program: Program,
    address: Option<SocketAddr>,
}

impl Shadow {
    /// Waits until a viewer may connect, and gives where.
    pub async fn wait_until_open(&mut self) -> Result<SocketAddr, WorldError> {
        let event = self.event("listening").await?;
        let address = event
            .get("address")
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok());
        let address: SocketAddr = address.ok_or_else(|| WorldError::Unexpected {
            program: "umbra shadow".into(),
            said: event.to_string(),
        })?;
        self.address = Some(address);
        Ok(address)
    }

    /// Where a viewer connects to; only known once it may.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Connects a measuring viewer.
    pub async fn view(&self) -> Result<RfbClient, RfbError> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        RfbClient::connect(self.address.unwrap_or(nowhere), &Options::default()).await
    }

    /// Waits for the end, and gives what the console says of it.
    pub async fn ended(&mut self) -> Result<Value, WorldError> {
        self.event("ended").await
    }

    /// Waits until the program has ended, and gives its exit status with all that it said.
    pub async fn finished(&mut self) -> Result<(ExitStatus, String), WorldError> {
        let (status, said) = self.program.wait_for_all(PATIENCE).await?;
        Ok((status, said.join("\n")))
    }

    /// The console's process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    async fn event(&mut self, name: &str) -> Result<Value, WorldError> {
        let line = self
            .program
            .wait_for_line(&format!("\"event\":\"{name}\""), PATIENCE)
            .await?;
        serde_json::from_str(&line).map_err(|_| WorldError::Unexpected {
            program: "umbra shadow".into(),
            said: line,
        })
    }
}
