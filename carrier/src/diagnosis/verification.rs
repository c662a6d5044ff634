//! What the TLS connection itself says of the chain. It is asked first, so that the checks never warn of a chain that
//! connections take, and last it is told where none of the checks knew why connections refuse it.

use rustls::pki_types::CertificateDer;

use super::chain::{Member, Order};
use super::{Check, Expectation, Finding};
use crate::tls::{DatePolicy, ServerTrust, TlsError, judge_chain};
use crate::x509::{AltName, CertificateFacts};

/// What connections do with the chain.
pub(super) enum Outcome {
    Taken,
    Refused(Box<TlsError>),
    /// Nothing is known: there is no root to hold the chain against, or no name.
    Unknown,
}

/// Asks. Without roots or a fingerprint that were agreed on, the roots that are presented count as trusted: then it is about
/// whether the chain would do for somebody who trusts them.
pub(super) fn ask(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    expectation: &Expectation<'_>,
) -> Outcome {
    let trust = if let Some(fingerprint) = expectation.root_fingerprint {
        ServerTrust::RootFingerprint(fingerprint)
    } else if !roots.is_empty() {
        ServerTrust::PinnedRoots(owned(roots))
    } else {
        let presented: Vec<CertificateDer<'_>> = chain
            .iter()
            .skip(1)
            .filter(|certificate| is_fit_root(certificate))
            .cloned()
            .collect();
        if presented.is_empty() {
            return Outcome::Unknown;
        }
        ServerTrust::PinnedRoots(owned(&presented))
    };
    let own_name = match expectation.host {
        Some(_) => None,
        None => chain.first().and_then(|end| some_name(end)),
    };
    let Some(host) = expectation.host.or(own_name.as_deref()) else {
        return Outcome::Unknown;
    };
    let (dates, now) = match expectation.now {
        Some(now) => (DatePolicy::Enforce, now),
        None => (DatePolicy::Ignore, 0),
    };
    match judge_chain(chain, trust, host, dates, now) {
        Ok(()) => Outcome::Taken,
        Err(error) => Outcome::Refused(Box::new(error)),
    }
}

/// The finding that closes a diagnosis. `failed`: a check has said already why the chain is refused.
pub(super) fn check(outcome: &Outcome, order: &Order<'_>, failed: bool) -> Option<Finding> {
    let error = match outcome {
        Outcome::Unknown => return None,
        Outcome::Taken if failed => return None,
        Outcome::Taken => {
            return Some(Finding::pass(
                Check::Verification,
                "connections take these certificates",
            ));
        }
        Outcome::Refused(_) if failed => return None,
        Outcome::Refused(error) => error,
    };
    let limited = order
        .path
        .iter()
        .skip(1)
        .find_map(|member| Some((member, member.facts.name_limits.as_deref()?)));
    if let Some((member, limits)) = limited
        && is_about_limits(error)
    {
        return Some(outside_limits(member, limits));
    }
    Some(Finding::fail(
        Check::Verification,
        format!("connections refuse these certificates: {error}"),
        "Have the certificates made anew with the usual tools and settings; details are in the log of whoever was refused.",
    ))
}

/// Whether the refusal is about name constraints. The verification tries a shorter way as well where a CA renewed its own key,
/// and then tells of the signature that didn't fit there; on the way that was found all signatures do.
fn is_about_limits(error: &TlsError) -> bool {
    if let TlsError::CertificateRefused(source) = error {
        return source.to_string().contains("NameConstraint");
    }
    matches!(error, TlsError::SignatureWrong)
}

fn outside_limits(member: &Member<'_>, limits: &str) -> Finding {
    let name = member.facts.display_name();
    Finding::fail(
        Check::NameConstraints,
        format!("“{name}” limits the names below it ({limits}), and a certificate below it has another name"),
        "Have the server's certificate signed for names within these limits, or by a CA without them.",
    )
    .about(member)
}

fn owned(certificates: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
    certificates
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect()
}

/// Whether a presented certificate can stand for a root that is trusted.
fn is_fit_root(certificate: &CertificateDer<'_>) -> bool {
    CertificateFacts::read(certificate).is_ok_and(|facts| {
        facts.self_signed && facts.is_ca == Some(true) && facts.may_sign_certificates != Some(false)
    })
}

/// A name that the certificate covers, for when it doesn't matter which.
fn some_name(end: &CertificateDer<'_>) -> Option<String> {
    let facts = CertificateFacts::read(end).ok()?;
    facts.names.first().map(|name| match name {
        AltName::Dns(name) => match name.strip_prefix("*.") {
            Some(parent) => format!("any.{parent}"),
            None => name.clone(),
        },
        AltName::Ip(address) => address.to_string(),
    })
}
