//! The diagnosis of chains: each mistake is found by its own check, and a good chain has none.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use umbra_carrier::diagnosis::{Check, Expectation, Finding, Verdict, diagnose, first_failure};
use umbra_carrier::x509::sha256;

use crate::pki::*;

/// Some day in 2027.
const NOW: i64 = 1_800_000_000;

fn look(chain: &[&Der], host: &str, root: Option<&Authority>) -> Vec<Finding> {
    let chain: Vec<Der> = chain.iter().map(|der| (*der).clone()).collect();
    let expectation = Expectation {
        host: Some(host),
        root_fingerprint: root.map(Authority::fingerprint),
        now: Some(NOW),
    };
    diagnose(&chain, &expectation)
}

fn not_passed(findings: &[Finding]) -> Vec<(Check, Verdict, Option<usize>)> {
    findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::Pass)
        .map(|finding| {
            assert!(!finding.advice.is_empty(), "{finding:?}");
            (finding.check, finding.verdict, finding.certificate)
        })
        .collect()
}

fn sentence(findings: &[Finding], check: Check) -> &str {
    let found = findings
        .iter()
        .find(|finding| finding.check == check && finding.verdict != Verdict::Pass);
    &found.expect("a finding of this check").sentence
}

struct Chain {
    root: Authority,
    middle: Authority,
    leaf: Leaf,
}

fn good() -> Chain {
    let root = Authority::root("root");
    let middle = root.authority("middle");
    let leaf = middle.server(&["server.test", "192.0.2.1"]);
    Chain { root, middle, leaf }
}

#[test]
fn a_good_chain_passes_every_check_from_the_root_to_the_end() {
    let Chain { root, middle, leaf } = good();
    let findings = look(
        &[&leaf.der, &middle.der, &root.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(not_passed(&findings), []);
    assert_eq!(first_failure(&findings), None);
    let about: Vec<usize> = findings
        .iter()
        .filter_map(|finding| finding.certificate)
        .collect();
    // The fingerprint is about the root as well; then root, intermediate, end.
    assert!(about.windows(2).all(|pair| pair[0] >= pair[1]), "{about:?}");
    assert_eq!((about.first(), about.last()), (Some(&2), Some(&0)));
    for check in [
        Check::ChainOrder,
        Check::ChainComplete,
        Check::RootFingerprint,
        Check::Clock,
        Check::Host,
    ] {
        assert_eq!(
            findings
                .iter()
                .filter(|finding| finding.check == check)
                .count(),
            1,
            "{check:?}"
        );
    }
    for (check, times) in [
        (Check::CaFlag, 2),
        (Check::Signature, 3),
        (Check::Validity, 3),
        (Check::EndCertificate, 1),
    ] {
        assert_eq!(
            findings
                .iter()
                .filter(|finding| finding.check == check)
                .count(),
            times,
            "{check:?}"
        );
    }
}

#[test]
fn no_certificate_is_a_finding() {
    let findings = diagnose(&[], &Expectation::default());
    assert_eq!(
        not_passed(&findings),
        [(Check::ChainLength, Verdict::Fail, None)]
    );
}

#[test]
fn garbage_is_named_by_its_place_and_the_rest_is_looked_at() {
    let Chain { root, middle, leaf } = good();
    let garbage = Der::from(vec![0x30, 0x82, 0xff, 0xff, 1]);
    let findings = look(
        &[&leaf.der, &garbage, &middle.der, &root.der],
        "server.test",
        Some(&root),
    );
    // A connection doesn't need it, and passes over it.
    assert_eq!(
        not_passed(&findings),
        [(Check::Readable, Verdict::Warn, Some(1))]
    );
    assert!(sentence(&findings, Check::Readable).starts_with("certificate 2 "));
    let findings = look(&[&garbage], "server.test", None);
    assert_eq!(
        not_passed(&findings),
        [(Check::Readable, Verdict::Fail, Some(0))]
    );
}

#[test]
fn a_missing_intermediate_is_named() {
    let Chain { root, leaf, .. } = good();
    let findings = look(&[&leaf.der, &root.der], "server.test", Some(&root));
    let failure = first_failure(&findings).expect("a failure");
    assert_eq!(
        (failure.check, failure.certificate),
        (Check::ChainComplete, Some(0))
    );
    assert!(
        failure
            .sentence
            .contains("intermediate certificate is missing"),
        "{}",
        failure.sentence
    );
    assert!(
        failure.sentence.contains("“CN=middle”"),
        "{}",
        failure.sentence
    );
    // Alone, the end certificate lacks its issuer, too.
    let findings = look(&[&leaf.der], "server.test", None);
    assert_eq!(
        not_passed(&findings),
        [(Check::ChainComplete, Verdict::Fail, Some(0))]
    );
}

#[test]
fn a_missing_root_matters_where_its_fingerprint_is_compared() {
    let Chain { root, middle, leaf } = good();
    let findings = look(&[&leaf.der, &middle.der], "server.test", None);
    assert_eq!(
        not_passed(&findings),
        [(Check::ChainComplete, Verdict::Warn, None)]
    );
    let findings = look(&[&leaf.der, &middle.der], "server.test", Some(&root));
    let failed = [
        (Check::ChainComplete, Verdict::Fail, None),
        (Check::RootFingerprint, Verdict::Fail, None),
    ];
    assert_eq!(not_passed(&findings), failed);
}

#[test]
fn the_order_of_certificates_is_told() {
    let Chain { root, middle, leaf } = good();
    let findings = look(
        &[&leaf.der, &root.der, &middle.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::ChainOrder, Verdict::Warn, None)]
    );
    let findings = look(
        &[&root.der, &middle.der, &leaf.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::ChainOrder, Verdict::Fail, None)]
    );
    assert!(sentence(&findings, Check::ChainOrder).contains("“CN=the server” is certificate 3"));
}

