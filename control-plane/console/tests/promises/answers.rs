//! What the server answers, shown to people and to scripts; and servers that answer badly or not at all.

use std::time::Duration;

use serde_json::{Value, json};
use umbra_console::failure::Exit;

use crate::lab::{Api, Authority, Desk, NOW, Reaction, problem, told, with_login};

const OTHER: &str = "00112233445566AA-8899AABBCCDDEEFF-0123456789ABCDEF-FEDCBA9876543210";

fn device(name: &str) -> Value {
    json!({
        "id": "ab".repeat(32), "unit_id": "00E0C51C9C32", "name": name, "online": true, "last_seen": NOW - 200,
        "os": "ThinOS 5", "agent_version": "0.1.0", "shadow_addresses": ["192.0.2.7:5900"], "certificate": OTHER,
        "conflicting_certificate": null, "settings_applied": 1, "settings_revision": 2, "settings_refused": {},
        "commands_waiting": 0, "enrolled_at": NOW - 86_400, "colour_of_the_case": "black",
    })
}

fn command(state: Value) -> Value {
    json!({
        "id": "12".repeat(16), "action": "inventory", "created_at": NOW, "created_by": "anna", "state": state,
        "sentence": if state.is_null() { Value::Null } else { json!("All counted.") },
        "facts": if state.is_null() { json!({}) } else { json!({"memory": "2 GiB"}) },
    })
}

#[tokio::test]
async fn devices_are_a_table_for_people_and_the_servers_own_document_for_scripts() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| {
            Reaction::Answer(
                200,
                json!([device("till-5"), device("evil\u{1b}[2J\nroot online")]),
            )
        }),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("devices").await.expect("listed");
    let table = desk.out.text();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "a name cannot forge a line: {table}");
    assert!(
        lines[1].starts_with("till-5") && lines[1].contains("3 min ago"),
        "{table}"
    );
    assert!(lines[1].ends_with("settings pending"), "{table}");
    assert!(!table.contains('\u{1b}'));
    assert_eq!(
        lines[0].find("UNIT ID"),
        lines[2].find("00E0C51C9C32"),
        "aligned: {table}"
    );

    desk.clear();
    desk.run("devices lobby&x --json").await.expect("listed");
    let document: Value = serde_json::from_str(&desk.out.text()).expect("one document");
    assert_eq!(
        document[0]["colour_of_the_case"], "black",
        "what this program doesn't know is passed on"
    );
    assert_eq!(
        api.lines().last().expect("asked"),
        "GET /api/v1/devices?q=lobby%26x"
    );
}

#[tokio::test]
async fn a_device_is_shown_in_full_with_its_conflict() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| {
            let mut device = device("till-5");
            device["conflicting_certificate"] = json!(OTHER);
            device["clone_suspected_at"] = json!(1_772_348_509);
            device["settings_refused"] = json!({"a.b": "there is no such parameter"});
            Reaction::Answer(200, device)
        }),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("devices show till-5").await.expect("shown");
    let text = desk.out.text();
    for part in [
        "CONFLICT:",
        "CLONE:",
        "umbra devices not-cloned",
        OTHER,
        "a.b: there is no such parameter",
        "2026-03-01T07:01:49Z (3 min ago)",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

#[tokio::test]
async fn a_presented_certificate_is_accepted_only_by_name_or_by_a_person() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|seen| {
            let mut device = device("till-5");
            if seen.line.starts_with("GET") {
                device["conflicting_certificate"] = json!(OTHER);
            }
            Reaction::Answer(200, device)
        }),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let posts = |api: &Api| {
        api.seen()
            .into_iter()
            .filter(|seen| seen.line.starts_with("POST /api/v1/devices"))
            .collect::<Vec<_>>()
    };
    let failure = desk
        .run("devices accept-certificate till-5")
        .await
        .expect_err("nobody to agree");
    assert_eq!(failure.exit(), Exit::Usage);
    desk.person.answers = ["y".to_owned()].into();
    desk.run("devices accept-certificate till-5")
        .await
        .expect_err("only a whole yes counts");
    assert!(posts(&api).is_empty());
    desk.person.answers = ["yes".to_owned()].into();
    desk.run("devices accept-certificate till-5")
        .await
        .expect("accepted");
    desk.run(&format!(
        "devices accept-certificate till-5 --fingerprint {OTHER}"
    ))
    .await
    .expect("accepted");
    let posts = posts(&api);
    assert_eq!(posts.len(), 2);
    assert!(
        posts
            .iter()
            .all(|seen| seen.body == json!({"certificate": OTHER}))
    );
    desk.run("devices refuse-certificate till-5")
        .await
        .expect("refused");
    let refused: Vec<_> = api
        .seen()
        .into_iter()
        .filter(|seen| seen.line.contains("/certificate/refusal"))
        .collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].body, json!({"certificate": OTHER}));
}

