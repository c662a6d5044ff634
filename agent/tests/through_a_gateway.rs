//! The agent as a whole behind a gateway, against a server and a gateway that do what a test tells them to.

mod scripted;

use scripted::gateway::{Gateway, Mood, Proxy};
use scripted::{Conversation, Device, PATIENCE, Server, shadowable, soon, vnc_server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use umbra_agent::clock::Clock;
use umbra_agent::control::{Request, Response};
use umbra_agent::doctor::Verdict as Health;
use umbra_agent::enrolment::Enrolled;
use umbra_agent::files::{Files, Step};
use umbra_agent::os::fake::Fake;
use umbra_agent::status::{Stage, Status};
use umbra_protocol::command::{Action, Command, CommandResult, CommandState};
use umbra_protocol::enrolment::{Connector, ConnectorKind};
use umbra_protocol::gateway::{PATH_ENDPOINT, PATH_TUNNEL};
use umbra_protocol::ids::ServerRoot;
use umbra_protocol::message::FromDevice;
use umbra_protocol::secret::Secret;
use umbra_protocol::session::{
    Permissions, SessionRequest, SessionTunnel, SessionVerdict, Verdict,
};
use umbra_protocol::settings::{Settings, Value};
use umbra_protocol::ticket::Ticket;
use umbra_protocol::{CommandId, Fingerprint, SessionId};
use umbra_vnc_proxy::console_end;
use umbra_vnc_proxy::tls::console_client_config;

const SILENT: &str = "promptuser = false\n";
const ICG: &str = "system.remotemanager.enable_icg";

fn connector(kind: ConnectorKind, address: std::net::SocketAddr) -> Connector {
    Connector {
        kind,
        address: address.ip().to_string(),
        port: address.port(),
        roots: Vec::new(),
    }
}

async fn set(device: &Device, name: &str, value: &str) {
    let answer = device
        .ask(Request::RegistrySet {
            name: name.to_owned(),
            words: vec![Secret::new(value)],
        })
        .await;
    assert!(!matches!(answer, Response::Failed(_)), "{answer:?}");
}

/// Has the device taken on through the gateway.
async fn enrolled_through(device: &Device, server: &Server, gateway: &Gateway) {
    let address = gateway.address.to_string();
    let (answer, _) = tokio::join!(device.enrol_with(&address, server.root), server.enrol());
    assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
}

async fn online_by(device: &Device, word: &str) -> Status {
    device
        .until(&format!("a link by {word}"), |status| {
            status.stage == Stage::Online
                && status
                    .connector
                    .as_deref()
                    .is_some_and(|connector| connector.starts_with(word))
        })
        .await
}

fn kept(device: &Device) -> Enrolled {
    Enrolled::load(&device.paths)
        .expect("readable")
        .expect("an enrolment")
}

#[tokio::test]
async fn a_device_enrols_and_links_through_a_gateway_and_finds_it_again_after_a_restart() {
    // The server's certificate does not name the gateway: its own names are what counts inside.
    let server = Server::for_name("ums.example.com").await;
    let gateway = Gateway::before(&server).await;
    let mut device = Device::start("").await;
    enrolled_through(&device, &server, &gateway).await;
    let (link, facts) = server.welcome().await;
    let status = online_by(&device, "icg").await;
    assert_eq!(
        status.connector.as_deref(),
        Some(format!("icg {}", gateway.address).as_str())
    );
    assert!(status.ways[0].in_use && status.ways[0].kind == "icg");
    let asked = gateway.asked(PATH_ENDPOINT);
    let root = ServerRoot::from_bytes(*server.root.as_bytes()).to_string();
    for asked in &asked {
        assert_eq!(asked.header("umbra-server"), Some(root.as_str()));
        assert_eq!(asked.header("umbra-device"), Some(facts.unit_id.as_str()));
    }
    let kept = kept(&device);
    assert_eq!(kept.server_names, ["ums.example.com"]);
    assert_eq!(
        kept.last_good,
        Some(connector(ConnectorKind::Icg, gateway.address))
    );
    drop(link);
    device.stop().await;
    device.boot(Files::new(), Fake::default()).await;
    let _link = server.welcome().await;
    online_by(&device, "icg").await;
}

#[tokio::test]
async fn a_wrong_fingerprint_behind_a_gateway_ends_the_attempt_before_the_key_is_used() {
    let server = Server::for_name("ums.example.com").await;
    let stranger = Server::start().await;
    // The gateway itself is right, what it leads to is not.
    let gateway = Gateway::with_certificate_of(&stranger, &server).await;
    let device = Device::start("").await;
    let address = gateway.address.to_string();
    let (answer, connection) = tokio::join!(
        device.enrol_with(&address, server.root),
        soon("the stranger", stranger.try_accept())
    );
    assert!(connection.is_none(), "the device talked to a stranger");
    let Response::Failed(failure) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        failure.sentence.contains("wrong_fingerprint"),
        "{}",
        failure.sentence
    );
}

