//! What is known of the VNC server before anybody is let in: where it is, what it wants, what is wrong with it.

use super::*;

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
