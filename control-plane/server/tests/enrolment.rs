//! Taking devices on, over real TLS.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests name what they expect"
)]

mod site;

use serde_json::json;
use site::{Device, Site};
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_protocol::{Fingerprint, FromServer, RefusalCode};
use umbra_server::store::keys;

#[tokio::test]
async fn a_device_with_a_key_is_taken_on_and_gets_what_it_has_to_trust() {
    let site = Site::new().await;
    let api = site.api().await;
    let key = api.key(json!({ "tag": "floor 3" })).await;
    let device = Device::new("00E0C5A1B2C3");
    let enrolled = device.enrol(&site, &key).await.expect("taken on");
    assert_eq!(enrolled.device_name, "desk-00e0c5a1b2c3");
    assert_eq!(enrolled.anchors, site.server.authority.anchors());
    assert_eq!(enrolled.connectors[0].address, "127.0.0.1");
    assert_eq!(enrolled.connectors[0].port, site.address.port());
    let on_file = api.get("/devices/00E0C5A1B2C3").await;
    assert_eq!(on_file["id"], enrolled.device_id.to_string());
    let fingerprint = Fingerprint::of_certificate(device.identity.certificate());
    assert_eq!(on_file["certificate"], fingerprint.to_string());
    assert_eq!(on_file["online"], false);
    device.link(&site).await.expect("welcomed");
}

#[tokio::test]
async fn a_one_time_key_takes_on_one_device_even_when_many_come_at_once() {
    const DEVICES: usize = 40;
    let site = std::sync::Arc::new(Site::new().await);
    let key = site.api().await.key(json!({})).await;
    let mut attempts = tokio::task::JoinSet::new();
    for number in 0..DEVICES {
        let (site, key) = (std::sync::Arc::clone(&site), key.clone());
        attempts.spawn(async move { Device::new(&format!("U{number}")).enrol(&site, &key).await });
    }
    let mut taken_on = 0;
    while let Some(attempt) = attempts.join_next().await {
        match attempt.expect("no panic") {
            Ok(_) => taken_on += 1,
            Err(refusal) => assert_eq!(refusal.code, RefusalCode::KeyUsed),
        }
    }
    assert_eq!(taken_on, 1);
    let api = site.api().await;
    let devices = api.get("/devices").await;
    assert_eq!(devices.as_array().expect("devices").len(), 1);
    let refused = api.audit().await;
    let refused = refused.iter().filter(|line| line.1 == "key_used").count();
    assert_eq!(refused, DEVICES - 1, "every refusal is written down");
}

#[tokio::test]
async fn the_same_certificate_with_the_same_key_gets_the_same_answer_also_after_a_restart() {
    let site = Site::new().await;
    let key = site.api().await.key(json!({})).await;
    let device = Device::new("A1");
    let first = device.enrol(&site, &key).await.expect("taken on");
    let mut second = device.enrol(&site, &key).await.expect("again");
    second.proof.clone_from(&first.proof);
    assert_eq!(second, first);
    let site = site.restart().await;
    let mut third = device.enrol(&site, &key).await.expect("again");
    third.proof.clone_from(&first.proof);
    assert_eq!(third, first);
    let keys = site.api().await.get("/keys").await;
    assert_eq!(keys[0]["used"], 1);
    assert_eq!(keys[0]["state"], "used");
}

#[tokio::test]
async fn wrong_keys_are_refused_alike_and_throttled() {
    let site = Site::new().await;
    let api = site.api().await;
    let right = api.key(json!({})).await;
    let wrong = FirstAuthKey::parse("AAAAA-BBBBB-CCCCC-DDDDD").expect("a key");
    let device = Device::new("A1");
    let unknown = device.enrol(&site, &wrong).await.expect_err("refused");
    assert_eq!(unknown.code, RefusalCode::KeyNotAccepted);
    // A known key ID with a wrong proof tells nothing else.
    let mut link = device.connect(&site).await;
    link.say(device.hello(umbra_protocol::hello::Intent::Enrol))
        .await;
    let FromServer::Challenge(challenge) = link.hear().await else {
        panic!("no challenge");
    };
    let (mut enrol, _) = device.proof(&link, &challenge, &right).await;
    enrol.proof = "00".repeat(32);
    link.say(enrol).await;
    assert_eq!(link.refusal().await, unknown);
    assert!(link.ends().await);
    for _ in 0..8 {
        let refusal = device.enrol(&site, &wrong).await.expect_err("refused");
        assert_eq!(refusal.code, RefusalCode::KeyNotAccepted);
    }
    let throttled = device.enrol(&site, &right).await.expect_err("throttled");
    assert_eq!(throttled.code, RefusalCode::Throttled);
    assert!(throttled.retry_after_seconds.is_some());
    let lines = api.audit().await;
    assert!(lines.contains(&("device.enrolled".into(), "throttled".into())));
}

