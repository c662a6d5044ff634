//! `umbra keys export`: a key and the ways to the server, in the form in which they are handed over. A key is taken out of
//! the pouch before it goes out, so that two people never get the same one, and put back if it didn't.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use umbra_protocol::KeyId;
use umbra_protocol::api::ServerCredentials;
use umbra_protocol::credentials::{Credentials, ENDPOINTS_MAX, Endpoint, shown_host};
use umbra_protocol::first_auth::FirstAuthKey;
use zeroize::Zeroizing;

use super::mail::{Address, Envelope};
use super::pouch::Kept;
use super::smtp::MailServer;
use super::{Desk, kind_name, mail, make, page, sheet};
use crate::api::{ApiError, Reply};
use crate::cli::{ExportArgs, FormatArg, MailArgs, SmtpTlsArg};
use crate::commands::Call;
use crate::commands::input::{certificate, secret_from};
use crate::config::write_private;
use crate::failure::Failure;
use crate::text;

/// The port at which mail servers speak TLS from the first byte.
const SMTPS: u16 = 465;
/// How long a step with a mail server may take; they look for spam meanwhile.
const MAIL_PATIENCE: Duration = Duration::from_secs(60);
/// Largest root certificate of a mail server.
const ROOT_MAX: u64 = 64 * 1024;

/// Where the keys come from.
enum Source {
    /// Out of the pouch, in the order of their making.
    Kept(Vec<Kept>),
    /// Made just now.
    Made(Vec<Kept>),
    /// From a file: nothing else is known of it.
    File(FirstAuthKey),
}

impl Source {
    fn keys(&self) -> &[Kept] {
        match self {
            Self::Kept(keys) | Self::Made(keys) => keys,
            Self::File(_) => &[],
        }
    }
}

pub(super) async fn run(
    call: &mut Call<'_, '_>,
    desk: &Desk,
    args: ExportArgs,
) -> Result<(), Failure> {
    let format = match (args.format, &args.to) {
        (Some(FormatArg::Eml), _) | (None, Some(_)) => FormatArg::Eml,
        (Some(_), Some(_)) => {
            return Err(Failure::Usage(
                "--to belongs to an e-mail: leave --format away, or say --format eml".to_owned(),
            ));
        }
        (format, None) => format.unwrap_or(FormatArg::Text),
    };
    if args.ids.len() > 1 && format != FormatArg::Csv {
        return Err(Failure::Usage(
            "one export hands over one key: name one, or take --format csv".to_owned(),
        ));
    }
    if args.key_file.is_some() && format == FormatArg::Csv {
        return Err(Failure::Usage(
            "--format csv is a table of the keys that are kept here: leave --key-file away"
                .to_owned(),
        ));
    }
    let to = match &args.to {
        Some(to) => Address::parse_all(to).map_err(|lines| Failure::Lines {
            what: "the recipients can't all be used, so nothing was sent".to_owned(),
            lines,
        })?,
        None => Vec::new(),
    };
    let from = args.from.as_deref().map(Address::parse).transpose();
    let from = from.map_err(Failure::Usage)?;
    let mail_server = mail_server(call, &args.mail)?;
    let server = desk.client.credentials().await?;
    let endpoints = endpoints(call, &server.value, args.direct)?;
    let source = source(call, desk, &args, format).await?;
    let out = Out {
        format,
        endpoints: &endpoints,
        server: &server,
        to: &to,
        from: from.as_ref(),
        file: args.out.as_deref(),
        mail_server: mail_server.as_ref(),
    };
    let done = out.hand_over(call, &source).await;
    match (&done, source) {
        (Ok(()), Source::Kept(keys) | Source::Made(keys)) if args.keep => desk.pouch.add(keys)?,
        (Err(_), Source::Kept(keys) | Source::Made(keys)) => desk.pouch.add(keys)?,
        (Ok(()), Source::Kept(_) | Source::Made(_)) | (_, Source::File(_)) => {}
    }
    done
}

/// Text with all that a device needs, of one key just made; for `umbra keys create --export`.
pub(super) async fn hand_over_text(
    call: &mut Call<'_, '_>,
    desk: &Desk,
    key: Kept,
    file: &Path,
) -> Result<(), Failure> {
    let server = desk.client.credentials().await?;
    let endpoints = endpoints(call, &server.value, false)?;
    let out = Out {
        format: FormatArg::Text,
        endpoints: &endpoints,
        server: &server,
        to: &[],
        from: None,
        file: Some(file),
        mail_server: None,
    };
    out.hand_over(call, &Source::Made(vec![key])).await
}

