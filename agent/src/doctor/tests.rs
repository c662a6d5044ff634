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
    let mut root = CertificateParams::new(Vec::new()).expect("no names");
    root.distinguished_name.push(DnType::CommonName, "Root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate().expect("a key");
    let root_pem = root.self_signed(&root_key).expect("a root").pem();
    let mut end = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
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
