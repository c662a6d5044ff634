//! Diagnosis and connection say the same of every chain: a check fails exactly where a connection is refused. And what
//! only the connection used to know has a check of its own.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use umbra_carrier::diagnosis::{
    Check, Expectation, Finding, Verdict, diagnose, diagnose_with_roots, first_failure,
};
use umbra_carrier::tls::{DatePolicy, TlsError, judge_chain};

use crate::pki::*;

/// Some day in 2027.
const NOW: i64 = 1_800_000_000;
const YEAR: i64 = 365 * 86_400;
const HOST: &str = "server.test";

fn expectation(now: i64) -> Expectation<'static> {
    Expectation {
        host: Some(HOST),
        root_fingerprint: None,
        now: Some(now),
    }
}

/// The diagnosis of what a server presents to somebody who trusts `root`; it must say what a connection says.
fn look(presented: &[&Der], root: &Authority, now: i64) -> Vec<Finding> {
    let chain: Vec<Der> = presented.iter().map(|der| (*der).clone()).collect();
    let connected = judge_chain(&chain, root.pinned(), HOST, DatePolicy::Enforce, now);
    let findings = diagnose_with_roots(&chain, std::slice::from_ref(&root.der), &expectation(now));
    assert_eq!(
        connected.is_ok(),
        first_failure(&findings).is_none(),
        "a connection says {connected:?}, the diagnosis {findings:#?}"
    );
    if presented.contains(&&root.der) {
        let by_fingerprint = judge_chain(&chain, root.trust(), HOST, DatePolicy::Enforce, now);
        let expectation = Expectation {
            root_fingerprint: Some(root.fingerprint()),
            ..expectation(now)
        };
        let findings = diagnose(&chain, &expectation);
        assert_eq!(
            by_fingerprint.is_ok(),
            first_failure(&findings).is_none(),
            "with a fingerprint a connection says {by_fingerprint:?}, the diagnosis {findings:#?}"
        );
    }
    findings
}

fn failed(findings: &[Finding]) -> Vec<(Check, Option<usize>)> {
    findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail)
        .map(|finding| {
            assert!(!finding.advice.is_empty(), "{finding:?}");
            (finding.check, finding.certificate)
        })
        .collect()
}

fn warned(findings: &[Finding]) -> Vec<(Check, Option<usize>)> {
    findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Warn)
        .map(|finding| (finding.check, finding.certificate))
        .collect()
}

/// A chain of three, of which each certificate may be spoilt before it is signed.
struct Chain {
    root: Authority,
    middle: Authority,
    leaf: Leaf,
}

impl Chain {
    fn with(
        root: impl FnOnce(&mut CertificateParams),
        middle: impl FnOnce(&mut CertificateParams),
        leaf: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = authority_params("root");
        root(&mut params);
        let root = Authority::self_signed(params);
        let mut params = authority_params("middle");
        middle(&mut params);
        let middle = root.authority_with(params);
        let mut params = server_params(&[HOST]);
        leaf(&mut params);
        let leaf = middle.sign(&params);
        Self { root, middle, leaf }
    }

    fn good() -> Self {
        Self::with(|_| (), |_| (), |_| ())
    }

    fn look(&self) -> Vec<Finding> {
        let all = look(
            &[&self.leaf.der, &self.middle.der, &self.root.der],
            &self.root,
            NOW,
        );
        let without_root = look(&[&self.leaf.der, &self.middle.der], &self.root, NOW);
        assert_eq!(
            first_failure(&all).map(|finding| finding.check),
            first_failure(&without_root).map(|finding| finding.check),
            "it must not matter whether a trusted root is presented"
        );
        all
    }
}

#[test]
fn a_trusted_root_need_not_be_presented_and_nothing_is_found_wrong() {
    let chain = Chain::good();
    let findings = chain.look();
    assert_eq!((failed(&findings), warned(&findings)), (vec![], vec![]));
    let findings = look(&[&chain.leaf.der, &chain.middle.der], &chain.root, NOW);
    assert_eq!((failed(&findings), warned(&findings)), (vec![], vec![]));
    let last = findings.last().expect("findings");
    assert_eq!(
        (last.check, last.verdict),
        (Check::Verification, Verdict::Pass)
    );
}

#[test]
fn a_chain_of_another_root_fails_as_such_whether_its_root_is_there_or_not() {
    let (chain, other) = (Chain::good(), Authority::root("another"));
    let presented = [&chain.leaf.der, &chain.middle.der, &chain.root.der];
    let findings = look(&presented, &other, NOW);
    assert_eq!(failed(&findings), [(Check::RootFingerprint, Some(2))]);
    let findings = look(&presented[..2], &other, NOW);
    assert_eq!(failed(&findings), [(Check::ChainComplete, Some(1))]);
    let same_name = Authority::root("root");
    let findings = look(&presented[..2], &same_name, NOW);
    assert_eq!(failed(&findings), [(Check::Signature, Some(1))]);
}

