//! The opening handshake: both halves against each other, and the client's half against servers that aren't ours.

use super::*;

const TOKEN: &str = "dG9rZW4tdGhhdC1pcy1zZWNyZXQ";

fn request() -> Request {
    Request {
        host: "gateway.example.com".to_owned(),
        port: 8443,
        path: "/usg/tunnel".to_owned(),
        subprotocol: "umbra.tunnel.1".to_owned(),
        headers: vec![("Authorization".to_owned(), HeaderValue::bearer(TOKEN))],
    }
}

async fn read_request(io: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = head.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(": "))
        .map(|(_, value)| value)
}

fn accept(head: &str) -> String {
    let upgrade = UpgradeHead {
        connection: field(head, "Connection"),
        upgrade: field(head, "Upgrade"),
        version: field(head, "Sec-WebSocket-Version"),
        key: field(head, "Sec-WebSocket-Key"),
        subprotocols: field(head, "Sec-WebSocket-Protocol"),
        origin: field(head, "Origin"),
    };
    let accept = check_upgrade(&upgrade, "umbra.tunnel.1").unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: umbra.tunnel.1\r\n\r\n"
    )
}

/// What becomes of a request that is answered in this way; then the server stays silent, or hangs up.
async fn answered(
    answer: impl FnOnce(&str) -> Vec<u8>,
    hang_up: bool,
) -> (
    Result<ByteStream<DuplexStream>, WsError>,
    Option<DuplexStream>,
) {
    let (client, mut server) = duplex(ROOM);
    let serve = async {
        let head = read_request(&mut server).await;
        server.write_all(&answer(&head)).await.unwrap();
        (!hang_up).then_some(server)
    };
    let request = request();
    let keepalive = Keepalive {
        interval: Duration::from_secs(20),
        timeout: Duration::from_secs(25),
    };
    let attempt = connect(client, &request, Some(keepalive), Duration::from_secs(10));
    tokio::join!(attempt, serve)
}

async fn refused(answer: &str, hang_up: bool) -> WsError {
    let (result, _server) = answered(|_| answer.as_bytes().to_vec(), hang_up).await;
    let error = result.expect_err("this is no upgrade");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(TOKEN), "{shown}");
    error
}

