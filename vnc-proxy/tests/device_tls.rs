//! The device's end of TLS as a byte stream: what goes in comes out whatever the carrier's slices, nothing piles up, and nothing that
//! was not authenticated is handed out.

mod lab;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use lab::{ByteByByte, DeviceTls, Identity, read_to_end, soon, tls_pair, tls_pair_over};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use umbra_vnc_proxy::{console_end, device_end};

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn many_records_arrive_whole_through_slices_of_one_byte() {
    let identity = Identity::modern();
    let (console, device) = duplex(64 * 1024);
    let (console, device) = tokio::join!(
        console_end::connect(console, identity.client_config(), soon()),
        device_end::accept_tls(ByteByByte(device), identity.server_config(), soon()),
    );
    let (mut console, mut device) = (console.expect("open"), device.expect("open"));
    let sent = pattern(50_000);
    let there = async {
        console.write_all(&sent).await.expect("sent");
        console.shutdown().await.expect("said");
        read_to_end(&mut console).await.expect("in order")
    };
    let here = async {
        let heard = read_to_end(&mut device).await.expect("in order");
        // Larger than what is sealed at a time.
        device.write_all(&pattern(150_000)).await.expect("sent");
        device.shutdown().await.expect("said");
        heard
    };
    let (back, heard) = tokio::join!(there, here);
    assert!(heard == sent);
    assert!(back == pattern(150_000));
}

#[tokio::test]
async fn a_reader_of_single_bytes_gets_every_byte_in_order() {
    let (mut console, mut device) = tls_pair().await;
    let sent = pattern(3000);
    let reading = async {
        let mut heard = Vec::new();
        while heard.len() < sent.len() {
            heard.push(device.read_u8().await.expect("a byte"));
        }
        heard
    };
    let (written, heard) = tokio::join!(console.write_all(&sent), reading);
    written.expect("sent");
    assert!(heard == sent);
}

