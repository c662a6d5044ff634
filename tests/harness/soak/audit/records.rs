//! Whether everything that was confirmed is there, and there once.

use std::collections::{BTreeMap, BTreeSet};

use super::super::ledger::{Entry, Found, Known, Ledger, OnFile, Stage};
use super::{Check, Kind};

/// Codes with which a session that somebody saw may stand as one that did not begin: the word that it began, and how much was seen, died
/// with the agent.
const UNTOLD: &str = "agent_restarted";

fn lines<'f>(
    found: &'f Found,
    action: &'f str,
    outcome: &'f str,
) -> impl Iterator<Item = &'f Entry> {
    found
        .audit
        .iter()
        .filter(move |entry| entry.action == action && entry.outcome == outcome)
}

fn count<'f>(entries: impl Iterator<Item = &'f Entry>) -> BTreeMap<&'f str, usize> {
    let mut count = BTreeMap::new();
    for entry in entries {
        *count.entry(entry.subject.as_str()).or_default() += 1;
    }
    count
}

fn kept(ledger: &Ledger) -> impl Iterator<Item = (&String, &Known)> {
    ledger.devices.iter().filter(|(_, known)| !known.removed)
}

/// The audit log has no gap.
pub(super) fn whole_log(found: &Found) -> Check {
    let numbers: Vec<u64> = found.audit.iter().map(|entry| entry.number).collect();
    let mut wrong: Vec<String> = numbers
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1)
        .map(|pair| format!("after line {} comes line {}", pair[0], pair[1]))
        .collect();
    if numbers.first() != Some(&1) {
        wrong.push(format!("the log begins with line {:?}", numbers.first()));
    }
    let what = format!("{} lines of the audit log, without a gap", numbers.len());
    Check::new(Kind::Lost, what, wrong)
}

/// Every device is linked as the one that it was.
pub(super) fn devices_are_themselves(ledger: &Ledger, found: &Found) -> Check {
    let mut wrong = Vec::new();
    for (unit, known) in kept(ledger) {
        match found.devices.iter().find(|device| device.unit == *unit) {
            None => wrong.push(format!("{unit} is not on file")),
            Some(device) => {
                if !device.online {
                    wrong.push(format!("{unit} is not linked"));
                }
                if device.id != known.id {
                    wrong.push(format!("{unit} is on file as {}", device.id));
                }
                if known.name.as_ref().is_some_and(|name| *name != device.name) {
                    wrong.push(format!("{unit} has the name {}", device.name));
                }
                if device.suspected {
                    wrong.push(format!("{unit} is thought to be a copy"));
                }
            }
        }
        match found.held.get(unit) {
            None => wrong.push(format!("{unit} says nothing of itself")),
            Some(held) if held.id != known.id || held.certificate != known.certificate => {
                wrong.push(format!("{unit} has another certificate"));
            }
            Some(_) => {}
        }
    }
    let count = kept(ledger).count();
    let what = format!(
        "{count} devices linked as the ones that they were, with the same names and certificates"
    );
    Check::new(Kind::Lost, what, wrong)
}

/// Every device that was told that it is taken on is in the log.
pub(super) fn enrolments(ledger: &Ledger, found: &Found) -> Check {
    let logged = count(lines(found, "device.enrolled", "ok"));
    let missing = ledger
        .devices
        .iter()
        .filter(|(_, known)| !logged.contains_key(known.id.as_str()));
    let wrong = missing
        .map(|(unit, _)| format!("{unit} was told that it is taken on"))
        .collect();
    let what = format!(
        "{} enrolments that devices were told of are on record",
        ledger.devices.len()
    );
    Check::new(Kind::Lost, what, wrong)
}

/// Whoever was removed or left is off the file, and on record.
pub(super) fn removals(ledger: &Ledger, found: &Found) -> Check {
    let logged =
        count(lines(found, "device.removed", "ok").chain(lines(found, "device.left", "ok")));
    let mut wrong = Vec::new();
    let mut removed = 0;
    for (unit, known) in ledger.devices.iter().filter(|(_, known)| known.removed) {
        removed += 1;
        if !logged.contains_key(known.id.as_str()) {
            wrong.push(format!("nothing says that {unit} went"));
        }
        if found.devices.iter().any(|device| device.unit == *unit) {
            wrong.push(format!("{unit} went and is on file"));
        }
    }
    let what = format!("{removed} removals and departures are on record, and hold");
    Check::new(Kind::Lost, what, wrong)
}

/// Every key is on record.
pub(super) fn keys(ledger: &Ledger, found: &Found) -> Check {
    let logged = count(lines(found, "key.created", "ok"));
    let missing = ledger
        .keys
        .iter()
        .filter(|id| logged.get(id.as_str()) != Some(&1));
    let wrong = missing.map(|id| format!("the key {id}")).collect();
    let what = format!("{} keys are on record", ledger.keys.len());
    Check::new(Kind::Lost, what, wrong)
}

