//! What is read from certificates, and identities from PEM files.

use rcgen::{CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use umbra_carrier::tls::{IdentityError, TlsIdentity, provider};
use umbra_carrier::x509::{
    CertificateError, CertificateFacts, MAX_CERTIFICATE, date_text, printable, sha256, spki_sha256,
};

use crate::pki::*;

#[test]
fn the_facts_of_a_certificate_are_what_it_was_made_with() {
    let root = Authority::root("the root");
    let mut params = server_params(&["server.test", "*.example.test", "192.0.2.1", "2001:db8::1"]);
    params.serial_number = Some(vec![1, 2, 0xab].into());
    let leaf = root.sign(&params);
    let facts = CertificateFacts::read(&leaf.der).unwrap();
    assert_eq!(facts.subject, "CN=the server");
    assert_eq!(facts.issuer, "CN=the root");
    assert_eq!(facts.serial, "0102ab");
    assert_eq!(
        (facts.not_before, facts.not_after),
        (1_577_836_800, 3_786_912_000)
    );
    assert_eq!(
        (facts.is_ca, facts.path_len, facts.may_sign_certificates),
        (None, None, None)
    );
    assert_eq!(
        (facts.may_be_server, facts.may_be_client),
        (Some(true), Some(false))
    );
    assert_eq!(
        facts.san,
        ["server.test", "*.example.test", "192.0.2.1", "2001:db8::1"]
    );
    assert_eq!(
        (facts.key.as_str(), facts.key_is_usable),
        ("ECDSA P-256", true)
    );
    assert_eq!(
        (facts.signature.as_str(), facts.signature_is_weak),
        ("ECDSA with SHA-256", false)
    );
    assert!(!facts.self_signed);
    let facts = CertificateFacts::read(&root.der).unwrap();
    assert_eq!(
        (facts.is_ca, facts.may_sign_certificates),
        (Some(true), Some(true))
    );
    assert!(facts.self_signed);
}

#[test]
fn a_certificate_with_its_issuers_name_is_not_self_signed() {
    let root = Authority::root("one name");
    let mut params = server_params(&["server.test"]);
    params
        .distinguished_name
        .push(DnType::CommonName, "one name");
    let facts = CertificateFacts::read(&root.sign(&params).der).unwrap();
    assert_eq!(facts.subject, facts.issuer);
    assert!(!facts.self_signed);
}

#[test]
fn the_fingerprint_of_the_key_outlives_the_certificate() {
    let key = KeyPair::generate().unwrap();
    let certificate = |name| named(name).self_signed(&key).unwrap().der().clone();
    let (old, new) = (certificate("old"), certificate("new"));
    assert_ne!(sha256(&old), sha256(&new));
    assert_eq!(spki_sha256(&old), spki_sha256(&new));
    assert_ne!(spki_sha256(&old), spki_sha256(&device().der));
    // The key as rcgen exports it is the very one in the certificate.
    let exported = key.public_key_pem();
    let exported = <rustls::pki_types::SubjectPublicKeyInfoDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
        exported.as_bytes(),
    )
    .unwrap();
    assert_eq!(spki_sha256(&old), Ok(sha256(&exported)));
}

