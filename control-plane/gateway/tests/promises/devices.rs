use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use umbra_protocol::gateway::{Admit, DropStream, FromGateway, Limit, Rejected};
use umbra_protocol::{Refusal, RefusalCode};

use crate::lab::{Lab, Wanted, end_of, refused, root, talk, until, within};
use crate::requests::bare_device;

#[tokio::test]
async fn a_devices_bytes_reach_the_server_and_come_back() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    let mut device = lab.device().await;
    let mut carried = server.admitted().await;
    assert_eq!(carried.head.label, "TC-1");
    assert!(carried.head.from.is_loopback());
    talk(&mut device, &mut carried.stream).await;
    lab.until_metric("umbra_gateway_devices", 1).await;
    // What the device sends and the end of it arrive in order, and the seat is free again.
    device.write_all(b"bye").await.unwrap();
    device.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within("the end", carried.stream.read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest, b"bye");
    assert!(
        !carried.stream.get_ref().is_closed(),
        "an orderly end, not a reset"
    );
    lab.until_metric("umbra_gateway_devices", 0).await;
}

#[tokio::test]
async fn the_servers_orderly_end_reaches_the_device_as_one() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    let mut device = lab.device().await;
    let mut carried = server.admitted().await;
    carried.stream.write_all(b"goodbye").await.unwrap();
    carried.stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    within("the end", device.read_to_end(&mut heard))
        .await
        .unwrap();
    assert_eq!(heard, b"goodbye");
}

#[tokio::test]
async fn a_device_without_a_server_is_told_when_to_come_back() {
    let lab = Lab::start().await;
    let (code, retry) = refused(lab.try_device(&[]).await);
    assert_eq!(code, "no_server");
    let retry = retry.expect("a hint");
    assert!((5..=30).contains(&retry.as_secs()), "{retry:?}");
    let _server = lab.server().await;
    let other = root(9).to_string();
    let (code, _) = refused(lab.try_device(&[("Umbra-Server", &other)]).await);
    assert_eq!(code, "no_server");
}

#[tokio::test]
async fn each_device_reaches_the_server_that_it_names() {
    let lab = Lab::start().await;
    let mut servers = [lab.attached(0, None).await, lab.attached(1, None).await];
    for (number, server) in servers.iter_mut().enumerate() {
        for _ in 0..3 {
            let named = root(number).to_string();
            let mut device = lab
                .try_device(&[("Umbra-Server", named.as_str())])
                .await
                .unwrap();
            let mut carried = server.admitted().await;
            talk(&mut device, &mut carried.stream).await;
        }
    }
    assert!(servers.iter_mut().all(|server| server.nobody_else()));
}

#[tokio::test]
async fn a_device_that_no_server_admits_is_closed_and_an_admitted_one_stays() {
    let lab = Lab::timed(|timing| timing.admit = Duration::from_millis(300)).await;
    let mut server = lab.server().await;
    let mut stays = lab.device().await;
    let mut admitted = server.admitted().await;
    let mut device = lab.device().await;
    let mut carried = server.carried().await;
    let closed = end_of(&mut device).await;
    assert_eq!((closed.code, closed.code_word()), (1008, Some("too_slow")));
    assert_eq!(carried.stream.read(&mut [0; 8]).await.unwrap(), 0);
    talk(&mut stays, &mut admitted.stream).await;
}

#[tokio::test]
async fn a_server_that_sends_a_device_away_says_why() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    for (code, close) in [
        (RefusalCode::DeviceRemoved, 1008),
        (RefusalCode::Busy, 1013),
    ] {
        let mut device = lab.device().await;
        let carried = server.admitted().await;
        let refusal = Refusal::new(code, "Not now.").retry_after(9);
        let stream = carried.head.stream;
        server.say(DropStream { stream, refusal }).await;
        let closed = end_of(&mut device).await;
        assert_eq!(
            (closed.code, closed.code_word()),
            (close, Some(code.as_str()))
        );
        assert_eq!(closed.retry_after, Some(Duration::from_secs(9)));
    }
}

