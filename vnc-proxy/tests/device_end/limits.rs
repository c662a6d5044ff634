//! Sessions that may not do everything, and viewers that break the handshake.

use super::*;

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
