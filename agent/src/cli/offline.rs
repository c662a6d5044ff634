//! What can be said while no agent runs, from the device's files alone.

use crate::enrolment::Enrolled;
use crate::identity;
use crate::paths::Paths;
use crate::status::{Server, Stage, Status};

/// What to do when no agent runs.
pub(super) const NOT_RUNNING: &str =
    "The agent is not running; start it with “systemctl start umbra-agent”.";

/// A status from what lies on the disk. What can't be read is a warning in it.
pub(super) fn status(paths: &Paths) -> Status {
    let mut status = Status::default();
    status.go(Stage::Stopping);
    match identity::load(paths) {
        Ok(Some(identity)) => status.identity = Some(identity.facts()),
        Ok(None) => status.warn(
            "identity",
            Some("There is no key with a certificate yet; the agent makes them.".into()),
        ),
        Err(error) => status.warn("identity", Some(super::Problem::from(error).to_string())),
    }
    match Enrolled::load(paths) {
        Ok(Some(enrolled)) => {
            status.server = Some(Server {
                address: format!("{}:{}", enrolled.host, enrolled.port),
                device_name: enrolled.device_name,
            });
        }
        Ok(None) => status.warn(
            "enrolment",
            Some("No server has taken this device on yet.".into()),
        ),
        Err(error) => status.warn("enrolment", Some(super::Problem::from(error).to_string())),
    }
    status
}
