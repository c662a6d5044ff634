//! Frames that aren't taken: each ends the stream with its own code, is told to the peer, and costs no memory.

use super::*;

/// The stream ends with this code on both sides.
async fn ends_with(bytes: &[u8], code: u16) {
    let shown = &bytes[..bytes.len().min(16)];
    let (_, result, sent) = serve(bytes).await;
    let error = result.expect_err("this isn't taken");
    let closed = Closed::of(&error).unwrap_or_else(|| panic!("{shown:?}: {error}"));
    assert_eq!((closed.code, closed.by_us), (code, true), "{shown:?}");
    let last = sent.last().unwrap();
    assert_eq!(
        (last.opcode(), last.close_code()),
        (CLOSE, code),
        "{shown:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn text_is_refused_with_1003_also_where_it_is_no_text() {
    ends_with(&masked(true, TEXT, b"hello"), close::UNSUPPORTED).await;
    ends_with(&masked(true, TEXT, b""), close::UNSUPPORTED).await;
    ends_with(&masked(true, TEXT, &[0xff, 0xfe]), close::UNSUPPORTED).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_64_kib_passes_and_one_byte_more_is_refused_with_1009() {
    let bytes = [
        masked(true, BINARY, &text(MAX_MESSAGE)),
        masked(true, CLOSE, &1000_u16.to_be_bytes()),
    ]
    .concat();
    let (read, result, _) = serve(&bytes).await;
    result.unwrap();
    assert_eq!(read, text(MAX_MESSAGE));
    ends_with(
        &masked(true, BINARY, &text(MAX_MESSAGE + 1)),
        close::TOO_BIG,
    )
    .await;
    let fragments = [
        masked(false, BINARY, &text(MAX_MESSAGE)),
        masked(true, CONTINUE, b"x"),
    ]
    .concat();
    ends_with(&fragments, close::TOO_BIG).await;
}

#[tokio::test(start_paused = true)]
async fn a_length_that_is_only_claimed_is_refused_at_once() {
    for length in [MAX_MESSAGE as u64 + 1, 1 << 32, u64::MAX >> 1] {
        // Nothing of the payload was sent: only who believes the length would wait for it.
        let mut bytes = header(true, BINARY, length, true);
        bytes.extend([1, 2, 3, 4]);
        ends_with(&bytes, close::TOO_BIG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn broken_rules_are_refused_with_1002() {
    let long = text(126);
    let cases = [
        // A client has to mask, and may set no reserved bit or opcode.
        frame(true, BINARY, b"x", None),
        frame(true, BINARY | 0x40, b"x", Some([1, 2, 3, 4])),
        masked(true, 3, b"x"),
        masked(true, 11, b"x"),
        // Control frames are whole and short.
        masked(false, PING, b"x"),
        masked(true, PING, &long),
        masked(true, PONG, &long),
        masked(true, CLOSE, &long),
        masked(true, CLOSE, b"x"),
        // Fragments have a beginning and an end.
        masked(true, CONTINUE, b"x"),
        [masked(false, BINARY, b"x"), masked(true, BINARY, b"x")].concat(),
    ];
    for bytes in cases {
        ends_with(&bytes, close::PROTOCOL).await;
    }
    let (near, mut far) = duplex(ROOM);
    far.write_all(&masked(true, BINARY, b"x")).await.unwrap();
    let mut client = ByteStream::new(near, Vec::new(), Role::Client, None);
    let error = client
        .read(&mut [0; 8])
        .await
        .expect_err("a server doesn't mask");
    assert_eq!(Closed::of(&error).unwrap().code, close::PROTOCOL);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_bad_frame_is_still_read() {
    let bytes = [masked(true, BINARY, b"good"), masked(true, TEXT, b"bad")].concat();
    let (read, result, _) = serve(&bytes).await;
    assert_eq!(read, b"good");
    result.expect_err("text isn't taken");
}

/// Ends a stream from somebody who never stops.
async fn endless(pattern: Vec<u8>, first: &[u8], takes: bool) -> (Closed, usize, Vec<Frame>) {
    let source = Endless::new(pattern, takes);
    let given = Arc::clone(&source.given);
    let mut stream = server_stream(source, first.to_vec(), None);
    let mut read = vec![0; 1024];
    let error = loop {
        match timeout(LONG, stream.read(&mut read))
            .await
            .expect("the stream ends")
        {
            Ok(0) => panic!("no clean end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let sent = stream.get_ref().taken.clone().unwrap_or_default();
    let given = *given.lock().unwrap();
    (Closed::of(&error).unwrap().clone(), given, parse(&sent))
}

#[tokio::test(start_paused = true)]
async fn fragments_without_end_are_given_up_after_a_bounded_number_of_bytes() {
    let empty = masked(false, CONTINUE, b"");
    let (closed, given, sent) = endless(empty, &masked(false, BINARY, b""), true).await;
    assert_eq!(closed.code, close::TOO_BIG);
    // What is thrown away after the Close is bounded too.
    assert!(given < 2 * 1024 * 1024, "{given}");
    assert_eq!(sent.last().unwrap().close_code(), close::TOO_BIG);
}

#[tokio::test(start_paused = true)]
async fn pings_between_fragments_do_not_make_an_endless_message_a_new_one() {
    let mut pattern = masked(false, CONTINUE, b"").repeat(20_000);
    pattern.extend(masked(true, PING, b""));
    let (closed, _, _) = endless(pattern, &masked(false, BINARY, b""), true).await;
    assert_eq!(closed.code, close::TOO_BIG);
}

#[tokio::test(start_paused = true)]
async fn floods_of_frames_without_data_are_refused_with_1008() {
    for opcode in [PING, PONG, BINARY] {
        let (closed, given, sent) = endless(masked(true, opcode, b""), b"", true).await;
        assert_eq!(closed.code, close::POLICY, "{opcode}");
        assert!(given < 2 * 1024 * 1024, "{given}");
        assert_eq!(sent.last().unwrap().close_code(), close::POLICY);
        let pongs = sent.iter().filter(|frame| frame.opcode() == PONG).count();
        assert!(pongs <= 65, "{pongs}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_somebody_who_takes_no_answer_ends_as_well() {
    let (closed, given, _) = endless(masked(true, PING, &text(125)), b"", false).await;
    assert_eq!(closed.code, close::POLICY);
    assert!(given < 1024 * 1024, "{given}");
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_125_bytes_is_answered_with_the_same_bytes() {
    let bytes = [
        masked(true, PING, &text(125)),
        masked(true, BINARY, b"x"),
        masked(true, CLOSE, &1000_u16.to_be_bytes()),
    ]
    .concat();
    let (read, result, sent) = serve(&bytes).await;
    result.unwrap();
    assert_eq!(read, b"x");
    assert_eq!((sent[0].opcode(), &sent[0].payload), (PONG, &text(125)));
    assert_eq!(sent[1].opcode(), CLOSE);
}

#[tokio::test(start_paused = true)]
async fn pings_at_a_patient_pace_are_answered_for_ever() {
    let (mut client, server) = duplex(ROOM);
    let mut stream = server_stream(server, Vec::new(), None);
    let reading = tokio::spawn(async move { stream.read(&mut [0; 8]).await });
    for _ in 0..1000 {
        client.write_all(&masked(true, PING, b"")).await.unwrap();
        let mut pong = [0; 2];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x8a, 0]);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    client
        .write_all(&masked(true, BINARY, b"done"))
        .await
        .unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), 4);
}
