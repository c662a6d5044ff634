//! Sessions from the first words of a console to the record of the end, and who is not let in.

use super::*;

#[tokio::test]
async fn a_session_runs_only_after_the_servers_word_and_leaves_a_record() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let serving = async {
        let verify = asked(&mut link).await;
        let Presented::Ticket { password, .. } = &verify.presented else {
            panic!("{verify:?}")
        };
        assert_eq!(password.reveal(), "password");
        // Not one byte before the verdict.
        let verdict = Verdict::Allowed(request(1));
        link.say(SessionVerdict {
            question: verify.question,
            verdict,
        })
        .await;
    };
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), serving);
    assert!(opened.expect("allowed").is_empty());
    assert_eq!(greeting(&mut console).await, "RFB 003.008\n");
    console
        .write_all(b"RFB 003.008\nten letters")
        .await
        .expect("sent");
    assert_eq!(
        greeting(&mut console).await,
        "\u{1}\u{1}ten letter",
        "the offer and the echo"
    );
    link.hear_kind("session_started").await;
    let running = device
        .until("the session", |s| {
            s.sessions
                .first()
                .is_some_and(|s| s.stage == SessionStage::Running)
        })
        .await;
    assert_eq!(running.sessions[0].operator, "Ada");
    console.shutdown().await.expect("closed");
    let record = record(&mut link).await;
    assert_eq!(
        (record.session, record.code.as_str()),
        (request(1).session, "viewer_closed")
    );
    assert_eq!((record.bytes_to_device, record.bytes_to_console), (23, 25));
    device
        .until("the end", |status| status.sessions.is_empty())
        .await;

    // Said again at the next link, until it is filed.
    drop(link);
    let (mut link, _) = server.welcome().await;
    assert_eq!(self::record(&mut link).await, record);
    link.say(RecordFiled {
        session: record.session,
    })
    .await;
    // The same ticket is worth nothing any more.
    let mut console = connect(&link, port).await;
    assert_eq!(
        refusal_code(open(&mut console, &ticket).await),
        "ticket_used"
    );
}

#[tokio::test]
async fn without_a_link_nobody_comes_in_and_the_operator_is_told_why() {
    let server = Server::start().await;
    let mut device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (link, port) = server.welcome_with_port().await;
    let ticket = ticket(&server, &link, 1);
    let mut console = connect(&link, port).await;
    drop(link);
    drop(server);
    device
        .until("no link", |status| status.stage == Stage::Waiting)
        .await;
    assert_eq!(
        refusal_code(open(&mut console, &ticket).await),
        "server_unreachable"
    );
    device.stop().await;
}

#[tokio::test]
async fn tickets_of_strangers_and_for_other_devices_never_reach_the_server() {
    let server = Server::start().await;
    let stranger = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let forged = ticket(&stranger, &link, 1);
    assert_eq!(
        refusal_code(open(&mut console, &forged).await),
        "ticket_invalid"
    );
    let elsewhere = server.signer.sign(&Ticket {
        session: request(2).session,
        device: DeviceId::from_bytes([0; 32]),
        certificate: Fingerprint::of_certificate(&link.certificate),
        operator: "Ada".into(),
        permissions: FULL,
        nonce: "00".repeat(16),
        iat: 0,
        exp: 60,
    });
    let mut console = connect(&link, port).await;
    assert_eq!(
        refusal_code(open(&mut console, &elsewhere).await),
        "ticket_for_other_device"
    );
    // The first question that the server hears is about the good one.
    let good = ticket(&server, &link, 3);
    let mut console = connect(&link, port).await;
    let (opened, ()) = tokio::join!(open(&mut console, &good), allow(&mut link, 3));
    opened.expect("allowed");
}

