use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use umbra_carrier::tls::{TlsIdentity, http_acceptor_config};
use umbra_protocol::hello::TrustAnchors;

use super::*;
use crate::os::fake::Fake;

struct Device {
    _root: tempfile::TempDir,
    paths: Paths,
}

impl Device {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        Self { _root: root, paths }
    }

    fn with_identity() -> Self {
        let device = Self::new();
        crate::identity::ensure(&device.paths, &Fake::default(), &Clock::system())
            .expect("an identity");
        device
    }

    fn set(&self, name: &str, word: &str) {
        Registry::open(&self.paths, &Files::new())
            .set(name, &[word.to_owned()])
            .expect("set");
    }

    async fn check(&self, id: &str) -> Check {
        self.check_at(id, &Clock::system()).await
    }

    async fn check_at(&self, id: &str, clock: &Clock) -> Check {
        let checks = examine(&self.paths, &Files::new(), clock).await;
        checks
            .into_iter()
            .find(|check| check.id == id)
            .expect("such a check")
    }
}

#[tokio::test]
async fn a_device_as_it_comes_from_the_factory_is_told_what_to_do_first() {
    let checks = examine(&Device::new().paths, &Files::new(), &Clock::system()).await;
    assert_eq!(worst(&checks), Verdict::Bad);
    for id in ["identity", "agent", "enrolment"] {
        let check = checks
            .iter()
            .find(|check| check.id == id)
            .expect("such a check");
        assert!(
            check.verdict == Verdict::Bad && check.advice.is_some(),
            "{check:?}"
        );
    }
    let report = report(&checks);
    assert!(
        report.contains("BAD  identity") && report.contains("umbra-agent identity"),
        "{report}"
    );
    for check in &checks {
        assert!(IDS.contains(&check.id.as_str()), "{check:?}");
    }
    let ids: std::collections::BTreeSet<&str> =
        checks.iter().map(|check| check.id.as_str()).collect();
    assert_eq!(ids.len(), checks.len(), "two checks have the same id");
}

#[tokio::test]
async fn looking_changes_nothing() {
    let device = Device::new();
    examine(&device.paths, &Files::new(), &Clock::system()).await;
    let left = std::fs::read_dir(device.paths.root())
        .expect("listed")
        .count();
    assert_eq!(left, 0, "the doctor left something behind");
    let device = Device::with_identity();
    let before = crate::identity::load(&device.paths)
        .expect("readable")
        .expect("there")
        .fingerprint();
    assert_eq!(device.check("state-writable").await.verdict, Verdict::Good);
    let after = crate::identity::load(&device.paths)
        .expect("readable")
        .expect("there")
        .fingerprint();
    assert_eq!(before, after);
    assert!(!device.paths.kept().join("doctor-probe").exists());
}

