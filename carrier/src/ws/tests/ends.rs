//! How streams end, and who learns why.

use super::*;

fn farewell(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.as_bytes());
    masked(true, CLOSE, &payload)
}

#[tokio::test(start_paused = true)]
async fn code_1000_is_a_clean_end_and_every_other_code_an_error_that_tells_it() {
    let (_, result, sent) = serve(&farewell(1000, "bye")).await;
    result.unwrap();
    assert_eq!(sent[0].close_code(), 1000);
    for code in [
        1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999,
    ] {
        let (_, result, sent) = serve(&farewell(code, "why: because")).await;
        let error = result.expect_err("no clean end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        let closed = Closed::of(&error).unwrap();
        assert_eq!((closed.code, closed.by_us), (code, false));
        assert_eq!(
            (closed.code_word(), closed.sentence()),
            (Some("why"), "because")
        );
        assert_eq!(sent[0].close_code(), code);
    }
    let (_, result, _) = serve(&masked(true, CLOSE, b"")).await;
    let error = result.expect_err("no clean end");
    assert_eq!(Closed::of(&error).unwrap().code, 1005);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_farewell_is_told_as_such() {
    let whole = masked(true, BINARY, b"whole");
    for cut in [0, 1, 3, whole.len() - 1, whole.len()] {
        let (mut client, server) = duplex(ROOM);
        client.write_all(&whole[..cut]).await.unwrap();
        drop(client);
        let mut read = Vec::new();
        let mut stream = server_stream(server, Vec::new(), None);
        let error = stream
            .read_to_end(&mut read)
            .await
            .expect_err("it was cut off");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}: {error}");
        assert_eq!(read.len(), if cut == whole.len() { 5 } else { 0 });
    }
}

#[test]
fn a_reason_is_read_with_its_word_its_delay_and_its_sentence() {
    let seconds = Duration::from_secs;
    let cases = [
        (
            "shutting_down retry=17: The gateway restarts.",
            Some("shutting_down"),
            Some(seconds(17)),
            "The gateway restarts.",
        ),
        ("busy: Try later.", Some("busy"), None, "Try later."),
        ("busy retry=x: Try later.", Some("busy"), None, "Try later."),
        (
            "busy retry=-1: Try later.",
            Some("busy"),
            None,
            "Try later.",
        ),
        (
            "busy retry=99999999999999999999: Later.",
            Some("busy"),
            Some(seconds(86_400)),
            "Later.",
        ),
        ("busy a=1 retry=5:", Some("busy"), Some(seconds(5)), ""),
        (
            "The gateway: it restarts.",
            None,
            None,
            "The gateway: it restarts.",
        ),
        ("retry=5 busy: x", None, None, "retry=5 busy: x"),
        ("no colon retry=17", None, None, "no colon retry=17"),
        ("", None, None, ""),
    ];
    for (text, word, retry_after, sentence) in cases {
        let closed = Closed::read(1012, text);
        assert_eq!(closed.code_word(), word, "{text}");
        assert_eq!(closed.retry_after, retry_after, "{text}");
        assert_eq!(closed.sentence(), sentence, "{text}");
    }
    let hostile = Closed::read(1008, "policy: \u{1b}[2J\u{202e}gone\r\n");
    assert_eq!(
        hostile.sentence(),
        "\u{fffd}[2J\u{fffd}gone\u{fffd}\u{fffd}"
    );
    assert!(hostile.to_string().contains("1008"));
}

#[test]
fn a_reason_that_is_made_is_read_back_and_always_fits() {
    let made = reason(
        "shutting_down",
        Some(Duration::from_secs(17)),
        "The gateway restarts.",
    );
    assert_eq!(made, "shutting_down retry=17: The gateway restarts.");
    for length in 90..130 {
        let made = reason("busy", None, &"ü".repeat(length));
        assert!(made.len() <= 123);
        assert!(made.starts_with("busy: üü"));
    }
}

#[test]
fn it_is_found_below_layers_of_errors() {
    let inner = Closed::read(1013, "busy: Later.").error();
    let outer = io::Error::other(io::Error::other(inner));
    assert_eq!(Closed::of(&outer).map(|closed| closed.code), Some(1013));
    assert!(Closed::of(&io::Error::other("something else")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_closer_ends_both_ends_and_its_reason_reaches_the_peer() {
    let (mut client, mut server) = pair(ROOM);
    let closer = server.closer();
    let waiting = tokio::spawn(async move { server.read(&mut [0; 8]).await });
    tokio::task::yield_now().await;
    let text = reason(
        "shutting_down",
        Some(Duration::from_secs(17)),
        "The gateway restarts.",
    );
    closer.close_with(close::RESTART, &text);
    closer.close_with(close::POLICY, "too late");
    let error = client
        .read(&mut [0; 8])
        .await
        .expect_err("the stream is closed");
    let closed = Closed::of(&error).expect("it says why");
    assert_eq!((closed.code, closed.by_us), (close::RESTART, false));
    assert_eq!(closed.code_word(), Some("shutting_down"));
    assert_eq!(closed.retry_after, Some(Duration::from_secs(17)));
    let error = waiting.await.unwrap().expect_err("the stream is closed");
    let closed = Closed::of(&error).expect("it says why");
    assert_eq!((closed.code, closed.by_us), (close::RESTART, true));
}

#[tokio::test(start_paused = true)]
async fn a_closer_reaches_a_writer_whose_peer_reads_late() {
    let (mut client, mut server) = pair(500);
    let closer = server.closer();
    let writing = tokio::spawn(async move { server.write_all(&text(100_000)).await });
    tokio::task::yield_now().await;
    closer.close_with(close::AGAIN, "busy: Later.");
    let mut read = Vec::new();
    let error = client
        .read_to_end(&mut read)
        .await
        .expect_err("the stream is closed");
    assert_eq!(
        Closed::of(&error).map(|closed| closed.code),
        Some(close::AGAIN)
    );
    assert_eq!(
        read,
        text(100_000)[..read.len()],
        "whole frames, or nothing"
    );
    let error = writing.await.unwrap().expect_err("the stream is closed");
    assert!(Closed::of(&error).unwrap().by_us);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_nothing_holds_nobody_up() {
    let begin = tokio::time::Instant::now();
    let (_silent, server) = duplex(ROOM);
    let mut server = server_stream(server, Vec::new(), None);
    server.closer().close_with(close::POLICY, "out");
    server.read(&mut [0; 8]).await.expect_err("closed");

    let (_silent, server) = duplex(ROOM);
    server_stream(server, Vec::new(), None)
        .shutdown()
        .await
        .unwrap();

    // Not even its receive window opens.
    let (_full, server) = duplex(1);
    let mut server = server_stream(server, Vec::new(), None);
    server.closer().close_with(close::POLICY, "out");
    server.write(b"x").await.expect_err("closed");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_stops_sending_is_left_after_a_close() {
    let source = Endless::new(masked(true, BINARY, &text(1000)), true);
    let given = Arc::clone(&source.given);
    let mut stream = server_stream(source, Vec::new(), None);
    stream.closer().close_with(close::POLICY, "out");
    stream.read(&mut [0; 8]).await.expect_err("closed");
    assert!(*given.lock().unwrap() < 2 * 1024 * 1024);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_is_read_after_a_shutdown_too() {
    let (mut client, mut server) = pair(ROOM);
    client.write_all(&text(200_000)).await.unwrap();
    client.flush().await.unwrap();
    let mut all = Vec::new();
    let (mut read, mut write) = split(&mut server);
    let reading = async { read.read_to_end(&mut all).await };
    let mut nothing = [0; 8];
    let (shut, got, _) = tokio::join!(write.shutdown(), reading, client.read(&mut nothing));
    shut.unwrap();
    got.unwrap();
    assert_eq!(all, text(200_000));
}

#[tokio::test(start_paused = true)]
async fn a_last_word_after_the_peers_farewell_is_no_error_but_more_is() {
    let (mut client, mut server) = pair(ROOM);
    let mut nothing = [0; 8];
    let (shut, read) = tokio::join!(client.shutdown(), server.read(&mut nothing));
    shut.unwrap();
    assert_eq!(read.unwrap(), 0);
    server.write_all(b"goodbye").await.unwrap();
    server.flush().await.unwrap();
    let error = server
        .write_all(&text(40_000))
        .await
        .expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    server.shutdown().await.unwrap();
    let error = client
        .write(b"x")
        .await
        .expect_err("this side has said goodbye");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn a_writer_learns_the_peers_last_word_and_not_only_that_the_pipe_is_broken() {
    let (mut peer, server) = duplex(ROOM);
    peer.write_all(&farewell(1012, "shutting_down retry=3: Restart."))
        .await
        .unwrap();
    drop(peer);
    let mut stream = server_stream(server, Vec::new(), None);
    let error = stream.write_all(b"x").await.expect_err("nobody is there");
    let closed = Closed::of(&error).unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(closed.retry_after, Some(Duration::from_secs(3)));
}
