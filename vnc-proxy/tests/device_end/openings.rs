//! How a session opens, in each dialect, or does not.

use super::*;

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
        let (viewer, accepted) = tokio::join!(
            TcpStream::connect(address),
            listener.accept_one(soon(), |_| ())
        );
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
        listener.accept_one(early, |_| ()).await,
        Err(ConsoleError::NoViewer)
    ));
}