#[tokio::test]
async fn an_open_key_and_a_wrong_clock_are_named() {
    let device = Device::with_identity();
    assert_eq!(device.check("identity").await.verdict, Verdict::Good);
    std::fs::set_permissions(
        device.paths.key(),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .expect("set");
    let check = device.check("identity").await;
    assert!(
        check.verdict == Verdict::Bad && check.sentence.contains("chmod 600"),
        "{check:?}"
    );
    let check = device.check_at("clock", &Clock::fixed(0)).await;
    assert!(
        check.verdict == Verdict::Warning && check.sentence.contains("1970-01-01"),
        "{check:?}"
    );
}

#[tokio::test]
async fn a_certificate_that_is_about_to_expire_is_told_before_it_has() {
    let device = Device::with_identity();
    let identity = crate::identity::load(&device.paths)
        .expect("readable")
        .expect("there");
    // As an older build may have made it: this one's last longer than any clock is believed.
    let until = Clock::system().build_date() + 100 * crate::clock::DAY;
    let key = KeyPair::from_pem(identity.key_pem()).expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.not_after = time::OffsetDateTime::from_unix_timestamp(until).expect("a date");
    let certificate = params.self_signed(&key).expect("signed").pem();
    std::fs::write(device.paths.certificate(), certificate).expect("written");
    let early = Clock::fixed(until - 40 * crate::clock::DAY);
    assert_eq!(
        device.check_at("identity", &early).await.verdict,
        Verdict::Good
    );
    let soon = Clock::fixed(until - crate::clock::DAY);
    let check = device.check_at("identity", &soon).await;
    assert!(
        check.verdict == Verdict::Warning && check.sentence.contains("only valid until"),
        "{check:?}"
    );
}

#[tokio::test]
async fn a_wrong_line_in_the_registry_is_shown() {
    let device = Device::with_identity();
    std::fs::write(device.paths.registry(), "network.vncserver.enabled = 1\n").expect("written");
    let check = device.check("registry").await;
    assert!(
        check.verdict == Verdict::Bad && check.sentence.contains("line 1"),
        "{check:?}"
    );
}

#[tokio::test]
async fn a_vnc_server_that_greets_is_good_and_anything_else_is_not() {
    let device = Device::with_identity();
    assert_eq!(device.check("vnc-server").await.verdict, Verdict::Skipped);
    device.set("network.vncserver.enabled", "true");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    device.set("umbra.vncserver.upstream", &format!("tcp:{address}"));
    for (greeting, verdict) in [
        (&b"RFB 003.008\n"[..], Verdict::Good),
        (b"SSH-2.0-x\r\n12345678", Verdict::Bad),
    ] {
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            // The caller may leave in the middle of it.
            let _ = stream.write_all(greeting).await;
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 16]).await;
        };
        let (check, ()) = tokio::join!(device.check("vnc-server"), serve);
        assert_eq!(check.verdict, verdict, "{check:?}");
    }
    drop(listener);
    assert_eq!(device.check("vnc-server").await.verdict, Verdict::Bad);
}

/// A server's certificates: the root's PEM, and the identity of a server on 127.0.0.1 below it, which presents its own
/// certificate only, or the root as well.
fn certificates() -> (String, [TlsIdentity; 2]) {
    certificates_until(4_000_000_000)
}

