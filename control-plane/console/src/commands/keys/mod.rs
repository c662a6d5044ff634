//! First-authentication keys: made, listed, switched off and on, revoked, and handed over together with what a device needs
//! to find and trust its server. The text of a key is never in an argument list.

mod export;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod mail;
mod page;
mod pouch;
mod sheet;
mod smtp;
#[cfg(test)]
mod tests;
mod units;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;
use umbra_protocol::api::{KeyInfo, KeyKind, KeyState, MadeKey, NewKeys};
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_protocol::{KeyId, UnitId};
use zeroize::Zeroizing;

use self::pouch::{Kept, Pouch};
pub use self::smtp::MailError;
use super::Call;
use super::input::{bytes_from, secret_from};
use crate::api::{ApiError, Client, Reply};
use crate::cli::{KeysCommand, NewKeyArgs};
use crate::failure::Failure;
use crate::table::{Facts, Table};
use crate::text;

/// What every command about keys needs.
struct Desk {
    client: Client,
    /// The server, as `HOST:PORT`.
    server: String,
    pouch: Pouch,
    /// What the server knows of its keys; asked for only where some are kept here.
    known: Option<Reply<Vec<KeyInfo>>>,
}

impl Desk {
    /// Forgets on the way what is kept here and opens no door any more.
    async fn new(call: &Call<'_, '_>) -> Result<Self, Failure> {
        let client = call.client()?;
        let config = call.file.load()?;
        let (server, _) = call.known(&config)?;
        let pouch = Pouch::beside(call.file.path());
        let known = if pouch.of(&server)?.is_empty() {
            None
        } else {
            let known = client.keys().await?;
            pouch.tidy(&server, &known.value)?;
            Some(known)
        };
        Ok(Self {
            client,
            server,
            pouch,
            known,
        })
    }

    /// The keys that open the door now, as far as they were asked for.
    fn active(&self) -> BTreeSet<KeyId> {
        let known = self.known.iter().flat_map(|known| &known.value);
        known
            .filter(|key| key.state == KeyState::Active)
            .map(|key| key.id)
            .collect()
    }
}

pub(super) async fn run(call: &mut Call<'_, '_>, command: KeysCommand) -> Result<(), Failure> {
    let desk = Desk::new(call).await?;
    match command {
        KeysCommand::Create {
            keys,
            one_time,
            count,
            export: None,
            dont_keep,
        } => {
            let count = one_time.or(count).unwrap_or(1);
            create(call, &desk, keys, count, dont_keep).await
        }
        KeysCommand::Create {
            keys,
            export: Some(file),
            ..
        } => {
            let (made, _) = make(call, &desk, keys, 1).await?;
            let key = made.into_iter().next().ok_or_else(nothing_made)?;
            let done = export::hand_over_text(call, &desk, key.clone(), &file).await;
            if done.is_err() {
                desk.pouch.add(vec![key])?;
            }
            done
        }
        KeysCommand::List => list(call, &desk).await,
        KeysCommand::Show { id } => show(call, &desk, id).await,
        KeysCommand::Enable { id } => {
            let changed = desk.client.change_key(id, true).await?;
            let sentence = format!(
                "Key {id} is enabled; it is {}.",
                state_name(changed.value.state)
            );
            call.say(&sentence, &changed.json)
        }
        KeysCommand::Disable { id } => {
            let changed = desk.client.change_key(id, false).await?;
            let sentence = format!(
                "Key {id} is disabled; devices that it took on stay. Enable it again: umbra keys enable {id}"
            );
            call.say(&sentence, &changed.json)
        }
        KeysCommand::Revoke { id } => {
            desk.client.revoke_key(id).await?;
            desk.pouch.take(&desk.server, |_| vec![id])?;
            call.say(
                &format!("Key {id} is revoked; devices that it took on stay."),
                &json!({"revoked": id}),
            )
        }
        KeysCommand::Export(args) => export::run(call, &desk, *args).await,
    }
}

