//! Why some cases end otherwise here than x509-limbo says. Each line was looked at; what turned out to be a weakness was
//! mended instead.

const NO_CA: &str = "Stricter on purpose: a CA certificate is never a server's own certificate.";
const ROOT: &str = "A root that is pinned is trusted for itself: what it says about how it may be found or used, beyond CA flag, key usage, path length, names and dates, isn't asked.";
const IDENTIFIERS: &str = "Key identifiers only help to find the issuer faster; the issuer is found by its name and proven by its signature.";
const END_LIMITS: &str = "Limits in an end certificate bind nobody, since it vouches for nobody.";
const FORMAL: &str =
    "A rule for those who issue certificates; breaking it lets nobody pass for somebody else.";
const COMMON_NAME: &str =
    "The common name is never compared with anything: only alternative names count.";
const EMPTY_LIMITS: &str = "Limits that name nothing limit nothing.";
const SUFFIXES: &str = "There is no list of public suffixes here. Whoever can have such a name signed by a root that is pinned has that root.";
const ODD_LENGTH: &str = "An odd length makes a key no weaker; it has at least 2048 bits.";

/// Case and reason.
pub(crate) const REASONS: &[(&str, &str)] = &[
    ("pathlen::validation-ignores-pathlen-in-leaf", NO_CA),
    (
        "pathlen::self-issued-certs-pathlen",
        "Stricter: the verification counts a CA that only renewed its own key as one more intermediate certificate, except directly below the root.",
    ),
    ("rfc5280::aki::critical-aki", ROOT),
    ("rfc5280::aki::leaf-missing-aki", IDENTIFIERS),
    ("rfc5280::aki::intermediate-missing-aki", IDENTIFIERS),
    ("rfc5280::aki::cross-signed-root-missing-aki", IDENTIFIERS),
    (
        "rfc5280::nc::permitted-dns-match-noncritical",
        "The limits are kept all the same, though they aren't marked critical.",
    ),
    (
        "rfc5280::nc::permitted-self-issued",
        "Stricter: the limits on names also bind a CA that only renewed its own key.",
    ),
    (
        "rfc5280::nc::invalid-dnsname-leading-period",
        "A limit with a leading period is common outside of the standard; it is read as: names below this one, and so allows less.",
    ),
    ("rfc5280::nc::not-allowed-in-ee-noncritical", END_LIMITS),
    ("rfc5280::nc::not-allowed-in-ee-critical", END_LIMITS),
    ("rfc5280::san::noncritical-with-empty-subject", FORMAL),
    (
        "rfc5280::san::underscore-dns",
        "Names with an underscore exist in local networks; the name has to be the same, character for character.",
    ),
    ("rfc5280::serial::too-long", FORMAL),
    ("rfc5280::serial::zero", FORMAL),
    ("rfc5280::ski::critical-ski", ROOT),
    ("rfc5280::ski::root-missing-ski", IDENTIFIERS),
    ("rfc5280::ski::intermediate-missing-ski", IDENTIFIERS),
    ("rfc5280::ca-empty-subject", FORMAL),
    ("rfc5280::unknown-critical-extension-root", ROOT),
    ("rfc5280::root-non-critical-basic-constraints", ROOT),
    (
        "rfc5280::leaf-ku-keycertsign",
        "Without the CA flag it can vouch for nobody, whatever its key usage says.",
    ),
    ("rfc5280::ca-as-leaf", NO_CA),
    (
        "webpki::aki::root-with-aki-missing-keyidentifier",
        IDENTIFIERS,
    ),
    (
        "webpki::aki::root-with-aki-authoritycertissuer",
        IDENTIFIERS,
    ),
    (
        "webpki::aki::root-with-aki-authoritycertserialnumber",
        IDENTIFIERS,
    ),
    ("webpki::aki::root-with-aki-all-fields", IDENTIFIERS),
    ("webpki::aki::root-with-aki-ski-mismatch", IDENTIFIERS),
    ("webpki::cn::ipv4-hex-mismatch", COMMON_NAME),
    ("webpki::cn::ipv4-leading-zeros-mismatch", COMMON_NAME),
    ("webpki::cn::ipv6-uppercase-mismatch", COMMON_NAME),
    ("webpki::cn::ipv6-uncompressed-mismatch", COMMON_NAME),
    ("webpki::cn::ipv6-non-rfc5952-mismatch", COMMON_NAME),
    ("webpki::cn::punycode-not-in-san", COMMON_NAME),
    ("webpki::cn::utf8-vs-punycode-mismatch", COMMON_NAME),
    ("webpki::cn::not-in-san", COMMON_NAME),
    ("webpki::cn::case-mismatch", COMMON_NAME),
    (
        "webpki::eku::ee-anyeku",
        "Server authentication stands beside “any purpose”, and only that is asked for.",
    ),
    ("webpki::eku::ee-critical-eku", FORMAL),
    (
        "webpki::eku::ee-without-eku",
        "A certificate without the extension is for every purpose, as the standard says; private CAs often leave it out.",
    ),
    ("webpki::eku::root-has-eku", ROOT),
    (
        "webpki::nc::intermediate-permitted-excluded-subtrees-both-null",
        EMPTY_LIMITS,
    ),
    (
        "webpki::nc::intermediate-permitted-excluded-subtrees-both-empty-sequences",
        EMPTY_LIMITS,
    ),
    (
        "webpki::san::public-suffix-multi-label-wildcard-san",
        SUFFIXES,
    ),
    (
        "webpki::san::public-suffix-private-namespace-wildcard-san",
        SUFFIXES,
    ),
    ("webpki::san::san-critical-with-nonempty-subject", FORMAL),
    (
        "webpki::malformed-aia",
        "Nothing is ever fetched from an address in a certificate, so it isn't read.",
    ),
    (
        "webpki::forbidden-rsa-not-divisible-by-8-in-root",
        ODD_LENGTH,
    ),
    (
        "webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf",
        ODD_LENGTH,
    ),
];

/// The reason for this case.
pub(crate) fn find(id: &str) -> Option<(&'static str, &'static str)> {
    REASONS.iter().copied().find(|(known, _)| *known == id)
}
