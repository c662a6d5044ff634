//! Certificate chains, good and wrong in one named way each, made anew for every run. Nothing of them is ever stored in
//! the repository, and a wrong chain differs from the good one in the named way only.

use std::path::Path;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// What is right or wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Root, one intermediate, a server's certificate: nothing wrong.
    Good,
    /// The server's certificate has expired.
    Expired,
    /// The server's certificate is not valid yet.
    NotYetValid,
    /// The root has expired.
    RootExpired,
    /// The server's certificate is for another name.
    WrongName,
    /// The server's certificate has no subject alternative name at all, only a common name.
    NoSan,
    /// The intermediate says that it is no CA.
    IntermediateNotCa,
    /// The intermediate has no key usage for signing certificates.
    IntermediateMayNotSign,
    /// The upper of two intermediates allows none below it.
    PathLengthExceeded,
    /// The server's certificate is a CA's.
    CaAsEndEntity,
    /// The server's certificate may only be used by clients.
    ClientOnly,
    /// The intermediate is missing from the chain.
    IntermediateMissing,
    /// The chain ends at another root with the same name.
    ForeignRoot,
    /// The server's certificate is signed by itself, with the root's name as issuer nowhere in sight.
    SelfSigned,
    /// The key does not belong to the server's certificate.
    ForeignKey,
}

impl Kind {
    /// Every kind, for tests that go through all of them.
    pub const ALL: [Kind; 15] = [
        Kind::Good,
        Kind::Expired,
        Kind::NotYetValid,
        Kind::RootExpired,
        Kind::WrongName,
        Kind::NoSan,
        Kind::IntermediateNotCa,
        Kind::IntermediateMayNotSign,
        Kind::PathLengthExceeded,
        Kind::CaAsEndEntity,
        Kind::ClientOnly,
        Kind::IntermediateMissing,
        Kind::ForeignRoot,
        Kind::SelfSigned,
        Kind::ForeignKey,
    ];
}

/// A root, and a server's certificate that should lead to it.
pub struct Chain {
    /// The root that the other side trusts.
    pub root: Certificate,
    /// What the server presents, its own certificate first.
    pub presented: Vec<Certificate>,
    /// The server's key.
    pub key: KeyPair,
}

