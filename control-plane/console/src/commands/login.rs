//! Logging in and out. The first log-in to a server decides whom this machine trusts from then on, so it happens only
//! when a person, or a fingerprint that a person gave, has confirmed the server's root certificate.

use rustls::pki_types::CertificateDer;
use serde_json::json;
use umbra_carrier::address::HostPort;
use umbra_carrier::names::System;
use umbra_carrier::tcp;
use umbra_carrier::tls::{self, TlsError};
use umbra_carrier::x509::CertificateFacts;
use umbra_protocol::api::Login;
use umbra_protocol::{Fingerprint, Secret};

use super::Call;
use super::input::{certificate, pem, secret_from};
use crate::api::http::{HttpError, Server};
use crate::api::{ApiError, Client};
use crate::cli::LoginArgs;
use crate::config::{KnownServer, StoredLogin};
use crate::failure::Failure;
use crate::table::Facts;
use crate::text;
use crate::trust::{ATTEMPTS, PartQuestion, Verdict};

pub(super) async fn login(call: &mut Call<'_, '_>, args: LoginArgs) -> Result<(), Failure> {
    let config = call.file.load()?;
    let address = match args.host.clone().or_else(|| call.server.clone()) {
        Some(address) => address,
        None => remembered(config.server.as_deref())?,
    };
    let name = address.to_string();
    let known = config.servers.get(&name);
    let root = match (
        args.fingerprint,
        known.and_then(|known| certificate(&known.root)),
    ) {
        // Pinned before: nobody has to be asked again, and nobody else is trusted.
        (None, Some(root)) => root,
        (Some(fingerprint), Some(root)) if Fingerprint::of_certificate(&root) == fingerprint => {
            root
        }
        (Some(fingerprint), _) => by_fingerprint(call, &address, fingerprint).await?,
        (None, None) => by_person(call, &address).await?,
    };
    let user = match args
        .user
        .clone()
        .or_else(|| known.map(|known| known.user.clone()))
    {
        Some(user) => user,
        None => ask_user(call)?,
    };
    let password = match &args.password_file {
        Some(file) => secret_from(file, "password", call.around.person)?,
        None => ask_password(call, &format!("Password of {user} at {name}: "))?,
    };
    let client = Client::new(Server::new(address, root.clone(), call.deadlines)?, None);
    let answer = client
        .login(&Login {
            user: user.clone(),
            password,
        })
        .await?
        .value;
    let expires_at = call
        .now()
        .saturating_add(i64::from(answer.expires_in_seconds));
    let entry = KnownServer {
        root: pem(&root),
        user: user.clone(),
        login: Some(StoredLogin {
            token: answer.token,
            display_name: answer.display_name.clone(),
            role: answer.role,
            expires_at,
        }),
    };
    call.file.change(|config| {
        config.server = Some(name.clone());
        config.servers.insert(name.clone(), entry);
    })?;
    let sentence = format!(
        "Logged in to {name} as {} ({}), until {}.",
        answer.display_name,
        super::accounts::role_name(answer.role),
        text::moment(expires_at, call.now())
    );
    let document = json!({
        "server": name,
        "user": user,
        "display_name": answer.display_name,
        "role": answer.role,
        "expires_in_seconds": answer.expires_in_seconds,
        "root_fingerprint": Fingerprint::of_certificate(&root),
    });
    call.say(&sentence, &document)
}

fn remembered(server: Option<&str>) -> Result<HostPort, Failure> {
    let name =
        server.ok_or_else(|| Failure::Usage("which server? Say umbra login HOST".to_owned()))?;
    HostPort::parse(name, crate::cli::DEFAULT_PORT).map_err(|error| {
        Failure::Usage(format!(
            "the configuration names the server “{name}”, but {error}"
        ))
    })
}

/// The root certificate that the server presents, with the given fingerprint.
async fn by_fingerprint(
    call: &Call<'_, '_>,
    address: &HostPort,
    expected: Fingerprint,
) -> Result<CertificateDer<'static>, Failure> {
    let chain = chain(call, address).await?;
    if let Some(root) = chain
        .iter()
        .find(|root| Fingerprint::of_certificate(root) == expected)
    {
        return Ok(root.clone());
    }
    let shown = Fingerprint::of_certificate(&presented_root(address, &chain)?);
    Err(Failure::OtherRoot {
        server: address.to_string(),
        expected,
        shown,
    })
}

