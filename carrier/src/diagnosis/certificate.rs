//! What is looked at in each certificate of the chain: as a CA, as the server's own, and in any case.

use super::chain::{Member, Order};
use super::host::Host;
use super::{Check, Expectation, Finding};
use crate::x509::{Signed, date_text, printable};

/// Names that are listed in a sentence.
const NAMES_SHOWN: usize = 8;

/// Below this many seconds a root's end is near: a year.
const ROOT_LEFT: i64 = 365 * 86_400;
/// And for the others: thirty days.
const END_LEFT: i64 = 30 * 86_400;

/// The findings about the certificate at `position` of the path; 0 is the server's own.
pub(super) fn check(
    order: &Order<'_>,
    position: usize,
    expectation: &Expectation<'_>,
    findings: &mut Vec<Finding>,
) {
    let member = order.path[position];
    let mut add = |finding: Finding| findings.push(finding.about(member));
    if position > 0 {
        add(check_ca_flag(member));
        add(check_key_usage(member));
        add(check_path_length(order, position));
    } else {
        add(check_end(member));
        if let Some(issuer) = order.path.get(1) {
            add(check_distinct(member, issuer));
        }
    }
    if !is_anchor(order, position) {
        add(check_version(member));
        add(check_extensions(member));
    }
    if let Some(finding) = check_signature(order, position) {
        add(finding);
    }
    add(check_algorithm(order, position));
    add(check_key(member));
    if let Some(now) = expectation.now {
        add(check_dates(member, now));
        if let Some(finding) = check_lifetime(order, position, now) {
            add(finding);
        }
    }
    if position > 0 && !is_anchor(order, position) {
        add(check_authority_purpose(member));
    }
    if position == 0 {
        add(check_purpose(member));
        add(check_names(member));
        if let Some(host) = expectation.host {
            add(check_host(member, host));
        }
    }
}

/// Whether this is the top of a chain, for which nobody vouches but itself.
fn is_anchor(order: &Order<'_>, position: usize) -> bool {
    let member = order.path[position];
    position > 0 && position + 1 == order.path.len() && (member.anchor || member.facts.self_signed)
}

fn check_ca_flag(member: &Member<'_>) -> Finding {
    let name = member.facts.display_name();
    let advice = "Make this certificate anew, with “CA: true” in its basic constraints.";
    match member.facts.is_ca {
        Some(true) => Finding::pass(Check::CaFlag, format!("“{name}” is a CA certificate")),
        Some(false) => Finding::fail(
            Check::CaFlag,
            format!("“{name}” signs others, but its CA flag is false"),
            advice,
        ),
        None => Finding::fail(
            Check::CaFlag,
            format!("“{name}” signs others, but has no CA flag"),
            advice,
        ),
    }
}

fn check_key_usage(member: &Member<'_>) -> Finding {
    let name = member.facts.display_name();
    match member.facts.may_sign_certificates {
        Some(true) | None => Finding::pass(
            Check::KeyUsage,
            format!("the key usage of “{name}” allows to sign certificates"),
        ),
        Some(false) => Finding::fail(
            Check::KeyUsage,
            format!("the key usage of “{name}” doesn't allow to sign certificates"),
            "Make this certificate anew, with “certificate sign” (keyCertSign) in its key usage.",
        ),
    }
}

fn check_path_length(order: &Order<'_>, position: usize) -> Finding {
    let facts = &order.path[position].facts;
    let name = facts.display_name();
    // The server's own certificate doesn't count. A CA that only renewed its own key doesn't either by the standard, but the
    // verification counts it below an intermediate certificate.
    let below = order.path[1..position]
        .iter()
        .filter(|member| !is_anchor(order, position) || member.facts.subject != member.facts.issuer)
        .count();
    match facts.path_len {
        Some(allowed) if usize::try_from(allowed).is_ok_and(|allowed| below > allowed) => {
            Finding::fail(
                Check::PathLength,
                format!(
                    "“{name}” allows {allowed} intermediate certificates below it, and there are {below}"
                ),
                "Make this certificate anew with a larger path length (CA counter), or without one.",
            )
        }
        Some(_) | None => Finding::pass(
            Check::PathLength,
            format!("the path length of “{name}” fits"),
        ),
    }
}

fn check_end(member: &Member<'_>) -> Finding {
    let name = member.facts.display_name();
    match member.facts.is_ca {
        Some(true) => Finding::fail(
            Check::EndCertificate,
            format!("the server's own certificate “{name}” is a CA certificate"),
            "Have a certificate of the type “end entity” signed for the server: “CA: false” in its basic constraints.",
        ),
        Some(false) | None => Finding::pass(
            Check::EndCertificate,
            format!("the server's own certificate “{name}” isn't a CA certificate"),
        ),
    }
}

