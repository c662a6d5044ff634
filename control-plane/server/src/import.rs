//! Using a certificate chain that somebody else issued. The chain is looked at as a device would, and refused with every
//! reason at once; nothing is written unless all is well.

use std::path::PathBuf;

use serde_json::{Value, json};
use umbra_carrier::diagnosis::{self, Check, Expectation, Finding, Verdict, diagnose};
use umbra_carrier::tls::{IdentityError, TlsIdentity};
use umbra_carrier::x509::CertificateFacts;
use umbra_protocol::Fingerprint;
use zeroize::Zeroizing;

use crate::ca::{CaError, CaFiles, read_identity, to_pem};
use crate::files::{self, FileError};

/// Why a chain was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file could not be read or written.
    #[error("a file cannot be used")]
    File(#[from] FileError),
    /// Chain and key are no pair.
    #[error("chain and key cannot be used")]
    Identity(#[from] IdentityError),
    /// Devices would refuse the chain; each reason is a sentence.
    #[error("{}", .0.join(" "))]
    Refused(Vec<String>),
    /// The root is not in the file.
    #[error(
        "the chain ends with “{last}”, which is no root certificate; append the root certificate, because devices compare \
         its fingerprint"
    )]
    NoRoot {
        /// Display name of the last certificate.
        last: String,
    },
    /// Devices have pinned another root.
    #[error(
        "the chain's root {new} is not the root {pinned} that {devices} devices have pinned; they would all have to be \
         taken on again, and --replace-root does it in spite of that"
    )]
    OtherRoot {
        /// Fingerprint of the new root.
        new: Fingerprint,
        /// Fingerprint of the present root.
        pinned: Fingerprint,
        /// How many devices.
        devices: usize,
    },
    /// The present certificates cannot be read.
    #[error("the present certificates cannot be read")]
    Present(#[from] CaError),
}

/// What to import.
#[derive(Debug)]
pub struct Import<'a> {
    /// PEM file with the chain.
    pub chain: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
    /// Names that the certificate has to cover.
    pub hosts: &'a [String],
    /// How many devices have pinned the present root.
    pub devices: usize,
    /// Import another root although devices have pinned the present one.
    pub replace_root: bool,
}

/// Checks the chain and puts it in the place of the present one. Returns the root's fingerprint and what went wrong without
/// being in the way. All that was looked at is told to `tell`, also where the chain is refused for it.
pub fn import(
    files: &CaFiles,
    import: &Import<'_>,
    now: i64,
    tell: &mut dyn FnMut(&[Finding]),
) -> Imported {
    let chain = files::read(&import.chain)?;
    let key = files::read(&import.key)?;
    let identity = TlsIdentity::from_pem(&chain, &key)?;
    let findings = examine(&identity, import.hosts, now);
    tell(&findings);
    let mut warnings = Vec::new();
    let mut reasons: Vec<String> = Vec::new();
    for finding in &findings {
        let sentence = format!("{}. {}", finding.sentence, finding.advice);
        if finding.verdict == Verdict::Fail && !reasons.contains(&sentence) {
            reasons.push(sentence);
        }
    }
    if !reasons.is_empty() {
        return Err(ImportError::Refused(reasons));
    }
    let root = identity.chain().last().unwrap_or(identity.certificate());
    match CertificateFacts::read(root) {
        Ok(facts) if facts.self_signed => {}
        Ok(facts) => {
            return Err(ImportError::NoRoot {
                last: facts.display_name(),
            });
        }
        Err(error) => return Err(ImportError::Refused(vec![error.to_string()])),
    }
    let new = Fingerprint::of_certificate(root);
    if import.devices > 0 && !import.replace_root && files.server.exists() {
        let present = read_identity(&files.server)?;
        let present = present
            .chain()
            .last()
            .map(|der| Fingerprint::of_certificate(der));
        if let Some(pinned) = present
            && pinned != new
        {
            return Err(ImportError::OtherRoot {
                new,
                pinned,
                devices: import.devices,
            });
        }
    }
    let mut pem = Zeroizing::new(String::new());
    for certificate in identity.chain() {
        pem.push_str(&to_pem("CERTIFICATE", certificate));
    }
    pem.push_str(&key);
    files::write(&files.server, pem.as_bytes(), 0o600)?;
    // A private root would be used again at the next start; it stays as a file of another name.
    if files.authority.exists() {
        let kept = files.authority.with_extension("pem.unused");
        if let Err(error) = std::fs::rename(&files.authority, &kept) {
            warnings.push(format!(
                "{} could not be put aside: {error}",
                files.authority.display()
            ));
        }
    }
    Ok((new, warnings))
}

/// What became of an import.
pub type Imported = Result<(Fingerprint, Vec<String>), ImportError>;

