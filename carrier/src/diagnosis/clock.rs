//! Whether the certificates speak against the clock of this machine. A thin client's clock is often wrong by years, and then
//! every good certificate looks bad: whoever renews certificates because of it looks in the wrong place.

use super::chain::Order;
use super::{Check, Expectation, Finding};
use crate::x509::date_text;

/// A certificate that is in use is renewed within this time after its end: a year.
const FORGOTTEN: i64 = 365 * 86_400;

pub(super) fn check(order: &Order<'_>, expectation: &Expectation<'_>) -> Finding {
    let Some(now) = expectation.now else {
        return Finding::warn(
            Check::Clock,
            "the clock of this device can't be right, so the dates of the certificates weren't checked",
            "Set the clock, or a time server.",
        );
    };
    let made_last = order
        .path
        .iter()
        .max_by_key(|member| member.facts.not_before)
        .filter(|member| now < member.facts.not_before);
    if let Some(member) = made_last {
        return Finding::fail(
            Check::Clock,
            format!(
                "the clock says {}, and “{}” was only made on {}: the clock is slow{}",
                date_text(now),
                member.facts.display_name(),
                date_text(member.facts.not_before),
                by_years(member.facts.not_before - now)
            ),
            "Set the clock first, or a time server. If the clock is right, the certificate was made for a later day.",
        );
    }
    let end = order.end();
    let late = now.saturating_sub(end.facts.not_after);
    if late > FORGOTTEN {
        return Finding::fail(
            Check::Clock,
            format!(
                "the clock says {}, and “{}” would have expired on {}: the clock is probably fast{}",
                date_text(now),
                end.facts.display_name(),
                date_text(end.facts.not_after),
                by_years(late)
            ),
            "Set the clock first, or a time server. If the clock is right, renew the certificate.",
        );
    }
    Finding::pass(Check::Clock, "the clock is plausible")
}

fn by_years(seconds: i64) -> String {
    match seconds / FORGOTTEN {
        0 => String::new(),
        1 => " by more than a year".to_owned(),
        years => format!(" by more than {years} years"),
    }
}
