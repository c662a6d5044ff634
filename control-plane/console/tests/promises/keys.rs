//! Keys, and the text that brings a device in.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use serde_json::{Value, json};
use umbra_console::failure::Exit;
use umbra_protocol::credentials::Credentials;

use crate::lab::{Api, Authority, Desk, NOW, Reaction, Seen, problem, told, with_login};

const FINGERPRINT: &str = "00112233445566AA-8899AABBCCDDEEFF-0123456789ABCDEF-FEDCBA9876543210";
const ID: &str = "0123456789abcdef";
const KEY: &str = "ABCDE-FGHJK-MNPQR-STVWX";

pub(crate) fn credentials() -> Value {
    json!({"host": "ums.example.com", "port": 8443, "root_fingerprint": FINGERPRINT, "root_certificate": ""})
}

/// A key on file, as the server lists it.
fn on_file(id: &str, state: &str) -> Value {
    json!({"id": id, "kind": "one_time", "units": [], "created_at": NOW, "created_by": "anna", "expires_at": null,
        "quota": 1, "used": 0, "tag": "", "state": state})
}

fn server() -> impl Fn(&Seen) -> Reaction + Send + Sync + 'static {
    with_login(|seen| match seen.line.as_str() {
        "GET /api/v1/keys" => Reaction::Answer(200, json!([on_file(ID, "active")])),
        "POST /api/v1/keys" => {
            Reaction::Answer(201, json!([{"id": "0123456789abcdef", "key": KEY}]))
        }
        "GET /api/v1/credentials" => Reaction::Answer(200, credentials()),
        "DELETE /api/v1/keys/0123456789abcdef" => Reaction::Raw(204, Vec::new()),
        _ => problem(404, "not_found", "There is nothing at this address."),
    })
}

#[tokio::test]
async fn every_option_of_a_key_reaches_the_server() {
    let authority = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let base = json!({"kind": "one_time", "count": 1, "units": [], "chosen": null, "expires_in_seconds": null, "quota": null, "tag": ""});
    let with = |changes: Value| {
        let mut body = base.clone();
        for (name, value) in changes.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    };
    desk.person.input = b"made up by anna\n".to_vec();
    for (line, body) in [
        ("keys create", base.clone()),
        (
            "keys create --count 20 --expires 7d --tag hq",
            with(json!({"count": 20, "expires_in_seconds": 604_800, "tag": "hq"})),
        ),
        (
            "keys create --unit 00e0c51c9c32 --unit B",
            with(json!({"kind": "bound", "units": ["00E0C51C9C32", "B"]})),
        ),
        (
            "keys create --mass --quota 500 --chosen-file -",
            with(json!({"kind": "mass", "quota": 500, "chosen": "made up by anna"})),
        ),
    ] {
        desk.clear();
        desk.run(line).await.expect(line);
        assert_eq!(api.seen().last().expect("asked").body, body, "{line}");
        assert_eq!(
            desk.out.text().lines().nth(1),
            Some("0123456789abcdef  ABCDE-FGHJK-MNPQR-STVWX")
        );
    }
}

#[tokio::test]
async fn a_made_up_key_that_is_easy_to_guess_is_refused_before_it_is_sent() {
    let authority = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.person.input = b"short\n".to_vec();
    let failure = desk
        .run("keys create --mass --chosen-file -")
        .await
        .expect_err("too short");
    assert_eq!(failure.exit(), Exit::Usage);
    assert!(
        told(&failure).contains("12 characters"),
        "{}",
        told(&failure)
    );
    assert_eq!(api.lines().len(), 1);
}

#[tokio::test]
async fn the_exported_text_is_in_the_fields_layout_and_holds_the_key() {
    let authority = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("keys export").await.expect("exported");
    let made = desk.out.text();
    let read = Credentials::from_text(&made).expect("reads back");
    assert_eq!(read.endpoints[0].host, "ums.example.com");
    assert_eq!(read.endpoints[0].root_fingerprint.to_string(), FINGERPRINT);
    assert_eq!(read.key.for_person().reveal(), KEY);

    desk.clear();
    let keys_made = api
        .lines()
        .iter()
        .filter(|line| line.starts_with("POST /api/v1/keys"))
        .count();
    desk.person.input = b"abcde fghjk mnpqr stvwx\n".to_vec();
    desk.run("keys export --key-file -")
        .await
        .expect("exported");
    assert_eq!(
        desk.out.text(),
        made,
        "a key from a file gives the same text"
    );
    let after = api
        .lines()
        .iter()
        .filter(|line| line.starts_with("POST /api/v1/keys"))
        .count();
    assert_eq!(after, keys_made, "no key was made");

    desk.clear();
    desk.run("keys export --json").await.expect("exported");
    let document: Value = serde_json::from_str(&desk.out.text()).expect("one document");
    assert_eq!(document["text"], made);
    assert_eq!(document["server"]["host"], "ums.example.com");
}

