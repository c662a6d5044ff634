//! The certificates as a chain: which is the end certificate, whose issuer is whose, what is missing, what is too much.
//! Names lead from one certificate to the next; signatures decide between certificates of the same name.

use super::{Check, Expectation, Finding, Verdict};
use crate::tls::fingerprint;
use crate::x509::{CertificateFacts, Signed, der, sha256, signed_by};

/// A certificate that could be read.
pub(super) struct Member<'a> {
    /// Its place among the presented ones.
    pub index: usize,
    pub der: &'a [u8],
    pub facts: CertificateFacts,
}

/// The certificates in their right order.
pub(super) struct Order<'a> {
    /// From the end certificate up to the root, or as far as it goes.
    pub path: Vec<&'a Member<'a>>,
    /// How each was signed by the one above it; the last one by itself, if it says so.
    pub signatures: Vec<Option<Signed>>,
    /// Those that have no place in the path.
    pub unrelated: Vec<&'a Member<'a>>,
}

impl<'a> Order<'a> {
    /// `None` if there is no readable certificate.
    pub(super) fn of(members: &'a [Member<'a>]) -> Option<Self> {
        let end = find_end(members)?;
        let mut path = vec![end];
        let mut signatures = Vec::new();
        let mut current = end;
        while let Some(shape) = der::shape(current.der) {
            if current.facts.self_signed {
                signatures.push(signature(current, current));
                break;
            }
            let candidates = members.iter().filter(|candidate| {
                der::shape(candidate.der).is_some_and(|candidate| candidate.subject == shape.issuer)
                    && !path.iter().any(|known| known.der == candidate.der)
            });
            let best = candidates
                .map(|candidate| (candidate, signature(current, candidate)))
                .max_by_key(|(candidate, signed)| {
                    (trustworthy(*signed), std::cmp::Reverse(candidate.index))
                });
            let Some((issuer, signed)) = best else {
                // Its own issuer by name, but not by signature: a damaged or forged root.
                let own = (shape.subject == shape.issuer)
                    .then(|| signature(current, current))
                    .flatten();
                signatures.push(own);
                break;
            };
            signatures.push(signed);
            path.push(issuer);
            current = issuer;
        }
        let unrelated = members
            .iter()
            .filter(|member| !path.iter().any(|known| known.index == member.index))
            .collect();
        Some(Self {
            path,
            signatures,
            unrelated,
        })
    }

    pub(super) fn end(&self) -> &Member<'a> {
        // `of` begins every path with the end certificate.
        self.path[0]
    }

    pub(super) fn top(&self) -> &Member<'a> {
        self.path[self.path.len() - 1]
    }

    /// Whether the path ends at a certificate that names itself as its issuer.
    pub(super) fn reaches_root(&self) -> bool {
        der::shape(self.top().der).is_some_and(|shape| shape.subject == shape.issuer)
    }
}

fn trustworthy(signed: Option<Signed>) -> u8 {
    match signed {
        Some(Signed::Yes) => 2,
        Some(Signed::UnknownAlgorithm) | None => 1,
        Some(Signed::No) => 0,
    }
}

fn signature(certificate: &Member<'_>, issuer: &Member<'_>) -> Option<Signed> {
    let issuer = der::shape(issuer.der)?;
    Some(signed_by(&der::shape(certificate.der)?, issuer.public_key))
}

/// The first certificate, as TLS demands; unless it vouches for others: then the one that vouches for none.
fn find_end<'a>(members: &'a [Member<'a>]) -> Option<&'a Member<'a>> {
    let issues = |member: &Member<'_>| {
        let Some(own) = der::shape(member.der) else {
            return false;
        };
        members
            .iter()
            .filter(|other| other.der != member.der)
            .any(|other| {
                // An end certificate that has its root's name isn't issued by itself.
                der::shape(other.der).is_some_and(|other| other.issuer == own.subject)
                    && signature(other, member).is_some_and(|signed| signed != Signed::No)
            })
    };
    let first = members.first()?;
    if !issues(first) {
        return Some(first);
    }
    let others = || members.iter().filter(|member| !issues(member));
    others()
        .find(|member| member.facts.is_ca != Some(true))
        .or_else(|| others().next())
        .or(Some(first))
}

/// The findings about the chain as a whole.
pub(super) fn check(order: &Order<'_>, expectation: &Expectation<'_>, findings: &mut Vec<Finding>) {
    findings.push(check_order(order));
    findings.push(check_complete(order, expectation));
    for member in &order.unrelated {
        findings.push(unrelated(order, member));
    }
    if let Some(expected) = expectation.root_fingerprint {
        findings.push(check_fingerprint(order, expected));
    }
}

