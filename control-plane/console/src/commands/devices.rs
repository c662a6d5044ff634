//! Devices: the list, one of them in full, its name, its parameters, and commands to it.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use umbra_protocol::api::{CommandInfo, Device, DeviceSettings, NewCommand, Progress};
use umbra_protocol::command::{Action, CommandState};
use umbra_protocol::settings::Value;
use umbra_protocol::{CommandId, Fingerprint};

use super::Call;
use crate::api::{Client, Reply};
use crate::cli::{ActionArg, DevicesArgs, DevicesCommand};
use crate::failure::Failure;
use crate::table::{Facts, Table};
use crate::text;

/// How often the server is asked how far a command is.
pub(super) const POLL: Duration = Duration::from_secs(1);

pub(super) async fn run(call: &mut Call<'_, '_>, args: DevicesArgs) -> Result<(), Failure> {
    let Some(command) = args.command else {
        return list(call, args.query.as_deref()).await;
    };
    if let Some(query) = args.query {
        return Err(Failure::Usage(format!(
            "“{query}” stands before a command, where nothing is expected"
        )));
    }
    let client = call.client()?;
    match command {
        DevicesCommand::Show { device } => {
            let reply = client.device(&device).await?;
            if call.json {
                return call.write_json(&reply.json);
            }
            let facts = facts(&reply.value, call.now());
            call.write(|out| facts.write(out))
        }
        DevicesCommand::Rename { device, name } => {
            let reply = client.rename(&device, name).await?;
            call.say(
                &format!(
                    "{} is now called {}.",
                    reply.value.unit_id, reply.value.name
                ),
                &reply.json,
            )
        }
        DevicesCommand::Remove { device } => {
            client.remove(&device).await?;
            call.say(
                &format!("{device} is off the file; it needs a new key to come back."),
                &json!({"removed": device}),
            )
        }
        DevicesCommand::AcceptCertificate {
            device,
            fingerprint,
        } => {
            let certificate = match fingerprint {
                Some(fingerprint) => fingerprint,
                None => confirmed(call, &client, &device).await?,
            };
            let reply = client.accept_certificate(&device, certificate).await?;
            let sentence = format!(
                "{} is known by the certificate {} now.",
                reply.value.name, reply.value.certificate
            );
            call.say(&sentence, &reply.json)
        }
        DevicesCommand::RefuseCertificate {
            device,
            fingerprint,
        } => {
            let certificate = match fingerprint {
                Some(fingerprint) => fingerprint,
                None => presented(&client, &device).await?.1,
            };
            let reply = client.refuse_certificate(&device, certificate).await?;
            let sentence = format!(
                "{} stays known by the certificate {}; who has the other one stays out.",
                reply.value.name, reply.value.certificate
            );
            call.say(&sentence, &reply.json)
        }
        DevicesCommand::NotCloned { device } => {
            let reply = client.clear_clone(&device).await?;
            let sentence = format!("{} is not held for a clone any more.", reply.value.name);
            call.say(&sentence, &reply.json)
        }
        DevicesCommand::Settings { device, set, unset } => {
            settings(call, &client, &device, set, unset).await
        }
        DevicesCommand::Commands { device } => {
            let reply = client.commands(&device).await?;
            if call.json {
                return call.write_json(&reply.json);
            }
            let now = call.now();
            let mut table =
                Table::new(&["GIVEN", "COMMAND", "BY", "STATE", "WHAT THE DEVICE SAYS"]);
            for command in &reply.value {
                table.row(command_row(command, now));
            }
            if table.is_empty() {
                return call.write(|out| writeln!(out, "No command was given to this device."));
            }
            call.write(|out| table.write(out))
        }
        DevicesCommand::Command {
            device,
            wait,
            timeout,
            action,
        } => {
            let command = NewCommand {
                action: action_of(action),
            };
            let reply = client.command(&device, &command).await?;
            give(call, &client, &device, reply, wait.then_some(timeout)).await
        }
    }
}

