//! Host names and IP addresses that a server's certificate must cover.

use rcgen::{CertificateParams, SanType};
use umbra_carrier::tls::TlsError;

use crate::pki::*;

async fn attempt(names: &[&str], host: &str) -> Result<(), TlsError> {
    let root = Authority::root("root");
    let leaf = root.server(names);
    let (client, _) = handshake(
        &leaf.identity(&[&root.der]),
        http_client(root.trust()),
        host,
    )
    .await;
    client.map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn a_wrong_name_is_told_with_the_names_that_the_certificate_has() {
    let error = attempt(&["one.test", "192.0.2.1"], "two.test")
        .await
        .expect_err("another name");
    let TlsError::WrongName { wanted, names } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(wanted, "two.test");
    assert_eq!(names, &["one.test", "192.0.2.1"]);
    assert_eq!(
        error.to_string(),
        "the certificate isn't for “two.test”: it is for one.test, 192.0.2.1"
    );
}

#[tokio::test(start_paused = true)]
async fn a_certificate_without_alternative_names_says_so() {
    let error = attempt(&[], "the server").await;
    assert!(matches!(error, Err(TlsError::BadName { .. })), "{error:?}");
    let error = attempt(&[], "server.test").await.expect_err("no name");
    assert!(
        error.to_string().contains("no subject alternative names"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn only_some_of_very_many_names_are_listed() {
    let names: Vec<String> = (0..2_000)
        .map(|number| format!("host-{number}.test"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let error = attempt(&names, "elsewhere.test")
        .await
        .expect_err("another name");
    assert!(error.to_string().ends_with("and 1995 more"), "{error}");
    assert!(attempt(&names, "host-1999.test").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn ip_addresses_are_covered_by_entries_of_their_own_kind_only() {
    assert!(attempt(&["192.0.2.1"], "192.0.2.1").await.is_ok());
    assert!(attempt(&["2001:db8::1"], "2001:db8::1").await.is_ok());
    assert!(attempt(&["fe80::1"], "fe80::1%eth0").await.is_ok());
    let root = Authority::root("root");
    let mut params: CertificateParams = server_params(&[]);
    params.subject_alt_names = vec![SanType::DnsName("192.0.2.1".try_into().unwrap())];
    let (client, _) = handshake(
        &root.sign(&params).identity(&[&root.der]),
        http_client(root.trust()),
        "192.0.2.1",
    )
    .await;
    assert!(
        matches!(client, Err(TlsError::WrongName { .. })),
        "{client:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_covers_one_label() {
    assert!(attempt(&["*.example.test"], "a.example.test").await.is_ok());
    assert!(
        attempt(&["*.example.test"], "A.Example.Test.")
            .await
            .is_ok()
    );
    for host in ["example.test", "a.b.example.test", "aexample.test"] {
        let error = attempt(&["*.example.test"], host).await;
        assert!(
            matches!(error, Err(TlsError::WrongName { .. })),
            "{host}: {error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_name_is_refused_before_anything_is_sent() {
    for host in [
        "",
        "two words",
        "https://server.test",
        "a..b",
        "[2001:db8::1]",
        "%eth0",
    ] {
        let error = attempt(&["server.test"], host).await;
        assert!(
            matches!(error, Err(TlsError::BadName { .. })),
            "{host}: {error:?}"
        );
    }
}