#[test]
fn certificates_that_do_not_belong_are_told() {
    let Chain { root, middle, leaf } = good();
    let stranger = Authority::root("stranger");
    let findings = look(
        &[&leaf.der, &stranger.der, &middle.der, &root.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::Unrelated, Verdict::Warn, Some(1))]
    );
    let findings = look(
        &[&leaf.der, &middle.der, &middle.der, &root.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::Unrelated, Verdict::Warn, Some(2))]
    );
    assert!(sentence(&findings, Check::Unrelated).contains("twice"));
}

#[test]
fn too_many_certificates_are_told() {
    let Chain { root, middle, leaf } = good();
    let mut chain = vec![&leaf.der, &middle.der, &root.der];
    chain.extend([&root.der; 20]);
    let findings = look(&chain, "server.test", Some(&root));
    let failure = first_failure(&findings).expect("a failure");
    assert_eq!(failure.check, Check::ChainLength);
    assert!(
        failure.sentence.contains("23 certificates"),
        "{}",
        failure.sentence
    );
}

#[test]
fn another_root_is_a_failed_fingerprint() {
    let Chain { root, middle, leaf } = good();
    let other = Authority::root("root");
    let findings = look(
        &[&leaf.der, &middle.der, &root.der],
        "server.test",
        Some(&other),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::RootFingerprint, Verdict::Fail, None)]
    );
    // The agreed root is there, but the server's certificate doesn't come from it.
    let findings = look(
        &[&leaf.der, &middle.der, &root.der, &other.der],
        "server.test",
        Some(&other),
    );
    let expected = [
        (Check::Unrelated, Verdict::Warn, Some(3)),
        (Check::RootFingerprint, Verdict::Fail, Some(3)),
    ];
    assert_eq!(not_passed(&findings), expected);
}

#[test]
fn the_fingerprint_of_another_certificate_of_the_chain_is_told() {
    let Chain { root, middle, leaf } = good();
    let chain = [leaf.der.clone(), middle.der.clone(), root.der.clone()];
    let with = |fingerprint| {
        diagnose(
            &chain,
            &Expectation {
                host: None,
                root_fingerprint: Some(fingerprint),
                now: Some(NOW),
            },
        )
    };
    let expected = [(Check::RootFingerprint, Verdict::Fail, Some(0))];
    assert_eq!(not_passed(&with(sha256(&leaf.der))), expected);
    let expected = [(Check::RootFingerprint, Verdict::Warn, Some(1))];
    assert_eq!(not_passed(&with(sha256(&middle.der))), expected);
}