/// The same, expiring then.
fn certificates_until(until: i64) -> (String, [TlsIdentity; 2]) {
    let until = time::OffsetDateTime::from_unix_timestamp(until).expect("a date");
    let mut root = CertificateParams::new(Vec::new()).expect("no names");
    root.not_after = until;
    root.distinguished_name.push(DnType::CommonName, "Root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate().expect("a key");
    let root_pem = root.self_signed(&root_key).expect("a root").pem();
    let mut end = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    end.not_after = until;
    end.distinguished_name.push(DnType::CommonName, "Server");
    end.is_ca = IsCa::ExplicitNoCa;
    end.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let end_key = KeyPair::generate().expect("a key");
    let end_pem = end
        .signed_by(&end_key, &Issuer::new(root, root_key))
        .expect("a certificate")
        .pem();
    let key = end_key.serialize_pem();
    let identities = [end_pem.clone(), format!("{end_pem}{root_pem}")]
        .map(|chain| TlsIdentity::from_pem(&chain, &key).expect("an identity"));
    (root_pem, identities)
}

#[tokio::test]
async fn a_server_is_good_only_with_the_root_that_is_pinned() {
    let device = Device::with_identity();
    assert_eq!(device.check("server").await.verdict, Verdict::Skipped);
    let (root, identities) = certificates();
    let (other_root, _) = certificates();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let pin = |root: &str| {
        let enrolled = Enrolled {
            host: "127.0.0.1".into(),
            port,
            kind: umbra_protocol::enrolment::ConnectorKind::Ums,
            server_names: Vec::new(),
            last_good: None,
            device_id: umbra_protocol::DeviceId::from_bytes([1; 32]),
            device_name: "Reception".into(),
            connectors: Vec::new(),
            anchors: TrustAnchors {
                roots: vec![root.to_owned()],
                ticket_keys: Vec::new(),
            },
        };
        enrolled
            .store(&device.paths, &Files::new())
            .expect("stored");
    };
    for (identity, pinned, verdict) in [
        (&identities[0], &root, Verdict::Good),
        (&identities[1], &root, Verdict::Good),
        (&identities[0], &other_root, Verdict::Bad),
        (&identities[1], &other_root, Verdict::Bad),
    ] {
        pin(pinned);
        let acceptor = tokio_rustls::TlsAcceptor::from(http_acceptor_config(identity));
        let serve = async {
            let (stream, _) = listener.accept().await.expect("a caller");
            // The caller may leave in the middle of it.
            drop(acceptor.accept(stream).await);
        };
        let (check, ()) = tokio::join!(device.check("server"), serve);
        assert_eq!(check.verdict, verdict, "{check:?}");
        assert!(
            verdict == Verdict::Good || check.advice.is_some(),
            "{check:?}"
        );
    }
    drop(listener);
    let check = device.check("server").await;
    assert!(
        check.verdict == Verdict::Bad && check.sentence.contains("refuses connections"),
        "{check:?}"
    );
    assert_eq!(device.check("enrolment").await.verdict, Verdict::Good);
}

/// What `doctor --address` says of a server on this machine.
async fn look(identity: &TlsIdentity, root: Option<Fingerprint>, clock: &Clock) -> Vec<Check> {
    let device = Device::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let address = HostPort::parse(&format!("127.0.0.1:{port}"), 1).expect("an address");
    let acceptor = tokio_rustls::TlsAcceptor::from(http_acceptor_config(identity));
    let serve = async {
        let (stream, _) = listener.accept().await.expect("a caller");
        // The caller may leave in the middle of it.
        drop(acceptor.accept(stream).await);
    };
    let (checks, ()) = tokio::join!(examine_address(&address, root, &device.paths, clock), serve);
    assert!(
        checks[1..]
            .iter()
            .all(|check| check.address.as_deref() == Some(&address.to_string())),
        "{checks:?}"
    );
    checks
}

#[tokio::test]
async fn an_address_is_looked_at_without_an_enrolment_and_every_check_of_its_chain_is_listed() {
    let (root, identities) = certificates();
    let root = umbra_carrier::tls::certificates_from_pem(&root).expect("a certificate");
    let root = Fingerprint::of_certificate(&root[0]);
    let checks = look(&identities[1], Some(root), &Clock::system()).await;
    // An address needs no name server.
    assert_eq!(worst(&checks), Verdict::Skipped, "{checks:#?}");
    let ids: Vec<&str> = checks.iter().map(|check| check.id.as_str()).collect();
    assert_eq!(ids[..4], ["clock", "dns", "proxy", "server"]);
    for id in [
        "chain.root-fingerprint",
        "chain.ca-flag",
        "chain.validity",
        "chain.host",
    ] {
        assert!(ids.contains(&id), "{id}: {ids:?}");
    }
    let host = checks
        .iter()
        .find(|check| check.id == "chain.host")
        .expect("listed");
    assert_eq!(
        (host.certificate, host.field.as_deref()),
        (Some(1), Some("subjectAltName (2.5.29.17)"))
    );
    let wrong = Fingerprint::from_bytes([7; 32]);
    let checks = look(&identities[1], Some(wrong), &Clock::system()).await;
    let bad: Vec<&str> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Bad)
        .map(|check| check.id.as_str())
        .collect();
    assert_eq!(bad, ["server", "chain.root-fingerprint"]);
    let text = report(&checks);
    assert!(text.contains("BAD  chain.root-fingerprint"), "{text}");
    // Alone, without its root: the missing one is named.
    let checks = look(&identities[0], None, &Clock::system()).await;
    let server = &checks[3];
    assert!(
        server.verdict == Verdict::Bad && server.sentence.contains("“CN=Root” is missing"),
        "{server:?}"
    );
}

#[tokio::test]
async fn a_clock_wrong_by_years_is_told_as_such_and_not_as_a_bad_certificate() {
    let (_, identities) = certificates();
    let build = Clock::system().build_date();
    // So far off that nobody believes it: dates don't count at all.
    let checks = look(&identities[1], None, &Clock::fixed(0)).await;
    assert!(
        checks[0].id == "clock" && checks[0].verdict == Verdict::Warning,
        "{checks:#?}"
    );
    assert!(
        !checks.iter().any(|check| check.verdict == Verdict::Bad),
        "{checks:#?}"
    );
    assert!(
        !checks.iter().any(|check| check.id == "chain.validity"),
        "{checks:#?}"
    );
    // Believable, and yet a thousand days late for these certificates.
    let (_, identities) = certificates_until(build);
    let checks = look(
        &identities[1],
        None,
        &Clock::fixed(build + 1_000 * crate::clock::DAY),
    )
    .await;
    let server = checks
        .iter()
        .find(|check| check.id == "server")
        .expect("listed");
    assert!(
        server
            .sentence
            .contains("the clock is probably fast by more than 2 years"),
        "{server:?}"
    );
}

