//! Whether the agent's directory can be written to.

use super::{Check, Patient};

const ID: &str = "state-writable";

pub(super) fn check(patient: &Patient<'_>) -> Check {
    let directory = patient.paths.kept();
    if !directory.exists() {
        return Check::warning(
            ID,
            format!("{} is not there yet.", directory.display()),
            "It is made by “umbra-agent identity” at boot: see that the partition for /wfs is mounted and can be written to, and run \
             that as root or as the agent's user.",
        );
    }
    let probe = directory.join("doctor-probe");
    let probed = patient
        .files
        .write(&probe, b"can this be written?\n", 0o600)
        .and_then(|()| patient.files.remove(&probe));
    match probed {
        Ok(()) => Check::good(ID, format!("{} can be written to.", directory.display())),
        Err(error @ crate::files::FileError::Permission { .. }) => {
            Check::skipped(ID, format!("{error} for this check."))
        }
        Err(error) => Check::bad(
            ID,
            super::chain(&error),
            "The device keeps working with what it has, but forgets every change: free space, or mount the file system writable.",
        ),
    }
}
