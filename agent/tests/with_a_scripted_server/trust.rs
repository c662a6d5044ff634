//! Keys, certificates and roots that change while a device is in use.

use super::*;

#[tokio::test]
async fn a_new_key_is_used_only_after_the_server_has_filed_its_certificate() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let (old, old_id) = (link.certificate.clone(), link.device_id());
    let id = CommandId::from_bytes([1; 16]);
    link.say(Command {
        id,
        action: Action::Rekey,
    })
    .await;
    let FromDevice::CertificateProposed(first) = link.hear_kind("certificate_proposed").await
    else {
        panic!()
    };
    // The link breaks before it is filed: the device comes back as it was, and proposes the same again.
    drop(link);
    let (mut link, _) = server.welcome().await;
    assert_eq!(link.certificate, old);
    let FromDevice::CertificateProposed(proposed) = link.hear_kind("certificate_proposed").await
    else {
        panic!()
    };
    assert_eq!(proposed.certificate, first.certificate);
    let der =
        CertificateDer::from_pem_slice(proposed.certificate.as_bytes()).expect("a certificate");
    let device_id = DeviceId::from_bytes(umbra_carrier::x509::spki_sha256(&der).expect("a key"));
    link.say(CertificateFiled {
        fingerprint: Fingerprint::of_certificate(&der),
        device_id,
    })
    .await;
    let (mut link, _) = server.welcome().await;
    assert_eq!(link.certificate, der);
    assert_ne!(link.device_id(), old_id);
    let FromDevice::CommandResult(result) = link.hear_kind("command_result").await else {
        panic!()
    };
    assert_eq!((result.id, result.state), (id, CommandState::Done));
}

#[tokio::test]
async fn a_certificate_that_the_server_does_not_take_is_taken_back_and_the_link_goes_on() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let old = link.certificate.clone();
    let id = CommandId::from_bytes([1; 16]);
    link.say(Command {
        id,
        action: Action::Rekey,
    })
    .await;
    link.hear_kind("certificate_proposed").await;
    link.say(Refusal::new(RefusalCode::CertificateMismatch, "Not this."))
        .await;
    let FromDevice::CommandResult(result) = link.hear_kind("command_result").await else {
        panic!("another kind")
    };
    assert_eq!(result.state, CommandState::Failed);
    assert!(result.sentence.contains("Not this."), "{result:?}");
    assert!(!device.paths.next_certificate().exists());
    link.say(ResultFiled { id }).await;
    drop(link);
    let (link, _) = server.welcome().await;
    assert_eq!(link.certificate, old);
}

#[tokio::test]
async fn roots_and_ticket_keys_that_would_lose_the_device_are_not_taken_over_and_good_ones_are_kept()
 {
    let server = Server::start().await;
    let next = Server::start().await;
    let mut device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let good = server.anchors();
    let bad = [
        TrustAnchors {
            roots: Vec::new(),
            ..good.clone()
        },
        TrustAnchors {
            roots: vec!["nothing".into()],
            ..good.clone()
        },
        TrustAnchors {
            ticket_keys: Vec::new(),
            ..good.clone()
        },
    ];
    let both = TrustAnchors {
        roots: [good.roots.clone(), next.anchors().roots].concat(),
        ticket_keys: [good.ticket_keys, next.anchors().ticket_keys].concat(),
    };
    link.say(both.clone()).await;
    for anchors in bad {
        link.say(anchors).await;
    }
    // In order: once this command is answered, all of them were read.
    let id = CommandId::from_bytes([1; 16]);
    link.say(Command {
        id,
        action: Action::Inventory,
    })
    .await;
    link.hear_kind("command_result").await;
    device.cut_power().await;
    let kept = umbra_agent::enrolment::Enrolled::load(&device.paths)
        .expect("readable")
        .expect("there");
    assert_eq!(kept.anchors, both);
    device.boot(Files::new(), Fake::default()).await;
    drop(link);
    server.welcome().await;
}

#[tokio::test]
async fn a_server_that_presents_another_root_later_is_not_talked_to() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let imposter = Server::start().await;
    let (mut link, _) = server.welcome().await;
    // From now on another server answers at the device's connector.
    let answer = device
        .ask(Request::RegistrySet {
            name: "system.remotemanager.connector0.address".into(),
            words: vec![umbra_protocol::Secret::new("127.0.0.1")],
        })
        .await;
    assert!(
        matches!(answer, Response::Registry { .. } | Response::Done { .. }),
        "{answer:?}"
    );
    device
        .ask(Request::RegistrySet {
            name: "system.remotemanager.connector0.port".into(),
            words: vec![umbra_protocol::Secret::new(
                imposter.address.port().to_string(),
            )],
        })
        .await;
    link.say(umbra_protocol::link::Goodbye {
        sentence: "Bye.".into(),
        retry_after_seconds: None,
    })
    .await;
    drop(link);
    let met = soon("the imposter", imposter.try_accept()).await;
    assert!(met.is_none(), "the device talked to an imposter");
    // And the true one is still tried.
    server.welcome().await;
}
