//! Our reader of certificates beside one that somebody else wrote (`x509-parser`): what both can read has to mean the same.

use proptest::prelude::*;
use rcgen::{
    CertificateParams, DnType, DnValue, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints,
    SanType,
};
use umbra_carrier::x509::{CertificateFacts, common_name};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::*;

/// What the other one says: names, serial number, moments, version, whether it is a CA and how far, how many alternative names.
type Said = (
    String,
    String,
    String,
    (i64, i64),
    u32,
    Option<(bool, Option<u32>)>,
    usize,
);

fn other(der: &[u8]) -> Option<Said> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let constraints = certificate.basic_constraints().ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    let serial = certificate.raw_serial().iter();
    rest.is_empty().then(|| {
        (
            certificate.subject().to_string(),
            certificate.issuer().to_string(),
            serial.map(|byte| format!("{byte:02x}")).collect(),
            (
                certificate.validity().not_before.timestamp(),
                certificate.validity().not_after.timestamp(),
            ),
            certificate.version().0 + 1,
            constraints.map(|found| (found.value.ca, found.value.path_len_constraint)),
            names.map_or(0, |found| found.value.general_names.len()),
        )
    })
}

fn ours(der: &[u8]) -> Option<Said> {
    let facts = CertificateFacts::read(der).ok()?;
    Some((
        facts.subject,
        facts.issuer,
        facts.serial,
        (facts.not_before, facts.not_after),
        facts.version,
        facts.is_ca.map(|is_ca| (is_ca, facts.path_len)),
        facts.san.len(),
    ))
}

/// One with everything in it that the reader knows.
fn full() -> CertificateParams {
    let mut params = server_params(&["server.test", "192.0.2.1", "2001:db8::1"]);
    for (kind, value) in [
        (DnType::CountryName, "DE"),
        (DnType::StateOrProvinceName, "Bayern"),
        (DnType::LocalityName, "München"),
        (DnType::OrganizationName, "Example, with a comma"),
        (DnType::OrganizationalUnitName, "Devices"),
        (DnType::CustomDnType(vec![2, 5, 4, 5]), "4711"),
        (
            DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25]),
            "example",
        ),
    ] {
        params
            .distinguished_name
            .push(kind, DnValue::Utf8String(value.to_owned()));
    }
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(3));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names.extend([
        SanType::Rfc822Name("somebody@example.test".try_into().unwrap()),
        SanType::URI("urn:example:one".try_into().unwrap()),
    ]);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.test".to_owned())],
        excluded_subtrees: (0..8)
            .map(|number| GeneralSubtree::DnsName(format!("no{number}.test")))
            .collect(),
    });
    params
}

#[test]
fn what_is_read_is_what_another_reader_reads() {
    for (year, serial) in [(1951, vec![1]), (2049, vec![0x7f; 20]), (2050, vec![0xff])] {
        let mut params = full();
        params.serial_number = Some(serial.into());
        params.not_before = rcgen::date_time_ymd(year, 2, 28);
        params.not_after = rcgen::date_time_ymd(year + 1, 3, 1);
        let der = self_signed(&params).der;
        let said = other(&der).expect("it can be read");
        assert_eq!(said.6, 5);
        assert_eq!(ours(&der), Some(said));
        assert_eq!(common_name(&der), Ok(Some("the server".to_owned())));
        let facts = CertificateFacts::read(&der).unwrap();
        assert_eq!(
            facts.name_limits.as_deref(),
            Some(
                "only example.test; not no0.test, no1.test, no2.test, no3.test, no4.test, no5.test, 2 more"
            )
        );
        assert_eq!(
            facts.san[3..],
            ["mail:somebody@example.test", "URI:urn:example:one"]
        );
    }
}

#[test]
fn names_in_every_alphabet_of_the_standard_are_read() {
    for value in [
        DnValue::Utf8String("Müller".to_owned()),
        DnValue::BmpString("Müller".try_into().unwrap()),
        DnValue::UniversalString("Müller".try_into().unwrap()),
    ] {
        let mut params = named("");
        params.distinguished_name.push(DnType::CommonName, value);
        let facts = CertificateFacts::read(&self_signed(&params).der).unwrap();
        assert_eq!(facts.subject, "CN=Müller");
    }
    // An attribute that has no short name keeps its number.
    let mut params = named("x");
    params
        .distinguished_name
        .push(DnType::CustomDnType(vec![1, 2, 3, 4_711]), "y");
    let facts = CertificateFacts::read(&self_signed(&params).der).unwrap();
    assert_eq!(facts.subject, "CN=x, 1.2.3.4711=y");
}

proptest! {
    #[test]
    fn whatever_is_damaged_means_the_same_to_both_or_is_refused(
        place in any::<prop::sample::Index>(), value in any::<u8>()
    ) {
        static DER: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut der = DER.get_or_init(|| self_signed(&full()).der.to_vec()).clone();
        let place = place.index(der.len());
        der[place] = value;
        if let (Some(ours), Some(other)) = (ours(&der), other(&der)) {
            // What can't be shown is replaced in ours, so names are compared by what is left of them.
            prop_assert_eq!(&ours.2, &other.2);
            prop_assert_eq!((ours.3, ours.4), (other.3, other.4));
        }
    }
}