#[tokio::test]
async fn administrator_and_person_can_end_a_running_session() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    for (number, expected) in [(1, "ended_by_administrator"), (2, "ended_by_user")] {
        let session = request(number).session;
        let mut console = connect(&link, port).await;
        let ticket = ticket(&server, &link, number);
        let (opened, ()) = tokio::join!(open(&mut console, &ticket), allow(&mut link, number));
        opened.expect("allowed");
        greeting(&mut console).await;
        device
            .until("the session", |s| {
                s.sessions
                    .iter()
                    .any(|s| s.session == session && s.stage == SessionStage::Running)
            })
            .await;
        if number == 1 {
            link.say(SessionEnd {
                session,
                sentence: "Enough.".into(),
            })
            .await;
        } else {
            let answer = device.ask(Request::EndSession { session }).await;
            assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
        }
        let mut rest = Vec::new();
        // Closed in order or not: it is closed.
        let _ = soon("the end", console.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
        assert_eq!(record(&mut link).await.code, expected);
    }
}

#[tokio::test]
async fn only_so_many_sessions_run_at_a_time() {
    let server = Server::start().await;
    let more = format!("{SILENT}instances = 1\n");
    let device = Device::start(&shadowable(vnc_server().await, &more)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut first = connect(&link, port).await;
    let ticket_1 = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut first, &ticket_1), allow(&mut link, 1));
    opened.expect("allowed");
    let mut second = connect(&link, port).await;
    let ticket_2 = ticket(&server, &link, 2);
    let (opened, ()) = tokio::join!(open(&mut second, &ticket_2), allow(&mut link, 2));
    assert_eq!(refusal_code(opened), "too_many_sessions");
    assert_eq!(
        greeting(&mut first).await,
        "RFB 003.008\n",
        "the first one goes on"
    );
}

#[tokio::test]
async fn when_the_agent_ends_its_sessions_end_and_the_server_hears_of_it_first() {
    let server = Server::start().await;
    let mut device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), allow(&mut link, 1));
    opened.expect("allowed");
    link.hear_kind("session_started").await;
    let listening = async {
        let record = record(&mut link).await;
        link.hear_kind("goodbye").await;
        record
    };
    let ((), record) = tokio::join!(device.stop(), listening);
    assert_eq!(record.code, "ended_by_shutdown");
    assert!(
        TcpStream::connect(("127.0.0.1", port)).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test]
async fn a_session_that_the_power_was_cut_in_is_reported_after_the_next_start() {
    let server = Server::start().await;
    let mut device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), allow(&mut link, 1));
    opened.expect("allowed");
    link.hear_kind("session_started").await;
    // As a power cut leaves it: what is on the disk now.
    let records =
        std::fs::read(device.paths.records()).expect("records are written at the beginning");
    device.cut_power().await;
    drop((link, console));
    std::fs::write(device.paths.records(), records).expect("written");
    device.boot(Files::new(), Fake::default()).await;
    let (mut link, _) = server.welcome().await;
    assert_eq!(record(&mut link).await.code, "agent_restarted");
}

#[tokio::test]
async fn a_flood_of_strangers_does_not_push_out_who_waits_for_the_person() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, "")).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let session = request(1).session;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let person = async {
        device
            .until("the question", |status| !status.consents.is_empty())
            .await;
        let mut strangers = Vec::new();
        for _ in 0..100 {
            let stranger = TcpStream::connect(("127.0.0.1", port)).await;
            strangers.push(stranger.expect("connected"));
        }
        // Once the first stranger had to go, whoever was there before would have gone too.
        let _ = soon("the end of the first", strangers[0].read(&mut [0])).await;
        device
            .ask(Request::Consent {
                session,
                accept: true,
            })
            .await
    };
    let (opened, (), answer) =
        tokio::join!(open(&mut console, &ticket), allow(&mut link, 1), person);
    assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
    opened.expect("accepted");
}
#[tokio::test]
async fn two_hundred_silent_callers_keep_no_operator_out() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        let caller = TcpStream::connect(("127.0.0.1", port)).await;
        silent.push(caller.expect("connected"));
    }
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), allow(&mut link, 1));
    opened.expect("allowed");
    assert_eq!(greeting(&mut console).await, "RFB 003.008\n");
    // The oldest ones had to go.
    let mut gone = 0;
    for caller in &mut silent[..100] {
        gone += usize::from(matches!(
            soon("the end", caller.read(&mut [0])).await,
            Ok(0) | Err(_)
        ));
    }
    assert_eq!(gone, 100);
}