fn check_distinct(end: &Member<'_>, issuer: &Member<'_>) -> Finding {
    if end.facts.subject == issuer.facts.subject {
        Finding::warn(
            Check::DistinctNames,
            "the server's own certificate has the same name as its issuer, which some programs take for self-signed",
            "Give the server's certificate another name than the root has.",
        )
    } else {
        Finding::pass(
            Check::DistinctNames,
            "the server's own certificate has a name of its own",
        )
    }
}

fn check_signature(order: &Order<'_>, position: usize) -> Option<Finding> {
    let name = order.path[position].facts.display_name();
    let by = match order.path.get(position + 1) {
        Some(issuer) => format!("“{}”", issuer.facts.display_name()),
        None => "itself".to_owned(),
    };
    match order.signatures.get(position).copied().flatten()? {
        Signed::Yes => Some(Finding::pass(
            Check::Signature,
            format!("“{name}” is signed by {by}"),
        )),
        Signed::No => Some(Finding::fail(
            Check::Signature,
            format!("the signature of “{name}” isn't by {by}, although the names say so"),
            "The issuer's certificate may have been renewed with another key, or this one is damaged: use the two \
             that belong together.",
        )),
        // Said by the check of the algorithm.
        Signed::UnknownAlgorithm => None,
    }
}

fn check_algorithm(order: &Order<'_>, position: usize) -> Finding {
    let facts = &order.path[position].facts;
    let (name, algorithm) = (facts.display_name(), &facts.signature);
    let unknown =
        order.signatures.get(position).copied().flatten() == Some(Signed::UnknownAlgorithm);
    if is_anchor(order, position) {
        // A root is trusted for itself: nobody relies on its signature.
        return if facts.signature_is_weak {
            Finding::warn(
                Check::SignatureAlgorithm,
                format!("“{name}” is signed with {algorithm}, which is outdated"),
                "As a root it still works. Plan to replace it.",
            )
        } else {
            Finding::pass(
                Check::SignatureAlgorithm,
                format!("“{name}” is signed with {algorithm}"),
            )
        };
    }
    if facts.signature_is_weak {
        Finding::fail(
            Check::SignatureAlgorithm,
            format!("“{name}” is signed with {algorithm}, which can be forged"),
            "Have this certificate signed anew, with SHA-256.",
        )
    } else if unknown {
        Finding::fail(
            Check::SignatureAlgorithm,
            format!(
                "“{name}” is signed with {algorithm} and its issuer's key in a way that isn't supported"
            ),
            "Have this certificate signed anew: with RSA (2048 to 8192 bits), ECDSA P-256, ECDSA P-384 or Ed25519.",
        )
    } else {
        Finding::pass(
            Check::SignatureAlgorithm,
            format!("“{name}” is signed with {algorithm}"),
        )
    }
}

fn check_key(member: &Member<'_>) -> Finding {
    let (name, key) = (member.facts.display_name(), &member.facts.key);
    if member.facts.key_is_usable {
        Finding::pass(Check::PublicKey, format!("the key of “{name}” is {key}"))
    } else {
        Finding::fail(
            Check::PublicKey,
            format!("the key of “{name}” is {key}, which isn't supported"),
            "Make this certificate anew with a key of another kind: RSA (2048 to 8192 bits), ECDSA P-256, ECDSA P-384 \
             or Ed25519.",
        )
    }
}

fn check_dates(member: &Member<'_>, now: i64) -> Finding {
    let facts = &member.facts;
    let name = facts.display_name();
    if now > facts.not_after {
        Finding::fail(
            Check::Validity,
            format!("“{name}” expired on {}", date_text(facts.not_after)),
            format!(
                "Renew this certificate, if today's date is not far from {}; otherwise set the clock.",
                date_text(now)
            ),
        )
    } else if now < facts.not_before {
        Finding::fail(
            Check::Validity,
            format!(
                "“{name}” isn't valid before {}",
                date_text(facts.not_before)
            ),
            format!(
                "Check the clock first: here it is {}. Otherwise make the certificate anew.",
                date_text(now)
            ),
        )
    } else {
        Finding::pass(
            Check::Validity,
            format!("“{name}” is valid until {}", date_text(facts.not_after)),
        )
    }
}

fn check_version(member: &Member<'_>) -> Finding {
    let (name, version) = (member.facts.display_name(), member.facts.version);
    if version == 3 {
        Finding::pass(
            Check::Version,
            format!("“{name}” is a certificate of X.509 version 3"),
        )
    } else {
        Finding::fail(
            Check::Version,
            format!(
                "“{name}” is a certificate of X.509 version {version}, which says nothing about what it is for"
            ),
            "Make this certificate anew, as X.509 version 3.",
        )
    }
}