/// All gateways; the server itself where there is none, or where it is asked for.
fn endpoints(
    call: &mut Call<'_, '_>,
    server: &ServerCredentials,
    direct: bool,
) -> Result<Vec<Endpoint>, Failure> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for gateway in &server.gateways {
        endpoints.push(Endpoint {
            host: gateway.host.clone(),
            port: gateway.port,
            root_fingerprint: gateway.root_fingerprint,
        });
        if !gateway.attached {
            let name = text::printable(&gateway.name);
            call.around.note(&format!(
                "The server is not attached to the gateway {name} at the moment; it is named all the same, after the others."
            ));
        }
    }
    if direct || endpoints.is_empty() {
        endpoints.push(Endpoint {
            host: server.host.clone(),
            port: server.port,
            root_fingerprint: server.root_fingerprint,
        });
    }
    if endpoints.len() > ENDPOINTS_MAX {
        call.around.note(&format!(
            "The credentials name the first {ENDPOINTS_MAX} of {} ways.",
            endpoints.len()
        ));
        endpoints.truncate(ENDPOINTS_MAX);
    }
    Ok(endpoints)
}

async fn source(
    call: &mut Call<'_, '_>,
    desk: &Desk,
    args: &ExportArgs,
    format: FormatArg,
) -> Result<Source, Failure> {
    if let Some(file) = &args.key_file {
        let key = secret_from(file, "key", call.around.person)?;
        return FirstAuthKey::parse(key.reveal())
            .map(Source::File)
            .map_err(|error| Failure::Usage(error.to_string()));
    }
    if !args.keys.is_said() {
        let active = desk.active();
        let taken = desk.pouch.take(&desk.server, |kept| {
            if !args.ids.is_empty() {
                return args.ids.clone();
            }
            let mut good = kept
                .iter()
                .map(|kept| kept.id)
                .filter(|id| active.contains(id));
            if format == FormatArg::Csv {
                good.collect()
            } else {
                good.next().into_iter().collect()
            }
        })?;
        let lacking: Vec<String> = args
            .ids
            .iter()
            .filter(|id| !taken.iter().any(|kept| kept.id == **id))
            .map(KeyId::to_string)
            .collect();
        if !lacking.is_empty() {
            desk.pouch.add(taken)?;
            return Err(Failure::Usage(format!(
                "this machine does not keep the text of {}: it was exported, used, or made elsewhere. Make another key, or give \
                 its text with --key-file",
                lacking.join(", ")
            )));
        }
        if !taken.is_empty() {
            return Ok(Source::Kept(taken));
        }
    }
    make(call, desk, args.keys.clone(), 1)
        .await
        .map(|(made, _)| Source::Made(made))
}

fn mail_server(call: &mut Call<'_, '_>, args: &MailArgs) -> Result<Option<MailServer>, Failure> {
    let Some(address) = &args.smtp else {
        return Ok(None);
    };
    let implicit = if address.port() == SMTPS {
        SmtpTlsArg::Tls
    } else {
        SmtpTlsArg::Starttls
    };
    let root = match &args.smtp_ca {
        Some(file) => {
            let bytes = super::file(call, file, ROOT_MAX)?;
            let root = std::str::from_utf8(&bytes).ok().and_then(certificate);
            Some(root.ok_or_else(|| {
                Failure::Usage(format!("{} holds no certificate (PEM)", file.display()))
            })?)
        }
        None => None,
    };
    let login = match (&args.smtp_user, &args.smtp_password_file) {
        (Some(user), Some(file)) => Some((
            user.clone(),
            secret_from(file, "password", call.around.person)?,
        )),
        (Some(_), None) | (None, Some(_) | None) => None,
    };
    Ok(Some(MailServer {
        address: address.clone(),
        tls: args.smtp_tls.unwrap_or(implicit),
        root,
        login,
        patience: MAIL_PATIENCE.min(call.deadlines.answer),
    }))
}