#[tokio::test]
async fn a_name_that_leads_nowhere_and_a_proxy_that_is_not_there_are_checks_of_their_own() {
    let device = Device::new();
    let address = HostPort::parse("no-such-host.invalid", 8443).expect("an address");
    let checks = examine_address(&address, None, &device.paths, &Clock::system()).await;
    let find = |checks: &[Check], id: &str| {
        checks
            .iter()
            .find(|check| check.id == id)
            .cloned()
            .expect("listed")
    };
    let dns = find(&checks, "dns");
    assert!(
        dns.verdict == Verdict::Bad
            && dns.sentence.contains("no-such-host.invalid")
            && dns.advice.is_some(),
        "{dns:?}"
    );
    assert_eq!(find(&checks, "proxy").verdict, Verdict::Good);
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let device = Device::with_identity();
    device.set("umbra.proxy.mode", "manual");
    device.set("umbra.proxy.host", "127.0.0.1");
    device.set("umbra.proxy.port", &port.to_string());
    let checks = examine_address(&address, None, &device.paths, &Clock::system()).await;
    // The proxy looks names up.
    assert_eq!(find(&checks, "dns").verdict, Verdict::Skipped);
    let proxy = find(&checks, "proxy");
    assert!(
        proxy.verdict == Verdict::Bad && proxy.sentence.contains(&port.to_string()),
        "{proxy:?}"
    );
}

#[test]
fn the_page_about_diagnosis_lists_every_check() {
    let page = include_str!("../../../docs/diagnosis.md");
    let (_, device) = page.split_once("\n## The device\n").expect("a chapter");
    let (device, _) = device.split_once("\n## ").expect("another one");
    let listed: Vec<&str> = device
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once("` | ")?.0))
        .collect();
    assert_eq!(listed, IDS);
}

#[tokio::test]
async fn a_port_that_lets_older_consoles_in_is_warned_of() {
    let device = Device::with_identity();
    let agent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let status = Status {
        shadow_port: Some(agent.local_addr().expect("an address").port()),
        ..Status::default()
    };
    device.set("network.vncserver.enabled", "true");
    device.set("umbra.vncserver.listen", "127.0.0.1");
    for (tls12, verdict) in [("false", Verdict::Good), ("true", Verdict::Warning)] {
        device.set("umbra.vncserver.tls12", tls12);
        let patient = Patient {
            paths: &device.paths,
            files: &Files::new(),
            clock: &Clock::system(),
            registry: Registry::open_quietly(&device.paths),
            enrolled: Ok(None),
            status: Some(status.clone()),
            shut_out: false,
        };
        let check = port::check(&patient).await;
        assert_eq!(check.verdict, verdict, "{check:?}");
        assert_eq!(check.sentence.contains("TLS 1.2"), tls12 == "true");
    }
}

#[tokio::test]
async fn a_port_that_another_program_has_is_named() {
    let device = Device::with_identity();
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = taken.local_addr().expect("an address").port();
    for (name, value) in [
        ("network.vncserver.enabled", "true".to_owned()),
        ("network.vncserver.port", port.to_string()),
        ("umbra.vncserver.listen", "127.0.0.1".to_owned()),
        ("umbra.vncserver.upstream", "unix:/nowhere".to_owned()),
    ] {
        device.set(name, &value);
    }
    let check = device.check("shadowing-port").await;
    assert!(
        check.verdict == Verdict::Bad && check.sentence.contains(&port.to_string()),
        "{check:?}"
    );
    drop(taken);
    assert_eq!(
        device.check("shadowing-port").await.verdict,
        Verdict::Warning
    );
}
