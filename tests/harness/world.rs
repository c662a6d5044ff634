//! A whole installation in a scenario's folder: server, devices and consoles, each the program that ships, with its own
//! state and configuration and nothing shared but loopback. What it does, a person could do with the same programs.

mod console;
mod device;
mod gateway;
mod offer;
mod server;

use std::time::Duration;

pub use console::{Console, Refused, Shadow};
pub use device::{Device, DeviceConfig, network_card};
pub use gateway::{Gateway, GatewayConfig, OwnChain};
pub use offer::{Meeting, Offer};
pub use server::{Server, ServerConfig};

use crate::desktop::{Desktop, DesktopConfig, Listen};
use crate::eventually::NotReached;
use crate::program::ProgramError;
use crate::scratch::Scratch;

/// How long a program may take for something that it does in a moment on a quiet machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why something in the installation did not go as it should.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A program could not be run, or not to where it should.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A state was not reached.
    #[error(transparent)]
    State(#[from] NotReached),
    /// A program refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A file in the scenario's folder.
    #[error("{doing}")]
    File {
        /// What was done with it.
        doing: String,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// A program said something that was not expected.
    #[error("{program} said something unexpected: {said}")]
    Unexpected {
        /// The program.
        program: String,
        /// What it said.
        said: String,
    },
}

impl WorldError {
    fn file(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |cause| Self::File { doing, cause }
    }
}

/// One server, one enrolled device with the built-in desktop, and an administrator's console.
pub struct World<'s> {
    /// The device's screen.
    pub desktop: Desktop,
    /// The server.
    pub server: Server<'s>,
    /// The device.
    pub device: Device<'s>,
    /// The administrator's console, logged in.
    pub console: Console<'s>,
}

impl<'s> World<'s> {
    /// Starts everything and waits until the device is online.
    pub async fn start(scratch: &'s Scratch) -> Result<Self, WorldError> {
        Self::start_with(scratch, &[]).await
    }

    /// The same with parameters of the device's image, each with its value as TOML writes it.
    pub async fn start_with(
        scratch: &'s Scratch,
        parameters: &[(&str, &str)],
    ) -> Result<Self, WorldError> {
        Self::start_before(scratch, desktop(scratch).await?, parameters).await
    }

    /// The same with a server of one's own.
    pub async fn start_under(
        scratch: &'s Scratch,
        config: ServerConfig,
    ) -> Result<Self, WorldError> {
        Self::make(scratch, config, desktop(scratch).await?, &[]).await
    }

    /// The same before a screen of one's own.
    pub async fn start_before(
        scratch: &'s Scratch,
        desktop: Desktop,
        parameters: &[(&str, &str)],
    ) -> Result<Self, WorldError> {
        Self::make(scratch, ServerConfig::default(), desktop, parameters).await
    }

    async fn make(
        scratch: &'s Scratch,
        config: ServerConfig,
        desktop: Desktop,
        parameters: &[(&str, &str)],
    ) -> Result<Self, WorldError> {
        let server = Server::start(scratch, config).await?;
        let console = Console::administrator(scratch, &server).await?;
        let mut config = DeviceConfig::with_desktop(&desktop);
        for (name, value) in parameters {
            config.set(name, value);
        }
        let mut device = Device::new(scratch, "device", config)?;
        device.start()?;
        let key = console.one_time_key().await?;
        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        Ok(Self {
            desktop,
            server,
            device,
            console,
        })
    }

    /// The device's name at the server: its unit ID, as nobody gave it another.
    pub async fn device_name(&self) -> Result<String, WorldError> {
        self.device.unit_id().await
    }

    /// Shadows the device as the administrator.
    pub async fn shadow(&self, reason: &str) -> Result<Shadow, WorldError> {
        self.console
            .shadow(&self.device_name().await?, &["--reason", reason])
            .await
    }
}

/// The built-in desktop on a Unix socket in the scenario's folder.
pub async fn desktop(scratch: &Scratch) -> Result<Desktop, WorldError> {
    let listen = Listen::Unix(scratch.path("desktop.sock"));
    let config = DesktopConfig {
        listen,
        ..DesktopConfig::default()
    };
    Desktop::start(config)
        .await
        .map_err(WorldError::file("the test desktop cannot listen"))
}