#[tokio::test]
async fn settings_are_changed_one_by_one_although_the_server_replaces_them_all() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|seen| {
            if seen.line.starts_with("PUT") {
                return Reaction::Answer(200, seen.body.clone());
            }
            Reaction::Answer(
                200,
                json!({"values": {"a.keep": "x", "b.drop": true, "c.change": 1}}),
            )
        }),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("devices settings till-5 c.change=2 d.new=[\"p\",\"q\"] --unset b.drop")
        .await
        .expect("set");
    let put = api
        .seen()
        .into_iter()
        .find(|seen| seen.line.starts_with("PUT"))
        .expect("put");
    assert_eq!(put.line, "PUT /api/v1/devices/till-5/settings");
    assert_eq!(
        put.body,
        json!({"values": {"a.keep": "x", "c.change": 2, "d.new": ["p", "q"]}})
    );
    assert!(
        desk.out.text().contains("d.new     [\"p\",\"q\"]"),
        "{}",
        desk.out.text()
    );
    let failure = desk
        .run("devices settings till-5 --unset z.z")
        .await
        .expect_err("not set");
    assert_eq!(failure.exit(), Exit::Usage);
}

#[tokio::test]
async fn waiting_for_a_command_ends_with_the_devices_own_words() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|seen| match seen.line.as_str() {
            "POST /api/v1/devices/till-5/commands" => Reaction::Answer(201, command(Value::Null)),
            _ => Reaction::Answer(200, json!([command(json!("done"))])),
        }),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("devices command till-5 inventory --wait")
        .await
        .expect("done");
    assert_eq!(api.seen()[1].body, json!({"action": "inventory"}));
    assert_eq!(
        desk.out.text(),
        "till-5: inventory is done. All counted.\nmemory:  2 GiB\n"
    );
    let words = [
        "umbra",
        "devices",
        "command",
        "till-5",
        "message",
        "We restart at noon.",
    ];
    desk.run_words(words.map(Into::into).into(), std::future::pending())
        .await
        .expect("given");
    let given = api.seen().pop().expect("asked");
    assert_eq!(
        given.body,
        json!({"action": "message", "text": "We restart at noon."})
    );
}

#[tokio::test]
async fn a_command_that_failed_or_did_not_come_is_a_failure() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(
            |seen| match (seen.line.as_str(), seen.body["action"].as_str()) {
                (_, Some("reboot")) => Reaction::Answer(201, command(Value::Null)),
                (_, Some(_)) => Reaction::Answer(201, command(json!("failed"))),
                _ => Reaction::Answer(200, json!([command(Value::Null)])),
            },
        ),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failed = desk
        .run("devices command till-5 renew --wait")
        .await
        .expect_err("failed");
    assert!(
        told(&failed).contains("tried and failed: All counted."),
        "{}",
        told(&failed)
    );
    let late = desk
        .run("devices command till-5 reboot --wait --timeout 1s")
        .await
        .expect_err("too late");
    assert!(
        told(&late).contains("has not answered within 1 s"),
        "{}",
        told(&late)
    );
    assert_eq!(late.exit(), Exit::Failed);
}

#[tokio::test]
async fn sessions_and_the_audit_log_are_tables() {
    let authority = Authority::new();
    let session = json!({
        "session": "cd".repeat(16), "device_name": "till-5", "device": "ab".repeat(32), "user": "anna",
        "reason": "ticket 4711", "permissions": {"control": true, "clipboard": false}, "state": "ended",
        "created_at": NOW - 600, "started_at": NOW - 590, "ended_at": NOW - 390, "end_code": "viewer_closed",
        "end_sentence": "The viewer closed the session.", "duration_ms": 200_000, "bytes_to_device": 24,
        "bytes_to_console": 1_000,
    });
    let api = Api::start(
        &authority,
        with_login(move |seen| match seen.line.as_str() {
            "GET /api/v1/sessions?device=till-5&limit=5" => Reaction::Answer(200, json!([session])),
            "GET /api/v1/sessions/cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd" => Reaction::Answer(200, session.clone()),
            "DELETE /api/v1/sessions/cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd" => Reaction::Raw(204, Vec::new()),
            "GET /api/v1/audit?limit=1" => Reaction::Answer(
                200,
                json!([{"number": 7, "at": NOW, "actor": "anna", "action": "key.created", "subject": "k", "outcome": "ok", "detail": ""}]),
            ),
            _ => problem(404, "not_found", "There is nothing at this address."),
        }),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("sessions --device till-5 --limit 5")
        .await
        .expect("listed");
    assert!(
        desk.out.text().contains("3 min 20 s"),
        "{}",
        desk.out.text()
    );
    assert!(desk.out.text().contains("1.0 KiB"), "{}", desk.out.text());
    let id = "cd".repeat(16);
    desk.clear();
    desk.run(&format!("sessions show {id}"))
        .await
        .expect("shown");
    assert!(
        desk.out.text().contains("see and operate"),
        "{}",
        desk.out.text()
    );
    desk.run(&format!("sessions end {id}"))
        .await
        .expect("ended");
    desk.clear();
    desk.run("audit --limit 1").await.expect("listed");
    assert_eq!(
        desk.out.text().lines().nth(1),
        Some("7       2026-03-01T07:05:09Z  anna  key.created  k   ok")
    );
}

#[tokio::test]
async fn policy_and_accounts_say_what_they_are_told() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|seen| match seen.line.as_str() {
            "GET /api/v1/policy" => Reaction::Answer(200, json!({"enforce_secure_mode": false})),
            "PUT /api/v1/policy" => Reaction::Answer(200, seen.body.clone()),
            "POST /api/v1/accounts" => Reaction::Answer(
                201,
                json!({"user": "bob", "display_name": "Bob", "role": "auditor"}),
            ),
            _ => Reaction::Raw(204, Vec::new()),
        }),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("policy --enforce-secure-mode on")
        .await
        .expect("set");
    assert!(
        desk.out.text().contains("on: only encrypted"),
        "{}",
        desk.out.text()
    );
    desk.person.secrets = ["a long password".to_owned(), "a long passwort".to_owned()].into();
    desk.run("accounts add bob --role auditor")
        .await
        .expect_err("the two are not the same");
    assert!(!api.lines().contains(&"POST /api/v1/accounts".to_owned()));
    desk.person.secrets = ["a long password".to_owned(), "a long password".to_owned()].into();
    desk.run("accounts add bob --role auditor")
        .await
        .expect("made");
    let body = api.seen().pop().expect("asked").body;
    assert_eq!(
        body,
        json!({"user": "bob", "display_name": "bob", "role": "auditor", "password": "a long password"})
    );
    desk.person.input = b"another password\n".to_vec();
    desk.run("accounts password --password-file -")
        .await
        .expect("set");
    desk.run("accounts remove bob/../x").await.expect("removed");
    assert_eq!(
        api.lines()[4..],
        [
            "PUT /api/v1/accounts/anna/password",
            "DELETE /api/v1/accounts/bob%2F..%2Fx"
        ]
    );
}