/// Every change of settings is on record, and the last one is in force at the server and on the device.
pub(super) fn settings(ledger: &Ledger, found: &Found) -> Check {
    let logged = count(lines(found, "device.settings_set", "ok"));
    let mut wrong = Vec::new();
    let (mut all, mut unsure) = (0, 0);
    for (unit, settings) in &ledger.settings {
        let Some(known) = ledger.devices.get(unit) else {
            continue;
        };
        all += settings.acknowledged;
        unsure += settings.unsure;
        let there = logged.get(known.id.as_str()).copied().unwrap_or(0);
        let most = settings.acknowledged + settings.unsure;
        if !(settings.acknowledged..=most).contains(&there) {
            wrong.push(format!(
                "{unit}: {} changes confirmed, {} without an answer, {there} on record",
                settings.acknowledged, settings.unsure
            ));
        }
        let device = found.devices.iter().find(|device| device.unit == *unit);
        let value = device.and_then(|device| device.setting);
        if settings.acknowledged > 0
            && !value.is_some_and(|value| settings.possible.contains(&value))
        {
            wrong.push(format!(
                "{unit}: the server has {value:?}, and it must be one of {:?}",
                settings.possible
            ));
        }
        let held = found.held.get(unit).and_then(|held| held.setting);
        if held != value && settings.acknowledged > 0 {
            wrong.push(format!(
                "{unit}: the server has {value:?}, the device {held:?}"
            ));
        }
    }
    let what = format!(
        "{all} changes of settings are on record and the last ones in force ({unsure} more without an answer)"
    );
    Check::new(Kind::Lost, what, wrong)
}

/// Every command that the server took has an end.
pub(super) fn commands_answered(ledger: &Ledger, found: &Found) -> Check {
    let given = count(lines(found, "command.given", "ok"));
    let ended = count(lines(found, "command.ended", "ok"));
    let mut wrong = Vec::new();
    for command in &ledger.commands {
        let what = command.text.as_deref().unwrap_or("an inventory");
        if !given.contains_key(command.id.as_str()) {
            wrong.push(format!("{what} for {} was confirmed", command.unit));
        }
        let gone = ledger
            .devices
            .get(&command.unit)
            .is_some_and(|known| known.removed);
        if !gone && !ended.contains_key(command.id.as_str()) {
            wrong.push(format!("{what} for {} has no end", command.unit));
        }
    }
    let what = format!(
        "{} commands are on record, and each has an end",
        ledger.commands.len()
    );
    Check::new(Kind::Lost, what, wrong)
}

/// What is said to be done was done; what was not done says why.
pub(super) fn messages_shown(ledger: &Ledger, found: &Found) -> Check {
    let ended: BTreeMap<&str, &str> = lines(found, "command.ended", "ok")
        .map(|entry| (entry.subject.as_str(), entry.detail.as_str()))
        .collect();
    let mut wrong = Vec::new();
    let (mut done, mut interrupted, mut failed) = (0, 0, 0);
    for command in &ledger.commands {
        let (Some(text), Some(detail)) = (&command.text, ended.get(command.id.as_str())) else {
            continue;
        };
        let shown = found.shown.get(text).copied().unwrap_or(0);
        if detail.starts_with("done:") {
            done += 1;
            if shown == 0 {
                wrong.push(format!("“{text}” is said to be shown and was not"));
            }
        } else if detail.starts_with("interrupted:") {
            interrupted += 1;
        } else {
            failed += 1;
            // The disk is the one thing that a command may fail of here.
            if !detail.contains("disk") {
                wrong.push(format!("“{text}”: {detail}"));
            }
        }
    }
    let what = format!(
        "{done} messages said to be shown were shown; {interrupted} cut off by a kill and {failed} refused by a full disk, as told"
    );
    Check::new(Kind::Lost, what, wrong)
}

/// Every session that an operator saw has a record with an end, and none is left open.
pub(super) fn looks(ledger: &Ledger, found: &Found) -> Check {
    let mut wrong = Vec::new();
    for look in ledger.looks.iter().filter(|look| look.stage > Stage::Asked) {
        let filed = found
            .sessions
            .iter()
            .find(|session| session.reason == look.reason);
        match filed {
            None => wrong.push(format!("{} with {} has no record", look.reason, look.unit)),
            Some(session)
                if look.stage >= Stage::Viewed
                    && session.state != "ended"
                    && session.code != UNTOLD =>
            {
                wrong.push(format!(
                    "{} with {} was seen, and its record says {} {}",
                    look.reason, look.unit, session.state, session.code
                ));
            }
            Some(_) => {}
        }
    }
    let ended = count(
        found
            .audit
            .iter()
            .filter(|entry| entry.action == "session.ended"),
    );
    for session in &found.sessions {
        if !matches!(session.state.as_str(), "ended" | "refused") {
            wrong.push(format!("{} is still {}", session.reason, session.state));
        } else if session.state == "ended" && !ended.contains_key(session.id.as_str()) {
            wrong.push(format!("{} has no line in the log", session.reason));
        }
    }
    let seen = ledger
        .looks
        .iter()
        .filter(|look| look.stage >= Stage::Viewed);
    let what = format!(
        "{} of {} sessions were seen and have a record; {} on file, all with an end",
        seen.count(),
        ledger.looks.len(),
        found.sessions.len()
    );
    Check::new(Kind::Lost, what, wrong)
}

