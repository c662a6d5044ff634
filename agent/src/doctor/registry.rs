//! Whether the files of parameters can be read.

use super::{Check, Patient};

const ID: &str = "registry";

pub(super) fn check(patient: &Patient<'_>) -> Check {
    if let Some(check) = patient.out_of_sight(ID) {
        return check;
    }
    let problems = patient.registry.problems();
    match problems.as_slice() {
        [] => Check::good(ID, "All parameters can be read."),
        [first, rest @ ..] => {
            let more = if rest.is_empty() {
                String::new()
            } else {
                format!(" (and {} more)", rest.len())
            };
            Check::bad(
                ID,
                format!("{first}{more}"),
                "Correct the line; “umbra-agent registry list” shows every parameter and every problem.",
            )
        }
    }
}