#[tokio::test]
async fn beyond_the_limit_devices_are_refused_and_the_server_hears_of_it() {
    let lab = Lab::start().await;
    let mut server = lab.attached(0, Some(1)).await;
    // Two come before either is admitted: one of them is too many.
    let mut first = lab.device().await;
    let mut carried = server.carried().await;
    let mut second = lab.try_device(&[("Umbra-Device", "TC-2")]).await.unwrap();
    let late = server.carried().await;
    for stream in [carried.head.stream, late.head.stream] {
        server.say(Admit { stream }).await;
    }
    let closed = end_of(&mut second).await;
    assert_eq!(
        (closed.code, closed.code_word()),
        (1013, Some("connection_limit"))
    );
    let rejected = FromGateway::from(Rejected {
        label: "TC-2".into(),
        code: RefusalCode::ConnectionLimit,
    });
    assert_eq!(server.heard().await, rejected);
    let (code, retry) = refused(lab.try_device(&[("Umbra-Device", "TC-3")]).await);
    assert_eq!(code, "connection_limit");
    assert!(retry.is_some());
    assert!(matches!(server.heard().await, FromGateway::Rejected(r) if r.label == "TC-3"));
    talk(&mut first, &mut carried.stream).await;
    // A higher limit holds from now on.
    server.say(Limit { devices: None }).await;
    server.say(umbra_protocol::link::Beat { number: 1 }).await;
    assert!(matches!(server.heard().await, FromGateway::Pong(_)));
    lab.device().await;
}

#[tokio::test]
async fn a_device_that_is_let_go_in_order_takes_no_room_while_it_says_farewell() {
    let lab = Lab::start().await;
    let mut server = lab.attached(0, Some(1)).await;
    // As after an enrolment: the server ends the connection, and the device comes back for its link.
    let mut enrolling = bare_device(&lab).await;
    let mut carried = server.admitted().await;
    carried.stream.write_all(b"enrolled").await.unwrap();
    carried.stream.shutdown().await.unwrap();
    let close = [0x88, 0x02, 0x03, 0xe8];
    let mut heard = Vec::new();
    while !heard.ends_with(&close) {
        heard.push(within("the Close", enrolling.read_u8()).await.unwrap());
    }
    // It has answered nothing so far.
    let mut back = lab.device().await;
    let mut link = server.admitted().await;
    talk(&mut back, &mut link.stream).await;
    drop(enrolling);
}

#[tokio::test]
async fn strangers_of_one_address_are_bounded_and_admitted_devices_are_none() {
    let lab = Lab::timed(|timing| {
        timing.room.of_one = 2;
        timing.queue = Duration::ZERO;
    })
    .await;
    let mut server = lab.server().await;
    let mut devices = Vec::new();
    for _ in 0..6 {
        devices.push(lab.device().await);
        server.admitted().await;
        lab.until_metric("umbra_gateway_devices_waiting", 0).await;
    }
    let _strangers = [lab.device().await, lab.device().await];
    let (code, retry) = refused(lab.try_device(&[]).await);
    assert_eq!(code, "busy");
    assert!(retry.is_some());
}

#[tokio::test]
async fn who_finds_no_room_gets_it_when_somebody_is_admitted_in_the_next_moment() {
    let lab = Lab::timed(|timing| {
        timing.room.of_one = 1;
        // Only the admission ends it.
        timing.queue = Duration::from_secs(3600);
    })
    .await;
    let mut server = lab.server().await;
    let _first = lab.device().await;
    let second = lab.device();
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(500), &mut second).await;
    assert!(early.is_err(), "there was no room");
    let _link = server.admitted().await;
    let _second = within("room for the second", second).await;
    let _other_link = server.admitted().await;
    lab.until_metric("umbra_gateway_devices", 2).await;
}