/// Why a chain could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The generator refused.
    #[error("the certificate cannot be made")]
    Generate(#[from] rcgen::Error),
    /// A file could not be written.
    #[error("the certificate cannot be written to a file")]
    Write(#[from] std::io::Error),
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(common_name: &str) -> CertificateParams {
    let mut params = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Chain {
    /// Makes a chain of this kind for a server of these names (host names or IP addresses).
    pub fn new(kind: Kind, names: &[&str]) -> Result<Self, PkiError> {
        let root_key = KeyPair::generate()?;
        let mut root_params = authority("Harness root");
        if kind == Kind::RootExpired {
            root_params.not_after = date_time_ymd(2021, 1, 1);
        }
        let root = if kind == Kind::ForeignRoot {
            root_params.self_signed(&KeyPair::generate()?)?
        } else {
            root_params.self_signed(&root_key)?
        };
        let root_issuer = Issuer::from_params(&root_params, &root_key);

        let upper_key = KeyPair::generate()?;
        let mut upper_params = authority("Harness upper intermediate");
        upper_params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let upper = upper_params.signed_by(&upper_key, &root_issuer)?;
        let upper_issuer = Issuer::from_params(&upper_params, &upper_key);

        let middle_key = KeyPair::generate()?;
        let mut middle_params = authority("Harness intermediate");
        if kind == Kind::IntermediateNotCa {
            middle_params.is_ca = IsCa::ExplicitNoCa;
        }
        if kind == Kind::IntermediateMayNotSign {
            middle_params.key_usages = vec![KeyUsagePurpose::CrlSign];
        }
        let too_deep = kind == Kind::PathLengthExceeded;
        let above = if too_deep {
            &upper_issuer
        } else {
            &root_issuer
        };
        let middle = middle_params.signed_by(&middle_key, above)?;
        // The generator refuses issuers that may not sign, so it is shown one of the same name that may.
        let middle_name = authority("Harness intermediate");
        let middle_issuer = Issuer::from_params(&middle_name, &middle_key);

        let key = KeyPair::generate()?;
        let leaf_params = leaf(kind, names)?;
        let mut presented = if kind == Kind::SelfSigned {
            vec![leaf_params.self_signed(&key)?]
        } else {
            vec![leaf_params.signed_by(&key, &middle_issuer)?]
        };
        if kind != Kind::SelfSigned && kind != Kind::IntermediateMissing {
            presented.push(middle);
        }
        if too_deep {
            presented.push(upper);
        }
        let key = if kind == Kind::ForeignKey {
            KeyPair::generate()?
        } else {
            key
        };
        Ok(Self {
            root,
            presented,
            key,
        })
    }

    /// The root, as PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// What the server presents, as PEM, its own certificate first.
    pub fn presented_pem(&self) -> String {
        self.presented.iter().map(Certificate::pem).collect()
    }

    /// The server's key, as PEM (PKCS#8).
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// SHA-256 of the root's DER form.
    pub fn root_sha256(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.root.der());
        std::array::from_fn(|index| digest.as_ref()[index])
    }

    /// What the server presents, for rustls.
    pub fn presented_der(&self) -> Vec<CertificateDer<'static>> {
        self.presented
            .iter()
            .map(|certificate| certificate.der().clone())
            .collect()
    }

    /// The server's key, for rustls.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// Writes `root.pem`, `chain.pem` and `key.pem` into a folder.
    pub fn write(&self, folder: &Path) -> Result<(), PkiError> {
        std::fs::write(folder.join("root.pem"), self.root_pem())?;
        std::fs::write(folder.join("chain.pem"), self.presented_pem())?;
        Ok(std::fs::write(folder.join("key.pem"), self.key_pem())?)
    }
}

fn leaf(kind: Kind, names: &[&str]) -> Result<CertificateParams, PkiError> {
    let names: Vec<String> = if kind == Kind::WrongName {
        vec!["another.example".into()]
    } else if kind == Kind::NoSan {
        Vec::new()
    } else {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    let mut params = named(names.first().map_or("localhost", String::as_str));
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if kind == Kind::Expired {
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    if kind == Kind::NotYetValid {
        params.not_before = date_time_ymd(2089, 1, 1);
    }
    if kind == Kind::CaAsEndEntity {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    if kind == Kind::ClientOnly {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{CertificateError, Error, RootCertStore};

    use super::*;

    /// What rustls says of a chain for `localhost`.
    fn verdict(chain: &Chain) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        roots.add(chain.root.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("a verifier");
        let name = ServerName::try_from("localhost").expect("a name");
        let (leaf, rest) = chain.presented.split_first().expect("a certificate");
        let rest: Vec<_> = rest
            .iter()
            .map(|certificate| certificate.der().clone())
            .collect();
        use rustls::client::danger::ServerCertVerifier as _;
        verifier
            .verify_server_cert(leaf.der(), &rest, &name, &[], UnixTime::now())
            .map(drop)
    }

    #[test]
    fn each_kind_is_accepted_or_refused_for_its_own_reason() {
        for kind in Kind::ALL {
            let chain = Chain::new(kind, &["localhost", "127.0.0.1"]).expect("made");
            let verdict = verdict(&chain);
            let expected = match kind {
                // The verifier neither looks at an intermediate's key usage nor at a trust anchor's dates; the key is
                // the handshake's business.
                Kind::Good
                | Kind::IntermediateMayNotSign
                | Kind::RootExpired
                | Kind::ForeignKey => verdict.is_ok(),
                Kind::Expired => refused(&verdict, |error| {
                    matches!(error, CertificateError::ExpiredContext { .. })
                }),
                Kind::NotYetValid => refused(&verdict, |error| {
                    matches!(error, CertificateError::NotValidYetContext { .. })
                }),
                Kind::WrongName | Kind::NoSan => refused(&verdict, |error| {
                    matches!(error, CertificateError::NotValidForNameContext { .. })
                }),
                Kind::IntermediateMissing | Kind::SelfSigned => refused(&verdict, |error| {
                    matches!(error, CertificateError::UnknownIssuer)
                }),
                Kind::ClientOnly => refused(&verdict, |error| {
                    matches!(error, CertificateError::InvalidPurposeContext { .. })
                }),
                Kind::IntermediateNotCa
                | Kind::PathLengthExceeded
                | Kind::CaAsEndEntity
                | Kind::ForeignRoot => verdict.is_err(),
            };
            assert!(expected, "{kind:?}: {verdict:?}");
        }
    }

    fn refused(verdict: &Result<(), Error>, right: impl Fn(&CertificateError) -> bool) -> bool {
        matches!(verdict, Err(Error::InvalidCertificate(error)) if right(error))
    }

    #[test]
    fn a_foreign_key_does_not_belong_to_the_certificate_and_every_other_does() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        for kind in Kind::ALL {
            let chain = Chain::new(kind, &["localhost"]).expect("made");
            let built = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("TLS 1.3")
                .with_no_client_auth()
                .with_single_cert(chain.presented_der(), chain.key_der());
            assert_eq!(built.is_err(), kind == Kind::ForeignKey, "{kind:?}");
        }
    }

    #[test]
    fn two_chains_of_a_kind_share_nothing() {
        let [one, two] = [(); 2].map(|()| Chain::new(Kind::Good, &["localhost"]).expect("made"));
        assert_ne!(one.root_sha256(), two.root_sha256());
        assert_ne!(one.key_pem(), two.key_pem());
    }
}
