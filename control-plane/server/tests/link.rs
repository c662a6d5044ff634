//! The control link, over real TLS, with scripted devices.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests name what they expect"
)]

mod site;

use std::collections::BTreeMap;
use std::time::Duration;

use rcgen::{KeyPair, SigningKey as _};
use serde_json::json;
use site::{Device, Link, PATIENCE, Site, device_certificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use umbra_protocol::command::{Action, CommandProgress, CommandResult, CommandState};
use umbra_protocol::hello::Intent;
use umbra_protocol::link::{Beat, CertificateProposed, possession_message};
use umbra_protocol::message::Leave;
use umbra_protocol::settings::{SettingsApplied, Value};
use umbra_protocol::{Fingerprint, FromServer, RefusalCode, RunId};

#[tokio::test]
async fn a_link_makes_a_device_online_and_its_end_offline() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let api = site.api().await;
    let device = api.get("/devices/A1").await;
    assert_eq!(device["online"], true);
    assert_eq!(
        device["shadow_addresses"],
        json!(["127.0.0.1:5900", "192.0.2.10:5900"]),
        "where it comes from is the best, and what is no address is left out"
    );
    link.say(Beat { number: 7 }).await;
    assert_eq!(link.hear().await, FromServer::Pong(Beat { number: 7 }));
    drop(link);
    let device = api.until("/devices/A1", |d| d["online"] == false).await;
    assert!(device["last_seen"].as_i64().is_some());
}

#[tokio::test]
async fn silence_makes_a_device_offline() {
    let site = Site::with(&["--heartbeat", "1"]).await;
    let (_, mut link) = site.linked_device("A1").await;
    assert!(link.ends().await, "the server ends a silent link");
    let api = site.api().await;
    api.until("/devices/A1", |d| d["online"] == false).await;
}

#[tokio::test]
async fn a_second_link_replaces_the_first() {
    let site = Site::new().await;
    let (device, mut first) = site.linked_device("A1").await;
    let mut second = device.link(&site).await.expect("welcomed");
    assert_eq!(first.refusal().await.code, RefusalCode::Superseded);
    assert!(first.ends().await);
    assert!(second.is_quiet().await);
    assert_eq!(site.api().await.get("/devices/A1").await["online"], true);
}

#[tokio::test]
async fn strangers_are_unknown_and_other_certificates_of_a_known_unit_a_conflict() {
    let site = Site::new().await;
    let stranger = Device::new("X1");
    let refusal = stranger.link(&site).await.err().expect("refused");
    assert_eq!(refusal.code, RefusalCode::UnknownDevice);
    let (_, mut link) = site.linked_device("A1").await;
    let posing = Device::new("A1");
    let refusal = posing.link(&site).await.err().expect("refused");
    assert_eq!(refusal.code, RefusalCode::CertificateMismatch);
    let api = site.api().await;
    let conflict = Fingerprint::of_certificate(posing.identity.certificate()).to_string();
    let device = api.get("/devices/A1").await;
    assert_eq!(device["conflicting_certificate"], conflict.as_str());
    assert!(link.is_quiet().await, "the true device keeps its link");
    for _ in 0..3 {
        posing.link(&site).await.err().expect("refused");
    }
    let lines = api.audit().await;
    let count = |action: &str| lines.iter().filter(|line| line.0 == action).count();
    assert_eq!(count("device.certificate_conflict"), 1, "said once");
}