#[tokio::test]
async fn a_newcomer_from_elsewhere_gets_in_when_all_room_is_taken() {
    let mut wanted = Wanted {
        trusted: &["127.0.0.1"],
        ..Wanted::default()
    };
    wanted.timing.room.strangers = 3;
    wanted.timing.queue = Duration::ZERO;
    let lab = Lab::with(wanted).await;
    let _server = lab.server().await;
    let from = |address| [("X-Forwarded-For", address)];
    let mut greedy = Vec::new();
    for _ in 0..3 {
        greedy.push(lab.try_device(&from("192.0.2.1")).await.unwrap());
    }
    // At first it has to wait.
    let (code, _) = refused(lab.try_device(&from("192.0.2.2")).await);
    assert_eq!(code, "busy");
    let mut newcomer = None;
    until("a newcomer to be let in", async || {
        newcomer = lab.try_device(&from("192.0.2.2")).await.ok();
        newcomer.is_some()
    })
    .await;
    let closed = end_of(&mut greedy[0]).await;
    assert_eq!((closed.code, closed.code_word()), (1013, Some("busy")));
    lab.until_metric("umbra_gateway_devices_waiting", 3).await;
}

#[tokio::test]
async fn a_crowd_on_one_uplink_waits_instead_of_blocking_it() {
    let lab = Lab::timed(|timing| {
        timing.room.of_uplink = 2;
        timing.queue = Duration::ZERO;
    })
    .await;
    let mut server = lab.server().await;
    let _silent = [lab.device().await, lab.device().await];
    let (code, retry) = refused(lab.try_device(&[]).await);
    assert_eq!(code, "busy");
    assert!(retry.is_some());
    server.admitted().await;
    lab.until_metric("umbra_gateway_devices_waiting", 1).await;
    lab.device().await;
}

#[tokio::test]
async fn the_address_behind_a_trusted_proxy_is_told_to_the_server_and_no_other_is_believed() {
    for (trusted, seen) in [(&["127.0.0.1"][..], "192.0.2.7"), (&[], "127.0.0.1")] {
        let wanted = Wanted {
            trusted,
            ..Wanted::default()
        };
        let lab = Lab::with(wanted).await;
        let mut server = lab.server().await;
        // The client invented the first line; its proxy wrote the second one.
        let headers = [
            ("X-Forwarded-For", "198.51.100.1"),
            ("X-Forwarded-For", "192.0.2.7"),
        ];
        let _device = lab.try_device(&headers).await.unwrap();
        assert_eq!(server.carried().await.head.from.to_string(), seen);
    }
}

#[tokio::test]
async fn a_flooding_device_and_one_that_does_not_read_delay_nobody() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    // This one sends as much as it can, and its server reads nothing of it.
    let mut flooding = lab.device().await;
    let _unread = server.admitted().await;
    let flood = tokio::spawn(async move {
        let mut sent = 0_usize;
        while let Ok(Ok(())) = timeout(Duration::from_secs(2), async {
            flooding.write_all(&[7; 16 * 1024]).await?;
            flooding.flush().await
        })
        .await
        {
            sent += 16 * 1024;
            assert!(sent < 100_000_000, "nothing holds the sender back");
        }
        (flooding, sent)
    });
    // To this one the server sends as much as it can, and it reads nothing.
    let _deaf = lab.device().await;
    let mut to_deaf = server.admitted().await;
    let pour = tokio::spawn(async move {
        let mut sent = 0_usize;
        while let Ok(Ok(())) = timeout(
            Duration::from_secs(2),
            to_deaf.stream.write_all(&[7; 16 * 1024]),
        )
        .await
        {
            sent += 16 * 1024;
            assert!(sent < 100_000_000, "nothing holds the sender back");
        }
        (to_deaf, sent)
    });
    let (_flooding, _) = within("the flood to be held back", flood).await.unwrap();
    let (_to_deaf, _) = within("the pour to be held back", pour).await.unwrap();
    for _ in 0..5 {
        let mut device = lab.device().await;
        let mut carried = server.admitted().await;
        talk(&mut device, &mut carried.stream).await;
    }
}
