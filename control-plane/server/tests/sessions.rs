//! Shadowing sessions from the offer to the record, with a scripted device.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests name what they expect"
)]

mod site;

use serde_json::{Value, json};
use site::{Link, Site};
use umbra_protocol::session::{
    Presented, SessionRecord, SessionStarted, SessionVerdict, SessionVerify, Verdict,
};
use umbra_protocol::{FromServer, RefusalCode, Secret, SessionId, ticket};

fn text(offer: &Value, name: &str) -> String {
    offer[name].as_str().expect("text").to_owned()
}

fn id(offer: &Value) -> SessionId {
    text(offer, "session").parse().expect("a session ID")
}

fn presented(offer: &Value) -> Presented {
    Presented::Ticket {
        ticket: text(offer, "ticket"),
        password: Secret::new(text(offer, "password")),
    }
}

/// Asks the server as a device does.
async fn ask(link: &mut Link, presented: Presented) -> Verdict {
    link.say(SessionVerify {
        question: 7,
        presented,
    })
    .await;
    match link.hear().await {
        FromServer::SessionVerdict(SessionVerdict {
            question: 7,
            verdict,
        }) => verdict,
        other => panic!("{other:?}"),
    }
}

fn refused(verdict: Verdict) -> RefusalCode {
    match verdict {
        Verdict::Refused(refusal) => refusal.code,
        Verdict::Allowed(request) => panic!("allowed: {request:?}"),
    }
}

fn record(session: SessionId, code: &str, bytes_to_console: u64) -> SessionRecord {
    SessionRecord {
        session,
        code: code.into(),
        sentence: "The viewer was closed.".into(),
        duration_ms: 4_200,
        bytes_to_device: 10,
        bytes_to_console,
    }
}

/// An offer whose announcement the device has heard.
async fn offered(site: &Site, link: &mut Link, legacy: bool) -> Value {
    let offer = site.api().await.offer("A1", legacy).await;
    match link.hear().await {
        FromServer::SessionRequest(request) => assert_eq!(request.session, id(&offer)),
        other => panic!("{other:?}"),
    }
    offer
}

#[tokio::test]
async fn a_session_goes_from_offer_to_record() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, false).await;
    let session = id(&offer);
    assert_eq!(offer["addresses"][0], "127.0.0.1:5900");
    assert_eq!(offer["expires_in_seconds"], 60);
    let pem = text(&offer, "device_certificate");
    let der: rustls::pki_types::CertificateDer<'_> =
        rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).expect("PEM");
    assert_eq!(&der, device.identity.certificate());
    let keys = site.server.authority.anchors().ticket_keys;
    let read = ticket::verify(&text(&offer, "ticket"), &keys).expect("signed");
    assert_eq!(read.session, session);
    assert_eq!(read.operator, "Administrator");
    let api = site.api().await;
    let path = format!("/sessions/{session}");
    assert_eq!(api.get(&path).await["state"], "offered");
    match ask(&mut link, presented(&offer)).await {
        Verdict::Allowed(request) => {
            assert_eq!(request.session, session);
            assert_eq!(request.reason, "printer");
            assert!(request.permissions.control && !request.permissions.clipboard);
        }
        Verdict::Refused(refusal) => panic!("{refusal}"),
    }
    assert_eq!(api.get(&path).await["state"], "allowed");
    link.say(SessionStarted { session }).await;
    let running = api.until(&path, |s| s["state"] == "running").await;
    assert!(running["started_at"].as_i64().is_some());
    for _ in 0..2 {
        link.say(record(session, "viewer_closed", 5_000)).await;
        let FromServer::RecordFiled(filed) = link.hear().await else {
            panic!("not filed");
        };
        assert_eq!(filed.session, session);
    }
    let ended = api.get(&path).await;
    assert_eq!(ended["state"], "ended");
    assert_eq!(ended["end_code"], "viewer_closed");
    assert_eq!(ended["duration_ms"], 4_200);
    assert_eq!(ended["bytes_to_console"], 5_000);
    assert!(
        api.audit()
            .await
            .contains(&("session.ended".into(), "ok".into()))
    );
    let actions: Vec<String> = api
        .audit()
        .await
        .into_iter()
        .map(|line| line.0)
        .filter(|action| action.starts_with("session."))
        .collect();
    assert_eq!(
        actions,
        [
            "session.ended",
            "session.started",
            "session.verified",
            "session.offered"
        ]
    );
}

