use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use umbra_protocol::gateway::{
    PATH_ENDPOINT, PATH_TUNNEL, PATH_UPLINK, SUBPROTOCOL_LINK, SUBPROTOCOL_TUNNEL,
};

use crate::lab::{Lab, Outer, Wanted, http, refused, within};

const UPGRADE: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The upgrade that a device asks for, with a client that does nothing by itself.
pub(crate) async fn bare_device(lab: &Lab) -> Outer {
    let mut stream = lab.tls().await;
    let request = format!(
        "GET {PATH_ENDPOINT} HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: {SUBPROTOCOL_LINK}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the answer", stream.read_u8()).await.unwrap());
    }
    assert_eq!(status(&String::from_utf8_lossy(&head)), "101");
    stream
}

/// The answer to a request, until the connection ends.
async fn asked(lab: &Lab, request: &str) -> String {
    let mut stream = lab.tls().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut Outer) -> String {
    let mut answer = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[tokio::test]
async fn browsers_wrong_services_and_everything_else_are_turned_away() {
    let lab = Lab::start().await;
    let _server = lab.server().await;
    let link = format!("Sec-WebSocket-Protocol: {SUBPROTOCOL_LINK}\r\n");
    for (line, more, expected) in [
        ("GET /usg/endpoint", format!("{UPGRADE}{link}"), "101"),
        (
            "GET /usg/endpoint",
            format!("{UPGRADE}{link}Origin: https://evil.example\r\n"),
            "403",
        ),
        (
            "GET /usg/uplink",
            format!("{UPGRADE}{link}Origin: null\r\n"),
            "403",
        ),
        ("GET /usg/endpoint", UPGRADE.to_owned(), "400"),
        ("GET /usg/uplink", format!("{UPGRADE}{link}"), "400"),
        ("GET /usg/endpoint", "Host: x\r\n".to_owned(), "426"),
        ("POST /usg/endpoint", format!("{UPGRADE}{link}"), "405"),
        (
            "GET /usg/endpoint",
            format!("{UPGRADE}{link}Umbra-Server: 12\r\n"),
            "400",
        ),
        ("GET /", "Host: x\r\n".to_owned(), "404"),
        ("GET /usg/check-status/", "Host: x\r\n".to_owned(), "404"),
        ("POST /usg/check-status", "Host: x\r\n".to_owned(), "405"),
        ("GET /metrics", "Host: x\r\n".to_owned(), "404"),
    ] {
        let mut stream = lab.tls().await;
        let request = format!("{line} HTTP/1.1\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        within("an answer", stream.read_exact(&mut head))
            .await
            .unwrap();
        assert_eq!(&head[9..], expected.as_bytes(), "{request}");
    }
}

#[tokio::test]
async fn a_tunnel_needs_one_bearer_token_and_a_side() {
    let lab = Lab::start().await;
    for headers in [
        &[("Umbra-Side", "device")][..],
        &[("Authorization", "Bearer abc")],
        &[("Umbra-Side", "both"), ("Authorization", "Bearer abc")],
        &[("Umbra-Side", "device"), ("Authorization", "Basic abc")],
        &[("Umbra-Side", "device"), ("Authorization", "Bearer ")],
    ] {
        let answer = lab.dial(PATH_TUNNEL, SUBPROTOCOL_TUNNEL, headers).await;
        assert_eq!(refused(answer).0, "malformed", "{headers:?}");
    }
    let answer = lab.dial(PATH_UPLINK, SUBPROTOCOL_LINK, &[]).await;
    assert!(answer.is_err());
}

#[tokio::test]
async fn a_refusal_is_short_json_with_a_hint_in_body_and_header() {
    let lab = Lab::start().await;
    let link = format!("Sec-WebSocket-Protocol: {SUBPROTOCOL_LINK}\r\n");
    let answer = asked(
        &lab,
        &format!("GET {PATH_ENDPOINT} HTTP/1.1\r\n{UPGRADE}{link}\r\n"),
    )
    .await;
    assert_eq!(status(&answer), "503");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let refusal: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(refusal["code"], "no_server");
    let seconds = refusal["retry_after_seconds"].as_u64().unwrap();
    assert!(
        head.to_ascii_lowercase()
            .contains(&format!("\r\nretry-after: {seconds}\r\n")),
        "{head}"
    );
    assert!(body.len() <= 1024);
}

#[tokio::test]
async fn a_head_that_never_ends_or_is_too_large_costs_its_sender_the_connection() {
    let lab = Lab::timed(|timing| timing.handshake = Duration::from_millis(500)).await;
    let mut slow = lab.tls().await;
    slow.write_all(b"GET /usg/endpoint HTTP/1.1\r\nHost: x\r\nX-A")
        .await
        .unwrap();
    assert!(["", "408"].contains(&status(&rest(&mut slow).await)));
    let mut silent = lab.tls().await;
    assert!(["", "408"].contains(&status(&rest(&mut silent).await)));
    let mut large = lab.tls().await;
    let filler = "x".repeat(20 * 1024);
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-A: {filler}\r\n\r\n");
    let _ = large.write_all(request.as_bytes()).await;
    let answer = rest(&mut large).await;
    assert!(["", "431"].contains(&status(&answer)), "{answer}");
    // A TLS handshake that never comes.
    let mut mute = tokio::net::TcpStream::connect(lab.address).await.unwrap();
    let end = within("the end", mute.read(&mut [0; 8])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    lab.until_metric("umbra_gateway_door", 0).await;
}

/// A gateway with so little room that four connections fill it, and no deadline that ends them.
async fn narrow() -> Lab {
    Lab::timed(|timing| {
        timing.door = (4, 4);
        timing.handshake = Duration::from_secs(3600);
    })
    .await
}

async fn twenty(lab: &Lab, words: &[u8]) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..20 {
        let mut connection = TcpStream::connect(lab.address).await.unwrap();
        // Who was closed already says it in vain.
        let _ = connection.write_all(words).await;
        connections.push(connection);
    }
    connections
}

async fn is_closed(connection: &mut TcpStream) {
    let end = within("an idle one to go", connection.read(&mut [0; 8])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn idle_connections_of_one_source_do_not_keep_others_out() {
    let lab = narrow().await;
    let mut server = lab.server().await;
    let mut idle = twenty(&lab, b"").await;
    let mut device = lab.device().await;
    let mut carried = server.admitted().await;
    crate::lab::talk(&mut device, &mut carried.stream).await;
    assert!(lab.metric("umbra_gateway_door").await <= 4);
    for connection in &mut idle[..16] {
        is_closed(connection).await;
    }
    assert!(lab.metric("umbra_gateway_turned_away_total").await >= 16);
}

#[tokio::test]
async fn who_is_shaking_hands_is_not_shown_out_by_a_crowd_that_comes_too_fast() {
    let lab = narrow().await;
    let (near, mut far) = tokio::io::duplex(16 * 1024);
    let crowded = async {
        let mut slow = TcpStream::connect(lab.address).await.unwrap();
        let mut first_words = [0; 5];
        far.read_exact(&mut first_words).await.unwrap();
        slow.write_all(&first_words).await.unwrap();
        // What came before this was answered is heard.
        lab.tls().await;
        let _half = twenty(&lab, &first_words).await;
        lab.until_metric("umbra_gateway_door", 4).await;
        let silent = twenty(&lab, b"").await;
        for mut connection in silent {
            is_closed(&mut connection).await;
        }
        let _ = tokio::io::copy_bidirectional(&mut far, &mut slow).await;
    };
    let talk = async {
        let mut stream = lab.tls_over(near).await;
        stream
            .write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        rest(&mut stream).await
    };
    let answer = tokio::select! {
        answer = talk => answer,
        () = async { crowded.await; std::future::pending().await } => unreachable!(),
    };
    assert_eq!(status(&answer), "404", "{answer}");
}

/// A masked frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend(u64::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    // The mask is nothing.
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A device that writes its frames itself.
async fn raw_device(lab: &Lab) -> Outer {
    let mut stream = lab.tls().await;
    let request = format!(
        "GET {PATH_ENDPOINT} HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: {SUBPROTOCOL_LINK}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the answer", stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    // The value that RFC 6455 gives for this key.
    assert!(head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    stream
}

#[tokio::test]
async fn fragments_pings_and_odd_borders_change_nothing_about_the_bytes() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    let mut device = raw_device(&lab).await;
    let mut carried = server.admitted().await;
    let mut sent = frame(0x02, b"a");
    sent.extend(frame(0x00, b""));
    sent.extend(frame(0x89, &[b'p'; 125]));
    sent.extend(frame(0x00, b"b"));
    sent.extend(frame(0x80, b"c"));
    sent.extend(frame(0x82, b""));
    sent.extend(frame(0x82, b"d"));
    for byte in sent {
        device.write_all(&[byte]).await.unwrap();
        device.flush().await.unwrap();
    }
    let mut heard = [0; 4];
    within("the bytes", carried.stream.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(&heard, b"abcd");
    let mut pong = [0; 127];
    within("the pong", device.read_exact(&mut pong))
        .await
        .unwrap();
    assert_eq!((pong[0], pong[1]), (0x8a, 125));
}

#[tokio::test]
async fn frames_that_break_the_rules_end_their_device_with_a_code_and_no_other() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    let mut healthy = lab.device().await;
    let mut healthy_carried = server.admitted().await;
    let mut endless = frame(0x02, &[0; 60_000]);
    endless.extend(frame(0x00, &[0; 60_000]));
    let mut huge = vec![0x82, 0x80 | 127];
    huge.extend((1_u64 << 62).to_be_bytes());
    huge.extend([0; 4]);
    for (sent, code) in [
        (frame(0x81, b"text"), 1003_u16),
        (frame(0x82, &[0; 70_000]), 1009),
        (endless, 1009),
        (huge, 1009),
        (frame(0xc2, b"reserved bit"), 1002),
        (vec![0x82, 0x02, b'h', b'i'], 1002),
        (frame(0x83, b"reserved opcode"), 1002),
        (frame(0x89, &[0; 126]), 1002),
        (frame(0x80, b"continues nothing"), 1002),
    ] {
        let mut device = raw_device(&lab).await;
        let _carried = server.admitted().await;
        let _ = device.write_all(&sent).await;
        let mut answer = [0; 4];
        within("a Close", device.read_exact(&mut answer))
            .await
            .unwrap();
        assert_eq!(answer[0], 0x88);
        let told = u16::from_be_bytes([answer[2], answer[3]]);
        assert_eq!(told, code, "{:?}", &sent[..sent.len().min(12)]);
    }
    // One that stops in the middle of a frame.
    let mut cut = raw_device(&lab).await;
    let mut carried = server.admitted().await;
    let half = frame(0x82, &[1; 1_000]);
    cut.write_all(&half[..500]).await.unwrap();
    drop(cut);
    let ended = within("the end", async {
        let mut ignored = [0; 4096];
        while matches!(carried.stream.read(&mut ignored).await, Ok(length) if length > 0) {}
    });
    ended.await;
    crate::lab::talk(&mut healthy, &mut healthy_carried.stream).await;
    lab.until_metric("umbra_gateway_devices", 1).await;
}

#[tokio::test]
async fn without_tls_only_the_proxys_network_is_let_in() {
    for (from, answers) in [("127.0.0.1", true), ("192.0.2.0/24", false)] {
        let wanted = Wanted {
            plaintext_from: Some(from),
            ..Wanted::default()
        };
        let lab = Lab::with(wanted).await;
        let request = "GET /usg/check-status HTTP/1.1\r\nHost: x\r\n\r\n";
        let answer = http(lab.plaintext.unwrap(), request).await;
        assert_eq!(
            answer.contains("{\"status\":\"init\"}"),
            answers,
            "{answer}"
        );
        // The port with TLS answers no plain request.
        assert!(!http(lab.address, request).await.contains("status"));
    }
}
