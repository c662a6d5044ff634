//! Keys, and the text that brings a device in.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use umbra_console::failure::Exit;
use umbra_protocol::credentials::Credentials;

use crate::lab::{Api, Authority, Desk, Reaction, Seen, problem, told, with_login};

const FINGERPRINT: &str = "00112233445566AA-8899AABBCCDDEEFF-0123456789ABCDEF-FEDCBA9876543210";
const KEY: &str = "ABCDE-FGHJK-MNPQR-STVWX";

pub(crate) fn credentials() -> Value {
    json!({"host": "ums.example.com", "port": 8443, "root_fingerprint": FINGERPRINT, "root_certificate": ""})
}

fn server() -> impl Fn(&Seen) -> Reaction + Send + Sync + 'static {
    with_login(|seen| match seen.line.as_str() {
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
