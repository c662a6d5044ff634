//! The judgement: compares what was done with what is found. Pure, so that each kind of wrong can be shown to it.

mod leaks;
mod records;
#[cfg(test)]
mod tests;

use super::ledger::{Found, Ledger};

/// The four kinds of wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something that was confirmed is not there.
    Lost,
    /// Something is there twice.
    Doubled,
    /// Something was not given back, or became known.
    Leaked,
    /// Somebody got in who must not.
    LetIn,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Lost => "lost",
            Kind::Doubled => "doubled",
            Kind::Leaked => "leaked",
            Kind::LetIn => "let in",
        }
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// What it would be if it were wrong.
    pub(super) kind: Kind,
    /// What was compared, with numbers.
    pub(super) what: String,
    /// Numbers that have a line of their own.
    pub(super) told: Vec<String>,
    /// Each thing that is wrong, as a sentence.
    pub(super) wrong: Vec<String>,
}

impl Check {
    fn new(kind: Kind, what: impl Into<String>, wrong: Vec<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            told: Vec::new(),
            wrong,
        }
    }

    fn telling(self, told: Vec<String>) -> Self {
        Self { told, ..self }
    }
}

/// All comparisons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict(Vec<Check>);

/// More of one kind of wrong than this is not printed.
const SHOWN: usize = 12;

impl Verdict {
    /// How much is wrong of a kind.
    pub(super) fn count(&self, kind: Kind) -> usize {
        let of = self.0.iter().filter(|check| check.kind == kind);
        of.map(|check| check.wrong.len()).sum()
    }

    /// Whether nothing is wrong.
    pub(super) fn is_well(&self) -> bool {
        self.0.iter().all(|check| check.wrong.is_empty())
    }

    /// Line by line, for a person. The last one is the sum.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for check in &self.0 {
            let sign = if check.wrong.is_empty() {
                "ok   "
            } else {
                "WRONG"
            };
            lines.push(format!("{sign} {:<8} {}", check.kind.word(), check.what));
            lines.extend(
                check
                    .told
                    .iter()
                    .map(|told| format!("               {told}")),
            );
            for wrong in check.wrong.iter().take(SHOWN) {
                lines.push(format!("               - {wrong}"));
            }
            if check.wrong.len() > SHOWN {
                lines.push(format!(
                    "               - and {} more",
                    check.wrong.len() - SHOWN
                ));
            }
        }
        lines.push(format!(
            "{} lost, {} doubled, {} leaked, {} let in",
            self.count(Kind::Lost),
            self.count(Kind::Doubled),
            self.count(Kind::Leaked),
            self.count(Kind::LetIn)
        ));
        lines
    }
}

/// Compares.
pub(super) fn judge(ledger: &Ledger, found: &Found) -> Verdict {
    Verdict(vec![
        records::whole_log(found),
        records::devices_are_themselves(ledger, found),
        records::enrolments(ledger, found),
        records::removals(ledger, found),
        records::keys(ledger, found),
        records::settings(ledger, found),
        records::commands_answered(ledger, found),
        records::messages_shown(ledger, found),
        records::looks(ledger, found),
        records::screens(ledger),
        records::no_panics(found),
        records::devices_once(found),
        records::enrolled_once(ledger, found),
        records::commands_once(ledger, found),
        records::sessions_once(found),
        leaks::memory(found),
        leaks::handles(found),
        leaks::gauges(found),
        leaks::leftovers(found),
        leaks::secrets(found),
        intruders(ledger),
        strangers(ledger, found),
        unasked_for(found),
    ])
}

/// The intruder's attempts: each kind was really made, and none worked.
fn intruders(ledger: &Ledger) -> Check {
    let mut wrong = Vec::new();
    let mut told = Vec::new();
    for (kind, attempts) in &ledger.attempts {
        told.push(format!(
            "{kind}: refused {} times, nobody there {} times, let in {} times",
            attempts.refused, attempts.unanswered, attempts.let_in
        ));
        wrong.extend((0..attempts.let_in).map(|_| format!("it worked: {kind}")));
        if attempts.refused == 0 {
            wrong.push(format!(
                "nobody ever answered, so nothing is known of: {kind}"
            ));
        }
    }
    if ledger.attempts.is_empty() {
        wrong.push("the intruder has done nothing".to_owned());
    }
    let all: usize = ledger
        .attempts
        .values()
        .map(|attempts| attempts.refused)
        .sum();
    let unanswered: usize = ledger
        .attempts
        .values()
        .map(|attempts| attempts.unanswered)
        .sum();
    let what = format!("intruder refused {all} times, {unanswered} times nobody was there");
    Check::new(Kind::LetIn, what, wrong).telling(told)
}

/// The server has nobody on file whom no administrator let in.
fn strangers(ledger: &Ledger, found: &Found) -> Check {
    let enrolled = found.audit.iter().filter(|entry| {
        entry.action == "device.enrolled" && entry.outcome == "ok" && !known(ledger, &entry.subject)
    });
    let on_file = found
        .devices
        .iter()
        .filter(|device| !known(ledger, &device.id));
    let wrong = enrolled
        .map(|entry| format!("{} was taken on", entry.actor))
        .chain(on_file.map(|device| format!("{} is on file", device.unit)))
        .collect();
    let what = format!("{} devices on file, all known", found.devices.len());
    Check::new(Kind::LetIn, what, wrong)
}

fn known(ledger: &Ledger, id: &str) -> bool {
    ledger.devices.values().any(|device| device.id == id)
}

/// No device's VNC server was reached more often than its server agreed to.
fn unasked_for(found: &Found) -> Check {
    let mut wrong = Vec::new();
    let (mut reached, mut agreed) = (0, 0);
    for (unit, held) in &found.held {
        let allowed = found.audit.iter().filter(|entry| {
            entry.action == "session.verified"
                && entry.outcome == "ok"
                && entry.actor == format!("device:{unit}")
        });
        let allowed = allowed.count();
        reached += held.connections;
        agreed += allowed;
        if held.connections > allowed {
            wrong.push(format!(
                "the screen of {unit} was reached {} times, the server agreed to {allowed}",
                held.connections
            ));
        }
    }
    let what = format!("screens reached {reached} times, the server agreed to {agreed}");
    Check::new(Kind::LetIn, what, wrong)
}
