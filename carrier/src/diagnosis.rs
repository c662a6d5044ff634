//! What is right and what is wrong with a server's certificates, in sentences that a person can act on. All findings
//! are told at once, from the root down to the server's own certificate. A diagnosis explains; it never decides about
//! trust, which is the business of the TLS set-up.

mod certificate;
mod chain;
mod clock;
mod host;
mod report;
mod verification;

use rustls::pki_types::CertificateDer;

use crate::x509::{CertificateFacts, sha256};
use chain::{Member, Order};
pub use report::{place, report, to_json};
use verification::Outcome;

/// Certificates beyond this many are not looked at.
const MAX_CHAIN: usize = 16;

/// What the certificates are held against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectation<'a> {
    /// The host name or IP address that the certificate must cover; `None`: not checked.
    pub host: Option<&'a str>,
    /// The SHA-256 of the root certificate, where one was agreed on.
    pub root_fingerprint: Option<[u8; 32]>,
    /// The time (seconds since 1970); `None` while the clock isn't plausible: then dates aren't checked.
    pub now: Option<i64>,
}

/// What was looked at. The order is that of the findings for one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// Certificates are there at all, and not too many, neither presented nor one above the other.
    ChainLength,
    /// Each certificate can be read.
    Readable,
    /// The end certificate comes first, and each certificate is followed by its issuer's.
    ChainOrder,
    /// No certificate is missing between the end certificate and the root.
    ChainComplete,
    /// No certificate is there that has nothing to do with the others.
    Unrelated,
    /// The root is the one that was agreed on.
    RootFingerprint,
    /// The clock is plausible, and the certificates don't speak against it, so that dates can be checked.
    Clock,
    /// The CA flag of root and intermediate certificates.
    CaFlag,
    /// The key usage of root and intermediate certificates.
    KeyUsage,
    /// The path length ("CA counter") of root and intermediate certificates.
    PathLength,
    /// The end certificate is no CA certificate.
    EndCertificate,
    /// The end certificate has another name than its issuer.
    DistinctNames,
    /// The version of X.509.
    Version,
    /// No extension is critical that isn't known here.
    CriticalExtensions,
    /// The signature by the next certificate.
    Signature,
    /// The algorithm of the signature.
    SignatureAlgorithm,
    /// The kind and length of the key.
    PublicKey,
    /// The dates.
    Validity,
    /// The end isn't near: a year for a root, a month for the others.
    Lifetime,
    /// The extended key usage of the end certificate and of intermediate certificates.
    Purpose,
    /// The end certificate has subject alternative names.
    AlternativeNames,
    /// They cover the host.
    Host,
    /// A CA certificate that limits the names below it allows those that are there.
    NameConstraints,
    /// What connections do with the chain; it fails only where no other check knows why they refuse it.
    Verification,
}

impl Check {
    /// All checks.
    pub const ALL: [Self; 24] = [
        Self::ChainLength,
        Self::Readable,
        Self::ChainOrder,
        Self::ChainComplete,
        Self::Unrelated,
        Self::RootFingerprint,
        Self::Clock,
        Self::CaFlag,
        Self::KeyUsage,
        Self::PathLength,
        Self::EndCertificate,
        Self::DistinctNames,
        Self::Version,
        Self::CriticalExtensions,
        Self::Signature,
        Self::SignatureAlgorithm,
        Self::PublicKey,
        Self::Validity,
        Self::Lifetime,
        Self::Purpose,
        Self::AlternativeNames,
        Self::Host,
        Self::NameConstraints,
        Self::Verification,
    ];

    /// A short name that never changes: for logs, for looking it up in a manual, for tests.
    pub fn id(self) -> &'static str {
        match self {
            Self::ChainLength => "chain-length",
            Self::Readable => "readable",
            Self::ChainOrder => "chain-order",
            Self::ChainComplete => "chain-complete",
            Self::Unrelated => "unrelated",
            Self::RootFingerprint => "root-fingerprint",
            Self::Clock => "clock",
            Self::CaFlag => "ca-flag",
            Self::KeyUsage => "key-usage",
            Self::PathLength => "path-length",
            Self::EndCertificate => "end-certificate",
            Self::DistinctNames => "distinct-names",
            Self::Version => "version",
            Self::CriticalExtensions => "critical-extensions",
            Self::Signature => "signature",
            Self::SignatureAlgorithm => "signature-algorithm",
            Self::PublicKey => "public-key",
            Self::Validity => "validity",
            Self::Lifetime => "lifetime",
            Self::Purpose => "purpose",
            Self::AlternativeNames => "alternative-names",
            Self::Host => "host",
            Self::NameConstraints => "name-constraints",
            Self::Verification => "verification",
        }
    }

    /// The part of the certificate that it is about, as certificate tools name it; empty for checks of the whole chain.
    pub fn field(self) -> &'static str {
        match self {
            Self::ChainLength
            | Self::Readable
            | Self::ChainOrder
            | Self::ChainComplete
            | Self::Unrelated
            | Self::RootFingerprint
            | Self::Clock
            | Self::Verification => "",
            Self::CaFlag | Self::EndCertificate => "basicConstraints CA (2.5.29.19)",
            Self::PathLength => "basicConstraints pathLenConstraint (2.5.29.19)",
            Self::KeyUsage => "keyUsage (2.5.29.15)",
            Self::DistinctNames => "subject",
            Self::Version => "version",
            Self::CriticalExtensions => "extensions",
            Self::NameConstraints => "nameConstraints (2.5.29.30)",
            Self::Signature => "signatureValue",
            Self::SignatureAlgorithm => "signatureAlgorithm",
            Self::PublicKey => "subjectPublicKeyInfo",
            Self::Validity | Self::Lifetime => "validity",
            Self::Purpose => "extendedKeyUsage (2.5.29.37)",
            Self::AlternativeNames | Self::Host => "subjectAltName (2.5.29.17)",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// All is well.
    Pass,
    /// The connection works in spite of it, or it couldn't be checked.
    Warn,
    /// The connection is refused for it.
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How it ended.
    pub verdict: Verdict,
    /// The certificate it is about: its place among the presented ones, counted from 0. `None`: the whole chain, or a root
    /// that isn't presented.
    pub certificate: Option<usize>,
    /// That certificate's subject.
    pub subject: Option<String>,
    /// The part of the certificate, as certificate tools name it.
    pub field: &'static str,
    /// What was found.
    pub sentence: String,
    /// What to do about it; empty where all is well.
    pub advice: String,
}