/// The root certificate that the server presents, confirmed by a person.
async fn by_person(
    call: &mut Call<'_, '_>,
    address: &HostPort,
) -> Result<CertificateDer<'static>, Failure> {
    let chain = chain(call, address).await?;
    let root = presented_root(address, &chain)?;
    let fingerprint = Fingerprint::of_certificate(&root);
    if !call.around.person.is_there() {
        return Err(Failure::NotConfirmed(format!(
            "the server {address} is new to this machine, and nobody is there to confirm its root certificate; give its \
             fingerprint, which its administrator knows: umbra login {address} --fingerprint P1-P2-P3-P4"
        )));
    }
    let question = PartQuestion::new(&fingerprint, (call.around.lot_of_four)());
    call.around.note(&question.text());
    for _ in 0..ATTEMPTS {
        let answer = call
            .around
            .person
            .ask(&question.prompt())
            .map_err(Failure::Terminal)?;
        let Some(answer) = answer else { break };
        match question.judge(&answer) {
            Verdict::Right => return Ok(root),
            Verdict::Wrong => call.around.note(
                "That is another part than this server's. If you typed it right, this is not the server that you mean.",
            ),
            Verdict::NotAPart => call.around.note("A part has 16 digits and letters A-F."),
        }
    }
    Err(Failure::NotConfirmed(format!(
        "nobody confirmed the root certificate of {address}, so nothing was sent to it; ask the server's administrator for \
         its fingerprint"
    )))
}

async fn chain(
    call: &Call<'_, '_>,
    address: &HostPort,
) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let server = address.to_string();
    let deadline = call.deadlines.connect;
    let tcp = tcp::connect(address.host(), address.port(), &System, deadline)
        .await
        .map_err(|source| HttpError::Connect {
            server: server.clone(),
            source,
        })?;
    Ok(tls::fetch_chain(tcp, address.host(), deadline)
        .await
        .map_err(|source| HttpError::Tls { server, source })?)
}

fn presented_root(
    address: &HostPort,
    chain: &[CertificateDer<'static>],
) -> Result<CertificateDer<'static>, HttpError> {
    chain
        .iter()
        .rev()
        .find(|certificate| {
            CertificateFacts::read(certificate).is_ok_and(|facts| facts.self_signed)
        })
        .cloned()
        .ok_or_else(|| HttpError::Tls {
            server: address.to_string(),
            source: TlsError::RootNotPresented,
        })
}

fn ask_user(call: &mut Call<'_, '_>) -> Result<String, Failure> {
    let missing = || Failure::Usage("which account? Say it with --user NAME".to_owned());
    if !call.around.person.is_there() {
        return Err(missing());
    }
    let answer = call
        .around
        .person
        .ask("Account: ")
        .map_err(Failure::Terminal)?
        .unwrap_or_default();
    let user = answer.trim();
    if user.is_empty() {
        Err(missing())
    } else {
        Ok(user.to_owned())
    }
}

pub(super) fn ask_password(call: &mut Call<'_, '_>, question: &str) -> Result<Secret, Failure> {
    if !call.around.person.is_there() {
        return Err(Failure::Usage(
            "nobody is there to type the password; give it in a file, or on the standard input, with --password-file"
                .to_owned(),
        ));
    }
    call.around
        .person
        .ask_secret(question)
        .map_err(Failure::Terminal)
}

pub(super) async fn logout(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let config = call.file.load()?;
    let (name, known) = call.known(&config)?;
    let Some(login) = &known.login else {
        return call.say(
            &format!("Nobody was logged in to {name}."),
            &json!({"server": name, "was_logged_in": false}),
        );
    };
    // This machine forgets the token whether or not the server can be told.
    let told = match call.server(&name, known) {
        Ok(server) => Client::new(server, Some(login.token.clone()))
            .logout()
            .await
            .map_err(Failure::from),
        Err(error) => Err(error),
    };
    call.file.change(|config| {
        if let Some(known) = config.servers.get_mut(&name) {
            known.login = None;
        }
    })?;
    match told {
        Ok(()) | Err(Failure::Api(ApiError::LoginEnded { .. })) => call.say(
            &format!("Logged out of {name}."),
            &json!({"server": name, "was_logged_in": true}),
        ),
        Err(error) => {
            call.around.note(&format!(
                "This machine has forgotten the log-in to {name}, but the server could not be told: it accepts the old \
                 token until {}.",
                text::iso(login.expires_at)
            ));
            Err(error)
        }
    }
}

pub(super) async fn whoami(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let config = call.file.load()?;
    let (name, known) = call.known(&config)?;
    // Asked for its status alone: whether the server still accepts the log-in.
    call.client()?.credentials().await?;
    let login = known.login.as_ref();
    let root = certificate(&known.root).map(|root| Fingerprint::of_certificate(&root).to_string());
    let document = json!({
        "server": name,
        "user": known.user,
        "display_name": login.map(|login| &login.display_name),
        "role": login.map(|login| login.role),
        "expires_at": login.map(|login| login.expires_at),
        "root_fingerprint": root,
    });
    if call.json {
        return call.write_json(&document);
    }
    let mut facts = Facts::new();
    facts.add("Account", &known.user);
    facts.add_some("Name", login.map(|login| &login.display_name));
    facts.add_some(
        "Role",
        login.map(|login| super::accounts::role_name(login.role)),
    );
    facts.add("Server", &name);
    facts.add_some("Server's root", root);
    facts.add_some(
        "Logged in until",
        login.map(|login| text::moment(login.expires_at, call.now())),
    );
    call.write(|out| facts.write(out))
}
