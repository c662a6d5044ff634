//! Public certification authorities: what they vouch for, and what they don't. The authority here is one of the test's own,
//! which the list is made of; nothing in the crate could be told of it in another way.

use umbra_carrier::tls::{DatePolicy, PublicRoots, ServerTrust, TlsError, vouched_for};
use umbra_carrier::x509::GATEWAY_MARK;

use crate::pki::*;

/// 2026.
const NOW: i64 = 1_790_000_000;

fn trust(root: &Authority) -> ServerTrust {
    ServerTrust::PublicCa(PublicRoots::of_certificates(std::slice::from_ref(
        &root.der,
    )))
}

#[tokio::test(start_paused = true)]
async fn a_public_authority_vouches_for_a_server_that_does_not_present_the_root() {
    let root = Authority::root("Public Root");
    let middle = root.authority("Public Issuer");
    let leaf = middle.server(&["server.test"]);
    let client = || http_client(trust(&root));
    accepted(&leaf, &[&middle.der], client(), "server.test").await;
    accepted(&leaf, &[&middle.der, &root.der], client(), "server.test").await;
    let chain = [leaf.der.clone(), middle.der.clone()];
    let roots = PublicRoots::of_certificates(std::slice::from_ref(&root.der));
    let name = vouched_for(&chain, &roots, "server.test", DatePolicy::Enforce, NOW);
    assert_eq!(name.expect("vouched for"), "Public Root");
}

#[tokio::test(start_paused = true)]
async fn a_private_root_of_the_same_name_another_server_and_a_missing_issuer_are_refused() {
    let (root, twin) = (
        Authority::root("Public Root"),
        Authority::root("Public Root"),
    );
    let error = refusal(&twin.server(&["server.test"]), &[&twin.der], trust(&root)).await;
    assert!(
        matches!(error, TlsError::UnknownRoot | TlsError::SignatureWrong),
        "{error:?}"
    );
    let error = refusal(&root.server(&["other.test"]), &[], trust(&root)).await;
    assert!(matches!(error, TlsError::WrongName { .. }), "{error:?}");
    let middle = root.authority("Public Issuer");
    let error = refusal(&middle.server(&["server.test"]), &[], trust(&root)).await;
    let TlsError::IssuerMissing { issuer } = &error else {
        panic!("{error:?}")
    };
    assert!(issuer.contains("Public Issuer"), "{issuer}");
}

#[test]
fn what_the_public_do_not_vouch_for_is_told_and_dates_count_as_they_are_told_to() {
    let root = Authority::root("Public Root");
    let roots = PublicRoots::of_certificates(std::slice::from_ref(&root.der));
    let leaf = root.server(&["server.test"]);
    let verdict = |chain: &[Der], host, dates, now| vouched_for(chain, &roots, host, dates, now);
    let chain = [leaf.der.clone()];
    let error = verdict(&chain, "server.test", DatePolicy::Enforce, 0).expect_err("in 1970");
    assert!(matches!(error, TlsError::NotYetValid { .. }), "{error:?}");
    verdict(&chain, "server.test", DatePolicy::Ignore, 0).expect("dates don't count");
    verdict(&chain, "elsewhere.test", DatePolicy::Ignore, 0).expect_err("another name");
    verdict(&[], "server.test", DatePolicy::Ignore, 0).expect_err("no chain");
    let own = Authority::root("Private Root").server(&["server.test"]);
    verdict(&[own.der], "server.test", DatePolicy::Enforce, NOW).expect_err("private");
    // A list of nobody, or of what is no authority, vouches for nothing.
    let nobody = PublicRoots::of_certificates(std::slice::from_ref(&leaf.der));
    assert_eq!(nobody.count(), 0);
    vouched_for(&chain, &nobody, "server.test", DatePolicy::Ignore, NOW).expect_err("nobody");
}

#[test]
fn the_built_in_list_is_there_and_knows_no_root_of_ours() {
    let roots = PublicRoots::built_in();
    assert!(roots.count() > 100, "{roots:?}");
    let root = Authority::root("Private Root");
    let chain = [root.server(&["server.test"]).der, root.der.clone()];
    let error =
        vouched_for(&chain, &roots, "server.test", DatePolicy::Enforce, NOW).expect_err("private");
    assert!(matches!(error, TlsError::UnknownRoot), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_vouches_any_server_is_taken_but_no_gateway_and_no_authority() {
    let root = Authority::root("root");
    let leaf = root.server(&["elsewhere.test"]);
    accepted(
        &leaf,
        &[],
        http_client(ServerTrust::Unproven),
        "server.test",
    )
    .await;
    let authority = root.sign(&authority_params("a CA"));
    let error = refusal(&authority, &[], ServerTrust::Unproven).await;
    assert!(matches!(error, TlsError::EndIsCa { .. }), "{error:?}");
    let mut params = server_params(&["server.test"]);
    let mark = rcgen::SanType::URI(GATEWAY_MARK.try_into().unwrap());
    params.subject_alt_names.push(mark);
    let error = refusal(&root.sign(&params), &[], ServerTrust::Unproven).await;
    assert!(matches!(error, TlsError::IsGateway { .. }), "{error:?}");
}
