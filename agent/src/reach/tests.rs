//! What people are told of servers that are in order, and of what is none.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use umbra_carrier::tls::{TlsIdentity, accept_by_alpn, http_acceptor_config, link_acceptor_config};

use super::*;
use crate::clock::YEAR;
use crate::link::{NetworkSettings, ProxyChoice};

const LONG: Duration = Duration::from_secs(30);
/// For what never comes.
const SHORT: Duration = Duration::from_millis(300);

struct Pki {
    root: Vec<u8>,
    root_pem: String,
    identity: TlsIdentity,
}

/// A root, and a server's certificate for 127.0.0.1 that is valid in these years; with or without the root presented.
fn pki(years: std::ops::Range<i32>, presented: bool) -> Pki {
    let day = |year| rcgen::date_time_ymd(year, 1, 1);
    let mut root = CertificateParams::default();
    root.distinguished_name
        .push(DnType::CommonName, "Test Root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (root.not_before, root.not_after) = (day(2_020), day(2_090));
    let root_key = KeyPair::generate().expect("a key");
    let root_certificate = root.self_signed(&root_key).expect("a root");
    let mut end = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    end.distinguished_name
        .push(DnType::CommonName, "The Server");
    end.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (end.not_before, end.not_after) = (day(years.start), day(years.end));
    let key = KeyPair::generate().expect("a key");
    let issuer = Issuer::from_params(&root, &root_key);
    let certificate = end.signed_by(&key, &issuer).expect("a certificate");
    let mut chain = vec![certificate.der().clone()];
    if presented {
        chain.push(root_certificate.der().clone());
    }
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    Pki {
        root: root_certificate.der().to_vec(),
        root_pem: root_certificate.pem(),
        identity: TlsIdentity::new(chain, key).expect("an identity"),
    }
}

/// A listener, whose connections each go to `serve`.
async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> HostPort
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    HostPort::new("127.0.0.1", port).expect("an address")
}

/// A server that takes links and HTTP, or HTTP alone; whatever it is asked over HTTP, there is no such thing.
async fn server(identity: &TlsIdentity, links: bool) -> HostPort {
    let http = http_acceptor_config(identity);
    let link = if links {
        link_acceptor_config(identity)
    } else {
        http.clone()
    };
    listen(move |stream| {
        let (link, http) = (link.clone(), http.clone());
        async move {
            match accept_by_alpn(stream, link, http, LONG).await {
                Ok(umbra_carrier::tls::Accepted::Http(mut stream)) => {
                    let answer =
                        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                }
                Ok(umbra_carrier::tls::Accepted::Link(..)) | Err(_) => {}
            }
        }
    })
    .await
}

fn network(bundle_file: &str) -> Network {
    let settings = NetworkSettings {
        proxy: ProxyChoice::None,
        ca_file: String::new(),
        bundle_file: bundle_file.to_owned(),
        ping: LONG,
        silence: LONG,
    };
    Network::new(&settings).expect("a network")
}

type Told1 = (Stage, StageState);

async fn look(
    address: &HostPort,
    network: &Network,
    clock: &Clock,
    deadline: Duration,
) -> (Result<Reached, ReachError>, Vec<StageReport>) {
    let (tell, mut told) = mpsc::unbounded_channel();
    let reached = check_within(address, network, clock, &tell, deadline).await;
    drop(tell);
    let mut reports = Vec::new();
    while let Some(report) = told.recv().await {
        reports.push(report);
    }
    (reached, reports)
}

fn ends(reports: &[StageReport]) -> Vec<Told1> {
    let ends = reports
        .iter()
        .filter(|report| report.state != StageState::Running);
    ends.map(|report| (report.stage, report.state)).collect()
}

#[tokio::test]
async fn a_server_with_a_private_root_is_reached_stage_by_stage_and_its_fingerprint_shown() {
    let pki = pki(2_024..2_080, true);
    let address = server(&pki.identity, true).await;
    let (reached, reports) = look(&address, &network(""), &Clock::system(), LONG).await;
    let reached = reached.expect("reached");
    assert_eq!(reached.kind, ConnectorKind::Ums);
    let fingerprint = Fingerprint::of_certificate(&pki.root);
    assert_eq!(reached.root_fingerprint, Some(fingerprint));
    assert_eq!(reached.public_ca, None);
    assert_eq!(
        ends(&reports),
        [
            (Stage::Name, StageState::Skipped),
            (Stage::Tcp, StageState::Good),
            (Stage::Proxy, StageState::Skipped),
            (Stage::Tls, StageState::Good),
            (Stage::Chain, StageState::Good),
            (Stage::Gateway, StageState::Skipped),
            (Stage::Server, StageState::Good),
        ]
    );
    assert!(reports.iter().all(|report| !report.sentence.is_empty()));
}

