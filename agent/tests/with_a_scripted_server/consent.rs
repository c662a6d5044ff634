//! The person at the device is asked.

use super::*;

#[tokio::test]
async fn the_person_is_asked_and_the_operator_waits_for_the_answer() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, "")).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    for (number, accept) in [(1, false), (2, true)] {
        let session = request(number).session;
        let mut console = connect(&link, port).await;
        let ticket = ticket(&server, &link, number);
        let person = async {
            device
                .until("the question", |status| {
                    status.consents.iter().any(|c| c.session == session)
                })
                .await;
            device.ask(Request::Consent { session, accept }).await
        };
        let (opened, (), answer) = tokio::join!(
            open(&mut console, &ticket),
            allow(&mut link, number),
            person
        );
        assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
        if accept {
            assert_eq!(
                opened.expect("accepted").len(),
                1,
                "the operator was told to wait"
            );
            assert_eq!(greeting(&mut console).await, "RFB 003.008\n");
        } else {
            assert_eq!(refusal_code(opened), "consent_denied");
            assert_eq!(record(&mut link).await.code, "consent_denied");
        }
        let (code, _) = failed(device.ask(Request::Consent { session, accept }).await);
        assert_eq!(code, ErrorCode::NotThere, "the question is answered");
    }
}

#[tokio::test]
async fn a_program_asks_the_person_and_gets_what_it_needs_without_a_shell() {
    let server = Server::start().await;
    let mut device = Device::off("");
    let program = device.paths.root().join("ask");
    let noted = device.paths.root().join("noted");
    let script = format!(
        "#!/bin/sh\nprintf '%s|%s|%s' \"$UMBRA_OPERATOR\" \"$UMBRA_REASON\" \"$UMBRA_SESSION\" > {}\nexit 1\n",
        noted.display()
    );
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("executable");
    let more = format!("[umbra.consent]\nprogram = [\"{}\"]\n", program.display());
    std::fs::write(
        device.paths.registry(),
        shadowable(vnc_server().await, &more),
    )
    .expect("written");
    device.boot(Files::new(), Fake::default()).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), async {
        let question = asked(&mut link).await.question;
        let hostile = SessionRequest {
            operator: "$(reboot)\n;x".into(),
            ..request(1)
        };
        link.say(SessionVerdict {
            question,
            verdict: Verdict::Allowed(hostile),
        })
        .await;
    });
    assert_eq!(refusal_code(opened), "consent_denied");
    let noted = std::fs::read_to_string(noted).expect("the program ran");
    assert_eq!(
        noted,
        format!("$(reboot) ;x|Printer|{}", request(1).session)
    );
}