#[tokio::test]
async fn a_proof_of_another_connection_is_worth_nothing() {
    let site = Site::new().await;
    let key = site.api().await.key(json!({})).await;
    let device = Device::new("A1");
    let intent = umbra_protocol::hello::Intent::Enrol;
    let mut links = Vec::new();
    for _ in 0..2 {
        let mut link = device.connect(&site).await;
        link.say(device.hello(intent)).await;
        let FromServer::Challenge(challenge) = link.hear().await else {
            panic!("no challenge");
        };
        links.push((link, challenge));
    }
    let (mut second, challenge) = links.pop().expect("two");
    let (first, _) = links.pop().expect("two");
    // What somebody in the middle would do: the challenge of one connection, the proof on another.
    let (enrol, _) = device.proof(&first, &challenge, &key).await;
    second.say(enrol).await;
    assert_eq!(second.refusal().await.code, RefusalCode::KeyNotAccepted);
    device.enrol(&site, &key).await.expect("the key is unused");
}

#[tokio::test]
async fn whoever_proves_a_key_is_told_why_it_does_not_open_the_door() {
    let site = Site::new().await;
    let api = site.api().await;
    let enrol = async |unit: &str, key: &FirstAuthKey| {
        let answer = Device::new(unit).enrol(&site, key).await;
        answer.map(|_| ()).map_err(|refusal| refusal.code)
    };
    let bound = api
        .key(json!({ "kind": "bound", "units": ["B1", "B2"] }))
        .await;
    assert_eq!(enrol("X1", &bound).await, Err(RefusalCode::KeyForOtherUnit));
    assert_eq!(enrol("B1", &bound).await, Ok(()));
    assert_eq!(enrol("B1", &bound).await, Err(RefusalCode::KeyUsed));
    assert_eq!(enrol("B2", &bound).await, Ok(()));
    let mass = api.key(json!({ "kind": "mass", "quota": 2 })).await;
    assert_eq!(enrol("M1", &mass).await, Ok(()));
    assert_eq!(enrol("M2", &mass).await, Ok(()));
    assert_eq!(enrol("M3", &mass).await, Err(RefusalCode::KeyQuota));
    let expired = api
        .key(json!({ "kind": "mass", "expires_in_seconds": 60 }))
        .await;
    assert_eq!(enrol("E1", &expired).await, Ok(()));
    site.server.clock.advance(61);
    assert_eq!(enrol("E2", &expired).await, Err(RefusalCode::KeyExpired));
    let revoked = api.key(json!({ "kind": "mass" })).await;
    let id = revoked
        .stretch(&site.server.key_salt, umbra_protocol::first_auth::ROUNDS)
        .key_id();
    let mut tx = site.server.store.begin().await.expect("begins");
    keys::revoke(&mut tx, 0, id).await.expect("revoked");
    tx.commit().await.expect("committed");
    assert_eq!(enrol("R1", &revoked).await, Err(RefusalCode::KeyRevoked));
}

