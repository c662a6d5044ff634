//! The promise: a session begins only after the device's decision, ends for one known reason, and in between the VNC server gets from
//! the console what the permission allows and nothing else.
#![allow(clippy::unwrap_used)]

mod lab;

use std::time::Duration;

use lab::{
    ByteByByte, FakeVnc, GREETING, UUID, enter, let_in, never, offer, opened_pair, read,
    read_to_end, soon, tls_pair,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use umbra_vnc_proxy::console_end::{self, ConsoleError};
use umbra_vnc_proxy::device_end::{self, SessionOptions, connect_upstream, serve};
use umbra_vnc_proxy::preface::{Dialect, Preface, PrefaceError};
use umbra_vnc_proxy::upstream::{Upstream, UpstreamError};
use umbra_vnc_proxy::{EndReason, Limits, Policy, Secret, StopCause, vnc_auth};

const KEY_EVENT: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 0x61];
const POINTER_EVENT: [u8; 6] = [5, 1, 0, 9, 0, 9];
const UPDATE_REQUEST: [u8; 10] = [3, 1, 0, 0, 0, 0, 0, 9, 0, 9];

fn view_only() -> SessionOptions {
    SessionOptions {
        policy: Policy::VIEW_ONLY,
        ..SessionOptions::default()
    }
}

fn with_password(password: &str) -> SessionOptions {
    SessionOptions {
        password: Some(Secret::new(password)),
        ..SessionOptions::default()
    }
}