#[test]
fn flags_of_ca_certificates_are_checked() {
    let mut explicit = named("middle");
    explicit.is_ca = IsCa::ExplicitNoCa;
    for params in [named("middle"), explicit] {
        let root = Authority::root("root");
        let middle = root.authority_with(params);
        let leaf = middle.server(&["server.test"]);
        let findings = look(
            &[&leaf.der, &middle.der, &root.der],
            "server.test",
            Some(&root),
        );
        assert_eq!(
            not_passed(&findings),
            [(Check::CaFlag, Verdict::Fail, Some(1))]
        );
        assert_eq!(
            findings
                .iter()
                .find(|found| found.check == Check::CaFlag)
                .unwrap()
                .subject
                .as_deref(),
            Some("CN=root")
        );
    }
    let root = Authority::root("root");
    let mut params = authority_params("middle");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let middle = root.authority_with(params);
    let leaf = middle.server(&["server.test"]);
    let findings = look(
        &[&leaf.der, &middle.der, &root.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::KeyUsage, Verdict::Fail, Some(1))]
    );
}

#[test]
fn the_path_length_is_counted() {
    let constrained = |name: &str, allowed| {
        let mut params = authority_params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(allowed));
        params
    };
    let root = Authority::self_signed(constrained("root", 1));
    let upper = root.authority_with(constrained("upper", 0));
    let lower = upper.authority("lower");
    let leaf = lower.server(&["server.test"]);
    let findings = look(
        &[&leaf.der, &lower.der, &upper.der, &root.der],
        "server.test",
        Some(&root),
    );
    let failed = [
        (Check::PathLength, Verdict::Fail, Some(3)),
        (Check::PathLength, Verdict::Fail, Some(2)),
    ];
    assert_eq!(not_passed(&findings), failed);
    let leaf = upper.server(&["server.test"]);
    let findings = look(
        &[&leaf.der, &upper.der, &root.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(not_passed(&findings), []);
}

#[test]
fn a_ca_certificate_as_the_servers_own_is_told() {
    let root = Authority::root("root");
    let mut params = server_params(&["server.test"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let leaf = root.sign(&params);
    let findings = look(&[&leaf.der, &root.der], "server.test", Some(&root));
    assert_eq!(
        not_passed(&findings),
        [(Check::EndCertificate, Verdict::Fail, Some(0))]
    );
    // What “openssl req -x509” makes by default.
    let alone = self_signed(&params);
    let findings = look(&[&alone.der], "server.test", None);
    let failed = [
        (Check::ChainComplete, Verdict::Fail, Some(0)),
        (Check::EndCertificate, Verdict::Fail, Some(0)),
    ];
    assert_eq!(not_passed(&findings), failed);
}

#[test]
fn a_server_certificate_with_the_roots_name_is_told_and_still_sorted() {
    let root = Authority::root("one name");
    let mut params = server_params(&["server.test"]);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "one name");
    let leaf = root.sign(&params);
    let findings = look(&[&leaf.der, &root.der], "server.test", Some(&root));
    assert_eq!(
        not_passed(&findings),
        [(Check::DistinctNames, Verdict::Warn, Some(0))]
    );
}

#[test]
fn a_renewed_issuer_with_another_key_fails_the_signature() {
    let root = Authority::root("root");
    let (old, new) = (root.authority("middle"), root.authority("middle"));
    let leaf = old.server(&["server.test"]);
    let findings = look(
        &[&leaf.der, &new.der, &root.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::Signature, Verdict::Fail, Some(0))]
    );
    // With both there, the right one is found.
    let findings = look(
        &[&leaf.der, &new.der, &old.der, &root.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::Unrelated, Verdict::Warn, Some(1))]
    );
}