#[tokio::test]
async fn a_gateway_that_plays_the_server_with_its_own_certificate_is_not_believed() {
    let server = Server::for_name("ums.example.com").await;
    let gateway = Gateway::before(&server).await;
    let device = Device::start("").await;
    enrolled_through(&device, &server, &gateway).await;
    let (link, _) = server.welcome().await;
    gateway.mood(Mood::Impersonates);
    drop(link);
    let status = device
        .until("a refusal", |status| {
            let told = status.ways.iter().find_map(|way| way.trouble.as_deref());
            status.stage == Stage::Waiting && told.is_some_and(|told| told.contains("isn't for"))
        })
        .await;
    let trouble = status.ways[0].trouble.as_deref().unwrap_or_default();
    assert!(trouble.contains("ums.example.com"), "{trouble}");
    // The true server is taken back.
    gateway.mood(Mood::Joins);
    let _link = server.welcome().await;
    online_by(&device, "icg").await;
}

#[tokio::test]
async fn the_toggle_changes_the_way_at_once_in_both_directions_and_loses_no_command() {
    let server = Server::start().await;
    let gateway = Gateway::before(&server).await;
    server.name_connectors(vec![
        connector(ConnectorKind::Icg, gateway.address),
        connector(ConnectorKind::Ums, server.address),
    ]);
    let device = Device::start("").await;
    set(&device, ICG, "true").await;
    enrolled_through(&device, &server, &gateway).await;
    let (mut link, _) = server.welcome().await;
    online_by(&device, "icg").await;

    // From the command line.
    let command = Command {
        id: CommandId::from_bytes([1; 16]),
        action: Action::Message {
            text: "Hello".into(),
        },
    };
    link.say(command.clone()).await;
    set(&device, ICG, "false").await;
    soon("the farewell", async {
        while link.try_hear().await.is_some() {}
    })
    .await;
    drop(link);
    gateway.until_joined(0).await;
    let (mut link, _) = server.welcome().await;
    online_by(&device, "ums").await;
    // The answer was filed nowhere: it is said again on the new way, and the command runs once.
    link.say(command).await;
    let result = result(&mut link).await;
    assert_eq!(result.state, CommandState::Done);
    let told = device.board.now().messages;
    assert_eq!(told.len(), 1, "{told:?}");

    // From the server.
    let values = [(ICG.to_owned(), Value::Bool(true))].into();
    link.say(Settings {
        revision: 3,
        values,
    })
    .await;
    let (mut link, _) = server.welcome().await;
    online_by(&device, "icg").await;
    // And back, so that the file counts again.
    link.say(Settings {
        revision: 4,
        values: Default::default(),
    })
    .await;
    let (_link, _) = server.welcome().await;
    online_by(&device, "ums").await;

    // From the file.
    let text = std::fs::read_to_string(device.paths.registry()).expect("readable");
    assert!(text.contains("false"), "{text}");
    std::fs::write(device.paths.registry(), text.replace("false", "true")).expect("written");
    let (_link, _) = server.welcome().await;
    online_by(&device, "icg").await;
}

