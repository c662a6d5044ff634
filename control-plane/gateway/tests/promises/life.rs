use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use umbra_carrier::x509;
use umbra_protocol::gateway::{FromGateway, RendezvousReady, TunnelEnd, TunnelSide};

use crate::lab::{Lab, Wanted, end_of, rendezvous, talk, token, uplink_identity, within};

/// The end certificate that the gateway presents.
async fn presented(lab: &Lab) -> [u8; 32] {
    let stream = lab.tls().await;
    x509::sha256(&stream.get_ref().1.peer_certificates().unwrap()[0])
}

fn write(lab: &Lab, name: &str, text: &str) {
    std::fs::write(lab.folder.path().join(name), text).unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_taken_over_without_dropping_anybody() {
    let lab = Lab::timed(|timing| timing.reload = Duration::from_millis(50)).await;
    let mut server = lab.server().await;
    let mut device = lab.device().await;
    let mut carried = server.admitted().await;
    let before = presented(&lab).await;
    let (chain, key) = lab.pki.gateway();
    write(&lab, "chain.pem", &chain);
    write(&lab, "key.pem", &key);
    lab.until_metric("umbra_gateway_reloads_total", 1).await;
    assert_ne!(presented(&lab).await, before);
    talk(&mut device, &mut carried.stream).await;
    assert_eq!(lab.metric("umbra_gateway_uplinks").await, 1);
    // And a server can attach through the new one.
    let _second = lab.attached(1, None).await;
}

#[tokio::test]
async fn a_bad_certificate_is_refused_and_the_old_one_stays() {
    let lab = Lab::timed(|timing| timing.reload = Duration::from_secs(3600)).await;
    let before = presented(&lab).await;
    let (other_chain, _) = lab.pki.gateway();
    for (number, text) in [(1, "rubbish"), (2, other_chain.as_str())] {
        write(&lab, "chain.pem", text);
        lab.wishes.reload();
        lab.until_metric("umbra_gateway_reloads_refused_total", number)
            .await;
        assert_eq!(presented(&lab).await, before);
    }
    assert_eq!(lab.metric("umbra_gateway_reloads_total").await, 0);
}

#[tokio::test]
async fn a_server_that_is_listed_may_attach_at_once_and_one_that_is_no_longer_loses_its_uplink() {
    let lab = Lab::timed(|timing| timing.reload = Duration::from_secs(3600)).await;
    let removed = lab.attached(0, None).await;
    let mut stays = lab.attached(1, None).await;
    let (added, added_pem) = uplink_identity();
    write(
        &lab,
        "servers.pem",
        &format!("{}{added_pem}", lab.server_pems[1]),
    );
    lab.wishes.reload();
    removed.over().await;
    let mut new = lab.uplink(&added).await.unwrap();
    new.say(crate::lab::attach(7, None)).await;
    assert!(matches!(new.heard().await, FromGateway::Attached(_)));
    stays.say(umbra_protocol::link::Beat { number: 1 }).await;
    assert!(matches!(stays.heard().await, FromGateway::Pong(_)));
}

#[tokio::test]
async fn draining_sends_devices_away_spread_over_time_and_lets_tunnels_finish() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    let mut devices = Vec::new();
    let mut carried = Vec::new();
    for _ in 0..12 {
        devices.push(lab.device().await);
        carried.push(server.admitted().await);
    }
    server.say(rendezvous(1, 30)).await;
    let ready = RendezvousReady {
        id: rendezvous(1, 30).id,
    };
    assert_eq!(server.heard().await, ready.into());
    let mut one = lab
        .tunnel(&token(1, TunnelSide::Device), TunnelSide::Device)
        .await
        .unwrap();
    let mut two = lab
        .tunnel(&token(1, TunnelSide::Console), TunnelSide::Console)
        .await
        .unwrap();
    talk(&mut one, &mut two).await;
    let address = lab.address;
    let stopped = tokio::spawn(lab.stopped());
    assert!(matches!(server.heard().await, FromGateway::Draining(_)));
    let mut pauses = std::collections::BTreeSet::new();
    for device in &mut devices {
        let closed = end_of(device).await;
        assert_eq!(
            (closed.code, closed.code_word()),
            (1012, Some("shutting_down"))
        );
        pauses.insert(closed.retry_after.expect("a hint"));
    }
    assert!(pauses.len() >= 3, "{pauses:?}");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    talk(&mut one, &mut two).await;
    assert!(!stopped.is_finished());
    two.shutdown().await.unwrap();
    assert_eq!(end_of(&mut one).await.code, 1000);
    let ended = server.heard().await;
    assert!(
        matches!(&ended, FromGateway::RendezvousEnded(e) if e.code == TunnelEnd::ClosedByConsole),
        "{ended:?}"
    );
    server.over().await;
    within("the end", stopped).await.unwrap();
}

#[tokio::test]
async fn tunnels_that_go_on_too_long_are_ended_with_a_reason() {
    let lab = Lab::with(Wanted {
        drain: Duration::from_millis(300),
        ..Wanted::default()
    })
    .await;
    let mut server = lab.server().await;
    server.say(rendezvous(1, 30)).await;
    server.heard().await;
    let mut one = lab
        .tunnel(&token(1, TunnelSide::Device), TunnelSide::Device)
        .await
        .unwrap();
    let mut two = lab
        .tunnel(&token(1, TunnelSide::Console), TunnelSide::Console)
        .await
        .unwrap();
    talk(&mut one, &mut two).await;
    let stopped = tokio::spawn(lab.stopped());
    for end in [&mut one, &mut two] {
        let closed = end_of(end).await;
        assert_eq!(
            (closed.code, closed.code_word()),
            (1012, Some("shutting_down"))
        );
    }
    assert!(matches!(server.heard().await, FromGateway::Draining(_)));
    assert!(
        matches!(server.heard().await, FromGateway::RendezvousEnded(e) if e.code == TunnelEnd::ShuttingDown)
    );
    server.over().await;
    within("the end", stopped).await.unwrap();
}

#[tokio::test]
async fn check_status_and_metrics_answer() {
    let lab = Lab::start().await;
    let mut stream = lab.tls().await;
    stream
        .write_all(b"GET /usg/check-status HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    let _ = within("an answer", stream.read_to_string(&mut answer)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("{\"status\":\"init\"}"), "{answer}");
    let _server = lab.server().await;
    assert_eq!(lab.metric("umbra_gateway_uplinks").await, 1);
    assert!(lab.metric("umbra_gateway_connections_total").await >= 2);
    assert!(lab.metric("umbra_gateway_certificate_expiry_seconds").await > 0);
}
