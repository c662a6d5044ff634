//! Gateways from the administrator's side: what is shown, what is written where, and what is told of each device.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use serde_json::{Value, json};
use umbra_console::failure::Exit;

use crate::lab::{Api, Authority, Desk, NOW, Reaction, problem, with_login};

const KEY: &str = "-----BEGIN PRIVATE KEY-----\nn0body-may-see\n-----END PRIVATE KEY-----\n";

fn gateway(name: &str, attached: bool) -> Value {
    json!({
        "name": name, "internal": "10.0.0.5:8443", "external": "gw.example.com:443", "limit": 500,
        "attached": attached, "since": NOW - 60, "trouble": (!attached).then_some("The gateway cannot be reached."),
        "version": "0.1.0", "devices": 7, "certificate_until": NOW + 10 * 24 * 60 * 60,
    })
}

#[tokio::test]
async fn gateways_are_listed_with_their_trouble_and_shown_in_full() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|seen| {
            if seen.line.ends_with("/gateways") {
                let all = json!([gateway("dmz", true), gateway("cloud", false)]);
                Reaction::Answer(200, all)
            } else {
                Reaction::Answer(200, gateway("cloud", false))
            }
        }),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("gateways list").await.expect("listed");
    let text = desk.out.text();
    let line = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.expect("a line").to_owned()
    };
    assert!(line("dmz").contains(" attached "), "{text}");
    assert!(
        line("dmz").contains("its certificate ends in 10 days"),
        "{text}"
    );
    assert!(line("cloud").contains("not attached"), "{text}");
    assert!(
        line("cloud").contains("The gateway cannot be reached."),
        "{text}"
    );
    desk.run("gateways show cloud").await.expect("shown");
    let text = desk.out.text();
    for part in [
        "not attached",
        "gw.example.com:443",
        "500 devices at most",
        "(1 min ago)",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

fn keystore() -> Value {
    json!({"servers": "the servers\n", "chain": "the chain\n", "key": KEY})
}

#[tokio::test]
async fn a_new_gateways_key_is_in_one_file_for_its_owner_and_shown_to_nobody() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| Reaction::Answer(201, keystore())),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("dmz");
    let line = format!(
        "gateways create dmz --address gw.internal --external gw.example.com:443 --host 192.0.2.5 --limit 500 --out {}",
        out.display()
    );
    desk.run(&line).await.expect("made");
    assert_eq!(
        api.seen().last().expect("asked").body,
        json!({"name": "dmz", "internal": "gw.internal:8443", "external": "gw.example.com:443",
               "hosts": ["192.0.2.5"], "limit": 500, "root": null})
    );
    for (file, text) in [
        ("chain.pem", "the chain\n"),
        ("key.pem", KEY),
        ("servers.pem", "the servers\n"),
    ] {
        let read = std::fs::read_to_string(out.join(file)).expect(file);
        assert_eq!(read, text, "{file}");
    }
    let mode = |path: &std::path::Path| {
        let metadata = std::fs::metadata(path).expect("there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&out.join("key.pem")), 0o600);
    assert_eq!(mode(&out), 0o700);
    for shown in [desk.out.text(), desk.notes.text()] {
        assert!(!shown.contains("n0body-may-see"), "{shown}");
    }
    // A folder with something in it is left alone, and nothing is asked of the server.
    let asked = api.lines().len();
    let failure = desk.run(&line).await.expect_err("not empty");
    assert_eq!(failure.exit(), Exit::Usage);
    assert_eq!(api.lines().len(), asked);
}

#[tokio::test]
async fn a_gateway_that_is_not_made_leaves_no_folder() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| problem(409, "no_authority", "Give it a chain of its own.")),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("dmz");
    let line = format!("gateways create dmz --address gw --out {}", out.display());
    let failure = desk.run(&line).await.expect_err("refused");
    assert!(failure.sentence().contains("chain of its own"));
    assert!(!out.exists());
}

