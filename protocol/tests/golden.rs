//! Golden samples: what version 1 looks like on the wire. A changed sample means a changed version, or an explanation of
//! why not.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use umbra_protocol::codec::MessageSet;
use umbra_protocol::gateway::{FromGateway, ToGateway};
use umbra_protocol::{DecodeError, FromDevice, FromServer, decode, encode, limits};

#[test]
fn every_message_of_the_device_has_a_sample_that_reads_and_writes_back() {
    check::<FromDevice>("device", FromDevice::kind);
}

#[test]
fn every_message_of_the_server_has_a_sample_that_reads_and_writes_back() {
    check::<FromServer>("server", FromServer::kind);
}

#[test]
fn every_message_to_and_from_a_gateway_has_a_sample_that_reads_and_writes_back() {
    check::<ToGateway>("to_gateway", ToGateway::kind);
    check::<FromGateway>("from_gateway", FromGateway::kind);
}

#[test]
fn a_field_from_a_newer_peer_is_ignored_and_a_missing_one_is_named() {
    let mut hello: Value = serde_json::from_slice(&sample("device/hello.json")).unwrap();
    hello["antigravity"] = Value::Bool(true);
    decode::<FromDevice>(hello.to_string().as_bytes(), limits::FRAME)
        .expect("unknown fields are ignored");
    hello.as_object_mut().unwrap().remove("intent");
    let error = decode::<FromDevice>(hello.to_string().as_bytes(), limits::FRAME)
        .expect_err("intent is missing");
    assert!(error.to_string().contains("intent"), "{error}");
}

#[test]
fn an_unknown_type_is_told_apart_from_nonsense() {
    let unknown = decode::<FromServer>(br#"{"type":"dance","partner":"Ada"}"#, limits::FRAME);
    assert!(matches!(unknown, Err(DecodeError::UnknownType(name)) if name == "dance"));
    let deep = "[".repeat(100_000);
    let hostile: [&[u8]; 6] = [
        b"",
        b"{}",
        b"null",
        b"\xff\xfe",
        br#"{"type":7}"#,
        deep.as_bytes(),
    ];
    for bytes in hostile {
        assert!(
            matches!(
                decode::<FromServer>(bytes, limits::FRAME),
                Err(DecodeError::Malformed(_))
            ),
            "{:?}",
            &bytes[..bytes.len().min(20)]
        );
    }
}

#[test]
fn sizes_beyond_the_limits_are_refused_before_anything_is_read() {
    let big = vec![b' '; limits::FRAME_BEFORE_WELCOME + 1];
    assert!(matches!(
        decode::<FromDevice>(&big, limits::FRAME_BEFORE_WELCOME),
        Err(DecodeError::TooLarge { .. })
    ));
    let mut settings: Value = serde_json::from_slice(&sample("server/settings.json")).unwrap();
    for index in 0..=limits::SETTINGS {
        settings["values"][format!("p{index}")] = Value::Bool(true);
    }
    let error =
        decode::<FromServer>(settings.to_string().as_bytes(), limits::FRAME).expect_err("too many");
    assert!(error.to_string().contains("1000 are allowed"), "{error}");
}

#[test]
fn a_field_that_stands_twice_is_refused() {
    let twice = br#"{"type":"ping","number":1,"number":2}"#;
    assert!(matches!(
        decode::<FromDevice>(twice, limits::FRAME),
        Err(DecodeError::Malformed(_))
    ));
}

#[test]
fn a_list_is_no_message_whatever_stands_in_it() {
    for text in [r#"["ping"]"#, r#" ["ping",1]"#, r#""ping""#, "", " "] {
        let read = decode::<FromDevice>(text.as_bytes(), limits::FRAME);
        assert!(matches!(read, Err(DecodeError::Malformed(_))), "{text}");
    }
}

fn check<M: MessageSet + PartialEq + std::fmt::Debug>(side: &str, kind: fn(&M) -> &'static str) {
    let mut seen = BTreeSet::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(golden().join(side))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let message: M =
            decode(&bytes, limits::FRAME).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let named = file
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .split('.')
            .next()
            .unwrap()
            .to_owned();
        assert_eq!(kind(&message), named, "{}", file.display());
        let written: Value = serde_json::from_slice(&encode(&message)).unwrap();
        let mut expected: Value = serde_json::from_slice(&bytes).unwrap();
        // An empty map of facts is not written.
        if expected
            .get("facts")
            .is_some_and(|f| f.as_object().is_some_and(|o| o.is_empty()))
        {
            expected.as_object_mut().unwrap().remove("facts");
        }
        assert_eq!(written, expected, "{}", file.display());
        assert_eq!(
            decode::<M>(&encode(&message), limits::FRAME).unwrap(),
            message
        );
        seen.insert(named);
    }
    let expected: BTreeSet<String> = M::TYPES.iter().map(|t| (*t).to_owned()).collect();
    assert_eq!(
        seen, expected,
        "one sample per message, and no sample without one"
    );
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1")
}

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(golden().join(name)).unwrap()
}
