//! The certificates as a chain: which is the end certificate, whose issuer is whose, what is missing, what is too much.
//! Names lead from one certificate to the next; signatures decide between certificates of the same name.

use std::collections::HashMap;

use super::{Check, Expectation, Finding, Verdict};
use rustls::pki_types::CertificateDer;

use crate::tls::fingerprint;
use crate::x509::{CertificateFacts, Signed, der, sha256, signed_by};

/// A certificate that could be read.
pub(super) struct Member<'a> {
    /// Its place among the presented ones, and behind them among those that are trusted anyway.
    pub index: usize,
    /// Whether the server presents it.
    pub presented: bool,
    /// Whether it is one of those that are trusted by itself: then nobody asks what is above it.
    pub anchor: bool,
    pub der: &'a [u8],
    pub facts: CertificateFacts,
}

/// How many intermediate certificates the verification follows.
const MAX_INTERMEDIATES: usize = 6;
/// More ways from the end certificate upwards are not tried.
const MAX_PATHS: usize = 32;
/// Nor more steps on all these ways together.
const MAX_STEPS: usize = 1024;

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
    /// All ways up from the end certificate, the likeliest first; none if there is no readable certificate. Where certificates
    /// were renewed or signed by several, there are several. `first_is_end`: the first certificate is known to be the end.
    pub(super) fn all(members: &'a [Member<'a>], first_is_end: bool) -> Vec<Self> {
        let mut signatures = Signatures::default();
        let end = if first_is_end {
            members.first()
        } else {
            find_end(members, &mut signatures)
        };
        let Some(end) = end.filter(|end| end.presented) else {
            return Vec::new();
        };
        let mut search = Search {
            members,
            signatures,
            found: Vec::new(),
            steps: 0,
        };
        search.climb(&mut vec![end]);
        search.found
    }

    pub(super) fn end(&self) -> &Member<'a> {
        // Every path begins with the end certificate.
        self.path[0]
    }

    pub(super) fn top(&self) -> &Member<'a> {
        self.path[self.path.len() - 1]
    }

    /// Whether the path ends at a certificate that is trusted by itself, or that names itself as its issuer.
    pub(super) fn reaches_root(&self) -> bool {
        self.reaches_anchor()
            || der::shape(self.top().der).is_some_and(|shape| shape.subject == shape.issuer)
    }

    /// Whether the path ends above the end certificate, at a certificate that is trusted by itself.
    pub(super) fn reaches_anchor(&self) -> bool {
        self.path.len() > 1 && self.top().anchor
    }
}

/// Which certificate was signed by which, looked at once.
#[derive(Default)]
struct Signatures(HashMap<(usize, usize), Option<Signed>>);

impl Signatures {
    fn of(&mut self, certificate: &Member<'_>, issuer: &Member<'_>) -> Option<Signed> {
        *self
            .0
            .entry((certificate.index, issuer.index))
            .or_insert_with(|| {
                let issuer = der::shape(issuer.der)?;
                Some(signed_by(&der::shape(certificate.der)?, issuer.public_key))
            })
    }
}

struct Search<'a> {
    members: &'a [Member<'a>],
    signatures: Signatures,
    found: Vec<Order<'a>>,
    steps: usize,
}

impl<'a> Search<'a> {
    /// Goes on from the last certificate of `path`.
    fn climb(&mut self, path: &mut Vec<&'a Member<'a>>) {
        self.steps += 1;
        if self.found.len() >= MAX_PATHS || self.steps > MAX_STEPS {
            return;
        }
        let (current, length) = (path[path.len() - 1], path.len());
        let is_top = current.facts.self_signed || (length > 1 && current.anchor);
        let issuers = match der::shape(current.der) {
            Some(shape) if !is_top => self.issuers(&shape, current, path),
            Some(_) | None => Vec::new(),
        };
        if issuers.is_empty() {
            self.keep(path);
        }
        for issuer in issuers {
            path.push(issuer);
            self.climb(path);
            path.truncate(length);
        }
    }

