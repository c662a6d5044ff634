//! The API in-process: requests in, answers out, no socket.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use umbra_protocol::Secret;
use umbra_protocol::api::Account;

use super::*;
use crate::store::accounts as account_rows;
use crate::testing::Site;
use crate::{passwords, random};

const PASSWORD: &str = "correct horse battery";

/// A server with one account of each role.
struct Api {
    site: Site,
    router: Router,
}

struct Answer {
    status: StatusCode,
    content_type: String,
    body: Value,
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Administrator => "ada",
        Role::Operator => "otto",
        Role::Auditor => "anna",
    }
}

const ROLES: [Role; 3] = [Role::Administrator, Role::Operator, Role::Auditor];

impl Api {
    async fn new() -> Self {
        let site = Site::new().await;
        // One hash for all: hashing is slow on purpose.
        let hash = passwords::hash(&Secret::new(PASSWORD)).expect("hashed");
        let mut tx = site.server.store.begin().await.expect("begins");
        for role in ROLES {
            let account = Account {
                user: name(role).into(),
                display_name: name(role).to_uppercase(),
                role,
            };
            let added = account_rows::add(&mut tx, 0, &account, &hash).await;
            assert!(added.expect("added"));
        }
        tx.commit().await.expect("committed");
        let router = router(Arc::clone(&site.server));
        Self { site, router }
    }

    /// A token without the cost of a password.
    async fn token(&self, role: Role) -> String {
        let token = random::hex::<32>();
        let now = self.site.server.clock.now();
        let mut tx = self.site.server.store.begin().await.expect("begins");
        let hash = random::digest(&token);
        account_rows::add_token(&mut tx, now, name(role), &hash, now + 60)
            .await
            .expect("filed");
        tx.commit().await.expect("committed");
        token
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let mut request = request;
        request
            .extensions_mut()
            .insert(Peer(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("routers answer");
        let status = response.status();
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().expect("text").to_owned())
            .unwrap_or_default();
        let bytes = response.into_body().collect().await.expect("a body");
        let body = serde_json::from_slice(&bytes.to_bytes()).unwrap_or(Value::Null);
        Answer {
            status,
            content_type,
            body,
        }
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).expect("a request")).await
    }

    async fn login(&self, user: &str, password: &str) -> Answer {
        let body = json!({ "user": user, "password": password });
        self.ask("POST", "/api/v1/login", "", Some(body)).await
    }

    async fn audit(&self) -> Vec<(String, String, String)> {
        let token = self.token(Role::Auditor).await;
        let answer = self
            .ask("GET", "/api/v1/audit?limit=500", &token, None)
            .await;
        let lines = answer.body.as_array().expect("lines").clone();
        let text = |line: &Value, field: &str| line[field].as_str().expect("text").to_owned();
        lines
            .iter()
            .map(|line| {
                (
                    text(line, "action"),
                    text(line, "actor"),
                    text(line, "outcome"),
                )
            })
            .collect()
    }
}

fn filled(path: &str) -> String {
    path.replace("{device}", "NOSUCH")
        .replace("{key}", "0011223344556677")
        .replace("{session}", &"00".repeat(16))
        .replace("{user}", "nobody")
}

fn is_problem(answer: &Answer, status: StatusCode, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.content_type, "application/problem+json");
    assert_eq!(answer.body["code"], code, "{}", answer.body);
    assert_eq!(answer.body["status"], status.as_u16());
    assert!(answer.body["detail"].as_str().is_some_and(|d| d.len() > 10));
}

#[tokio::test]
async fn every_route_lets_exactly_the_named_roles_in() {
    let api = Api::new().await;
    for role in ROLES {
        for route in ROUTES {
            if route.path.ends_with("/login") || route.path.ends_with("/logout") {
                continue;
            }
            let token = api.token(role).await;
            let answer = api
                .ask(
                    &route.method.to_uppercase(),
                    &filled(route.path),
                    &token,
                    None,
                )
                .await;
            let refused = answer.status == StatusCode::FORBIDDEN;
            // Whose password it is, is looked at only with a body.
            assert_eq!(
                refused,
                !route.access.allows(role),
                "{role:?} {} {}: {} {}",
                route.method,
                route.path,
                answer.status,
                answer.body
            );
        }
    }
    for (action, _, outcome) in api.audit().await {
        assert_eq!(
            (action.as_str(), outcome.as_str()),
            ("api.refused", "forbidden")
        );
    }
}

