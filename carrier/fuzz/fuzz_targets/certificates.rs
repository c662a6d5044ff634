//! Whatever a stranger presents as its certificates: facts and diagnosis never panic, never run away, and never hand on
//! a character that steers a terminal. The input is a row of certificates, each behind its length in two bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;
use umbra_carrier::diagnosis::{Expectation, Verdict, diagnose};
use umbra_carrier::x509::{CertificateFacts, sha256, spki_sha256};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let mut chain: Vec<CertificateDer<'_>> = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (certificate, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)).min(behind.len()));
        chain.push(CertificateDer::from(certificate));
        rest = behind;
    }
    for certificate in &chain {
        if let Ok(facts) = CertificateFacts::read(certificate) {
            assert!(spki_sha256(certificate).is_ok());
            plain(&facts.subject);
            plain(&facts.issuer);
            facts.san.iter().for_each(|name| plain(name));
        }
    }
    let expectations = [
        Expectation::default(),
        Expectation {
            host: Some("server.test"),
            root_fingerprint: chain.last().map(|root| sha256(root)),
            now: Some(1_800_000_000),
        },
        Expectation { host: Some("192.0.2.1"), root_fingerprint: Some([0; 32]), now: Some(i64::MAX) },
    ];
    for expectation in &expectations {
        for finding in diagnose(&chain, expectation) {
            assert_eq!(finding.advice.is_empty(), finding.verdict == Verdict::Pass, "{finding:?}");
            assert!(finding.certificate.is_none_or(|index| index < chain.len()), "{finding:?}");
            plain(&finding.sentence);
            plain(&finding.advice);
        }
    }
});

fn plain(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
