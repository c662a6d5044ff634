//! Requests to the management API, in any order and with any content, of any role. What holds: none ends in a failure of the server;
//! who has no log-in, or a role that is not enough, gets nowhere whatever else is in the request; every refusal is a problem document
//! with a code and a sentence without a character that moves a cursor; and no answer may be kept by a cache.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;
use umbra_carrier::proxy::{NoProxy, ProxySettings};
use umbra_protocol::api::{Account, Problem, Role};
use umbra_protocol::hello::DeviceFacts;
use umbra_protocol::{DeviceId, Fingerprint, KeyId, Secret};
use umbra_server::ca::{self, CaFiles};
use umbra_server::clock::Clock;
use umbra_server::http::{Access, Peer, ROUTES, router};
use umbra_server::server::{Endpoint, Parts, Server};
use umbra_server::store::devices::{self, DeviceCertificate};
use umbra_server::store::{Store, accounts};
use umbra_server::{passwords, random};

const ROLES: [Role; 3] = [Role::Administrator, Role::Operator, Role::Auditor];
/// What is on file, and what is not.
const NAMES: [&str; 12] = [
    "ada", "otto", "1", "00E0C5A1B2C3", "gw", "%2e%2e", "%00", "a%20b", "0101010101010101", "x", "nobody",
    "00000000000000000000000000000000",
];
/// The fields of the API, and one that it does not know.
const FIELDS: [&str; 34] = [
    "action", "chosen", "clipboard", "connectors", "control", "count", "device", "display_name", "enabled",
    "enforce_secure_mode", "expires_in_seconds", "external", "gateway", "host", "hosts", "internal", "kind", "limit",
    "name", "new", "operator", "password", "permissions", "port", "quota", "reason", "role", "tag", "text", "units",
    "user", "values", "version", "unknown",
];
const WORDS: [&str; 22] = [
    "ada", "otto", "administrator", "operator", "auditor", "one_time", "bound", "mass", "reboot", "shutdown", "update",
    "message", "inventory", "renew", "rekey", "connectors", "gateway", "direct", "00E0C5A1B2C3", "gw.example.com", "gw",
    "network.vncserver.enabled",
];

#[derive(Arbitrary, Debug)]
struct Run {
    asks: Vec<Ask>,
}

#[derive(Arbitrary, Debug)]
struct Ask {
    route: u8,
    names: [u8; 2],
    query: Option<String>,
    limit: Option<u16>,
    who: u8,
    body: What,
}

#[derive(Debug)]
enum What {
    Nothing,
    Raw(Vec<u8>),
    Json(Value),
}

impl<'a> Arbitrary<'a> for What {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u.int_in_range(0..=7)? {
            0 => Self::Nothing,
            1 => Self::Raw(Vec::arbitrary(u)?),
            _ => Self::Json(json(u, 3)?),
        })
    }
}

fn json(u: &mut Unstructured<'_>, depth: u8) -> arbitrary::Result<Value> {
    Ok(match u.int_in_range(0..=9)? {
        0 => Value::Null,
        1 => bool::arbitrary(u)?.into(),
        2 => u8::arbitrary(u)?.into(),
        3 => i64::arbitrary(u)?.into(),
        4 => String::arbitrary(u)?.into(),
        5 => u64::arbitrary(u)?.into(),
        6 if depth > 0 => {
            let count = u.int_in_range(0..=4)?;
            (0..count).map(|_| json(u, depth - 1)).collect::<arbitrary::Result<Vec<_>>>()?.into()
        }
        7 | 8 if depth > 0 => {
            let mut object = serde_json::Map::new();
            for _ in 0..u.int_in_range(0..=8)? {
                object.insert((*u.choose(&FIELDS)?).to_owned(), json(u, depth - 1)?);
            }
            object.into()
        }
        _ => (*u.choose(&WORDS)?).into(),
    })
}

struct Site {
    runtime: Runtime,
    router: Router,
    tokens: [String; 3],
}