#[tokio::test]
async fn settings_reach_a_device_at_once_and_at_its_next_link() {
    let site = Site::new().await;
    let (mut device, mut link) = site.linked_device("A1").await;
    let api = site.api().await;
    let put = async |values: serde_json::Value| {
        let body = json!({ "values": values });
        let (status, _) = api.ask("PUT", "/devices/A1/settings", Some(body)).await;
        assert_eq!(status.as_u16(), 200);
    };
    put(json!({ "network.vncserver.enabled": true })).await;
    let FromServer::Settings(settings) = link.hear().await else {
        panic!("no settings");
    };
    assert_eq!(
        settings.values,
        BTreeMap::from([("network.vncserver.enabled".to_owned(), Value::Bool(true))])
    );
    link.say(SettingsApplied {
        revision: settings.revision,
        refused: BTreeMap::from([("a.b".to_owned(), "There is no such parameter.".to_owned())]),
    })
    .await;
    let seen = api
        .until("/devices/A1", |d| d["settings_applied"] != json!(0))
        .await;
    assert_eq!(seen["settings_applied"], settings.revision);
    assert_eq!(
        seen["settings_refused"]["a.b"],
        "There is no such parameter."
    );
    drop(link);
    put(json!({ "network.vncserver.enabled": false })).await;
    device.settings_revision = settings.revision;
    let mut link = device.link(&site).await.expect("welcomed");
    let FromServer::Settings(newer) = link.hear().await else {
        panic!("no settings");
    };
    assert!(newer.revision > settings.revision);
    device.settings_revision = newer.revision;
    let mut link = device.link(&site).await.expect("welcomed");
    assert!(
        link.is_quiet().await,
        "the newest settings are not sent again"
    );
}

#[tokio::test]
async fn enforced_secure_mode_reaches_every_device() {
    let site = Site::new().await;
    let (_, mut first) = site.linked_device("A1").await;
    let (_, mut second) = site.linked_device("A2").await;
    let api = site.api().await;
    let on = json!({ "enforce_secure_mode": true });
    api.ask("PUT", "/policy", Some(on)).await;
    for link in [&mut first, &mut second] {
        let FromServer::Settings(settings) = link.hear().await else {
            panic!("no settings");
        };
        assert_eq!(
            settings.values.get("network.vncserver.secure_mode"),
            Some(&Value::Bool(true))
        );
    }
    let (_, mut later) = site.linked_device("A3").await;
    let FromServer::Settings(settings) = later.hear().await else {
        panic!("a device that comes later is not told");
    };
    assert!(
        settings
            .values
            .contains_key("network.vncserver.secure_mode")
    );
}

