//! The commands, one module per noun. Each asks the server and writes a table for a person, or the server's own JSON
//! document; none of them decides what an account may do, because the server does.

mod accounts;
mod audit;
mod devices;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gateways;
mod input;
mod keys;
mod login;
mod policy;
mod sessions;

use std::path::Path;

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use umbra_carrier::address::HostPort;

use crate::api::http::{Deadlines, Server};
use crate::api::{ApiError, Client};
use crate::cli::{Cli, Command, DEFAULT_PORT};
use crate::config::{Config, ConfigFile, KnownServer};
use crate::failure::{Exit, Failure};
use crate::shadow::{self, DialLimits};
use crate::surroundings::Surroundings;

pub(crate) use self::input::certificate;
pub use self::keys::MailError;

/// How long everything may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// With the server.
    pub server: Deadlines,
    /// With a device's addresses.
    pub dial: DialLimits,
}

/// What every command needs.
pub(crate) struct Call<'a, 'b> {
    pub(crate) json: bool,
    pub(crate) around: &'a mut Surroundings<'b>,
    pub(crate) file: ConfigFile,
    pub(crate) server: Option<HostPort>,
    pub(crate) deadlines: Deadlines,
    pub(crate) dial: DialLimits,
}

/// Does what the command line says. `interrupt` completes when the person wants it to end.
///
/// # Errors
/// [`Failure`].
pub async fn run(
    cli: Cli,
    config: &Path,
    limits: Limits,
    around: &mut Surroundings<'_>,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut call = Call {
        json: cli.json,
        around,
        file: ConfigFile::at(config.to_owned()),
        server: cli.server,
        deadlines: limits.server,
        dial: limits.dial,
    };
    let call = &mut call;
    let command = async {
        match cli.command {
            Command::Login(args) => login::login(call, args).await,
            Command::Logout => login::logout(call).await,
            Command::Whoami => login::whoami(call).await,
            Command::Devices(args) => devices::run(call, args).await,
            Command::Gateways(args) => gateways::run(call, args.command).await,
            Command::Keys(args) => keys::run(call, args.command).await,
            Command::Sessions(args) => sessions::run(call, args).await,
            Command::Audit(args) => audit::run(call, args).await,
            Command::Policy(args) => policy::run(call, args).await,
            Command::Accounts(args) => accounts::run(call, args.command).await,
            // Only a session has something to end in order.
            Command::Shadow(args) => return shadow::run(call, args, interrupt).await,
        }
        .map(|()| Exit::Done)
    };
    command.await
}

impl Call<'_, '_> {
    /// The server that is meant, and a client that is logged in to it.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let config = self.file.load()?;
        let (name, known) = self.known(&config)?;
        let again = || format!("log in again: umbra login {name}");
        let login = known.login.as_ref().ok_or_else(|| {
            ApiError::NotLoggedIn(format!(
                "nobody is logged in to {name}; log in first: umbra login {name}"
            ))
        })?;
        if login.expires_at <= (self.around.now)() {
            return Err(ApiError::NotLoggedIn(format!(
                "the log-in to {name} has ended; {}",
                again()
            ))
            .into());
        }
        let server = self.server(&name, known)?;
        Ok(Client::new(server, Some(login.token.clone())))
    }

    /// The server that is meant, as it is remembered.
    pub(crate) fn known<'c>(
        &self,
        config: &'c Config,
    ) -> Result<(String, &'c KnownServer), Failure> {
        let name = config.choose(self.server.as_ref()).ok_or_else(|| {
            ApiError::NotLoggedIn("nobody is logged in; log in first: umbra login HOST".to_owned())
        })?;
        let known = config.servers.get(&name).ok_or_else(|| {
            ApiError::NotLoggedIn(format!(
                "nobody is logged in to {name}; log in first: umbra login {name}"
            ))
        })?;
        Ok((name, known))
    }

    /// A remembered server with its pinned root.
    pub(crate) fn server(&self, name: &str, known: &KnownServer) -> Result<Server, Failure> {
        let address = HostPort::parse(name, DEFAULT_PORT).map_err(|error| {
            Failure::Usage(format!(
                "the configuration names the server “{name}”, but {error}"
            ))
        })?;
        let root = certificate(&known.root).ok_or_else(|| {
            Failure::Usage(format!(
                "the root certificate that is kept for {name} can't be read; pin it again: umbra login {name} --fingerprint P1-P2-P3-P4"
            ))
        })?;
        Ok(Server::new(address, root, self.deadlines)?)
    }

    /// The root certificate that is pinned for the server that is meant.
    pub(crate) fn pinned_root(&self) -> Result<Option<CertificateDer<'static>>, Failure> {
        let config = self.file.load()?;
        let (_, known) = self.known(&config)?;
        Ok(certificate(&known.root))
    }

    /// The time.
    pub(crate) fn now(&self) -> i64 {
        (self.around.now)()
    }

    /// Writes results; whatever the writer reports is this command's failure.
    pub(crate) fn write(
        &mut self,
        write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let out = &mut *self.around.out;
        write(out)
            .and_then(|()| out.flush())
            .map_err(Failure::Output)
    }

    /// Writes one JSON document.
    pub(crate) fn write_json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        let written = serde_json::to_string_pretty(document).map_err(std::io::Error::from);
        self.write(|out| writeln!(out, "{}", crate::text::printable_json(&written?)))
    }

    /// Writes a sentence for a person, or a document for a script.
    pub(crate) fn say(&mut self, sentence: &str, document: &impl Serialize) -> Result<(), Failure> {
        if self.json {
            return self.write_json(document);
        }
        let sentence = crate::text::printable(sentence);
        self.write(|out| writeln!(out, "{sentence}"))
    }
}
