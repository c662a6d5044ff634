//! The management server as a child process, with its state in the scenario's folder and a port that it chose itself and
//! keeps when it is started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PATIENCE, WorldError};
use crate::program::{Program, product, run};
use crate::scratch::Scratch;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Its name among the scenario's servers, and of its folder.
    pub name: String,
    /// Seconds between two heartbeats of a device.
    pub heartbeat: u32,
    /// Where devices are told to reach it, if not where it listens: a relay in front of it.
    pub public: Option<SocketAddr>,
    /// More arguments for the program.
    pub arguments: Vec<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            name: "server".into(),
            heartbeat: 2,
            public: None,
            arguments: Vec::new(),
        }
    }
}

/// A server.
pub struct Server<'s> {
    scratch: &'s Scratch,
    state: PathBuf,
    config: ServerConfig,
    address: SocketAddr,
    fingerprint: String,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    program: Program,
}

impl<'s> Server<'s> {
    /// Starts a server on a free port, for the first time.
    pub async fn start(scratch: &'s Scratch, config: ServerConfig) -> Result<Self, WorldError> {
        Self::start_under(scratch, config, Vec::new()).await
    }

    /// The same with its program run by another one: `nsenter` and its arguments.
    pub async fn start_under(
        scratch: &'s Scratch,
        config: ServerConfig,
        wrapper: Vec<String>,
    ) -> Result<Self, WorldError> {
        let state = scratch.path(&config.name);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let launch = Launch {
            scratch,
            state: &state,
            config: &config,
            environment: &[],
            wrapper: &wrapper,
        };
        let (program, address) = launch.start(any, true).await?;
        let mut command = under(&wrapper)?;
        command.arg("fingerprint").arg("--state").arg(&state);
        let output = run(
            scratch,
            "umbra-server-fingerprint",
            &mut command,
            b"",
            PATIENCE,
        )
        .await?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let fingerprint = fingerprint_of(&said).ok_or_else(|| WorldError::Unexpected {
            program: "umbra-server fingerprint".into(),
            said,
        })?;
        Ok(Self {
            scratch,
            state,
            config,
            address,
            fingerprint,
            environment: Vec::new(),
            wrapper,
            program,
        })
    }

    /// Sets an environment variable for the server's next start.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// More arguments for its next start, in the place of those that it had.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.config.arguments = arguments.iter().map(|&word| word.to_owned()).collect();
    }

    /// Starts it again where it was, after it ended or was killed.
    pub async fn start_again(&mut self) -> Result<(), WorldError> {
        self.program.kill();
        let launch = Launch {
            scratch: self.scratch,
            state: &self.state,
            config: &self.config,
            environment: &self.environment,
            wrapper: &self.wrapper,
        };
        self.program = launch.start(self.address, false).await?.0;
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where devices are told to reach it.
    pub fn address_for_devices(&self) -> SocketAddr {
        self.config.public.unwrap_or(self.address)
    }

    /// The fingerprint of its root certificate, in four parts.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The file with the first administrator's password.
    pub fn password_file(&self) -> PathBuf {
        password_file(self.scratch, &self.config)
    }

    /// Its folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }
}

fn password_file(scratch: &Scratch, config: &ServerConfig) -> PathBuf {
    scratch.path(&format!("first-password-of-{}", config.name))
}

/// The server's program, or the one that runs it.
fn under(wrapper: &[String]) -> Result<Command, WorldError> {
    let server = product("umbra-server")?;
    let Some((program, before)) = wrapper.split_first() else {
        return Ok(Command::new(server));
    };
    let mut command = Command::new(program);
    command.args(before).arg(server);
    Ok(command)
}

/// What a start needs.
struct Launch<'a> {
    scratch: &'a Scratch,
    state: &'a Path,
    config: &'a ServerConfig,
    environment: &'a [(String, String)],
    wrapper: &'a [String],
}

impl Launch<'_> {
    async fn start(
        &self,
        listen: SocketAddr,
        first: bool,
    ) -> Result<(Program, SocketAddr), WorldError> {
        let mut command = under(self.wrapper)?;
        command
            .arg("run")
            .arg("--state")
            .arg(self.state)
            .args(["--listen", &listen.to_string()]);
        command.args(["--heartbeat", &self.config.heartbeat.to_string()]);
        let environment = self.environment.iter();
        command.envs(environment.map(|(name, value)| (name, value)));
        command.args(&self.config.arguments);
        if let Some(public) = self.config.public {
            command.args(["--public-address", &public.to_string()]);
        }
        if first {
            command
                .arg("--first-password-file")
                .arg(password_file(self.scratch, self.config));
        }
        let mut program = Program::start(self.scratch, "umbra-server", &mut command)?;
        const READY: &str = "listening address=";
        let line = program.wait_for_line(READY, PATIENCE).await?;
        let address = line
            .split(READY)
            .nth(1)
            .and_then(|text| text.trim().parse().ok());
        let address = address.ok_or(WorldError::Unexpected {
            program: "umbra-server".into(),
            said: line,
        })?;
        Ok((program, address))
    }
}

/// The first four parts of sixteen hexadecimal digits that a text names, joined as people type them.
fn fingerprint_of(text: &str) -> Option<String> {
    let is_part =
        |word: &&str| word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let parts: Vec<&str> = words.filter(is_part).take(4).collect();
    (parts.len() == 4).then(|| parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_found_in_either_of_its_forms() {
        let joined = "BC67F0D3FE54E120-697A87BC35C86FB2-6412DD53A6B6AFA8-DFB88DA7B702C3F5";
        let lines = "Part 1: BC67F0D3FE54E120\nPart 2: 697A87BC35C86FB2\nPart 3: 6412DD53A6B6AFA8\nPart 4: DFB88DA7B702C3F5\n";
        assert_eq!(fingerprint_of(lines).as_deref(), Some(joined));
        assert_eq!(fingerprint_of(joined).as_deref(), Some(joined));
        assert_eq!(
            fingerprint_of(&format!("{joined}\n{lines}")).as_deref(),
            Some(joined)
        );
        assert_eq!(fingerprint_of(&lines[..80]), None);
    }
}