/// Operators saw the screens that they asked for, and at the end each of them.
pub(super) fn screens(ledger: &Ledger) -> Check {
    let mut wrong = ledger.wrong_screens.clone();
    wrong.extend(
        ledger
            .unseen
            .iter()
            .map(|unit| format!("{unit} could not be seen and operated at the end")),
    );
    let compared = ledger
        .looks
        .iter()
        .filter(|look| look.stage == Stage::Compared)
        .count();
    if compared == 0 {
        wrong.push("no screen was ever compared".to_owned());
    }
    let what = format!("{compared} times keys arrived and the screen was seen, pixel by pixel");
    Check::new(Kind::Lost, what, wrong)
}

/// No program ended of itself.
pub(super) fn no_panics(found: &Found) -> Check {
    let what = format!("{} logs without a panic", found.searched.0);
    Check::new(Kind::Lost, what, found.panics.clone())
}

/// No two devices share a name, a unit ID or a key.
pub(super) fn devices_once(found: &Found) -> Check {
    let mut wrong = Vec::new();
    type Of = fn(&OnFile) -> &str;
    let kinds: [(&str, Of); 3] = [
        ("unit ID", |device| &device.unit),
        ("name", |device| &device.name),
        ("device ID", |device| &device.id),
    ];
    for (kind, of) in kinds {
        let mut seen = BTreeSet::new();
        let twice = found
            .devices
            .iter()
            .filter(|device| !seen.insert(of(device)));
        wrong.extend(twice.map(|device| format!("two devices have the {kind} {}", of(device))));
    }
    let what = format!("{} devices, each on file once", found.devices.len());
    Check::new(Kind::Doubled, what, wrong)
}

/// Each was taken on once.
pub(super) fn enrolled_once(ledger: &Ledger, found: &Found) -> Check {
    let logged = count(lines(found, "device.enrolled", "ok"));
    let twice = logged.iter().filter(|(_, times)| **times > 1);
    let wrong = twice
        .map(|(id, times)| format!("{id} was taken on {times} times"))
        .collect();
    let what = format!("{} devices, each taken on once", ledger.devices.len());
    Check::new(Kind::Doubled, what, wrong)
}

/// Commands ran at most once, messages were shown at most once, and each has one result.
pub(super) fn commands_once(ledger: &Ledger, found: &Found) -> Check {
    let mut wrong = Vec::new();
    let ended = count(
        found
            .audit
            .iter()
            .filter(|entry| entry.action == "command.ended"),
    );
    let results = ended.iter().filter(|(_, times)| **times > 1);
    wrong.extend(results.map(|(id, times)| format!("{id} has {times} results")));
    let begun = found.begun.iter().filter(|(_, times)| **times > 1);
    wrong.extend(begun.map(|(id, times)| format!("{id} began {times} times")));
    let shown = found.shown.iter().filter(|(_, times)| **times > 1);
    wrong.extend(shown.map(|(text, times)| format!("“{text}” was shown {times} times")));
    let mut ids = BTreeSet::new();
    let same = ledger
        .commands
        .iter()
        .filter(|command| !ids.insert(&command.id));
    wrong.extend(same.map(|command| format!("two commands have the ID {}", command.id)));
    let what = format!(
        "{} commands began and {} messages were shown, each once; {} results",
        found.begun.len(),
        found.shown.len(),
        ended.len()
    );
    Check::new(Kind::Doubled, what, wrong)
}

/// One record and one line of each kind for each session.
pub(super) fn sessions_once(found: &Found) -> Check {
    let mut wrong = Vec::new();
    for action in ["session.offered", "session.started", "session.ended"] {
        let logged = count(lines(found, action, "ok"));
        let twice = logged.iter().filter(|(_, times)| **times > 1);
        wrong.extend(twice.map(|(id, times)| format!("{id}: {times} times {action}")));
    }
    let agreed = count(lines(found, "session.verified", "ok"));
    let twice = agreed.iter().filter(|(_, times)| **times > 1);
    wrong.extend(twice.map(|(id, times)| format!("the ticket of {id} was good {times} times")));
    let mut ids = BTreeSet::new();
    let same = found
        .sessions
        .iter()
        .filter(|session| !ids.insert(&session.id));
    wrong.extend(same.map(|session| format!("{} is on file twice", session.id)));
    let what = format!("{} sessions, each on record once", found.sessions.len());
    Check::new(Kind::Doubled, what, wrong)
}
