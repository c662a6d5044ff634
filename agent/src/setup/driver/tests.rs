//! The driver with a scripted device, by the plain and the JSON face.

use std::sync::atomic::Ordering;

use umbra_protocol::credentials::{Credentials, Endpoint};
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_setup::{Found, Language, Source};
use zeroize::Zeroizing;

use super::super::device::scripted::Scripted;
use super::super::json::Json;
use super::super::plain::{NoEcho, Plain};
use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// Everything that was written by the plain face, with these lines typed ahead, and how it ended.
async fn walk(device: Arc<Scripted>, start: Start, lines: &[&str]) -> (String, Outcome) {
    let mut out = Vec::new();
    let (sender, mut raws) = mpsc::channel(1);
    let mut face = Plain::new(&mut out, Box::new(NoEcho));
    let lines: Vec<_> = lines
        .iter()
        .map(|line| Zeroizing::new((*line).to_owned()))
        .collect();
    let typing = async move {
        for line in lines {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    };
    let running = run(
        start,
        Rules::default(),
        device,
        &mut face,
        &mut raws,
        std::future::pending(),
    );
    let walked = async {
        let (outcome, ()) = tokio::join!(running, typing);
        outcome
    };
    let outcome = tokio::time::timeout(LIMIT, walked)
        .await
        .expect("in time")
        .expect("no trouble with the face");
    drop(face);
    (String::from_utf8(out).expect("text"), outcome)
}

fn part(device: &Scripted, number: usize) -> String {
    device.root.parts()[number - 1].clone()
}

#[tokio::test]
async fn a_piped_person_gets_to_connection_ready_in_both_languages() {
    for (language, number, ready) in [
        (Language::En, "1", "Connection ready"),
        (Language::De, "2", "Verbindung bereit"),
    ] {
        let device = Arc::new(Scripted::new());
        // All parts of this root are alike.
        let part = part(&device, 1);
        let lines = [
            "",
            "", // language as proposed, go on
            "gw.example.com",
            "", // address, check
            "", // go on
            &part,
            "", // fingerprint
            "ABCDE-FGHJK-MNPQR-STVWX",
            "", // key, log on
            "", // finish
        ];
        let (text, outcome) = walk(device.clone(), Start::Fresh(language), &lines).await;
        assert_eq!(outcome, Outcome::Ready, "{text}");
        assert!(text.contains(ready) && text.contains("reception"), "{text}");
        assert!(!text.contains("FGHJK"), "{text}");
        assert!(!text.contains('\u{1b}'), "no cursor is moved: {text}");
        assert!(number.parse::<u8>().is_ok());
        let kept = device.kept.lock().expect("not poisoned");
        assert_eq!(kept.last(), Some(&None), "nothing stays on the disk");
        assert!(!format!("{kept:?}").contains("FGHJK"));
    }
}

#[tokio::test]
async fn every_wrong_turn_is_told_and_leads_on() {
    let device = Arc::new(Scripted::new());
    let part = part(&device, 1);
    let lines = [
        "2",
        "", // German
        "two words",
        "", // no address
        "down.example.com",
        "",  // nobody there
        "2", // other address
        "gw.example.com",
        "",
        "", // reached
        "0000000000000000",
        "", // wrong part
        "xyz",
        "", // no part
        &part,
        "", // right
        "WRONG-WRONG",
        "",  // wrong key
        "1", // other key
        "ABCDE-FGHJK-MNPQR-STVWX",
        "",
        "",
    ];
    let (text, outcome) = walk(device, Start::Fresh(Language::En), &lines).await;
    assert_eq!(outcome, Outcome::Ready, "{text}");
    for said in [
        "Das ist kein Hostname",
        "Netzwerk: fehlgeschlagen",
        "Nobody answers there.",
        "Das ist nicht Teil",
        "Ein Teil hat 16 Zeichen",
        "The server does not know this key. [bad_key]",
        "Verbindung bereit",
    ] {
        assert!(text.contains(said), "{said:?} is missing in {text}");
    }
}

#[tokio::test]
async fn credentials_on_a_stick_are_chosen_by_their_number() {
    let device = Arc::new(Scripted::new());
    let credentials = Credentials {
        endpoints: vec![Endpoint {
            host: "gw.example.com".into(),
            port: 8443,
            root_fingerprint: device.root,
        }],
        key: FirstAuthKey::parse("ABCDE-FGHJK-MNPQR-STVWX").expect("a key"),
    };
    let found = Found::of_credentials(
        &credentials,
        Source::Stick {
            medium: "/media/stick".into(),
            file: "icg.xml".into(),
        },
    );
    device.stick.lock().expect("not poisoned").push(found);
    let mut out = Vec::new();
    let (sender, mut raws) = mpsc::channel(64);
    let mut face = Json::new(&mut out);
    let typing = async {
        // The other side answers to what it sees; here it is enough to say what fits each view in turn.
        let say = async |line: &str| {
            sender
                .send(Zeroizing::new(line.to_owned()))
                .await
                .expect("somebody listens");
        };
        say(r#"{"input":"press","action":"next"}"#).await;
        loop {
            say(r#"{"input":"choose","choice":"found","option":"found-0"}"#).await;
            say(r#"{"input":"press","action":"next"}"#).await;
            say(r#"{"input":"press","action":"finish"}"#).await;
            tokio::task::yield_now().await;
        }
    };
    let running = run(
        Start::Fresh(Language::En),
        Rules::default(),
        device.clone(),
        &mut face,
        &mut raws,
        std::future::pending(),
    );
    let outcome = tokio::time::timeout(LIMIT, async {
        tokio::select! {
            outcome = running => outcome,
            _ = typing => unreachable!("typing never ends"),
        }
    })
    .await
    .expect("in time")
    .expect("no trouble with the face");
    assert_eq!(outcome, Outcome::Ready);
    drop(face);
    let text = String::from_utf8(out).expect("text");
    assert!(!text.contains("FGHJK"), "{text}");
    let views: Vec<View> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a view"))
        .collect();
    assert!(views.iter().any(|view| view.title == "Connection ready"));
    // The credentials name the root: nothing is compared by hand.
    assert!(
        views
            .iter()
            .all(|view| view.step != umbra_setup::Step::Fingerprint)
    );
}

#[tokio::test]
async fn a_line_that_ends_leaves_what_was_entered_and_no_key() {
    let device = Arc::new(Scripted::new());
    let part = part(&device, 1);
    let lines = [
        "",
        "",
        "gw.example.com",
        "",
        "",
        &part,
        "",
        "ABCDE-FGHJK-MNPQR-STVWX",
    ];
    let (text, outcome) = walk(device.clone(), Start::Fresh(Language::En), &lines).await;
    assert_eq!(outcome, Outcome::Left, "{text}");
    let kept = device.kept.lock().expect("not poisoned").clone();
    let last = kept.last().cloned().flatten().expect("kept");
    assert_eq!(last.confirmed, Some(device.root));
    assert!(!format!("{kept:?}").contains("FGHJK"));
    drop(kept);
    // After the break: the check, then straight to the key.
    let lines = ["", "ABCDE-FGHJK-MNPQR-STVWX", "", ""];
    let (text, outcome) = walk(device, Start::Resume(last), &lines).await;
    assert_eq!(outcome, Outcome::Ready, "{text}");
    assert!(text.contains("goes on where it stopped"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_signal_ends_a_check_that_never_answers_and_keeps_the_address() {
    let device = Arc::new(Scripted::new());
    device.silent.store(true, Ordering::SeqCst);
    let mut out = Vec::new();
    let (sender, mut raws) = mpsc::channel(8);
    let mut face = Plain::new(&mut out, Box::new(NoEcho));
    for line in ["", "", "gw.example.com", ""] {
        sender
            .send(Zeroizing::new(line.to_owned()))
            .await
            .expect("room");
    }
    let (tell, stop) = tokio::sync::oneshot::channel::<()>();
    let stop = async {
        let _ = stop.await;
    };
    let signal = async {
        // The signal comes once the check is under way.
        loop {
            let is_checking = device
                .kept
                .lock()
                .expect("not poisoned")
                .last()
                .is_some_and(|kept| kept.as_ref().is_some_and(|kept| kept.checking));
            if is_checking {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = tell.send(());
    };
    let running = run(
        Start::Fresh(Language::En),
        Rules::default(),
        device.clone(),
        &mut face,
        &mut raws,
        stop,
    );
    let (outcome, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(running, signal) })
        .await
        .expect("in time");
    assert_eq!(outcome.expect("no trouble"), Outcome::Left);
    let kept = device.kept.lock().expect("not poisoned");
    let last = kept.last().cloned().flatten().expect("kept");
    assert_eq!(last.endpoints[0].address.host, "gw.example.com");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_was_taken_on_from_elsewhere_says_so_and_ends() {
    let device = Arc::new(Scripted::new());
    device.belongs.store(true, Ordering::SeqCst);
    let mut out = Vec::new();
    let (_sender, mut raws) = mpsc::channel(8);
    let mut face = Plain::new(&mut out, Box::new(NoEcho));
    let running = run(
        Start::Fresh(Language::En),
        Rules::default(),
        device,
        &mut face,
        &mut raws,
        tokio::time::sleep(LIMIT),
    );
    let outcome = tokio::time::timeout(LIMIT * 2, running)
        .await
        .expect("in time")
        .expect("no trouble");
    drop(face);
    let text = String::from_utf8(out).expect("text");
    assert_eq!(outcome, Outcome::Belonged, "{text}");
    assert!(
        text.contains("belongs to the server gw.example.com:8443"),
        "{text}"
    );
}

#[tokio::test]
async fn going_back_gives_up_a_check_that_is_under_way() {
    let device = Arc::new(Scripted::new());
    device.silent.store(true, Ordering::SeqCst);
    let mut out = Vec::new();
    let (sender, mut raws) = mpsc::channel(8);
    let mut face = Json::new(&mut out);
    let checks = device.clone();
    let person = async move {
        let say = async |line: &str| {
            let line = Zeroizing::new(line.to_owned());
            sender.send(line).await.expect("somebody listens");
        };
        let until = async |count: usize| {
            while checks.checks.load(Ordering::SeqCst) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        say(r#"{"input":"press","action":"next"}"#).await;
        say(r#"{"input":"set","entry":"address","text":"gw.example.com"}"#).await;
        say(r#"{"input":"press","action":"next"}"#).await;
        until(1).await;
        say(r#"{"input":"press","action":"back"}"#).await;
        until(0).await;
        // The end of the line ends the assistant.
    };
    let running = run(
        Start::Fresh(Language::En),
        Rules::default(),
        device,
        &mut face,
        &mut raws,
        std::future::pending(),
    );
    let (outcome, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(running, person) })
        .await
        .expect("in time");
    assert_eq!(outcome.expect("no trouble"), Outcome::Left);
}
