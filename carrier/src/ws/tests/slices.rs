//! Bytes come out as they went in, however they are cut on the way.

use std::task::Waker;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_large_text_passes_both_ways_at_once_in_two_tasks_each_and_ends_cleanly() {
    // Less room than a frame: every side has to wait for the other one all the time.
    let (client, server) = pair(1000);
    let both = async {
        tokio::join!(
            exchange(client, text(300_000)),
            exchange(server, text(300_000))
        )
    };
    let both = timeout(LONG, both).await.expect("nobody waits forever");
    let ((at_client, mut client), (at_server, mut server)) = both;
    assert_eq!(at_client, text(300_000));
    assert_eq!(at_server, text(300_000));
    let mut rest = Vec::new();
    let (shut, read) = tokio::join!(client.shutdown(), server.read_to_end(&mut rest));
    shut.unwrap();
    assert_eq!(read.unwrap(), 0);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_comes_in_binary_frames_of_at_most_16_kib_which_only_clients_mask() {
    for role in [Role::Client, Role::Server] {
        let (near, mut far) = duplex(ROOM);
        let mut stream = ByteStream::new(near, Vec::new(), role, None);
        stream.write_all(&text(100_000)).await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        let frames = parse(&sent);
        assert!(
            frames
                .iter()
                .all(|frame| frame.first == 0x82 && frame.payload.len() <= MAX_SENT)
        );
        assert!(
            frames
                .iter()
                .all(|frame| frame.masked == (role == Role::Client))
        );
        let payload: Vec<u8> = frames.into_iter().flat_map(|frame| frame.payload).collect();
        assert_eq!(payload, text(100_000));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_writer_left_behind_goes_out_while_somebody_reads() {
    let (mut client, mut server) = pair(500);
    server.write_all(&text(MAX_SENT)).await.unwrap();
    let reading = tokio::spawn(async move { server.read(&mut [0; 8]).await });
    let mut read = vec![0; MAX_SENT];
    let all = timeout(LONG, client.read_exact(&mut read)).await;
    all.expect("it comes without a flush").unwrap();
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn bytes_that_were_read_with_the_handshake_come_first() {
    let (mut client, server) = duplex(ROOM);
    let whole = masked(true, BINARY, b"early and late");
    let (early, late) = whole.split_at(9);
    client.write_all(late).await.unwrap();
    let mut stream = server_stream(server, early.to_vec(), None);
    let mut read = [0; 14];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"early and late");
}

/// A stream that gives its bytes in pieces of these sizes, with a pause before each.
struct Pieces {
    bytes: Vec<u8>,
    given: usize,
    sizes: Vec<usize>,
    turn: usize,
    pause: bool,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pause = !self.pause;
        if self.pause {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = self.sizes[self.turn % self.sizes.len()];
        self.turn += 1;
        let end = self
            .bytes
            .len()
            .min(self.given + size.min(buffer.remaining()));
        buffer.put_slice(&self.bytes[self.given..end]);
        self.given = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pause = !self.pause;
        if self.pause {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(bytes.len().min(self.sizes[0])))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, Clone)]
enum Item {
    /// A message in fragments, with pings between them.
    Message(Vec<Vec<u8>>, bool),
    Pong(Vec<u8>),
}

fn item() -> impl Strategy<Value = Item> {
    let part = || vec(any::<u8>(), 0..300);
    prop_oneof![
        4 => (vec(part(), 1..5), any::<bool>()).prop_map(|(parts, pings)| Item::Message(parts, pings)),
        1 => vec(any::<u8>(), 0..126).prop_map(Item::Pong),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_frames_in_any_pieces_are_the_bytes_in_their_order(
        items in vec(item(), 0..8), sizes in vec(1_usize..40, 1..6), window in 1_usize..100
    ) {
        let mut wire = Vec::new();
        let mut expected: Vec<u8> = Vec::new();
        for item in items {
            match item {
                Item::Message(parts, pings) => {
                    let last = parts.len() - 1;
                    for (index, part) in parts.iter().enumerate() {
                        let opcode = if index == 0 { BINARY } else { CONTINUE };
                        wire.extend(masked(index == last, opcode, part));
                        if pings {
                            wire.extend(masked(true, PING, b"still there?"));
                        }
                        expected.extend(part);
                    }
                }
                Item::Pong(payload) => wire.extend(masked(true, PONG, &payload)),
            }
        }
        wire.extend(masked(true, CLOSE, &1000_u16.to_be_bytes()));
        let pieces = Pieces { bytes: wire, given: 0, sizes, turn: 0, pause: false };
        let mut stream = server_stream(pieces, Vec::new(), None);
        let mut context = Context::from_waker(Waker::noop());
        let mut read: Vec<u8> = Vec::new();
        let mut patience = 100_000;
        loop {
            let mut bytes = vec![0; window];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut stream).poll_read(&mut context, &mut buffer) {
                Poll::Ready(result) => {
                    result.unwrap();
                    if buffer.filled().is_empty() {
                        break;
                    }
                    read.extend(buffer.filled());
                }
                Poll::Pending => {
                    patience -= 1;
                    prop_assert!(patience > 0, "the stream stands still");
                }
            }
        }
        prop_assert_eq!(read, expected);
    }
}