    /// Who may have issued the last certificate of `path`, the likeliest first. Somebody of the same name who didn't sign it
    /// only counts where there is nobody else.
    fn issuers(
        &mut self,
        shape: &der::Shape<'_>,
        current: &Member<'_>,
        path: &[&'a Member<'a>],
    ) -> Vec<&'a Member<'a>> {
        let mut issuers: Vec<(u8, &Member<'_>)> = self
            .members
            .iter()
            .filter(|candidate| {
                der::shape(candidate.der).is_some_and(|issuer| issuer.subject == shape.issuer)
                    && !path.iter().any(|known| known.der == candidate.der)
            })
            .map(|candidate| {
                (
                    trustworthy(self.signatures.of(current, candidate)),
                    candidate,
                )
            })
            .collect();
        issuers.sort_by_key(|(trust, issuer)| {
            (std::cmp::Reverse(*trust), !issuer.anchor, issuer.index)
        });
        if issuers.first().is_some_and(|(trust, _)| *trust > 0) {
            issuers.retain(|(trust, _)| *trust > 0);
        }
        let mut seen: Vec<&[u8]> = Vec::new();
        let mut distinct = Vec::new();
        for (_, issuer) in issuers {
            if !seen.contains(&issuer.der) {
                seen.push(issuer.der);
                distinct.push(issuer);
            }
        }
        distinct
    }

    /// Who vouches for the top of a path that is trusted by itself: nobody asks, but it isn't out of place.
    fn above(&self, path: &[&'a Member<'a>]) -> Vec<&'a Member<'a>> {
        let mut above: Vec<&Member<'_>> = Vec::new();
        let mut current = path
            .last()
            .copied()
            .filter(|top| path.len() > 1 && top.anchor && !top.facts.self_signed);
        while let Some(shape) = current.and_then(|current| der::shape(current.der)) {
            current = self.members.iter().find(|candidate| {
                der::shape(candidate.der).is_some_and(|issuer| issuer.subject == shape.issuer)
                    && !path
                        .iter()
                        .chain(&above)
                        .any(|known| known.der == candidate.der)
            });
            above.extend(current);
        }
        above
    }

    fn keep(&mut self, path: &[&'a Member<'a>]) {
        let mut signatures: Vec<Option<Signed>> = path
            .windows(2)
            .map(|pair| self.signatures.of(pair[0], pair[1]))
            .collect();
        if let Some(top) = path.last() {
            let by_itself = der::shape(top.der).is_some_and(|shape| shape.subject == shape.issuer);
            let signed = by_itself
                .then(|| self.signatures.of(top, top))
                .flatten()
                // Nobody relies on the signature of what is trusted by itself.
                .filter(|signed| *signed != Signed::No || !top.anchor || path.len() == 1);
            signatures.push(signed);
        }
        let above = self.above(path);
        let unrelated = self
            .members
            .iter()
            .filter(|member| {
                let known = |other: &&Member<'_>| other.index == member.index;
                member.presented && !path.iter().any(known) && !above.iter().any(known)
            })
            .collect();
        self.found.push(Order {
            path: path.to_vec(),
            signatures,
            unrelated,
        });
    }
}

fn trustworthy(signed: Option<Signed>) -> u8 {
    match signed {
        Some(Signed::Yes) => 2,
        Some(Signed::UnknownAlgorithm) | None => 1,
        Some(Signed::No) => 0,
    }
}

/// The first certificate, as TLS demands; unless it vouches for others: then the one that vouches for none.
fn find_end<'a>(members: &'a [Member<'a>], signatures: &mut Signatures) -> Option<&'a Member<'a>> {
    let mut issues = |member: &Member<'_>| {
        let Some(own) = der::shape(member.der) else {
            return false;
        };
        members
            .iter()
            .filter(|other| other.presented && other.der != member.der)
            .any(|other| {
                // An end certificate that has its root's name isn't issued by itself.
                der::shape(other.der).is_some_and(|other| other.issuer == own.subject)
                    && signatures
                        .of(other, member)
                        .is_some_and(|signed| signed != Signed::No)
            })
    };
    let first = members.first()?;
    if !issues(first) {
        return Some(first);
    }
    let others: Vec<&Member<'_>> = members
        .iter()
        .filter(|member| member.presented && !issues(member))
        .collect();
    others
        .iter()
        .find(|member| member.facts.is_ca != Some(true))
        .or_else(|| others.first())
        .copied()
        .or(Some(first))
}

/// The findings about the chain as a whole.
pub(super) fn check(
    order: &Order<'_>,
    roots: &[CertificateDer<'_>],
    expectation: &Expectation<'_>,
    findings: &mut Vec<Finding>,
) {
    findings.push(check_order(order));
    if let Some(finding) = check_depth(order) {
        findings.push(finding);
    }
    findings.push(check_complete(order, roots, expectation));
    for member in &order.unrelated {
        findings.push(unrelated(order, member));
    }
    if let Some(expected) = expectation.root_fingerprint {
        findings.push(check_fingerprint(order, expected));
    } else if !roots.is_empty() && order.reaches_root() {
        findings.push(check_anchor(order));
    }
}

/// More intermediate certificates than any TLS library follows.
fn check_depth(order: &Order<'_>) -> Option<Finding> {
    let between = order.path.len().saturating_sub(2);
    (between > MAX_INTERMEDIATES).then(|| {
        Finding::fail(
            Check::ChainLength,
            format!("there are {between} intermediate certificates, and connections follow no more than {MAX_INTERMEDIATES}"),
            "Have the server's certificate issued by a CA that is nearer to the root.",
        )
    })
}

/// Whether the chain ends at one of the roots that are trusted here.
fn check_anchor(order: &Order<'_>) -> Finding {
    let (check, top) = (Check::RootFingerprint, order.top());
    let name = top.facts.display_name();
    if order.reaches_anchor() {
        return Finding::pass(check, format!("“{name}” is a root that is trusted here")).about(top);
    }
    Finding::fail(
        check,
        format!(
            "the root certificate “{name}” (fingerprint {}) is none of those that are trusted here",
            fingerprint(&sha256(top.der))
        ),
        "Compare its fingerprint with the administrator. If the server was given a new root on purpose, enrol the device \
         again; otherwise someone else may be answering: don't connect.",
    )
    .about(top)
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

fn check_complete(
    order: &Order<'_>,
    roots: &[CertificateDer<'_>],
    expectation: &Expectation<'_>,
) -> Finding {
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
    if !roots.is_empty() {
        return Finding::fail(
            Check::ChainComplete,
            format!("{sentence}, and it is none of those that are trusted here"),
            format!("Add the certificate of “{issuer}”, and all above it up to the root, to the server's certificates."),
        )
        .about(top);
    }
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