async fn result(link: &mut Conversation) -> CommandResult {
    let FromDevice::CommandResult(result) = link.hear_kind("command_result").await else {
        panic!("another kind")
    };
    result
}

#[tokio::test]
async fn a_new_way_that_does_not_work_leaves_both_tried_and_says_why_each_fails() {
    let server = Server::start().await;
    let gateway = Gateway::before(&server).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nowhere = closed.local_addr().expect("an address");
    drop(closed);
    server.name_connectors(vec![
        connector(ConnectorKind::Icg, gateway.address),
        connector(ConnectorKind::Ums, nowhere),
    ]);
    let device = Device::start("").await;
    enrolled_through(&device, &server, &gateway).await;
    let (link, _) = server.welcome().await;
    online_by(&device, "icg").await;
    // Nobody could take this back from afar, if the gateway were given up before the direct way works.
    set(&device, ICG, "false").await;
    let (second, _) = server.welcome().await;
    drop(link);
    let status = online_by(&device, "icg").await;
    let warning = device
        .until("a warning", |status| status.warnings.contains_key("way"))
        .await
        .warnings["way"]
        .clone();
    for part in [
        nowhere.to_string(),
        gateway.address.to_string(),
        "refuses connections".to_owned(),
    ] {
        assert!(warning.contains(&part), "{warning} {status:?}");
    }
    // Neither works: the sentence names both.
    gateway.mood(Mood::Refuses {
        status: 503,
        code: "no_server",
        retry_after: None,
    });
    drop(second);
    let status = device
        .until("both fail", |status| {
            status.stage == Stage::Waiting
                && status.ways.iter().all(|way| way.trouble.is_some())
                && status
                    .cause
                    .as_deref()
                    .is_some_and(|cause| cause.contains("icg "))
        })
        .await;
    let cause = status.cause.expect("a cause");
    assert!(
        cause.contains(&nowhere.to_string()) && cause.contains(&gateway.address.to_string()),
        "{cause}"
    );
    gateway.mood(Mood::Joins);
    let _link = server.welcome().await;
    online_by(&device, "icg").await;
}