#[test]
fn what_only_connections_used_to_refuse_has_a_check_of_its_own() {
    let critical = || {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        extension
    };
    let limits = |permitted: &str| {
        Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(permitted.to_owned())],
            excluded_subtrees: Vec::new(),
        })
    };
    let cases = [
        (
            Chain::with(
                |_| (),
                |_| (),
                |leaf| leaf.custom_extensions.push(critical()),
            ),
            Check::CriticalExtensions,
            0,
        ),
        (
            Chain::with(
                |_| (),
                |middle| middle.custom_extensions.push(critical()),
                |_| (),
            ),
            Check::CriticalExtensions,
            1,
        ),
        (
            Chain::with(
                |_| (),
                |middle| middle.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
                |_| (),
            ),
            Check::Purpose,
            1,
        ),
        (
            Chain::with(
                |_| (),
                |_| (),
                |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
            ),
            Check::Purpose,
            0,
        ),
        (
            Chain::with(
                |root| root.name_constraints = limits("elsewhere.test"),
                |_| (),
                |_| (),
            ),
            Check::NameConstraints,
            2,
        ),
        (
            Chain::with(
                |_| (),
                |middle| middle.name_constraints = limits("elsewhere.test"),
                |_| (),
            ),
            Check::NameConstraints,
            1,
        ),
        (
            Chain::with(
                |_| (),
                |middle| middle.not_after = date_time_ymd(2026, 1, 1),
                |_| (),
            ),
            Check::Validity,
            1,
        ),
        (
            Chain::with(
                |_| (),
                |middle| middle.key_usages = vec![KeyUsagePurpose::DigitalSignature],
                |_| (),
            ),
            Check::KeyUsage,
            1,
        ),
    ];
    for (chain, check, place) in cases {
        assert_eq!(failed(&chain.look()), [(check, Some(place))]);
    }
    let top_level = Chain::with(
        |_| (),
        |_| (),
        |leaf| leaf.subject_alt_names = server_params(&["*.test"]).subject_alt_names,
    );
    assert_eq!(failed(&top_level.look()), [(Check::Host, Some(0))]);
    // What a root demands for itself binds nobody, and limits that allow the name are kept.
    let harmless = Chain::with(
        |root| root.custom_extensions.push(critical()),
        |middle| middle.name_constraints = limits("test"),
        |_| (),
    );
    assert_eq!(failed(&harmless.look()), []);
    let sentence = |chain: Chain| {
        first_failure(&chain.look())
            .expect("refused")
            .sentence
            .clone()
    };
    let told = sentence(Chain::with(
        |_| (),
        |middle| middle.name_constraints = limits("elsewhere.test"),
        |_| (),
    ));
    assert!(
        told.contains("middle") && told.contains("elsewhere.test"),
        "{told}"
    );
    let told = sentence(Chain::with(
        |_| (),
        |_| (),
        |leaf| leaf.custom_extensions.push(critical()),
    ));
    assert!(told.contains("1.2.3.4"), "{told}");
}

#[test]
fn a_key_that_no_handshake_takes_is_refused_by_both() {
    let root = Authority::root("root");
    let weak = OtherKey::rsa(1024);
    let issuer = rcgen::Issuer::from_params(&root.params, &root.key);
    let der = server_params(&[HOST])
        .signed_by(&weak, &issuer)
        .expect("signed")
        .der()
        .clone();
    let findings = look(&[&der, &root.der], &root, NOW);
    assert_eq!(failed(&findings), [(Check::PublicKey, Some(0))]);
    let refused = judge_chain(&[der], root.pinned(), HOST, DatePolicy::Enforce, NOW);
    assert!(
        matches!(refused, Err(TlsError::SignatureNotAccepted)),
        "{refused:?}"
    );
}

#[test]
fn of_several_ways_to_the_root_one_good_one_is_enough() {
    let root = Authority::root("root");
    let mut old = authority_params("middle");
    old.not_after = date_time_ymd(2026, 1, 1);
    let old = root.authority_with(old);
    // Renewed with the same key, as CAs do.
    let issuer = rcgen::Issuer::from_params(&root.params, &root.key);
    let renewed = authority_params("middle")
        .signed_by(&old.key, &issuer)
        .expect("signed")
        .der()
        .clone();
    let leaf = old.server(&[HOST]);
    for presented in [
        [&leaf.der, &old.der, &renewed, &root.der],
        [&leaf.der, &renewed, &old.der, &root.der],
    ] {
        let findings = look(&presented, &root, NOW);
        assert_eq!(failed(&findings), []);
        let spare = presented.iter().position(|der| **der == old.der);
        assert_eq!(warned(&findings), [(Check::Unrelated, spare)]);
    }
    assert_eq!(
        failed(&look(&[&leaf.der, &old.der, &root.der], &root, NOW)),
        [(Check::Validity, Some(1))]
    );
}