/// Offers to let anybody in, then answers everything with itself until the end.
async fn echo(mut stream: tokio::net::UnixStream) {
    offer(&mut stream).await;
    let (mut from, mut to) = stream.split();
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

#[tokio::test]
async fn a_session_in_our_dialect_goes_from_preface_to_farewell() {
    let (mut console, mut device) = tls_pair().await;
    let vnc = FakeVnc::start(echo);
    let upstream = vnc.upstream();
    let device = async move {
        let preface = device_end::read_preface(&mut device, soon())
            .await
            .expect("a preface");
        let expected = Preface::Ticket {
            ticket: "head.body.sig".to_owned(),
            password: Secret::new("pass-word_1"),
        };
        assert_eq!(preface, expected);
        device_end::answer_wait(
            &mut device,
            Dialect::Umbra,
            "The user is being asked.",
            soon(),
        )
        .await
        .expect("told");
        let options = SessionOptions::default();
        let upstream = connect_upstream(&upstream, &options, soon())
            .await
            .expect("connected");
        device_end::answer_ok(&mut device, Dialect::Umbra, soon())
            .await
            .expect("told");
        serve(device, upstream, options, never()).await
    };
    let console = async move {
        let mut waits = Vec::new();
        let password = Secret::new("pass-word_1");
        let waited = |sentence: &str| waits.push(sentence.to_owned());
        console_end::open(&mut console, "head.body.sig", &password, soon(), waited)
            .await
            .expect("opened");
        assert_eq!(waits, ["The user is being asked."]);
        let listener = console_end::listen_loopback(None).await.expect("a port");
        let address = listener.address();
        let (viewer, accepted) =
            tokio::join!(TcpStream::connect(address), listener.accept_one(soon()));
        let mut viewer = viewer.expect("connected");
        let bridge = console_end::bridge(
            accepted.expect("accepted"),
            console,
            Limits::default(),
            never(),
        );
        let looking = async {
            assert!(
                TcpStream::connect(address).await.is_err(),
                "the port takes one viewer"
            );
            assert_eq!(&read::<12>(&mut viewer).await, GREETING);
            viewer
                .write_all(b"RFB 003.008\nanything")
                .await
                .expect("sent");
            assert_eq!(&read::<10>(&mut viewer).await, b"\x01\x01anything");
            drop(viewer);
        };
        tokio::join!(bridge, looking).0
    };
    let (at_device, at_console) = tokio::join!(device, console);
    assert!(
        matches!(at_device.reason, EndReason::ViewerClosed),
        "{at_device:?}"
    );
    assert!(
        matches!(at_console.reason, EndReason::ViewerClosed),
        "{at_console:?}"
    );
    assert_eq!(
        (at_device.bytes_to_device, at_device.bytes_to_console),
        (20, 22)
    );
    assert_eq!(
        (at_console.bytes_to_device, at_console.bytes_to_console),
        (20, 22)
    );
    vnc.finished().await;
}

#[tokio::test]
async fn a_session_in_the_existing_fields_dialect_opens_with_the_greeting_alone() {
    for ending in ["", "\n", "\r\n", "\r\n\0"] {
        let (mut console, mut device) = tls_pair().await;
        let vnc = FakeVnc::start(|mut stream| async move {
            offer(&mut stream).await;
            assert_eq!(
                &read::<4>(&mut stream).await,
                b"\x01\r\n\x01",
                "no byte of the line ending, and of others all"
            );
        });
        let upstream = vnc.upstream();
        let device = async move {
            let preface = device_end::read_preface(&mut device, soon())
                .await
                .expect("a preface");
            assert_eq!(preface, Preface::LegacyPassword(Secret::new(UUID)));
            let options = SessionOptions {
                legacy_preface: true,
                ..SessionOptions::default()
            };
            let upstream = connect_upstream(&upstream, &options, soon())
                .await
                .expect("connected");
            device_end::answer_wait(&mut device, Dialect::Legacy, "unheard", soon())
                .await
                .expect("silent");
            device_end::answer_ok(&mut device, Dialect::Legacy, soon())
                .await
                .expect("silent");
            serve(device, upstream, options, never()).await
        };
        let console = async move {
            if ending.is_empty() {
                let greeting =
                    console_end::legacy_open(&mut console, &Secret::new(UUID), soon()).await;
                assert_eq!(&greeting.expect("opened"), GREETING);
            } else {
                console
                    .write_all(format!("PROCYCMD PW_{UUID}{ending}").as_bytes())
                    .await
                    .expect("sent");
                assert_eq!(&read::<12>(&mut console).await, GREETING);
            }
            console
                .write_all(b"RFB 003.008\n\x01\r\n\x01")
                .await
                .expect("sent");
            console.flush().await.expect("sent");
            read_to_end(&mut console).await.expect("closed in order");
        };
        let (outcome, ()) = tokio::join!(device, console);
        assert!(
            matches!(outcome.reason, EndReason::VncServerClosed),
            "{outcome:?}"
        );
        vnc.finished().await;
    }
}

#[tokio::test]
async fn a_refusal_reaches_the_operator_with_code_and_sentence() {
    let (mut console, mut device) = tls_pair().await;
    let refusing = async {
        let preface = device_end::read_preface(&mut device, soon())
            .await
            .expect("a preface");
        let sentence = "The user declined.\nAsk \x1bagain.";
        device_end::answer_refused(
            &mut device,
            preface.dialect(),
            "no_consent",
            sentence,
            soon(),
        )
        .await
        .expect("told");
        drop(device);
    };
    let password = Secret::new("password");
    let opening = async {
        let refused = console_end::open(&mut console, "ticket", &password, soon(), |_| {}).await;
        let rest = read_to_end(&mut console).await.expect("closed in order");
        console.shutdown().await.expect("closed");
        (refused, rest)
    };
    let (_, (refused, rest)) = tokio::join!(refusing, opening);
    match refused {
        Err(ConsoleError::Refused { code, sentence }) => {
            assert_eq!(
                (code.as_str(), sentence.as_str()),
                ("no_consent", "The user declined. Ask  again.")
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(rest, b"", "no byte of RFB");
}

#[tokio::test]
async fn a_refusal_in_the_existing_fields_dialect_is_nothing_but_closing() {
    let (mut console, mut device) = tls_pair().await;
    let refusing = async {
        let preface = device_end::read_preface(&mut device, soon())
            .await
            .expect("a preface");
        device_end::answer_refused(&mut device, preface.dialect(), "no_consent", "No.", soon())
            .await
            .expect("closed");
    };
    let opening = async {
        let refused = console_end::legacy_open(&mut console, &Secret::new(UUID), soon()).await;
        console.shutdown().await.expect("closed");
        refused
    };
    let ((), refused) = tokio::join!(refusing, opening);
    assert!(matches!(refused, Err(ConsoleError::Closed)), "{refused:?}");
}

#[tokio::test]
async fn a_device_that_asks_to_wait_forever_is_given_up() {
    let (mut here, mut device) = duplex(64 * 1024);
    let patience = async {
        loop {
            if device.write_all(b"UMBRA/1 wait a moment\n").await.is_err() {
                return;
            }
        }
    };
    let mut waits = 0;
    let opening = async {
        let password = Secret::new("p");
        let opened = console_end::open(&mut here, "t", &password, soon(), |_| waits += 1).await;
        drop(here);
        opened
    };
    let (opened, ()) = tokio::join!(opening, patience);
    assert!(
        matches!(opened, Err(ConsoleError::TooManyWaits)),
        "{opened:?}"
    );
    assert_eq!(waits, console_end::WAITS_MAX);
}

#[tokio::test]
async fn an_absent_vnc_server_is_known_before_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let missing = folder.path().join("missing");
    let upstreams = [
        Upstream::unix(&missing).expect("absolute"),
        Upstream::tcp(address).expect("loopback"),
        Upstream::spawn(&missing, Vec::new(), Vec::new()).expect("absolute"),
    ];
    for upstream in upstreams {
        let absent = connect_upstream(&upstream, &SessionOptions::default(), soon()).await;
        match absent {
            Err(error @ UpstreamError::Absent { .. }) => {
                assert_eq!(error.code(), "vnc_server_absent");
                let sentence = error.for_operator();
                assert!(
                    !sentence.contains(folder.path().to_str().unwrap()),
                    "{sentence}"
                );
            }
            other => panic!("{upstream}: {other:?}"),
        }
    }
}

#[test]
fn a_vnc_server_elsewhere_or_at_an_unclear_place_is_refused() {
    for address in [
        "192.0.2.1:5900",
        "0.0.0.0:5900",
        "[::]:5900",
        "[::ffff:192.0.2.1]:5900",
    ] {
        let refused = Upstream::tcp(address.parse().unwrap());
        assert!(
            matches!(refused, Err(UpstreamError::NotLoopback(_))),
            "{address}"
        );
    }
    for address in ["127.0.0.1:5900", "127.8.8.8:1", "[::1]:5900"] {
        assert!(Upstream::tcp(address.parse().unwrap()).is_ok(), "{address}");
    }
    assert!(matches!(
        Upstream::unix("vnc.sock"),
        Err(UpstreamError::NotAbsolute(_))
    ));
    assert!(matches!(
        Upstream::spawn("x11vnc", Vec::new(), Vec::new()),
        Err(UpstreamError::NotAbsolute(_))
    ));
}

#[tokio::test]
async fn what_is_wrong_with_a_vnc_server_has_a_name() {
    let options = with_password("secret");
    let ends = FakeVnc::start(|stream| async move { drop(stream) });
    let found = connect_upstream(&ends.upstream(), &options, soon()).await;
    assert!(matches!(found, Err(UpstreamError::Ended(_))), "{found:?}");

    let web = FakeVnc::start(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let found = connect_upstream(&web.upstream(), &options, soon()).await;
    assert!(matches!(found, Err(UpstreamError::NotVnc)), "{found:?}");

    let busy = FakeVnc::start(|mut stream| async move {
        stream.write_all(GREETING).await.expect("greeted");
        read::<12>(&mut stream).await;
        stream
            .write_all(b"\0\0\0\0\x08too busy")
            .await
            .expect("told");
    });
    let found = connect_upstream(&busy.upstream(), &options, soon()).await;
    assert!(
        matches!(&found, Err(UpstreamError::Refused(reason)) if reason == "too busy"),
        "{found:?}"
    );

    let mute = FakeVnc::start(|mut stream| async move {
        let _ = stream.read(&mut [0]).await;
    });
    let early = tokio::time::Instant::now() + Duration::from_millis(50);
    let found = connect_upstream(&mute.upstream(), &options, early).await;
    assert!(matches!(found, Err(UpstreamError::TimedOut)), "{found:?}");
}

/// A server with VNC authentication that knows the password "secret", in the version given.
fn guarded(version: &'static [u8; 12]) -> FakeVnc {
    FakeVnc::start(move |mut stream| async move {
        stream.write_all(version).await.expect("greeted");
        assert_eq!(&read::<12>(&mut stream).await, version);
        if version == b"RFB 003.003\n" {
            stream.write_all(&[0, 0, 0, 2]).await.expect("demanded");
        } else {
            stream.write_all(&[2, 1, 2]).await.expect("offered");
            assert_eq!(read::<1>(&mut stream).await, [2]);
        }
        let challenge = *b"0123456789abcdef";
        stream.write_all(&challenge).await.expect("asked");
        if read::<16>(&mut stream).await != vnc_auth::respond(&Secret::new("secret"), &challenge) {
            stream
                .write_all(&[0, 0, 0, 1, 0, 0, 0, 2, b'n', b'o'])
                .await
                .expect("refused");
            return;
        }
        stream.write_all(&[0; 4]).await.expect("let in");
        assert_eq!(
            read::<1>(&mut stream).await,
            [0],
            "ClientInit, as the viewer asked"
        );
        stream.write_all(b"server init").await.expect("sent");
        let _ = stream.read(&mut [0]).await;
    })
}

#[tokio::test]
async fn the_configured_password_opens_the_server_and_the_operator_is_not_asked() {
    for version in [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"] {
        let vnc = guarded(version);
        let options = with_password("secret");
        let upstream = connect_upstream(&vnc.upstream(), &options, soon())
            .await
            .expect("logged in");
        let (mut console, device) = opened_pair().await;
        let looking = async {
            enter(&mut console).await;
            console.write_all(&[0]).await.expect("sent");
            console.flush().await.expect("sent");
            assert_eq!(&read::<11>(&mut console).await, b"server init");
            console.shutdown().await.expect("closed");
        };
        let (outcome, ()) = tokio::join!(serve(device, upstream, options, never()), looking);
        assert!(
            matches!(outcome.reason, EndReason::ViewerClosed),
            "{outcome:?}"
        );
        vnc.finished().await;
    }
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_known_before_the_answer() {
    let vnc = guarded(b"RFB 003.008\n");
    let wrong = connect_upstream(&vnc.upstream(), &with_password("guess"), soon()).await;
    assert!(
        matches!(wrong, Err(UpstreamError::WrongPassword)),
        "{wrong:?}"
    );
    vnc.finished().await;
    let vnc = FakeVnc::start(|mut stream| async move {
        stream.write_all(GREETING).await.expect("greeted");
        read::<12>(&mut stream).await;
        stream.write_all(&[1, 2]).await.expect("offered");
        assert_eq!(
            stream.read(&mut [0]).await.expect("closed"),
            0,
            "nothing is chosen"
        );
    });
    let missing = connect_upstream(&vnc.upstream(), &view_only(), soon()).await;
    assert!(
        matches!(missing, Err(UpstreamError::PasswordMissing)),
        "{missing:?}"
    );
    vnc.finished().await;
}

#[tokio::test]
async fn in_view_only_frames_flow_and_input_is_dropped() {
    let vnc = FakeVnc::start(|mut stream| async move {
        let_in(&mut stream).await;
        assert_eq!(read::<1>(&mut stream).await, [1], "an onlooker shares");
        for frame in 0..20u8 {
            assert_eq!(
                read::<10>(&mut stream).await,
                UPDATE_REQUEST,
                "nothing between the requests"
            );
            stream.write_all(&[frame; 5000]).await.expect("sent");
        }
        assert_eq!(read_to_end(&mut stream).await.expect("closed"), b"");
    });
    let upstream = connect_upstream(&vnc.upstream(), &view_only(), soon())
        .await
        .expect("logged in");
    let (console, device) = opened_pair().await;
    let looking = async {
        let mut console = ByteByByte(console);
        enter(&mut console).await;
        console.write_all(&[0]).await.expect("sent");
        for frame in 0..20u8 {
            let sent = [&KEY_EVENT[..], &POINTER_EVENT, &UPDATE_REQUEST, &KEY_EVENT].concat();
            console.write_all(&sent).await.expect("sent");
            console.flush().await.expect("sent");
            assert_eq!(read::<5000>(&mut console).await, [frame; 5000]);
        }
        console.shutdown().await.expect("closed");
    };
    let (outcome, ()) = tokio::join!(serve(device, upstream, view_only(), never()), looking);
    assert!(
        matches!(outcome.reason, EndReason::ViewerClosed),
        "{outcome:?}"
    );
    assert_eq!(
        (outcome.bytes_to_device, outcome.bytes_to_console),
        (201, 100_000)
    );
    vnc.finished().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_understood_ends_a_limited_session() {
    let vnc = FakeVnc::start(|mut stream| async move {
        let_in(&mut stream).await;
        // ClientInit at most: what came in one piece with the wrong message may end with it.
        let got = read_to_end(&mut stream).await.expect("closed");
        assert!([1].starts_with(&got), "{got:?}");
    });
    let upstream = connect_upstream(&vnc.upstream(), &view_only(), soon())
        .await
        .expect("logged in");
    let (mut console, device) = opened_pair().await;
    let hiding = async {
        enter(&mut console).await;
        console
            .write_all(&[&[1, 99][..], &KEY_EVENT].concat())
            .await
            .expect("sent");
        console.flush().await.expect("sent");
        assert_eq!(
            read_to_end(&mut console).await.expect("closed in order"),
            b""
        );
    };
    let (outcome, ()) = tokio::join!(serve(device, upstream, view_only(), never()), hiding);
    assert!(
        matches!(outcome.reason, EndReason::InputViolation(_)),
        "{outcome:?}"
    );
    assert_eq!(outcome.reason.code(), "input_violation");
    vnc.finished().await;
}

#[tokio::test]
async fn the_limit_holds_even_if_the_caller_connected_without_it() {
    let vnc = FakeVnc::start(|mut stream| async move {
        let_in(&mut stream).await;
        assert_eq!(read_to_end(&mut stream).await.expect("closed"), [1]);
    });
    let upstream = vnc.upstream().connect(soon()).await.expect("greeted");
    let (mut console, device) = opened_pair().await;
    let typing = async {
        enter(&mut console).await;
        console
            .write_all(&[&[1][..], &KEY_EVENT].concat())
            .await
            .expect("sent");
        console.shutdown().await.expect("closed");
    };
    tokio::join!(serve(device, upstream, view_only(), never()), typing);
    vnc.finished().await;
}

#[tokio::test]
async fn a_viewer_that_breaks_the_handshake_or_dawdles_in_it_is_turned_away() {
    for (said, code) in [
        (&b"GET / HTTP"[..], "viewer_misbehaved"),
        (b"RFB 003.008\n\xff", "viewer_misbehaved"),
        (b"RFB", "viewer_silent"),
    ] {
        let vnc = FakeVnc::start(|mut stream| async move {
            let_in(&mut stream).await;
            assert_eq!(read_to_end(&mut stream).await.expect("closed"), b"");
        });
        let options = SessionOptions {
            handshake_limit: Duration::from_millis(300),
            ..view_only()
        };
        let upstream = connect_upstream(&vnc.upstream(), &options, soon())
            .await
            .expect("logged in");
        let (mut console, device) = opened_pair().await;
        console.write_all(said).await.expect("sent");
        console.flush().await.expect("sent");
        let outcome = serve(device, upstream, options, never()).await;
        assert_eq!(outcome.reason.code(), code, "{said:?}");
        assert_eq!((outcome.bytes_to_device, outcome.bytes_to_console), (0, 0));
        read_to_end(&mut console).await.expect("closed in order");
        vnc.finished().await;
    }
}

#[tokio::test]
async fn a_vnc_server_that_dies_mid_session_ends_it_on_both_ends() {
    let vnc = FakeVnc::start(|mut stream| async move {
        offer(&mut stream).await;
        read::<1>(&mut stream).await;
        stream.write_all(b"a frame").await.expect("sent");
    });
    let options = SessionOptions::default();
    let upstream = connect_upstream(&vnc.upstream(), &options, soon())
        .await
        .expect("connected");
    let (console, device) = opened_pair().await;
    let (mut viewer, here) = duplex(64);
    let looking = async {
        viewer.write_all(b"RFB 003.008\n\x01").await.expect("sent");
        let seen = read_to_end(&mut viewer).await.expect("closed");
        drop(viewer);
        seen
    };
    let (outcome, at_console, seen) = tokio::join!(
        serve(device, upstream, options, never()),
        console_end::bridge(here, console, Limits::default(), never()),
        looking,
    );
    assert_eq!(seen, b"RFB 003.008\n\x01\x01a frame");
    assert!(
        matches!(outcome.reason, EndReason::VncServerClosed),
        "{outcome:?}"
    );
    assert!(
        matches!(at_console.reason, EndReason::DeviceClosed),
        "{at_console:?}"
    );
    vnc.finished().await;
}

#[tokio::test]
async fn a_console_that_vanishes_is_not_taken_for_one_that_closed() {
    let vnc = FakeVnc::start(echo);
    let options = SessionOptions::default();
    let upstream = connect_upstream(&vnc.upstream(), &options, soon())
        .await
        .expect("connected");
    let (console, device) = opened_pair().await;
    drop(console);
    let outcome = serve(device, upstream, options, never()).await;
    assert!(
        matches!(outcome.reason, EndReason::PeerVanished),
        "{outcome:?}"
    );
    vnc.finished().await;
}

#[tokio::test]
async fn whoever_stops_a_session_is_named_whatever_the_session_is_doing() {
    // While data flows.
    let vnc = FakeVnc::start(echo);
    let options = SessionOptions::default();
    let upstream = connect_upstream(&vnc.upstream(), &options, soon())
        .await
        .expect("connected");
    let (mut console, device) = opened_pair().await;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let looking = async {
        read::<12>(&mut console).await;
        stop.send(StopCause::User).expect("listening");
        assert_eq!(
            read_to_end(&mut console).await.expect("closed in order"),
            b""
        );
    };
    let session = serve(device, upstream, options, async {
        stopped.await.expect("a cause")
    });
    let (outcome, ()) = tokio::join!(session, looking);
    assert!(
        matches!(outcome.reason, EndReason::Stopped(StopCause::User)),
        "{outcome:?}"
    );
    assert_eq!(outcome.reason.code(), "ended_by_user");
    vnc.finished().await;

    // While the viewer still hasn't answered our greeting.
    let vnc = FakeVnc::start(|mut stream| async move {
        let_in(&mut stream).await;
        assert_eq!(read_to_end(&mut stream).await.expect("closed"), b"");
    });
    let upstream = connect_upstream(&vnc.upstream(), &view_only(), soon())
        .await
        .expect("logged in");
    let (_console, device) = opened_pair().await;
    let outcome = serve(device, upstream, view_only(), async {
        StopCause::Administrator
    })
    .await;
    assert!(
        matches!(outcome.reason, EndReason::Stopped(StopCause::Administrator)),
        "{outcome:?}"
    );
    vnc.finished().await;
}

#[tokio::test]
async fn with_secure_mode_off_a_plain_viewer_is_served_too() {
    let vnc = FakeVnc::start(echo);
    let options = SessionOptions::default();
    let upstream = connect_upstream(&vnc.upstream(), &options, soon())
        .await
        .expect("connected");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (viewer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let mut viewer = viewer.expect("connected");
    let looking = async {
        assert_eq!(&read::<12>(&mut viewer).await, GREETING);
        viewer.write_all(GREETING).await.expect("sent");
        assert_eq!(read::<2>(&mut viewer).await, [1, 1]);
        drop(viewer);
    };
    let session = serve(accepted.expect("accepted").0, upstream, options, never());
    let (outcome, ()) = tokio::join!(session, looking);
    assert!(
        matches!(outcome.reason, EndReason::ViewerClosed),
        "{outcome:?}"
    );
    vnc.finished().await;
}

#[tokio::test]
async fn a_preface_that_is_absent_or_false_is_told_apart() {
    let (mut console, mut device) = tls_pair().await;
    console.shutdown().await.expect("closed");
    let absent = device_end::read_preface(&mut device, soon()).await;
    assert!(matches!(absent, Err(PrefaceError::Absent)), "{absent:?}");

    let (console, mut device) = tls_pair().await;
    drop(console);
    let absent = device_end::read_preface(&mut device, soon()).await;
    assert!(matches!(absent, Err(PrefaceError::Absent)), "{absent:?}");

    let (mut console, mut device) = tls_pair().await;
    console
        .write_all(b"PROCYCMD reboot; $(id)\n")
        .await
        .expect("sent");
    console.flush().await.expect("sent");
    let wrong = device_end::read_preface(&mut device, soon()).await;
    assert!(matches!(wrong, Err(PrefaceError::NotAPreface)), "{wrong:?}");
}

#[tokio::test]
async fn the_viewers_port_is_never_opened_to_the_network() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let refused = console_end::listen_loopback(Some(address.parse().unwrap())).await;
        assert!(
            matches!(refused, Err(ConsoleError::NotLoopback(_))),
            "{address}"
        );
    }
    let listener = console_end::listen_loopback(None).await.expect("a port");
    assert!(listener.address().ip().is_loopback());
    let early = tokio::time::Instant::now() + Duration::from_millis(20);
    assert!(matches!(
        listener.accept_one(early).await,
        Err(ConsoleError::NoViewer)
    ));
}
