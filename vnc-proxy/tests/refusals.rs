//! The promise: what a VNC server refuses with after its greeting is known before a session begins, and a viewer of any version
//! meets the VNC server that the device has asked, or one that is asked in the viewer's version.
#![allow(clippy::unwrap_used)]

mod lab;

use std::time::Duration;

use lab::{ByteByByte, FakeVnc, GREETING, enter, let_in, never, offer, opened_pair, read, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use umbra_vnc_proxy::device_end::{SessionOptions, connect_upstream, serve};
use umbra_vnc_proxy::upstream::{Upstream, UpstreamError};
use umbra_vnc_proxy::{EndReason, Limits, Policy, StopCause};

#[tokio::test]
async fn a_refusal_after_the_greeting_is_known_before_the_answer_in_every_version() {
    for (greeting, refusal) in [
        (b"RFB 003.003\n", &b"\0\0\0\0\0\0\0\x08too busy"[..]),
        (b"RFB 003.007\n", b"\0\0\0\0\x08too busy"),
        (b"RFB 003.008\n", b"\0\0\0\0\x08too busy"),
        (b"RFB 003.889\n", b"\0\0\0\0\x08too busy"),
    ] {
        let vnc = FakeVnc::start(move |mut stream| async move {
            stream.write_all(greeting).await.expect("greeted");
            read::<12>(&mut stream).await;
            // Byte by byte.
            ByteByByte(stream).write_all(refusal).await.expect("told");
        });
        let found = connect_upstream(&vnc.upstream(), &SessionOptions::default(), soon()).await;
        let error = found.expect_err("refused");
        assert_eq!(error.code(), "vnc_server_refused", "{greeting:?}");
        assert!(error.for_operator().ends_with("too busy"), "{error}");
        vnc.finished().await;
    }
}

#[tokio::test]
async fn the_words_of_a_server_that_closes_without_listening_are_not_lost() {
    // As some servers do with whom they have barred: without waiting for the version, and gone before it is sent.
    let script = r"printf 'RFB 003.003\n\0\0\0\0\0\0\0\6barred'; exec <&- >&-";
    let folder = tempfile::tempdir().expect("a folder");
    let done = folder.path().join("done");
    let script = format!("{script}; : >{}", done.display());
    let upstream = Upstream::spawn("/bin/sh", vec!["-c".to_owned(), script], Vec::new())
        .expect("an absolute path");
    let connected = upstream.connect(soon()).await.expect("greeted");
    let closed = async {
        while !done.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed)
        .await
        .expect("in time");
    let found = connected.hear_offer(soon()).await;
    assert!(
        matches!(&found, Err(UpstreamError::Refused(reason)) if reason == "barred"),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_server_that_greets_and_then_offers_nothing_is_given_up() {
    for said in [&b""[..], b"\x03\x01", b"\0\0\0\0\x08too"] {
        let vnc = FakeVnc::start(move |mut stream| async move {
            stream.write_all(GREETING).await.expect("greeted");
            read::<12>(&mut stream).await;
            stream.write_all(said).await.expect("said");
            assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0);
        });
        let early = tokio::time::Instant::now() + Duration::from_millis(300);
        let found = connect_upstream(&vnc.upstream(), &SessionOptions::default(), early).await;
        assert!(matches!(found, Err(UpstreamError::TimedOut)), "{found:?}");
        vnc.finished().await;
    }
}

#[tokio::test]
async fn an_offer_reaches_a_viewer_of_the_same_version_as_it_came() {
    let vnc = FakeVnc::start(|mut stream| async move {
        stream.write_all(b"RFB 003.889\n").await.expect("greeted");
        assert_eq!(&read::<12>(&mut stream).await, GREETING);
        // Kinds that only server and viewer know.
        stream.write_all(&[3, 30, 19, 2]).await.expect("offered");
        assert_eq!(read::<3>(&mut stream).await, [30, 7, 7]);
        stream.write_all(b"their own affair").await.expect("sent");
    });
    let options = SessionOptions::default();
    let upstream = connect_upstream(&vnc.upstream(), &options, soon())
        .await
        .expect("connected");
    let (console, device) = opened_pair().await;
    let looking = async {
        let mut console = ByteByByte(console);
        assert_eq!(&read::<12>(&mut console).await, b"RFB 003.889\n");
        console.write_all(GREETING).await.expect("sent");
        console.flush().await.expect("sent");
        assert_eq!(read::<4>(&mut console).await, [3, 30, 19, 2]);
        console.write_all(&[30, 7, 7]).await.expect("sent");
        console.flush().await.expect("sent");
        assert_eq!(&read::<16>(&mut console).await, b"their own affair");
        console.shutdown().await.expect("closed");
    };
    let (outcome, ()) = tokio::join!(serve(device, upstream, options, never()), looking);
    assert_eq!(
        (outcome.bytes_to_device, outcome.bytes_to_console),
        (15, 32)
    );
    vnc.finished().await;
}

#[tokio::test]
async fn the_challenge_of_a_3_3_server_that_comes_before_the_viewer_is_kept_for_it() {
    let (sent, was_sent) = tokio::sync::oneshot::channel();
    let vnc = FakeVnc::start(|mut stream| async move {
        stream.write_all(b"RFB 003.003\n").await.expect("greeted");
        read::<12>(&mut stream).await;
        stream
            .write_all(b"\0\0\0\x02a challenge, 16b")
            .await
            .expect("asked");
        sent.send(()).expect("awaited");
        assert_eq!(&read::<16>(&mut stream).await, b"the response 16b");
    });
    let options = SessionOptions::default();
    let upstream = connect_upstream(&vnc.upstream(), &options, soon())
        .await
        .expect("connected");
    let (mut console, device) = opened_pair().await;
    let looking = async {
        was_sent.await.expect("sent");
        assert_eq!(&read::<12>(&mut console).await, b"RFB 003.003\n");
        console.write_all(b"RFB 003.003\n").await.expect("sent");
        console.flush().await.expect("sent");
        assert_eq!(
            &read::<20>(&mut console).await,
            b"\0\0\0\x02a challenge, 16b"
        );
        console.write_all(b"the response 16b").await.expect("sent");
        console.flush().await.expect("sent");
        console.shutdown().await.expect("closed");
    };
    tokio::join!(serve(device, upstream, options, never()), looking);
    vnc.finished().await;
}

#[tokio::test]
async fn a_viewer_of_another_version_meets_a_server_that_was_asked_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("vnc");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let server = async {
        let (mut first, _) = listener.accept().await.expect("asked");
        offer(&mut first).await;
        assert_eq!(first.read(&mut [0]).await.expect("closed"), 0, "let go");
        let (mut second, _) = listener.accept().await.expect("asked again");
        second.write_all(GREETING).await.expect("greeted");
        assert_eq!(&read::<12>(&mut second).await, b"RFB 003.003\n");
        second.write_all(b"\0\0\0\x01").await.expect("let in");
        assert_eq!(read::<1>(&mut second).await, [1]);
    };
    let session = async {
        let options = SessionOptions::default();
        let upstream = Upstream::unix(&socket).expect("absolute");
        let upstream = connect_upstream(&upstream, &options, soon())
            .await
            .expect("connected");
        let (mut console, device) = opened_pair().await;
        let looking = async {
            assert_eq!(&read::<12>(&mut console).await, GREETING);
            console.write_all(b"RFB 003.003\n\x01").await.expect("sent");
            console.flush().await.expect("sent");
            assert_eq!(&read::<4>(&mut console).await, b"\0\0\0\x01");
        };
        tokio::join!(serve(device, upstream, options, never()), looking).0
    };
    let (outcome, ()) = tokio::join!(session, server);
    assert!(
        matches!(outcome.reason, EndReason::VncServerClosed),
        "{outcome:?}"
    );
    assert_eq!(
        (outcome.bytes_to_device, outcome.bytes_to_console),
        (13, 16)
    );
}

fn view_only() -> SessionOptions {
    SessionOptions {
        policy: Policy::VIEW_ONLY,
        ..SessionOptions::default()
    }
}

#[tokio::test]
async fn a_viewer_that_a_person_has_to_start_first_is_waited_for() {
    for options in [SessionOptions::default(), view_only()] {
        let vnc = FakeVnc::start(|mut stream| async move {
            let_in(&mut stream).await;
            assert_eq!(read::<1>(&mut stream).await, [1]);
        });
        let options = SessionOptions {
            handshake_limit: Duration::from_secs(1),
            ..options
        };
        let upstream = connect_upstream(&vnc.upstream(), &options, soon())
            .await
            .expect("connected");
        let (mut console, device) = opened_pair().await;
        let looking = async {
            // Longer than the viewer may take once it is there.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            enter(&mut console).await;
            console.write_all(&[1]).await.expect("sent");
            console.flush().await.expect("sent");
        };
        let (outcome, ()) = tokio::join!(serve(device, upstream, options, never()), looking);
        assert!(
            matches!(outcome.reason, EndReason::VncServerClosed),
            "{outcome:?}"
        );
        vnc.finished().await;
    }
}

#[tokio::test]
async fn while_the_viewer_is_waited_for_the_limits_hold_and_the_server_may_end() {
    let limited = |idle, total| Limits {
        idle,
        total,
        ..Limits::default()
    };
    let short = Some(Duration::from_millis(300));
    for options in [SessionOptions::default(), view_only()] {
        for (limits, code) in [
            (limited(short, None), "idle_limit"),
            (limited(None, short), "total_limit"),
            (limited(None, None), "vnc_server_closed"),
        ] {
            let ends = limits.idle.is_none() && limits.total.is_none();
            let terminates = options.policy != Policy::FULL;
            let vnc = FakeVnc::start(move |mut stream| async move {
                if terminates {
                    let_in(&mut stream).await;
                } else {
                    offer(&mut stream).await;
                }
                if !ends {
                    assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0);
                }
            });
            let options = SessionOptions {
                limits,
                ..options.clone()
            };
            let upstream = connect_upstream(&vnc.upstream(), &options, soon())
                .await
                .expect("connected");
            let (_console, device) = opened_pair().await;
            let outcome = serve(device, upstream, options, never()).await;
            assert_eq!(outcome.reason.code(), code);
            vnc.finished().await;
        }
    }
}

#[tokio::test]
async fn a_session_is_stopped_while_its_viewer_is_waited_for() {
    let vnc = FakeVnc::start(|mut stream| async move {
        offer(&mut stream).await;
        assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0);
    });
    let options = SessionOptions::default();
    let upstream = connect_upstream(&vnc.upstream(), &options, soon())
        .await
        .expect("connected");
    let (_console, device) = opened_pair().await;
    let outcome = serve(device, upstream, options, async { StopCause::User }).await;
    assert_eq!(outcome.reason.code(), "ended_by_user");
    vnc.finished().await;
}
