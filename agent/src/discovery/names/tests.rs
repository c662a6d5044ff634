use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, Question, ResourceRecord};

use super::*;

/// Knows `device.example`, in both families, and answers each question once over UDP.
async fn server() -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = socket.local_addr().expect("its address");
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, asker)) = socket.recv_from(&mut buffer).await {
            let question = Packet::parse(&buffer[..length]).expect("a question");
            let mut reply = Packet::new_reply(question.id());
            for asked in &question.questions {
                reply.questions.push(Question::into_owned(asked.clone()));
                if asked.qname.to_string() != "device.example" {
                    continue;
                }
                let is_v4 = asked.qtype == simple_dns::QTYPE::TYPE(simple_dns::TYPE::A);
                let data = if is_v4 {
                    RData::A(A::from(Ipv4Addr::new(192, 0, 2, 7)))
                } else {
                    RData::AAAA(AAAA::from(Ipv6Addr::from((0x2001_0db8 << 96) | 7)))
                };
                let name = Name::new("device.example").expect("a name");
                reply
                    .answers
                    .push(ResourceRecord::new(name, CLASS::IN, 60, data));
            }
            let bytes = reply.build_bytes_vec().expect("it can be written");
            let _ = socket.send_to(&bytes, asker).await;
        }
    });
    address
}

struct Machine {
    _root: tempfile::TempDir,
    paths: Paths,
}

impl Machine {
    fn new(hosts: &str, resolv_conf: &str) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(root.path().join("etc")).expect("a folder");
        std::fs::write(paths.hosts(), hosts).expect("written");
        std::fs::write(paths.resolv_conf(), resolv_conf).expect("written");
        Self { _root: root, paths }
    }

    async fn finds(&self, host: &str) -> Vec<String> {
        let found = find(&self.paths, host, 443).await.expect("an answer");
        found.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn addresses_and_names_of_this_machine_need_no_server() {
    let machine = Machine::new(
        "# ours\n192.0.2.1  ums.example UMS # the server\n2001:db8::1 ums.example\nrubbish ums.example\n192.0.2.9\n",
        "nameserver 192.0.2.250\n",
    );
    assert_eq!(machine.finds("192.0.2.5").await, ["192.0.2.5:443"]);
    assert_eq!(machine.finds("2001:db8::5").await, ["[2001:db8::5]:443"]);
    let zoned = find(&machine.paths, "fe80::1%lo", 443)
        .await
        .expect("an address");
    assert!(
        matches!(zoned.as_slice(), [SocketAddr::V6(address)] if address.scope_id() != 0),
        "{zoned:?}"
    );
    let both = ["192.0.2.1:443", "[2001:db8::1]:443"];
    assert_eq!(machine.finds("ums.example").await, both);
    assert_eq!(machine.finds("UMS.Example.").await, both);
    assert_eq!(machine.finds("ums").await, ["192.0.2.1:443"]);
    for name in ["localhost", "here.LOCALHOST", "localhost."] {
        assert_eq!(
            machine.finds(name).await,
            ["127.0.0.1:443", "[::1]:443"],
            "{name}"
        );
    }
}

#[tokio::test]
async fn what_is_no_name_is_asked_of_nobody() {
    let machine = Machine::new("", "nameserver 192.0.2.250\n");
    for host in [
        "",
        ".",
        "a..b",
        "a b",
        "fe80::1%no-such-network",
        "ü.example",
    ] {
        let error = find(&machine.paths, host, 443).await.expect_err("no name");
        assert!(
            error
                .to_string()
                .ends_with("is no name that DNS could know"),
            "{host:?}: {error}"
        );
    }
}

/// The real one listens on port 53, which a test can't have; what is asked and in which order is the resolver's.
#[tokio::test]
async fn names_are_asked_for_in_both_families_and_completed_only_where_they_are_not_whole() {
    let resolver = Resolver::with(vec![server().await], &["example", "other.example"]);
    assert_eq!(
        resolver.candidates("device"),
        ["device.example", "device.other.example", "device"]
    );
    assert_eq!(resolver.candidates("device.example"), ["device.example"]);
    assert_eq!(resolver.candidates("device."), ["device"]);
    let found = resolver
        .addresses("device.example")
        .await
        .expect("an answer");
    assert_eq!(
        found,
        [
            "192.0.2.7".parse::<IpAddr>().expect("one"),
            "2001:db8::7".parse().expect("one")
        ]
    );
    assert_eq!(resolver.addresses("nobody.example").await, Ok(Vec::new()));
    let more = Resolver::parse("search example\noptions rotate ndots:2 timeout:1\n");
    assert_eq!(more.candidates("a.b"), ["a.b.example", "a.b"]);
    assert_eq!(more.candidates("a.b.c"), ["a.b.c"]);
}

#[tokio::test]
async fn no_server_at_all_is_told_apart_from_a_name_that_does_not_exist() {
    let machine = Machine::new("", "# none\n");
    let error = find(&machine.paths, "ums.example", 443)
        .await
        .expect_err("nobody to ask");
    assert!(error.to_string().contains("names no DNS server"), "{error}");
}

#[test]
fn addresses_that_can_be_reached_come_first_and_ipv6_before_ipv4() {
    let all = [
        "192.0.2.1:1",
        "[2001:db8::1]:1",
        "192.0.2.2:1",
        "[2001:db8::2]:1",
    ];
    let all: Vec<SocketAddr> = all.iter().map(|text| text.parse().expect("one")).collect();
    let order = |leads: fn(&SocketAddr) -> bool| -> Vec<usize> {
        let sorted = in_order(all.clone(), leads);
        let places = sorted
            .iter()
            .map(|one| all.iter().position(|other| other == one));
        places.flatten().collect()
    };
    assert_eq!(order(|_| true), [1, 3, 0, 2]);
    assert_eq!(order(SocketAddr::is_ipv4), [0, 2, 1, 3]);
    assert_eq!(order(|_| false), [1, 3, 0, 2]);
    assert!(leads_somewhere(&"127.0.0.1:9".parse().expect("one")));
}

#[tokio::test]
async fn the_machines_own_names_are_found_as_the_c_library_finds_them() {
    for host in ["localhost", "127.0.0.1", "::1"] {
        let found = DeviceNames.addresses(host, 443).await.expect("an answer");
        let system = umbra_carrier::names::System
            .addresses(host, 443)
            .await
            .expect("an answer");
        assert!(
            system.iter().all(|address| found.contains(address)),
            "{host}: {found:?}, and {system:?} by the C library"
        );
    }
}
