use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use umbra_gateway::gateway::{Gateway, UplinkLine};
use umbra_gateway::keystore::Keys;
use umbra_gateway::timing::Timing;
use umbra_protocol::RefusalCode;
use umbra_protocol::gateway::{FromGateway, ToGateway};
use umbra_protocol::link::Beat;

use crate::lab::{Lab, attach, end_of, talk, uplink_identity};

#[tokio::test]
async fn only_a_listed_certificate_opens_an_uplink() {
    let lab = Lab::start().await;
    let (stranger, _) = uplink_identity();
    let refused = match lab.uplink(&stranger).await {
        Err(_) => true,
        Ok(mut server) => {
            // With TLS 1.3 the client learns of the refusal with its first read.
            server.say(attach(0, None)).await;
            server.over().await;
            true
        }
    };
    assert!(refused);
    lab.until_metric("umbra_gateway_handshakes_failed_total", 1)
        .await;
    assert_eq!(lab.metric("umbra_gateway_uplinks").await, 0);
    assert!(lab.try_device(&[]).await.is_err());
}

#[tokio::test]
async fn an_uplink_says_attach_first_and_in_a_version_that_both_speak() {
    let lab = Lab::start().await;
    let mut server = lab.uplink(&lab.servers[0]).await.unwrap();
    server.say(Beat { number: 1 }).await;
    let answer = server.heard().await;
    assert!(
        matches!(&answer, FromGateway::Refused(r) if r.code == RefusalCode::UnexpectedMessage),
        "{answer:?}"
    );
    server.over().await;
    let mut server = lab.uplink(&lab.servers[0]).await.unwrap();
    let newer = br#"{"type":"attach","versions":[7],"server_root":"0000000000000000000000000000000000000000000000000000000000000000","server_name":""}"#;
    server.say_raw(newer).await;
    let answer = server.heard().await;
    assert!(
        matches!(&answer, FromGateway::Refused(r) if r.code == RefusalCode::UnsupportedVersion),
        "{answer:?}"
    );
    server.over().await;
}

#[tokio::test]
async fn messages_of_a_newer_server_are_passed_over_and_nonsense_ends_the_uplink() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    server.say_raw(br#"{"type":"antigravity","on":true}"#).await;
    server.say(Beat { number: 5 }).await;
    assert_eq!(server.heard().await, Beat { number: 5 }.into());
    assert_eq!(lab.metric("umbra_gateway_uplink_oddities_total").await, 1);
    server.say_raw(b"{\"type\":\"admit\"}").await;
    assert!(
        matches!(server.heard().await, FromGateway::Refused(r) if r.code == RefusalCode::Malformed)
    );
    server.over().await;
}

#[tokio::test]
async fn a_silent_server_and_one_that_never_attaches_are_given_up() {
    let lab = Lab::timed(|timing| {
        timing.attach = Duration::from_millis(500);
        timing.silence = Duration::from_millis(500);
    })
    .await;
    lab.uplink(&lab.servers[0]).await.unwrap().over().await;
    let mut server = lab.server().await;
    let mut device = lab.device().await;
    server.admitted().await;
    let closed = end_of(&mut device).await;
    assert_eq!((closed.code, closed.code_word()), (1013, Some("no_server")));
    server.over().await;
}

#[tokio::test]
async fn devices_of_a_lost_uplink_are_told_to_come_back_spread_over_time() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    let mut devices = Vec::new();
    let mut carried = Vec::new();
    for _ in 0..12 {
        devices.push(lab.device().await);
        carried.push(server.admitted().await);
    }
    server.cut();
    let mut pauses = std::collections::BTreeSet::new();
    for device in &mut devices {
        let closed = end_of(device).await;
        assert_eq!((closed.code, closed.code_word()), (1013, Some("no_server")));
        pauses.insert(closed.retry_after.expect("a hint"));
    }
    assert!(pauses.len() >= 3, "{pauses:?}");
    assert!(
        pauses
            .iter()
            .all(|pause| (1..=30).contains(&pause.as_secs()))
    );
    lab.until_metric("umbra_gateway_uplinks", 0).await;
}

#[tokio::test]
async fn a_newer_uplink_of_the_same_server_takes_over_and_another_servers_stays() {
    let lab = Lab::start().await;
    let mut other = lab.attached(1, None).await;
    let named = crate::lab::root(1).to_string();
    let mut spared = lab.try_device(&[("Umbra-Server", &named)]).await.unwrap();
    let mut spared_carried = other.admitted().await;
    let mut older = lab.attached(0, None).await;
    let named = crate::lab::root(0).to_string();
    let mut device = lab.try_device(&[("Umbra-Server", &named)]).await.unwrap();
    older.admitted().await;
    let mut newer = lab.attached(0, None).await;
    older.over().await;
    let closed = end_of(&mut device).await;
    assert_eq!(closed.code_word(), Some("no_server"));
    let pause = closed.retry_after.expect("a hint");
    assert!(pause.as_secs() <= 2, "the newer one is there: {pause:?}");
    let mut back = lab.try_device(&[("Umbra-Server", &named)]).await.unwrap();
    let mut carried = newer.admitted().await;
    talk(&mut back, &mut carried.stream).await;
    talk(&mut spared, &mut spared_carried.stream).await;
    assert_eq!(lab.metric("umbra_gateway_uplinks").await, 2);
}

#[tokio::test]
async fn a_server_whose_list_or_gateway_changed_during_the_handshake_is_refused() {
    let lab = Lab::start().await;
    let keys = Keys::load(&lab.keystore()).unwrap();
    let gateway = Gateway::new(&keys, Timing::default());
    let ToGateway::Attach(attach) = attach(0, None) else {
        panic!("it is an attach")
    };
    let line = || {
        let (events, _) = mpsc::channel(1);
        let (streams, _) = mpsc::channel(1);
        UplinkLine {
            events,
            streams,
            end: Arc::new(watch::channel(None).0),
            name: String::new(),
        }
    };
    let listed = keys.server_keys()[0];
    let try_it = |server| gateway.attach(server, &attach, line()).map_err(|r| r.code);
    assert!(try_it(listed).is_ok());
    assert_eq!(try_it([9; 32]), Err(RefusalCode::Internal));
    gateway.drain();
    assert_eq!(try_it(listed), Err(RefusalCode::ShuttingDown));
}