#[test]
fn expired_and_early_certificates_are_each_named() {
    let mut old = authority_params("root");
    old.not_after = date_time_ymd(2025, 6, 1);
    let root = Authority::self_signed(old);
    let mut early = server_params(&["server.test"]);
    early.not_before = date_time_ymd(2040, 1, 1);
    let leaf = root.sign(&early);
    let findings = look(&[&leaf.der, &root.der], "server.test", Some(&root));
    let failed = [
        (Check::Clock, Verdict::Fail, None),
        (Check::Validity, Verdict::Fail, Some(1)),
        (Check::Validity, Verdict::Fail, Some(0)),
    ];
    assert_eq!(not_passed(&findings), failed);
    assert!(
        sentence(&findings, Check::Validity).contains("expired on 2025-06-01"),
        "{findings:?}"
    );
}

#[test]
fn without_a_plausible_clock_dates_are_not_judged() {
    let mut old = authority_params("root");
    old.not_after = date_time_ymd(2021, 1, 1);
    let root = Authority::self_signed(old);
    let chain = [root.server(&["server.test"]).der, root.der.clone()];
    let findings = diagnose(
        &chain,
        &Expectation {
            host: None,
            root_fingerprint: None,
            now: None,
        },
    );
    assert_eq!(not_passed(&findings), [(Check::Clock, Verdict::Warn, None)]);
}

#[test]
fn a_certificate_for_clients_is_told() {
    let root = Authority::root("root");
    let mut params = server_params(&["server.test"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let findings = look(
        &[&root.sign(&params).der, &root.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::Purpose, Verdict::Fail, Some(0))]
    );
}

#[test]
fn the_names_that_the_certificate_has_are_told_when_the_host_is_not_among_them() {
    let Chain { root, middle, leaf } = good();
    let chain = [&leaf.der, &middle.der, &root.der];
    let findings = look(&chain, "elsewhere.test", Some(&root));
    assert_eq!(
        not_passed(&findings),
        [(Check::Host, Verdict::Fail, Some(0))]
    );
    let told = sentence(&findings, Check::Host);
    assert!(
        told.ends_with("isn't for “elsewhere.test”: it is for server.test, 192.0.2.1"),
        "{told}"
    );
    assert_eq!(not_passed(&look(&chain, "192.0.2.1", Some(&root))), []);
    assert_eq!(not_passed(&look(&chain, "SERVER.test.", Some(&root))), []);
    assert_eq!(
        not_passed(&look(&chain, "no host\u{1b}", Some(&root))),
        [(Check::Host, Verdict::Fail, Some(0))]
    );
}

#[test]
fn a_certificate_without_alternative_names_is_told() {
    let root = Authority::root("root");
    let leaf = root.server(&[]);
    let findings = look(&[&leaf.der, &root.der], "server.test", Some(&root));
    let failed = [
        (Check::AlternativeNames, Verdict::Fail, Some(0)),
        (Check::Host, Verdict::Fail, Some(0)),
    ];
    assert_eq!(not_passed(&findings), failed);
}

#[test]
fn an_ip_address_written_as_a_host_name_is_explained() {
    let root = Authority::root("root");
    let mut params: CertificateParams = server_params(&[]);
    params.subject_alt_names = vec![SanType::DnsName("192.0.2.1".try_into().unwrap())];
    let findings = look(
        &[&root.sign(&params).der, &root.der],
        "192.0.2.1",
        Some(&root),
    );
    let failure = first_failure(&findings).expect("a failure");
    assert_eq!(failure.check, Check::Host);
    assert!(
        failure.advice.contains("as a host name"),
        "{}",
        failure.advice
    );
}

#[test]
fn the_verdict_on_a_host_is_that_of_the_handshake() {
    let root = Authority::root("root");
    let names = ["one.test", "*.two.test", "192.0.2.1", "2001:db8::1"];
    let leaf = root.server(&names);
    let parsed = webpki::EndEntityCert::try_from(&leaf.der).unwrap();
    let hosts = [
        "one.test",
        "ONE.test",
        "x.one.test",
        "two.test",
        "a.two.test",
        "a.b.two.test",
        "192.0.2.1",
        "192.0.2.2",
        "2001:db8::1",
        "2001:db8:0::1",
        "2001:db8::2",
    ];
    let mut covered = 0;
    for host in hosts {
        let name = rustls::pki_types::ServerName::try_from(host).unwrap();
        let handshake = parsed.verify_is_valid_for_subject_name(&name).is_ok();
        let findings = look(&[&leaf.der, &root.der], host, Some(&root));
        assert_eq!(first_failure(&findings).is_none(), handshake, "{host}");
        covered += usize::from(handshake);
    }
    assert_eq!(covered, 6);
}

#[test]
fn every_part_and_damage_of_a_chain_is_diagnosed_without_panic() {
    let Chain { root, middle, leaf } = good();
    let expectation = Expectation {
        host: Some("server.test"),
        root_fingerprint: Some([0; 32]),
        now: Some(NOW),
    };
    let mut findings = 0;
    for position in (0..leaf.der.len()).step_by(3) {
        let mut damaged = leaf.der.to_vec();
        damaged[position] ^= 0x81;
        findings += diagnose(
            &[damaged.into(), middle.der.clone(), root.der.clone()],
            &expectation,
        )
        .len();
        findings += diagnose(
            &[leaf.der[..position].to_vec().into(), root.der.clone()],
            &expectation,
        )
        .len();
    }
    assert!(findings > leaf.der.len());
}

#[test]
fn the_names_of_checks_are_unique() {
    let mut ids: Vec<&str> = Check::ALL.iter().map(|check| check.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), Check::ALL.len());
}