#[tokio::test]
async fn a_command_is_sent_until_its_result_is_filed() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    let api = site.api().await;
    let path = "/devices/A1/commands";
    for text in ["one", "two"] {
        let body = json!({ "action": "message", "text": text });
        api.ask("POST", path, Some(body)).await;
        let FromServer::Command(command) = link.hear().await else {
            panic!("no command");
        };
        assert_eq!(command.action, Action::Message { text: text.into() });
    }
    drop(link);
    let site = site.restart().await;
    let mut link = device.link(&site).await.expect("welcomed");
    let mut commands = Vec::new();
    for _ in 0..2 {
        match link.hear().await {
            FromServer::Command(command) => commands.push(command),
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..2 {
        let result = CommandResult {
            id: commands[0].id,
            state: CommandState::Done,
            sentence: "Shown.".into(),
            facts: BTreeMap::new(),
        };
        link.say(result).await;
        let FromServer::ResultFiled(filed) = link.hear().await else {
            panic!("not filed");
        };
        assert_eq!(filed.id, commands[0].id);
    }
    let mut link = device.link(&site).await.expect("welcomed");
    let FromServer::Command(left) = link.hear().await else {
        panic!("no command");
    };
    assert_eq!(left, commands[1], "only what has no result is sent again");
    assert!(link.is_quiet().await);
    let api = site.api().await;
    let listed = api.get(path).await;
    assert_eq!(listed[1]["state"], "done");
    assert_eq!(listed[1]["sentence"], "Shown.");
    assert!(listed[0]["state"].is_null());
    let lines = api.audit().await;
    let ended = lines.iter().filter(|line| line.0 == "command.ended");
    assert_eq!(ended.count(), 1, "a repeated result is filed once");
}

#[tokio::test]
async fn a_device_may_take_a_new_key_and_stays_the_same_device() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    let api = site.api().await;
    let before = api.get("/devices/A1").await;
    let key = KeyPair::generate().expect("a key");
    let (identity, pem) = device_certificate("A1", &key);
    let message = possession_message(device.identity.certificate(), identity.certificate());
    let forged = CertificateProposed {
        certificate: pem.clone(),
        proof: umbra_protocol::ids::to_hex(
            &KeyPair::generate()
                .expect("a key")
                .sign(&message)
                .expect("signed"),
        ),
    };
    link.say(forged).await;
    assert_eq!(link.refusal().await.code, RefusalCode::Malformed);
    let proposed = CertificateProposed {
        certificate: pem,
        proof: umbra_protocol::ids::to_hex(&key.sign(&message).expect("signed")),
    };
    link.say(proposed).await;
    let FromServer::CertificateFiled(filed) = link.hear().await else {
        panic!("not filed");
    };
    assert_eq!(
        filed.fingerprint,
        Fingerprint::of_certificate(identity.certificate())
    );
    // A power cut before the device could keep it: the old certificate still opens the door.
    device.link(&site).await.expect("the old one is accepted");
    let next = Device {
        facts: device.facts.clone(),
        identity,
        settings_revision: 0,
        run: None,
    };
    let _link = next.link(&site).await.expect("the new one is accepted");
    let after = api.get("/devices/A1").await;
    assert_eq!(after["id"], filed.device_id.to_string());
    assert_ne!(after["id"], before["id"]);
    assert_eq!(after["enrolled_at"], before["enrolled_at"]);
    let refusal = device.link(&site).await.err().expect("refused");
    assert_eq!(refusal.code, RefusalCode::CertificateMismatch);
    assert_eq!(api.get("/devices").await.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_device_cannot_propose_the_key_of_another() {
    let site = Site::new().await;
    let key = KeyPair::generate().expect("a key");
    let (identity, pem) = device_certificate("A1", &key);
    let victim = Device {
        facts: site::facts("A1"),
        identity,
        settings_revision: 0,
        run: None,
    };
    let first_key = site.api().await.key(json!({})).await;
    victim.enrol(&site, &first_key).await.expect("taken on");
    let (other, mut link) = site.linked_device("A2").await;
    let message = possession_message(other.identity.certificate(), victim.identity.certificate());
    link.say(CertificateProposed {
        certificate: pem,
        proof: umbra_protocol::ids::to_hex(&key.sign(&message).expect("signed")),
    })
    .await;
    assert_eq!(link.refusal().await.code, RefusalCode::CertificateMismatch);
    victim.link(&site).await.expect("the victim is welcome");
}

#[tokio::test]
async fn a_removed_device_is_told_so_with_each_certificate_that_it_has_had_and_once_on_record() {
    let site = Site::new().await;
    let api = site.api().await;
    let (device, mut link) = site.linked_device("A1").await;
    let key = KeyPair::generate().expect("a key");
    let (identity, pem) = device_certificate("A1", &key);
    let message = possession_message(device.identity.certificate(), identity.certificate());
    link.say(CertificateProposed {
        certificate: pem,
        proof: umbra_protocol::ids::to_hex(&key.sign(&message).expect("signed")),
    })
    .await;
    assert!(matches!(link.hear().await, FromServer::CertificateFiled(_)));
    // It goes away before it uses the new certificate, and is removed meanwhile.
    drop(link);
    let (status, _) = api.ask("DELETE", "/devices/A1", None).await;
    assert_eq!(status.as_u16(), 204);
    let next = Device {
        facts: device.facts.clone(),
        identity,
        settings_revision: 0,
        run: None,
    };
    for _ in 0..3 {
        for device in [&device, &next] {
            let refusal = device.link(&site).await.err().expect("refused");
            assert_eq!(refusal.code, RefusalCode::DeviceRemoved, "{refusal:?}");
            assert!(refusal.sentence.contains("first-authentication key"));
        }
    }
    assert_eq!(api.get("/devices").await, json!([]));
    let told = api.audit().await;
    let told = told
        .iter()
        .filter(|line| line.0 == "device.removed_refused" && line.1 == "device_removed");
    assert_eq!(told.count(), 2, "once for each certificate");
    let key = api.key(json!({})).await;
    next.enrol(&site, &key).await.expect("taken on again");
    next.link(&site).await.expect("welcomed");
    let refusal = device.link(&site).await.err().expect("refused");
    assert_eq!(refusal.code, RefusalCode::DeviceRemoved, "{refusal:?}");
}

#[tokio::test]
async fn a_device_that_leaves_is_unknown_and_one_that_was_removed_is_told_so() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    link.say(Leave {}).await;
    assert!(matches!(link.hear().await, FromServer::Left(_)));
    assert!(link.ends().await);
    let refusal = device.link(&site).await.err().expect("refused");
    assert_eq!(refusal.code, RefusalCode::UnknownDevice);
    let (device, mut link) = site.linked_device("A2").await;
    let api = site.api().await;
    let (status, _) = api.ask("DELETE", "/devices/A2", None).await;
    assert_eq!(status.as_u16(), 204);
    assert_eq!(link.refusal().await.code, RefusalCode::DeviceRemoved);
    assert!(link.ends().await);
    let refusal = device.link(&site).await.err().expect("refused");
    assert_eq!(refusal.code, RefusalCode::DeviceRemoved);
    let key = api.key(json!({})).await;
    device.enrol(&site, &key).await.expect("taken on again");
    device.link(&site).await.expect("welcomed");
}

#[tokio::test]
async fn a_copied_disk_is_noticed() {
    let site = Site::new().await;
    let (device, _link) = site.linked_device("A1").await;
    let copy = Device {
        facts: site::facts("B2"),
        identity: device.identity.clone(),
        settings_revision: 0,
        run: None,
    };
    copy.link(&site).await.expect("its certificate is on file");
    let api = site.api().await;
    let lines = api.audit().await;
    assert!(lines.iter().any(|line| line.0 == "device.other_unit_id"));
    let devices = api.get("/devices").await;
    assert_eq!(devices[0]["unit_id"], "A1", "the label stays");
}

#[tokio::test]
async fn unknown_messages_are_answered_and_broken_ones_end_the_link() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    link.say_bytes(br#"{"type":"teleport","where":"home"}"#)
        .await;
    assert_eq!(link.refusal().await.code, RefusalCode::UnknownMessage);
    assert!(link.is_quiet().await);
    link.say_bytes(br#"{"type":"ping"}"#).await;
    assert_eq!(link.refusal().await.code, RefusalCode::Malformed);
    assert!(link.ends().await);
    let deep = "[".repeat(100_000);
    let mut link = device.link(&site).await.expect("welcomed");
    link.say_bytes(deep.as_bytes()).await;
    assert_eq!(link.refusal().await.code, RefusalCode::Malformed);
    let mut stranger = Device::new("X1").connect(&site).await;
    stranger
        .say_bytes(&vec![
            b' ';
            umbra_protocol::limits::FRAME_BEFORE_WELCOME + 1
        ])
        .await;
    assert_eq!(stranger.refusal().await.code, RefusalCode::TooLarge);
}

#[tokio::test]
async fn an_overlong_or_reordered_conversation_is_refused() {
    let site = Site::new().await;
    let device = Device::new("A1");
    let mut link = device.connect(&site).await;
    link.say(Leave {}).await;
    assert_eq!(link.refusal().await.code, RefusalCode::UnexpectedMessage);
    let mut link = device.connect(&site).await;
    link.say(device.hello(Intent::Enrol)).await;
    assert!(matches!(link.hear().await, FromServer::Challenge(_)));
    link.say(device.hello(Intent::Link)).await;
    assert_eq!(link.refusal().await.code, RefusalCode::UnexpectedMessage);
}

#[tokio::test]
async fn a_server_that_goes_down_says_goodbye_with_a_hint() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    let stranger_device = Device::new("X1");
    let mut stranger = stranger_device.connect(&site).await;
    stranger.say(stranger_device.hello(Intent::Enrol)).await;
    assert!(matches!(stranger.hear().await, FromServer::Challenge(_)));
    let stopping = tokio::spawn(site.restart());
    let FromServer::Goodbye(goodbye) = link.hear().await else {
        panic!("no goodbye");
    };
    assert!(goodbye.retry_after_seconds.is_some());
    assert!(link.ends().await);
    assert_eq!(stranger.refusal().await.code, RefusalCode::ShuttingDown);
    drop((link, stranger));
    let site = stopping.await.expect("restarted");
    device.link(&site).await.expect("welcomed again");
}

#[tokio::test]
async fn idle_and_noisy_strangers_do_not_keep_a_device_out() {
    let site = Site::new().await;
    let (device, _) = site.linked_device("A1").await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(TcpStream::connect(site.address).await.expect("connects"));
    }
    let mut noisy = TcpStream::connect(site.address).await.expect("connects");
    // It may be cut off before everything is written.
    let _ = noisy.write_all(&[0x41; 100_000]).await;
    device.link(&site).await.expect("welcomed");
    // The oldest had to make room.
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, idle[0].read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the oldest idle connection was closed");
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_sent_away() {
    let site = Site::new().await;
    let mut silent = TcpStream::connect(site.address).await.expect("connects");
    let mut link = Device::new("X1").connect(&site).await;
    assert_eq!(link.refusal().await.code, RefusalCode::TooSlow);
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), silent.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "closed");
}

