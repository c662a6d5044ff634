//! Whether the device has a key and a certificate that belong together.

use super::{Check, Patient};
use crate::clock::{DAY, date};
use crate::files::FileError;
use crate::identity::{self, IdentityError};

const ID: &str = "identity";
const WARN_BEFORE: i64 = 30 * DAY;

pub(super) fn check(patient: &Patient<'_>) -> Check {
    match identity::load(patient.paths) {
        Ok(Some(identity)) => {
            let until = date(identity.not_after());
            if patient
                .clock
                .believable()
                .is_some_and(|now| now + WARN_BEFORE > identity.not_after())
            {
                return Check::warning(
                    ID,
                    format!(
                        "The certificate of {} is only valid until {until}.",
                        identity.unit_id()
                    ),
                    "Ask your administrator to renew it (command “renew”); the server accepts both until then.",
                );
            }
            Check::good(
                ID,
                format!(
                    "Unit {}, device {}, certificate valid until {until}.",
                    identity.unit_id(),
                    identity.device_id()
                ),
            )
        }
        Ok(None) => Check::bad(
            ID,
            "There is no key with a certificate on this device.",
            "Run “umbra-agent identity” as root or as the agent's user; at boot the agent does it by itself.",
        ),
        Err(IdentityError::File(error @ FileError::Permission { .. })) => {
            Check::skipped(ID, format!("{error}."))
        }
        Err(error) => Check::bad(
            ID,
            super::chain(&error),
            "The agent never replaces a key by itself; this is for a person to decide.",
        ),
    }
}
