//! Requests to the server's API from people who have no account, or a browser that somebody else's page has led there: too large, too
//! deep, too slow, from foreign places. Each costs little and is answered as such, or not at all.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use umbra_tests::fault_proxy::{Fault, FaultProxy};
use umbra_tests::scratch::scenario;
use umbra_tests::tunnel::dial;
use umbra_tests::world::{Console, PATIENCE, Server, ServerConfig};

use crate::strangers::{bounded, resident};

/// A head of this size is larger than any limit.
const LARGE: usize = 1 << 20;
/// As deep as nobody means it.
const DEEP: usize = 100_000;
/// The longest that a head may take in all; the server's own limit is below.
const HEAD: Duration = Duration::from_secs(15);
/// How long the crowd may keep an administrator waiting.
const WAIT: Duration = Duration::from_secs(5);

/// Everything that is answered to some bytes; empty where the connection just ends.
async fn answer(port: SocketAddr, request: &[u8]) -> anyhow::Result<String> {
    let (mut from, mut to) = tokio::io::split(dial(port, PATIENCE).await?.into_stream());
    let asking = async {
        // The server may have enough before all of it is said.
        let _ = to.write_all(request).await;
        let _ = to.flush().await;
        std::future::pending::<()>().await;
    };
    let mut heard = Vec::new();
    let hearing = async {
        let mut part = [0; 4096];
        while let Ok(count) = from.read(&mut part).await
            && count > 0
        {
            heard.extend_from_slice(&part[..count]);
        }
    };
    tokio::select! {
        () = asking => {}
        ended = timeout(PATIENCE, hearing) => ended.context("the server never ends it")?,
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

fn post(path: &str, more: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_too_large_too_deep_or_too_slow_cost_the_server_little() {
    scenario(async |scratch| {
        let mut server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let port = server.address();
        console.tell(&["devices"], "").await?;
        let before = resident(Some(server.program()))?;

        let json = "Content-Type: application/json\r\n";
        let nested = format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP));
        let objects = "{\"user\":".repeat(DEEP / 10);
        let line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(LARGE));
        let field = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
            "a".repeat(LARGE)
        );
        let fields = format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
            "a: b\r\n".repeat(LARGE / 6)
        );
        let double = "{\"user\":\"admin\",\"user\":\"admin\",\"password\":\"x\"}";
        let cases: [(&str, Vec<u8>, &[&str]); 9] = [
            ("a long line", line.into_bytes(), &["414", "431"]),
            ("a long field", field.into_bytes(), &["431"]),
            ("many fields", fields.into_bytes(), &["431"]),
            (
                "a deep list",
                post("/api/v1/login", json, &nested),
                &["400", "413", "422"],
            ),
            (
                "deep objects",
                post("/api/v1/login", json, &objects),
                &["400", "413", "422"],
            ),
            (
                "a field twice",
                post("/api/v1/login", json, double),
                &["400", "422"],
            ),
            ("no JSON", post("/api/v1/login", "", "{}"), &["415"]),
            (
                "too much",
                post(
                    "/api/v1/login",
                    json,
                    &format!("\"{}\"", "a".repeat(20 << 20)),
                ),
                &["413"],
            ),
            (
                "a length that is none",
                b"POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_vec(),
                &["400"],
            ),
        ];
        for (what, request, codes) in cases {
            let began = Instant::now();
            let said = answer(port, &request).await.context(what)?;
            let status = said.split(' ').nth(1).unwrap_or_default();
            // Who still speaks when the server has closed may not get to hear the answer.
            ensure!(
                codes.contains(&status) || (said.is_empty() && request.len() >= LARGE),
                "{what}: {said:?}"
            );
            ensure!(said.len() < 2048, "{what}: {} bytes", said.len());
            ensure!(began.elapsed() < WAIT, "{what} took {:?}", began.elapsed());
        }
        bounded(before, resident(Some(server.program()))?)?;

        // One byte now and then keeps no connection open.
        let relay = FaultProxy::start(port).await?;
        let tunnel = dial(relay.address(), PATIENCE).await?;
        let (mut from, mut to) = tokio::io::split(tunnel.into_stream());
        relay.set(Fault::Slow(40));
        let began = Instant::now();
        let speaking = async {
            let head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ".repeat(100);
            for byte in head.chunks(1) {
                if to.write_all(byte).await.is_err() || to.flush().await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let mut part = [0; 1024];
        let hearing = async { while from.read(&mut part).await.is_ok_and(|count| count > 0) {} };
        tokio::select! {
            () = speaking => {}
            ended = timeout(PATIENCE, hearing) => ended.context("a dawdler may stay for ever")?,
        }
        ensure!(
            began.elapsed() < HEAD + WAIT,
            "a dawdler stayed {:?}",
            began.elapsed()
        );
        let began = Instant::now();
        console.tell(&["devices"], "").await?;
        ensure!(began.elapsed() < WAIT, "{:?}", began.elapsed());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_an_operators_browser_gets_nothing_from_the_server_and_changes_nothing() {
    scenario(async |scratch| {
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let port = server.address();
        let token = console.token().context("nobody is logged in")?;
        let origin = "Origin: https://evil.example\r\nReferer: https://evil.example/\r\nSec-Fetch-Site: cross-site\r\n";
        let before = console.tell(&["audit"], "").await?;

        // What a browser sends without asking anybody: a form, a simple request, with whatever the site has left in it.
        let simple = [
            post("/api/v1/keys", &format!("{origin}Content-Type: text/plain\r\n"), "{\"count\":1}"),
            post(
                "/api/v1/keys",
                &format!("{origin}Content-Type: application/x-www-form-urlencoded\r\n"),
                "count=1",
            ),
            // The token where a browser would put it by itself, or a link might have it.
            post(
                "/api/v1/keys",
                &format!("{origin}Cookie: token={token}\r\nContent-Type: application/json\r\n"),
                "{\"kind\":\"one_time\",\"count\":1}",
            ),
            post(
                &format!("/api/v1/keys?token={token}&access_token={token}"),
                &format!("{origin}Content-Type: application/json\r\n"),
                "{\"kind\":\"one_time\",\"count\":1}",
            ),
        ];
        for request in simple {
            let said = answer(port, &request).await?;
            ensure!(said.starts_with("HTTP/1.1 401"), "{said}");
        }
        // What it asks before it sends more: nobody else's page may.
        let ask = format!(
            "OPTIONS /api/v1/keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{origin}\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
        );
        let said = answer(port, ask.as_bytes()).await?;
        ensure!(!said.starts_with("HTTP/1.1 2"), "{said}");
        let upgrade = format!(
            "GET /api/v1/devices HTTP/1.1\r\nHost: evil.example\r\n{origin}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: close\r\n\r\n"
        );
        let upgraded = answer(port, upgrade.as_bytes()).await?;
        ensure!(!upgraded.starts_with("HTTP/1.1 101"), "{upgraded}");
        // A good log-in leaves nothing in a browser that a page could use, and no page may read an answer.
        let password = std::fs::read_to_string(server.password_file())?;
        let body = serde_json::json!({"user": "admin", "password": password.trim()}).to_string();
        let login = post(
            "/api/v1/login",
            &format!("{origin}Content-Type: application/json\r\n"),
            &body,
        );
        let signed_in = answer(port, &login).await?;
        ensure!(signed_in.starts_with("HTTP/1.1 200"), "{signed_in}");
        for said in [&said, &upgraded, &signed_in] {
            let head = said.split("\r\n\r\n").next().unwrap_or_default();
            let head = head.to_ascii_lowercase();
            ensure!(
                !head.contains("access-control-allow") && !head.contains("set-cookie"),
                "{head}"
            );
        }
        let keys = console.tell(&["keys", "list"], "").await?;
        ensure!(keys.as_array().is_some_and(Vec::is_empty), "{keys}");
        let after = console.tell(&["audit"], "").await?;
        let lines = |log: &serde_json::Value| log.as_array().map_or(0, Vec::len);
        ensure!(
            lines(&after) == lines(&before) + 1,
            "more than a log-in happened: {after}"
        );
        Ok(())
    })
    .await;
}