#[tokio::test]
async fn a_device_that_reads_nothing_is_cut_off_and_holds_nobody_up() {
    let site = Site::new().await;
    let (_, _deaf) = site.linked_device("A1").await;
    let (_, mut well) = site.linked_device("B2").await;
    let api = site.api().await;
    let mut rounds = 0;
    while api.get("/devices/A1").await["online"] == true {
        rounds += 1;
        assert!(rounds < 400, "its queue grows without bound");
        let large: serde_json::Map<String, serde_json::Value> = (0..25)
            .map(|n| (format!("a.b{n}"), json!(format!("{rounds}").repeat(1_000))))
            .collect();
        let body = json!({ "values": large });
        let (status, answer) = api.ask("PUT", "/devices/A1/settings", Some(body)).await;
        assert_eq!(status.as_u16(), 200, "{answer}");
    }
    assert!(well.is_quiet().await);
}

#[tokio::test]
async fn a_server_certificate_that_ends_soon_is_renewed_while_devices_stay_linked() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    let presented = async || {
        let tcp = TcpStream::connect(site.address).await.expect("connects");
        umbra_carrier::tls::fetch_chain(tcp, "127.0.0.1", PATIENCE)
            .await
            .expect("a chain")
    };
    let before = presented().await;
    let now = site.server.clock.now();
    assert!(!site.tls.renew(now).expect("looked at"));
    assert_eq!(presented().await, before);
    const DAY: i64 = 24 * 60 * 60;
    // Soon is sixty days; the certificate that is made has to be valid by the clock of this test's device, too.
    assert!(site.tls.renew(now + 310 * DAY).expect("renewed"));
    let after = presented().await;
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1], "the root stays");
    assert!(link.is_quiet().await);
    drop(device);
}

