//! Gateways: the list, one of them in full, what a new one needs, and moving devices between them. A gateway's key is
//! written to a file for its owner and shown to nobody.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use umbra_protocol::CommandId;
use umbra_protocol::api::{Gateway, GatewayChange, GatewayKeystore, NewGateway};
use umbra_protocol::command::CommandState;

use super::Call;
use super::devices::POLL;
use crate::api::{ApiError, Client};
use crate::cli::{GatewaysCommand, Limit};
use crate::config::write_private;
use crate::failure::Failure;
use crate::table::{Facts, Table};
use crate::text;

/// No chain of certificates is longer than this.
const ROOT_FILE_MAX: u64 = 256 * 1024;

pub(super) async fn run(call: &mut Call<'_, '_>, command: GatewaysCommand) -> Result<(), Failure> {
    let client = call.client()?;
    match command {
        GatewaysCommand::List => list(call, &client).await,
        GatewaysCommand::Show { name } => {
            let reply = client.gateway(&name).await?;
            if call.json {
                return call.write_json(&reply.json);
            }
            let facts = facts(&reply.value, call.now());
            call.write(|out| facts.write(out))
        }
        GatewaysCommand::Create {
            name,
            address,
            external,
            hosts,
            limit,
            root,
            out,
        } => {
            let root = root.as_deref().map(read_root).transpose()?;
            // Before anything is made: a key that cannot be written is lost.
            make_folder(&out)?;
            let new = NewGateway {
                name: name.clone(),
                internal: address.to_string(),
                external: external.map(|address| address.to_string()),
                hosts,
                limit,
                root,
            };
            let made = client.add_gateway(&new).await;
            if made.is_err() {
                // It is as empty as it was made.
                let _ = fs::remove_dir(&out);
            }
            keep(call, &name, &made?.value, &out)
        }
        GatewaysCommand::Certificate { name, out } => {
            make_folder(&out)?;
            let made = client.gateway_certificate(&name).await;
            if made.is_err() {
                let _ = fs::remove_dir(&out);
            }
            keep(call, &name, &made?.value, &out)
        }
        GatewaysCommand::Set {
            name,
            address,
            external,
            limit,
        } => {
            let change = GatewayChange {
                internal: address.map(|address| address.to_string()),
                external: external.map(|address| address.to_string()),
                limit: limit.map(|Limit(limit)| limit.unwrap_or(0)),
            };
            if change == GatewayChange::default() {
                return Err(Failure::Usage(
                    "nothing to change was named: --address, --external or --limit".to_owned(),
                ));
            }
            let moved = change.internal.is_some() || change.external.is_some();
            let reply = client.change_gateway(&name, &change).await?;
            let gateway = &reply.value;
            let mut sentence = format!(
                "{} is at {} (outside {}) and may connect {}.",
                gateway.name,
                gateway.internal,
                gateway.external,
                limit_text(gateway.limit)
            );
            if moved && gateway.certificate_until.is_some() {
                sentence.push_str(&format!(
                    " Its certificate may not cover a new address: umbra gateways certificate {} --out FOLDER",
                    gateway.name
                ));
            }
            call.say(&sentence, &reply.json)
        }
        GatewaysCommand::Remove { name } => {
            client.remove_gateway(&name).await?;
            call.say(
                &format!("{name} is off the file; devices that only know the way through it stay away until they are moved."),
                &json!({"removed": name}),
            )
        }
        GatewaysCommand::Move {
            devices,
            to,
            timeout,
        } => give(call, &client, &devices, Some(to), timeout).await,
        GatewaysCommand::Detach { devices, timeout } => {
            give(call, &client, &devices, None, timeout).await
        }
    }
}