#[tokio::test]
async fn a_limit_is_taken_away_in_words() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| Reaction::Answer(200, gateway("dmz", true))),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("gateways set dmz --limit none")
        .await
        .expect("set");
    let body = api.seen().last().expect("asked").body.clone();
    assert_eq!(body["limit"], 0);
    let failure = desk
        .run("gateways set dmz")
        .await
        .expect_err("nothing said");
    assert_eq!(failure.exit(), Exit::Usage);
}

/// A server whose devices answer as their names say, at the second look.
async fn devices(authority: &Authority) -> Api {
    let looks: Mutex<u32> = Mutex::new(0);
    let command = |state: Value, sentence: Value| {
        json!({"id": "ab".repeat(16), "action": "connectors", "created_at": NOW, "created_by": "anna",
               "state": state, "sentence": sentence, "facts": {}})
    };
    Api::start(
        authority,
        with_login(move |seen| {
            if seen.line.starts_with("PUT") {
                return if seen.line.contains("offline") {
                    problem(409, "device_not_direct", "“offline” is offline.")
                } else {
                    Reaction::Answer(201, command(Value::Null, Value::Null))
                };
            }
            let mut looks = looks.lock().expect("whole");
            *looks += 1;
            let answers = *looks > 1 && !seen.line.contains("slow");
            let answer = match (answers, seen.line.contains("good")) {
                (false, _) => command(Value::Null, Value::Null),
                (true, true) => command(json!("done"), json!("Linked through the gateway.")),
                (true, false) => command(json!("failed"), json!("The gateway did not answer.")),
            };
            Reaction::Answer(200, json!([answer]))
        }),
    )
    .await
}

#[tokio::test]
async fn each_device_that_is_moved_says_how_it_went_and_the_exit_code_tells_of_any_failure() {
    let authority = Authority::new();
    let api = devices(&authority).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let exit = desk.run("gateways move good --to dmz").await;
    assert_eq!(exit.expect("moved"), Exit::Done);
    let seen = api.seen();
    let put = seen.iter().find(|seen| seen.line.starts_with("PUT"));
    let put = put.expect("given");
    assert_eq!(put.line, "PUT /api/v1/devices/good/gateway");
    assert_eq!(put.body, json!({"gateway": "dmz"}));
    let failure = desk
        .run("gateways move good bad --to dmz")
        .await
        .expect_err("one failed");
    assert_eq!(failure.exit(), Exit::Failed);
    assert!(
        failure.sentence().contains("1 of 2"),
        "{}",
        failure.sentence()
    );
    let text = desk.out.text();
    assert!(
        text.contains("good: done. Linked through the gateway."),
        "{text}"
    );
    assert!(
        text.contains("bad: failed. The gateway did not answer."),
        "{text}"
    );
}

#[tokio::test]
async fn scripts_get_every_device_in_one_document_also_those_that_were_refused() {
    let authority = Authority::new();
    let api = devices(&authority).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk
        .run("gateways detach good offline --json")
        .await
        .expect_err("one was refused");
    assert_eq!(failure.exit(), Exit::Failed);
    let document: Value = serde_json::from_str(&desk.out.text()).expect("one document");
    assert_eq!(document[0]["device"], "good");
    assert_eq!(document[0]["state"], "done");
    assert_eq!(document[1]["state"], "refused");
    assert_eq!(document[1]["sentence"], "“offline” is offline.");
    let seen = api.seen();
    let put = seen.iter().find(|seen| seen.line.starts_with("PUT"));
    assert_eq!(put.expect("given").body, json!({"gateway": null}));
}

#[tokio::test]
async fn a_device_that_does_not_answer_is_told_to_be_waited_for() {
    let authority = Authority::new();
    let api = devices(&authority).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk
        .run("gateways move slow --to dmz --timeout 1s")
        .await
        .expect_err("not yet");
    assert_eq!(failure.exit(), Exit::Failed);
    let text = desk.out.text();
    assert!(text.contains("slow: waiting. No answer within"), "{text}");
}
