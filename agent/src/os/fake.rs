//! An operating system for tests: says what it is told to, and writes down what it was asked to do.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::{Adapter, Bus, Os, OsError};

/// A machine that does not exist.
#[derive(Debug)]
pub struct Fake {
    /// What [`Os::adapters`] answers.
    pub adapters: Vec<Adapter>,
    /// What [`Os::stick`] answers.
    pub stick: Option<String>,
    /// What [`Os::host_name`] answers.
    pub host_name: String,
    /// What [`Os::addresses`] answers.
    pub addresses: Vec<IpAddr>,
    /// What [`Os::boot_id`] answers.
    pub boot_id: String,
    /// Whether restarting and switching off fail.
    pub refuses_power: bool,
    asked: Mutex<Vec<String>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            adapters: vec![Adapter {
                name: "eth0".into(),
                mac: [0x00, 0xe0, 0xc5, 0xa1, 0xb2, 0xc3],
                bus: Some(Bus::Board),
                wireless: false,
                permanent: true,
            }],
            stick: None,
            host_name: "till-4".into(),
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
            boot_id: "first-boot".into(),
            refuses_power: false,
            asked: Mutex::new(Vec::new()),
        }
    }
}

impl Fake {
    /// What was asked for, in order: `reboot`, `shutdown`.
    pub fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn ask(&self, what: &str, command: &[String]) -> Result<(), OsError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(what.to_owned());
        if self.refuses_power {
            return Err(OsError::Failed {
                program: command.first().cloned().unwrap_or_default(),
                status: "exit status 1".into(),
            });
        }
        Ok(())
    }
}

impl Os for Fake {
    fn adapters(&self) -> Vec<Adapter> {
        self.adapters.clone()
    }
    fn stick(&self) -> Option<String> {
        self.stick.clone()
    }
    fn host_name(&self) -> String {
        self.host_name.clone()
    }
    fn os_name(&self) -> String {
        "Example OS 1".into()
    }
    fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.clone()
    }
    fn boot_id(&self) -> String {
        self.boot_id.clone()
    }
    fn reboot(&self, command: &[String]) -> Result<(), OsError> {
        self.ask("reboot", command)
    }
    fn shutdown(&self, command: &[String]) -> Result<(), OsError> {
        self.ask("shutdown", command)
    }
}
