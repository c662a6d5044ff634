//! Being taken on, and being given up: by a person, by the server, by damage.

use super::*;

#[tokio::test]
async fn a_device_enrols_links_takes_settings_over_and_says_where_it_can_be_shadowed() {
    let server = Server::start().await;
    let device = Device::start("[umbra.vncserver]\nlisten = [\"127.0.0.1\"]\n").await;
    device
        .until("no server", |status| status.stage == Stage::NotEnrolled)
        .await;
    device.enrolled_by(&server).await;
    let (mut link, facts) = server.welcome().await;
    assert_eq!(facts.shadow_port, None);
    device
        .until("the link", |status| status.stage == Stage::Online)
        .await;
    let values = [
        ("network.vncserver.enabled", Value::Bool(true)),
        ("network.vncserver.port", Value::Int(0)),
        ("umbra.consent.program", Value::List(vec!["/bin/sh".into()])),
    ];
    let values = values.map(|(name, value)| (name.to_owned(), value)).into();
    link.say(Settings {
        revision: 7,
        values,
    })
    .await;
    let FromDevice::SettingsApplied(applied) = link.hear_kind("settings_applied").await else {
        panic!("nothing applied")
    };
    assert_eq!(applied.revision, 7);
    assert!(
        applied.refused.contains_key("umbra.consent.program"),
        "the server may not name programs"
    );
    // What the hello said is not true any more: the device says it anew.
    let (_link, port) = server.welcome_with_port().await;
    assert_eq!(device.board.now().shadow_port, Some(port));
}

#[tokio::test]
async fn a_wrong_fingerprint_ends_the_attempt_before_anything_of_the_device_is_sent() {
    let server = Server::start().await;
    let device = Device::start("").await;
    let wrong = Fingerprint::from_bytes([7; 32]);
    let address = server.address.to_string();
    let (answer, connection) =
        tokio::join!(device.enrol_with(&address, wrong), server.try_accept());
    assert!(
        connection.is_none(),
        "the device went on talking to a stranger"
    );
    let (code, sentence) = failed(answer);
    assert_eq!(code, ErrorCode::Refused);
    for expected in [
        "wrong_fingerprint",
        "0707070707070707",
        &server.root.parts()[0],
    ] {
        let found = sentence.to_lowercase().contains(&expected.to_lowercase());
        assert!(found, "{expected} is missing: {sentence}");
    }
    assert_eq!(device.board.now().stage, Stage::NotEnrolled);
}

#[tokio::test]
async fn a_wrong_name_is_told_with_the_names_that_the_certificate_has() {
    let server = Server::for_name("ums.example.com").await;
    let device = Device::start("").await;
    let (answer, connection) = tokio::join!(device.enrol(&server), server.try_accept());
    assert!(connection.is_none());
    let (_, sentence) = failed(answer);
    assert!(
        sentence.contains("ums.example.com") && sentence.contains("wrong_name"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_full_disk_costs_no_key_the_same_one_works_again() {
    let server = Server::start().await;
    let full = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&full);
    let files = Files::watched(move |step: Step, path: &Path| {
        let enrolment = path.to_string_lossy().contains("enrolment.json");
        if step == Step::Write && enrolment && seen.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    });
    let mut device = Device::off("");
    device.boot(files, Fake::default()).await;
    let (answer, _) = tokio::join!(device.enrol(&server), server.enrol());
    let (code, sentence) = failed(answer);
    assert_eq!(code, ErrorCode::Disk);
    assert!(sentence.contains("same key"), "{sentence}");
    full.store(false, Ordering::Relaxed);
    device.enrolled_by(&server).await;
    server.welcome().await;
}

#[tokio::test]
async fn leaving_tells_the_server_and_forgets_it_and_the_device_can_be_taken_on_again() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let (code, sentence) = failed(device.enrol(&server).await);
    assert_eq!(code, ErrorCode::Refused);
    assert!(sentence.contains("leave"), "{sentence}");
    let leaving = async {
        link.hear_kind("leave").await;
        link.say(umbra_protocol::message::Left {}).await;
    };
    let (answer, ()) = tokio::join!(device.ask(Request::Leave {}), leaving);
    assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
    device
        .until("no server", |status| status.stage == Stage::NotEnrolled)
        .await;
    assert!(!device.paths.enrolment().exists());
    device.enrolled_by(&server).await;
    server.welcome().await;
}

#[tokio::test]
async fn a_damaged_enrolment_is_told_and_never_replaced_by_itself() {
    let server = Server::start().await;
    let mut device = Device::start("").await;
    device.enrolled_by(&server).await;
    server.welcome().await;
    device.stop().await;
    let good = std::fs::read(device.paths.enrolment()).expect("there");
    std::fs::write(device.paths.enrolment(), &good[..good.len() / 2]).expect("written");
    device.boot(Files::new(), Fake::default()).await;
    let status = device
        .until("the trouble", |status| status.stage == Stage::Refused)
        .await;
    assert!(status.cause.is_some_and(|cause| cause.contains("damaged")));
    let (code, _) = failed(device.enrol(&server).await);
    assert_eq!(code, ErrorCode::Refused);
    assert_eq!(
        std::fs::read(device.paths.enrolment())
            .expect("there")
            .len(),
        good.len() / 2
    );
    // Mended by hand: the device links without being told.
    std::fs::write(device.paths.enrolment(), &good).expect("written");
    server.welcome().await;
}

#[tokio::test]
async fn a_damaged_enrolment_can_be_given_up_by_a_person() {
    let server = Server::start().await;
    let mut device = Device::start("").await;
    device.stop().await;
    std::fs::write(device.paths.enrolment(), "{").expect("written");
    device.boot(Files::new(), Fake::default()).await;
    device
        .until("the trouble", |status| status.stage == Stage::Refused)
        .await;
    let answer = device.ask(Request::Leave {}).await;
    assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
    device.enrolled_by(&server).await;
    server.welcome().await;
}

#[tokio::test]
async fn a_device_that_its_server_removed_can_be_taken_on_again_at_once() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let mut link = server.accept().await;
    link.hello(Intent::Link).await;
    link.say(Refusal::new(RefusalCode::DeviceRemoved, "Removed."))
        .await;
    let status = device
        .until("the refusal", |status| status.stage == Stage::Refused)
        .await;
    assert_eq!(status.code.as_deref(), Some("device_removed"));
    assert!(status.next_attempt.is_some(), "it tries again by itself");
    // An attempt that fails changes nothing.
    let stranger = Server::start().await;
    let address = stranger.address.to_string();
    let (answer, _) = tokio::join!(
        device.enrol_with(&address, server.root),
        stranger.try_accept()
    );
    failed(answer);
    assert!(device.paths.enrolment().exists());
    let mut link = server.accept().await;
    link.hello(Intent::Link).await;
    link.say(Refusal::new(RefusalCode::DeviceRemoved, "Removed."))
        .await;
    device
        .until("the refusal", |status| status.stage == Stage::Refused)
        .await;
    device.enrolled_by(&server).await;
    let (_link, _) = server.welcome().await;
    device
        .until("the link", |status| status.stage == Stage::Online)
        .await;
}