/// The whole list for a person: every check there is, also those for which there was nothing to look at.
pub fn as_text(findings: &[Finding]) -> String {
    let mut text = diagnosis::report(findings);
    for (check, why) in skipped(findings) {
        text.push_str(&format!("{:>4}  {:<19}  {why}\n", "--", check.id()));
    }
    text
}

/// The same for a program, with what became of the import; docs/diagnosis.md describes the members.
pub fn as_json(findings: &[Finding], imported: &Imported) -> String {
    let mut checks: Vec<Value> = findings.iter().map(diagnosis::to_json).collect();
    checks.extend(
        skipped(findings).map(
            |(check, why)| json!({"check": check.id(), "verdict": "skipped", "sentence": why}),
        ),
    );
    let (root, warnings, reason) = match imported {
        Ok((root, warnings)) => (Some(root.to_string()), warnings.clone(), None),
        Err(error) => (
            None,
            Vec::new(),
            Some(umbra_carrier::causes::clause_of(error)),
        ),
    };
    let document = json!({
        "imported": imported.is_ok(),
        "root_fingerprint": root,
        "reason": reason,
        "warnings": warnings,
        "checks": checks,
    });
    format!("{document:#}")
}

/// The checks that found nothing to look at.
fn skipped(findings: &[Finding]) -> impl Iterator<Item = (Check, &'static str)> {
    Check::ALL
        .into_iter()
        .filter(|check| !findings.iter().any(|finding| finding.check == *check))
        .map(|check| (check, why_skipped(check)))
}

fn why_skipped(check: Check) -> &'static str {
    match check {
        Check::RootFingerprint => "not compared: this chain says itself which root is meant",
        Check::Host => "not compared: no name was given (--host)",
        Check::ChainLength
        | Check::Readable
        | Check::ChainOrder
        | Check::ChainComplete
        | Check::Unrelated
        | Check::Clock
        | Check::CaFlag
        | Check::KeyUsage
        | Check::PathLength
        | Check::EndCertificate
        | Check::DistinctNames
        | Check::Version
        | Check::CriticalExtensions
        | Check::Signature
        | Check::SignatureAlgorithm
        | Check::PublicKey
        | Check::Validity
        | Check::Lifetime
        | Check::Purpose
        | Check::AlternativeNames
        | Check::NameConstraints
        | Check::Verification => {
            "not looked at: nothing in this chain is concerned, or what comes before it failed"
        }
    }
}

