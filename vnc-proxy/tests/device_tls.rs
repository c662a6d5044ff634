//! The device's end of TLS as a byte stream: what goes in comes out whatever the carrier's slices, nothing piles up, and nothing that
//! was not authenticated is handed out.

mod lab;

use std::io::ErrorKind;
use std::time::Duration;

use lab::{ByteByByte, Identity, read_to_end, soon, tls_pair, tls_pair_over};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
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
