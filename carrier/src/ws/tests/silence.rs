//! Whether the other side is still there.

use tokio::time::Instant;

use super::*;

const KEEPALIVE: Keepalive = Keepalive {
    interval: Duration::from_secs(20),
    timeout: Duration::from_secs(25),
};

#[tokio::test(start_paused = true)]
async fn silence_is_asked_once_and_then_given_up() {
    let begin = Instant::now();
    let (mut silent, server) = duplex(ROOM);
    let mut stream = server_stream(server, Vec::new(), Some(KEEPALIVE));
    let error = timeout(LONG, stream.read(&mut [0; 8])).await.unwrap();
    let error = error.expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begin.elapsed().as_secs(), 45);
    drop(stream);
    let mut sent = Vec::new();
    silent.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent, [0x89, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_answers_pings_is_alive_however_long_nothing_is_said() {
    let (client, server) = duplex(ROOM);
    let mut client = ByteStream::new(client, Vec::new(), Role::Client, Some(KEEPALIVE));
    let mut server = server_stream(server, Vec::new(), None);
    let answering = tokio::spawn(async move {
        let _ = server.read(&mut [0; 8]).await;
    });
    let day = Duration::from_secs(24 * 60 * 60);
    let read = timeout(day, client.read(&mut [0; 8])).await;
    assert!(read.is_err(), "{read:?}");
    answering.abort();
}

#[tokio::test(start_paused = true)]
async fn data_is_a_sign_of_life_and_saves_the_ping() {
    let (mut client, server) = duplex(ROOM);
    let mut stream = server_stream(server, Vec::new(), Some(KEEPALIVE));
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        let result = stream.read_to_end(&mut all).await;
        (all, result.map(|_| ()))
    });
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(19)).await;
        client.write_all(&masked(true, BINARY, b"x")).await.unwrap();
    }
    client
        .write_all(&masked(true, CLOSE, &1000_u16.to_be_bytes()))
        .await
        .unwrap();
    let (all, result) = reading.await.unwrap();
    result.unwrap();
    assert_eq!(all.len(), 100);
    let mut sent = Vec::new();
    client.read_to_end(&mut sent).await.unwrap();
    assert!(parse(&sent).iter().all(|frame| frame.opcode() != PING));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_busy_elsewhere_blames_nobody() {
    let (mut client, server) = duplex(ROOM);
    let mut stream = server_stream(server, Vec::new(), Some(KEEPALIVE));
    // One look, so that the clocks run; then nobody reads for an hour.
    let look = timeout(Duration::from_secs(21), stream.read(&mut [0; 8])).await;
    assert!(look.is_err());
    client.write_all(&masked(true, PONG, b"")).await.unwrap();
    tokio::time::sleep(LONG).await;
    let look = timeout(Duration::from_secs(24), stream.read(&mut [0; 8])).await;
    assert!(look.is_err(), "{look:?}");
}

#[tokio::test(start_paused = true)]
async fn the_farewell_keeps_its_time_beside_the_keep_alive() {
    let begin = Instant::now();
    let (_silent, server) = duplex(ROOM);
    let stream = server_stream(server, Vec::new(), Some(KEEPALIVE));
    let (mut read, mut write) = split(stream);
    let reading = tokio::spawn(async move { read.read(&mut [0; 8]).await });
    tokio::task::yield_now().await;
    write.shutdown().await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 2);
    reading.abort();
}