async fn list(call: &mut Call<'_, '_>, query: Option<&str>) -> Result<(), Failure> {
    let reply = call.client()?.devices(query).await?;
    if call.json {
        return call.write_json(&reply.json);
    }
    let now = call.now();
    let mut table = Table::new(&[
        "NAME",
        "UNIT ID",
        "STATE",
        "LAST SEEN",
        "SYSTEM",
        "AGENT",
        "VIA",
        "ADDRESS",
        "NOTES",
    ]);
    for device in &reply.value {
        table.row([
            device.name.as_str(),
            device.unit_id.as_str(),
            state(device),
            &device
                .last_seen
                .map_or("never".to_owned(), |at| text::relative(at, now)),
            &device.os,
            &device.agent_version,
            via(device),
            device.shadow_addresses.first().map_or("", String::as_str),
            &notes(device),
        ]);
    }
    if table.is_empty() {
        let sentence = match query {
            Some(query) => format!("No device matches “{}”.", text::printable(query)),
            None => "No device is on file. Make a key for one: umbra keys export".to_owned(),
        };
        return call.write(|out| writeln!(out, "{sentence}"));
    }
    let advice: Vec<String> = reply.value.iter().flat_map(advice).collect();
    call.write(|out| {
        table.write(out)?;
        if !advice.is_empty() {
            writeln!(out)?;
        }
        for line in &advice {
            writeln!(out, "{}", text::printable(line))?;
        }
        Ok(())
    })
}

/// What an administrator has to decide about a device, and how.
fn advice(device: &Device) -> Vec<String> {
    let (name, unit) = (&device.name, &device.unit_id);
    let mut advice = Vec::new();
    if device.conflicting_certificate.is_some() {
        advice.push(format!(
            "{name}: one replacement waits for you. If the device was re-imaged: umbra devices accept-certificate {unit}; if not, \
             somebody poses as it: umbra devices refuse-certificate {unit}"
        ));
    }
    if device.clone_suspected_at.is_some() {
        advice.push(format!(
            "{name}: its disk was copied. The machine that comes next gets a new key by itself (if it did not: umbra devices command \
             {unit} rekey); what to do with the other: umbra devices show {unit}"
        ));
    } else if device.copy_refused_at.is_some() {
        advice.push(format!(
            "{name}: a copy of its disk still comes and is refused. Give that machine an identity of its own: umbra devices show {unit}; \
             when that is done: umbra devices not-cloned {unit}"
        ));
    }
    advice
}

fn state(device: &Device) -> &'static str {
    if device.online { "online" } else { "offline" }
}

/// The way of its link.
fn via(device: &Device) -> &str {
    match &device.gateway {
        Some(gateway) => gateway,
        None if device.online => "direct",
        None => "",
    }
}

fn notes(device: &Device) -> String {
    let mut notes = Vec::new();
    if device.conflicting_certificate.is_some() {
        notes.push("REPLACEMENT PENDING: another certificate was presented".to_owned());
    }
    if device.clone_suspected_at.is_some() {
        notes.push("CLONED: two machines have its key".to_owned());
    }
    if device.copy_refused_at.is_some() {
        notes.push("a copy of it is refused".to_owned());
    }
    if !device.settings_refused.is_empty() {
        notes.push(format!(
            "{} settings refused",
            device.settings_refused.len()
        ));
    } else if device.settings_applied < device.settings_revision {
        notes.push("settings pending".to_owned());
    }
    if device.commands_waiting > 0 {
        notes.push(format!("{} commands waiting", device.commands_waiting));
    }
    notes.join(", ")
}

