//! The management server towards administrators: whom a console trusts, what a stolen or restarted server gives away or
//! keeps, and which certificate chains it takes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use umbra_tests::fault_proxy::FaultProxy;
use umbra_tests::pki::{Chain, Kind};
use umbra_tests::program::{product, run};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Console, PATIENCE, Server, ServerConfig};

/// The console's exit codes, as its help states them.
const FAILED: i32 = 1;
const NOT_LOGGED_IN: i32 = 3;
const NOT_TRUSTED: i32 = 5;

fn said(output: &std::process::Output) -> String {
    format!(
        "{} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_sends_no_password_to_a_server_with_another_fingerprint() {
    scenario(async |scratch| {
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let relay = FaultProxy::start(server.address()).await?;
        relay.record();
        let console = Console::new(scratch, "console");
        let address = relay.address().to_string();
        let password = server.password_file().display().to_string();
        let log_in = [
            "login",
            &address,
            "--user",
            "admin",
            "--password-file",
            &password,
            "--fingerprint",
        ];
        let wrong = server
            .fingerprint()
            .replace(|c: char| c.is_ascii_digit(), "0");
        ensure!(
            wrong != server.fingerprint(),
            "a fingerprint without a digit"
        );
        let output = console
            .output(&[&log_in[..], &[&wrong]].concat(), "")
            .await?;
        ensure!(
            output.status.code() == Some(NOT_TRUSTED),
            "{}",
            said(&output)
        );
        let passed = relay.recording();
        ensure!(!passed.to_server.is_empty(), "nothing was tried at all");
        // A log-in would be application data: record type 23 of which only the handshake's own may be there.
        ensure!(
            passed.to_server.len() < 2000,
            "more than a handshake was sent: {} bytes",
            passed.to_server.len()
        );
        let right = console
            .output(&[&log_in[..], &[server.fingerprint()]].concat(), "")
            .await?;
        ensure!(right.status.success(), "{}", said(&right));
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_on_record() {
    scenario(async |scratch| {
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let guess = scratch.path("guess");
        std::fs::write(&guess, "correct horse\n")?;
        let stranger = Console::new(scratch, "stranger");
        let address = server.address().to_string();
        let path = guess.display().to_string();
        let arguments = [
            "login",
            &address,
            "--user",
            "admin",
            "--password-file",
            &path,
            "--fingerprint",
            server.fingerprint(),
        ];
        let output = stranger.output(&arguments, "").await?;
        ensure!(
            output.status.code() == Some(FAILED) || output.status.code() == Some(NOT_LOGGED_IN),
            "{}",
            said(&output)
        );
        let refused = stranger.output(&["devices"], "").await?;
        ensure!(
            refused.status.code() == Some(NOT_LOGGED_IN),
            "{}",
            said(&refused)
        );
        let console = Console::administrator(scratch, &server).await?;
        let audit = console.tell(&["audit"], "").await?.to_string();
        ensure!(audit.contains("wrong_password"), "{audit}");
        ensure!(
            !audit.contains("correct horse"),
            "the guess is in the audit log"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_comes_back_with_everything_and_log_ins_still_hold() {
    scenario(async |scratch| {
        let mut server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let before = console.tell(&["keys", "create"], "").await?;
        let id = before
            .pointer("/0/id")
            .and_then(|id| id.as_str())
            .context(before.to_string())?;
        server.program().kill();
        let gone = console.output(&["devices"], "").await?;
        ensure!(gone.status.code() == Some(6), "{}", said(&gone));
        server.start_again().await?;
        let keys = console.tell(&["keys", "list"], "").await?.to_string();
        ensure!(keys.contains(id), "{keys}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_never_share_a_folder() {
    scenario(async |scratch| {
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let mut second = Command::new(product("umbra-server")?);
        second
            .arg("run")
            .arg("--state")
            .arg(server.state())
            .args(["--listen", "127.0.0.1:0"]);
        let output = run(scratch, "second-server", &mut second, b"", PATIENCE).await?;
        ensure!(
            !output.status.success(),
            "a second server runs in the same folder"
        );
        ensure!(said(&output).contains("in use"), "{}", said(&output));
        Ok(())
    })
    .await;
}

/// Whether any file below a folder holds these bytes.
fn held_below(folder: &std::path::Path, needle: &[u8]) -> anyhow::Result<Option<String>> {
    let (mut open, mut files) = (vec![folder.to_owned()], 0);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            files += 1;
            if std::fs::read(&path)?
                .windows(needle.len())
                .any(|window| window == needle)
            {
                return Ok(Some(path.display().to_string()));
            }
        }
    }
    ensure!(files > 2, "the folder holds only {files} files");
    Ok(None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_server_folder_gives_away_no_key_and_no_password() {
    scenario(async |scratch| {
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let key = console.one_time_key().await?;
        let password = std::fs::read_to_string(server.password_file())?;
        let config = std::fs::read_to_string(console.config())?;
        let config: serde_json::Value = serde_json::from_str(&config)?;
        let token = find(&config, "token").context("no token in the console's configuration")?;
        for (what, secret) in [
            ("key", key.trim()),
            ("password", password.trim()),
            ("token", token),
        ] {
            ensure!(
                secret.len() >= 8,
                "the {what} is too short to be looked for"
            );
            let found = held_below(server.state(), secret.as_bytes())?;
            ensure!(found.is_none(), "the {what} is in {found:?}");
            let logged = held_below(&scratch.path("log"), secret.as_bytes())?;
            ensure!(
                what == "key" || logged.is_none(),
                "the {what} is in the log {logged:?}"
            );
        }
        // What must be found is found: the search itself works.
        ensure!(
            held_below(server.state(), b"admin")?.is_some(),
            "not even the account's name is in the database"
        );
        Ok(())
    })
    .await;
}

/// The text under a name, however deep.
fn find<'v>(value: &'v serde_json::Value, name: &str) -> Option<&'v str> {
    match value {
        serde_json::Value::Object(entries) => entries
            .iter()
            .find_map(|(key, value)| if key == name { value.as_str() } else { None })
            .or_else(|| entries.values().find_map(|value| find(value, name))),
        serde_json::Value::Array(items) => items.iter().find_map(|item| find(item, name)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => None,
    }
}

async fn import(
    scratch: &Scratch,
    kind: Kind,
    with_root: bool,
) -> anyhow::Result<std::process::Output> {
    let chain = Chain::new(kind, &["localhost", "127.0.0.1"])?;
    let folder = scratch.folder(&format!("{kind:?}"))?;
    chain.write(&folder)?;
    if with_root {
        let whole = chain.presented_pem() + &chain.root_pem();
        std::fs::write(folder.join("chain.pem"), whole)?;
    }
    let mut command = Command::new(product("umbra-server")?);
    command
        .args(["import-chain", "--host", "localhost", "--state"])
        .arg(folder.join("state"));
    command
        .arg("--chain")
        .arg(folder.join("chain.pem"))
        .arg("--key")
        .arg(folder.join("key.pem"));
    Ok(run(
        scratch,
        &format!("import-{kind:?}"),
        &mut command,
        b"",
        PATIENCE,
    )
    .await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_chain_is_imported_and_every_wrong_one_refused_with_its_reason() {
    scenario(async |scratch| {
        let good = import(scratch, Kind::Good, true).await?;
        ensure!(good.status.success(), "{}", said(&good));
        let reasons = [
            (Kind::Expired, "expired"),
            (Kind::NotYetValid, "isn't valid before"),
            (Kind::RootExpired, "expired"),
            (Kind::WrongName, "another.example"),
            (Kind::NoSan, "no subject alternative names"),
            (Kind::IntermediateNotCa, "CA flag is false"),
            (Kind::IntermediateMayNotSign, "key usage"),
            (Kind::PathLengthExceeded, "path length"),
            (Kind::CaAsEndEntity, "CA certificate"),
            (Kind::ClientOnly, "isn't meant for servers"),
            (Kind::IntermediateMissing, "is missing"),
            (Kind::ForeignRoot, "the signature of"),
            (Kind::SelfSigned, "signed by itself"),
            (Kind::ForeignKey, "doesn't belong to"),
        ];
        ensure!(
            reasons.len() + 1 == Kind::ALL.len(),
            "a kind without its reason"
        );
        let mut wrong = Vec::new();
        for (kind, reason) in reasons {
            let output = import(scratch, kind, true).await?;
            let said = said(&output);
            // The failure is said once, and then its reason.
            let once = said.matches("imported").count() == 1;
            if output.status.success() || !said.contains(reason) || !once {
                wrong.push(format!("{kind:?}: {reason:?} expected, but {said}"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        let rootless = import(scratch, Kind::Good, false).await;
        let output = rootless?;
        ensure!(
            !output.status.success()
                && said(&output).contains("root")
                && said(&output).matches("imported").count() == 1,
            "{}",
            said(&output)
        );
        Ok(())
    })
    .await;
}

/// A first start that is stopped at this call on this file, counted in each thread for itself; gives 1 if it was stopped.
/// Without a number it runs to its end and gives how many such calls there were.
async fn first_start(
    scratch: &Scratch,
    (file, call): (&Path, &str),
    number: Option<usize>,
) -> anyhow::Result<usize> {
    let log = scratch.path("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(&log).arg("-P").arg(file);
    command.args(["-e", &format!("trace={call}")]);
    if let Some(number) = number {
        let inject = format!("inject={call}:signal=SIGKILL:when={number}");
        command.args(["-e", &inject]);
    }
    command.arg(product("umbra-server")?).arg("init");
    command.arg("--state").arg(scratch.path("server"));
    command
        .arg("--first-password-file")
        .arg(scratch.path("first-password-of-server"));
    let output = run(scratch, "first-start", &mut command, b"", PATIENCE).await?;
    ensure!(
        output.status.success() || number.is_some(),
        "{call} {number:?} of {}: {}",
        file.display(),
        said(&output)
    );
    if number.is_some() {
        return Ok(usize::from(!output.status.success()));
    }
    let calls = std::fs::read_to_string(&log)?;
    let call = format!("{call}(");
    Ok(calls.lines().filter(|line| line.contains(&call)).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_in_the_first_start_leaves_no_account_whose_password_nobody_knows() {
    scenario(async |scratch| {
        let (state, password) = (
            scratch.path("server"),
            scratch.path("first-password-of-server"),
        );
        let database = state.join("umbra.db-wal");
        // Around the moment in which the password is put down, and the one in which the account is kept.
        let steps = [
            (password.with_extension("new"), "write"),
            (password.with_extension("new"), "fsync"),
            (password.with_extension("new"), "rename"),
            (database.clone(), "pwrite64"),
            (database, "fsync"),
        ];
        let mut cuts = 0;
        for (file, call) in &steps {
            let calls = first_start(scratch, (file, call), None).await?;
            ensure!(calls > 0, "no {call} of {}", file.display());
            for number in calls.saturating_sub(4).max(1)..=calls {
                std::fs::remove_dir_all(&state)?;
                // It may not have got that far.
                let _ = std::fs::remove_file(&password);
                cuts += first_start(scratch, (file, call), Some(number)).await?;
                let server = Server::start(scratch, ServerConfig::default()).await?;
                let name = format!("console-{call}-{number}");
                Console::new(scratch, &name)
                    .log_in(&server, "admin", &password)
                    .await
                    .with_context(|| format!("after {call} {number} of {}", file.display()))?;
            }
            std::fs::remove_dir_all(&state)?;
            std::fs::remove_file(&password)?;
        }
        ensure!(cuts >= 10, "only {cuts} cuts");
        Ok(())
    })
    .await;
}
