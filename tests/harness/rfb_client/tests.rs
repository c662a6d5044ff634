//! The client against the test desktop, and against servers that are broken on purpose.

use super::*;
use crate::desktop::{Desktop, DesktopConfig, Event, Manner};
use crate::eventually::{SOON, eventually_is};

async fn desktop(config: DesktopConfig) -> (Desktop, SocketAddr) {
    let desktop = Desktop::start(config).await.expect("listens");
    let address = desktop.tcp().expect("listens on TCP");
    (desktop, address)
}

fn patience(limit: Duration) -> Options {
    Options {
        limit,
        ..Options::default()
    }
}

/// A server that says these bytes, then nothing more.
async fn scripted(script: Vec<u8>) -> Result<RfbClient<tokio::io::DuplexStream>, RfbError> {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    theirs
        .write_all(&script)
        .await
        .expect("room for the script");
    theirs.shutdown().await.expect("closes");
    // What the client says is of no interest, but must go somewhere.
    tokio::spawn(async move { tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await });
    RfbClient::start(ours, &patience(Duration::from_secs(5))).await
}

fn hello(width: u16, height: u16) -> Vec<u8> {
    let mut script = b"RFB 003.008\n\x01\x01\0\0\0\0".to_vec();
    script.extend(width.to_be_bytes());
    script.extend(height.to_be_bytes());
    script.extend(PixelFormat::NATIVE.to_wire());
    script.extend(b"\0\0\0\x04test");
    script
}

fn update(rect: [u16; 4], encoding: i32, data: &[u8]) -> Vec<u8> {
    let mut message = vec![rfb::FRAMEBUFFER_UPDATE, 0, 0, 1];
    message.extend(rect.iter().flat_map(|edge| edge.to_be_bytes()));
    message.extend(encoding.to_be_bytes());
    message.extend(data);
    message
}

#[tokio::test]
async fn what_the_client_sees_is_what_the_desktop_shows() {
    let (desktop, address) = desktop(DesktopConfig::default()).await;
    desktop.freeze(true);
    let mut client = RfbClient::connect(address, &Options::default())
        .await
        .expect("joins");
    client.refresh().await.expect("an update");
    assert!(*client.image() == desktop.framebuffer());
    assert_eq!(client.greeting().name, "thin-client-1");
    assert_eq!(desktop.events(), [Event::Joined { shared: true }]);
}

#[tokio::test]
async fn incremental_updates_end_at_the_same_picture_with_fewer_bytes() {
    let (desktop, address) = desktop(DesktopConfig::default()).await;
    let mut client = RfbClient::connect(address, &Options::default())
        .await
        .expect("joins");
    client.refresh().await.expect("an update");
    let whole = client.tally().bytes_in;
    for _ in 0..3 {
        assert!(!client.follow().await.expect("an update").is_empty());
    }
    assert!(
        client.tally().bytes_in < 2 * whole,
        "three small changes took as much as a whole screen"
    );
    desktop.freeze(true);
    let shown = desktop.framebuffer();
    assert!(
        client
            .follow_until(SOON, |image| *image == shown)
            .await
            .expect("goes on")
    );
}

#[tokio::test]
async fn keys_pointer_and_clipboard_arrive_as_sent_and_keys_show() {
    let (desktop, address) = desktop(DesktopConfig::default()).await;
    let mut client = RfbClient::connect(address, &Options::default())
        .await
        .expect("joins");
    client.refresh().await.expect("an update");
    client.type_text("Hi").await.expect("sent");
    client.pointer(1, 30, 40).await.expect("sent");
    client.cut_text(b"copied").await.expect("sent");
    let expected = [
        Event::Key {
            down: true,
            keysym: 0x48,
        },
        Event::Key {
            down: false,
            keysym: 0x48,
        },
        Event::Key {
            down: true,
            keysym: 0x69,
        },
        Event::Key {
            down: false,
            keysym: 0x69,
        },
        Event::Pointer {
            buttons: 1,
            x: 30,
            y: 40,
        },
        Event::CutText(b"copied".to_vec()),
    ];
    eventually_is("the input to arrive", SOON, || {
        let events = desktop.events();
        if events.ends_with(&expected) {
            Ok(())
        } else {
            Err(events)
        }
    })
    .await
    .expect("arrives");
    assert_eq!(desktop.typed(), "Hi");
    assert!(
        client
            .follow_until(SOON, |image| image.pixel(30, 40) == 0xE0_10_10)
            .await
            .expect("goes on")
    );
}