#[test]
fn the_seventh_intermediate_certificate_is_one_too_many() {
    let root = Authority::root("root");
    let mut above = vec![root.authority("middle 1")];
    for number in 2..=7 {
        let next = above[above.len() - 1].authority(&format!("middle {number}"));
        above.push(next);
    }
    for (count, wanted) in [(6, vec![]), (7, vec![(Check::ChainLength, None)])] {
        let leaf = above[count - 1].server(&[HOST]);
        let mut presented = vec![&leaf.der];
        presented.extend(above[..count].iter().rev().map(|authority| &authority.der));
        presented.push(&root.der);
        assert_eq!(failed(&look(&presented, &root, NOW)), wanted, "{count}");
    }
}

#[test]
fn garbage_that_a_connection_passes_over_is_only_a_warning() {
    let chain = Chain::good();
    let garbage = Der::from(vec![0x30, 3, 1, 1, 0]);
    let findings = look(
        &[
            &chain.leaf.der,
            &chain.middle.der,
            &garbage,
            &chain.root.der,
        ],
        &chain.root,
        NOW,
    );
    assert_eq!(failed(&findings), []);
    assert!(
        warned(&findings).contains(&(Check::Readable, Some(2))),
        "{findings:#?}"
    );
    let findings = look(
        &[&garbage, &chain.middle.der, &chain.root.der],
        &chain.root,
        NOW,
    );
    assert!(
        failed(&findings).contains(&(Check::Readable, Some(0))),
        "{findings:#?}"
    );
}

#[test]
fn a_clock_that_is_wrong_by_years_is_told_before_any_certificate() {
    let chain = Chain::with(
        |_| (),
        |_| (),
        |leaf| {
            leaf.not_before = date_time_ymd(2026, 6, 1);
            leaf.not_after = date_time_ymd(2027, 6, 1);
        },
    );
    let presented = [&chain.leaf.der, &chain.middle.der, &chain.root.der];
    for (now, words) in [
        (NOW - 10 * YEAR, ["is slow", "more than 9 years"]),
        (NOW + 10 * YEAR, ["fast", "more than 9 years"]),
    ] {
        let findings = look(&presented, &chain.root, now);
        let first = first_failure(&findings).expect("refused");
        assert_eq!(first.check, Check::Clock, "{first:?}");
        assert!(
            words.iter().all(|word| first.sentence.contains(word))
                && first.advice.starts_with("Set the clock first"),
            "{first:?}"
        );
    }
    // Nobody suspects the clock for a certificate that somebody forgot.
    let findings = look(&presented, &chain.root, NOW + YEAR);
    assert_eq!(
        first_failure(&findings).map(|found| found.check),
        Some(Check::Validity)
    );
}

#[test]
fn an_end_that_is_near_is_told_while_everything_still_works() {
    let chain = Chain::with(
        |root| root.not_after = date_time_ymd(2028, 1, 10),
        |middle| middle.not_after = date_time_ymd(2027, 2, 20),
        |leaf| leaf.not_after = date_time_ymd(2027, 2, 10),
    );
    let findings = chain.look();
    assert_eq!(failed(&findings), []);
    assert_eq!(
        warned(&findings),
        [(Check::Lifetime, Some(2)), (Check::Lifetime, Some(0))]
    );
}

#[test]
fn hundreds_of_chains_with_two_faults_are_judged_alike_by_both() {
    type Spoil = fn(&mut CertificateParams);
    let authority: [Spoil; 9] = [
        |_| (),
        |params| params.is_ca = IsCa::NoCa,
        |params| params.is_ca = IsCa::ExplicitNoCa,
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
        |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
        |params| params.key_usages = Vec::new(),
        |params| params.not_after = date_time_ymd(2026, 1, 1),
        |params| params.not_before = date_time_ymd(2030, 1, 1),
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
    ];
    let end: [Spoil; 6] = [
        |_| (),
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        |params| params.subject_alt_names.clear(),
        |params| params.extended_key_usages = Vec::new(),
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        |params| params.not_after = date_time_ymd(2026, 1, 1),
    ];
    let mut refused = 0;
    for root in authority {
        for middle in authority {
            for leaf in end {
                let Chain { root, middle, leaf } = Chain::with(root, middle, leaf);
                for presented in [
                    &[&leaf.der, &middle.der, &root.der][..],
                    &[&leaf.der, &root.der, &middle.der],
                    &[&leaf.der, &middle.der],
                    &[&leaf.der, &root.der],
                    &[&middle.der, &leaf.der, &root.der],
                    &[&root.der, &middle.der, &leaf.der],
                ] {
                    let findings = look(presented, &root, NOW);
                    refused += usize::from(first_failure(&findings).is_some());
                    // Each of these faults has a check of its own.
                    assert!(
                        !failed(&findings)
                            .iter()
                            .any(|(check, _)| *check == Check::Verification),
                        "{findings:#?}"
                    );
                }
            }
        }
    }
    assert!(refused > 1_000, "{refused} were refused");
}
