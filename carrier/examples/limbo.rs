//! Runs the cases of C2SP's x509-limbo that are about servers through the verification of a TLS connection and through the
//! diagnosis, and holds the two against the cases and against each other. Every disagreement stands in a table with its
//! reason; one without a reason, and a reason without a disagreement, is a failure. The cases themselves are not kept here.

#[path = "limbo/reasons.rs"]
mod reasons;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use umbra_carrier::diagnosis::{Check, Expectation, Finding, Verdict, diagnose_with_roots};
use umbra_carrier::tls::{DatePolicy, ServerTrust, TlsError, certificates_from_pem, judge_chain};

/// What one case came to.
enum Outcome {
    NotApplicable(&'static str),
    Judged(Judged),
}

struct Judged {
    wanted: bool,
    verified: Result<(), TlsError>,
    findings: Vec<Finding>,
}

impl Judged {
    fn failures(&self) -> Vec<&Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Fail)
            .collect()
    }

    /// What the two said, in one line.
    fn words(&self) -> String {
        let verified = match &self.verified {
            Ok(()) => "connects".to_owned(),
            Err(error) => format!("refuses: {error}"),
        };
        let failures: Vec<&str> = self
            .failures()
            .iter()
            .map(|finding| finding.check.id())
            .collect();
        let diagnosed = if failures.is_empty() {
            "finds nothing".to_owned()
        } else {
            format!("finds {}", failures.join(", "))
        };
        format!("TLS {verified}; the diagnosis {diagnosed}")
    }
}

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    match run(&mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "limbo: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(out: &mut dyn Write) -> Result<bool, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments
        .next()
        .ok_or("name the file with the cases (limbo.json)")?;
    let all = arguments.any(|argument| argument == "--all");
    let suite: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let cases = suite["testcases"]
        .as_array()
        .ok_or("there are no test cases in this file")?;
    let mut skipped: BTreeMap<&'static str, usize> = BTreeMap::new();
    let (mut agreed, mut known, mut unsaid) = (0, 0, 0);
    let mut faults: Vec<String> = Vec::new();
    for case in cases {
        let id = case["id"].as_str().ok_or("a case without a name")?;
        let judged = match judge(case).map_err(|error| format!("{id}: {error}"))? {
            Outcome::NotApplicable(reason) => {
                *skipped.entry(reason).or_default() += 1;
                if reasons::find(id).is_some() {
                    faults.push(format!(
                        "{id} has a reason in the table, and isn't applicable"
                    ));
                }
                continue;
            }
            Outcome::Judged(judged) => judged,
        };
        if all {
            writeln!(out, "{id}: {}", judged.words())?;
        }
        let (taken, failures) = (judged.verified.is_ok(), judged.failures());
        if taken != failures.is_empty() {
            faults.push(format!(
                "{id}: they contradict each other: {}",
                judged.words()
            ));
        }
        unsaid += usize::from(
            failures
                .iter()
                .any(|finding| finding.check == Check::Verification),
        );
        match (taken == judged.wanted, reasons::find(id)) {
            (true, None) => agreed += 1,
            (true, Some(_)) => faults.push(format!(
                "{id} has a reason in the table, and agrees: strike it out"
            )),
            (false, Some((_, reason))) => {
                known += 1;
                writeln!(out, "disagrees: {id}: {}. Reason: {reason}", judged.words())?;
            }
            (false, None) => faults.push(format!("{id} disagrees: {}", judged.words())),
        }
    }
    for (pattern, _) in reasons::REASONS {
        if !cases.iter().any(|case| case["id"] == *pattern) {
            faults.push(format!(
                "{pattern} stands in the table, and there is no such case"
            ));
        }
    }
    let not_applicable: usize = skipped.values().sum();
    writeln!(
        out,
        "\n{} cases: {agreed} agree, {known} disagree for a known reason, {not_applicable} do not apply.",
        cases.len()
    )?;
    for (reason, count) in &skipped {
        writeln!(out, "  {count:>3} do not apply: {reason}")?;
    }
    writeln!(
        out,
        "In {unsaid} cases the diagnosis only repeats what the verification says; in all others a check of its own knows why."
    )?;
    for fault in &faults {
        writeln!(out, "FAULT: {fault}")?;
    }
    Ok(faults.is_empty() && agreed > 0)
}

/// Runs one case, if it is about what connections of this program do.
fn judge(case: &Value) -> Result<Outcome, Box<dyn std::error::Error>> {
    let skip = |reason| Ok(Outcome::NotApplicable(reason));
    if case["validation_kind"] != "SERVER" {
        return skip(
            "certificates of clients: ours are pinned one by one, and no chain is followed",
        );
    }
    let features: Vec<&str> = case["features"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if features.contains(&"has-crl") {
        return skip(
            "revocation lists: servers' certificates are replaced by the pinned root, not revoked",
        );
    }
    if features.contains(&"max-chain-depth") {
        return skip("a limit of the chain's length that can be set: ours is fixed");
    }
    if features.contains(&"has-policy-constraints") || features.contains(&"has-cert-policies") {
        return skip("certificate policies: neither used nor followed");
    }
    let usages = texts(&case["extended_key_usage"]);
    if usages.iter().any(|usage| usage != "serverAuth") {
        return skip("another purpose than that of a TLS server");
    }
    if case["expected_peer_name"].is_null() {
        return skip("no name to connect to: ours always have one");
    }
    let name = case["expected_peer_name"]["value"]
        .as_str()
        .ok_or("no name")?;
    let chain = [
        pem(case["peer_certificate"].as_str().ok_or("no certificate")?)?,
        pems(&case["untrusted_intermediates"])?,
    ]
    .concat();
    let roots = pems(&case["trusted_certs"])?;
    let now = match case["validation_time"].as_str() {
        Some(text) => moment(text).ok_or("a time that can't be read")?,
        None => i64::try_from(
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)?
                .as_secs(),
        )?,
    };
    let trust = ServerTrust::PinnedRoots(roots.clone());
    let verified = judge_chain(&chain, trust, name, DatePolicy::Enforce, now);
    let expectation = Expectation {
        host: Some(name),
        root_fingerprint: None,
        now: Some(now),
    };
    Ok(Outcome::Judged(Judged {
        wanted: case["expected_result"] == "SUCCESS",
        verified,
        findings: diagnose_with_roots(&chain, &roots, &expectation),
    }))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array()
        .map(|list| {
            list.iter()
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect()
        })
        .unwrap_or_default()
}

fn pems(list: &Value) -> Result<Vec<CertificateDer<'static>>, Box<dyn std::error::Error>> {
    let mut all = Vec::new();
    for text in texts(list) {
        all.extend(pem(&text)?);
    }
    Ok(all)
}

fn pem(text: &str) -> Result<Vec<CertificateDer<'static>>, Box<dyn std::error::Error>> {
    Ok(certificates_from_pem(text)?)
}

/// `2024-01-31T12:00:00+00:00`, perhaps with a fraction of a second, in seconds since 1970. A fraction counts as begun.
fn moment(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix("+00:00")?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (whole, _fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = whole.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    // Years that begin in March, so that leap days come last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}