/// Every check, and those that depend on a name for each name.
fn examine(identity: &TlsIdentity, hosts: &[String], now: i64) -> Vec<Finding> {
    let nowhere = [None];
    let somewhere: Vec<Option<&str>> = hosts.iter().map(|host| Some(host.as_str())).collect();
    let hosts = if somewhere.is_empty() {
        &nowhere[..]
    } else {
        &somewhere
    };
    let mut all: Vec<Finding> = Vec::new();
    for host in hosts {
        let expectation = Expectation {
            host: *host,
            root_fingerprint: None,
            now: Some(now),
        };
        for finding in diagnose(identity.chain(), &expectation) {
            if !all.contains(&finding) {
                all.push(finding);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    use super::*;
    use crate::ca;

    const NOW: i64 = 1_800_000_000;

    struct Case {
        folder: tempfile::TempDir,
        files: CaFiles,
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let state = folder.path().join("state");
            files::make_private_folder(&state).expect("made");
            Self {
                files: CaFiles::in_folder(&state),
                folder,
            }
        }

        fn import(
            &self,
            chain: &str,
            key: &str,
            devices: usize,
        ) -> Result<Fingerprint, ImportError> {
            let (chain_file, key_file) = (
                self.folder.path().join("chain.pem"),
                self.folder.path().join("key.pem"),
            );
            std::fs::write(&chain_file, chain).expect("written");
            std::fs::write(&key_file, key).expect("written");
            let wanted = Import {
                chain: chain_file,
                key: key_file,
                hosts: &["server.example.com".to_owned()],
                devices,
                replace_root: false,
            };
            let mut told = Vec::new();
            let imported = import(&self.files, &wanted, NOW, &mut |findings| {
                told = findings.to_vec();
            });
            if let Err(ImportError::Refused(reasons)) = &imported {
                // Whoever reads the list finds every reason in it.
                for reason in reasons {
                    assert!(
                        told.iter()
                            .any(|finding| reason.starts_with(&finding.sentence)),
                        "{reason}"
                    );
                }
            }
            assert!(told.len() > 10 || imported.is_err(), "{told:?}");
            imported.map(|(fingerprint, _)| fingerprint)
        }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.not_before = time::OffsetDateTime::from_unix_timestamp(NOW - 1_000).expect("a date");
        params.not_after = time::OffsetDateTime::from_unix_timestamp(NOW + 1_000).expect("a date");
        params
    }

    /// A chain of two and the end certificate's key; `change` may spoil them.
    fn chain(
        change: impl FnOnce(&mut CertificateParams, &mut CertificateParams),
    ) -> (String, String, String) {
        let (mut root, mut end) = (params("Root"), params("server.example.com"));
        root.subject_alt_names.clear();
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        end.is_ca = IsCa::ExplicitNoCa;
        end.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut root, &mut end);
        let (root_key, end_key) = (
            KeyPair::generate().expect("a key"),
            KeyPair::generate().expect("a key"),
        );
        let root_certificate = root.self_signed(&root_key).expect("signed");
        let end = end
            .signed_by(&end_key, &Issuer::from_params(&root, &root_key))
            .expect("signed");
        (end.pem(), root_certificate.pem(), end_key.serialize_pem())
    }

    #[test]
    fn a_good_chain_is_used_from_the_next_start_on() {
        let case = Case::new();
        ca::open(&case.files, &[], NOW).expect("a private root");
        let (end, root, key) = chain(|_, _| ());
        let fingerprint = case.import(&(end + &root), &key, 0).expect("imported");
        let authority = ca::open(&case.files, &["other.example.com".into()], NOW).expect("opens");
        assert_eq!(authority.root_fingerprint, fingerprint);
        assert_eq!(
            authority.root_pem.replace("\r\n", "\n").trim(),
            root.replace("\r\n", "\n").trim()
        );
    }

    #[test]
    fn every_check_there_is_stands_in_the_list_once_or_more_and_says_what_became_of_it() {
        let (end, root, key) = chain(|_, _| ());
        let (bad_end, bad_root, bad_key) = chain(|root, _| root.is_ca = IsCa::ExplicitNoCa);
        for (pem, key, good) in [
            (end + &root, key, true),
            (bad_end + &bad_root, bad_key, false),
        ] {
            let identity = TlsIdentity::from_pem(&pem, &key).expect("a pair");
            let findings = examine(&identity, &["server.example.com".to_owned()], NOW);
            let text = as_text(&findings);
            let imported = if good {
                Ok((Fingerprint::from_bytes([1; 32]), vec!["odd".to_owned()]))
            } else {
                Err(ImportError::Refused(vec!["no CA".to_owned()]))
            };
            let json: Value = serde_json::from_str(&as_json(&findings, &imported)).expect("JSON");
            for check in Check::ALL {
                let id = check.id();
                let line = text
                    .lines()
                    .find(|line| line.split_whitespace().nth(1) == Some(id));
                assert!(line.is_some_and(|line| line.len() > 30), "{id}: {text}");
                let listed = json["checks"].as_array().expect("checks");
                assert!(
                    listed.iter().any(|one| one["check"] == id
                        && one["sentence"].as_str().is_some_and(|said| said.len() > 10)),
                    "{id}: {json}"
                );
            }
            assert_eq!(text.contains("FAIL  ca-flag"), !good, "{text}");
            assert_eq!(json["imported"], good);
            assert_eq!(json["root_fingerprint"].is_string(), good);
            assert_eq!(json["reason"].is_null(), good, "{json}");
            assert_eq!(
                json["warnings"].as_array().map(Vec::len),
                Some(usize::from(good))
            );
        }
    }

    #[test]
    fn each_wrong_chain_is_refused_with_its_reason_and_changes_nothing() {
        let case = Case::new();
        let before = ca::open(&case.files, &[], NOW).expect("a private root");
        let (end, root, key) = chain(|_, _| ());
        let other_key = KeyPair::generate().expect("a key").serialize_pem();
        let good = end.clone() + &root;
        type Spoil = fn(&mut CertificateParams, &mut CertificateParams);
        let spoil = |change: Spoil| {
            let (end, root, key) = chain(change);
            (end + &root, key)
        };
        let cases: Vec<(&str, (String, String))> = vec![
            ("doesn't belong", (good.clone(), other_key)),
            ("is missing", (end.clone(), key.clone())),
            ("CA", spoil(|root, _| root.is_ca = IsCa::ExplicitNoCa)),
            (
                "CA",
                spoil(|_, end| end.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            ),
            (
                "server.example.com",
                spoil(|_, end| {
                    end.subject_alt_names = vec![rcgen::SanType::DnsName(
                        "x.example.com".try_into().expect("a name"),
                    )];
                }),
            ),
            (
                "expired",
                spoil(|_, end| {
                    end.not_after =
                        time::OffsetDateTime::from_unix_timestamp(NOW - 10).expect("a date");
                }),
            ),
            ("certificate", (key.clone(), key.clone())),
        ];
        for (part, (chain, key)) in cases {
            let error = case.import(&chain, &key, 0).expect_err(part);
            let text = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            assert!(text.contains(part), "{part}: {text}");
        }
        let after = ca::open(&case.files, &[], NOW).expect("opens");
        assert_eq!(after.root_fingerprint, before.root_fingerprint);
        assert!(
            matches!(
                case.import(&good, &key, 3),
                Err(ImportError::OtherRoot { devices: 3, .. })
            ),
            "devices have pinned the private root"
        );
    }
}
