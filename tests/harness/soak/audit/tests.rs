//! Each kind of wrong is shown to the audit, which must find it, and nothing else.

use super::super::ledger::{
    Attempts, Entry, Filed, Found, Gauge, Given, Held, Known, Ledger, Lived, Look, OnFile, Sample,
    Settings, Stage,
};
use super::{Kind, judge};

const UNIT: &str = "00E0C5000001";

fn entry(number: u64, action: &str, subject: &str, detail: &str) -> Entry {
    Entry {
        number,
        actor: format!("device:{UNIT}"),
        action: action.into(),
        subject: subject.into(),
        outcome: "ok".into(),
        detail: detail.into(),
    }
}

fn sample() -> Sample {
    Sample {
        resident: 20_000,
        files: 20,
        sockets: 10,
        threads: 5,
        children: 0,
        zombies: 0,
    }
}

/// An installation in which all is well.
fn well() -> (Ledger, Found) {
    let mut ledger = Ledger::default();
    let known = Known {
        id: "id-1".into(),
        certificate: "certificate 1".into(),
        name: Some("till".into()),
        removed: false,
    };
    ledger.devices.insert(UNIT.into(), known.clone());
    let gone = Known {
        id: "id-2".into(),
        removed: true,
        ..known
    };
    ledger.devices.insert("00E0C5010001".into(), gone);
    ledger.keys.push("key-1".into());
    let settings = Settings {
        acknowledged: 1,
        unsure: 1,
        possible: vec![7, 8],
    };
    ledger.settings.insert(UNIT.into(), settings);
    ledger.commands.push(Given {
        id: "command-1".into(),
        unit: UNIT.into(),
        text: Some("message 1.".into()),
    });
    ledger.looks.push(Look {
        reason: "look 1".into(),
        unit: UNIT.into(),
        stage: Stage::Compared,
    });
    ledger.attempts.insert(
        "noise",
        Attempts {
            refused: 3,
            ..Attempts::default()
        },
    );
    let mut found = Found {
        devices: vec![OnFile {
            unit: UNIT.into(),
            id: "id-1".into(),
            name: "till".into(),
            online: true,
            setting: Some(8),
            ..OnFile::default()
        }],
        audit: vec![
            entry(1, "key.created", "key-1", ""),
            entry(2, "device.enrolled", "id-1", ""),
            entry(3, "device.enrolled", "id-2", ""),
            entry(4, "device.removed", "id-2", ""),
            entry(5, "device.settings_set", "id-1", ""),
            entry(6, "command.given", "command-1", ""),
            entry(7, "command.ended", "command-1", "done: It is shown."),
            entry(8, "session.offered", "session-1", ""),
            entry(9, "session.verified", "session-1", ""),
            entry(10, "session.started", "session-1", ""),
            entry(11, "session.ended", "session-1", ""),
        ],
        sessions: vec![Filed {
            id: "session-1".into(),
            reason: "look 1".into(),
            state: "ended".into(),
            code: "viewer_closed".into(),
        }],
        lived: vec![Lived {
            name: "server".into(),
            seconds: 100,
            warm: sample(),
            end: sample(),
        }],
        gauges: vec![Gauge {
            name: "tunnels".into(),
            value: 0,
            wanted: 0,
        }],
        searched: (4, 2),
        ..Found::default()
    };
    found.held.insert(
        UNIT.into(),
        Held {
            id: "id-1".into(),
            certificate: "certificate 1".into(),
            setting: Some(8),
            connections: 1,
        },
    );
    found.begun.insert("command-1".into(), 1);
    found.shown.insert("message 1.".into(), 1);
    (ledger, found)
}

/// What is wrong with an installation in which one thing was changed: lost, doubled, leaked, let in.
fn wrong(change: impl FnOnce(&mut Ledger, &mut Found)) -> (usize, usize, usize, usize) {
    let (mut ledger, mut found) = well();
    change(&mut ledger, &mut found);
    let verdict = judge(&ledger, &found);
    let of = |kind| verdict.count(kind);
    let all = (
        of(Kind::Lost),
        of(Kind::Doubled),
        of(Kind::Leaked),
        of(Kind::LetIn),
    );
    assert_eq!(verdict.is_well(), all == (0, 0, 0, 0));
    all
}

/// Takes lines out of the log and numbers the others anew.
fn without(found: &mut Found, action: &str) {
    found.audit.retain(|entry| entry.action != action);
    number(found);
}

fn add(found: &mut Found, action: &str, subject: &str) {
    found.audit.push(entry(0, action, subject, ""));
    number(found);
}