fn facts(device: &Device, now: i64) -> Facts {
    let mut facts = Facts::new();
    facts.add("Name", &device.name);
    facts.add("Unit ID", device.unit_id.as_str());
    facts.add("Device ID", device.id.to_string());
    facts.add("State", state(device));
    facts.add_some(
        "Via",
        device
            .gateway
            .as_ref()
            .map(|gateway| format!("gateway {gateway}"))
            .or(device.online.then(|| "direct".to_owned())),
    );
    facts.add(
        "Last seen",
        device
            .last_seen
            .map_or("never".to_owned(), |at| text::moment(at, now)),
    );
    facts.add("Taken on", text::moment(device.enrolled_at, now));
    facts.add("System", &device.os);
    facts.add("Agent", &device.agent_version);
    facts.add("Shadowing", device.shadow_addresses.join(", "));
    facts.add("Certificate", device.certificate.to_string());
    if let Some(other) = &device.conflicting_certificate {
        facts.add(
            "CONFLICT",
            format!("somebody with this unit ID presents the certificate {other}"),
        );
        facts.add(
            "",
            "if the device was re-imaged: umbra devices accept-certificate; if not, somebody poses as it: umbra devices refuse-certificate",
        );
    }
    if let Some(since) = device.clone_suspected_at {
        facts.add(
            "CLONE",
            format!(
                "two machines have taken turns under this key since {}: a disk was copied",
                text::moment(since, now)
            ),
        );
        facts.add(
            "",
            "the first that comes gets a new key by itself; give the other one “umbra-agent identity --replace --new-unit-id” and a key of its own",
        );
        facts.add(
            "",
            "if the key was not replaced: umbra devices command DEVICE rekey; if it is no clone: umbra devices not-cloned DEVICE",
        );
    }
    if let Some(since) = device.copy_refused_at {
        facts.add(
            "COPY",
            format!(
                "a machine with a key that this device no longer has is refused since {}: a copy, or this device set back to an old state",
                text::moment(since, now)
            ),
        );
        facts.add(
            "",
            "on that machine: “umbra-agent identity --replace --new-unit-id”, then a key of its own; when that is done: umbra devices not-cloned DEVICE",
        );
    }
    let revisions = format!(
        "revision {} of {} applied",
        device.settings_applied, device.settings_revision
    );
    facts.add("Settings", revisions);
    for (name, sentence) in &device.settings_refused {
        facts.add("Refused", format!("{name}: {sentence}"));
    }
    facts.add("Commands", format!("{} waiting", device.commands_waiting));
    facts
}

/// A device, and the certificate that somebody presents in place of its own.
async fn presented(client: &Client, device: &str) -> Result<(Device, Fingerprint), Failure> {
    let device = client.device(device).await?.value;
    match device.conflicting_certificate {
        Some(presented) => Ok((device, presented)),
        None => Err(Failure::Device(format!(
            "{} has not presented another certificate",
            device.name
        ))),
    }
}

/// The certificate that the device presents instead of the one on file, once a person has agreed.
async fn confirmed(
    call: &mut Call<'_, '_>,
    client: &Client,
    device: &str,
) -> Result<Fingerprint, Failure> {
    let (device, presented) = presented(client, device).await?;
    if !call.around.person.is_there() {
        return Err(Failure::Usage(format!(
            "nobody is there to agree; name the certificate to accept with --fingerprint (presented is {presented})"
        )));
    }
    call.around.note(&format!(
        "{} ({})\n  on file:    {}\n  presented:  {presented}\nAccept it only if this device was re-imaged: whoever holds its \
         key is this device from then on.",
        text::printable(&device.name),
        device.unit_id,
        device.certificate
    ));
    let answer = call
        .around
        .person
        .ask("Accept the presented certificate? (yes/no) ")
        .map_err(Failure::Terminal)?;
    if answer.is_some_and(|answer| answer.trim().eq_ignore_ascii_case("yes")) {
        Ok(presented)
    } else {
        Err(Failure::Device(
            "the certificate was not accepted; nothing was changed".to_owned(),
        ))
    }
}

async fn settings(
    call: &mut Call<'_, '_>,
    client: &Client,
    device: &str,
    set: Vec<(String, Value)>,
    unset: Vec<String>,
) -> Result<(), Failure> {
    let before = client.settings(device).await?;
    if set.is_empty() && unset.is_empty() {
        return show_settings(call, &before);
    }
    let mut values = before.value.values;
    for name in &unset {
        if values.remove(name).is_none() {
            return Err(Failure::Usage(format!(
                "{name} is not among the parameters that the server decides for {device}"
            )));
        }
    }
    values.extend(set);
    let after = client
        .put_settings(device, &DeviceSettings { values })
        .await?;
    show_settings(call, &after)
}