#[tokio::test]
async fn a_session_runs_through_the_gateway_without_a_port_and_outlives_the_toggle() {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&server).await;
    server.name_connectors(vec![
        connector(ConnectorKind::Icg, gateway.address),
        connector(ConnectorKind::Ums, server.address),
    ]);
    let registry = shadowable(vnc_server().await, SILENT).replace("[\"127.0.0.1\"]", "[]");
    let device = Device::start(&registry).await;
    set(&device, ICG, "true").await;
    enrolled_through(&device, &server, &gateway).await;
    let (mut link, facts) = server.welcome().await;
    assert!(facts.shadowing, "it accepts sessions");
    assert_eq!(facts.shadow_port, None, "but no port");

    let request = SessionRequest {
        session: SessionId::from_bytes([1; 16]),
        operator: "Ada".into(),
        reason: "Printer".into(),
        permissions: Permissions {
            control: true,
            clipboard: true,
        },
    };
    let tunnel = |number: u8| SessionTunnel {
        session: SessionId::from_bytes([number; 16]),
        token: Secret::new("a-token-of-the-device"),
        expires_in_seconds: 30,
    };
    // One that was never announced is not dialled for.
    link.say(tunnel(9)).await;
    link.say(request.clone()).await;
    link.say(tunnel(1)).await;
    let (asked, websocket) = gateway.tunnel().await;
    assert_eq!(
        asked.header("authorization"),
        Some("Bearer a-token-of-the-device")
    );
    assert_eq!(asked.header("umbra-side"), Some("device"));
    assert!(!asked.path.contains("token"), "{}", asked.path);

    let config = console_client_config(link.certificate.clone()).expect("a certificate");
    let mut console = console_end::connect(websocket, config, Instant::now() + PATIENCE)
        .await
        .expect("the device's certificate");
    let ticket = server.signer.sign(&Ticket {
        session: request.session,
        device: link.device_id(),
        certificate: Fingerprint::of_certificate(&link.certificate),
        operator: "Ada".into(),
        permissions: request.permissions,
        nonce: format!("{:032x}", 1),
        iat: 0,
        exp: 60,
    });
    let password = umbra_vnc_proxy::Secret::new("password");
    let opening = console_end::open(
        &mut console,
        &ticket,
        &password,
        Instant::now() + PATIENCE,
        |_| (),
    );
    let serving = async {
        let FromDevice::SessionVerify(verify) = link.hear_kind("session_verify").await else {
            panic!("another kind")
        };
        link.say(SessionVerdict {
            question: verify.question,
            verdict: Verdict::Allowed(request.clone()),
        })
        .await;
    };
    let (opened, ()) = tokio::join!(opening, serving);
    opened.expect("allowed");
    let mut line = [0; 12];
    soon("the greeting", console.read_exact(&mut line))
        .await
        .expect("a greeting");
    assert_eq!(&line, b"RFB 003.008\n");
    let shown = device
        .until("the session", |status| {
            status.sessions.iter().any(|session| session.from.is_some())
        })
        .await;
    assert_eq!(shown.sessions[0].from.as_deref(), Some("gateway 127.0.0.1"));

    // The tunnel is a connection of its own.
    set(&device, ICG, "false").await;
    let (mut link, _) = server.welcome().await;
    online_by(&device, "ums").await;
    console
        .write_all(b"RFB 003.008\nten letters")
        .await
        .expect("sent");
    console.flush().await.expect("sent");
    soon("the echo", console.read_exact(&mut line))
        .await
        .expect("the session goes on");
    assert_eq!(gateway.asked(PATH_TUNNEL).len(), 1);
    console.shutdown().await.expect("closed");
    let FromDevice::SessionRecord(record) = link.hear_kind("session_record").await else {
        panic!("another kind")
    };
    assert_eq!(record.code, "viewer_closed");
}

#[tokio::test]
async fn a_move_drops_the_old_gateway_only_for_one_that_works() {
    let server = Server::start().await;
    let old = Gateway::before(&server).await;
    let new = Gateway::before(&server).await;
    let broken = Gateway::before(&server).await;
    broken.mood(Mood::Refuses {
        status: 403,
        code: "malformed",
        retry_after: None,
    });
    let device = Device::start("").await;
    enrolled_through(&device, &server, &old).await;
    let (mut link, _) = server.welcome().await;
    online_by(&device, "icg").await;
    let before = kept(&device);
    let command = |number: u8, gateway: &Gateway| Command {
        id: CommandId::from_bytes([number; 16]),
        action: Action::Connectors {
            connectors: vec![connector(ConnectorKind::Icg, gateway.address)],
        },
    };
    link.say(command(1, &broken)).await;
    let failed = result(&mut link).await;
    assert_eq!(failed.state, CommandState::Failed);
    assert!(
        failed.sentence.contains("stays as it is")
            && failed.sentence.contains(&broken.address.to_string()),
        "{}",
        failed.sentence
    );
    assert_eq!(kept(&device), before, "nothing has changed");

    link.say(command(2, &new)).await;
    server.answer_probe().await;
    let done = result(&mut link).await;
    assert_eq!(
        (done.id, done.state),
        (CommandId::from_bytes([2; 16]), CommandState::Done),
        "{}",
        done.sentence
    );
    let (_link, _) = server.welcome().await;
    new.until_joined(1).await;
    let status = online_by(&device, "icg").await;
    assert!(
        status
            .connector
            .as_deref()
            .is_some_and(|connector| connector.ends_with(&new.address.to_string())),
        "{status:?}"
    );
    let kept = kept(&device);
    assert_eq!(
        kept.connectors,
        [connector(ConnectorKind::Icg, new.address)]
    );
    assert_eq!(status.ways.len(), 1, "the old gateway is gone: {status:?}");
}

