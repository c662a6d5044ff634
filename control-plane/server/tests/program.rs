//! The program itself: its command line, its files, and what a kill leaves behind.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests name what they expect"
)]

mod site;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use site::{Device, eventually};
use umbra_protocol::RefusalCode;
use umbra_protocol::api::{KeyKind, NewKeys};
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_server::store::{Store, devices, keys, meta};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_umbra-server"))
}

/// A server that runs; killed when it is dropped.
struct Running {
    child: Child,
    lines: Vec<String>,
    address: SocketAddr,
}

impl Running {
    fn start(state: &Path, listen: &str, more: &[&str]) -> Self {
        let mut child = program()
            .args(["run", "--state"])
            .arg(state)
            .args(["--listen", listen])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = Vec::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let address = loop {
            let mut line = String::new();
            let read = out.read_line(&mut line).expect("text");
            assert!(read > 0, "it ended before it listened: {lines:?}");
            let listening = line.strip_prefix("listening address=");
            if let Some(address) = listening {
                break address.trim().parse().expect("an address");
            }
            lines.push(line);
        };
        Self {
            child,
            lines,
            address,
        }
    }

    /// SIGTERM; returns the log.
    fn stop(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a PID"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
        let status = self.child.wait().expect("ends");
        assert!(status.success(), "{status}");
        let mut log = String::new();
        let mut err = self.child.stderr.take().expect("piped");
        err.read_to_string(&mut log).expect("text");
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail harmlessly when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(arguments: &[&str], state: &Path, input: &str) -> Output {
    let mut child = program()
        .args(arguments)
        .arg("--state")
        .arg(state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    child.wait_with_output().expect("ends")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_first_password_is_said_once_and_never_logged() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let first = Running::start(&state, "127.0.0.1:0", &[]);
    assert_eq!(first.lines.len(), 1, "{:?}", first.lines);
    let password = first.lines[0]
        .trim()
        .strip_prefix("account=admin password=")
        .expect("a password")
        .to_owned();
    let address = first.address;
    let on_disk = std::fs::read_to_string(state.join("address")).expect("written");
    assert_eq!(on_disk.trim(), address.to_string());
    let log = first.stop();
    assert!(!log.contains(&password));
    assert!(log.contains("listening"));
    let second = Running::start(&state, &address.to_string(), &[]);
    assert_eq!(second.lines, Vec::<String>::new(), "it is said once");
    assert_eq!(second.address, address, "the port is free again at once");
    second.stop();
    for file in std::fs::read_dir(&state).expect("a folder") {
        let path = file.expect("a file").path();
        let mode = path.metadata().expect("there").permissions().mode() & 0o077;
        let public = path.ends_with("root.crt") || path.ends_with("address");
        assert_eq!(mode != 0, public, "{} {mode:o}", path.display());
        let bytes = std::fs::read(&path).expect("readable");
        let found = bytes
            .windows(password.len())
            .any(|w| w == password.as_bytes());
        assert!(!found, "the password is in {}", path.display());
    }
}

#[test]
fn the_first_password_goes_to_a_private_file_for_unattended_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (state, file) = (folder.path().join("state"), folder.path().join("password"));
    let file_text = file.to_str().expect("text");
    let output = run(&["init", "--first-password-file", file_text], &state, "");
    assert!(output.status.success());
    let password = std::fs::read_to_string(&file).expect("written");
    assert!(password.trim().len() > 20);
    assert!(!said(&output).contains(password.trim()));
    let mode = file.metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = run(&["init"], &state, "");
    assert!(again.status.success());
    assert_eq!(said(&again), "", "nothing is left to be made");
}

#[test]
fn a_second_server_stays_out_of_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let _first = Running::start(&state, "127.0.0.1:0", &[]);
    let second = run(&["run", "--listen", "127.0.0.1:0"], &state, "");
    assert!(complained(&second).contains("in use"), "{second:?}");
}

#[test]
fn accounts_are_managed_while_the_server_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let missing = run(&["account", "list"], &state, "");
    assert!(complained(&missing).contains("init"), "says what to do");
    let _server = Running::start(&state, "127.0.0.1:0", &[]);
    let made = run(
        &["account", "add", "ada", "--display-name", "Ada L."],
        &state,
        "",
    );
    assert!(said(&made).starts_with("account=ada password="), "{made:?}");
    let given = run(
        &[
            "account",
            "add",
            "otto",
            "--role",
            "auditor",
            "--password-stdin",
        ],
        &state,
        "correct horse battery\n",
    );
    assert_eq!(said(&given), "account=otto\n");
    let short = run(
        &["account", "password", "otto", "--password-stdin"],
        &state,
        "short",
    );
    assert!(complained(&short).contains("12"), "{short:?}");
    let nobody = run(&["account", "password", "nobody"], &state, "");
    assert!(complained(&nobody).contains("nobody"));
    let again = run(&["account", "add", "ada"], &state, "");
    assert!(complained(&again).contains("already"));
    let listed = said(&run(&["account", "list"], &state, ""));
    let expected =
        "ada\toperator\tAda L.\nadmin\tadministrator\tAdministrator\notto\tauditor\totto\n";
    assert_eq!(listed, expected);
}