#[tokio::test]
async fn a_ticket_is_good_for_one_question() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, false).await;
    assert!(matches!(
        ask(&mut link, presented(&offer)).await,
        Verdict::Allowed(_)
    ));
    assert_eq!(
        refused(ask(&mut link, presented(&offer)).await),
        RefusalCode::TicketUsed
    );
    let site = site.restart().await;
    let mut link = device.link(&site).await.expect("welcomed");
    assert_eq!(
        refused(ask(&mut link, presented(&offer)).await),
        RefusalCode::TicketUsed,
        "a restart does not forget it"
    );
}

#[tokio::test]
async fn a_wrong_password_uses_the_ticket_up() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, false).await;
    let guessed = Presented::Ticket {
        ticket: text(&offer, "ticket"),
        password: Secret::new("0".repeat(32)),
    };
    assert_eq!(
        refused(ask(&mut link, guessed).await),
        RefusalCode::PasswordWrong
    );
    assert_eq!(
        refused(ask(&mut link, presented(&offer)).await),
        RefusalCode::TicketUsed
    );
    let shown = site
        .api()
        .await
        .get(&format!("/sessions/{}", id(&offer)))
        .await;
    assert_eq!(shown["state"], "refused");
    assert_eq!(shown["end_code"], "password_wrong");
}

#[tokio::test]
async fn tickets_that_are_late_altered_or_for_another_device_are_refused() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let (_, mut other) = site.linked_device("B2").await;
    let offer = offered(&site, &mut link, false).await;
    assert_eq!(
        refused(ask(&mut other, presented(&offer)).await),
        RefusalCode::TicketForOtherDevice
    );
    let (stranger, _) = ticket::TicketSigner::generate();
    let keys = site.server.authority.anchors().ticket_keys;
    let read = ticket::verify(&text(&offer, "ticket"), &keys).expect("signed");
    let forged = Presented::Ticket {
        ticket: stranger.sign(&read),
        password: Secret::new(text(&offer, "password")),
    };
    assert_eq!(
        refused(ask(&mut link, forged).await),
        RefusalCode::TicketInvalid
    );
    site.server.clock.advance(60);
    assert_eq!(
        refused(ask(&mut link, presented(&offer)).await),
        RefusalCode::TicketExpired
    );
    let lines = site.api().await.audit().await;
    for code in [
        "ticket_for_other_device",
        "ticket_invalid",
        "ticket_expired",
    ] {
        assert!(
            lines.contains(&("session.verified".into(), code.into())),
            "{code} is not written down"
        );
    }
}

#[tokio::test]
async fn an_offer_that_nobody_takes_expires_by_itself() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, false).await;
    site.server.clock.advance(61);
    let shown = site
        .api()
        .await
        .get(&format!("/sessions/{}", id(&offer)))
        .await;
    assert_eq!(shown["state"], "refused");
    assert_eq!(shown["end_code"], "ticket_expired");
}

#[tokio::test]
async fn an_allowed_session_of_which_the_device_says_nothing_is_given_up() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, false).await;
    let session = id(&offer);
    assert!(matches!(
        ask(&mut link, presented(&offer)).await,
        Verdict::Allowed(_)
    ));
    let path = format!("/sessions/{session}");
    let api = site.api().await;
    site.server.clock.advance(60 + 15 * 60 - 30);
    assert_eq!(api.get(&path).await["state"], "allowed");
    site.server.clock.advance(30);
    let given_up = api.get(&path).await;
    assert_eq!(given_up["state"], "refused");
    assert_eq!(given_up["end_code"], "device_silent");
    assert!(
        api.audit()
            .await
            .contains(&("session.expired".into(), "device_silent".into()))
    );

    // It may be running all the same: whoever wants its end gets it.
    let (status, _) = api.ask("DELETE", &path, None).await;
    assert!(status.is_success(), "{status}");
    match link.hear().await {
        FromServer::SessionEnd(end) => assert_eq!(end.session, session),
        other => panic!("{other:?}"),
    }
    // And what the device says after all counts.
    site.server.clock.advance(100);
    link.say(record(session, "viewer_closed", 5_000)).await;
    let FromServer::RecordFiled(_) = link.hear().await else {
        panic!("not filed");
    };
    let ended = api.get(&path).await;
    assert_eq!(ended["state"], "ended");
    assert_eq!(ended["end_code"], "viewer_closed");
    let time = |of: &Value| of["ended_at"].as_i64().expect("a time");
    assert!(time(&ended) >= time(&given_up) + 100, "{ended}");
}

