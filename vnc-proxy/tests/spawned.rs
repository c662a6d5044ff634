//! The promise: a VNC server started for one session gets exactly the environment and arguments that it is given, and is gone when
//! the session is.
#![allow(clippy::unwrap_used)]

mod lab;

use std::path::Path;
use std::time::Duration;

use lab::{GREETING, never, opened_pair, read, read_to_end, soon};
use tokio::io::AsyncWriteExt;
use umbra_vnc_proxy::device_end::{SessionOptions, connect_upstream, serve};
use umbra_vnc_proxy::upstream::{Connected, Upstream, UpstreamError};
use umbra_vnc_proxy::{EndReason, StopCause};

/// Stands in for a VNC server: only tests may use a shell.
fn shell(script: &str, env: &[(&str, &str)]) -> Upstream {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Upstream::spawn("/bin/sh", vec!["-c".to_owned(), script.to_owned()], env)
        .expect("an absolute path")
}

async fn connected(upstream: &Upstream) -> Connected {
    connect_upstream(upstream, &SessionOptions::default(), soon())
        .await
        .expect("connected")
}

fn is_running(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

#[tokio::test]
async fn the_program_talks_through_its_standard_input_and_output() {
    let upstream = connected(&shell(
        r"printf 'RFB 003.008\n\1\1'; head -c 12 >&2; exec cat",
        &[],
    ))
    .await;
    let (mut console, device) = opened_pair().await;
    let looking = async {
        assert_eq!(&read::<12>(&mut console).await, GREETING);
        console.write_all(b"RFB 003.008\nback").await.expect("sent");
        console.flush().await.expect("sent");
        assert_eq!(&read::<6>(&mut console).await, b"\x01\x01back");
        console.shutdown().await.expect("closed");
    };
    let (outcome, ()) = tokio::join!(
        serve(device, upstream, SessionOptions::default(), never()),
        looking
    );
    assert!(
        matches!(outcome.reason, EndReason::ViewerClosed),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn the_program_gets_only_the_environment_that_it_is_given() {
    let upstream = connected(&shell(
        r"printf 'RFB 003.008\n\1\1'; head -c 13 >&2; exec env",
        &[("DISPLAY", ":0; $(id)")],
    ))
    .await;
    let (mut console, device) = opened_pair().await;
    let looking = async {
        read::<12>(&mut console).await;
        console.write_all(b"RFB 003.008\n\x01").await.expect("sent");
        console.flush().await.expect("sent");
        read::<2>(&mut console).await;
        let said = read_to_end(&mut console).await.expect("closed in order");
        console.shutdown().await.expect("closed");
        String::from_utf8(said).expect("text")
    };
    let (outcome, said) = tokio::join!(
        serve(device, upstream, SessionOptions::default(), never()),
        looking
    );
    assert!(
        matches!(outcome.reason, EndReason::VncServerClosed),
        "{outcome:?}"
    );
    // The shell adds these two itself.
    let mut names: Vec<_> = said
        .lines()
        .filter(|line| !line.starts_with("PWD=") && !line.starts_with("_="))
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["DISPLAY=:0; $(id)", "PATH=/usr/local/bin:/usr/bin:/bin"]
    );
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_quoted() {
    let upstream = shell("echo 'Cannot open display' >&2; exit 1", &[]);
    let ended = connect_upstream(&upstream, &SessionOptions::default(), soon()).await;
    match ended {
        Err(UpstreamError::Ended(said)) => assert_eq!(said, "Cannot open display"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_talkative_program_neither_blocks_nor_fills_memory() {
    let upstream = shell(
        "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo ' the end' >&2; exit 1",
        &[],
    );
    let ended = connect_upstream(&upstream, &SessionOptions::default(), soon()).await;
    match ended {
        Err(UpstreamError::Ended(said)) => {
            assert!(said.ends_with("xx the end"), "{said}");
            assert!(said.len() <= 300, "{}", said.len());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_program_that_ignores_the_end_is_killed_and_reaped() {
    let upstream = connected(&shell(
        r#"trap "" TERM HUP; printf 'RFB 003.008\n\1\1%08d' $$; exec sleep 1000"#,
        &[],
    ))
    .await;
    let (mut console, device) = opened_pair().await;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let looking = async {
        read::<12>(&mut console).await;
        console.write_all(GREETING).await.expect("sent");
        console.flush().await.expect("sent");
        read::<2>(&mut console).await;
        let pid = String::from_utf8(read::<8>(&mut console).await.to_vec()).expect("digits");
        let pid = pid.trim_start_matches('0').to_owned();
        assert!(is_running(&pid));
        stop.send(StopCause::Administrator).expect("listening");
        pid
    };
    let stop = async { stopped.await.expect("a cause") };
    let (outcome, pid) = tokio::join!(
        serve(device, upstream, SessionOptions::default(), stop),
        looking
    );
    assert!(
        matches!(outcome.reason, EndReason::Stopped(StopCause::Administrator)),
        "{outcome:?}"
    );
    assert!(!is_running(&pid), "killed, and no zombie either");
}

#[tokio::test]
async fn a_program_whose_session_never_came_is_ended_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let script = format!(
        r"echo $$ > {}; printf 'RFB 003.008\n\1\1'; exec cat",
        file.display()
    );
    let upstream = connected(&shell(&script, &[])).await;
    let pid = std::fs::read_to_string(&file)
        .expect("a process")
        .trim()
        .to_owned();
    assert!(is_running(&pid));
    upstream.close().await;
    assert!(!is_running(&pid));

    // Mute: the deadline ends it, and it is killed and reaped without anybody waiting for it.
    std::fs::remove_file(&file).expect("removed");
    let script = format!("echo $$ > {}; exec sleep 1000", file.display());
    let early = tokio::time::Instant::now() + Duration::from_secs(2);
    let timed_out = connect_upstream(&shell(&script, &[]), &SessionOptions::default(), early).await;
    assert!(
        matches!(timed_out, Err(UpstreamError::TimedOut)),
        "{timed_out:?}"
    );
    let pid = std::fs::read_to_string(&file)
        .expect("a process")
        .trim()
        .to_owned();
    let gone = async {
        while is_running(&pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("gone in time");
}

#[tokio::test]
async fn what_the_program_started_ends_with_it_even_if_it_ends_by_itself() {
    for last in ["exit 0", "exec cat"] {
        // The helper holds neither the connection nor the standard error, as a program in the background does.
        let script = format!(
            r"sleep 1000 <&- >&- 2>&- & printf 'RFB 003.008\n\1\1%08d' $!; head -c 24 >&2; {last}"
        );
        let upstream = connected(&shell(&script, &[])).await;
        let (mut console, device) = opened_pair().await;
        let looking = async {
            read::<12>(&mut console).await;
            console
                .write_all(b"RFB 003.008\nhere I am...")
                .await
                .expect("sent");
            console.flush().await.expect("sent");
            read::<2>(&mut console).await;
            let pid = String::from_utf8(read::<8>(&mut console).await.to_vec()).expect("digits");
            console.shutdown().await.expect("closed");
            pid.trim_start_matches('0').to_owned()
        };
        let session = serve(device, upstream, SessionOptions::default(), never());
        let (_, helper) = tokio::join!(session, looking);
        // Its parent is gone, so that whoever took it over reaps it, in its own time.
        let stat = format!("/proc/{helper}/stat");
        let gone = async {
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("ended with the session");
    }
}