/// A folder in memory, of this process.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("umbra-fuzz-api-{}", std::process::id()))
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (router, tokens) = runtime.block_on(async {
            let folder = folder();
            std::fs::create_dir_all(&folder).expect("a folder");
            let clock = Clock::system();
            let authority = ca::open(&CaFiles::in_folder(&folder), &["localhost".into()], clock.now()).expect("made");
            let parts = Parts {
                store: Store::open(&folder.join("umbra.db")).await.expect("opens"),
                clock,
                authority,
                endpoints: vec![Endpoint { host: "localhost".into(), port: 8443 }],
                heartbeat: Duration::from_secs(40),
                // Gateways that are made here are dialled; the way ends at a port where nobody listens.
                gateway_proxy: ProxySettings::from_url("http://127.0.0.1:1", NoProxy::default()).expect("a proxy"),
            };
            let server = Arc::new(Server::new(parts).await.expect("put together"));
            let now = server.clock.now();
            let hash = passwords::hash(&Secret::new("correct horse battery")).expect("hashed");
            let mut tx = server.store.begin().await.expect("begins");
            let tokens = ROLES.map(|_| random::hex::<32>());
            for ((role, user), token) in ROLES.into_iter().zip(["ada", "otto", "anna"]).zip(&tokens) {
                let account = Account { user: user.into(), display_name: user.into(), role };
                assert!(accounts::add(&mut tx, 0, &account, &hash).await.expect("added"));
                let hash = random::digest(token);
                accounts::add_token(&mut tx, now, user, &hash, now + 1_000_000).await.expect("filed");
            }
            let facts = DeviceFacts {
                unit_id: "00E0C5A1B2C3".parse().expect("a unit ID"),
                name: "till".into(),
                os: String::new(),
                agent_version: String::new(),
                architecture: String::new(),
                shadowing: true,
                shadow_port: Some(5900),
                addresses: vec!["127.0.0.1".into()],
                secure_mode: true,
            };
            let certificate = DeviceCertificate {
                fingerprint: Fingerprint::from_bytes([1; 32]),
                device_id: DeviceId::from_bytes([1; 32]),
                der: vec![1; 8],
            };
            devices::add(&mut tx, now, &facts, &certificate, KeyId::from_bytes([1; 8])).await.expect("filed");
            tx.commit().await.expect("committed");
            (router(server), tokens)
        });
        Site { runtime, router, tokens }
    })
}

fuzz_target!(|run: Run| {
    let site = site();
    for ask in run.asks.iter().take(8) {
        let route = ROUTES[usize::from(ask.route) % ROUTES.len()];
        // Accounts and log-ins that the run needs stay, and gateways would be dialled for as long as it lasts.
        let path = route.path;
        if path.ends_with("/logout") || (path.contains("{user}") && NAMES[usize::from(ask.names[0]) % 12] != "nobody") {
            continue;
        }
        let mut uri = String::new();
        for (part, name) in path.split('{').enumerate().map(|(index, part)| (part, index.checked_sub(1))) {
            match name {
                None => uri.push_str(part),
                Some(index) => {
                    uri.push_str(NAMES[usize::from(ask.names[index % 2]) % NAMES.len()]);
                    uri.push_str(part.split_once('}').map_or("", |(_, rest)| rest));
                }
            }
        }
        if let Some(limit) = ask.limit {
            uri.push_str(&format!("?limit={limit}"));
        } else if let Some(query) = &ask.query {
            let plain: String = query.bytes().filter(|byte| byte.is_ascii_graphic()).map(char::from).take(80).collect();
            uri.push_str(&format!("?{plain}"));
        }
        let role = ROLES.get(usize::from(ask.who % 4)).copied();
        let mut request = Request::builder().method(route.method.to_uppercase().as_str()).uri(&uri);
        if let Some(token) = site.tokens.get(usize::from(ask.who % 4)) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match &ask.body {
            What::Nothing => Body::empty(),
            What::Raw(bytes) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(bytes.clone())
            }
            What::Json(value) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                let mut value = value.clone();
                // A thousand keys take their minutes.
                if let Some(count) = value.get_mut("count").filter(|count| count.as_u64().is_some_and(|count| count > 2)) {
                    *count = 1.into();
                }
                Body::from(value.to_string())
            }
        };
        let Ok(mut request) = request.body(body) else { continue };
        request.extensions_mut().insert(Peer(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
        let (status, headers, bytes) = site.runtime.block_on(async {
            let answer = site.router.clone().oneshot(request).await.expect("routers answer");
            let (head, body) = answer.into_parts();
            (head.status, head.headers, body.collect().await.expect("a body").to_bytes())
        });
        assert!(!status.is_server_error(), "{} {uri}: {status} {}", route.method, String::from_utf8_lossy(&bytes));
        assert_eq!(headers.get(header::CACHE_CONTROL).map(|value| value.as_bytes()), Some(&b"no-store"[..]));
        match role {
            None if route.access != Access::Anyone => assert_eq!(status, StatusCode::UNAUTHORIZED, "{uri}"),
            Some(role) if !route.access.allows(role) => assert_eq!(status, StatusCode::FORBIDDEN, "{uri}"),
            None | Some(_) => {}
        }
        if status.is_client_error() {
            let problem: Problem = serde_json::from_slice(&bytes).expect("a problem document");
            assert_eq!(problem.status, status.as_u16());
            assert!(!problem.code.is_empty() && problem.code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert!(!problem.detail.is_empty() && !problem.detail.chars().any(char::is_control), "{:?}", problem.detail);
        }
    }
});
