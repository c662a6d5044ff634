//! Everything that the audit needs to know of the installation once it is healed and idle: asked of server, gateway and devices, and read
//! from logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::Context as _;
use serde_json::Value;

use super::guests::known;
use super::ledger::{Entry, Filed, Found, Gauge, Held, OnFile};
use super::measure::metrics;
use super::site::{get, text};
use super::workload::{PARAMETER, Work};
use crate::world::Device;

/// Lines of the audit log in one answer, and sessions.
const PAGE: u64 = 1000;
/// What a program says when it ends because of a mistake in itself.
const LAST_WORDS: [&str; 3] = [
    "panicked at",
    "a mistake in the program ends it",
    "fatal runtime error",
];

/// All but processes and files, which were looked at before anybody was asked anything.
pub(super) async fn collect(
    work: &Work<'_, '_>,
    gateway: std::net::SocketAddr,
) -> anyhow::Result<Found> {
    let mut found = Found {
        devices: devices(work).await?,
        audit: audit(work).await?,
        ..Found::default()
    };
    for member in work.members {
        let mut held = held(&member.hands).await?;
        held.connections = member.desktop.connections();
        found.held.insert(member.unit.clone(), held);
        let path = format!("/api/v1/sessions?limit={PAGE}&device={}", member.unit);
        let sessions = get(work.console, work.server, &path).await?;
        let sessions = sessions.as_array().context("no list of sessions")?;
        found.sessions.extend(sessions.iter().map(filed));
        let shown = fs::read_to_string(&member.shown).unwrap_or_default();
        for line in shown.lines() {
            *found.shown.entry(line.to_owned()).or_default() += 1;
        }
        found.gauges.push(Gauge {
            name: format!("clients at the screen of {}", member.name),
            value: number(member.desktop.active()),
            wanted: 0,
        });
    }
    older_sessions(work, &mut found).await?;
    // Nobody else is at work any more.
    let guests = work.guests.take();
    for guest in &guests {
        let held = held(&guest.device).await?;
        found.held.insert(guest.unit.clone(), held);
    }
    work.guests.replace(guests);
    found.gauges.extend(gauges(work, gateway, &found).await?);
    logs(work, &mut found)?;
    Ok(found)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Sessions that no list holds any more, since it has an end.
async fn older_sessions(work: &Work<'_, '_>, found: &mut Found) -> anyhow::Result<()> {
    let listed: BTreeSet<String> = found.sessions.iter().map(|one| one.id.clone()).collect();
    let offered = found
        .audit
        .iter()
        .filter(|entry| entry.action == "session.offered" && entry.outcome == "ok")
        .map(|entry| entry.subject.clone());
    let missing: Vec<String> = offered.filter(|id| !listed.contains(id)).collect();
    for id in missing {
        let path = format!("/api/v1/sessions/{id}");
        let session = get(work.console, work.server, &path).await?;
        found.sessions.push(filed(&session));
    }
    Ok(())
}

async fn devices(work: &Work<'_, '_>) -> anyhow::Result<Vec<OnFile>> {
    let list = get(work.console, work.server, "/api/v1/devices").await?;
    let mut devices = Vec::new();
    for device in list.as_array().context("no list of devices")? {
        let id = text(device, "id");
        let path = format!("/api/v1/devices/{id}/settings");
        let settings = get(work.console, work.server, &path).await?;
        devices.push(OnFile {
            unit: text(device, "unit_id"),
            name: text(device, "name"),
            online: device.get("online").and_then(Value::as_bool) == Some(true),
            waiting: device
                .get("commands_waiting")
                .and_then(Value::as_u64)
                .unwrap_or(u64::MAX),
            suspected: device.get("clone_suspected_at").is_some_and(Value::is_i64),
            setting: settings
                .get("values")
                .and_then(|values| values.get(PARAMETER)?.as_i64()),
            id,
        });
    }
    Ok(devices)
}

async fn held(device: &Device<'_>) -> anyhow::Result<Held> {
    let known = known(device).await?;
    let told = device
        .tell(&["registry", "get", PARAMETER, "--json"], "")
        .await?;
    let entry: Value = serde_json::from_str(&told).with_context(|| told.clone())?;
    Ok(Held {
        id: known.id,
        certificate: known.certificate,
        setting: value_in(&entry),
        connections: 0,
    })
}

/// The number that a parameter has, whether it stands alone or in a list of one.
fn value_in(entry: &Value) -> Option<i64> {
    let entry = entry.get(0).unwrap_or(entry);
    entry.get("value")?.as_i64()
}

async fn audit(work: &Work<'_, '_>) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut before = String::new();
    loop {
        let path = format!("/api/v1/audit?limit={PAGE}{before}");
        let page = get(work.console, work.server, &path).await?;
        let page = page.as_array().context("no list of lines")?;
        for line in page {
            entries.push(Entry {
                number: line.get("number").and_then(Value::as_u64).unwrap_or(0),
                actor: text(line, "actor"),
                action: text(line, "action"),
                subject: text(line, "subject"),
                outcome: text(line, "outcome"),
                detail: text(line, "detail"),
            });
        }
        match entries.last() {
            Some(last) if !page.is_empty() => before = format!("&before={}", last.number),
            Some(_) | None => break,
        }
    }
    entries.reverse();
    Ok(entries)
}

