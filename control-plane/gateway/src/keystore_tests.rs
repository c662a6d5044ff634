#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

use super::*;

struct Made {
    folder: TempDir,
    root: CertifiedIssuer<'static, KeyPair>,
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["gw.test".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "gw.test");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Made {
    /// A keystore that works but for what `change` does to the certificate.
    fn new(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let root = CertifiedIssuer::self_signed(ca("root"), KeyPair::generate().unwrap()).unwrap();
        let made = Self {
            folder: tempfile::tempdir().unwrap(),
            root,
        };
        let key = KeyPair::generate().unwrap();
        let mut params = leaf();
        change(&mut params);
        let certificate = params.signed_by(&key, &made.root).unwrap();
        made.write("chain.pem", &(certificate.pem() + &made.root.pem()));
        made.write("key.pem", &key.serialize_pem());
        made.write("servers.pem", &made.root.pem());
        made
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn files(&self) -> Keystore {
        let file = |name| -> PathBuf { self.folder.path().join(name) };
        Keystore {
            chain: file("chain.pem"),
            key: file("key.pem"),
            servers: file("servers.pem"),
        }
    }

    fn mistakes(&self) -> Vec<String> {
        Keys::load(&self.files()).unwrap_err().mistakes
    }
}

#[test]
fn a_keystore_that_works_has_nothing_to_be_said_about() {
    let keys = Keys::load(&Made::new(|_| {}).files()).unwrap();
    assert_eq!(keys.warnings, Vec::<String>::new());
    assert_eq!(keys.server_keys().len(), 1);
    assert_eq!(Keys::state(&keys.valid, unix_now()), CertificateState::Good);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let made = Made::new(|_| {});
    made.write("chain.pem", "rubbish");
    std::fs::remove_file(made.files().key).unwrap();
    made.write("servers.pem", "");
    let mistakes = made.mistakes();
    for file in ["key.pem", "servers.pem"] {
        assert!(
            mistakes.iter().any(|line| line.contains(file)),
            "{file}: {mistakes:?}"
        );
    }
}

#[test]
fn a_key_of_another_certificate_and_swapped_files_are_told() {
    let made = Made::new(|_| {});
    made.write("key.pem", &KeyPair::generate().unwrap().serialize_pem());
    assert!(
        made.mistakes()[0].contains("doesn't belong"),
        "{:?}",
        made.mistakes()
    );
    let (chain, key) = (made.read("chain.pem"), made.read("key.pem"));
    made.write("chain.pem", &key);
    made.write("key.pem", &chain);
    assert!(
        made.mistakes()[0].contains("swapped"),
        "{:?}",
        made.mistakes()
    );
}

#[test]
fn a_chain_with_which_no_device_could_connect_is_refused_and_explained() {
    let made = Made::new(|_| {});
    let chain = made.read("chain.pem");
    let end = chain.find("-----END CERTIFICATE-----").unwrap() + 26;
    made.write("chain.pem", &chain[..end]);
    assert!(
        made.mistakes()[0].contains("issuer"),
        "{:?}",
        made.mistakes()
    );

    let no_server = Made::new(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(no_server.mistakes().len(), 1, "{:?}", no_server.mistakes());
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let made = Made::new(|params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let keys = Keys::load(&made.files()).unwrap();
    assert!(keys.warnings[0].contains("expired"), "{:?}", keys.warnings);
    assert_eq!(
        Keys::state(&keys.valid, unix_now()),
        CertificateState::Invalid
    );
    let end = *keys.valid.end();
    assert_eq!(
        Keys::state(&keys.valid, end - SOON + 1),
        CertificateState::EndsSoon
    );
    assert_eq!(Keys::state(&keys.valid, end - SOON), CertificateState::Good);
    assert_eq!(Keys::state(&keys.valid, end + 1), CertificateState::Invalid);
}

#[test]
fn the_list_of_servers_is_neither_empty_nor_endless() {
    let made = Made::new(|_| {});
    let one = made.read("servers.pem");
    made.write("servers.pem", "");
    assert!(made.mistakes()[0].contains("servers.pem"));
    made.write("servers.pem", &one.repeat(MOST_SERVERS));
    assert!(Keys::load(&made.files()).is_ok());
    made.write("servers.pem", &one.repeat(MOST_SERVERS + 1));
    assert!(made.mistakes()[0].contains("servers.pem"));
    made.write("servers.pem", &" ".repeat(2_000_000));
    assert!(made.mistakes()[0].contains("larger"));
}