#[test]
fn the_fingerprint_is_printed_in_parts_and_a_wrong_chain_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    assert!(run(&["init"], &state, "").status.success());
    let before = said(&run(&["fingerprint"], &state, ""));
    assert_eq!(before.lines().count(), 5);
    assert!(before.contains("Part 4: "));
    let key = rcgen::KeyPair::generate().expect("a key");
    let alone = rcgen::CertificateParams::new(["server.example.com".to_owned()]).expect("a name");
    let chain = folder.path().join("chain.pem");
    let key_file = folder.path().join("key.pem");
    std::fs::write(&chain, alone.self_signed(&key).expect("signed").pem()).expect("written");
    let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    std::fs::write(&key_file, other).expect("written");
    let arguments = [
        "import-chain",
        "--chain",
        chain.to_str().expect("text"),
        "--key",
        key_file.to_str().expect("text"),
    ];
    let refused = run(&arguments, &state, "");
    assert!(
        complained(&refused).contains("doesn't belong"),
        "{refused:?}"
    );
    // Every check is listed, the good ones too.
    std::fs::write(&key_file, key.serialize_pem()).expect("written");
    let refused = run(&arguments, &state, "");
    let list = String::from_utf8_lossy(&refused.stdout);
    assert!(
        list.contains("FAIL  chain-complete") && list.contains("  ok  public-key"),
        "{refused:?}"
    );
    assert!(
        complained(&refused).contains("signed by itself"),
        "{refused:?}"
    );
    let for_scripts = [&arguments[..], &["--json"]].concat();
    let refused = run(&for_scripts, &state, "");
    assert!(!refused.status.success(), "{refused:?}");
    let document: serde_json::Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    assert!(
        document["imported"] == false
            && document["checks"]
                .as_array()
                .is_some_and(|all| all.len() >= 24),
        "{document:#}"
    );
    assert_eq!(said(&run(&["fingerprint"], &state, "")), before);
}

#[tokio::test]
async fn a_backup_of_a_running_server_can_be_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let _server = Running::start(&state, "127.0.0.1:0", &[]);
    let copy = folder.path().join("copy.db");
    let output = run(&["backup", copy.to_str().expect("text")], &state, "");
    assert!(output.status.success(), "{output:?}");
    let mode = copy.metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let store = Store::open(&copy).await.expect("opens");
    let mut connection = store.read().await.expect("reads");
    let accounts = umbra_server::store::accounts::list(&mut connection)
        .await
        .expect("listed");
    assert_eq!(accounts.len(), 1);
}

/// Files a one-time key in the database of a running server.
async fn file_key(store: &Store) -> FirstAuthKey {
    let mut tx = store.begin().await.expect("begins");
    let salt = meta::key_salt(&mut tx).await.expect("a salt");
    let wanted = NewKeys {
        kind: KeyKind::OneTime,
        count: 1,
        units: Vec::new(),
        chosen: None,
        expires_in_seconds: None,
        quota: None,
        tag: String::new(),
    };
    let made = umbra_server::keys::make(&wanted, &salt, 0).expect("made");
    keys::add(&mut tx, 0, "test", &made[0].stored)
        .await
        .expect("filed");
    tx.commit().await.expect("committed");
    FirstAuthKey::parse(made[0].made.key.reveal()).expect("a key")
}

#[tokio::test]
async fn one_key_takes_on_one_of_two_hundred_devices_although_the_server_is_killed() {
    const DEVICES: usize = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let server = Running::start(&state, "127.0.0.1:0", &[]);
    let address = server.address;
    let root = std::fs::read(state.join("root.crt")).expect("readable");
    let root = CertificateDer::from_pem_slice(&root).expect("PEM");
    let store = Store::open(&state.join("umbra.db")).await.expect("opens");
    let key = file_key(&store).await;
    let all: Vec<Arc<Device>> = (0..DEVICES)
        .map(|number| Arc::new(Device::new(&format!("U{number}"))))
        .collect();
    let mut attempts = tokio::task::JoinSet::new();
    for device in &all {
        let (device, key, root) = (Arc::clone(device), key.clone(), root.clone());
        attempts.spawn(async move {
            let link = device.connect_to(address, root).await;
            device.enrol_on(link, &key).await
        });
    }
    // Killed in the middle: some have their answer, one of them perhaps the good one, others have none yet.
    eventually(async || {
        let mut connection = store.read().await.expect("reads");
        let filed = devices::list(&mut connection, "").await.expect("listed");
        (!filed.is_empty()).then_some(())
    })
    .await;
    drop(server);
    let mut answers = Vec::new();
    // Attempts that lost their connection panic in the helper; that is what a kill looks like from outside.
    while let Some(attempt) = attempts.join_next().await {
        answers.extend(attempt.ok());
    }
    let taken_on = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(taken_on <= 1, "{taken_on} devices were taken on");
    let server = Running::start(&state, &address.to_string(), &[]);
    let filed = {
        let mut connection = store.read().await.expect("reads");
        devices::list(&mut connection, "").await.expect("listed")
    };
    assert_eq!(filed.len(), 1);
    let unit = &filed[0].unit_id;
    let is_winner = |device: &&Arc<Device>| device.facts.unit_id == *unit;
    let winner = all.iter().find(is_winner).expect("one of them");
    let link = winner.connect_to(server.address, root.clone()).await;
    let answer = winner.enrol_on(link, &key).await.expect("the same answer");
    assert_eq!(answer.device_id, filed[0].certificate.device_id);
    for loser in all.iter().filter(|device| !is_winner(device)).take(5) {
        let link = loser.connect_to(server.address, root.clone()).await;
        let refusal = loser.enrol_on(link, &key).await.expect_err("refused");
        assert_eq!(refusal.code, RefusalCode::KeyUsed);
    }
    server.stop();
}