#[tokio::test]
async fn what_a_device_says_of_itself_cannot_move_a_cursor_or_turn_text_round() {
    let site = Site::new().await;
    let (mut device, _link) = site.linked_device("A1").await;
    let key = site.api().await.key(json!({})).await;
    let mut second = Device::new("B2");
    second.facts.name = "desk\u{1b}[2J\r\nroot".into();
    second.enrol(&site, &key).await.expect("taken on");
    device.facts.os = "Linux\u{202e}xuniL\u{7}".into();
    device.facts.agent_version = "1\n2".into();
    let mut link = device.link(&site).await.expect("welcomed");
    let api = site.api().await;
    let inventory = json!({ "action": "inventory" });
    api.ask("POST", "/devices/A1/commands", Some(inventory))
        .await;
    let FromServer::Command(command) = link.hear().await else {
        panic!("no command");
    };
    link.say(CommandResult {
        id: command.id,
        state: CommandState::Done,
        sentence: "Done.\u{1b}]0;x\u{7}".into(),
        facts: BTreeMap::from([("disk".to_owned(), "a\u{1b}[1m\nb".to_owned())]),
    })
    .await;
    assert!(matches!(link.hear().await, FromServer::ResultFiled(_)));
    let shown = [
        api.get("/devices").await,
        api.get("/devices/A1/commands").await,
        api.get("/audit").await,
    ];
    for answer in &shown {
        each_text(answer, &|text| {
            let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(bad), "{text:?}");
        });
    }
    assert_eq!(shown[1][0]["facts"]["disk"], "a [1m\nb");
}