#[tokio::test]
async fn a_public_authority_is_named_and_without_it_a_missing_root_is_told() {
    let pki = pki(2_024..2_080, false);
    let address = server(&pki.identity, true).await;
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("public.pem");
    std::fs::write(&bundle, &pki.root_pem).expect("written");
    let public = network(&bundle.to_string_lossy());
    let (reached, _) = look(&address, &public, &Clock::system(), LONG).await;
    let reached = reached.expect("reached");
    assert_eq!(reached.public_ca.as_deref(), Some("Test Root"));
    assert_eq!(reached.root_fingerprint, None);
    // Nor does it vouch less where the clock can't be right.
    let (reached, _) = look(&address, &public, &Clock::fixed(0), LONG).await;
    let reached = reached.expect("reached without dates");
    assert_eq!(reached.public_ca.as_deref(), Some("Test Root"));
    let (reached, _) = look(&address, &network(""), &Clock::system(), LONG).await;
    let error = reached.expect_err("nobody vouches for it");
    assert_eq!(error.stage, Stage::Chain);
    assert!(!error.advice.is_empty(), "{error:?}");
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_years_is_told_as_such_and_not_as_a_bad_certificate() {
    let pki = pki(2_026..2_028, true);
    let address = server(&pki.identity, true).await;
    let build = Clock::system().build_date();
    let fast = Clock::fixed(build + 10 * YEAR);
    let (reached, _) = look(&address, &network(""), &fast, LONG).await;
    let error = reached.expect_err("the clock is fast");
    assert_eq!((error.stage, error.code.as_str()), (Stage::Chain, "clock"));
    assert!(error.sentence.contains("clock is probably fast"), "{error}");
    assert!(
        error.advice.starts_with("Set the clock"),
        "{}",
        error.advice
    );
    // One that can't be right at all is not asked, and that is said.
    let (reached, reports) = look(&address, &network(""), &Clock::fixed(0), LONG).await;
    reached.expect("reached all the same");
    let chain = reports
        .iter()
        .find(|report| report.stage == Stage::Chain && report.state == StageState::Warning)
        .expect("a warning");
    assert!(chain.sentence.contains("1970-01-01"), "{}", chain.sentence);
}

#[tokio::test]
async fn whoever_accepts_and_never_speaks_is_told_in_the_end() {
    let address = listen(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let (reached, reports) = look(&address, &network(""), &Clock::system(), SHORT).await;
    let error = reached.expect_err("silence");
    assert_eq!((error.stage, error.code.as_str()), (Stage::Tls, "silent"));
    assert!(error.sentence.contains("says nothing"), "{error}");
    let last = reports.last().expect("a report");
    assert_eq!((last.stage, last.state), (Stage::Tls, StageState::Failed));
    assert_eq!(last.sentence, error.sentence);
}

#[tokio::test]
async fn other_services_nobody_at_all_and_web_servers_are_told_apart() {
    let mail = listen(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        let _ = stream.shutdown().await;
    })
    .await;
    let (reached, _) = look(&mail, &network(""), &Clock::system(), LONG).await;
    let error = reached.expect_err("no TLS");
    assert_eq!(error.code, "not_tls");
    let pki = pki(2_024..2_080, true);
    let web = server(&pki.identity, false).await;
    let (reached, reports) = look(&web, &network(""), &Clock::system(), LONG).await;
    let error = reached.expect_err("no gateway");
    assert_eq!(error.stage, Stage::Gateway, "{reports:?}");
    assert!(!error.advice.is_empty());
    // The near end of a connection holds its port without listening on it.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let held = TcpStream::connect(listener.local_addr().expect("an address"))
        .await
        .expect("connected");
    let port = held.local_addr().expect("an address").port();
    let nobody = HostPort::new("127.0.0.1", port).expect("an address");
    let (reached, _) = look(&nobody, &network(""), &Clock::system(), LONG).await;
    let error = reached.expect_err("nobody listens");
    assert_eq!((error.stage, error.code.as_str()), (Stage::Tcp, "refused"));
}

#[tokio::test]
async fn with_a_proxy_name_and_connection_are_the_proxys() {
    let closed = listen(|mut stream| async move {
        let _ = stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            .await;
        let _ = stream.shutdown().await;
    })
    .await;
    let settings = NetworkSettings {
        proxy: ProxyChoice::Manual {
            socks5: false,
            host: closed.host().to_owned(),
            port: closed.port(),
            user: String::new(),
            password: None,
            no_proxy: String::new(),
        },
        ca_file: String::new(),
        bundle_file: String::new(),
        ping: LONG,
        silence: LONG,
    };
    let network = Network::new(&settings).expect("a network");
    let address = HostPort::new("ums.example.com", 8_443).expect("an address");
    let (reached, reports) = look(&address, &network, &Clock::system(), LONG).await;
    let error = reached.expect_err("the proxy refuses");
    assert_eq!(error.stage, Stage::Proxy, "{reports:?}");
    assert_eq!(
        ends(&reports),
        [
            (Stage::Name, StageState::Skipped),
            (Stage::Tcp, StageState::Good),
            (Stage::Proxy, StageState::Failed),
        ]
    );
    let name = &reports[0].sentence;
    assert!(
        name.contains("looks up ums.example.com by itself"),
        "{name}"
    );
}