async fn list(call: &mut Call<'_, '_>, client: &Client) -> Result<(), Failure> {
    let reply = client.gateways().await?;
    if call.json {
        return call.write_json(&reply.json);
    }
    let mut table = Table::new(&[
        "NAME", "STATE", "DEVICES", "LIMIT", "ADDRESS", "EXTERNAL", "VERSION", "NOTES",
    ]);
    let now = call.now();
    for gateway in &reply.value {
        let limit = gateway.limit.map_or("none".to_owned(), |n| n.to_string());
        table.row([
            gateway.name.as_str(),
            state(gateway),
            &gateway.devices.to_string(),
            &limit,
            &gateway.internal,
            &gateway.external,
            gateway.version.as_deref().unwrap_or(""),
            &notes(gateway, now),
        ]);
    }
    if table.is_empty() {
        let sentence = "No gateway is on file. Make one: umbra gateways create NAME --address HOST --out FOLDER";
        return call.write(|out| writeln!(out, "{sentence}"));
    }
    call.write(|out| table.write(out))
}

fn state(gateway: &Gateway) -> &'static str {
    if gateway.attached {
        "attached"
    } else {
        "not attached"
    }
}

fn notes(gateway: &Gateway, now: i64) -> String {
    const SOON: i64 = 30 * 24 * 60 * 60;
    let mut notes: Vec<String> = gateway.trouble.iter().cloned().collect();
    if let Some(until) = gateway
        .certificate_until
        .filter(|until| *until < now + SOON)
    {
        notes.push(format!(
            "its certificate ends {}",
            text::relative(until, now)
        ));
    }
    notes.join(", ")
}

fn limit_text(limit: Option<u32>) -> String {
    limit.map_or("any number of devices".to_owned(), |limit| {
        format!("{limit} devices at most")
    })
}

fn facts(gateway: &Gateway, now: i64) -> Facts {
    let mut facts = Facts::new();
    facts.add("Name", &gateway.name);
    facts.add("State", state(gateway));
    facts.add_some("Trouble", gateway.trouble.as_ref());
    facts.add_some("Since", gateway.since.map(|at| text::moment(at, now)));
    facts.add("Address", &gateway.internal);
    facts.add("External", &gateway.external);
    facts.add("Devices", gateway.devices.to_string());
    facts.add("Limit", limit_text(gateway.limit));
    facts.add_some("Version", gateway.version.as_ref());
    let certificate = gateway.certificate_until.map_or_else(
        || "of a chain of its own".to_owned(),
        |until| format!("until {}", text::moment(until, now)),
    );
    facts.add("Certificate", certificate);
    facts
}

fn file_failure(file: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Failure {
    let file = file.display().to_string();
    move |source| Failure::File {
        file,
        doing,
        source,
    }
}

fn read_root(file: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(file)
        .and_then(|opened| opened.take(ROOT_FILE_MAX).read_to_string(&mut text))
        .map_err(file_failure(file, "read"))?;
    if text.contains("PRIVATE KEY") {
        return Err(Failure::Usage(format!(
            "{} holds a private key; name a file with the root certificate alone",
            file.display()
        )));
    }
    Ok(text)
}

/// Makes the folder for a keystore, for its owner only.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut inside = fs::read_dir(folder).map_err(file_failure(folder, "read"))?;
            if inside.next().is_some() {
                return Err(Failure::Usage(format!(
                    "{} is not empty; name a folder that is not there yet",
                    folder.display()
                )));
            }
            Ok(())
        }
        Err(error) => Err(file_failure(folder, "written")(error)),
    }
}

fn keep(
    call: &mut Call<'_, '_>,
    name: &str,
    keystore: &GatewayKeystore,
    folder: &Path,
) -> Result<(), Failure> {
    let key = keystore.key.as_ref().map(|key| key.reveal());
    let parts = [
        ("chain.pem", keystore.chain.as_deref()),
        ("key.pem", key),
        ("servers.pem", Some(keystore.servers.as_str())),
    ];
    let mut written = Vec::new();
    for (file, text) in parts {
        let Some(text) = text else { continue };
        let path = folder.join(file);
        if let Err(error) = write_private(&path, text.as_bytes()) {
            call.around.note(&format!(
                "{name} is on file, but its key could not be kept. Make another one: umbra gateways certificate {name} --out \
                 FOLDER"
            ));
            return Err(file_failure(&path, "written")(error));
        }
        written.push(file);
    }
    let folder = folder.display().to_string();
    let what = written.join(", ");
    let sentence = if keystore.key.is_some() {
        format!(
            "What the gateway {name} needs is in {folder}: {what}. Bring it to the gateway's machine as /etc/umbra-gateway; \
             key.pem is kept nowhere else."
        )
    } else {
        format!(
            "What the gateway {name} needs to know this server is in {folder}: {what}. Put the gateway's own chain.pem and \
             key.pem beside it."
        )
    };
    let document = json!({"gateway": name, "folder": folder, "files": written});
    call.say(&sentence, &document)
}

