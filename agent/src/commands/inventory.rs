//! What the device says of itself when the server asks. Nothing in here is identity, and nothing is secret.

use std::collections::BTreeMap;
use std::path::Path;

use umbra_protocol::limits;
use umbra_protocol::refusal::clip;

use super::Tools;
use crate::{clock, files};

/// The largest file of the kernel that is read.
const PROC_MAX: usize = 4 * 1024 * 1024;

/// Named facts.
pub(super) fn facts(tools: &Tools) -> BTreeMap<String, String> {
    let identity = tools.identity.borrow().clone();
    let snapshot = tools.registry.snapshot();
    let status = tools.board.now();
    let (kernel, architecture) = nix::sys::utsname::uname().map_or_else(
        |_| (String::new(), String::new()),
        |system| {
            (
                system.release().to_string_lossy().into_owned(),
                system.machine().to_string_lossy().into_owned(),
            )
        },
    );
    let addresses: Vec<String> = tools
        .os
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    let adapters: Vec<String> = tools
        .os
        .adapters()
        .iter()
        .map(|adapter| {
            let mac: Vec<String> = adapter
                .mac
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{} {}", adapter.name, mac.join(":"))
        })
        .collect();
    let facts = [
        ("unit_id", identity.unit_id().to_string()),
        ("device_id", identity.device_id().to_string()),
        ("certificate", identity.fingerprint().to_string()),
        ("certificate_not_after", clock::date(identity.not_after())),
        ("host_name", tools.os.host_name()),
        ("os", tools.os.os_name()),
        ("kernel", kernel),
        ("architecture", architecture),
        (
            "cpu",
            value_of("/proc/cpuinfo", "model name").unwrap_or_default(),
        ),
        (
            "cpu_count",
            std::thread::available_parallelism()
                .map(|n| n.to_string())
                .unwrap_or_default(),
        ),
        (
            "memory",
            value_of("/proc/meminfo", "MemTotal").unwrap_or_default(),
        ),
        (
            "memory_available",
            value_of("/proc/meminfo", "MemAvailable").unwrap_or_default(),
        ),
        ("addresses", addresses.join(" ")),
        ("adapters", adapters.join(", ")),
        ("agent_version", env!("CARGO_PKG_VERSION").to_owned()),
        (
            "agent_memory",
            value_of("/proc/self/status", "VmRSS").unwrap_or_default(),
        ),
        ("uptime_seconds", clock::uptime().to_string()),
        ("device_date", clock::date(tools.clock.now())),
        ("secure_mode", snapshot.vnc.secure_mode.to_string()),
        (
            "shadow_port",
            status
                .shadow_port
                .map(|port| port.to_string())
                .unwrap_or_default(),
        ),
        ("sessions", status.sessions.len().to_string()),
        ("settings_revision", snapshot.server_revision.to_string()),
        (
            "warnings",
            status
                .warnings
                .values()
                .cloned()
                .collect::<Vec<_>>()
                .join(" "),
        ),
    ];
    facts
        .into_iter()
        .filter(|(_, fact)| !fact.is_empty())
        .map(|(name, fact)| (name.to_owned(), shortened(fact)))
        .collect()
}

/// `NAME : VALUE` in one of the kernel's files.
fn value_of(path: &str, name: &str) -> Option<String> {
    let text = files::read_text(Path::new(path), PROC_MAX).ok()??;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

/// One fact at the length that a message may hold, and without what could move a cursor.
fn shortened(fact: String) -> String {
    // `clip` cuts at a sentence's length, which is shorter than any fact may be.
    const _: () = assert!(limits::SENTENCE <= limits::PARAMETER_TEXT);
    clip(fact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_by_name() {
        let memory = value_of("/proc/meminfo", "MemTotal").expect("every Linux has memory");
        assert!(memory.ends_with("kB"), "{memory}");
        assert_eq!(value_of("/proc/meminfo", "NoSuchThing"), None);
        assert_eq!(value_of("/no/such/file", "MemTotal"), None);
    }
}