#[tokio::test]
async fn how_far_a_command_is_is_kept_until_it_has_ended_and_bounded() {
    let site = Site::new().await;
    let (_device, mut link) = site.linked_device("A1").await;
    let api = site.api().await;
    let update = json!({ "action": "update" });
    api.ask("POST", "/devices/A1/commands", Some(update)).await;
    let FromServer::Command(command) = link.hear().await else {
        panic!("no command");
    };
    let progress = |percent: u8, sentence: &str| CommandProgress {
        id: command.id,
        percent: Some(percent),
        sentence: sentence.to_owned(),
    };
    let shown = async || api.get("/devices/A1/commands").await[0].clone();
    assert!(shown().await.get("progress").is_none());
    link.say(progress(40, "Copying\u{1b}[2J")).await;
    // An answer to something later says that it was heard.
    let heard = async |link: &mut Link| {
        link.say(Beat { number: 1 }).await;
        assert!(matches!(link.hear().await, FromServer::Pong(_)));
    };
    heard(&mut link).await;
    let found = shown().await;
    assert_eq!(found["progress"]["percent"], 40, "{found}");
    assert_eq!(found["progress"]["sentence"], "Copying [2J");
    assert!(found["state"].is_null());

    // Of a device that says it without end the first are written down.
    for number in 0..200 {
        link.say(progress(50, &format!("piece {number}"))).await;
    }
    heard(&mut link).await;
    let found = shown().await["progress"]["sentence"].clone();
    let number: u32 = found
        .as_str()
        .and_then(|text| text.strip_prefix("piece ")?.parse().ok())
        .expect("a piece");
    assert!((10..150).contains(&number), "{number}");

    // Of another device's command nobody else says how far it is, and of one that has ended nobody at all.
    let (_other, mut stranger) = site.linked_device("B2").await;
    stranger.say(progress(99, "mine")).await;
    heard(&mut stranger).await;
    link.say(CommandResult {
        id: command.id,
        state: CommandState::Done,
        sentence: "Done.".into(),
        facts: BTreeMap::new(),
    })
    .await;
    assert!(matches!(link.hear().await, FromServer::ResultFiled(_)));
    assert_eq!(shown().await["progress"]["sentence"], found);
    assert_eq!(shown().await["state"], "done");
}

fn each_text(value: &serde_json::Value, look: &impl Fn(&str)) {
    match value {
        serde_json::Value::String(text) => look(text),
        serde_json::Value::Array(values) => values.iter().for_each(|v| each_text(v, look)),
        serde_json::Value::Object(values) => values.values().for_each(|v| each_text(v, look)),
        _ => {}
    }
}

/// A device that has another run of its agent.
fn as_run(device: &mut Device, number: u8) {
    device.run = Some(RunId::from_bytes([number; 16]));
}