fn filed(session: &Value) -> Filed {
    Filed {
        id: text(session, "session"),
        reason: text(session, "reason"),
        state: text(session, "state"),
        code: text(session, "end_code"),
    }
}

async fn gauges(
    work: &Work<'_, '_>,
    gateway: std::net::SocketAddr,
    found: &Found,
) -> anyhow::Result<Vec<Gauge>> {
    let list = get(work.console, work.server, "/api/v1/devices").await?;
    let list = list.as_array().context("no list of devices")?;
    let behind = list.iter().filter(|device| {
        device
            .get("gateway")
            .and_then(Value::as_str)
            .is_some_and(|name| !name.is_empty())
    });
    let metrics = metrics(gateway).await?;
    let mut gauges = Vec::new();
    for (name, wanted) in [
        ("umbra_gateway_door", 0),
        ("umbra_gateway_devices", number(behind.count())),
        ("umbra_gateway_devices_waiting", 0),
        ("umbra_gateway_uplinks", 1),
        ("umbra_gateway_tunnels", 0),
        ("umbra_gateway_tunnels_waiting", 0),
    ] {
        let value = metrics
            .get(name)
            .with_context(|| format!("the gateway does not tell {name}"))?;
        gauges.push(Gauge {
            name: name.to_owned(),
            value: format!("{value:.0}").parse().unwrap_or(u64::MAX),
            wanted,
        });
    }
    let open = |state: &str| {
        let of = found
            .sessions
            .iter()
            .filter(|session| session.state == state);
        number(of.count())
    };
    for state in ["offered", "allowed", "running"] {
        gauges.push(Gauge {
            name: format!("sessions {state}"),
            value: open(state),
            wanted: 0,
        });
    }
    gauges.push(Gauge {
        name: "commands that wait".to_owned(),
        value: found.devices.iter().map(|device| device.waiting).sum(),
        wanted: 0,
    });
    Ok(gauges)
}

/// Reads all logs once: how often commands began, last words, and secrets.
fn logs(work: &Work<'_, '_>, found: &mut Found) -> anyhow::Result<()> {
    let mut secrets = work.secrets.borrow().clone();
    if let Some(token) = work.console.token() {
        secrets.push(("the administrator's log-in".to_owned(), token));
    }
    for member in work.members {
        let key = fs::read_to_string(member.hands.root().join("wfs/umbra/device.key"))?;
        let line = key
            .lines()
            .find(|line| line.len() > 32 && !line.contains('-'));
        let line = line.context("no private key")?.to_owned();
        secrets.push((format!("the key of {}", member.name), line));
    }
    let mut begun: BTreeMap<String, usize> = BTreeMap::new();
    let mut logs = 0;
    for entry in fs::read_dir(work.scratch.path("log"))? {
        let path = entry?.path();
        let log = fs::read(&path)?;
        let log = String::from_utf8_lossy(&log);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        logs += 1;
        for line in log.lines() {
            if let Some((_, id)) = line.split_once("command begins id=") {
                let id = id.split(' ').next().unwrap_or_default();
                *begun.entry(id.to_owned()).or_default() += 1;
            }
            if LAST_WORDS.iter().any(|words| line.contains(words)) {
                found.panics.push(format!("{name}: {line}"));
            }
        }
        for (what, secret) in &secrets {
            if secret.len() >= 12 && log.contains(secret.as_str()) {
                found.secrets.push(format!("{what} is in {name}"));
            }
        }
    }
    found.begun = begun;
    found.searched = (logs, secrets.len());
    Ok(())
}
