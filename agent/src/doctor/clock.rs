//! Whether the clock can be right.

use super::{Check, Patient};
use crate::clock::{Clock, Judgement, date};

const ID: &str = "clock";

pub(super) fn check(patient: &Patient<'_>) -> Check {
    judge(patient.clock)
}

pub(super) fn judge(clock: &Clock) -> Check {
    let advice = "Sessions work all the same, but dates of certificates are not checked: set the clock, or let NTP do it.";
    let (now, build) = (date(clock.now()), date(clock.build_date()));
    match clock.judge() {
        Judgement::Plausible => {
            Check::good(ID, format!("The clock says {now}, which can be right."))
        }
        Judgement::BeforeBuild => Check::warning(
            ID,
            format!("The clock says {now}, which is before this program was built ({build})."),
            advice,
        ),
        Judgement::FarFuture => Check::warning(
            ID,
            format!(
                "The clock says {now}, which is too long after this program was built ({build}) to be right."
            ),
            advice,
        ),
    }
}