#[tokio::test]
async fn two_machines_with_one_key_are_told_once_and_have_their_key_replaced() {
    let site = Site::new().await;
    let (mut device, _link) = site.linked_device("A1").await;
    let api = site.api().await;
    as_run(&mut device, 1);
    let _first = device.link(&site).await.expect("welcomed");
    as_run(&mut device, 2);
    let _second = device.link(&site).await.expect("welcomed");
    assert!(api.get("/devices/A1").await["clone_suspected_at"].is_null());
    as_run(&mut device, 1);
    let mut first = device.link(&site).await.expect("welcomed");
    let FromServer::Command(command) = first.hear().await else {
        panic!("no command");
    };
    assert_eq!(command.action, Action::Rekey);
    let shown = api.get("/devices/A1").await;
    assert!(shown["clone_suspected_at"].as_i64().is_some(), "{shown}");
    // They go on taking turns: that is no news.
    for number in [2, 1, 2] {
        as_run(&mut device, number);
        drop(device.link(&site).await.expect("welcomed"));
    }
    as_run(&mut device, 1);
    let mut link = device.link(&site).await.expect("welcomed");
    assert_eq!(link.hear().await, FromServer::Command(command.clone()));
    assert!(link.is_quiet().await, "one command is enough");
    let said = |lines: &[(String, String)], action: &str| {
        lines.iter().filter(|line| line.0 == action).count()
    };
    assert_eq!(said(&api.audit().await, "device.clone_suspected"), 1);

    let key = KeyPair::generate().expect("a key");
    let (identity, pem) = device_certificate("A1", &key);
    let message = possession_message(device.identity.certificate(), identity.certificate());
    link.say(CertificateProposed {
        certificate: pem,
        proof: umbra_protocol::ids::to_hex(&key.sign(&message).expect("signed")),
    })
    .await;
    assert!(matches!(link.hear().await, FromServer::CertificateFiled(_)));
    let next = Device {
        facts: device.facts.clone(),
        identity,
        settings_revision: 0,
        run: device.run,
    };
    let mut link = next.link(&site).await.expect("the new key is accepted");
    assert_eq!(link.hear().await, FromServer::Command(command));
    let shown = api.get("/devices/A1").await;
    assert!(shown["clone_suspected_at"].is_null(), "{shown}");
    as_run(&mut device, 2);
    for _ in 0..3 {
        let refusal = device.link(&site).await.err().expect("refused");
        assert_eq!(refusal.code, RefusalCode::CertificateMismatch);
        assert!(
            refusal.sentence.contains("identity --replace"),
            "{refusal:?}"
        );
    }
    let shown = api.get("/devices/A1").await;
    assert!(shown["copy_refused_at"].as_i64().is_some(), "{shown}");
    assert!(
        shown["conflicting_certificate"].is_null(),
        "nobody is offered to accept the replaced key: {shown}"
    );
    assert_eq!(said(&api.audit().await, "device.copy_refused"), 1);
    assert!(link.is_quiet().await, "the re-keyed one keeps its link");
    // An administrator says that it is mended; it is not, and is marked again.
    let (_, shown) = api.ask("DELETE", "/devices/A1/clone-suspicion", None).await;
    assert!(shown["copy_refused_at"].is_null(), "{shown}");
    device.link(&site).await.err().expect("refused");
    let shown = api.get("/devices/A1").await;
    assert!(shown["copy_refused_at"].as_i64().is_some(), "marked again");
}

#[tokio::test]
async fn reconnects_and_restarts_however_they_cross_are_no_clone() {
    let site = Site::new().await;
    let (mut device, _) = site.linked_device("A1").await;
    let mut links = Vec::new();
    // A pulled cable, a killed agent, one killed again at once; the server has not noticed any of it.
    for number in [1, 1, 2, 3, 3, 3, 4] {
        as_run(&mut device, number);
        links.push(device.link(&site).await.expect("welcomed"));
    }
    let mut last = links.pop().expect("linked");
    assert!(last.is_quiet().await, "no command came");
    let api = site.api().await;
    assert!(api.get("/devices/A1").await["clone_suspected_at"].is_null());
}

#[tokio::test]
async fn an_administrator_who_says_that_it_is_no_clone_is_believed_until_it_happens_again() {
    let site = Site::new().await;
    let (mut device, _) = site.linked_device("A1").await;
    let api = site.api().await;
    for episode in 1..=2 {
        for number in [1, 2, 1] {
            as_run(&mut device, number);
            drop(device.link(&site).await.expect("welcomed"));
        }
        assert!(
            api.get("/devices/A1").await["clone_suspected_at"]
                .as_i64()
                .is_some()
        );
        let (status, shown) = api.ask("DELETE", "/devices/A1/clone-suspicion", None).await;
        assert_eq!(status.as_u16(), 200);
        assert!(shown["clone_suspected_at"].is_null(), "{shown}");
        let lines = api.audit().await;
        let count = |action: &str| lines.iter().filter(|line| line.0 == action).count();
        assert_eq!(count("device.clone_suspected"), episode);
        assert_eq!(count("device.clone_cleared"), episode);
    }
    let waiting = api.get("/devices/A1").await["commands_waiting"].clone();
    assert_eq!(waiting, 1, "a re-key that waits is not given twice");
}