#[tokio::test]
async fn a_problem_is_told_in_the_servers_words_without_its_control_characters() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| problem(403, "forbidden", "Ask \u{1b}[2Jan administrator.\n")),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk.run("audit").await.expect_err("forbidden");
    let told = told(&failure);
    assert!(
        told.starts_with("umbra: Ask ") && told.contains("an administrator."),
        "{told:?}"
    );
    assert!(
        !told.contains('\u{1b}') && told.lines().count() == 1,
        "{told:?}"
    );
    let mut json = Vec::new();
    failure.tell(true, &mut json);
    let document: Value = serde_json::from_slice(&json).expect("one document");
    assert_eq!(
        (document["code"].as_str(), document["status"].as_u64()),
        (Some("forbidden"), Some(403))
    );
}

#[tokio::test]
async fn what_is_no_api_is_told_as_such() {
    let authority = Authority::new();
    for (reaction, part) in [
        ((200, b"<html>".to_vec()), "can't be understood"),
        ((200, b"{\"token\":1}".to_vec()), "can't be understood"),
        ((502, b"Bad gateway".to_vec()), "Is this an Umbra server?"),
    ] {
        let api = Api::start(
            &authority,
            with_login(move |_| Reaction::Raw(reaction.0, reaction.1.clone())),
        )
        .await;
        let mut desk = Desk::logged_in(&authority, &api).await;
        let failure = desk.run("devices").await.expect_err("no API");
        assert!(told(&failure).contains(part), "{}", told(&failure));
        assert_eq!(failure.exit(), Exit::Failed);
        for type_name in ["Vec<", "struct ", "serde", "hyper", "Error("] {
            assert!(!told(&failure).contains(type_name), "{}", told(&failure));
        }
    }
}

#[tokio::test]
async fn an_answer_without_bound_or_end_is_given_up() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| Reaction::Raw(200, vec![b' '; 10_000])),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.limits.server.body_max = 9_999;
    let failure = desk.run("devices").await.expect_err("too large");
    assert!(
        told(&failure).contains("larger than 9999 bytes"),
        "{}",
        told(&failure)
    );

    let api = Api::start(&authority, with_login(|_| Reaction::Silence)).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.limits.server.answer = Duration::from_millis(300);
    let failure = desk.run("devices").await.expect_err("silence");
    assert_eq!(failure.exit(), Exit::Unreachable);
    assert!(
        told(&failure).contains("didn't answer"),
        "{}",
        told(&failure)
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_apart_from_one_that_refuses() {
    let authority = Authority::new();
    let api = Api::start(&authority, with_login(|_| Reaction::Silence)).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let address = api.address;
    drop(api);
    // Until the aborted task has given the port back, a connection may still be taken and dropped.
    loop {
        let failure = desk.run("devices").await.expect_err("nobody there");
        assert_eq!(failure.exit(), Exit::Unreachable);
        if told(&failure).contains("refuses connections") {
            assert!(told(&failure).contains(&address.to_string()));
            break;
        }
    }
    let failure = desk
        .run("devices --server 127.0.0.1:1")
        .await
        .expect_err("never logged in there");
    assert_eq!(failure.exit(), Exit::NotLoggedIn);
    assert!(
        told(&failure).contains("umbra login 127.0.0.1:1"),
        "{}",
        told(&failure)
    );
}