#[tokio::test]
async fn a_key_of_many_uses_does_not_bring_back_a_device_that_was_removed_and_another_key_does() {
    let site = Site::new().await;
    let api = site.api().await;
    let mass = api.key(json!({ "kind": "mass" })).await;
    let device = Device::new("M1");
    device.enrol(&site, &mass).await.expect("taken on");
    let (status, _) = api.ask("DELETE", "/devices/M1", None).await;
    assert_eq!(status.as_u16(), 204);
    let id = mass
        .stretch(&site.server.key_salt, umbra_protocol::first_auth::ROUNDS)
        .key_id();
    let uses = api.get(&format!("/keys/{id}/uses")).await;
    assert_eq!(uses[0]["removed"], true, "{uses}");
    // Neither as it was, nor installed anew.
    for again in [&device, &Device::new("M1")] {
        let refusal = again.enrol(&site, &mass).await.expect_err("refused");
        assert_eq!(refusal.code, RefusalCode::DeviceRemoved);
        assert!(refusal.sentence.contains("new key"), "{refusal:?}");
    }
    assert_eq!(api.get("/devices").await, json!([]));
    Device::new("M2")
        .enrol(&site, &mass)
        .await
        .expect("others are taken on");
    let other = api.key(json!({ "kind": "mass" })).await;
    device.enrol(&site, &other).await.expect("a new key");
    // Its disk forgot the answer, and it has both keys: it is on file now.
    device.enrol(&site, &mass).await.expect("on file");
}

#[tokio::test]
async fn a_disabled_key_opens_no_door_until_it_is_enabled_again() {
    let site = Site::new().await;
    let api = site.api().await;
    let mass = api.key(json!({ "kind": "mass" })).await;
    let id = mass
        .stretch(&site.server.key_salt, umbra_protocol::first_auth::ROUNDS)
        .key_id();
    let set = async |enabled: bool| {
        let path = format!("/keys/{id}");
        let (status, body) = api
            .ask("PATCH", &path, Some(json!({ "enabled": enabled })))
            .await;
        assert_eq!(status.as_u16(), 200, "{body}");
        body["state"].as_str().expect("a state").to_owned()
    };
    let first = Device::new("D1");
    first.enrol(&site, &mass).await.expect("active");
    assert_eq!(set(false).await, "disabled");
    let second = Device::new("D2");
    let refusal = second.enrol(&site, &mass).await.expect_err("disabled");
    assert_eq!(refusal.code, RefusalCode::KeyDisabled);
    // Not even the same answer again, as long as it is disabled.
    let refusal = first.enrol(&site, &mass).await.expect_err("disabled");
    assert_eq!(refusal.code, RefusalCode::KeyDisabled);
    assert_eq!(set(true).await, "active");
    second.enrol(&site, &mass).await.expect("enabled again");
    let uses = api.get(&format!("/keys/{id}/uses")).await;
    let units: Vec<&str> = uses
        .as_array()
        .expect("uses")
        .iter()
        .map(|one| one["unit_id"].as_str().expect("a unit ID"))
        .collect();
    assert_eq!(units.len(), 2, "{uses}");
    assert!(units.contains(&"D1") && units.contains(&"D2"), "{uses}");
    assert_eq!(uses[0]["removed"], false);
    let certificate = Fingerprint::of_certificate(second.identity.certificate()).to_string();
    assert!(uses.to_string().contains(&certificate), "{uses}");
    let actions = api.audit().await;
    let count = |action: &str| actions.iter().filter(|(known, _)| known == action).count();
    assert_eq!((count("key.disabled"), count("key.enabled")), (1, 1));
}

#[tokio::test]
async fn a_device_installed_anew_is_refused_until_the_administrator_accepts_its_certificate() {
    let site = Site::new().await;
    let (_, _link) = site.linked_device("A1").await;
    let api = site.api().await;
    let key = api.key(json!({})).await;
    let anew = Device::new("A1");
    let refusal = anew.enrol(&site, &key).await.expect_err("refused");
    assert_eq!(refusal.code, RefusalCode::CertificateMismatch);
    let fingerprint = Fingerprint::of_certificate(anew.identity.certificate()).to_string();
    let device = api.get("/devices/A1").await;
    assert_eq!(device["conflicting_certificate"], fingerprint.as_str());
    assert_eq!(
        api.get("/keys").await[0]["used"],
        0,
        "the key is not used up"
    );
    let other = json!({ "certificate": Fingerprint::from_bytes([1; 32]).to_string() });
    let (status, _) = api
        .ask("POST", "/devices/A1/certificate", Some(other))
        .await;
    assert_eq!(status.as_u16(), 409);
    let accept = json!({ "certificate": fingerprint });
    let (status, device) = api
        .ask("POST", "/devices/A1/certificate", Some(accept))
        .await;
    assert_eq!(status.as_u16(), 200, "{device}");
    assert_eq!(device["certificate"], fingerprint.as_str());
    assert!(device["conflicting_certificate"].is_null());
    anew.enrol(&site, &key).await.expect("taken on");
    anew.link(&site).await.expect("welcomed");
    assert_eq!(api.get("/devices").await.as_array().map(Vec::len), Some(1));
    let actions: Vec<String> = api.audit().await.into_iter().map(|line| line.0).collect();
    for action in ["device.certificate_conflict", "device.certificate_accepted"] {
        assert!(actions.iter().any(|a| a == action), "{action}");
    }
}