/// One device on its way.
struct Moving {
    device: String,
    command: Option<CommandId>,
    state: &'static str,
    sentence: String,
}

impl Moving {
    fn json(&self) -> Value {
        json!({"device": self.device, "command": self.command, "state": self.state, "sentence": self.sentence})
    }

    fn line(&self) -> String {
        let Self {
            device,
            state,
            sentence,
            ..
        } = self;
        text::printable(format!("{device}: {state}. {sentence}").trim_end())
    }
}

/// Gives each device its new ways, and waits for what each says about them.
async fn give(
    call: &mut Call<'_, '_>,
    client: &Client,
    devices: &[String],
    to: Option<String>,
    limit: Duration,
) -> Result<(), Failure> {
    let end = Instant::now() + limit;
    let mut all = Vec::with_capacity(devices.len());
    for device in devices {
        let moving = |command, state, sentence| Moving {
            device: device.clone(),
            command,
            state,
            sentence,
        };
        all.push(match client.put_gateway(device, to.clone()).await {
            Ok(given) => moving(Some(given.value.id), WAITING, String::new()),
            // One device's no is not the others'.
            Err(ApiError::Problem(problem)) => moving(None, "refused", problem.detail),
            Err(error) => return Err(error.into()),
        });
    }
    loop {
        for moving in all.iter_mut().filter(|moving| moving.state == WAITING) {
            look(client, moving).await?;
        }
        let waiting = all.iter().any(|moving| moving.state == WAITING);
        if !waiting || Instant::now() >= end {
            break;
        }
        sleep(POLL.min(end.saturating_duration_since(Instant::now()))).await;
    }
    for moving in all.iter_mut().filter(|moving| moving.state == WAITING) {
        moving.sentence = format!(
            "No answer within {}; the command waits for the device at the server.",
            text::span(limit)
        );
    }
    let failed = all.iter().filter(|moving| moving.state != DONE).count();
    if call.json {
        let documents: Vec<Value> = all.iter().map(Moving::json).collect();
        call.write_json(&documents)?;
    } else {
        call.write(|out| {
            all.iter()
                .try_for_each(|moving| writeln!(out, "{}", moving.line()))
        })?;
    }
    if failed == 0 {
        return Ok(());
    }
    let whole = all.len();
    let what = match to {
        Some(to) => format!("did not move to {to}"),
        None => "kept its gateways".to_owned(),
    };
    Err(Failure::Device(match whole {
        1 => format!("{} {what}", text::printable(&devices[0])),
        _ => format!("{failed} of {whole} devices failed: each {what}"),
    }))
}

const WAITING: &str = "waiting";
const DONE: &str = "done";

/// How far a device is.
async fn look(client: &Client, moving: &mut Moving) -> Result<(), Failure> {
    let all = client.commands(&moving.device).await?;
    let found = all
        .value
        .into_iter()
        .find(|command| Some(command.id) == moving.command);
    let Some((command, state)) = found.and_then(|command| {
        let state = command.state?;
        Some((command, state))
    }) else {
        return Ok(());
    };
    moving.state = match state {
        CommandState::Done => DONE,
        CommandState::Failed => "failed",
        CommandState::Interrupted => "interrupted",
    };
    moving.sentence = command.sentence.unwrap_or_default();
    Ok(())
}