#[tokio::test(start_paused = true)]
async fn both_halves_fit_together_and_nothing_right_behind_the_answer_is_lost() {
    let (client, mut server) = duplex(ROOM);
    let request = request();
    let serve = async {
        let head = read_request(&mut server).await;
        assert!(head.starts_with("GET /usg/tunnel HTTP/1.1\r\n"));
        assert_eq!(field(&head, "Host"), Some("gateway.example.com:8443"));
        assert_eq!(
            field(&head, "Authorization"),
            Some(format!("Bearer {TOKEN}").as_str())
        );
        assert_eq!(field(&head, "Origin"), None);
        let mut answer = accept(&head).into_bytes();
        answer.extend(frame(true, BINARY, b"early", None));
        server.write_all(&answer).await.unwrap();
        server_stream(server, Vec::new(), None)
    };
    let (client, mut server) = tokio::join!(connect(client, &request, None, LONG), serve);
    let mut client = client.unwrap();
    let mut early = [0; 5];
    client.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    client.write_all(b"hello").await.unwrap();
    client.flush().await.unwrap();
    let mut hello = [0; 5];
    server.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stalls_after_the_upgrade_is_found_out_by_the_keep_alive() {
    let (stream, _server) = answered(|head| accept(head).into_bytes(), false).await;
    let error = stream.unwrap().read(&mut [0; 8]).await;
    let error = error.expect_err("nothing is ever said");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn interim_answers_are_passed_over_but_not_for_ever() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let (stream, _server) =
        answered(|head| (early.repeat(3) + &accept(head)).into_bytes(), false).await;
    stream.unwrap();
    let error = refused(&early.repeat(20), false).await;
    assert!(matches!(error, WsError::NotWebSocket), "{error:?}");
}

fn json(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    )
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_with_the_servers_own_words_and_delay() {
    let body = r#"{"code":"connection_limit","sentence":"The limit is reached.","retry_after_seconds":42}"#;
    for hang_up in [false, true] {
        let error = refused(
            &json("503 Service Unavailable", "Retry-After: 7\r\n", body),
            hang_up,
        )
        .await;
        assert_eq!(error.code(), "connection_limit");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(42)));
        assert_eq!(
            error.to_string(),
            "the gateway refused the connection: The limit is reached."
        );
    }
    let chunked = format!(
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert_eq!(refused(&chunked, false).await.code(), "connection_limit");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_from_something_else_is_told_by_its_status() {
    let cases = [
        json(
            "502 Bad Gateway",
            "Retry-After: 7\r\n",
            "<html>{oops}</html>",
        ),
        json("502 Bad Gateway", "Retry-After: 7\r\n", ""),
        json(
            "502 Bad Gateway",
            "Retry-After: 7\r\n",
            r#"{"code":"No Code!","sentence":5,"retry_after_seconds":-3}"#,
        ),
        // A body that never comes.
        "HTTP/1.1 502 Bad Gateway\r\nRetry-After: 7\r\nContent-Length: 100\r\n\r\n{\"code\":"
            .to_owned(),
        // One that never ends.
        format!(
            "HTTP/1.1 502 Bad Gateway\r\nRetry-After: 7\r\n\r\n{}",
            "{".repeat(100_000)
        ),
    ];
    for answer in cases {
        let error = refused(&answer, false).await;
        let WsError::Refused {
            status,
            code,
            sentence,
            retry_after,
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(
            (*status, code, sentence),
            (502, &None, &None),
            "{answer:.200}"
        );
        assert_eq!(*retry_after, Some(Duration::from_secs(7)));
        assert!(error.to_string().contains("502"));
    }
    let date = json(
        "503 x",
        "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n",
        "",
    );
    assert_eq!(refused(&date, false).await.retry_after(), None);
}

#[tokio::test(start_paused = true)]
async fn a_refusals_words_can_not_steer_a_terminal() {
    let body = format!(
        r#"{{"code":"busy","sentence":"a\u001b[2Jb{}"}}"#,
        "x".repeat(2000)
    );
    let error = refused(&json("503 x", "", &body), false).await;
    let shown = error.to_string();
    assert!(
        shown.contains("a\u{fffd}[2Jb") && shown.chars().count() < 400,
        "{shown}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_repeats_our_token_is_not_repeated() {
    let body = format!(r#"{{"code":"malformed","sentence":"What is {TOKEN}?"}}"#);
    let error = refused(&json("400 x", "", &body), false).await;
    assert_eq!(error.code(), "malformed");
    assert!(error.to_string().contains("400"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_status_counts_although_the_deadline_comes_before_the_body() {
    let (client, mut server) = duplex(ROOM);
    let request = request();
    let serve = async {
        read_request(&mut server).await;
        let answer = b"HTTP/1.1 503 x\r\nContent-Length: 100\r\n\r\n";
        server.write_all(answer).await.unwrap();
        // The line stays open, and nothing more comes.
        server
    };
    let attempt = connect(client, &request, None, Duration::from_secs(1));
    let (result, _line) = tokio::join!(attempt, serve);
    let error = result.expect_err("refused");
    assert!(
        matches!(error, WsError::Refused { status: 503, .. }),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_no_upgrade_are_told_apart() {
    let garbage = [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\0\0\0",
        "HTTP/1.1 abc\r\n\r\n",
        "RFB 003.008\n",
    ];
    for answer in garbage {
        let error = refused(answer, false).await;
        assert!(
            matches!(error, WsError::NotWebSocket),
            "{answer}: {error:?}"
        );
    }
    let error = refused("HTTP/1.1 101 x\r\nConnection: Upg", true).await;
    assert!(matches!(error, WsError::Closed), "{error:?}");
    let error = refused("HTTP/1.1 101 x\r\nConnection: Upg", false).await;
    assert!(matches!(error, WsError::TimedOut), "{error:?}");
    let endless = format!("HTTP/1.1 101 x\r\nX: {}", "x".repeat(20_000));
    let error = refused(&endless, false).await;
    assert!(matches!(error, WsError::TooLarge), "{error:?}");
    let many = format!("HTTP/1.1 101 x\r\n{}\r\n", "X: y\r\n".repeat(200));
    let error = refused(&many, false).await;
    assert!(matches!(error, WsError::TooLarge), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_proves_nothing_is_none() {
    let changes = [
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x"),
        ("Upgrade: WebSocket", "Upgrade: h2c"),
        ("Connection: keep-alive, Upgrade", "Connection: keep-alive"),
        (
            "\r\n\r\n",
            "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        ),
    ];
    for (from, to) in changes {
        let answer = |head: &str| accept(head).replace(from, to).into_bytes();
        let error = answered(answer, false).await.0.expect_err("no upgrade");
        assert!(matches!(error, WsError::NotWebSocket), "{to}: {error:?}");
    }
    for protocol in ["Sec-WebSocket-Protocol: umbra.link.1", "X: y"] {
        let answer = |head: &str| {
            let answer = accept(head);
            answer
                .replace("Sec-WebSocket-Protocol: umbra.tunnel.1", protocol)
                .into_bytes()
        };
        let error = answered(answer, false)
            .await
            .0
            .expect_err("another service");
        assert!(matches!(error, WsError::WrongProtocol), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_would_break_its_form_is_never_sent() {
    let mut cases = Vec::new();
    for bad in ["", "a b", "a\r\nX: y"] {
        cases.push(Request {
            host: bad.to_owned(),
            ..request()
        });
        cases.push(Request {
            path: format!("/{bad}\r\n"),
            ..request()
        });
        cases.push(Request {
            subprotocol: bad.to_owned(),
            ..request()
        });
        cases.push(Request {
            headers: vec![(bad.to_owned(), "x".into())],
            ..request()
        });
        cases.push(Request {
            headers: vec![("X".to_owned(), format!("{bad}\r\n{TOKEN}").into())],
            ..request()
        });
    }
    cases.push(Request {
        path: "no-slash".to_owned(),
        ..request()
    });
    for case in cases {
        let (client, mut server) = duplex(ROOM);
        let error = connect(client, &case, None, LONG).await.expect_err("bad");
        assert!(matches!(error, WsError::BadRequest { .. }), "{error:?}");
        assert!(!format!("{error} {error:?} {case:?}").contains(TOKEN));
        let mut sent = Vec::new();
        server.read_to_end(&mut sent).await.unwrap();
        assert!(sent.is_empty());
    }
}

#[test]
fn the_host_field_is_written_as_in_urls() {
    assert_eq!(authority("a.example", 443, Some(443)), "a.example");
    assert_eq!(authority("a.example", 8443, Some(443)), "a.example:8443");
    assert_eq!(authority("2001:db8::1", 443, None), "[2001:db8::1]:443");
    assert_eq!(authority("fe80::1%eth0", 443, Some(443)), "[fe80::1]");
}

#[test]
fn the_proof_is_that_of_the_standards_example() {
    assert_eq!(
        accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
}

#[test]
fn each_reason_against_an_upgrade_has_its_status() {
    let good = UpgradeHead {
        connection: Some("keep-alive, UPGRADE"),
        upgrade: Some("WebSocket"),
        version: Some("13"),
        key: Some("dGhlIHNhbXBsZSBub25jZQ=="),
        subprotocols: Some("chat, umbra.link.1"),
        origin: None,
    };
    let check = |head| check_upgrade(&head, "umbra.link.1");
    assert_eq!(check(good).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let bad = [
        (
            UpgradeHead {
                origin: Some("null"),
                ..good
            },
            UpgradeError::Origin,
            403,
        ),
        (
            UpgradeHead {
                connection: None,
                ..good
            },
            UpgradeError::NotUpgrade,
            426,
        ),
        (
            UpgradeHead {
                connection: Some("upgraded"),
                ..good
            },
            UpgradeError::NotUpgrade,
            426,
        ),
        (
            UpgradeHead {
                upgrade: Some("h2c"),
                ..good
            },
            UpgradeError::NotUpgrade,
            426,
        ),
        (
            UpgradeHead {
                version: None,
                ..good
            },
            UpgradeError::Version,
            426,
        ),
        (
            UpgradeHead {
                version: Some("8"),
                ..good
            },
            UpgradeError::Version,
            426,
        ),
        (UpgradeHead { key: None, ..good }, UpgradeError::Key, 400),
        (
            UpgradeHead {
                key: Some("c2hvcnQ="),
                ..good
            },
            UpgradeError::Key,
            400,
        ),
        (
            UpgradeHead {
                key: Some("!"),
                ..good
            },
            UpgradeError::Key,
            400,
        ),
        (
            UpgradeHead {
                subprotocols: None,
                ..good
            },
            UpgradeError::Subprotocol,
            400,
        ),
        (
            UpgradeHead {
                subprotocols: Some("umbra.link.10"),
                ..good
            },
            UpgradeError::Subprotocol,
            400,
        ),
    ];
    for (head, error, status) in bad {
        assert_eq!(check(head), Err(error), "{head:?}");
        assert_eq!(error.status(), status);
    }
}
