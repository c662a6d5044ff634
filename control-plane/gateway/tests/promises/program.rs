use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::lab::{Lab, http, until, within};

fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra-gateway"));
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn signal(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(id), signal).unwrap();
}

#[tokio::test]
async fn the_program_says_where_it_listens_reloads_and_ends_in_order() {
    let lab = Lab::start().await;
    let keystore = lab.folder.path().to_str().unwrap();
    let mut child = program(&[
        "run",
        "--keystore",
        keystore,
        "--listen=127.0.0.1:0",
        "--metrics-listen=127.0.0.1:0",
        "--drain-seconds=1",
    ])
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = within("the line", lines.next_line())
        .await
        .unwrap()
        .unwrap();
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some("listening"));
    let mut address = |name: &str| -> std::net::SocketAddr {
        let word = words.next().unwrap();
        word.strip_prefix(name).unwrap().parse().unwrap()
    };
    let listening = address("address=");
    let metrics = address("metrics=");
    assert!(tokio::net::TcpStream::connect(listening).await.is_ok());
    signal(&child, Signal::SIGHUP);
    until("the reload", async || {
        http(metrics, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .contains("umbra_gateway_reloads_total 1")
    })
    .await;
    signal(&child, Signal::SIGTERM);
    let status = within("the end", child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn check_tells_all_that_is_wrong_and_run_refuses_to_start() {
    let lab = Lab::start().await;
    let keystore = lab.folder.path().to_str().unwrap();
    let good = program(&["check", "--keystore", keystore])
        .output()
        .await
        .unwrap();
    assert!(good.status.success());
    assert!(String::from_utf8_lossy(&good.stdout).contains("can be used"));
    std::fs::write(lab.folder.path().join("key.pem"), "rubbish").unwrap();
    std::fs::remove_file(lab.folder.path().join("servers.pem")).unwrap();
    for words in [
        &["check", "--keystore", keystore][..],
        &[
            "run",
            "--keystore",
            keystore,
            "--listen=127.0.0.1:0",
            "--metrics-listen=127.0.0.1:0",
        ],
    ] {
        let bad = within("the end", program(words).output()).await.unwrap();
        assert_eq!(bad.status.code(), Some(1));
        let told = String::from_utf8_lossy(&bad.stderr);
        assert!(
            told.contains("key.pem") && told.contains("servers.pem"),
            "{told}"
        );
    }
    let wrong = program(&["run", "--listen=here", "--drain-seconds=x"]);
    let told = { wrong }.output().await.unwrap().stderr;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(
        told.contains("--listen") && told.contains("--drain-seconds"),
        "{told}"
    );
}
