//! Whether what was taken was given back: memory, files, sockets, threads, children, places; and whether something became known.

use super::super::ledger::{Found, Lived};
use super::{Check, Kind};

/// How much memory may grow: this many percent, and this many KiB. Allocators keep some, and caches fill.
const MEMORY: (u64, u64) = (150, 6 * 1024);
/// How many more files, and sockets, there may be: a connection that is just being set up or given up.
const FILES: u64 = 4;
/// How many more threads there may be: those for blocking work come and go.
const THREADS: u64 = 3;

fn each(found: &Found, wrong: impl Fn(&Lived) -> Option<String>) -> Vec<String> {
    let mut wrong: Vec<String> = found
        .lived
        .iter()
        .filter_map(|lived| Some(format!("{} {}", lived.name, wrong(lived)?)))
        .collect();
    if found.lived.is_empty() {
        wrong.push("no process lived long enough to be compared".to_owned());
    }
    wrong
}

/// Resident memory of the processes that lived.
pub(super) fn memory(found: &Found) -> Check {
    let wrong = each(found, |lived| {
        let most = lived.warm.resident * MEMORY.0 / 100 + MEMORY.1;
        (lived.end.resident > most).then(|| {
            format!(
                "had {} KiB and has {}, {most} at most",
                lived.warm.resident, lived.end.resident
            )
        })
    });
    let told: Vec<String> = found
        .lived
        .iter()
        .map(|lived| {
            format!(
                "{}: {} KiB → {} KiB in {} s",
                lived.name, lived.warm.resident, lived.end.resident, lived.seconds
            )
        })
        .collect();
    let what = format!(
        "memory of {} processes that lived from the first look to the last ({} were born later)",
        found.lived.len(),
        found.young
    );
    Check::new(Kind::Leaked, what, wrong).telling(told)
}

/// Files, sockets, threads and children of the processes that lived.
pub(super) fn handles(found: &Found) -> Check {
    let mut wrong = Vec::new();
    let mut told = Vec::new();
    for lived in &found.lived {
        let (warm, end) = (&lived.warm, &lived.end);
        told.push(format!(
            "{}: {} files → {}, {} sockets → {}, {} threads → {}",
            lived.name, warm.files, end.files, warm.sockets, end.sockets, warm.threads, end.threads
        ));
        for (what, before, now, more) in [
            ("files", warm.files, end.files, FILES),
            ("sockets", warm.sockets, end.sockets, FILES),
            ("threads", warm.threads, end.threads, THREADS),
            ("children", warm.children, end.children, 0),
        ] {
            if now > before + more {
                wrong.push(format!("{} had {before} {what} and has {now}", lived.name));
            }
        }
        if end.zombies > 0 {
            wrong.push(format!(
                "{} has {} dead children that it does not count out",
                lived.name, end.zombies
            ));
        }
    }
    let what = "files, sockets and threads of the same processes, and no dead children";
    Check::new(Kind::Leaked, what, wrong).telling(told)
}

/// Numbers of the moment.
pub(super) fn gauges(found: &Found) -> Check {
    let wrong = found
        .gauges
        .iter()
        .filter(|gauge| gauge.value != gauge.wanted)
        .map(|gauge| {
            format!(
                "{} is {}, and it must be {}",
                gauge.name, gauge.value, gauge.wanted
            )
        })
        .collect();
    let told: Vec<String> = found
        .gauges
        .iter()
        .map(|gauge| format!("{} {}", gauge.name, gauge.value))
        .collect();
    Check::new(Kind::Leaked, "numbers of the moment, at rest", wrong).telling(told)
}

/// Files and sockets.
pub(super) fn leftovers(found: &Found) -> Check {
    let what = "no file or socket left behind in the folders of the programs";
    Check::new(Kind::Leaked, what, found.leftovers.clone())
}

/// Secrets in logs.
pub(super) fn secrets(found: &Found) -> Check {
    let (logs, secrets) = found.searched;
    let mut wrong = found.secrets.clone();
    if secrets == 0 || logs == 0 {
        wrong.push("nothing was looked for".to_owned());
    }
    let what = format!("{secrets} secrets are in none of {logs} logs");
    Check::new(Kind::Leaked, what, wrong)
}