#[tokio::test]
async fn a_session_that_was_given_up_runs_when_the_device_says_so() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, true).await;
    let password = Secret::new(text(&offer, "password"));
    assert!(matches!(
        ask(&mut link, Presented::LegacyPassword { password }).await,
        Verdict::Allowed(_)
    ));
    let path = format!("/sessions/{}", id(&offer));
    let api = site.api().await;
    site.server.clock.advance(300 + 15 * 60);
    assert_eq!(api.get(&path).await["state"], "refused");
    link.say(SessionStarted {
        session: id(&offer),
    })
    .await;
    let running = api.until(&path, |s| s["state"] == "running").await;
    assert!(running["ended_at"].is_null() && running["end_code"].is_null());
}

#[tokio::test]
async fn an_older_console_presents_a_password_only() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, true).await;
    assert_eq!(offer["ticket"], "");
    assert_eq!(offer["expires_in_seconds"], 300);
    let password = text(&offer, "password");
    assert_eq!(password.len(), 36, "a UUID");
    let legacy = |password: &str| Presented::LegacyPassword {
        password: Secret::new(password),
    };
    assert_eq!(
        refused(ask(&mut link, legacy("00000000-0000-4000-8000-000000000000")).await),
        RefusalCode::PasswordWrong
    );
    site.server.clock.advance(299);
    assert!(matches!(
        ask(&mut link, legacy(&password)).await,
        Verdict::Allowed(_)
    ));
    assert_eq!(
        refused(ask(&mut link, legacy(&password)).await),
        RefusalCode::TicketUsed
    );
    let late = offered(&site, &mut link, true).await;
    site.server.clock.advance(300);
    assert_eq!(
        refused(ask(&mut link, legacy(&text(&late, "password"))).await),
        RefusalCode::TicketExpired
    );
}

#[tokio::test]
async fn the_password_of_a_ticket_is_no_password_of_an_older_console() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, false).await;
    let alone = Presented::LegacyPassword {
        password: Secret::new(text(&offer, "password")),
    };
    assert_eq!(
        refused(ask(&mut link, alone).await),
        RefusalCode::PasswordWrong
    );
}

#[tokio::test]
async fn an_operator_withdraws_an_offer_and_ends_a_session() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let api = site.api().await;
    let offer = offered(&site, &mut link, false).await;
    let path = format!("/sessions/{}", id(&offer));
    let (status, _) = api.ask("DELETE", &path, None).await;
    assert_eq!(status.as_u16(), 204);
    assert!(matches!(link.hear().await, FromServer::SessionEnd(end) if end.session == id(&offer)));
    assert_eq!(
        refused(ask(&mut link, presented(&offer)).await),
        RefusalCode::SessionWithdrawn
    );
    let offer = offered(&site, &mut link, false).await;
    assert!(matches!(
        ask(&mut link, presented(&offer)).await,
        Verdict::Allowed(_)
    ));
    let path = format!("/sessions/{}", id(&offer));
    api.ask("DELETE", &path, None).await;
    let FromServer::SessionEnd(end) = link.hear().await else {
        panic!("the device is not told");
    };
    assert_eq!(end.sentence, "Administrator ended the session.");
    assert_eq!(
        api.get(&path).await["state"],
        "allowed",
        "until the device's record"
    );
    link.say(record(id(&offer), "ended_by_operator", 1)).await;
    assert!(matches!(link.hear().await, FromServer::RecordFiled(_)));
    assert_eq!(api.get(&path).await["state"], "ended");
}