#[tokio::test]
async fn a_power_cut_during_a_move_leaves_the_old_ways_or_the_new_ones() {
    let mut left = Vec::new();
    for cut_at in [Step::Write, Step::Rename] {
        let server = Server::start().await;
        let old = Gateway::before(&server).await;
        let new = Gateway::before(&server).await;
        let mut device = Device::start("").await;
        enrolled_through(&device, &server, &old).await;
        let (link, _) = server.welcome().await;
        online_by(&device, "icg").await;
        drop(link);
        device.stop().await;
        // The disk stops at one step of writing the enrolment down that the move makes.
        let files = Files::watched(move |step, path| {
            let enrolment = path.to_string_lossy().contains("enrolment.json");
            if enrolment && step == cut_at {
                return Err(std::io::Error::other("the power is gone"));
            }
            Ok(())
        });
        device.boot(files, Fake::default()).await;
        let (mut link, _) = server.welcome().await;
        link.say(Command {
            id: CommandId::from_bytes([7; 16]),
            action: Action::Connectors {
                connectors: vec![connector(ConnectorKind::Icg, new.address)],
            },
        })
        .await;
        server.answer_probe().await;
        assert_eq!(result(&mut link).await.state, CommandState::Failed);
        device.cut_power().await;
        left.push(kept(&device).host.clone());
        assert_eq!(kept(&device).port, old.address.port());
        device.boot(Files::new(), Fake::default()).await;
        let _link = server.welcome().await;
        online_by(&device, "icg").await;
    }
    assert_eq!(left.len(), 2);
}

#[tokio::test]
async fn what_a_gateway_asks_for_is_honoured_and_told() {
    let server = Server::start().await;
    let gateway = Gateway::before(&server).await;
    let device = Device::start("").await;
    enrolled_through(&device, &server, &gateway).await;
    let (_link, _) = server.welcome().await;
    online_by(&device, "icg").await;
    let before = gateway.attempts();
    gateway.close_all(1012, "shutting_down retry=17: The gateway restarts.");
    let status = device
        .until("the wait", |status| {
            status.stage == Stage::Waiting && status.next_attempt.is_some()
        })
        .await;
    assert_eq!(status.code.as_deref(), Some("shutting_down"), "{status:?}");
    assert!(
        status
            .cause
            .as_deref()
            .is_some_and(|cause| cause.contains("The gateway restarts")),
        "{status:?}"
    );
    let ahead = status.next_attempt.expect("a time").seconds_ahead();
    assert!((10..=22).contains(&ahead), "{ahead}");
    assert_eq!(gateway.attempts(), before, "it keeps off");
}

#[tokio::test]
async fn a_gateway_without_a_server_says_so_before_the_upgrade_and_so_does_the_status() {
    let server = Server::start().await;
    let gateway = Gateway::before(&server).await;
    let device = Device::start("").await;
    enrolled_through(&device, &server, &gateway).await;
    let (link, _) = server.welcome().await;
    online_by(&device, "icg").await;
    gateway.mood(Mood::Refuses {
        status: 503,
        code: "no_server",
        retry_after: Some(20),
    });
    drop(link);
    let status = device
        .until("the refusal", |status| {
            status.code.as_deref() == Some("no_server") && status.next_attempt.is_some()
        })
        .await;
    assert_eq!(status.stage, Stage::Waiting);
    let ahead = status.next_attempt.expect("a time").seconds_ahead();
    assert!((15..=26).contains(&ahead), "{ahead}");
    gateway.mood(Mood::Closes(1013, "no_server retry=1: Gone.".into()));
    set(&device, "system.remotemanager.reconnect_interval", "1").await;
    gateway.until_attempts(gateway.attempts() + 1).await;
    let told = device
        .until("the close", |status| {
            status
                .ways
                .iter()
                .any(|way| way.trouble.as_deref().is_some_and(|t| t.contains("Gone")))
        })
        .await;
    assert_eq!(told.ways[0].code.as_deref(), Some("no_server"), "{told:?}");
}

