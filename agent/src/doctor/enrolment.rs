//! Whether a server has taken this device on.

use super::{Check, Patient};
use crate::enrolment::EnrolmentError;
use crate::files::FileError;
use crate::status::Stage;

const ID: &str = "enrolment";

pub(super) fn check(patient: &Patient<'_>) -> Check {
    match &patient.enrolled {
        Ok(Some(enrolled)) => Check::good(
            ID,
            format!(
                "This device belongs to the server {}:{} as “{}”.",
                enrolled.host, enrolled.port, enrolled.device_name
            ),
        ),
        Ok(None) => Check::bad(
            ID,
            "No server has taken this device on.",
            Stage::NotEnrolled.advice().unwrap_or_default(),
        ),
        Err(EnrolmentError::File(error @ FileError::Permission { .. })) => {
            Check::skipped(ID, format!("{error}."))
        }
        Err(error) => Check::bad(
            ID,
            super::chain(error),
            "Enrol the device again, or put the right file back.",
        ),
    }
}