#[test]
fn the_page_about_diagnosis_lists_every_check() {
    let page = include_str!("../../../docs/diagnosis.md");
    let (_, chain) = page.split_once("\n## The chain\n").expect("a chapter");
    let (chain, _) = chain.split_once("\n## ").expect("another one");
    let rows: Vec<(&str, &str)> = chain
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .collect();
    let listed: Vec<&str> = rows.iter().map(|(id, _)| *id).collect();
    let checks: Vec<&str> = Check::ALL.iter().map(|check| check.id()).collect();
    assert_eq!(listed, checks);
    for (check, (id, row)) in Check::ALL.iter().zip(rows) {
        assert!(row.contains(check.field()), "{id}: {}", check.field());
    }
}

#[test]
fn signatures_that_can_be_forged_are_told_except_the_roots_own() {
    let Chain { root, middle, leaf } = good();
    let weak = with_signature_algorithm(&leaf.der, SHA1);
    let findings = look(&[&weak, &middle.der, &root.der], "server.test", Some(&root));
    assert_eq!(
        not_passed(&findings),
        [(Check::SignatureAlgorithm, Verdict::Fail, Some(0))]
    );
    assert!(sentence(&findings, Check::SignatureAlgorithm).contains("RSA with SHA-1"));
    let unknown = with_signature_algorithm(&leaf.der, SHA224);
    let findings = look(
        &[&unknown, &middle.der, &root.der],
        "server.test",
        Some(&root),
    );
    assert_eq!(
        not_passed(&findings),
        [(Check::SignatureAlgorithm, Verdict::Fail, Some(0))]
    );
    let old_root = with_algorithm_throughout(&root.der, SHA1);
    let findings = look(&[&leaf.der, &middle.der, &old_root], "server.test", None);
    assert_eq!(
        not_passed(&findings),
        [(Check::SignatureAlgorithm, Verdict::Warn, Some(2))]
    );
}

#[test]
fn keys_that_connections_can_not_use_are_told() {
    let root = Authority::root("root");
    let issuer = rcgen::Issuer::from_params(&root.params, &root.key);
    for (bits, verdict) in [
        (1024, vec![(Check::PublicKey, Verdict::Fail, Some(0))]),
        (2048, vec![]),
        (4096, vec![]),
    ] {
        let leaf = server_params(&["server.test"])
            .signed_by(&OtherKey::rsa(bits), &issuer)
            .unwrap();
        let findings = look(&[leaf.der(), &root.der], "server.test", Some(&root));
        assert_eq!(not_passed(&findings), verdict, "{bits}");
        let key = findings
            .iter()
            .rfind(|finding| finding.check == Check::PublicKey)
            .unwrap();
        assert!(
            key.sentence.contains(&format!("RSA {bits}")),
            "{}",
            key.sentence
        );
    }
}