fn number(found: &mut Found) {
    for (number, entry) in (1..).zip(&mut found.audit) {
        entry.number = number;
    }
}

#[test]
fn all_is_well_where_all_is_well_and_the_last_line_says_so() {
    assert_eq!(wrong(|_, _| {}), (0, 0, 0, 0));
    let (ledger, found) = well();
    let lines = judge(&ledger, &found).lines();
    let last = lines.last().map(String::as_str);
    assert_eq!(last, Some("0 lost, 0 doubled, 0 leaked, 0 let in"));
    assert!(lines.iter().any(|line| line.starts_with("ok ")));
    assert!(!lines.iter().any(|line| line.starts_with("WRONG")));
}

#[test]
fn a_lost_record_of_each_kind_is_found() {
    for action in [
        "key.created",
        "device.removed",
        "device.settings_set",
        "command.given",
        "command.ended",
        "session.ended",
    ] {
        let found = wrong(|_, found| without(found, action));
        assert_eq!(found, (1, 0, 0, 0), "{action}");
    }
    // Two devices were taken on.
    let found = wrong(|_, found| without(found, "device.enrolled"));
    assert_eq!(found, (2, 0, 0, 0));
    let gap = wrong(|_, found| found.audit[5].number = 99);
    assert_eq!(gap, (2, 0, 0, 0));
}

#[test]
fn a_device_that_is_gone_or_another_is_found() {
    assert_eq!(wrong(|_, found| found.devices.clear()), (3, 0, 0, 0));
    assert_eq!(
        wrong(|_, found| found.devices[0].online = false),
        (1, 0, 0, 0)
    );
    assert_eq!(
        wrong(|_, found| found.devices[0].name = "another".into()),
        (1, 0, 0, 0)
    );
    assert_eq!(
        wrong(|_, found| found.devices[0].suspected = true),
        (1, 0, 0, 0)
    );
    let other = |found: &mut Found| {
        if let Some(held) = found.held.get_mut(UNIT) {
            held.certificate = "another".into();
        }
    };
    assert_eq!(wrong(|_, found| other(found)), (1, 0, 0, 0));
    assert_eq!(wrong(|_, found| found.held.clear()), (2, 0, 0, 0));
}

#[test]
fn a_setting_that_was_taken_back_or_never_arrived_is_found() {
    assert_eq!(
        wrong(|_, found| found.devices[0].setting = Some(6)),
        (2, 0, 0, 0)
    );
    let old = |found: &mut Found| {
        if let Some(held) = found.held.get_mut(UNIT) {
            held.setting = Some(7);
        }
    };
    assert_eq!(wrong(|_, found| old(found)), (1, 0, 0, 0));
    // One more than was confirmed may be there, since one answer was lost; two more may not.
    let more = |times: usize| {
        wrong(|_, found| {
            for _ in 0..times {
                add(found, "device.settings_set", "id-1");
            }
        })
    };
    assert_eq!((more(1), more(2)), ((0, 0, 0, 0), (1, 0, 0, 0)));
}

#[test]
fn a_message_that_was_not_shown_or_shown_twice_is_found() {
    assert_eq!(wrong(|_, found| found.shown.clear()), (1, 0, 0, 0));
    let twice = |counts: &mut std::collections::BTreeMap<String, usize>| {
        counts.values_mut().for_each(|times| *times = 2);
    };
    assert_eq!(wrong(|_, found| twice(&mut found.shown)), (0, 1, 0, 0));
    assert_eq!(wrong(|_, found| twice(&mut found.begun)), (0, 1, 0, 0));
    let results = wrong(|_, found| add(found, "command.ended", "command-1"));
    // The second one says neither that it is done nor why it is not.
    assert_eq!(results.1, 1);
    let cut_off = wrong(|_, found| {
        found.audit[6].detail = "interrupted: stopped".into();
        found.shown.clear();
    });
    assert_eq!(cut_off, (0, 0, 0, 0));
    let failed = wrong(|_, found| found.audit[6].detail = "failed: no idea".into());
    assert_eq!(failed, (1, 0, 0, 0));
    let full = wrong(|_, found| {
        found.audit[6].detail = "failed: the disk is full".into();
        found.shown.clear();
    });
    assert_eq!(full, (0, 0, 0, 0));
}

