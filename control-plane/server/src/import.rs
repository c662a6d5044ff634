//! Using a certificate chain that somebody else issued. The chain is looked at as a device would, and refused with every
//! reason at once; nothing is written unless all is well.

use std::path::PathBuf;

use umbra_carrier::diagnosis::{Expectation, Verdict, diagnose};
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

/// Checks the chain and puts it in the place of the present one. Returns the root's fingerprint and the warnings.
pub fn import(
    files: &CaFiles,
    import: &Import<'_>,
    now: i64,
) -> Result<(Fingerprint, Vec<String>), ImportError> {
    let chain = files::read(&import.chain)?;
    let key = files::read(&import.key)?;
    let identity = TlsIdentity::from_pem(&chain, &key)?;
    let mut reasons = Vec::new();
    let mut warnings = Vec::new();
    let nowhere = [None];
    let somewhere: Vec<Option<&str>> = import.hosts.iter().map(|h| Some(h.as_str())).collect();
    let hosts = if somewhere.is_empty() {
        &nowhere[..]
    } else {
        &somewhere
    };
    for host in hosts {
        let expectation = Expectation {
            host: *host,
            root_fingerprint: None,
            now: Some(now),
        };
        for finding in diagnose(identity.chain(), &expectation) {
            let sentence = format!("{}. {}", finding.sentence, finding.advice);
            let list = match finding.verdict {
                Verdict::Pass => continue,
                Verdict::Warn => &mut warnings,
                Verdict::Fail => &mut reasons,
            };
            if !list.contains(&sentence) {
                list.push(sentence);
            }
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
            import(&self.files, &wanted, NOW).map(|(fingerprint, _)| fingerprint)
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