#[tokio::test]
async fn a_change_of_keys_goes_unnoticed() {
    let (mut console, mut device) = tls_pair().await;
    for round in 0..3_u8 {
        console
            .get_mut()
            .1
            .refresh_traffic_keys()
            .expect("a request for other keys");
        console.write_all(&[round; 20]).await.expect("sent");
        console.flush().await.expect("sent");
        assert_eq!(lab::read::<20>(&mut device).await, [round; 20]);
        device.write_all(&[round; 30]).await.expect("sent");
        device.flush().await.expect("sent");
        assert_eq!(lab::read::<30>(&mut console).await, [round; 30]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_carrier_without_room_holds_the_writer_up() {
    let (_console, mut device) = tls_pair_over(1024).await;
    let mut taken = 0;
    while let Ok(count) = timeout(Duration::from_secs(1), device.write(&[0; 32 * 1024])).await {
        taken += count.expect("no failure");
        assert!(taken <= 128 * 1024, "{taken} bytes have gone nowhere");
    }
}

#[tokio::test]
async fn a_byte_that_was_changed_on_the_way_ends_the_connection_with_nothing_of_it_handed_out() {
    let (between_console, between) = duplex(64 * 1024);
    let (onward, device) = duplex(64 * 1024);
    let identity = Identity::modern();
    let (mut from_console, mut to_console) = tokio::io::split(between);
    let (mut from_device, mut to_device) = tokio::io::split(onward);
    let back =
        tokio::spawn(async move { tokio::io::copy(&mut from_device, &mut to_console).await });
    let forth = tokio::spawn(async move {
        let mut portion = vec![0; 64 * 1024];
        loop {
            let count = from_console.read(&mut portion).await?;
            if count == 0 {
                return std::io::Result::Ok(());
            }
            // The first record after the handshake that is as large as this carries data.
            if count > 5000 {
                portion[count - 100] ^= 1;
            }
            to_device.write_all(&portion[..count]).await?;
        }
    });
    let (console, device) = tokio::join!(
        console_end::connect(between_console, identity.client_config(), soon()),
        device_end::accept_tls(device, identity.server_config(), soon()),
    );
    let (mut console, mut device) = (console.expect("open"), device.expect("open"));
    console.write_all(&pattern(6000)).await.expect("sent");
    console.flush().await.expect("sent");
    let mut heard = vec![0; 6000];
    let failed = device.read(&mut heard).await.expect_err("it was changed");
    assert_eq!(failed.kind(), ErrorKind::InvalidData);
    assert!(heard.iter().all(|byte| *byte == 0));
    // And the console is told what is wrong.
    let told = read_to_end(&mut console).await.expect_err("an alert");
    let told = told.into_inner().expect("TLS's own error").to_string();
    assert!(told.contains("BadRecordMac"), "{told}");
    back.abort();
    forth.abort();
}

/// TLS's content type of handshake messages.
const HANDSHAKE: u8 = 22;

/// A console that seals its records itself, and so may say what no TLS library would.
struct ByHand {
    carrier: DuplexStream,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl ByHand {
    /// After an honest handshake.
    async fn connect() -> (Self, DeviceTls) {
        let identity = Identity::modern();
        let mut config = (*identity.client_config()).clone();
        config.enable_secret_extraction = true;
        let (console, device) = duplex(64 * 1024);
        let (console, device) = tokio::join!(
            console_end::connect(console, Arc::new(config), soon()),
            device_end::accept_tls(device, identity.server_config(), soon()),
        );
        let (carrier, connection) = console.expect("open").into_inner();
        let secrets = connection.dangerous_extract_secrets().expect("allowed");
        let (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
            panic!("another suite was chosen");
        };
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("32 bytes");
        let by_hand = Self {
            carrier,
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().expect("12 bytes"),
            sequence,
        };
        (by_hand, device.expect("open"))
    }

    /// One record (RFC 8446, section 5.2).
    async fn send(&mut self, kind: u8, content: &[u8]) {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        let mut record = [content, &[kind]].concat();
        let length = u16::try_from(record.len() + 16)
            .expect("short")
            .to_be_bytes();
        let header = [23, 3, 3, length[0], length[1]];
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header),
                &mut record,
            )
            .expect("sealed");
        self.carrier.write_all(&header).await.expect("sent");
        self.carrier.write_all(&record).await.expect("sent");
    }
}

#[tokio::test]
async fn a_stranger_that_says_two_things_at_once_of_which_the_first_is_wrong_is_told_so() {
    let identity = Identity::modern();
    let (mut stranger, device) = duplex(1024);
    let finished = [20, 0, 0, 0];
    let record = [&[HANDSHAKE, 3, 1, 0, 8][..], &finished, &finished].concat();
    stranger.write_all(&record).await.expect("sent");
    let accepted = device_end::accept_tls(device, identity.server_config(), soon()).await;
    assert!(accepted.is_err());
    let told = read_to_end(&mut stranger).await.expect("in order");
    // An alert: fatal, unexpected message.
    assert_eq!(told, [21, 3, 3, 0, 2, 2, 10]);
}

#[tokio::test]
async fn a_console_that_breaks_the_rules_with_more_to_say_is_done_with_and_nobody_else() {
    let (mut console, mut device) = ByHand::connect().await;
    let finished = [20, 0, 0, 0];
    console
        .send(HANDSHAKE, &[finished, finished].concat())
        .await;
    let error = device.read_u8().await.expect_err("no byte");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    // Whoever goes on all the same finds it closed.
    let error = device.read_u8().await.expect_err("still none");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let error = device.write_all(b"late").await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    device.shutdown().await.expect("the carrier closes");
}

#[tokio::test]
async fn half_a_handshake_message_keeps_nobody_from_writing() {
    let (mut console, mut device) = ByHand::connect().await;
    // A change of keys without its last byte.
    console.send(HANDSHAKE, &[24, 0, 0, 1]).await;
    let reading = timeout(Duration::from_millis(50), device.read_u8()).await;
    assert!(reading.is_err(), "{reading:?}");
    device.write_all(b"goes out").await.expect("written");
    device.flush().await.expect("written");
    let mut header = [0; 5];
    console.carrier.read_exact(&mut header).await.expect("came");
    assert_eq!(header, [23, 3, 3, 0, 8 + 1 + 16]);
    // The last byte comes, and from then on nothing is under the old keys.
    console.send(HANDSHAKE, &[0]).await;
    console.send(23, b"x").await;
    let error = device.read_u8().await.expect_err("the old keys");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}
