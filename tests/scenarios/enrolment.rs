//! Bad input and faults around being taken on: whatever is given, and whenever the line breaks, the person reads one
//! sentence with a stable code, the server has it on record, and the device is what it was before.

mod afterwards;
mod keys;
mod reimaged;
mod servers;

use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::program::{product, run};
use umbra_tests::scratch::Scratch;
pub(crate) use umbra_tests::world::network_card;
use umbra_tests::world::{Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig};

/// The agent's exit codes, as its help states them.
const UNAVAILABLE: i32 = 69;
const TRY_AGAIN: i32 = 75;
pub(crate) const PERMISSION: i32 = 77;

/// A server with its administrator.
pub(crate) async fn site(scratch: &Scratch) -> anyhow::Result<(Server<'_>, Console<'_>)> {
    let server = Server::start(scratch, ServerConfig::default()).await?;
    let console = Console::administrator(scratch, &server).await?;
    Ok((server, console))
}

/// A device whose agent runs and that no server has taken on.
pub(crate) async fn running<'s>(
    scratch: &'s Scratch,
    name: &str,
) -> anyhow::Result<(Device<'s>, String)> {
    let mut device = Device::new(scratch, name, DeviceConfig::default())?;
    device.start()?;
    device.wait_for_stage("not_enrolled").await?;
    let id = text(&device.status().await?, "/identity/device_id");
    Ok((device, id))
}

/// What the agent is told so that it has the device taken on; the key comes through standard input.
pub(crate) fn enroll_words<'w>(address: &'w str, fingerprint: &'w str) -> [&'w str; 7] {
    [
        "enroll",
        "--address",
        address,
        "--fingerprint",
        fingerprint,
        "--key-file",
        "-",
    ]
}

/// Asks for the device to be taken on, whatever comes of it.
pub(crate) async fn enroll(
    device: &Device<'_>,
    address: &str,
    fingerprint: &str,
    key: &str,
) -> anyhow::Result<Output> {
    let arguments = enroll_words(address, fingerprint);
    Ok(device.output(&arguments, key).await?)
}

/// A text in a JSON document; empty if there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// How a program ended and what it said, for a failure.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A refusal by the agent's command line: this exit code, and a sentence that a person can read with all of these words.
pub(crate) fn refused(output: &Output, exit: i32, words: &[&str]) -> anyhow::Result<String> {
    ensure!(output.status.code() == Some(exit), "{}", said(output));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    readable(&told)?;
    for word in words {
        ensure!(told.contains(word), "“{word}” is missing in: {told}");
    }
    Ok(told)
}

/// Whether a text is for people: at most three lines, nothing of the program's inside.
pub(crate) fn readable(told: &str) -> anyhow::Result<()> {
    let lines = told.trim().lines().count();
    ensure!((1..=3).contains(&lines), "{lines} lines: {told}");
    const INSIDE: [&str; 9] = [
        "Error", "Err(", "Some(", "Os {", "Custom", "panicked", "{", "\u{1b}", "rustls",
    ];
    for word in INSIDE {
        ensure!(!told.contains(word), "“{word}” is in: {told}");
    }
    // A type's path, not an address like ::1.
    let path = told.match_indices("::").any(|(at, _)| {
        told[at + 2..]
            .chars()
            .next()
            .is_some_and(char::is_alphabetic)
    });
    ensure!(!path, "a type's name is in: {told}");
    let codes = told.matches('[').count();
    ensure!(codes <= 1, "{codes} codes are in: {told}");
    Ok(())
}

/// The audit log's lines with this action and outcome, newest first.
pub(crate) async fn audited(
    console: &Console<'_>,
    action: &str,
    outcome: &str,
) -> anyhow::Result<Vec<Value>> {
    let all = console.tell(&["audit"], "").await?;
    let all = all.as_array().context("no list of lines")?;
    let wanted =
        |line: &&Value| text(line, "/action") == action && text(line, "/outcome") == outcome;
    Ok(all.iter().filter(wanted).cloned().collect())
}

/// What a console prints for people.
pub(crate) async fn printed(
    scratch: &Scratch,
    console: &Console<'_>,
    arguments: &[&str],
) -> anyhow::Result<String> {
    let mut command = Command::new(product("umbra")?);
    command
        .arg("--config")
        .arg(console.config())
        .args(arguments);
    let output = run(scratch, "console-text", &mut command, b"", PATIENCE).await?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The server's list of devices.
pub(crate) async fn devices(console: &Console<'_>) -> anyhow::Result<Vec<Value>> {
    let all = console.tell(&["devices"], "").await?;
    Ok(all.as_array().context("no list of devices")?.clone())
}

/// Makes keys, as `umbra keys create` with these options; each with its ID.
pub(crate) async fn keys(
    console: &Console<'_>,
    options: &[&str],
) -> anyhow::Result<Vec<(String, String)>> {
    let made = console
        .tell(&[&["keys", "create"], options].concat(), "")
        .await?;
    let made = made.as_array().context("no list of keys")?;
    Ok(made
        .iter()
        .map(|key| (text(key, "/id"), text(key, "/key")))
        .collect())
}

/// Makes one key.
pub(crate) async fn key(
    console: &Console<'_>,
    options: &[&str],
) -> anyhow::Result<(String, String)> {
    let made = keys(console, options).await?;
    made.into_iter().next().context("no key")
}

/// The server's record of a key.
pub(crate) async fn key_on_file(console: &Console<'_>, id: &str) -> anyhow::Result<Value> {
    let all = console.tell(&["keys", "list"], "").await?;
    let found = all
        .as_array()
        .and_then(|all| all.iter().find(|key| text(key, "/id") == id));
    found.cloned().context("the key is not on file")
}

/// Nobody took the device on, and its identity is the one that it had.
pub(crate) async fn still_alone(device: &Device<'_>, id: &str) -> anyhow::Result<Value> {
    let status = device.status().await?;
    ensure!(text(&status, "/stage") == "not_enrolled", "{status}");
    ensure!(text(&status, "/identity/device_id") == id, "{status}");
    ensure!(
        !device.root().join("wfs/umbra/enrolment.json").exists(),
        "an enrolment was kept"
    );
    Ok(status)
}

/// A good key from this server takes the device on as the one that it was.
pub(crate) async fn taken_on(
    server: &Server<'_>,
    console: &Console<'_>,
    device: &Device<'_>,
    id: &str,
) -> anyhow::Result<()> {
    let key = console.one_time_key().await?;
    device.enrol(server, &key).await?;
    let status = device.wait_for_stage("online").await?;
    ensure!(text(&status, "/identity/device_id") == id, "{status}");
    Ok(())
}
