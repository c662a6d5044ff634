//! What reaches the VNC server: from consoles of the existing field, from plain viewers, and from those who may only look.

use super::*;

#[tokio::test]
async fn consoles_of_the_existing_field_get_the_greeting_or_silence() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let uuid = umbra_vnc_proxy::Secret::new("01234567-89ab-cdef-0123-456789abcdef");
    let deadline = Instant::now() + PATIENCE;
    let mut console = connect(&link, port).await;
    let asking = async {
        let verify = asked(&mut link).await;
        let Presented::LegacyPassword { password } = &verify.presented else {
            panic!("{verify:?}")
        };
        assert_eq!(password.reveal(), uuid.expose());
        link.say(SessionVerdict {
            question: verify.question,
            verdict: Verdict::Allowed(request(1)),
        })
        .await;
    };
    let (opened, ()) = tokio::join!(
        console_end::legacy_open(&mut console, &uuid, deadline),
        asking
    );
    assert_eq!(&opened.expect("allowed"), b"RFB 003.008\n");
    let mut console = connect(&link, port).await;
    let refusing = async {
        let question = asked(&mut link).await.question;
        let refusal = Refusal::new(RefusalCode::PasswordWrong, "Wrong.");
        link.say(SessionVerdict {
            question,
            verdict: Verdict::Refused(refusal),
        })
        .await;
    };
    let (opened, ()) = tokio::join!(
        console_end::legacy_open(&mut console, &uuid, deadline),
        refusing
    );
    assert!(matches!(opened, Err(ConsoleError::Closed)), "{opened:?}");
}

#[tokio::test]
async fn a_plain_viewer_is_never_greeted_in_secure_mode_and_passed_through_without_it() {
    let vnc = vnc_server().await;
    let secure = Device::start(&shadowable(vnc, SILENT)).await;
    let open = Device::start(&shadowable(
        vnc,
        "promptuser = false\nsecure_mode = false\n",
    ))
    .await;
    for (device, expected) in [(secure, 0), (open, 12)] {
        let port = device
            .until("the port", |status| status.shadow_port.is_some())
            .await
            .shadow_port
            .expect("a port");
        let mut viewer = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("connected");
        let mut bytes = [0; 12];
        let mut read = 0;
        while read < 12 {
            match soon("a greeting or the end", viewer.read(&mut bytes[read..])).await {
                Ok(0) | Err(_) => break,
                Ok(more) => read += more,
            }
        }
        assert_eq!(read, expected);
    }
}

#[tokio::test]
async fn a_password_for_plain_viewers_is_not_waved_through_by_a_vnc_server_that_asks_for_none() {
    let more = "promptuser = false\nsecure_mode = false\ncrypt_password = \"secret\"\n";
    let device = Device::start(&shadowable(real_vnc_server(None).await.0, more)).await;
    let port = device
        .until("the port", |status| status.shadow_port.is_some())
        .await
        .shadow_port
        .expect("a port");
    let mut viewer = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connected");
    let mut bytes = Vec::new();
    // However it ends: not one byte came.
    let _ = soon("the end", viewer.read_to_end(&mut bytes)).await;
    assert!(bytes.is_empty(), "{bytes:?}");
}

