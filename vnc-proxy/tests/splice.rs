//! The promise: bytes arrive complete and in order both ways, whatever their slices; who closes, stalls or is stopped is told apart.
#![allow(clippy::unwrap_used)]

mod lab;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lab::{ByteByByte, never, read, read_to_end};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio::time::Instant;
use umbra_vnc_proxy::inlet::Inlet;
use umbra_vnc_proxy::splice::{BUFFER_LEN, Limits, Side, SpliceEnd, Spliced, splice};
use umbra_vnc_proxy::{EndReason, StopCause, console_end};

const SECOND: Duration = Duration::from_secs(1);

async fn spliced<C, D>(mut console: C, mut device: D, limits: Limits) -> Spliced
where
    C: AsyncRead + AsyncWrite + Unpin,
    D: AsyncRead + AsyncWrite + Unpin,
{
    splice(
        &mut console,
        &mut device,
        Inlet::transparent(),
        &[],
        limits,
        never(),
    )
    .await
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index * 31 + seed + index / 251) as u8)
        .collect()
}

#[tokio::test]
async fn both_directions_arrive_complete_and_are_counted() {
    let (viewer, console) = duplex(1000);
    let (server, device) = duplex(3000);
    let (up, down) = (pattern(700_000, 1), pattern(2_000_000, 2));
    let (mut viewer_in, mut viewer_out) = tokio::io::split(viewer);
    let (mut server_in, mut server_out) = tokio::io::split(server);
    let (end, ..) = tokio::join!(
        spliced(console, device, Limits::default()),
        async {
            viewer_out.write_all(&up).await.expect("sent");
            viewer_out.shutdown().await.expect("closed");
        },
        async {
            assert!(
                read_to_end(&mut viewer_in).await.expect("read") == down,
                "the pixels"
            )
        },
        async {
            assert!(
                read_to_end(&mut server_in).await.expect("read") == up,
                "the input"
            )
        },
        async {
            server_out.write_all(&down).await.expect("sent");
            server_out.shutdown().await.expect("closed");
        },
    );
    assert!(matches!(end.end, SpliceEnd::Closed(_)), "{end:?}");
    assert_eq!(
        (end.to_device, end.to_console),
        (up.len() as u64, down.len() as u64)
    );
}

#[tokio::test]
async fn slices_of_one_byte_change_nothing() {
    let (mut viewer, console) = duplex(1);
    let (mut server, device) = duplex(1);
    let session = spliced(ByteByByte(console), ByteByByte(device), Limits::default());
    let talk = async {
        // Together: three bytes of room between them are not enough for one after the other.
        let (_, heard) = tokio::join!(
            viewer.write_all(b"from the viewer"),
            read::<15>(&mut server)
        );
        assert_eq!(&heard, b"from the viewer");
        let (_, heard) = tokio::join!(
            server.write_all(b"from the server"),
            read::<15>(&mut viewer)
        );
        assert_eq!(&heard, b"from the server");
        viewer.shutdown().await.expect("closed");
        assert_eq!(read_to_end(&mut server).await.expect("closed"), b"");
        drop(server);
    };
    let (end, ()) = tokio::join!(session, talk);
    assert!(
        matches!(end.end, SpliceEnd::Closed(Side::Console)),
        "{end:?}"
    );
    assert_eq!((end.to_device, end.to_console), (15, 15));
}