impl Finding {
    fn chain(
        check: Check,
        verdict: Verdict,
        sentence: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            check,
            verdict,
            certificate: None,
            subject: None,
            field: check.field(),
            sentence: sentence.into(),
            advice: advice.into(),
        }
    }

    fn about(self, member: &Member<'_>) -> Self {
        Self {
            certificate: member.presented.then_some(member.index),
            subject: Some(member.facts.display_name()),
            ..self
        }
    }

    fn pass(check: Check, sentence: impl Into<String>) -> Self {
        Self::chain(check, Verdict::Pass, sentence, "")
    }

    fn warn(check: Check, sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::chain(check, Verdict::Warn, sentence, advice)
    }

    fn fail(check: Check, sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::chain(check, Verdict::Fail, sentence, advice)
    }
}

/// The first finding for which a connection is refused.
pub fn first_failure(findings: &[Finding]) -> Option<&Finding> {
    findings
        .iter()
        .find(|finding| finding.verdict == Verdict::Fail)
}

/// Looks at everything that can be wrong with the certificates that a server presents (its own first, as in TLS), or
/// that someone is about to give to a server.
pub fn diagnose(chain: &[CertificateDer<'_>], expectation: &Expectation<'_>) -> Vec<Finding> {
    diagnose_with_roots(chain, &[], expectation)
}

/// As [`diagnose`], held against roots that are trusted already, whether the server presents them or not. Where the
/// expectation names a fingerprint too, that alone decides.
pub fn diagnose_with_roots(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    expectation: &Expectation<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if chain.is_empty() {
        findings.push(Finding::fail(
            Check::ChainLength,
            "there is no certificate",
            "Give the server its certificate, followed by the intermediate certificates and the root certificate.",
        ));
        return findings;
    }
    if chain.len() > MAX_CHAIN {
        findings.push(Finding::fail(
            Check::ChainLength,
            format!("there are {} certificates, and only the first {MAX_CHAIN} are looked at", chain.len()),
            "Give the server only its own certificate, the intermediate certificates and the root certificate.",
        ));
    }
    let outcome = verification::ask(chain, roots, expectation);
    let taken = matches!(outcome, Outcome::Taken);
    let members = members(chain, roots, expectation, taken, &mut findings);
    let first_is_end = taken && members.first().is_some_and(|first| first.index == 0);
    // Where several ways lead up from the end certificate, a connection needs only one of them.
    let best = Order::all(&members, first_is_end)
        .into_iter()
        .map(|order| (look(&order, roots, expectation), order))
        .min_by_key(|(found, _)| count_failures(found));
    if let Some((found, order)) = best {
        findings.extend(found);
        let failed = first_failure(&findings).is_some();
        findings.extend(verification::check(&outcome, &order, failed));
    }
    findings
}

/// The certificates that can be read: those presented, and the roots that are trusted without being presented.
fn members<'a>(
    chain: &'a [CertificateDer<'_>],
    roots: &'a [CertificateDer<'_>],
    expectation: &Expectation<'_>,
    taken: bool,
    findings: &mut Vec<Finding>,
) -> Vec<Member<'a>> {
    let is_anchor = |der: &[u8]| match expectation.root_fingerprint {
        Some(expected) => sha256(der) == expected,
        None => roots.iter().any(|root| root.as_ref() == der),
    };
    let mut members = Vec::new();
    for (index, der) in chain.iter().take(MAX_CHAIN).enumerate() {
        match CertificateFacts::read(der) {
            Ok(facts) => members.push(Member {
                index,
                presented: true,
                anchor: is_anchor(der),
                der,
                facts,
            }),
            Err(error) => findings.push(Finding {
                certificate: Some(index),
                ..Finding::chain(
                    Check::Readable,
                    // A connection passes over what it can't read, if it doesn't need it.
                    if taken { Verdict::Warn } else { Verdict::Fail },
                    format!("certificate {} can't be used: {error}", index + 1),
                    "Export this certificate once more, as X.509 in PEM format, and give it to the server again.",
                )
            }),
        }
    }
    if expectation.root_fingerprint.is_some() {
        return members;
    }
    for (index, root) in roots.iter().enumerate() {
        if members.iter().any(|member| member.der == root.as_ref()) {
            continue;
        }
        if let Ok(facts) = CertificateFacts::read(root) {
            members.push(Member {
                index: MAX_CHAIN + index,
                presented: false,
                anchor: true,
                der: root,
                facts,
            });
        }
    }
    members
}

/// The findings about one way up from the end certificate.
fn look(
    order: &Order<'_>,
    roots: &[CertificateDer<'_>],
    expectation: &Expectation<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    chain::check(order, roots, expectation, &mut findings);
    findings.push(clock::check(order, expectation));
    for position in (0..order.path.len()).rev() {
        certificate::check(order, position, expectation, &mut findings);
    }
    findings
}

fn count_failures(findings: &[Finding]) -> usize {
    findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail)
        .count()
}