#[test]
fn sha256_is_the_standards() {
    let digest: String = sha256(b"abc")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        digest,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn four_thousand_names_are_read() {
    let names: Vec<String> = (0..3_000)
        .map(|number| format!("host-{number}.test"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let leaf = self_signed(&server_params(&names));
    assert!(leaf.der.len() < MAX_CERTIFICATE);
    assert_eq!(CertificateFacts::read(&leaf.der).unwrap().san.len(), 3_000);
    let mut short = named("four thousand");
    short.subject_alt_names = (0..4_000)
        .map(|number| SanType::DnsName(format!("h{number}.test").try_into().unwrap()))
        .collect();
    assert_eq!(
        CertificateFacts::read(&self_signed(&short).der)
            .unwrap()
            .san
            .len(),
        4_000
    );
}

#[test]
fn what_is_too_large_is_not_read() {
    let names: Vec<String> = (0..6_000)
        .map(|number| format!("host-{number}.test"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let leaf = self_signed(&server_params(&names));
    let too_large = CertificateError::TooLarge {
        size: leaf.der.len(),
    };
    assert_eq!(CertificateFacts::read(&leaf.der), Err(too_large.clone()));
    assert_eq!(spki_sha256(&leaf.der), Err(too_large));
}

#[test]
fn no_part_and_no_damage_of_a_certificate_panics() {
    let root = Authority::root("root");
    let der = root.server(&["server.test", "192.0.2.1"]).der;
    for length in 0..der.len() {
        assert_eq!(
            CertificateFacts::read(&der[..length]),
            Err(CertificateError::Unreadable),
            "{length}"
        );
        assert_eq!(
            spki_sha256(&der[..length]),
            Err(CertificateError::Unreadable),
            "{length}"
        );
    }
    let mut still_read = 0;
    for position in 0..der.len() {
        for damage in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut damaged = der.to_vec();
            damaged[position] ^= damage;
            still_read += usize::from(CertificateFacts::read(&damaged).is_ok());
        }
    }
    // Damage to the key or the signature leaves a certificate that can be read: the loop looked at something.
    assert!(still_read > der.len());
    let mut longer = der.to_vec();
    longer.push(0);
    assert_eq!(
        CertificateFacts::read(&longer),
        Err(CertificateError::Unreadable)
    );
}

#[test]
fn names_from_strangers_can_not_steer_a_terminal() {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "a\r\nb\u{1b}[31mc\u{202e}d");
    let facts = CertificateFacts::read(&self_signed(&params).der).unwrap();
    assert!(
        facts.subject.contains('b') && facts.subject.contains('d'),
        "{}",
        facts.subject
    );
    assert!(
        !facts.subject.contains(['\r', '\n', '\u{1b}', '\u{202e}']),
        "{:?}",
        facts.subject
    );
    assert_eq!(printable("abcdef", 3), "abc…");
    assert_eq!(printable("abc", 3), "abc");
}

#[test]
fn moments_are_written_as_dates() {
    for (unix, text) in [
        (0, "1970-01-01 00:00 UTC"),
        (951_782_400, "2000-02-29 00:00 UTC"),
        (1_709_251_199, "2024-02-29 23:59 UTC"),
        (4_107_542_400, "2100-03-01 00:00 UTC"),
        (-1, "1969-12-31 23:59 UTC"),
    ] {
        assert_eq!(date_text(unix), text);
    }
    for extreme in [i64::MIN, i64::MAX] {
        assert!(date_text(extreme).ends_with(" UTC"));
    }
}

#[test]
fn an_identity_is_read_from_pem_with_other_blocks_around() {
    let root = Authority::root("root");
    let leaf = root.server(&["server.test"]);
    let pem = |der: &Der| pem_block("CERTIFICATE", der);
    let chain = format!("Subject: the server\n{}{}", pem(&leaf.der), pem(&root.der));
    let key = format!("{}{}", pem(&leaf.der), leaf.key.serialize_pem());
    let identity = TlsIdentity::from_pem(&chain, &key).unwrap();
    assert_eq!(identity.chain(), [leaf.der.clone(), root.der.clone()]);
    assert_eq!(identity.certificate(), &leaf.der);
}

#[test]
fn a_device_signs_with_keys_on_curves_and_servers_with_others_as_well() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let params = rcgen::CertificateParams::new(vec!["server.test".into()]).unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    assert!(TlsIdentity::from_pem(&chain, &key.serialize_pem()).is_ok());
    let error = TlsIdentity::of_device(&chain, &key.serialize_pem()).expect_err("another kind");
    assert_eq!(error, IdentityError::KeyUnusable);
    let leaf = device();
    let chain = pem_block("CERTIFICATE", &leaf.der);
    let identity = TlsIdentity::of_device(&chain, &leaf.key.serialize_pem()).unwrap();
    assert_eq!(identity.certificate(), &leaf.der);
}

#[test]
fn a_key_never_shows_in_debug_output() {
    let leaf = device();
    let shown = format!("{:?}", leaf.identity(&[]));
    assert_eq!(shown, "TlsIdentity { certificates: 1, key: \"MASKED\" }");
}

#[test]
fn each_mistake_with_pem_files_has_its_own_sentence() {
    let root = Authority::root("root");
    let leaf = root.server(&["server.test"]);
    let (chain, key) = (
        pem_block("CERTIFICATE", &leaf.der),
        leaf.key.serialize_pem(),
    );
    let error = |chain: &str, key: &str| TlsIdentity::from_pem(chain, key).expect_err("a mistake");
    assert_eq!(error("", &key), IdentityError::NoCertificate);
    assert_eq!(error(&key, &chain), IdentityError::KeyInsteadOfCertificate);
    assert_eq!(
        error(&chain[..chain.len() - 20], &key),
        IdentityError::ChainPem
    );
    assert_eq!(
        error(&pem_block("CERTIFICATE", b"no certificate"), &key),
        IdentityError::CertificateUnreadable { position: 1 }
    );
    let half = format!("{chain}{}", pem_block("CERTIFICATE", &root.der[..100]));
    assert_eq!(
        error(&half, &key),
        IdentityError::CertificateUnreadable { position: 2 }
    );
    assert_eq!(error(&chain, ""), IdentityError::NoKey);
    assert_eq!(
        error(&chain, &chain),
        IdentityError::CertificateInsteadOfKey
    );
    assert_eq!(error(&chain, &key[..key.len() - 20]), IdentityError::KeyPem);
    assert_eq!(
        error(&chain, &pem_block("PRIVATE KEY", b"no key")),
        IdentityError::KeyUnusable
    );
    assert_eq!(
        error(&chain, &device().key.serialize_pem()),
        IdentityError::KeyMismatch
    );
    // The root's certificate first: the key is that of the second one.
    let swapped = format!("{}{chain}", pem_block("CERTIFICATE", &root.der));
    assert_eq!(error(&swapped, &key), IdentityError::KeyMismatch);
    let encrypted = pem_block("ENCRYPTED PRIVATE KEY", b"secret");
    assert_eq!(error(&chain, &encrypted), IdentityError::KeyEncrypted);
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert_eq!(error(&chain, legacy), IdentityError::KeyEncrypted);
    assert!(
        IdentityError::KeyEncrypted
            .to_string()
            .contains("openssl pkey -in")
    );
}

#[test]
fn the_provider_speaks_tls_1_3_alone_and_knows_all_three_ciphers() {
    let provider = provider();
    assert_eq!(provider.cipher_suites.len(), 3);
    assert!(
        provider
            .cipher_suites
            .iter()
            .all(|suite| suite.tls13().is_some())
    );
}

#[test]
fn key_usage_and_path_length_are_read() {
    let mut params = named("middle");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(3));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let facts = CertificateFacts::read(&self_signed(&params).der).unwrap();
    assert_eq!(
        (facts.is_ca, facts.path_len, facts.may_sign_certificates),
        (Some(true), Some(3), Some(false))
    );
}

fn pem_block(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in der.chunks(3) {
        let value = group
            .iter()
            .fold(0_u32, |sum, &byte| (sum << 8) | u32::from(byte))
            << (8 * (3 - group.len()));
        for index in 0..4 {
            let digit = usize::try_from((value >> (18 - 6 * index)) & 63).unwrap();
            text.push(if index <= group.len() {
                char::from(ALPHABET[digit])
            } else {
                '='
            });
        }
    }
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