#[test]
fn operators_shadow_send_and_end_and_auditors_change_nothing() {
    let changes = |role: Role| -> Vec<String> {
        ROUTES
            .iter()
            .filter(|route| route.method != "get" && route.access != Access::Anyone)
            .filter(|route| route.access.allows(role))
            .map(|route| format!("{} {}", route.method, route.path))
            .collect()
    };
    let own = [
        "post /api/v1/logout",
        "put /api/v1/accounts/{user}/password",
    ];
    let shadowing = [
        "post /api/v1/devices/{device}/commands",
        "post /api/v1/sessions",
        "delete /api/v1/sessions/{session}",
    ];
    assert_eq!(changes(Role::Auditor), own);
    assert_eq!(changes(Role::Operator), [&own[..], &shadowing[..]].concat());
    let public: Vec<&str> = ROUTES
        .iter()
        .filter(|route| route.access == Access::Anyone)
        .map(|route| route.path)
        .collect();
    assert_eq!(
        public,
        ["/healthz", "/api/v1/openapi.json", "/api/v1/login"]
    );
    let closed = ROUTES
        .iter()
        .filter(|route| route.method == "get" && !route.access.allows(Role::Auditor));
    let closed: Vec<&str> = closed.map(|route| route.path).collect();
    assert_eq!(closed, ["/api/v1/accounts"], "all else is read by all");
}

#[tokio::test]
async fn without_a_token_or_with_a_wrong_or_old_one_nothing_but_the_public_routes_answers() {
    let api = Api::new().await;
    let old = api.token(Role::Administrator).await;
    api.site.server.clock.advance(61);
    for token in ["", "wrong", &old] {
        for route in ROUTES {
            let answer = api
                .ask(
                    &route.method.to_uppercase(),
                    &filled(route.path),
                    token,
                    None,
                )
                .await;
            if route.access == Access::Anyone {
                assert_ne!(answer.status, StatusCode::FORBIDDEN);
            } else {
                is_problem(&answer, StatusCode::UNAUTHORIZED, "not_logged_in");
            }
        }
    }
}

#[tokio::test]
async fn every_route_is_in_the_description_and_the_description_has_no_others() {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("methods").keys() {
            described.push((method.clone(), path.clone()));
        }
    }
    let mut routes: Vec<(String, String)> = ROUTES
        .iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned()))
        .collect();
    described.sort();
    routes.sort();
    assert_eq!(described, routes);
    let schemas = &document["components"]["schemas"];
    for schema in ["Device", "SessionOffer", "Problem", "NewKeys", "Policy"] {
        assert!(schemas[schema].is_object(), "{schema} is not described");
    }
}

#[tokio::test]
async fn errors_of_every_kind_are_problem_documents() {
    let api = Api::new().await;
    let token = api.token(Role::Administrator).await;
    let missing = api.ask("GET", "/api/v1/nothing", &token, None).await;
    is_problem(&missing, StatusCode::NOT_FOUND, "not_found");
    let method = api
        .ask("PUT", "/api/v1/devices", &token, Some(json!({})))
        .await;
    is_problem(
        &method,
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
    );
    let fields = api
        .ask("PUT", "/api/v1/policy", &token, Some(json!({})))
        .await;
    is_problem(&fields, StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    let untyped = Request::builder()
        .method("PUT")
        .uri("/api/v1/policy")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::from("{}"))
        .expect("a request");
    is_problem(
        &api.send(untyped).await,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not_json",
    );
    let large = json!({ "values": { "a": "x".repeat(BODY) } });
    let large = api
        .ask("PUT", "/api/v1/devices/X/settings", &token, Some(large))
        .await;
    is_problem(&large, StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    let query = api.ask("GET", "/api/v1/audit?limit=x", &token, None).await;
    is_problem(&query, StatusCode::BAD_REQUEST, "invalid");
    let unknown = api.ask("GET", "/api/v1/devices/X", &token, None).await;
    is_problem(&unknown, StatusCode::NOT_FOUND, "unknown_device");
    let mut deep = "[".repeat(100_000);
    deep.push_str(&"]".repeat(100_000));
    let deep = Request::builder()
        .method("PUT")
        .uri("/api/v1/policy")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(deep))
        .expect("a request");
    assert!(api.send(deep).await.status.is_client_error());
}