async fn create(
    call: &mut Call<'_, '_>,
    desk: &Desk,
    keys: NewKeyArgs,
    count: u32,
    dont_keep: bool,
) -> Result<(), Failure> {
    let (made, reply) = make(call, desk, keys, count).await?;
    if call.json {
        call.write_json(&reply.json)?;
    } else {
        let mut table = Table::new(&["ID", "KEY"]);
        for key in &made {
            table.row([&key.id.to_string(), key.key.reveal()]);
        }
        call.write(|out| table.write(out))?;
    }
    if dont_keep {
        call.around
            .note("The keys are shown this once. Hand them over as you would a password.");
        return Ok(());
    }
    desk.pouch.add(made)?;
    let note = format!(
        "Hand the keys over as you would a password. Until they are exported (umbra keys export), used, expired or revoked, they \
         are kept in {}, for you only.",
        desk.pouch.path().display()
    );
    call.around.note(&note);
    Ok(())
}

/// Makes keys; none of them is kept yet.
async fn make(
    call: &mut Call<'_, '_>,
    desk: &Desk,
    args: NewKeyArgs,
    count: u32,
) -> Result<(Vec<Kept>, Reply<Vec<MadeKey>>), Failure> {
    let bound = !args.unit.is_empty() || args.units_from.is_some() || !args.device.is_empty();
    let kind = match (args.mass, bound) {
        (true, _) => KeyKind::Mass,
        (false, true) => KeyKind::Bound,
        (false, false) => KeyKind::OneTime,
    };
    let chosen = args
        .chosen_file
        .as_deref()
        .map(|file| secret_from(file, "key", call.around.person))
        .transpose()?;
    if let Some(chosen) = &chosen {
        if count > 1 {
            return Err(Failure::Usage(
                "a key that you made up is one key: leave --count away".to_owned(),
            ));
        }
        // The server refuses it as well; here the sentence comes before anything is sent.
        FirstAuthKey::chosen(chosen.reveal()).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    let units = units_of(call, desk, &args).await?;
    let expires_in_seconds = args.expires.map(|span| span.as_secs());
    let wanted = NewKeys {
        kind,
        count,
        units: units.clone(),
        chosen,
        expires_in_seconds,
        quota: args.quota,
        tag: args.tag.clone(),
    };
    let reply = desk.client.make_keys(&wanted).await?;
    let made_at = call.now();
    let after = expires_in_seconds.and_then(|seconds| i64::try_from(seconds).ok());
    let made: Vec<Kept> = reply
        .value
        .iter()
        .map(|made| Kept {
            server: desk.server.clone(),
            id: made.id,
            key: made.key.clone(),
            kind,
            units: units.clone(),
            tag: args.tag.clone(),
            made_at,
            expires_at: after.map(|after| made_at.saturating_add(after)),
        })
        .collect();
    if made.is_empty() {
        return Err(nothing_made());
    }
    Ok((made, reply))
}

fn nothing_made() -> Failure {
    ApiError::NotUnderstood("it made no key".to_owned()).into()
}

/// The units of a bound key, from wherever they were said, each once. All mistakes are told together.
async fn units_of(
    call: &mut Call<'_, '_>,
    desk: &Desk,
    args: &NewKeyArgs,
) -> Result<Vec<UnitId>, Failure> {
    let mut units = args.unit.clone();
    let mut mistakes = Vec::new();
    if let Some(file) = &args.units_from {
        match units::read(&self::file(call, file, units::FILE_MAX)?) {
            Ok(more) => units.extend(more),
            Err(more) => {
                mistakes.extend(
                    more.into_iter()
                        .map(|line| format!("{}: {line}", file.display())),
                );
            }
        }
    }
    for device in &args.device {
        match desk.client.device(device).await {
            Ok(found) => units.push(found.value.unit_id),
            Err(ApiError::Problem(problem)) => {
                mistakes.push(format!("--device {device}: {}", problem.detail));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !mistakes.is_empty() {
        return Err(Failure::Lines {
            what: "the units of the key are not all right, so no key was made".to_owned(),
            lines: mistakes,
        });
    }
    let mut seen = BTreeSet::new();
    units.retain(|unit| seen.insert(unit.clone()));
    Ok(units)
}

/// A whole file, up to a size; more is a mistake.
fn file(call: &mut Call<'_, '_>, file: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let (name, bytes) = bytes_from(file, limit + 1, call.around.person)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        Ok(bytes)
    } else {
        Err(Failure::Usage(format!(
            "{name} is larger than {} KiB",
            limit / 1024
        )))
    }
}

async fn list(call: &mut Call<'_, '_>, desk: &Desk) -> Result<(), Failure> {
    let reply = match &desk.known {
        Some(known) => known.clone(),
        None => desk.client.keys().await?,
    };
    if call.json {
        return call.write_json(&reply.json);
    }
    let now = call.now();
    let kept: BTreeSet<KeyId> = desk
        .pouch
        .of(&desk.server)?
        .iter()
        .map(|kept| kept.id)
        .collect();
    let mut table = Table::new(&[
        "ID", "KIND", "STATE", "USED", "MADE", "BY", "ENDS", "KEPT", "TAG", "UNITS",
    ]);
    for key in &reply.value {
        let here: &str = if kept.contains(&key.id) { "here" } else { "no" };
        table.row([
            key.id.to_string().as_str(),
            kind_name(key.kind),
            state_name(key.state),
            &used(key),
            &text::relative(key.created_at, now),
            &key.created_by,
            &ends(key, now),
            here,
            &key.tag,
            &units_shown(key),
        ]);
    }
    if table.is_empty() {
        return call.write(|out| writeln!(out, "There are no keys. Make one: umbra keys create"));
    }
    call.write(|out| table.write(out))
}

async fn show(call: &mut Call<'_, '_>, desk: &Desk, id: KeyId) -> Result<(), Failure> {
    let key = desk.client.key(id).await?;
    let uses = desk.client.key_uses(id).await?;
    if call.json {
        return call.write_json(&json!({"key": key.json, "uses": uses.json}));
    }
    let (key, now) = (key.value, call.now());
    let kept = desk
        .pouch
        .of(&desk.server)?
        .iter()
        .any(|kept| kept.id == id);
    let all: Vec<&str> = key.units.iter().map(UnitId::as_str).collect();
    let mut facts = Facts::new();
    facts.add("ID", key.id.to_string());
    facts.add("Kind", kind_name(key.kind));
    facts.add("State", state_name(key.state));
    facts.add("Used", used(&key));
    facts.add("Made", text::moment(key.created_at, now));
    facts.add("By", &key.created_by);
    facts.add("Ends", ends(&key, now));
    facts.add("Kept here", if kept { "yes" } else { "no" });
    facts.add_some("Tag", (!key.tag.is_empty()).then_some(&key.tag));
    facts.add_some("Units", (!all.is_empty()).then(|| all.join(" ")));
    call.write(|out| facts.write(out))?;
    let mut table = Table::new(&["DEVICE", "UNIT", "CAME IN", "ON FILE"]);
    for use_ in &uses.value {
        let on_file: &str = if use_.removed { "no" } else { "yes" };
        table.row([
            use_.device_name.as_str(),
            use_.unit_id.as_str(),
            &text::moment(use_.at, now),
            on_file,
        ]);
    }
    if table.is_empty() {
        return call.write(|out| writeln!(out, "\nNo device has come in with it."));
    }
    call.write(|out| {
        writeln!(out)?;
        table.write(out)
    })
}

fn ends(key: &KeyInfo, now: i64) -> String {
    key.expires_at
        .map_or("never".to_owned(), |at| text::relative(at, now))
}

fn used(key: &KeyInfo) -> String {
    match (key.kind, key.quota) {
        (_, Some(quota)) => format!("{} of {quota}", key.used),
        (KeyKind::OneTime, None) => format!("{} of 1", key.used),
        (KeyKind::Bound, None) => format!("{} of {}", key.used, key.units.len()),
        (KeyKind::Mass, None) => key.used.to_string(),
    }
}

fn units_shown(key: &KeyInfo) -> String {
    const SHOWN: usize = 3;
    let mut names: Vec<String> = key
        .units
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    if key.units.len() > SHOWN {
        names.push(format!("and {} more", key.units.len() - SHOWN));
    }
    names.join(" ")
}

fn kind_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::OneTime => "one-time",
        KeyKind::Bound => "bound",
        KeyKind::Mass => "mass",
    }
}

fn state_name(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Used => "used",
        KeyState::Expired => "expired",
        KeyState::Revoked => "revoked",
        KeyState::Disabled => "disabled",
    }
}