fn show_settings(call: &mut Call<'_, '_>, reply: &Reply<DeviceSettings>) -> Result<(), Failure> {
    if call.json {
        return call.write_json(&reply.json);
    }
    let mut table = Table::new(&["NAME", "VALUE"]);
    for (name, value) in &reply.value.values {
        // As it has to be typed, so that a text "5900" is told apart from a number.
        table.row([
            name.clone(),
            serde_json::to_string(value).unwrap_or_else(|_| value.to_string()),
        ]);
    }
    if table.is_empty() {
        return call.write(|out| writeln!(out, "The server decides nothing for this device."));
    }
    call.write(|out| table.write(out))
}

fn action_of(action: ActionArg) -> Action {
    match action {
        ActionArg::Reboot => Action::Reboot,
        ActionArg::Shutdown => Action::Shutdown,
        ActionArg::Update => Action::Update,
        ActionArg::Message { text } => Action::Message { text },
        ActionArg::Inventory => Action::Inventory,
        ActionArg::Renew => Action::Renew,
        ActionArg::Rekey => Action::Rekey,
    }
}

async fn give(
    call: &mut Call<'_, '_>,
    client: &Client,
    device: &str,
    given: Reply<CommandInfo>,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    let id = given.value.id;
    let Some(limit) = wait else {
        let sentence = format!(
            "{} is given to {device}; it runs when the device is online. With --wait you see how it went.",
            given.value.action
        );
        return call.say(&sentence, &given.json);
    };
    let end = Instant::now() + limit;
    let (mut last, mut told) = (given, None);
    while last.value.state.is_none() {
        if Instant::now() >= end {
            return Err(Failure::Device(format!(
                "{device} has not answered within {}; the command waits for it at the server",
                text::span(limit)
            )));
        }
        sleep(POLL.min(end - Instant::now())).await;
        last = look(client, device, id, last).await?;
        if let Some(progress) = &last.value.progress
            && told.as_ref() != Some(progress)
        {
            if !call.json {
                let line = format!("{device}: {}", how_far(progress));
                call.around.note(&text::printable(&line));
            }
            told = Some(progress.clone());
        }
    }
    let (state, command) = (last.value.state, &last.value);
    let sentence = command.sentence.clone().unwrap_or_default();
    if call.json {
        call.write_json(&last.json)?;
    } else if state == Some(CommandState::Done) {
        let mut facts = Facts::new();
        for (name, value) in &command.facts {
            facts.add(name, value);
        }
        let line = text::printable(&format!("{device}: {} is done. {sentence}", command.action));
        call.write(|out| {
            writeln!(out, "{}", line.trim_end())?;
            facts.write(out)
        })?;
    }
    match state {
        Some(CommandState::Done) => Ok(()),
        Some(CommandState::Failed) => Err(Failure::Device(format!(
            "{device} tried and failed: {sentence}"
        ))),
        Some(CommandState::Interrupted) | None => Err(Failure::Device(format!(
            "{device} was interrupted and did not try again: {sentence}"
        ))),
    }
}

fn command_row(command: &CommandInfo, now: i64) -> [String; 5] {
    let (state, progress) = match (command.state, &command.progress) {
        (Some(CommandState::Done), _) => ("done", None),
        (Some(CommandState::Failed), _) => ("failed", None),
        (Some(CommandState::Interrupted), _) => ("interrupted", None),
        (None, Some(progress)) => ("running", Some(how_far(progress))),
        (None, None) => ("waiting", None),
    };
    [
        text::moment(command.created_at, now),
        command.action.clone(),
        command.created_by.clone(),
        state.to_owned(),
        progress.or(command.sentence.clone()).unwrap_or_default(),
    ]
}

/// How far a command is, as the device says it.
fn how_far(progress: &Progress) -> String {
    match progress.percent {
        Some(percent) => format!("{percent} %: {}", progress.sentence),
        None => progress.sentence.clone(),
    }
}

/// The command's newest state, among the device's commands.
async fn look(
    client: &Client,
    device: &str,
    id: CommandId,
    before: Reply<CommandInfo>,
) -> Result<Reply<CommandInfo>, Failure> {
    let all = client.commands(device).await?;
    let Some(index) = all.value.iter().position(|command| command.id == id) else {
        return Ok(before);
    };
    let json = all.json.get(index).cloned().unwrap_or_default();
    Ok(Reply {
        value: all.value[index].clone(),
        json,
    })
}