#[tokio::test]
async fn a_log_in_gives_a_token_that_ends_with_the_log_out() {
    let api = Api::new().await;
    let answer = api.login("Ada", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["role"], "administrator");
    let token = answer.body["token"].as_str().expect("a token").to_owned();
    let ok = api.ask("GET", "/api/v1/policy", &token, None).await;
    assert_eq!(ok.status, StatusCode::OK);
    let out = api.ask("POST", "/api/v1/logout", &token, None).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    let after = api.ask("GET", "/api/v1/policy", &token, None).await;
    is_problem(&after, StatusCode::UNAUTHORIZED, "not_logged_in");
}

#[tokio::test]
async fn guessing_is_refused_alike_for_all_accounts_then_throttled_and_written_down() {
    let api = Api::new().await;
    let wrong = api.login("ada", "wrong horse battery").await;
    is_problem(&wrong, StatusCode::UNAUTHORIZED, "wrong_password");
    let nobody = api.login("nobody", "wrong horse battery").await;
    is_problem(&nobody, StatusCode::UNAUTHORIZED, "wrong_password");
    assert_eq!(
        wrong.body, nobody.body,
        "nothing tells whether an account exists"
    );
    let mut throttled = 0;
    for _ in 0..12 {
        let answer = api.login("ada", "wrong horse battery").await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            throttled += 1;
        }
    }
    assert_eq!(throttled, 3, "ten wrong passwords are one too many");
    let right = api.login("ada", PASSWORD).await;
    is_problem(&right, StatusCode::TOO_MANY_REQUESTS, "throttled");
    let other = api.login("otto", PASSWORD).await;
    assert_eq!(other.status, StatusCode::OK, "others may log in");
    let lines = api.audit().await;
    let count = |outcome: &str| {
        lines
            .iter()
            .filter(|line| line.0 == "login" && line.2 == outcome)
            .count()
    };
    assert_eq!(count("wrong_password"), 11);
    assert_eq!(count("throttled"), 4);
    assert_eq!(count("ok"), 1);
}