fn check_order(order: &Order<'_>) -> Finding {
    if order.end().index != 0 {
        return Finding::fail(
            Check::ChainOrder,
            format!(
                "the server's own certificate “{}” is certificate {} of those presented, and must be the first",
                order.end().facts.display_name(),
                order.end().index + 1
            ),
            "Put the certificates in this order: the server's own, the intermediate ones, the root.",
        );
    }
    if order
        .path
        .windows(2)
        .all(|pair| pair[0].index < pair[1].index)
    {
        Finding::pass(Check::ChainOrder, "the certificates are in the right order")
    } else {
        Finding::warn(
            Check::ChainOrder,
            "the certificates above the server's own are not in order",
            "Put the certificates in this order: the server's own, the intermediate ones, the root.",
        )
    }
}

fn check_complete(order: &Order<'_>, expectation: &Expectation<'_>) -> Finding {
    let top = order.top();
    if order.reaches_root() {
        if order.path.len() == 1 {
            return Finding::fail(
                Check::ChainComplete,
                format!("“{}” is signed by itself, so no CA vouches for it", top.facts.display_name()),
                "Make a root certificate, have it sign a certificate for the server, and give the server both.",
            )
            .about(top);
        }
        return Finding::pass(
            Check::ChainComplete,
            format!(
                "all certificates are there, from the server's own to the root “{}”",
                top.facts.display_name()
            ),
        );
    }
    let issuer = &top.facts.issuer;
    let root_is_there = order
        .unrelated
        .iter()
        .any(|member| member.facts.self_signed);
    if root_is_there {
        return Finding::fail(
            Check::ChainComplete,
            format!(
                "an intermediate certificate is missing: “{}” was issued by “{issuer}”, whose certificate isn't there",
                top.facts.display_name()
            ),
            format!("Add the certificate of “{issuer}” to the server's certificates, before the root."),
        )
        .about(top);
    }
    if order.path.len() == 1 {
        return Finding::fail(
            Check::ChainComplete,
            format!(
                "the server presents its own certificate alone; the certificate of its issuer “{issuer}” is missing"
            ),
            format!("Add the certificate of “{issuer}”, and all above it up to the root, to the server's certificates."),
        )
        .about(top);
    }
    let sentence = format!("the root certificate “{issuer}” isn't among the certificates");
    match expectation.root_fingerprint {
        Some(_) => Finding::fail(
            Check::ChainComplete,
            sentence,
            "Add the root certificate to the server's certificates: its fingerprint is compared.",
        ),
        None => Finding::warn(
            Check::ChainComplete,
            sentence,
            "For a public CA that is usual. For a CA of your own, add the root certificate to the server's certificates.",
        ),
    }
}

fn unrelated(order: &Order<'_>, member: &Member<'_>) -> Finding {
    let name = member.facts.display_name();
    let sentence = if order.path.iter().any(|known| known.der == member.der) {
        format!("“{name}” is presented twice")
    } else {
        format!("“{name}” has nothing to do with the server's own certificate")
    };
    Finding::warn(
        Check::Unrelated,
        sentence,
        "Remove it from the server's certificates.",
    )
    .about(member)
}

fn check_fingerprint(order: &Order<'_>, expected: [u8; 32]) -> Finding {
    let check = Check::RootFingerprint;
    let is_expected = |member: &&&Member<'_>| sha256(member.der) == expected;
    let Some(found) = order.path.iter().chain(&order.unrelated).find(is_expected) else {
        let sentence = if order.reaches_root() {
            let own = fingerprint(&sha256(order.top().der));
            format!(
                "the root certificate has the fingerprint {own} instead of {}",
                fingerprint(&expected)
            )
        } else {
            format!(
                "no certificate has the fingerprint {}",
                fingerprint(&expected)
            )
        };
        return Finding::fail(
            check,
            sentence,
            "Compare the fingerprint with the administrator once more. If it was typed right, someone else may be \
             answering: don't connect.",
        );
    };
    let name = found.facts.display_name();
    let position = order
        .path
        .iter()
        .position(|member| member.index == found.index);
    let (verdict, sentence, advice) = match position {
        None => (
            Verdict::Fail,
            format!(
                "the fingerprint belongs to “{name}”, from which the server's own certificate doesn't come"
            ),
            "Give the server the certificates that belong together.",
        ),
        Some(0) => (
            Verdict::Fail,
            format!(
                "the fingerprint is that of the server's own certificate “{name}”, not of its root"
            ),
            "Use the fingerprint of the root certificate.",
        ),
        Some(_) if found.facts.self_signed => (
            Verdict::Pass,
            format!("the root certificate “{name}” has the expected fingerprint"),
            "",
        ),
        Some(_) => (
            Verdict::Warn,
            format!("the fingerprint is that of the intermediate certificate “{name}”"),
            "Use the fingerprint of the root certificate: it stays when the intermediate certificate is renewed.",
        ),
    };
    Finding::chain(check, verdict, sentence, advice).about(found)
}