#[tokio::test]
async fn a_password_is_asked_for_and_checked() {
    let config = DesktopConfig {
        password: Some("opensesame".into()),
        ..DesktopConfig::default()
    };
    let (desktop, address) = desktop(config).await;
    let right = Options {
        password: Some("opensesame".into()),
        ..Options::default()
    };
    let client = RfbClient::connect(address, &right).await.expect("joins");
    assert_eq!(client.greeting().security, rfb::SECURITY_VNC_AUTH);
    let wrong = Options {
        password: Some("guess".into()),
        ..Options::default()
    };
    let refused = RfbClient::connect(address, &wrong)
        .await
        .err()
        .expect("refused");
    assert!(
        matches!(&refused, RfbError::Refused(reason) if reason == "Authentication failed"),
        "{refused}"
    );
    let none = RfbClient::connect(address, &Options::default())
        .await
        .err()
        .expect("refused");
    assert!(matches!(none, RfbError::PasswordNeeded), "{none}");
    assert!(desktop.events().contains(&Event::WrongPassword));
}

#[tokio::test]
async fn a_refusal_comes_with_its_reason() {
    let (desktop, address) = desktop(DesktopConfig::default()).await;
    desktop.set_manner(Manner::Refuse("not today".into()));
    let refused = RfbClient::connect(address, &Options::default())
        .await
        .err()
        .expect("refused");
    assert!(
        matches!(&refused, RfbError::Refused(reason) if reason == "not today"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_desktop_that_never_greets_is_given_up_at_the_limit() {
    let (desktop, address) = desktop(DesktopConfig::default()).await;
    desktop.set_manner(Manner::NeverGreet);
    let silent = RfbClient::connect(address, &patience(Duration::from_millis(100)))
        .await
        .err()
        .expect("gives up");
    assert!(
        matches!(
            silent,
            RfbError::Silent {
                doing: "waiting to be greeted",
                ..
            }
        ),
        "{silent}"
    );
}

#[tokio::test]
async fn a_desktop_that_stalls_says_nothing_more_and_one_that_hangs_up_closes() {
    let (desktop, address) = desktop(DesktopConfig::default()).await;
    desktop.set_manner(Manner::StallAfterInit);
    let mut client = RfbClient::connect(address, &patience(Duration::from_millis(200)))
        .await
        .expect("joins");
    let stalled = client.refresh().await.expect_err("stalls");
    assert!(matches!(stalled, RfbError::Silent { .. }), "{stalled}");

    desktop.set_manner(Manner::HangUpAfterUpdates(2));
    let mut client = RfbClient::connect(address, &Options::default())
        .await
        .expect("joins");
    client.refresh().await.expect("the first");
    client.follow().await.expect("the second");
    client.until_closed().await.expect("hangs up");
}

#[tokio::test]
async fn hanging_up_ends_every_session_at_once_and_is_counted() {
    let (desktop, address) = desktop(DesktopConfig::default()).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(
            RfbClient::connect(address, &Options::default())
                .await
                .expect("joins"),
        );
    }
    assert_eq!((desktop.connections(), desktop.active()), (2, 2));
    desktop.hang_up();
    for client in &mut clients {
        client.until_closed().await.expect("hung up");
    }
    eventually_is("nobody to be there", SOON, || match desktop.active() {
        0 => Ok(()),
        active => Err(active),
    })
    .await
    .expect("all gone");
    assert_eq!(desktop.connections(), 2);
}

#[tokio::test]
async fn a_unix_socket_serves_too_and_is_gone_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vnc.sock");
    let listen = crate::desktop::Listen::Unix(path.clone());
    let config = DesktopConfig {
        listen,
        size: (320, 200),
        ..DesktopConfig::default()
    };
    let desktop = Desktop::start(config.clone()).await.expect("listens");
    let stream = tokio::net::UnixStream::connect(&path)
        .await
        .expect("connects");
    let mut client = RfbClient::start(stream, &Options::default())
        .await
        .expect("joins");
    client.refresh().await.expect("an update");
    assert_eq!(
        (client.image().width(), client.image().height()),
        (320, 200)
    );
    drop(desktop);
    assert!(!path.exists());
}

#[tokio::test]
async fn older_clients_are_served_as_their_version_demands() {
    for (line, offer) in [
        (b"RFB 003.003\n", vec![0, 0, 0, 1]),
        (b"RFB 003.007\n", vec![1, 1]),
    ] {
        let (_desktop, address) = desktop(DesktopConfig {
            size: (64, 48),
            ..DesktopConfig::default()
        })
        .await;
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let mut greeting = [0; 12];
        stream.read_exact(&mut greeting).await.expect("greets");
        stream.write_all(line).await.expect("answers");
        let mut offered = vec![0; offer.len()];
        stream.read_exact(&mut offered).await.expect("offers");
        assert_eq!(offered, offer);
        // Neither version has a security result after "none": the next thing is the size.
        let choice: &[u8] = if line == b"RFB 003.003\n" {
            &[1]
        } else {
            &[1, 1]
        };
        stream.write_all(choice).await.expect("chooses");
        assert_eq!(
            (
                stream.read_u16().await.expect("width"),
                stream.read_u16().await.expect("height")
            ),
            (64, 48)
        );
    }
}

#[tokio::test]
async fn pixel_formats_are_honoured() {
    for format in [
        PixelFormat::RGB565,
        PixelFormat::RGB332,
        PixelFormat {
            big_endian: true,
            ..PixelFormat::NATIVE
        },
    ] {
        let (desktop, address) = desktop(DesktopConfig {
            size: (64, 48),
            ..DesktopConfig::default()
        })
        .await;
        desktop.freeze(true);
        let mut client = RfbClient::connect(address, &Options::default())
            .await
            .expect("joins");
        let mut wish = vec![rfb::SET_PIXEL_FORMAT, 0, 0, 0];
        wish.extend(format.to_wire());
        client.send_raw(&wish).await.expect("sent");
        client.request(false).await.expect("sent");
        let header: [u8; 16] = client.wire.array("reading").await.expect("an update");
        assert_eq!(header[..4], [rfb::FRAMEBUFFER_UPDATE, 0, 0, 1]);
        let mut pixels = vec![0; 64 * 48 * format.bytes()];
        client
            .wire
            .fill(&mut pixels, "reading")
            .await
            .expect("pixels");
        let mut expected = Vec::new();
        let shown = desktop.framebuffer();
        for y in 0..48 {
            format.encode(shown.row(y), &mut expected);
        }
        assert!(pixels == expected, "{format:?}");
    }
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_dropped_and_recorded() {
    for garbage in [
        vec![99],
        vec![rfb::CLIENT_CUT_TEXT, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
        vec![2, 0, 0xFF, 0xFF],
    ] {
        let (desktop, address) = desktop(DesktopConfig::default()).await;
        let mut client = RfbClient::connect(address, &Options::default())
            .await
            .expect("joins");
        client.send_raw(&garbage).await.expect("sent");
        client.until_closed().await.expect("dropped");
        eventually_is("the breach to be recorded", SOON, || {
            let events = desktop.events();
            if events.iter().any(|event| matches!(event, Event::Broke(_))) {
                Ok(())
            } else {
                Err(events)
            }
        })
        .await
        .expect("recorded");
    }
}

#[tokio::test]
async fn hextiles_and_copies_are_decoded() {
    // One tile: background red, one foreground rectangle green, then the same with two coloured ones.
    let red = 0xFF_00_00u32.to_le_bytes();
    let green = 0x00_FF_00u32.to_le_bytes();
    let blue = 0x00_00_FFu32.to_le_bytes();
    let mut script = hello(20, 16);
    let mut tiles = vec![2 | 4 | 8];
    tiles.extend(red);
    tiles.extend(green);
    tiles.extend([1, 0x12, 0x21]);
    tiles.extend([8 | 16, 1]);
    tiles.extend(blue);
    tiles.extend([0x00, 0x00]);
    script.extend(update([0, 0, 20, 16], rfb::HEXTILE, &tiles));
    script.extend(update([10, 10, 2, 2], rfb::COPY_RECT, &[0, 1, 0, 2]));
    let mut client = scripted(script).await.expect("joins");
    client.refresh().await.expect("hextile");
    assert_eq!(client.image().pixel(0, 0), 0xFF_00_00);
    assert_eq!(
        [1, 2, 3, 4].map(|x| client.image().pixel(x, 2)),
        [0x00_FF_00, 0x00_FF_00, 0x00_FF_00, 0xFF_00_00]
    );
    assert_eq!(
        [2, 3, 4].map(|y| client.image().pixel(1, y)),
        [0x00_FF_00, 0x00_FF_00, 0xFF_00_00]
    );
    assert_eq!(
        [16, 17].map(|x| client.image().pixel(x, 0)),
        [0x00_00_FF, 0xFF_00_00]
    );
    client.follow().await.expect("copy");
    assert_eq!(client.image().pixel(11, 11), 0x00_FF_00);
}

#[tokio::test]
async fn rectangles_beyond_the_screen_are_refused_before_anything_is_painted() {
    for (rect, encoding, data) in [
        ([19, 0, 2, 1], rfb::RAW, vec![0; 8]),
        ([0, 0, 2, 2], rfb::COPY_RECT, vec![0xFF, 0xFF, 0, 0]),
        ([0, 0, 2, 2], rfb::HEXTILE, vec![8, 1, 0x00, 0x20]),
        ([0, 0, 2, 2], 16, vec![]),
    ] {
        let mut script = hello(20, 16);
        script.extend(update(rect, encoding, &data));
        let mut client = scripted(script).await.expect("joins");
        let refused = client.refresh().await.expect_err("refused");
        assert!(
            matches!(refused, RfbError::Protocol(_)),
            "{rect:?} {encoding}: {refused}"
        );
    }
}

#[tokio::test]
async fn sizes_beyond_reason_are_refused_before_memory_is_taken() {
    let enormous = scripted(hello(u16::MAX, u16::MAX))
        .await
        .err()
        .expect("refused");
    assert!(matches!(enormous, RfbError::Protocol(_)), "{enormous}");
    let mut script = b"RFB 003.008\n\x00".to_vec();
    script.extend(u32::MAX.to_be_bytes());
    let talkative = scripted(script).await.err().expect("refused");
    assert!(matches!(talkative, RfbError::Protocol(_)), "{talkative}");
}
