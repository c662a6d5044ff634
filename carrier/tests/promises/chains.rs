//! Which chains a client takes for its server, and by which typed reason it refuses the others.

use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, date_time_ymd,
};
use umbra_carrier::alpn;
use umbra_carrier::tls::{
    DatePolicy, EnvelopeTrust, ServerTrust, TlsError, TrustError, device_config, envelope_config,
};
use umbra_carrier::x509::{GATEWAY_MARK, sha256};

use crate::pki::*;

#[tokio::test(start_paused = true)]
async fn a_chain_to_the_pinned_root_is_taken_with_and_without_the_root_presented() {
    let root = Authority::root("root");
    let middle = root.authority("middle");
    let leaf = middle.server(&["server.test"]);
    accepted(
        &leaf,
        &[&middle.der],
        http_client(root.pinned()),
        "server.test",
    )
    .await;
    accepted(
        &leaf,
        &[&middle.der, &root.der],
        http_client(root.pinned()),
        "server.test",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_to_the_root_with_the_agreed_fingerprint_is_taken_in_any_order() {
    let root = Authority::root("root");
    let middle = root.authority("middle");
    let leaf = middle.server(&["server.test"]);
    accepted(
        &leaf,
        &[&middle.der, &root.der],
        http_client(root.trust()),
        "server.test",
    )
    .await;
    accepted(
        &leaf,
        &[&root.der, &middle.der],
        http_client(root.trust()),
        "server.test",
    )
    .await;
    let stranger = Authority::root("stranger");
    accepted(
        &leaf,
        &[&stranger.der, &middle.der, &root.der],
        http_client(root.trust()),
        "server.test",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_below_the_root_without_intermediates_is_taken() {
    let root = Authority::root("root");
    let leaf = root.server(&["server.test"]);
    accepted(
        &leaf,
        &[&root.der],
        http_client(root.trust()),
        "server.test",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_root_is_a_fingerprint_mismatch_naming_both() {
    let (agreed, other) = (Authority::root("root"), Authority::root("root"));
    let leaf = other.server(&["server.test"]);
    let error = refusal(&leaf, &[&other.der], agreed.trust()).await;
    let TlsError::FingerprintMismatch {
        expected,
        presented,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(*expected, agreed.fingerprint());
    assert_eq!(*presented, [other.fingerprint()]);
    assert!(error.concerns_certificates());
}

#[tokio::test(start_paused = true)]
async fn one_wrong_digit_in_the_fingerprint_is_a_mismatch() {
    let root = Authority::root("root");
    let leaf = root.server(&["server.test"]);
    for position in [0, 15, 31] {
        let mut fingerprint = root.fingerprint();
        fingerprint[position] ^= 1;
        let error = refusal(
            &leaf,
            &[&root.der],
            ServerTrust::RootFingerprint(fingerprint),
        )
        .await;
        assert!(
            matches!(error, TlsError::FingerprintMismatch { .. }),
            "{error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_root_that_is_not_presented_is_told_apart_from_a_wrong_one() {
    let root = Authority::root("root");
    let middle = root.authority("middle");
    let leaf = middle.server(&["server.test"]);
    let error = refusal(&leaf, &[&middle.der], root.trust()).await;
    assert!(matches!(error, TlsError::RootNotPresented), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_genuine_root_beside_a_chain_of_another_root_is_no_trust() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let leaf = other.server(&["server.test"]);
    let error = refusal(&leaf, &[&other.der, &root.der], root.trust()).await;
    assert!(matches!(error, TlsError::UnknownRoot), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_root_of_the_same_name_with_another_key_vouches_for_nothing() {
    let (root, forged) = (Authority::root("root"), Authority::root("root"));
    let leaf = forged.server(&["server.test"]);
    let error = refusal(&leaf, &[&root.der], root.trust()).await;
    assert!(matches!(error, TlsError::SignatureWrong), "{error:?}");
    let error = refusal(&leaf, &[&forged.der], root.pinned()).await;
    assert!(matches!(error, TlsError::SignatureWrong), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_of_a_root_that_is_not_pinned_is_refused() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let middle = other.authority("middle");
    let leaf = middle.server(&["server.test"]);
    for above in [vec![&middle.der], vec![&middle.der, &other.der]] {
        let error = refusal(&leaf, &above, root.pinned()).await;
        assert!(matches!(error, TlsError::UnknownRoot), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pinned_end_certificate_can_not_vouch_for_another_name() {
    // Device A's own certificate, whose key signs a certificate for the server's name.
    let mut params = server_params(&["device-a.test"]);
    params.is_ca = IsCa::ExplicitNoCa;
    let device_a = Authority::self_signed(params);
    let forged = device_a.server(&["server.test"]);
    let error = refusal(&forged, &[&device_a.der], device_a.trust()).await;
    assert!(matches!(error, TlsError::NotCa { .. }), "{error:?}");
    let pinned = device_config(None, device_a.pinned(), DatePolicy::Enforce, alpn::HTTP);
    assert!(
        matches!(pinned, Err(TrustError::NotCa { .. })),
        "{pinned:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_certificate_without_basic_constraints_can_not_be_a_root() {
    let root = Authority::self_signed(named("root without constraints"));
    let leaf = root.server(&["server.test"]);
    let error = refusal(&leaf, &[&root.der], root.trust()).await;
    assert!(matches!(error, TlsError::NotCa { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_device_below_the_root_can_not_vouch_for_another_name() {
    let root = Authority::root("root");
    let mut params = server_params(&["device-a.test"]);
    params.is_ca = IsCa::ExplicitNoCa;
    let device_a = root.authority_with(params);
    let mut forged = server_params(&["server.test"]);
    forged
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "forged");
    let forged = device_a.sign(&forged);
    for trust in [root.trust(), root.pinned()] {
        let error = refusal(&forged, &[&device_a.der, &root.der], trust).await;
        let TlsError::NotCa { subject } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(subject, "CN=the server");
    }
}

#[tokio::test(start_paused = true)]
async fn roots_that_can_be_none_are_refused_before_any_connection() {
    let config = |trust| device_config(None, trust, DatePolicy::Enforce, alpn::HTTP).map(|_| ());
    assert_eq!(
        config(ServerTrust::PinnedRoots(Vec::new())),
        Err(TrustError::NoRoots)
    );
    let garbage = ServerTrust::PinnedRoots(vec![
        Authority::root("root").der,
        vec![0x30, 0x80, 1].into(),
    ]);
    assert_eq!(config(garbage), Err(TrustError::Unreadable { position: 2 }));
    let mut params = authority_params("a root that may not sign");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let refused = config(Authority::self_signed(params).pinned());
    assert!(
        matches!(refused, Err(TrustError::MayNotSign { .. })),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_intermediate_is_named() {
    let root = Authority::root("root");
    let middle = root.authority("the missing middle");
    let leaf = middle.server(&["server.test"]);
    for (above, trust) in [
        (vec![&root.der], root.trust()),
        (vec![&root.der], root.pinned()),
        (vec![], root.pinned()),
    ] {
        let error = refusal(&leaf, &above, trust).await;
        let TlsError::IssuerMissing { issuer } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(issuer, "CN=the missing middle");
    }
}

#[tokio::test(start_paused = true)]
async fn an_intermediate_whose_key_usage_forbids_to_sign_is_refused() {
    let root = Authority::root("root");
    let mut params = authority_params("middle");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let middle = root.authority_with(params);
    let leaf = middle.server(&["server.test"]);
    for trust in [root.trust(), root.pinned()] {
        let error = refusal(&leaf, &[&middle.der, &root.der], trust).await;
        let TlsError::MayNotSign { subject } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(subject, "CN=middle");
    }
}

#[tokio::test(start_paused = true)]
async fn a_root_whose_key_usage_forbids_to_sign_is_refused() {
    let mut params = authority_params("root");
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let root = Authority::self_signed(params);
    let leaf = root.server(&["server.test"]);
    let error = refusal(&leaf, &[&root.der], root.trust()).await;
    assert!(matches!(error, TlsError::MayNotSign { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn the_path_length_of_intermediate_and_root_is_kept() {
    let short = |name: &str, allowed| {
        let mut params = authority_params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(allowed));
        params
    };
    // The intermediate allows none below it.
    let root = Authority::root("root");
    let upper = root.authority_with(short("upper", 0));
    let lower = upper.authority("lower");
    let leaf = lower.server(&["server.test"]);
    let error = refusal(&leaf, &[&lower.der, &upper.der, &root.der], root.trust()).await;
    assert!(matches!(error, TlsError::PathTooLong), "{error:?}");
    // The root allows none below it: webpki doesn't look at that.
    let root = Authority::self_signed(short("root", 0));
    let middle = root.authority("middle");
    let leaf = middle.server(&["server.test"]);
    for trust in [root.trust(), root.pinned()] {
        let error = refusal(&leaf, &[&middle.der, &root.der], trust).await;
        assert!(matches!(error, TlsError::PathTooLong), "{error:?}");
    }
    // One is allowed, and one is there.
    let root = Authority::self_signed(short("root", 1));
    let middle = root.authority_with(short("middle", 0));
    let leaf = middle.server(&["server.test"]);
    accepted(
        &leaf,
        &[&middle.der, &root.der],
        http_client(root.trust()),
        "server.test",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_ca_certificate_as_the_servers_own_is_refused_as_such() {
    let mut params = server_params(&["server.test"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let leaf = self_signed(&params);
    let error = refusal(&leaf, &[], ServerTrust::RootFingerprint(sha256(&leaf.der))).await;
    assert!(matches!(error, TlsError::EndIsCa { .. }), "{error:?}");
    let root = Authority::root("root");
    let leaf = root.sign(&params);
    let error = refusal(&leaf, &[&root.der], root.trust()).await;
    assert!(matches!(error, TlsError::EndIsCa { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gateways_certificate_of_the_servers_root_and_with_its_names_is_no_servers() {
    let root = Authority::root("root");
    let mut params = server_params(&["server.test"]);
    let mark = SanType::URI(GATEWAY_MARK.try_into().unwrap());
    params.subject_alt_names.push(mark);
    let leaf = root.sign(&params);
    for trust in [
        root.trust(),
        ServerTrust::RootFingerprint(sha256(&root.der)),
    ] {
        let error = refusal(&leaf, &[&root.der], trust).await;
        assert!(matches!(error, TlsError::IsGateway { .. }), "{error:?}");
    }
    let envelope = EnvelopeTrust::pinned(root.trust());
    let envelope = envelope_config(envelope, DatePolicy::Enforce).unwrap();
    accepted(&leaf, &[&root.der], envelope, "server.test").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_certificate_as_the_servers_own_is_refused() {
    let root = Authority::root("root");
    let mut params = server_params(&["server.test"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let error = refusal(&root.sign(&params), &[&root.der], root.trust()).await;
    assert!(matches!(error, TlsError::WrongPurpose { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_named_wherever_it_stands_in_the_chain() {
    let old = |mut params: rcgen::CertificateParams| {
        params.not_after = date_time_ymd(2021, 1, 1);
        params
    };
    let root = Authority::root("root");
    let old_root = Authority::self_signed(old(authority_params("old root")));
    let old_middle = root.authority_with(old(authority_params("old middle")));
    let cases = [
        (
            root.sign(&old(server_params(&["server.test"]))),
            vec![&root.der],
            root.trust(),
            "CN=the server",
        ),
        (
            old_middle.server(&["server.test"]),
            vec![&old_middle.der, &root.der],
            root.trust(),
            "CN=old middle",
        ),
        (
            old_root.server(&["server.test"]),
            vec![&old_root.der],
            old_root.trust(),
            "CN=old root",
        ),
        (
            old_root.server(&["server.test"]),
            vec![],
            old_root.pinned(),
            "CN=old root",
        ),
    ];
    for (leaf, above, trust, expired) in cases {
        let error = refusal(&leaf, &above, trust.clone()).await;
        let TlsError::Expired { subject, not_after } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(subject, expired);
        assert_eq!(*not_after, 1_609_459_200);
        assert!(
            error.to_string().contains("2021-01-01 00:00 UTC"),
            "{error}"
        );
        // A device that can't know the date connects all the same.
        accepted(&leaf, &above, undated_client(trust), "server.test").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_the_future_is_named() {
    let future = |mut params: rcgen::CertificateParams| {
        params.not_before = date_time_ymd(2080, 1, 1);
        params
    };
    let root = Authority::root("root");
    let future_root = Authority::self_signed(future(authority_params("future root")));
    let future_middle = root.authority_with(future(authority_params("future middle")));
    let cases = [
        (
            root.sign(&future(server_params(&["server.test"]))),
            vec![&root.der],
            root.trust(),
            "CN=the server",
        ),
        (
            // Renewed after the end certificate was issued: without dates, too, the two fit together.
            future_middle.server(&["server.test"]),
            vec![&future_middle.der, &root.der],
            root.trust(),
            "CN=future middle",
        ),
        (
            future_root.server(&["server.test"]),
            vec![&future_root.der],
            future_root.trust(),
            "CN=future root",
        ),
    ];
    for (leaf, above, trust, early) in cases {
        let error = refusal(&leaf, &above, trust.clone()).await;
        let TlsError::NotYetValid { subject, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(subject, early);
        accepted(&leaf, &above, undated_client(trust), "server.test").await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_dates_everything_else_is_still_checked() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let leaf = root.server(&["server.test"]);
    let identity = leaf.identity(&[&root.der]);
    let undated = |trust| undated_client(trust);
    let (client, _) = handshake(&identity, undated(other.trust()), "server.test").await;
    assert!(
        matches!(client, Err(TlsError::FingerprintMismatch { .. })),
        "{client:?}"
    );
    let (client, _) = handshake(&identity, undated(other.pinned()), "server.test").await;
    assert!(matches!(client, Err(TlsError::UnknownRoot)), "{client:?}");
    let (client, _) = handshake(&identity, undated(root.trust()), "elsewhere.test").await;
    assert!(
        matches!(client, Err(TlsError::WrongName { .. })),
        "{client:?}"
    );
    let mut params = authority_params("middle");
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let middle = root.authority_with(params);
    let identity = middle
        .server(&["server.test"])
        .identity(&[&middle.der, &root.der]);
    let (client, _) = handshake(&identity, undated(root.trust()), "server.test").await;
    assert!(
        matches!(client, Err(TlsError::MayNotSign { .. })),
        "{client:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_sixty_certificates_is_refused_unread() {
    let root = Authority::root("root");
    let mut chain = vec![Authority::root("first")];
    for number in 0..58 {
        let next = chain[chain.len() - 1].authority(&format!("middle {number}"));
        chain.push(next);
    }
    let leaf = chain[chain.len() - 1].server(&["server.test"]);
    let above: Vec<&Der> = chain.iter().rev().map(|authority| &authority.der).collect();
    let error = refusal(&leaf, &above, root.pinned()).await;
    assert!(
        matches!(error, TlsError::ChainTooLong { count: 60 }),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn signatures_that_can_be_forged_are_not_accepted() {
    let root = Authority::root("root");
    let middle = root.authority("middle");
    let leaf = middle.server(&["server.test"]);
    for algorithm in [SHA1, SHA224] {
        let weak = with_signature_algorithm(&middle.der, algorithm);
        let error = refusal(&leaf, &[&weak, &root.der], root.trust()).await;
        assert!(matches!(error, TlsError::SignatureNotAccepted), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_constraint_of_the_root_is_kept() {
    let mut params = authority_params("root");
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("inside.test".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let root = Authority::self_signed(params);
    let error = refusal(&root.server(&["server.test"]), &[&root.der], root.trust()).await;
    assert!(
        matches!(error, TlsError::CertificateRefused(_)),
        "{error:?}"
    );
    accepted(
        &root.server(&["a.inside.test"]),
        &[&root.der],
        http_client(root.trust()),
        "a.inside.test",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_only_renewed_its_own_key_does_not_count_for_the_path_length() {
    let mut params = authority_params("root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    let root = Authority::self_signed(params);
    let old = root.authority("middle");
    let renewed = old.authority("middle");
    let leaf = renewed.server(&["server.test"]);
    accepted(
        &leaf,
        &[&renewed.der, &old.der, &root.der],
        http_client(root.trust()),
        "server.test",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_upper_intermediate_is_named_where_the_root_is_presented() {
    let root = Authority::root("root");
    let upper = root.authority("the missing upper");
    let lower = upper.authority("lower");
    let leaf = lower.server(&["server.test"]);
    for trust in [root.trust(), root.pinned()] {
        let error = refusal(&leaf, &[&lower.der, &root.der], trust).await;
        let TlsError::IssuerMissing { issuer } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(issuer, "CN=the missing upper");
    }
}