#[tokio::test]
async fn a_replacement_that_the_administrator_refuses_stays_out_and_is_not_offered_again() {
    let site = Site::new().await;
    let (_, _link) = site.linked_device("A1").await;
    let api = site.api().await;
    let own = api.get("/devices/A1").await["certificate"].clone();
    let key = api.key(json!({})).await;
    let posing = Device::new("A1");
    posing.enrol(&site, &key).await.expect_err("refused");
    let path = "/devices/A1/certificate/refusal";
    let other = json!({ "certificate": Fingerprint::from_bytes([1; 32]).to_string() });
    let (status, _) = api.ask("POST", path, Some(other)).await;
    assert_eq!(status.as_u16(), 409, "nobody has presented that one");
    let fingerprint = Fingerprint::of_certificate(posing.identity.certificate()).to_string();
    let refuse = json!({ "certificate": fingerprint });
    let (status, device) = api.ask("POST", path, Some(refuse.clone())).await;
    assert_eq!(status.as_u16(), 200, "{device}");
    assert!(device["conflicting_certificate"].is_null());
    assert_eq!(device["certificate"], own);

    // It comes again: still refused, and nobody is asked again. Another one is news.
    let refusal = posing.enrol(&site, &key).await.expect_err("refused");
    assert_eq!(refusal.code, RefusalCode::CertificateMismatch);
    assert!(api.get("/devices/A1").await["conflicting_certificate"].is_null());
    let (status, _) = api.ask("POST", path, Some(refuse)).await;
    assert_eq!(status.as_u16(), 409, "there is nothing to refuse any more");
    Device::new("A1")
        .enrol(&site, &key)
        .await
        .expect_err("refused");
    assert!(!api.get("/devices/A1").await["conflicting_certificate"].is_null());
    let audit = api.audit().await;
    let count = |action: &str| audit.iter().filter(|line| line.0 == action).count();
    assert_eq!(count("device.certificate_refused"), 1);
    assert_eq!(count("device.certificate_conflict"), 2);
}

#[tokio::test]
async fn a_database_that_cannot_be_written_uses_no_key_up_and_says_so() {
    let site = Site::new().await;
    let (mut linked, _) = site.linked_device("B2").await;
    let api = site.api().await;
    let key = api.key(json!({})).await;
    let device = Device::new("A1");
    // As on a disk that was mounted read-only.
    let mut tx = site.server.store.begin().await.expect("begins");
    let read_only = sqlx::query("PRAGMA query_only = ON").execute(&mut *tx);
    read_only.await.expect("set");
    drop(tx);
    let refusal = device.enrol(&site, &key).await.expect_err("refused");
    assert_eq!(refusal.code, RefusalCode::Internal);
    let mut link = linked.link(&site).await.expect("it brings no news");
    linked.facts.os = "Testix 2".into();
    let refusal = linked.link(&site).await.err().expect("refused");
    assert_eq!(refusal.code, RefusalCode::Internal);
    let body = json!({ "name": "other" });
    let (status, problem) = api.ask("PATCH", "/devices/B2", Some(body)).await;
    assert_eq!(status.as_u16(), 503, "{problem}");
    assert_eq!(problem["code"], "not_writable");
    assert_eq!(
        api.get("/devices/B2").await["name"],
        "desk-b2",
        "reading works"
    );
    assert_eq!(api.get("/sessions").await, json!([]));
    assert!(link.is_quiet().await, "a link that stands stays");
    drop(link);
    let site = site.restart().await;
    device.enrol(&site, &key).await.expect("the key is unused");
}