#[test]
fn a_session_without_record_without_end_or_with_two_is_found() {
    assert_eq!(wrong(|_, found| found.sessions.clear()), (1, 0, 0, 0));
    for state in ["offered", "allowed", "running"] {
        let open = wrong(|_, found| found.sessions[0].state = state.into());
        assert_eq!(open, (2, 0, 0, 0), "{state}");
    }
    let refused = wrong(|_, found| found.sessions[0].state = "refused".into());
    assert_eq!(refused, (1, 0, 0, 0));
    for action in ["session.offered", "session.started", "session.ended"] {
        let twice = wrong(|_, found| add(found, action, "session-1"));
        assert_eq!(twice, (0, 1, 0, 0), "{action}");
    }
    let same = wrong(|_, found| found.sessions.push(found.sessions[0].clone()));
    assert_eq!(same, (0, 1, 0, 0));
}

#[test]
fn a_wrong_screen_and_one_that_cannot_be_seen_are_found() {
    assert_eq!(
        wrong(|ledger, _| ledger.wrong_screens.push("another".into())),
        (1, 0, 0, 0)
    );
    assert_eq!(
        wrong(|ledger, _| ledger.unseen.push("till".into())),
        (1, 0, 0, 0)
    );
    assert_eq!(
        wrong(|ledger, _| ledger.looks[0].stage = Stage::Viewed),
        (1, 0, 0, 0)
    );
    assert_eq!(
        wrong(|_, found| found.panics.push("server.log: panicked at".into())),
        (1, 0, 0, 0)
    );
}

#[test]
fn two_devices_with_one_name_are_found() {
    let twin = wrong(|_, found| {
        let twin = OnFile {
            unit: "00E0C5000002".into(),
            ..found.devices[0].clone()
        };
        found.devices.push(twin);
    });
    // The same name and the same key.
    assert_eq!(twin, (0, 2, 0, 0));
    let again = wrong(|_, found| add(found, "device.enrolled", "id-1"));
    assert_eq!(again, (0, 1, 0, 0));
}

#[test]
fn each_kind_of_leak_is_found() {
    let grown = |change: fn(&mut Sample)| wrong(|_, found| change(&mut found.lived[0].end));
    assert_eq!(grown(|end| end.resident *= 2), (0, 0, 1, 0));
    assert_eq!(grown(|end| end.resident += 4000), (0, 0, 0, 0));
    assert_eq!(grown(|end| end.files += 5), (0, 0, 1, 0));
    assert_eq!(grown(|end| end.sockets += 5), (0, 0, 1, 0));
    assert_eq!(grown(|end| end.threads += 4), (0, 0, 1, 0));
    assert_eq!(grown(|end| end.children += 1), (0, 0, 1, 0));
    assert_eq!(grown(|end| end.zombies += 1), (0, 0, 1, 0));
    assert_eq!(wrong(|_, found| found.lived.clear()), (0, 0, 1, 0));
    assert_eq!(wrong(|_, found| found.gauges[0].value = 1), (0, 0, 1, 0));
    let left = wrong(|_, found| found.leftovers.push("run/x.sock".into()));
    assert_eq!(left, (0, 0, 1, 0));
    let known = wrong(|_, found| found.secrets.push("a key is in agent.log".into()));
    assert_eq!(known, (0, 0, 1, 0));
    assert_eq!(wrong(|_, found| found.searched.1 = 0), (0, 0, 1, 0));
}

#[test]
fn whoever_got_in_is_found_and_an_intruder_who_tried_nothing_too() {
    let attempts = |change: fn(&mut Attempts)| {
        wrong(|ledger, _| {
            if let Some(attempts) = ledger.attempts.get_mut("noise") {
                change(attempts);
            }
        })
    };
    assert_eq!(attempts(|attempts| attempts.let_in = 2), (0, 0, 0, 2));
    assert_eq!(attempts(|attempts| attempts.refused = 0), (0, 0, 0, 1));
    assert_eq!(wrong(|ledger, _| ledger.attempts.clear()), (0, 0, 0, 1));
    let enrolled = wrong(|_, found| add(found, "device.enrolled", "thief"));
    assert_eq!(enrolled, (0, 0, 0, 1));
    let on_file = wrong(|_, found| {
        found.devices.push(OnFile {
            unit: "THIEF".into(),
            id: "thief".into(),
            name: "thief".into(),
            ..OnFile::default()
        });
    });
    assert_eq!(on_file, (0, 0, 0, 1));
    let reached = |found: &mut Found| {
        if let Some(held) = found.held.get_mut(UNIT) {
            held.connections = 2;
        }
    };
    assert_eq!(wrong(|_, found| reached(found)), (0, 0, 0, 1));
    // A ticket that was good twice is doubled.
    let twice = wrong(|_, found| add(found, "session.verified", "session-1"));
    assert_eq!(twice, (0, 1, 0, 0));
}
