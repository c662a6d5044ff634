//! The resolver against servers of the test's own, some of which lie.

use std::net::SocketAddr;

use simple_dns::rdata::{A, CNAME, RData, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord};
use tokio::net::TcpListener;

use super::*;

/// Answers every question by `answer`, over UDP and TCP on one port, until the test ends.
async fn server(
    answer: impl Fn(&Packet<'_>, bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> SocketAddr {
    let answer = std::sync::Arc::new(answer);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let socket = UdpSocket::bind(address).await.expect("the same port");
    let over_tcp = std::sync::Arc::clone(&answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Ok(length) = stream.read_u16().await else {
                continue;
            };
            let mut question = vec![0; usize::from(length)];
            if stream.read_exact(&mut question).await.is_err() {
                continue;
            }
            let question = Packet::parse(&question).expect("a question");
            for message in over_tcp(&question, true) {
                let length = u16::try_from(message.len()).expect("it fits");
                let _ = stream.write_all(&length.to_be_bytes()).await;
                let _ = stream.write_all(&message).await;
            }
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, asker)) = socket.recv_from(&mut buffer).await {
            let question = Packet::parse(&buffer[..length]).expect("a question");
            for message in answer(&question, false) {
                let _ = socket.send_to(&message, asker).await;
            }
        }
    });
    address
}

fn resolver(server: SocketAddr) -> Resolver {
    Resolver::with(vec![server], &[])
}

fn name(text: &'static str) -> Name<'static> {
    Name::new(text).expect("a name")
}

fn reply(question: &Packet<'_>, answers: Vec<ResourceRecord<'static>>) -> Packet<'static> {
    let mut packet = Packet::new_reply(question.id());
    packet.questions = question
        .questions
        .iter()
        .cloned()
        .map(Question::into_owned)
        .collect();
    packet.answers = answers;
    packet
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    packet.build_bytes_vec().expect("it can be written")
}

fn txt(owner: &'static str, strings: &[&'static str]) -> ResourceRecord<'static> {
    let mut txt = TXT::new();
    for string in strings {
        txt.add_string(string).expect("short enough");
    }
    ResourceRecord::new(name(owner), CLASS::IN, 60, RData::TXT(txt))
}

fn alias(owner: &'static str, target: &'static str) -> ResourceRecord<'static> {
    ResourceRecord::new(
        name(owner),
        CLASS::IN,
        60,
        RData::CNAME(CNAME(name(target))),
    )
}

fn texts(records: Result<Vec<Vec<u8>>, ResolveError>) -> Vec<String> {
    let records = records.expect("an answer");
    records
        .into_iter()
        .map(|record| String::from_utf8(record).expect("text"))
        .collect()
}

#[tokio::test]
async fn several_records_come_back_each_with_its_strings_joined() {
    let server = server(|question, _| {
        let records = vec![
            txt("a.example", &["https://icg", ".example"]),
            txt("a.example", &["second"]),
            txt("elsewhere.example", &["not asked for"]),
            ResourceRecord {
                class: CLASS::CH,
                ..txt("a.example", &["of another class"])
            },
        ];
        vec![bytes(&reply(question, records))]
    })
    .await;
    let found = texts(resolver(server).txt("A.example").await);
    assert_eq!(found, ["https://icg.example", "second"]);
}

#[tokio::test]
async fn a_cut_answer_is_fetched_over_tcp_up_to_what_tcp_can_carry() {
    let server = server(|question, tcp| {
        if !tcp {
            let mut packet = reply(question, Vec::new());
            packet.set_flags(PacketFlag::TRUNCATION);
            return vec![bytes(&packet)];
        }
        let long: &'static str = "x".repeat(255).leak();
        let huge = vec![
            txt("a.example", &vec![long; 254]),
            txt("a.example", &["small"]),
        ];
        vec![bytes(&reply(question, huge))]
    })
    .await;
    let found = texts(resolver(server).txt("a.example").await);
    let lengths: Vec<usize> = found.iter().map(String::len).collect();
    assert_eq!(lengths, [254 * 255, 5]);
}

#[tokio::test]
async fn of_countless_records_only_the_first_are_looked_at() {
    let server = server(|question, _| {
        let records = vec![txt("a.example", &["x"]); RECORDS_MAX + 20];
        vec![bytes(&reply(question, records))]
    })
    .await;
    let found = texts(resolver(server).txt("a.example").await);
    assert_eq!(found.len(), RECORDS_MAX);
}

#[tokio::test]
async fn an_answer_over_tcp_to_another_question_is_rubbish() {
    let server = server(|question, tcp| {
        let mut packet = reply(question, vec![txt("a.example", &["forged"])]);
        if tcp {
            packet.set_id(packet.id().wrapping_add(1));
        } else {
            packet.set_flags(PacketFlag::TRUNCATION);
        }
        vec![bytes(&packet)]
    })
    .await;
    let error = resolver(server).txt("a.example").await.expect_err("forged");
    assert!(matches!(error, ResolveError::Garbage { .. }), "{error:?}");
}

#[tokio::test]
async fn what_does_not_fit_the_question_is_passed_over() {
    let server = server(|question, _| {
        let good = reply(question, vec![txt("a.example", &["genuine"])]);
        let forged = |change: &dyn Fn(&mut Packet<'static>)| {
            let mut packet = reply(question, vec![txt("a.example", &["forged"])]);
            change(&mut packet);
            bytes(&packet)
        };
        vec![
            forged(&|packet| packet.set_id(packet.id().wrapping_add(1))),
            forged(&|packet| packet.remove_flags(PacketFlag::RESPONSE)),
            forged(&|packet| packet.questions[0].qname = name("b.example")),
            forged(&|packet| packet.questions.clear()),
            b"no DNS".to_vec(),
            bytes(&good),
        ]
    })
    .await;
    assert_eq!(texts(resolver(server).txt("a.example").await), ["genuine"]);
}