#[tokio::test]
async fn a_record_that_comes_after_a_restart_completes_its_session() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, false).await;
    ask(&mut link, presented(&offer)).await;
    drop(link);
    let site = site.restart().await;
    let mut link = device.link(&site).await.expect("welcomed");
    link.say(record(id(&offer), "viewer_closed", 5_000)).await;
    assert!(matches!(link.hear().await, FromServer::RecordFiled(_)));
    let api = site.api().await;
    let shown = api.get(&format!("/sessions/{}", id(&offer))).await;
    assert_eq!(shown["state"], "ended");
    let (started, ended) = (shown["started_at"].as_i64(), shown["ended_at"].as_i64());
    assert_eq!(
        ended.zip(started).map(|(ended, started)| ended - started),
        Some(4),
        "the beginning follows from the length"
    );
}

#[tokio::test]
async fn a_session_that_the_device_refuses_never_began() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, false).await;
    ask(&mut link, presented(&offer)).await;
    link.say(record(id(&offer), "consent_denied", 0)).await;
    assert!(matches!(link.hear().await, FromServer::RecordFiled(_)));
    let shown = site
        .api()
        .await
        .get(&format!("/sessions/{}", id(&offer)))
        .await;
    assert_eq!(shown["state"], "refused");
    assert_eq!(shown["end_code"], "consent_denied");
    let lines = site.api().await.audit().await;
    assert!(lines.contains(&("session.ended".into(), "consent_denied".into())));
}

#[tokio::test]
async fn a_device_cannot_write_into_the_session_of_another() {
    let site = Site::new().await;
    let (_, mut link) = site.linked_device("A1").await;
    let (_, mut other) = site.linked_device("B2").await;
    let offer = offered(&site, &mut link, false).await;
    ask(&mut link, presented(&offer)).await;
    other
        .say(SessionStarted {
            session: id(&offer),
        })
        .await;
    other.say(record(id(&offer), "viewer_closed", 1)).await;
    assert!(matches!(other.hear().await, FromServer::RecordFiled(_)));
    let api = site.api().await;
    let shown = api.get(&format!("/sessions/{}", id(&offer))).await;
    assert_eq!(shown["state"], "allowed");
    let lines = api.audit().await;
    assert!(lines.contains(&("session.ended".into(), "unknown_session".into())));
}

#[tokio::test]
async fn an_open_offer_is_told_again_to_a_device_that_comes_back() {
    let site = Site::new().await;
    let (device, mut link) = site.linked_device("A1").await;
    let offer = offered(&site, &mut link, false).await;
    let mut link = device.link(&site).await.expect("welcomed");
    assert!(
        matches!(link.hear().await, FromServer::SessionRequest(request) if request.session == id(&offer))
    );
    assert!(matches!(
        ask(&mut link, presented(&offer)).await,
        Verdict::Allowed(_)
    ));
}

#[tokio::test]
async fn a_device_without_shadowing_or_without_a_link_gets_no_offer() {
    let site = Site::new().await;
    let (mut device, link) = site.linked_device("A1").await;
    let api = site.api().await;
    drop(link);
    api.until("/devices/A1", |d| d["online"] == false).await;
    let wanted =
        || Some(json!({ "device": "A1", "permissions": { "control": true, "clipboard": true } }));
    let (status, problem) = api.ask("POST", "/sessions", wanted()).await;
    assert_eq!(
        (status.as_u16(), problem["code"].as_str()),
        (409, Some("device_offline"))
    );
    let sentence = text(&problem, "detail");
    assert!(sentence.contains("last heard of"), "{sentence}");
    device.facts.shadow_port = None;
    let _link = device.link(&site).await.expect("welcomed");
    let (status, problem) = api.ask("POST", "/sessions", wanted()).await;
    assert_eq!(
        (status.as_u16(), problem["code"].as_str()),
        (409, Some("shadowing_disabled"))
    );
}