#[tokio::test]
async fn a_file_with_a_key_is_only_its_owners() {
    let authority = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let file = desk.folder.path().join("till-5.txt");
    desk.run(&format!("keys create --export {}", file.display()))
        .await
        .expect("exported");
    assert!(Credentials::from_text(&std::fs::read_to_string(&file).expect("written")).is_ok());
    assert_eq!(
        std::fs::metadata(&file)
            .expect("there")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert!(!desk.out.text().contains(KEY) && !desk.notes.text().contains(KEY));
    let failure = desk
        .run("keys create --export /nowhere/at/all.txt")
        .await
        .expect_err("no such folder");
    assert!(
        told(&failure).contains("/nowhere/at/all.txt can't be written"),
        "{}",
        told(&failure)
    );
}

#[tokio::test]
async fn revoking_names_the_key() {
    let authority = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("keys revoke 0123456789abcdef")
        .await
        .expect("revoked");
    assert!(desk.out.text().contains("0123456789abcdef is revoked"));
    let failure = desk
        .run("keys revoke ffffffffffffffff")
        .await
        .expect_err("unknown");
    assert_eq!(told(&failure), "umbra: There is nothing at this address.\n");
}

/// A server that makes keys one after the other, and remembers what became of each.
fn counting(gateways: Value) -> impl Fn(&Seen) -> Reaction + Send + Sync + 'static {
    let states: Mutex<Vec<(String, &'static str)>> = Mutex::new(Vec::new());
    with_login(move |seen| {
        let mut states = states.lock().expect("not poisoned");
        let made = |states: &[(String, &'static str)]| {
            let all = states.iter().rev().map(|(id, state)| on_file(id, state));
            Value::Array(all.collect())
        };
        match seen.line.as_str() {
            "POST /api/v1/keys" => {
                let count = seen.body["count"].as_u64().expect("a count");
                let keys: Vec<Value> = (0..count)
                    .map(|_| {
                        let number = states.len();
                        let id = format!("{number:016x}");
                        states.push((id.clone(), "active"));
                        json!({"id": id, "key": format!("ABCDE-FGHJK-MNPQR-STV{number:02}")})
                    })
                    .collect();
                Reaction::Answer(201, Value::Array(keys))
            }
            "GET /api/v1/keys" => Reaction::Answer(200, made(&states)),
            "GET /api/v1/credentials" => {
                let mut answer = credentials();
                answer["gateways"] = gateways.clone();
                Reaction::Answer(200, answer)
            }
            "GET /api/v1/devices/till-5" => Reaction::Answer(
                200,
                json!({"id": "ab".repeat(32), "unit_id": "T5", "name": "till-5", "online": false, "last_seen": null, "os": "",
                    "agent_version": "", "gateway": null, "shadow_addresses": [], "certificate": FINGERPRINT,
                    "conflicting_certificate": null, "settings_applied": 0, "settings_revision": 0, "settings_refused": {},
                    "commands_waiting": 0, "enrolled_at": 0}),
            ),
            line => {
                if let Some(id) = line.strip_prefix("PATCH /api/v1/keys/") {
                    let state = if seen.body["enabled"] == true {
                        "active"
                    } else {
                        "disabled"
                    };
                    let found = states.iter_mut().find(|(known, _)| known == id);
                    return match found {
                        Some(key) => {
                            key.1 = state;
                            Reaction::Answer(200, on_file(id, state))
                        }
                        None => problem(404, "not_found", "There is no such key."),
                    };
                }
                if let Some(id) = line.strip_prefix("DELETE /api/v1/keys/") {
                    states
                        .iter_mut()
                        .filter(|(known, _)| known == id)
                        .for_each(|key| key.1 = "revoked");
                    return Reaction::Raw(204, Vec::new());
                }
                if line.ends_with("/uses") {
                    return Reaction::Answer(
                        200,
                        json!([{"at": NOW - 60, "unit_id": "T5", "certificate": FINGERPRINT,
                        "device_name": "till-5\u{1b}[2J", "removed": true}]),
                    );
                }
                if let Some(id) = line.strip_prefix("GET /api/v1/keys/") {
                    return Reaction::Answer(200, on_file(id, "active"));
                }
                problem(404, "not_found", "There is no such device.")
            }
        }
    })
}

fn key_of(text: &str) -> String {
    let read = Credentials::read(text.as_bytes()).expect("reads");
    read.key.for_person().reveal().to_owned()
}

#[tokio::test]
async fn kept_keys_go_out_one_by_one_the_oldest_first_and_never_twice() {
    let authority = Authority::new();
    let api = Api::start(&authority, counting(json!([]))).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("keys create --one-time 3").await.expect("made");
    let pouch = desk.folder.path().join("config/config.keys.json");
    let mode = std::fs::metadata(&pouch)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for (format, number) in [("xml", 0), ("text", 1)] {
        desk.clear();
        desk.run(&format!("keys export --format {format}"))
            .await
            .expect("exported");
        assert_eq!(
            key_of(&desk.out.text()),
            format!("ABCDE-FGHJK-MNPQR-STV{number:02}")
        );
        let named = format!("Key {number:016x}");
        assert!(desk.notes.text().contains(&named), "{}", desk.notes.text());
        assert!(
            !std::fs::read_to_string(&pouch)
                .expect("there")
                .contains(&key_of(&desk.out.text()))
        );
    }
    desk.clear();
    let file = desk.folder.path().join("icg.html");
    desk.run(&format!(
        "keys export --keep --format html --out {}",
        file.display()
    ))
    .await
    .expect("exported");
    desk.run("keys export").await.expect("exported");
    assert_eq!(
        key_of(desk.out.text().split_once('\n').expect("lines").1),
        "ABCDE-FGHJK-MNPQR-STV02",
        "--keep kept it"
    );
    desk.clear();
    desk.run("keys export").await.expect("made one");
    assert_eq!(key_of(&desk.out.text()), "ABCDE-FGHJK-MNPQR-STV03");
    assert!(
        desk.notes.text().contains("made just now"),
        "{}",
        desk.notes.text()
    );
    let failure = desk
        .run("keys export 0000000000000001")
        .await
        .expect_err("gone");
    assert!(
        told(&failure).contains("does not keep the text of 0000000000000001"),
        "{}",
        told(&failure)
    );
}

#[tokio::test]
async fn a_key_that_could_not_be_handed_over_is_kept() {
    let authority = Authority::new();
    let api = Api::start(&authority, counting(json!([]))).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("keys create").await.expect("made");
    desk.run("keys export --out /nowhere/at/all.xml")
        .await
        .expect_err("no such folder");
    desk.clear();
    desk.run("keys export").await.expect("exported");
    assert_eq!(key_of(&desk.out.text()), "ABCDE-FGHJK-MNPQR-STV00");
    desk.run("keys export --mass --out /nowhere/at/all.xml")
        .await
        .expect_err("no such folder");
    desk.clear();
    desk.run("keys export").await.expect("exported");
    assert_eq!(
        key_of(&desk.out.text()),
        "ABCDE-FGHJK-MNPQR-STV01",
        "made, not handed over, kept"
    );
    desk.run("keys create --dont-keep").await.expect("made");
    desk.clear();
    desk.run("keys export").await.expect("exported");
    assert_eq!(key_of(&desk.out.text()), "ABCDE-FGHJK-MNPQR-STV03");
}

#[tokio::test]
async fn what_was_revoked_or_disabled_is_not_exported_unasked() {
    let authority = Authority::new();
    let api = Api::start(&authority, counting(json!([]))).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("keys create --count 4").await.expect("made");
    desk.run("keys revoke 0000000000000000")
        .await
        .expect("revoked");
    desk.run("keys disable 0000000000000001")
        .await
        .expect("disabled");
    desk.clear();
    desk.run("keys list").await.expect("listed");
    let list = desk.out.text();
    let line = |id: &str| {
        list.lines()
            .find(|line| line.starts_with(id))
            .expect("listed")
            .to_owned()
    };
    assert!(
        line("0000000000000000").contains("revoked") && line("0000000000000000").contains(" no")
    );
    assert!(
        line("0000000000000001").contains("disabled") && line("0000000000000001").contains(" here")
    );
    desk.clear();
    desk.run("keys export").await.expect("exported");
    assert_eq!(key_of(&desk.out.text()), "ABCDE-FGHJK-MNPQR-STV02");
    desk.run("keys enable 0000000000000001")
        .await
        .expect("enabled");
    desk.clear();
    desk.run("keys export --format csv")
        .await
        .expect("exported");
    let sheet = desk.out.text();
    assert_eq!(sheet.lines().count(), 3, "{sheet}");
    assert!(
        sheet.contains("STV01") && sheet.contains("STV03") && sheet.contains(FINGERPRINT),
        "{sheet}"
    );
    let failure = desk
        .run("keys disable ffffffffffffffff")
        .await
        .expect_err("unknown");
    assert!(told(&failure).contains("no such key"));
}

#[tokio::test]
async fn all_gateways_are_exported_and_the_server_only_when_asked_for() {
    let authority = Authority::new();
    let gateways = json!([
        {"name": "dmz", "host": "gw.example.com", "port": 443, "root_fingerprint": FINGERPRINT, "attached": true},
        {"name": "cloud", "host": "203.0.113.5", "port": 8443, "root_fingerprint": FINGERPRINT, "attached": false},
    ]);
    let api = Api::start(&authority, counting(gateways)).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    for (line, hosts) in [
        (
            "keys export --format xml",
            vec!["gw.example.com", "203.0.113.5"],
        ),
        (
            "keys export --direct",
            vec!["gw.example.com", "203.0.113.5", "ums.example.com"],
        ),
    ] {
        desk.clear();
        desk.run(line).await.expect("exported");
        let read = Credentials::read(desk.out.text().as_bytes()).expect("reads");
        let found: Vec<&str> = read.endpoints.iter().map(|one| one.host.as_str()).collect();
        assert_eq!(found, hosts);
        assert!(
            desk.notes
                .text()
                .contains("not attached to the gateway cloud")
        );
    }
}

#[tokio::test]
async fn units_come_from_lists_and_devices_and_every_mistake_is_told() {
    let authority = Authority::new();
    let api = Api::start(&authority, counting(json!([]))).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let list = desk.folder.path().join("floor3.csv");
    std::fs::write(&list, "Unit ID;Name\n00:E0:C5:1C:9C:32;Lobby\nT5;Bar\n").expect("written");
    let line = format!(
        "keys create --units-from {} --device till-5 --unit A1",
        list.display()
    );
    desk.run(&line).await.expect("made");
    let body = api.seen().last().expect("asked").body.clone();
    assert_eq!(body["kind"], "bound");
    assert_eq!(body["units"], json!(["A1", "00E0C51C9C32", "T5"]));
    std::fs::write(&list, "A1\nb c\nA1\n").expect("written");
    let before = api
        .lines()
        .iter()
        .filter(|line| line.starts_with("POST /api/v1/keys"))
        .count();
    let line = format!(
        "keys create --units-from {} --device nobody",
        list.display()
    );
    let failure = desk.run(&line).await.expect_err("mistakes");
    let told = told(&failure);
    assert_eq!(failure.exit(), Exit::Usage);
    for part in [
        "line 2",
        "line 3: A1 is in line 1 already",
        "--device nobody: There is no such device",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let after = api
        .lines()
        .iter()
        .filter(|line| line.starts_with("POST /api/v1/keys"))
        .count();
    assert_eq!(before, after, "no key was made");
}

#[tokio::test]
async fn a_key_is_shown_with_the_devices_that_came_in_with_it() {
    let authority = Authority::new();
    let api = Api::start(&authority, counting(json!([]))).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("keys create").await.expect("made");
    desk.clear();
    desk.run("keys show 0000000000000000").await.expect("shown");
    let shown = desk.out.text();
    assert!(
        shown.contains("Kept here:  yes") && shown.contains("State:      active"),
        "{shown}"
    );
    let last = shown.lines().last().expect("a use");
    assert!(
        last.contains("till-5\\u{1b}[2J") && last.ends_with("no"),
        "{shown}"
    );
}
