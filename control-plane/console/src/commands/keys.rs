//! First-authentication keys: made, listed, revoked, and handed over together with what a device needs to find and trust
//! the server. The text of a key is seen once, by whoever made it, and never in an argument list.

use std::path::Path;

use serde_json::json;
use umbra_protocol::api::{KeyInfo, KeyKind, KeyState, MadeKey, NewKeys, ServerCredentials};
use umbra_protocol::credentials::{Credentials, Endpoint};
use umbra_protocol::first_auth::FirstAuthKey;
use zeroize::Zeroizing;

use super::Call;
use super::input::secret_from;
use crate::api::{Client, Reply};
use crate::cli::{KeysCommand, NewKeyArgs};
use crate::config::write_private;
use crate::failure::Failure;
use crate::table::Table;
use crate::text;

pub(super) async fn run(call: &mut Call<'_, '_>, command: KeysCommand) -> Result<(), Failure> {
    let client = call.client()?;
    match command {
        KeysCommand::Create {
            keys,
            count,
            export: None,
        } => {
            let made = make(call, &client, keys, count).await?;
            if call.json {
                return call.write_json(&made.json);
            }
            let mut table = Table::new(&["ID", "KEY"]);
            for key in &made.value {
                table.row([&key.id.to_string(), key.key.reveal()]);
            }
            call.write(|out| table.write(out))?;
            call.around
                .note("The keys are shown this once. Hand them over as you would a password.");
            Ok(())
        }
        KeysCommand::Create {
            keys,
            export: Some(file),
            ..
        } => {
            let server = client.credentials().await?;
            let made = one(make(call, &client, keys, 1).await?)?;
            let text = credentials_text(&server.value, &made)?;
            if file == Path::new("-") {
                return write_credentials(call, &server, &made, &text);
            }
            write_private(&file, text.as_bytes()).map_err(|source| Failure::File {
                file: file.display().to_string(),
                doing: "written",
                source,
            })?;
            let sentence = format!(
                "Key {} and how to reach the server are in {}.",
                made.id,
                file.display()
            );
            call.say(
                &sentence,
                &json!({"id": made.id, "file": file.display().to_string()}),
            )
        }
        KeysCommand::List => list(call, &client).await,
        KeysCommand::Revoke { id } => {
            client.revoke_key(id).await?;
            call.say(
                &format!("Key {id} is revoked; devices that it took on stay."),
                &json!({"revoked": id}),
            )
        }
        KeysCommand::Export {
            key_file: Some(file),
            ..
        } => {
            let key = secret_from(&file, "key", call.around.person)?;
            let server = client.credentials().await?;
            let key = FirstAuthKey::parse(key.reveal())
                .map_err(|error| Failure::Usage(error.to_string()))?;
            let text = text_of(&server.value, key);
            if call.json {
                return call.write_json(&json!({"server": server.json, "text": text.as_str()}));
            }
            call.write(|out| out.write_all(text.as_bytes()))
        }
        KeysCommand::Export {
            key_file: None,
            keys,
        } => {
            let server = client.credentials().await?;
            let made = one(make(call, &client, keys, 1).await?)?;
            let text = credentials_text(&server.value, &made)?;
            write_credentials(call, &server, &made, &text)
        }
    }
}

async fn make(
    call: &mut Call<'_, '_>,
    client: &Client,
    args: NewKeyArgs,
    count: u32,
) -> Result<Reply<Vec<MadeKey>>, Failure> {
    let kind = match (args.mass, args.unit.is_empty()) {
        (true, _) => KeyKind::Mass,
        (false, false) => KeyKind::Bound,
        (false, true) => KeyKind::OneTime,
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
    let keys = NewKeys {
        kind,
        count,
        units: args.unit,
        chosen,
        expires_in_seconds: args.expires.map(|span| span.as_secs()),
        quota: args.quota,
        tag: args.tag,
    };
    Ok(client.make_keys(&keys).await?)
}

fn one(made: Reply<Vec<MadeKey>>) -> Result<MadeKey, Failure> {
    made.value
        .into_iter()
        .next()
        .ok_or_else(|| crate::api::ApiError::NotUnderstood("it made no key".to_owned()).into())
}

fn credentials_text(
    server: &ServerCredentials,
    made: &MadeKey,
) -> Result<Zeroizing<String>, Failure> {
    let key = FirstAuthKey::parse(made.key.reveal())
        .map_err(|error| crate::api::ApiError::NotUnderstood(error.to_string()))?;
    Ok(text_of(server, key))
}

fn text_of(server: &ServerCredentials, key: FirstAuthKey) -> Zeroizing<String> {
    let endpoint = Endpoint {
        host: text::printable(&server.host),
        port: server.port,
        root_fingerprint: server.root_fingerprint,
    };
    Credentials {
        endpoints: vec![endpoint],
        key,
    }
    .to_text()
}

fn write_credentials(
    call: &mut Call<'_, '_>,
    server: &Reply<ServerCredentials>,
    made: &MadeKey,
    text: &str,
) -> Result<(), Failure> {
    if call.json {
        return call.write_json(&json!({"server": server.json, "key": made, "text": text}));
    }
    call.write(|out| out.write_all(text.as_bytes()))
}

async fn list(call: &mut Call<'_, '_>, client: &Client) -> Result<(), Failure> {
    let reply = client.keys().await?;
    if call.json {
        return call.write_json(&reply.json);
    }
    let now = call.now();
    let mut table = Table::new(&[
        "ID", "KIND", "STATE", "USED", "MADE", "BY", "ENDS", "TAG", "UNITS",
    ]);
    for key in &reply.value {
        table.row([
            &key.id.to_string(),
            kind_name(key.kind),
            state_name(key.state),
            &used(key),
            &text::relative(key.created_at, now),
            &key.created_by,
            &key.expires_at
                .map_or("never".to_owned(), |at| text::relative(at, now)),
            &key.tag,
            &units(key),
        ]);
    }
    if table.is_empty() {
        return call.write(|out| writeln!(out, "There are no keys. Make one: umbra keys create"));
    }
    call.write(|out| table.write(out))
}

fn used(key: &KeyInfo) -> String {
    match (key.kind, key.quota) {
        (_, Some(quota)) => format!("{} of {quota}", key.used),
        (KeyKind::OneTime, None) => format!("{} of 1", key.used),
        (KeyKind::Bound, None) => format!("{} of {}", key.used, key.units.len()),
        (KeyKind::Mass, None) => key.used.to_string(),
    }
}

fn units(key: &KeyInfo) -> String {
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
    }
}