/// A VNC server that asks for this password, if there is one, and passes on what comes after the handshake.
async fn real_vnc_server(
    password: Option<&'static str>,
) -> (SocketAddr, mpsc::UnboundedReceiver<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                stream.write_all(b"RFB 003.008\n").await?;
                let mut line = [0; 12];
                stream.read_exact(&mut line).await?;
                stream
                    .write_all(&[1, if password.is_some() { 2 } else { 1 }])
                    .await?;
                stream.read_u8().await?;
                if let Some(password) = password {
                    let challenge = [9; 16];
                    stream.write_all(&challenge).await?;
                    let mut response = [0; 16];
                    stream.read_exact(&mut response).await?;
                    let secret = umbra_vnc_proxy::Secret::new(password);
                    if response != umbra_vnc_proxy::vnc_auth::respond(&secret, &challenge) {
                        return stream
                            .write_all(&[0, 0, 0, 1, 0, 0, 0, 2, b'n', b'o'])
                            .await;
                    }
                }
                stream.write_all(&[0; 4]).await?;
                stream.read_u8().await?;
                // 1 × 1 pixel, 32 bits, no name.
                stream
                    .write_all(&[
                        0, 1, 0, 1, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0,
                        0, 0,
                    ])
                    .await?;
                while let Ok(byte) = stream.read_u8().await {
                    // The test may have ended.
                    let _ = sender.send(byte);
                }
                Ok::<(), io::Error>(())
            });
        }
    });
    (address, received)
}

/// The viewer's half of the handshake, with no authentication.
async fn play_viewer(console: &mut Console) {
    assert_eq!(greeting(console).await, "RFB 003.008\n");
    let playing = async {
        console.write_all(b"RFB 003.008\n").await?;
        let offered = console.read_u8().await?;
        let mut kinds = vec![0; usize::from(offered)];
        console.read_exact(&mut kinds).await?;
        assert_eq!(kinds, [1], "the operator is not asked again");
        console.write_all(&[1]).await?;
        assert_eq!(console.read_u32().await?, 0);
        console.write_all(&[1]).await?;
        let mut init = [0; 24];
        console.read_exact(&mut init).await
    };
    soon("the handshake", playing).await.expect("a handshake");
}

#[tokio::test]
async fn who_may_only_look_moves_nothing_whoever_of_the_three_said_so() {
    const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 65];
    const LOOK: [u8; 10] = [3, 1, 0, 0, 0, 0, 0, 1, 0, 1];
    let looking = Permissions {
        control: false,
        clipboard: false,
    };
    for (number, in_ticket, from_server, remote_input) in [
        (1, looking, FULL, true),
        (2, FULL, looking, true),
        (3, FULL, FULL, false),
        (4, FULL, FULL, true),
    ] {
        let server = Server::start().await;
        let (vnc, mut received) = real_vnc_server(None).await;
        let more = format!("{SILENT}remoteinput = {remote_input}\n");
        let device = Device::start(&shadowable(vnc, &more)).await;
        device.enrolled_by(&server).await;
        let (mut link, port) = server.welcome_with_port().await;
        let mut console = connect(&link, port).await;
        let ticket = ticket_for(&server, &link, number, in_ticket);
        let (opened, ()) = tokio::join!(open(&mut console, &ticket), async {
            let question = asked(&mut link).await.question;
            let allowed = SessionRequest {
                permissions: from_server,
                ..request(number)
            };
            let verdict = Verdict::Allowed(allowed);
            link.say(SessionVerdict { question, verdict }).await;
        });
        opened.expect("allowed");
        play_viewer(&mut console).await;
        console.write_all(&KEY).await.expect("sent");
        console.write_all(&LOOK).await.expect("sent");
        let first = soon("a byte", received.recv())
            .await
            .expect("the VNC server is there");
        let control = number == 4;
        assert_eq!(
            first,
            if control { KEY[0] } else { LOOK[0] },
            "case {number}"
        );
    }
}

#[tokio::test]
async fn the_vnc_servers_password_is_answered_by_the_agent() {
    let server = Server::start().await;
    let (vnc, mut received) = real_vnc_server(Some("secret")).await;
    let more = format!("{SILENT}crypt_password = \"secret\"\n");
    let device = Device::start(&shadowable(vnc, &more)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let good = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &good), allow(&mut link, 1));
    opened.expect("allowed");
    play_viewer(&mut console).await;
    console
        .write_all(&[4, 1, 0, 0, 0, 0, 0, 65])
        .await
        .expect("sent");
    assert_eq!(soon("a byte", received.recv()).await, Some(4));
}