#[tokio::test]
async fn aliases_are_followed_and_circles_and_endless_rows_are_told() {
    let server = server(|question, _| {
        let asked = question.questions[0].qname.to_string();
        let records = match asked.as_str() {
            "a.example" => vec![
                alias("a.example", "b.example"),
                alias("b.example", "c.example"),
            ],
            "c.example" => vec![txt("c.example", &["found"])],
            "circle.example" => vec![
                alias("circle.example", "round.example"),
                alias("round.example", "circle.example"),
            ],
            "self.example" => vec![alias("self.example", "self.example")],
            "1.example" => vec![alias("1.example", "2.example")],
            "2.example" => vec![alias("2.example", "3.example")],
            "3.example" => vec![alias("3.example", "4.example")],
            "4.example" => vec![alias("4.example", "5.example")],
            "5.example" => vec![alias("5.example", "6.example")],
            // All at once, and nothing behind them.
            "row.example" => ["row", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]
                .windows(2)
                .map(|pair| {
                    let full = |label: &str| -> &'static str { format!("{label}.example").leak() };
                    alias(full(pair[0]), full(pair[1]))
                })
                .collect(),
            _ => Vec::new(),
        };
        vec![bytes(&reply(question, records))]
    })
    .await;
    let resolver = resolver(server);
    assert_eq!(texts(resolver.txt("a.example").await), ["found"]);
    for circle in ["circle.example", "self.example"] {
        let error = resolver.txt(circle).await.expect_err("a circle");
        assert!(matches!(error, ResolveError::Circle { .. }), "{error:?}");
        assert!(error.to_string().contains("circle"), "{error}");
    }
    for endless in ["1.example", "row.example"] {
        let error = resolver.txt(endless).await.expect_err("endless");
        assert!(matches!(error, ResolveError::Endless { .. }), "{error:?}");
    }
    assert_eq!(texts(resolver.txt("nothing.example").await), [""; 0]);
}

#[tokio::test]
async fn a_missing_name_is_no_error_and_a_failing_server_is() {
    let server = server(|question, _| {
        let mut packet = reply(question, Vec::new());
        *packet.rcode_mut() = match question.questions[0].qname.to_string().as_str() {
            "missing.example" => RCODE::NameError,
            "broken.example" => RCODE::ServerFailure,
            _ => RCODE::Refused,
        };
        vec![bytes(&packet)]
    })
    .await;
    let resolver = resolver(server);
    assert_eq!(texts(resolver.txt("missing.example").await), [""; 0]);
    for (name, word) in [("broken.example", "failed"), ("x.example", "refuses")] {
        let error = resolver.txt(name).await.expect_err("no answer");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn rubbish_behind_a_right_beginning_is_told_as_such() {
    let server = server(|question, _| {
        let mut packet = bytes(&reply(question, vec![txt("a.example", &["x"])]));
        packet.truncate(packet.len() - 3);
        vec![packet]
    })
    .await;
    let error = resolver(server)
        .txt("a.example")
        .await
        .expect_err("rubbish");
    assert!(matches!(error, ResolveError::Garbage { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_and_names_who_was_asked() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("its address");
    let error = resolver(address)
        .txt("a.example")
        .await
        .expect_err("silence");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let nobody = Resolver::with(Vec::new(), &[]);
    assert_eq!(nobody.txt("a.example").await, Err(ResolveError::NoServer));
}

#[tokio::test]
async fn addresses_of_both_kinds_are_found() {
    let server = server(|question, _| {
        let four = ResourceRecord::new(
            name("ums.example"),
            CLASS::IN,
            60,
            RData::A(A {
                address: Ipv4Addr::new(192, 0, 2, 1).into(),
            }),
        );
        vec![bytes(&reply(question, vec![four]))]
    })
    .await;
    let found = resolver(server).addresses("ums.example").await;
    assert_eq!(found, Ok(vec![IpAddr::from([192, 0, 2, 1])]));
    let error = resolver(server)
        .addresses("a b")
        .await
        .expect_err("no name");
    assert!(matches!(error, ResolveError::Name { .. }), "{error:?}");
}

#[test]
fn resolv_conf_is_read_as_the_c_library_reads_it() {
    let resolver = Resolver::parse(
        "# generated\nsearch old.example\nnameserver 192.0.2.53 # first\nnameserver 2001:db8::53\nnameserver nonsense\n\
         options edns0\nsearch Corp.Example. -- lab.example b\u{e4}d\nnameserver 192.0.2.54\nnameserver 192.0.2.55\n",
    );
    let servers: Vec<String> = resolver.servers.iter().map(ToString::to_string).collect();
    assert_eq!(
        servers,
        ["192.0.2.53:53", "[2001:db8::53]:53", "192.0.2.54:53"]
    );
    assert_eq!(resolver.search(), ["corp.example", "--", "lab.example"]);
    let many = Resolver::parse("search a.example b.example c.example d.example e.example\n");
    assert_eq!(many.search().len(), SEARCH_MAX);
    let link_local = Resolver::parse("nameserver fe80::1%lo\nnameserver fe80::1%nowhere\n");
    assert_eq!(link_local.servers.len(), 1, "{link_local:?}");
    // Without a file the machine itself is asked.
    let root = tempfile::tempdir().expect("a folder");
    let alone = Resolver::read(&Paths::new(root.path()));
    assert_eq!(alone.servers, ["127.0.0.1:53".parse().expect("an address")]);
}
