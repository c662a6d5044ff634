//! How sessions end, and what each side is told of it.

use super::*;

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