fn check_extensions(member: &Member<'_>) -> Finding {
    let (name, unknown) = (member.facts.display_name(), &member.facts.unknown_critical);
    if unknown.is_empty() {
        Finding::pass(
            Check::CriticalExtensions,
            format!("“{name}” demands nothing that isn't known here"),
        )
    } else {
        Finding::fail(
            Check::CriticalExtensions,
            format!(
                "“{name}” has a critical extension that isn't known here: {}",
                list(unknown)
            ),
            "Make this certificate anew without that extension, or without marking it critical.",
        )
    }
}

fn check_lifetime(order: &Order<'_>, position: usize, now: i64) -> Option<Finding> {
    let facts = &order.path[position].facts;
    let left = facts.not_after.saturating_sub(now);
    if left < 0 || now < facts.not_before {
        // Said by the check of the dates.
        return None;
    }
    let (name, until) = (facts.display_name(), date_text(facts.not_after));
    Some(if is_anchor(order, position) && left < ROOT_LEFT {
        Finding::warn(
            Check::Lifetime,
            format!("the root certificate “{name}” is only valid until {until}"),
            "Make a new root now: when this one expires, all certificates have to be replaced and all devices taken on \
             again. Give it as many years as you can.",
        )
    } else if left < END_LEFT {
        Finding::warn(
            Check::Lifetime,
            format!("“{name}” is only valid until {until}"),
            "Have it signed anew by the same issuer and for the same names before that day; no device notices.",
        )
    } else {
        Finding::pass(Check::Lifetime, format!("“{name}” won't expire soon"))
    })
}

fn check_authority_purpose(member: &Member<'_>) -> Finding {
    let name = member.facts.display_name();
    match member.facts.may_be_server {
        Some(true) | None => {
            Finding::pass(Check::Purpose, format!("“{name}” may vouch for servers"))
        }
        Some(false) => Finding::fail(
            Check::Purpose,
            format!(
                "“{name}” may not vouch for servers: its extended key usage lacks server authentication"
            ),
            "Make this certificate anew, with “server authentication” in its extended key usage, or without that extension.",
        ),
    }
}

fn check_purpose(member: &Member<'_>) -> Finding {
    match member.facts.may_be_server {
        Some(true) | None => Finding::pass(
            Check::Purpose,
            "the server's own certificate may be used by a server",
        ),
        Some(false) => Finding::fail(
            Check::Purpose,
            "the server's own certificate isn't meant for servers",
            "Have it signed anew, with “server authentication” in its extended key usage, or without that extension.",
        ),
    }
}

fn check_names(member: &Member<'_>) -> Finding {
    if member.facts.names.is_empty() {
        Finding::fail(
            Check::AlternativeNames,
            "the server's own certificate has no host name and no IP address among its subject alternative names",
            "Have it signed anew, with every host name and IP address, internal and external, under which the server \
             is reached. The common name isn't enough.",
        )
    } else {
        Finding::pass(
            Check::AlternativeNames,
            format!(
                "the server's own certificate is for {}",
                list(&member.facts.san)
            ),
        )
    }
}

fn check_host(member: &Member<'_>, host: &str) -> Finding {
    let shown = printable(host, 80);
    let Some(host) = Host::read(host) else {
        return Finding::fail(
            Check::Host,
            format!("“{shown}” is neither a host name nor an IP address"),
            "Give the server's host name or IP address.",
        );
    };
    if member
        .facts
        .names
        .iter()
        .any(|name| host.is_covered_by(name))
    {
        return Finding::pass(
            Check::Host,
            format!("the server's own certificate covers “{shown}”"),
        );
    }
    let advice = if member
        .facts
        .names
        .iter()
        .any(|name| host.is_written_as_name(name))
    {
        format!(
            "The certificate has {shown} as a host name: have it signed anew, with an entry of the type IP address."
        )
    } else {
        format!(
            "Connect to a name that is in the certificate, or have it signed anew with “{shown}” among its subject \
             alternative names."
        )
    };
    let sentence = if member.facts.san.is_empty() {
        format!(
            "the server's own certificate isn't for “{shown}”: it has no subject alternative names"
        )
    } else {
        format!(
            "the server's own certificate isn't for “{shown}”: it is for {}",
            list(&member.facts.san)
        )
    };
    Finding::fail(Check::Host, sentence, advice)
}

fn list(names: &[String]) -> String {
    if names.len() <= NAMES_SHOWN {
        return names.join(", ");
    }
    format!(
        "{} and {} more",
        names[..NAMES_SHOWN].join(", "),
        names.len() - NAMES_SHOWN
    )
}