#[tokio::test]
async fn accounts_are_made_listed_and_removed_but_not_the_last_administrator() {
    let api = Api::new().await;
    let token = api.token(Role::Administrator).await;
    let new = |user: &str, password: &str| json!({ "user": user, "display_name": "Bob B.", "role": "operator", "password": password });
    let made = api
        .ask(
            "POST",
            "/api/v1/accounts",
            &token,
            Some(new("bob", PASSWORD)),
        )
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let again = api
        .ask(
            "POST",
            "/api/v1/accounts",
            &token,
            Some(new("BOB", PASSWORD)),
        )
        .await;
    is_problem(&again, StatusCode::CONFLICT, "account_exists");
    let short = api
        .ask(
            "POST",
            "/api/v1/accounts",
            &token,
            Some(new("eve", "short")),
        )
        .await;
    is_problem(&short, StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    let name = api
        .ask(
            "POST",
            "/api/v1/accounts",
            &token,
            Some(new("e ve", PASSWORD)),
        )
        .await;
    is_problem(&name, StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    let listed = api.ask("GET", "/api/v1/accounts", &token, None).await;
    assert_eq!(listed.body.as_array().expect("accounts").len(), 4);
    assert!(!listed.body.to_string().contains("argon2"));
    let removed = api
        .ask("DELETE", "/api/v1/accounts/bob", &token, None)
        .await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    let last = api
        .ask("DELETE", "/api/v1/accounts/ada", &token, None)
        .await;
    is_problem(&last, StatusCode::CONFLICT, "last_administrator");
    let still = api.ask("GET", "/api/v1/accounts", &token, None).await;
    assert_eq!(
        still.status,
        StatusCode::OK,
        "the refused removal changed nothing"
    );
}

#[tokio::test]
async fn everybody_sets_their_own_password_and_administrators_all() {
    let api = Api::new().await;
    let body = || Some(json!({ "password": "another horse battery" }));
    let operator = api.token(Role::Operator).await;
    let other = api
        .ask("PUT", "/api/v1/accounts/ada/password", &operator, body())
        .await;
    is_problem(&other, StatusCode::FORBIDDEN, "forbidden");
    let own = api
        .ask("PUT", "/api/v1/accounts/otto/password", &operator, body())
        .await;
    assert_eq!(own.status, StatusCode::NO_CONTENT);
    let after = api.ask("GET", "/api/v1/devices", &operator, None).await;
    is_problem(&after, StatusCode::UNAUTHORIZED, "not_logged_in");
    assert_eq!(
        api.login("otto", "another horse battery").await.status,
        StatusCode::OK
    );
    let administrator = api.token(Role::Administrator).await;
    let all = api
        .ask(
            "PUT",
            "/api/v1/accounts/anna/password",
            &administrator,
            body(),
        )
        .await;
    assert_eq!(all.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn keys_are_shown_once_and_stored_nowhere() {
    let api = Api::new().await;
    let token = api.token(Role::Administrator).await;
    let wanted = json!({ "kind": "one_time", "count": 2, "tag": "floor 3" });
    let made = api.ask("POST", "/api/v1/keys", &token, Some(wanted)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let made = made.body.as_array().expect("keys").clone();
    assert_eq!(made.len(), 2);
    let key = made[0]["key"].as_str().expect("a key").to_owned();
    let id = made[0]["id"].as_str().expect("an ID").to_owned();
    let listed = api.ask("GET", "/api/v1/keys", &token, None).await;
    assert_eq!(listed.body.as_array().expect("keys").len(), 2);
    assert!(!listed.body.to_string().contains(&key));
    let one = api
        .ask("GET", &format!("/api/v1/keys/{id}"), &token, None)
        .await;
    assert_eq!(one.body["state"], "active");
    assert_eq!(one.body["tag"], "floor 3");
    let gone = api
        .ask("DELETE", &format!("/api/v1/keys/{id}"), &token, None)
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let one = api
        .ask("GET", &format!("/api/v1/keys/{id}"), &token, None)
        .await;
    assert_eq!(one.body["state"], "revoked");
    let weak = json!({ "kind": "mass", "count": 1, "chosen": "aaaaaaaaaaaaaa" });
    let weak = api.ask("POST", "/api/v1/keys", &token, Some(weak)).await;
    is_problem(&weak, StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    let chosen = || Some(json!({ "kind": "mass", "count": 1, "chosen": "Correct Horse 42" }));
    let first = api.ask("POST", "/api/v1/keys", &token, chosen()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let second = api.ask("POST", "/api/v1/keys", &token, chosen()).await;
    is_problem(&second, StatusCode::CONFLICT, "key_exists");
    // What was typed or shown is in no file, in no form that a thief could use.
    let plain = key.replace('-', "");
    let mut files = 0;
    for file in std::fs::read_dir(api.site.folder.path()).expect("a folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("readable");
        files += 1;
        for secret in [
            key.as_str(),
            &plain,
            "CORRECTHORSE42",
            "Correct Horse",
            PASSWORD,
            &token,
        ] {
            let found = bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!found, "a secret is on the disk");
        }
    }
    assert!(files > 3, "the database is among them");
}

#[tokio::test]
async fn devices_are_found_by_unit_name_and_part_and_can_be_renamed_and_removed() {
    let api = Api::new().await;
    api.site.file_device("AA01").await;
    api.site.file_device("AA02").await;
    let token = api.token(Role::Administrator).await;
    let all = api.ask("GET", "/api/v1/devices", &token, None).await;
    assert_eq!(all.body.as_array().expect("devices").len(), 2);
    let part = api.ask("GET", "/api/v1/devices?q=a02", &token, None).await;
    assert_eq!(part.body[0]["unit_id"], "AA02");
    assert_eq!(part.body.as_array().expect("devices").len(), 1);
    for (path, named) in [("aa01", "AA01"), ("desk-aa02", "AA02")] {
        let one = api
            .ask("GET", &format!("/api/v1/devices/{path}"), &token, None)
            .await;
        assert_eq!(one.body["unit_id"], named, "{}", one.body);
        assert_eq!(one.body["online"], false);
    }
    let change = json!({ "name": "desk-aa02" });
    let renamed = api
        .ask("PATCH", "/api/v1/devices/AA01", &token, Some(change))
        .await;
    assert_eq!(renamed.body["name"], "desk-aa02");
    let both = api
        .ask("GET", "/api/v1/devices/desk-aa02", &token, None)
        .await;
    is_problem(&both, StatusCode::CONFLICT, "ambiguous_device");
    // A device that is labelled as another one is named does not stand in for it.
    let change = json!({ "name": "aa01" });
    let renamed = api
        .ask("PATCH", "/api/v1/devices/AA02", &token, Some(change))
        .await;
    let id = renamed.body["id"].as_str().expect("an ID").to_owned();
    let either = api.ask("GET", "/api/v1/devices/AA01", &token, None).await;
    is_problem(&either, StatusCode::CONFLICT, "ambiguous_device");
    let one = api
        .ask("GET", &format!("/api/v1/devices/{id}"), &token, None)
        .await;
    assert_eq!(one.body["unit_id"], "AA02");
    let change = json!({ "name": "till" });
    api.ask(
        "PATCH",
        &format!("/api/v1/devices/{id}"),
        &token,
        Some(change),
    )
    .await;
    let removed = api
        .ask("DELETE", "/api/v1/devices/AA01", &token, None)
        .await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    let gone = api.ask("GET", "/api/v1/devices/AA01", &token, None).await;
    is_problem(&gone, StatusCode::NOT_FOUND, "unknown_device");
}

#[tokio::test]
async fn settings_and_commands_wait_for_a_device_that_is_offline() {
    let api = Api::new().await;
    api.site.file_device("AA01").await;
    let token = api.token(Role::Administrator).await;
    let values = json!({ "values": { "network.vncserver.enabled": true, "a.list": ["x"] } });
    let set = api
        .ask(
            "PUT",
            "/api/v1/devices/AA01/settings",
            &token,
            Some(values.clone()),
        )
        .await;
    assert_eq!(set.body, values);
    let read = api
        .ask("GET", "/api/v1/devices/AA01/settings", &token, None)
        .await;
    assert_eq!(read.body, values);
    let bad = json!({ "values": { "a b": true } });
    let bad = api
        .ask("PUT", "/api/v1/devices/AA01/settings", &token, Some(bad))
        .await;
    is_problem(&bad, StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    let operator = api.token(Role::Operator).await;
    let path = "/api/v1/devices/AA01/commands";
    let message = json!({ "action": "message", "text": "Lunch." });
    let given = api.ask("POST", path, &operator, Some(message)).await;
    assert_eq!(given.status, StatusCode::CREATED, "{}", given.body);
    let rekey = json!({ "action": "rekey" });
    let refused = api.ask("POST", path, &operator, Some(rekey.clone())).await;
    is_problem(&refused, StatusCode::FORBIDDEN, "forbidden");
    let given = api.ask("POST", path, &token, Some(rekey)).await;
    assert_eq!(given.status, StatusCode::CREATED);
    let listed = api.ask("GET", path, &token, None).await;
    assert_eq!(listed.body[0]["action"], "rekey");
    assert_eq!(listed.body[1]["created_by"], "otto");
    let device = api.ask("GET", "/api/v1/devices/AA01", &token, None).await;
    assert_eq!(device.body["commands_waiting"], 2);
    assert_eq!(device.body["settings_applied"], 0);
    assert!(device.body["settings_revision"].as_u64() > Some(0));
}

#[tokio::test]
async fn a_session_with_a_device_that_is_offline_is_refused_with_when_it_was_last_seen() {
    let api = Api::new().await;
    api.site.file_device("AA01").await;
    let token = api.token(Role::Operator).await;
    let wanted =
        json!({ "device": "AA01", "permissions": { "control": true, "clipboard": false } });
    let refused = api
        .ask("POST", "/api/v1/sessions", &token, Some(wanted))
        .await;
    is_problem(&refused, StatusCode::CONFLICT, "device_offline");
    let detail = refused.body["detail"]
        .as_str()
        .expect("a sentence")
        .to_owned();
    assert!(detail.contains("never connected"), "{detail}");
    let listed = api.ask("GET", "/api/v1/sessions", &token, None).await;
    assert_eq!(listed.body, json!([]), "nothing was offered");
    let lines = api.audit().await;
    let line = (
        "session.offered".into(),
        "otto".into(),
        "device_offline".into(),
    );
    assert!(lines.contains(&line), "{lines:?}");
}

#[tokio::test]
async fn the_policy_is_set_by_administrators_and_read_by_all() {
    let api = Api::new().await;
    let token = api.token(Role::Administrator).await;
    let on = json!({ "enforce_secure_mode": true });
    let set = api
        .ask("PUT", "/api/v1/policy", &token, Some(on.clone()))
        .await;
    assert_eq!(set.status, StatusCode::OK);
    let auditor = api.token(Role::Auditor).await;
    let read = api.ask("GET", "/api/v1/policy", &auditor, None).await;
    let whole = json!({ "enforce_secure_mode": true, "gateway_connections": null });
    assert_eq!(read.body, whole);
    let row = api.site.file_device("A1").await;
    let revision = async || {
        let mut connection = api.site.server.store.read().await.expect("read");
        let device = crate::store::devices::by_row(&mut connection, row).await;
        device.expect("read").settings_revision
    };
    let before = revision().await;
    let limited = json!({ "enforce_secure_mode": true, "gateway_connections": 5 });
    let set = api
        .ask("PUT", "/api/v1/policy", &token, Some(limited))
        .await;
    assert_eq!(set.body["gateway_connections"], 5);
    assert_eq!(revision().await, before, "no device has to hear of it");
    let none = json!({ "enforce_secure_mode": true, "gateway_connections": 0 });
    let refused = api.ask("PUT", "/api/v1/policy", &token, Some(none)).await;
    is_problem(&refused, StatusCode::UNPROCESSABLE_ENTITY, "invalid");
}

#[tokio::test]
async fn gateways_are_made_and_changed_by_administrators_and_read_by_all() {
    let api = Api::new().await;
    let administrator = api.token(Role::Administrator).await;
    let wanted = json!({
        "name": "dmz", "internal": "gw.internal", "external": "gw.example.com:443",
        "hosts": ["192.0.2.5"], "limit": 500,
    });
    let path = "/api/v1/gateways";
    let made = api
        .ask("POST", path, &administrator, Some(wanted.clone()))
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    for part in ["chain", "key", "servers"] {
        let text = made.body[part].as_str().expect("a PEM");
        assert!(text.starts_with("-----BEGIN "), "{part}");
    }
    let again = api.ask("POST", path, &administrator, Some(wanted)).await;
    is_problem(&again, StatusCode::CONFLICT, "gateway_exists");
    for (field, bad) in [
        ("name", json!("a b")),
        ("internal", json!("https://gw")),
        ("external", json!("gw:0")),
        ("hosts", json!(["x y"])),
        ("limit", json!(0)),
    ] {
        let mut wanted = json!({ "name": "other", "internal": "gw" });
        wanted[field] = bad;
        let refused = api.ask("POST", path, &administrator, Some(wanted)).await;
        is_problem(&refused, StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    }
    let auditor = api.token(Role::Auditor).await;
    let listed = api.ask("GET", path, &auditor, None).await;
    let gateway = &listed.body[0];
    assert_eq!(gateway["internal"], "gw.internal:8443");
    assert_eq!(gateway["external"], "gw.example.com:443");
    assert_eq!(gateway["limit"], 500);
    assert_eq!(gateway["attached"], false);
    assert!(gateway["certificate_until"].is_i64());
    assert!(gateway["trouble"].is_string(), "it says why");
    assert!(!listed.body.to_string().contains("PRIVATE KEY"));
    let operator = api.token(Role::Operator).await;
    let one = "/api/v1/gateways/dmz";
    for (method, path) in [
        ("POST", "/api/v1/gateways"),
        ("PATCH", one),
        ("DELETE", one),
        ("POST", "/api/v1/gateways/dmz/certificate"),
        ("PUT", "/api/v1/devices/A1/gateway"),
    ] {
        for token in [&operator, &auditor] {
            let refused = api.ask(method, path, token, Some(json!({}))).await;
            is_problem(&refused, StatusCode::FORBIDDEN, "forbidden");
        }
    }
    let change = json!({ "limit": 0 });
    let changed = api.ask("PATCH", one, &administrator, Some(change)).await;
    assert_eq!(changed.body["limit"], Value::Null);
    assert_eq!(changed.body["external"], "gw.example.com:443", "it stays");
    let removed = api.ask("DELETE", one, &administrator, None).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    let gone = api.ask("GET", one, &auditor, None).await;
    is_problem(&gone, StatusCode::NOT_FOUND, "unknown_gateway");
    assert!(api.site.server.gateways.wanted().gateways.is_empty());
}

#[tokio::test]
async fn a_server_with_an_imported_chain_says_that_the_gateway_needs_one_of_its_own() {
    let api = Api::new().await;
    let authority = api.site.folder.path().join("authority.pem");
    std::fs::remove_file(authority).expect("removed");
    let token = api.token(Role::Administrator).await;
    let wanted = json!({ "name": "dmz", "internal": "gw.internal" });
    let refused = api
        .ask("POST", "/api/v1/gateways", &token, Some(wanted))
        .await;
    is_problem(&refused, StatusCode::CONFLICT, "no_authority");
    let detail = refused.body["detail"].as_str().expect("a sentence");
    assert!(detail.contains("chain of its own"), "{detail}");
}

#[tokio::test]
async fn credentials_name_the_server_and_its_root() {
    let api = Api::new().await;
    let token = api.token(Role::Auditor).await;
    let answer = api.ask("GET", "/api/v1/credentials", &token, None).await;
    let authority = &api.site.server.authority;
    assert_eq!(answer.body["host"], "localhost");
    assert_eq!(answer.body["port"], 8443);
    assert_eq!(
        answer.body["root_fingerprint"],
        authority.root_fingerprint.to_string()
    );
    assert_eq!(answer.body["root_certificate"], authority.root_pem.as_str());
}

#[tokio::test]
async fn the_audit_log_is_read_page_by_page() {
    let api = Api::new().await;
    let token = api.token(Role::Administrator).await;
    for on in [true, false, true] {
        let body = json!({ "enforce_secure_mode": on });
        api.ask("PUT", "/api/v1/policy", &token, Some(body)).await;
    }
    let first = api.ask("GET", "/api/v1/audit?limit=2", &token, None).await;
    let numbers: Vec<u64> = first
        .body
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line["number"].as_u64().expect("a number"))
        .collect();
    assert_eq!(numbers, [3, 2]);
    let second = api
        .ask("GET", "/api/v1/audit?limit=2&before=2", &token, None)
        .await;
    assert_eq!(second.body.as_array().expect("lines").len(), 1);
    assert_eq!(second.body[0]["number"], 1);
}

#[tokio::test]
async fn the_server_says_that_it_is_well_and_that_it_is_not() {
    let api = Api::new().await;
    let well = api.ask("GET", "/healthz", "", None).await;
    assert_eq!(well.status, StatusCode::OK);
    assert_eq!(well.body, json!({ "status": "ok" }));
    api.site.server.store.close().await;
    let ill = api.ask("GET", "/healthz", "", None).await;
    assert_eq!(ill.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn credentials_name_every_gateway_with_the_root_that_devices_meet_there() {
    let api = Api::new().await;
    let administrator = api.token(Role::Administrator).await;
    let auditor = api.token(Role::Auditor).await;
    let own = rcgen::generate_simple_self_signed(vec!["own.example.com".to_owned()]);
    let own = own.expect("a certificate").cert;
    let path = "/api/v1/credentials";
    let alone = api.ask("GET", path, &auditor, None).await;
    assert_eq!(alone.body["gateways"], json!([]));
    let mut tx = api.site.server.store.begin().await.expect("begins");
    for (name, external, roots) in [
        ("dmz", "gw.example.com:443", vec![]),
        ("own", "[2001:db8::1]:8443", vec![own.pem()]),
    ] {
        let external = umbra_carrier::address::HostPort::parse(external, 1).expect("an address");
        let gateway = crate::store::gateways::NewGateway {
            name: name.into(),
            internal: external.clone(),
            external,
            hosts: Vec::new(),
            limit: None,
            roots,
            certificate_until: None,
        };
        let added = crate::store::gateways::add(&mut tx, 0, "ada", &gateway).await;
        assert!(added.expect("added"));
    }
    tx.commit().await.expect("committed");
    let gateways = &api.site.server.gateways;
    gateways.reload(&api.site.server.store).await.expect("read");
    let row = gateways.find("own").expect("on file").row;
    let (orders, _kept) = tokio::sync::mpsc::channel(1);
    let uplink = crate::gateways::UplinkId { row, number: 1 };
    gateways.attached(uplink, 0, "1.0".into(), orders);
    let answer = api.ask("GET", path, &auditor, None).await;
    let server = answer.body["root_fingerprint"].clone();
    let own = umbra_protocol::Fingerprint::of_certificate(own.der()).to_string();
    assert_eq!(
        answer.body["gateways"],
        json!([
            { "name": "own", "host": "2001:db8::1", "port": 8443, "root_fingerprint": own, "attached": true },
            { "name": "dmz", "host": "gw.example.com", "port": 443, "root_fingerprint": server, "attached": false },
        ])
    );
    let key = json!({ "kind": "one_time", "count": 1 });
    let made = api
        .ask("POST", "/api/v1/keys", &administrator, Some(key))
        .await;
    let id = made.body[0]["id"].as_str().expect("an ID");
    let key = format!("/api/v1/keys/{id}");
    for token in [&auditor, &api.token(Role::Operator).await] {
        let body = Some(json!({ "enabled": false }));
        let refused = api.ask("PATCH", &key, token, body).await;
        is_problem(&refused, StatusCode::FORBIDDEN, "forbidden");
    }
    let uses = api.ask("GET", &format!("{key}/uses"), &auditor, None).await;
    assert_eq!((uses.status, uses.body), (StatusCode::OK, json!([])));
    let unknown = "/api/v1/keys/ffffffffffffffff/uses";
    let unknown = api.ask("GET", unknown, &auditor, None).await;
    is_problem(&unknown, StatusCode::NOT_FOUND, "unknown_key");
    api.ask("DELETE", &key, &administrator, None).await;
    let body = Some(json!({ "enabled": true }));
    let refused = api.ask("PATCH", &key, &administrator, body).await;
    is_problem(&refused, StatusCode::CONFLICT, "key_revoked");
}