#[tokio::test]
async fn a_half_close_is_passed_on_and_the_other_way_stays_open() {
    let (mut viewer, console) = duplex(64);
    let (mut server, device) = duplex(64);
    let talk = async {
        viewer.write_all(b"last words").await.expect("sent");
        viewer.shutdown().await.expect("half closed");
        assert_eq!(
            read_to_end(&mut server).await.expect("closed"),
            b"last words"
        );
        server.write_all(b"still here").await.expect("sent");
        assert_eq!(&read::<10>(&mut viewer).await, b"still here");
        drop(server);
        assert_eq!(read_to_end(&mut viewer).await.expect("closed"), b"");
    };
    let (end, ()) = tokio::join!(spliced(console, device, Limits::default()), talk);
    assert!(
        matches!(end.end, SpliceEnd::Closed(Side::Console)),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_side_that_stays_mute_after_the_other_closed_does_not_hold_the_session() {
    let (viewer, console) = duplex(64);
    let (_server, device) = duplex(64);
    drop(viewer);
    let started = Instant::now();
    let end = spliced(console, device, Limits::default()).await;
    assert!(
        matches!(end.end, SpliceEnd::Closed(Side::Console)),
        "{end:?}"
    );
    let took = started.elapsed();
    assert!(
        took >= Limits::default().half_open && took < 10 * SECOND,
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_idle_limit_counts_from_the_last_byte_in_either_direction() {
    let limits = Limits {
        idle: Some(60 * SECOND),
        ..Limits::default()
    };
    let (mut viewer, console) = duplex(64);
    let (mut server, device) = duplex(64);
    let started = Instant::now();
    let talk = async {
        for _ in 0..5 {
            tokio::time::sleep(50 * SECOND).await;
            server.write_all(b"x").await.expect("sent");
            tokio::time::sleep(50 * SECOND).await;
            viewer.write_all(b"y").await.expect("sent");
        }
        let mut rest = Vec::new();
        viewer.read_to_end(&mut rest).await.expect("closed");
        rest
    };
    let (end, rest) = tokio::join!(spliced(console, device, limits), talk);
    assert!(matches!(end.end, SpliceEnd::IdleLimit), "{end:?}");
    assert_eq!(rest, b"xxxxx");
    let took = started.elapsed();
    assert!(took >= 560 * SECOND && took < 570 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_total_limit_ends_even_a_busy_session() {
    let limits = Limits {
        idle: Some(60 * SECOND),
        total: Some(300 * SECOND),
        ..Limits::default()
    };
    let (mut viewer, console) = duplex(64);
    let (_server, device) = duplex(1 << 20);
    let busy = async {
        loop {
            tokio::time::sleep(SECOND).await;
            if viewer.write_all(b"y").await.is_err() {
                return;
            }
        }
    };
    let started = Instant::now();
    let (end, ()) = tokio::join!(spliced(console, device, limits), busy);
    assert!(matches!(end.end, SpliceEnd::TotalLimit), "{end:?}");
    let took = started.elapsed();
    assert!(took >= 300 * SECOND && took < 310 * SECOND, "{took:?}");
}

#[tokio::test]
async fn whoever_stops_it_is_named_and_both_sides_are_closed() {
    let (mut viewer, mut console) = duplex(64);
    let (mut server, mut device) = duplex(64);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let session = async {
        let stop = async { stopped.await.expect("a cause") };
        splice(
            &mut console,
            &mut device,
            Inlet::transparent(),
            b"hello",
            Limits::default(),
            stop,
        )
        .await
    };
    let talk = async {
        assert_eq!(&read::<5>(&mut viewer).await, b"hello");
        stop.send(StopCause::User).expect("listening");
        assert_eq!(read_to_end(&mut viewer).await.expect("closed"), b"");
        assert_eq!(read_to_end(&mut server).await.expect("closed"), b"");
    };
    let (end, ()) = tokio::join!(session, talk);
    assert!(
        matches!(end.end, SpliceEnd::Stopped(StopCause::User)),
        "{end:?}"
    );
    assert_eq!(end.to_console, 5);
}

#[tokio::test(start_paused = true)]
async fn a_console_that_does_not_read_stops_the_sender_instead_of_filling_memory() {
    let (_viewer, console) = duplex(1000);
    let (mut server, device) = duplex(1000);
    let mut sent = 0;
    let flood = async {
        loop {
            sent += server.write(&[0; 1000]).await.expect("open");
        }
    };
    tokio::select! {
        end = spliced(console, device, Limits::default()) => panic!("{end:?}"),
        () = flood => unreachable!("never ends"),
        () = tokio::time::sleep(600 * SECOND) => {}
    }
    assert!(sent >= 2000, "{sent}");
    assert!(sent <= 2000 + 2 * BUFFER_LEN, "{sent}");
}

/// A stream that breaks instead of delivering.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_broken_connection_is_told_from_a_closed_one_and_the_other_side_is_closed() {
    let (mut server, device) = duplex(64);
    let end = spliced(Broken, device, Limits::default()).await;
    assert!(
        matches!(end.end, SpliceEnd::Lost(Side::Console, _)),
        "{end:?}"
    );
    assert_eq!(read_to_end(&mut server).await.expect("closed"), b"");
    let (mut viewer, console) = duplex(64);
    let end = spliced(console, Broken, Limits::default()).await;
    assert!(
        matches!(end.end, SpliceEnd::Lost(Side::Device, _)),
        "{end:?}"
    );
    assert_eq!(read_to_end(&mut viewer).await.expect("closed"), b"");
}

#[tokio::test]
async fn an_orderly_end_is_said_inside_tls_and_a_cut_is_not_taken_for_one() {
    // In order: the console's end reads an end, not an error.
    let (console, device) = lab::tls_pair().await;
    let (viewer, viewer_here) = duplex(64);
    let (server, vnc) = duplex(64);
    drop(server);
    drop(viewer);
    let (outcome, end) = tokio::join!(
        console_end::bridge(viewer_here, console, Limits::default(), never()),
        spliced(device, vnc, Limits::default()),
    );
    assert!(
        !matches!(outcome.reason, EndReason::PeerVanished),
        "{outcome:?}"
    );
    assert!(matches!(end.end, SpliceEnd::Closed(_)), "{end:?}");

    // Cut: the device's process is gone without a word.
    let (console, device) = lab::tls_pair().await;
    let (_viewer, viewer_here) = duplex(64);
    drop(device);
    let outcome = console_end::bridge(viewer_here, console, Limits::default(), never()).await;
    assert!(
        matches!(outcome.reason, EndReason::PeerVanished),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_write_waiting_inside_tls_is_flushed_without_further_traffic() {
    // So little room below TLS that most of the frame has to wait inside it.
    let (mut console, device) = lab::tls_pair_over(64).await;
    let (mut server, vnc) = duplex(10_000);
    server.write_all(&[7; 5000]).await.expect("sent");
    tokio::select! {
        biased;
        end = spliced(device, vnc, Limits::default()) => panic!("{end:?}"),
        frame = read::<5000>(&mut console) => assert_eq!(frame, [7; 5000]),
    }
}
