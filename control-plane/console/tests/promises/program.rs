//! The program itself, as a process: exit codes, streams, and what it leaves unsaid.

use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::lab::{Api, Authority, Reaction, with_login};

fn umbra(arguments: &[&str], folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", folder)
        .stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    umbra(arguments, folder.path()).output().expect("it runs")
}

#[test]
fn the_exit_code_says_what_went_wrong() {
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["shadow", "--help"], 0),
        (&[], 2),
        (&["devices", "--nonsense"], 2),
        (&["shadow"], 2),
        (&["devices"], 3),
        (&["shadow", "till-5", "--listen", "127.0.0.1:0"], 3),
        (&["login", "--user", "anna"], 2),
        (&["login", "127.0.0.1:1", "--user", "anna"], 6),
    ] {
        let output = run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        if code != 0 {
            assert!(output.stdout.is_empty(), "{arguments:?}");
            assert!(!output.stderr.is_empty(), "{arguments:?}");
        }
    }
}

#[test]
fn a_script_gets_problems_as_documents() {
    let output = run(&["devices", "--json"]);
    let problem: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one document");
    assert_eq!(problem["code"], "not_logged_in");
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("umbra login"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let authority = Authority::new();
    let api = Api::start(&authority, with_login(|_| Reaction::Answer(200, json!([])))).await;
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "correct horse\n").expect("written");
    let (address, fingerprint) = (api.address.to_string(), authority.fingerprint().to_string());
    let login = [
        "login",
        &address,
        "--user",
        "anna",
        "--fingerprint",
        &fingerprint,
        "--password-file",
    ];
    let login = umbra(&login, folder.path())
        .arg(&password)
        .output()
        .expect("it runs");
    assert!(login.status.success(), "{login:?}");
    assert!(folder.path().join(".config/umbra/config.json").exists());

    let mut child = umbra(&["devices", "--json"], folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // Nobody reads from here on, and the answer is still to come.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
