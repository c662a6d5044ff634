//! What is proposed where, in which order, and how nonsense is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use simple_dns::rdata::{A, RData, TXT};
use simple_dns::{CLASS, Name, Packet, Question, ResourceRecord, TYPE};
use tokio::net::UdpSocket;

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A DNS server that knows these TXT records, and an address for each name in `hosts`.
async fn dns(records: &[(&'static str, &[&'static str])], hosts: &[&'static str]) -> SocketAddr {
    let known: BTreeMap<String, Vec<&'static str>> = records
        .iter()
        .map(|(name, texts)| ((*name).to_owned(), texts.to_vec()))
        .collect();
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("its address");
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, asker)) = socket.recv_from(&mut buffer).await {
            let question = Packet::parse(&buffer[..length]).expect("a question");
            let asked = &question.questions[0];
            let name = asked.qname.to_string();
            let mut packet = Packet::new_reply(question.id());
            packet.questions = vec![Question::clone(asked)];
            if asked.qtype == TYPE::TXT.into() {
                for text in known.get(&name).into_iter().flatten() {
                    let txt = TXT::new().with_string(text).expect("short");
                    packet.answers.push(record(&name, RData::TXT(txt)));
                }
            } else if asked.qtype == TYPE::A.into() && hosts.contains(&name) {
                let address = 0xc000_0201;
                packet.answers.push(record(&name, RData::A(A { address })));
            }
            let bytes = packet.build_bytes_vec().expect("it can be written");
            let _ = socket.send_to(&bytes, asker).await;
        }
    });
    address
}

fn record<'a>(name: &'a str, data: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(Name::new(name).expect("a name"), CLASS::IN, 60, data)
}

fn resolver(server: SocketAddr) -> Resolver {
    Resolver::with(vec![server], &["corp.example", "lab.example"])
}

fn addresses(discovery: &Discovery) -> Vec<String> {
    discovery
        .found
        .iter()
        .map(|found| found.address.to_string())
        .collect()
}

#[tokio::test]
async fn an_e_mail_address_leads_to_the_gateways_of_its_domain() {
    let server = dns(
        &[
            (
                "igel-cloud-gateway.example.com",
                &[
                    "https://icg1.example.com:8443/usg/endpoint",
                    "https://icg2.example.com:8443/usg/endpoint",
                    "https://icg1.example.com:8443/usg/endpoint",
                    "nonsense",
                ],
            ),
            (
                "old.example",
                &[
                    "v=spf1 -all",
                    "igel-cloud-gateway=https://icg.old.example:443/usg/endpoint",
                ],
            ),
        ],
        &[],
    )
    .await;
    let found = of_mail_by(&resolver(server), " Alice@Example.com ", LONG).await;
    assert_eq!(
        addresses(&found),
        ["icg1.example.com:8443", "icg2.example.com:8443"]
    );
    let first = &found.found[0];
    assert_eq!(first.kind, ConnectorKind::Icg);
    let domain = "example.com".to_owned();
    assert_eq!(first.source, Source::Txt { domain });
    assert!(
        first
            .sentence
            .contains("TXT record igel-cloud-gateway of example.com")
    );
    let [problem] = found.problems.as_slice() else {
        panic!("{:?}", found.problems)
    };
    assert!(
        problem
            .sentence()
            .contains("“nonsense” does not begin with https://"),
        "{problem}"
    );
    // With the record's name in the text of the domain's own records; those of others are no problem.
    let found = of_mail_by(&resolver(server), "old.example", LONG).await;
    assert_eq!(addresses(&found), ["icg.old.example:443"]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
}

#[tokio::test]
async fn of_a_domains_countless_records_only_the_first_are_proposed() {
    let texts: Vec<&'static str> = (0..RECORDS_MAX + 4)
        .map(|number| &*format!("https://icg{number}.example.com:8443/usg/endpoint").leak())
        .collect();
    let server = dns(&[("igel-cloud-gateway.example.com", &texts)], &[]).await;
    let found = of_mail_by(&resolver(server), "example.com", LONG).await;
    assert_eq!(found.found.len(), RECORDS_MAX);
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_told() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let resolver = resolver(silent.local_addr().expect("its address"));
    let found = of_mail_by(&resolver, "example.com", Duration::ZERO).await;
    assert_eq!(found.problems, [late()]);
}

#[tokio::test]
async fn a_domain_without_a_record_and_what_is_no_domain_are_told() {
    let server = dns(&[], &[]).await;
    for (text, word) in [
        ("alice@example.com", "no TXT record igel-cloud-gateway"),
        ("alice@192.0.2.1", "is no domain"),
        ("alice@", "no e-mail address"),
        ("", "no e-mail address"),
        ("alice@exa mple", "no e-mail address"),
        ("alice@ex\u{430}mple.com", "xn--"),
    ] {
        let found = of_mail_by(&resolver(server), text, LONG).await;
        assert!(found.found.is_empty());
        let [problem] = found.problems.as_slice() else {
            panic!("{text}: {:?}", found.problems)
        };
        assert!(problem.sentence().contains(word), "{text}: {problem}");
    }
}

#[tokio::test]
async fn the_network_is_asked_for_the_record_first_and_then_for_the_name() {
    let server = dns(
        &[(
            "igel-cloud-gateway.lab.example",
            &["https://icg.lab.example:8443/usg/endpoint"],
        )],
        &["igelrmserver.corp.example"],
    )
    .await;
    let mut discovery = Discovery::default();
    ask_dns(&resolver(server), "", &mut discovery).await;
    assert_eq!(
        addresses(&discovery),
        ["icg.lab.example:8443", "igelrmserver.corp.example:8443"]
    );
    assert_eq!(discovery.found[1].kind, ConnectorKind::Ums);
    assert!(discovery.found[1].sentence.contains("192.0.2.1"));
    assert!(discovery.problems.is_empty(), "{:?}", discovery.problems);
    // A domain that is configured is asked for in place of the network's.
    let mut discovery = Discovery::default();
    ask_dns(&resolver(server), "Corp.Example", &mut discovery).await;
    assert_eq!(addresses(&discovery), ["igelrmserver.corp.example:8443"]);
}

fn sources(root: &std::path::Path) -> Sources {
    Sources {
        paths: Paths::new(root),
        configured: Vec::new(),
        dns: false,
        dhcp: true,
        domain: String::new(),
    }
}

#[tokio::test]
async fn what_is_configured_comes_alone_and_a_lease_without() {
    let root = tempfile::tempdir().expect("a folder");
    let hooks = root.path().join("run/umbra-dhcp");
    std::fs::create_dir_all(&hooks).expect("made");
    std::fs::write(hooks.join("eth0"), "ums.example.com").expect("written");
    std::fs::write(hooks.join("eth1"), "https://ums.example.com").expect("written");
    let mut sources = sources(root.path());
    let found = find(&sources, LONG).await;
    assert_eq!(addresses(&found), ["ums.example.com:8443"]);
    assert!(
        matches!(&found.found[0].source, Source::Dhcp { file } if file == "/run/umbra-dhcp/eth0")
    );
    assert!(
        found.problems[0].sentence().contains("option 224"),
        "{:?}",
        found.problems
    );
    sources.configured = vec![Connector {
        kind: ConnectorKind::Icg,
        address: "configured.example.com".into(),
        port: 443,
        roots: Vec::new(),
    }];
    let found = find(&sources, LONG).await;
    assert_eq!(addresses(&found), ["configured.example.com:443"]);
    assert_eq!(found.found[0].source, Source::Configured);
    sources.configured.clear();
    sources.dhcp = false;
    assert_eq!(find(&sources, LONG).await, Discovery::default());
}