#[tokio::test]
async fn link_and_tunnel_go_through_a_proxy_with_credentials_that_nobody_sees() {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&server).await;
    // Basic credentials of ada:s3cret.
    let proxy = Proxy::start("Basic YWRhOnMzY3JldA==").await;
    let registry = shadowable(vnc_server().await, SILENT);
    let device = Device::start(&format!(
        "{registry}[umbra.proxy]\nmode = \"manual\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"ada\"\npassword = \"wrong\"\n",
        proxy.address.port()
    ))
    .await;
    let answer = device
        .enrol_with(&gateway.address.to_string(), server.root)
        .await;
    let Response::Failed(failure) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        failure.sentence.contains("proxy_credentials") && !failure.sentence.contains("wrong"),
        "{}",
        failure.sentence
    );
    assert!(proxy.seen().is_empty(), "{:?}", proxy.seen());
    set(&device, "umbra.proxy.password", "s3cret").await;
    enrolled_through(&device, &server, &gateway).await;
    let (mut link, _) = server.welcome_with_port().await;
    let status = online_by(&device, "icg").await;
    let name = format!("http://127.0.0.1:{}", proxy.address.port());
    assert_eq!(status.ways[0].proxy.as_deref(), Some(name.as_str()));
    assert!(!format!("{status:?}").contains("s3cret"));
    let before = proxy.seen().len();
    link.say(SessionRequest {
        session: SessionId::from_bytes([1; 16]),
        operator: "Ada".into(),
        reason: String::new(),
        permissions: Permissions {
            control: true,
            clipboard: true,
        },
    })
    .await;
    link.say(SessionTunnel {
        session: SessionId::from_bytes([1; 16]),
        token: Secret::new("token"),
        expires_in_seconds: 30,
    })
    .await;
    let _ = gateway.tunnel().await;
    let seen = proxy.seen();
    assert_eq!(seen.len(), before + 1, "{seen:?}");
    assert!(
        seen.iter()
            .all(|target| *target == gateway.address.to_string()),
        "{seen:?}"
    );
}

#[tokio::test]
async fn the_doctor_says_of_each_way_what_stands_on_it_and_sends_nothing_to_the_server() {
    let server = Server::for_name("ums.example.com").await;
    let gateway = Gateway::before(&server).await;
    let mut device = Device::start("").await;
    enrolled_through(&device, &server, &gateway).await;
    let (link, _) = server.welcome().await;
    online_by(&device, "icg").await;
    drop(link);
    device.stop().await;
    let examine = || async {
        let checks =
            umbra_agent::doctor::examine(&device.paths, &Files::new(), &Clock::system()).await;
        checks
            .into_iter()
            .find(|check| check.id == "gateway" || check.id == "server")
            .expect("a check")
    };
    let (check, ()) = tokio::join!(examine(), soon("the look", server.is_looked_at()));
    assert_eq!(check.verdict, Health::Good, "{check:?}");
    gateway.mood(Mood::Refuses {
        status: 503,
        code: "no_server",
        retry_after: None,
    });
    let check = examine().await;
    assert_eq!(check.verdict, Health::Bad, "{check:?}");
    assert!(
        check.sentence.contains(&gateway.address.to_string()),
        "{check:?}"
    );
    assert!(
        check
            .advice
            .is_some_and(|advice| advice.contains("by itself"))
    );
    gateway.mood(Mood::Impersonates);
    let check = examine().await;
    assert_eq!(check.verdict, Health::Bad, "{check:?}");
    assert!(check.sentence.contains("ums.example.com"), "{check:?}");
    let proxied = "[umbra.proxy]\nmode = \"manual\"\n";
    std::fs::write(device.paths.registry(), proxied).expect("written");
    let checks = umbra_agent::doctor::examine(&device.paths, &Files::new(), &Clock::system()).await;
    let proxy = checks.iter().find(|check| check.id == "proxy");
    assert!(
        proxy.is_some_and(|check| check.sentence.contains("umbra.proxy.host")),
        "{checks:?}"
    );
}