/// What goes out, and where.
struct Out<'a> {
    format: FormatArg,
    endpoints: &'a [Endpoint],
    server: &'a Reply<ServerCredentials>,
    to: &'a [Address],
    from: Option<&'a Address>,
    file: Option<&'a Path>,
    mail_server: Option<&'a MailServer>,
}

impl Out<'_> {
    async fn hand_over(&self, call: &mut Call<'_, '_>, source: &Source) -> Result<(), Failure> {
        let document = self.render(call, source)?;
        let keys = source.keys();
        let which = match (source, keys) {
            (Source::File(_), _) => "The key from the file".to_owned(),
            (Source::Made(_), [key]) => {
                format!("Key {}, made just now ({}),", key.id, kind_name(key.kind))
            }
            (Source::Kept(_), [key]) => format!(
                "Key {} ({}, made {})",
                key.id,
                kind_name(key.kind),
                text::relative(key.made_at, call.now())
            ),
            (Source::Kept(_) | Source::Made(_), many) => format!("A table of {} keys", many.len()),
        };
        let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
        let id = ids.first();
        if let (Some(server), Some(from)) = (self.mail_server, self.from) {
            server.send(from, self.to, &document).await?;
            let to: Vec<&str> = self.to.iter().map(Address::as_str).collect();
            let sentence = format!(
                "{which} was handed to the mail server for {}.",
                to.join(", ")
            );
            return call.say(&sentence, &json!({"id": id, "ids": ids, "to": to}));
        }
        if let Some(file) = self.file.filter(|file| *file != Path::new("-")) {
            write_private(file, document.as_bytes()).map_err(|source| Failure::File {
                file: file.display().to_string(),
                doing: "written",
                source,
            })?;
            let sentence = format!("{which} is in {}, with how to connect.", file.display());
            let file = file.display().to_string();
            return call.say(&sentence, &json!({"id": id, "ids": ids, "file": file}));
        }
        if call.json {
            let keys: Vec<_> = keys
                .iter()
                .map(|k| json!({"id": k.id, "key": k.key}))
                .collect();
            return call.write_json(&json!({
                "server": self.server.json, "key": keys.first(), "keys": keys, "text": document.as_str(),
            }));
        }
        call.write(|out| out.write_all(document.as_bytes()))?;
        if !keys.is_empty() {
            call.around.note(&format!("{which} was exported."));
        }
        Ok(())
    }

    fn render(&self, call: &Call<'_, '_>, source: &Source) -> Result<Zeroizing<String>, Failure> {
        let first = source.keys().first();
        if self.format == FormatArg::Csv {
            return Ok(sheet::of(source.keys(), self.endpoints));
        }
        let key = match (source, first) {
            (Source::File(key), _) => key.clone(),
            (Source::Kept(_) | Source::Made(_), Some(kept)) => {
                FirstAuthKey::parse(kept.key.reveal())
                    .map_err(|error| ApiError::NotUnderstood(error.to_string()))?
            }
            (Source::Kept(_) | Source::Made(_), None) => {
                return Err(ApiError::NotUnderstood("it made no key".to_owned()).into());
            }
        };
        let credentials = Credentials {
            endpoints: self.endpoints.to_vec(),
            key,
        };
        self.is_readable(&credentials)?;
        Ok(match self.format {
            FormatArg::Text => credentials.to_text(),
            FormatArg::Xml => credentials.to_xml(),
            FormatArg::Html => page::of(&credentials, first),
            FormatArg::Eml => mail::of(
                &credentials,
                &Envelope {
                    from: self.from,
                    to: self.to,
                    at: call.now(),
                    key: first.map_or(KeyId::from_bytes([0; 8]), |kept| kept.id),
                },
            ),
            FormatArg::Csv => sheet::of(source.keys(), self.endpoints),
        })
    }

    /// What no device could read back is not handed over.
    fn is_readable(&self, credentials: &Credentials) -> Result<(), Failure> {
        match Credentials::from_text(&credentials.to_text()) {
            Ok(read) if read == *credentials => Ok(()),
            Ok(_) | Err(_) => {
                let hosts: Vec<String> =
                    self.endpoints.iter().map(|e| shown_host(&e.host)).collect();
                Err(ApiError::NotUnderstood(format!(
                    "it names {} as the way to it, which no device can use",
                    hosts.join(", ")
                ))
                .into())
            }
        }
    }
}
