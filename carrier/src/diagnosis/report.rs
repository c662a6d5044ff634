//! A diagnosis as people and programs read it: one line for each check, with its advice below, or one object. Names from
//! certificates were made safe to show when they were read.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Finding, Verdict};

impl Verdict {
    /// A word that never changes: for scripts.
    pub fn id(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// All findings for a terminal.
pub fn report(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.verdict {
            Verdict::Pass => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{word:>4}  {:<19}  {}",
            finding.check.id(),
            finding.sentence
        );
        if finding.verdict == Verdict::Pass {
            continue;
        }
        if let Some(place) = place(finding) {
            let _ = writeln!(text, "{:>4}  {:<19}  in {place}", "", "");
        }
        if !finding.advice.is_empty() {
            let _ = writeln!(text, "{:>4}  {:<19}  → {}", "", "", finding.advice);
        }
    }
    text
}

/// Where it was found: the certificate and its part.
pub fn place(finding: &Finding) -> Option<String> {
    let certificate = match (finding.certificate, &finding.subject) {
        (Some(index), Some(subject)) => format!("certificate {} (“{subject}”)", index + 1),
        (Some(index), None) => format!("certificate {}", index + 1),
        (None, Some(subject)) => format!("the certificate “{subject}”"),
        (None, None) => return None,
    };
    Some(if finding.field.is_empty() {
        certificate
    } else {
        format!("{certificate}, {}", finding.field)
    })
}

/// A finding for programs; docs/diagnosis.md describes the members.
pub fn to_json(finding: &Finding) -> Value {
    json!({
        "check": finding.check.id(),
        "verdict": finding.verdict.id(),
        "certificate": finding.certificate.map(|index| index + 1),
        "subject": finding.subject,
        "field": if finding.field.is_empty() { None } else { Some(finding.field) },
        "sentence": finding.sentence,
        "advice": if finding.advice.is_empty() { None } else { Some(&finding.advice) },
    })
}
