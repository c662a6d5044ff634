//! The agent as a whole, in a folder, against a server that says what a test tells it to.

mod scripted;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use scripted::{Conversation, Device, PATIENCE, Server, shadowable, soon, vnc_server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use umbra_agent::control::{ErrorCode, Request, Response};
use umbra_agent::files::{Files, Step};
use umbra_agent::os::fake::Fake;
use umbra_agent::status::{SessionStage, Stage};
use umbra_protocol::command::{Action, Command, CommandState};
use umbra_protocol::hello::{Intent, TrustAnchors};
use umbra_protocol::link::{CertificateFiled, ResultFiled};
use umbra_protocol::message::FromDevice;
use umbra_protocol::session::{
    Permissions, Presented, RecordFiled, SessionEnd, SessionRecord, SessionRequest, SessionVerdict,
    SessionVerify, Verdict,
};
use umbra_protocol::settings::{Settings, Value};
use umbra_protocol::ticket::Ticket;
use umbra_protocol::{CommandId, DeviceId, Fingerprint, Refusal, RefusalCode, SessionId};
use umbra_vnc_proxy::console_end::{self, ConsoleError};
use umbra_vnc_proxy::tls::console_client_config;

const SILENT: &str = "promptuser = false\n";
const FULL: Permissions = Permissions {
    control: true,
    clipboard: true,
};

type Console = TlsStream<TcpStream>;

fn failed(answer: Response) -> (ErrorCode, String) {
    let Response::Failed(failure) = answer else {
        panic!("it worked: {answer:?}")
    };
    (failure.code, failure.sentence)
}

fn request(number: u8) -> SessionRequest {
    SessionRequest {
        session: SessionId::from_bytes([number; 16]),
        operator: "Ada".into(),
        reason: "Printer".into(),
        permissions: FULL,
    }
}

/// A ticket as the server of this link would give it.
fn ticket(server: &Server, link: &Conversation, number: u8) -> String {
    ticket_for(server, link, number, FULL)
}

fn ticket_for(
    server: &Server,
    link: &Conversation,
    number: u8,
    permissions: Permissions,
) -> String {
    server.signer.sign(&Ticket {
        session: request(number).session,
        device: link.device_id(),
        certificate: Fingerprint::of_certificate(&link.certificate),
        operator: "Ada".into(),
        permissions,
        nonce: format!("{number:032x}"),
        iat: 0,
        exp: 60,
    })
}

async fn connect(link: &Conversation, port: u16) -> Console {
    let tcp = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("the device listens");
    let config = console_client_config(link.certificate.clone()).expect("a certificate");
    console_end::connect(tcp, config, Instant::now() + PATIENCE)
        .await
        .expect("the device's certificate")
}

async fn open(console: &mut Console, ticket: &str) -> Result<Vec<String>, ConsoleError> {
    let mut waits = Vec::new();
    let password = umbra_vnc_proxy::Secret::new("password");
    let deadline = Instant::now() + PATIENCE;
    console_end::open(console, ticket, &password, deadline, |wait| {
        waits.push(wait.to_owned())
    })
    .await?;
    Ok(waits)
}

fn refusal_code(result: Result<Vec<String>, ConsoleError>) -> String {
    match result {
        Err(ConsoleError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

async fn asked(link: &mut Conversation) -> SessionVerify {
    let FromDevice::SessionVerify(verify) = link.hear_kind("session_verify").await else {
        panic!("another kind")
    };
    verify
}

async fn allow(link: &mut Conversation, number: u8) {
    let question = asked(link).await.question;
    link.say(SessionVerdict {
        question,
        verdict: Verdict::Allowed(request(number)),
    })
    .await;
}

async fn record(link: &mut Conversation) -> SessionRecord {
    let FromDevice::SessionRecord(record) = link.hear_kind("session_record").await else {
        panic!("another kind")
    };
    record
}

async fn greeting(console: &mut Console) -> String {
    let mut line = [0; 12];
    soon("the VNC server's greeting", console.read_exact(&mut line))
        .await
        .expect("a greeting");
    String::from_utf8_lossy(&line).into_owned()
}

#[tokio::test]
async fn a_device_enrols_links_takes_settings_over_and_says_where_it_can_be_shadowed() {
    let server = Server::start().await;
    let device = Device::start("[umbra.vncserver]\nlisten = [\"127.0.0.1\"]\n").await;
    device
        .until("no server", |status| status.stage == Stage::NotEnrolled)
        .await;
    device.enrolled_by(&server).await;
    let (mut link, facts) = server.welcome().await;
    assert_eq!(facts.shadow_port, None);
    device
        .until("the link", |status| status.stage == Stage::Online)
        .await;
    let values = [
        ("network.vncserver.enabled", Value::Bool(true)),
        ("network.vncserver.port", Value::Int(0)),
        ("umbra.consent.program", Value::List(vec!["/bin/sh".into()])),
    ];
    let values = values.map(|(name, value)| (name.to_owned(), value)).into();
    link.say(Settings {
        revision: 7,
        values,
    })
    .await;
    let FromDevice::SettingsApplied(applied) = link.hear_kind("settings_applied").await else {
        panic!("nothing applied")
    };
    assert_eq!(applied.revision, 7);
    assert!(
        applied.refused.contains_key("umbra.consent.program"),
        "the server may not name programs"
    );
    // What the hello said is not true any more: the device says it anew.
    let (_link, port) = server.welcome_with_port().await;
    assert_eq!(device.board.now().shadow_port, Some(port));
}

#[tokio::test]
async fn a_wrong_fingerprint_ends_the_attempt_before_anything_of_the_device_is_sent() {
    let server = Server::start().await;
    let device = Device::start("").await;
    let wrong = Fingerprint::from_bytes([7; 32]);
    let address = server.address.to_string();
    let (answer, connection) =
        tokio::join!(device.enrol_with(&address, wrong), server.try_accept());
    assert!(
        connection.is_none(),
        "the device went on talking to a stranger"
    );
    let (code, sentence) = failed(answer);
    assert_eq!(code, ErrorCode::Refused);
    for expected in [
        "wrong_fingerprint",
        "0707070707070707",
        &server.root.parts()[0],
    ] {
        let found = sentence.to_lowercase().contains(&expected.to_lowercase());
        assert!(found, "{expected} is missing: {sentence}");
    }
    assert_eq!(device.board.now().stage, Stage::NotEnrolled);
}

#[tokio::test]
async fn a_wrong_name_is_told_with_the_names_that_the_certificate_has() {
    let server = Server::for_name("ums.example.com").await;
    let device = Device::start("").await;
    let (answer, connection) = tokio::join!(device.enrol(&server), server.try_accept());
    assert!(connection.is_none());
    let (_, sentence) = failed(answer);
    assert!(
        sentence.contains("ums.example.com") && sentence.contains("wrong_name"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_full_disk_costs_no_key_the_same_one_works_again() {
    let server = Server::start().await;
    let full = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&full);
    let files = Files::watched(move |step: Step, path: &Path| {
        let enrolment = path.to_string_lossy().contains("enrolment.json");
        if step == Step::Write && enrolment && seen.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    });
    let mut device = Device::off("");
    device.boot(files, Fake::default()).await;
    let (answer, _) = tokio::join!(device.enrol(&server), server.enrol());
    let (code, sentence) = failed(answer);
    assert_eq!(code, ErrorCode::Disk);
    assert!(sentence.contains("same key"), "{sentence}");
    full.store(false, Ordering::Relaxed);
    device.enrolled_by(&server).await;
    server.welcome().await;
}

#[tokio::test]
async fn a_session_runs_only_after_the_servers_word_and_leaves_a_record() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let serving = async {
        let verify = asked(&mut link).await;
        let Presented::Ticket { password, .. } = &verify.presented else {
            panic!("{verify:?}")
        };
        assert_eq!(password.reveal(), "password");
        // Not one byte before the verdict.
        let verdict = Verdict::Allowed(request(1));
        link.say(SessionVerdict {
            question: verify.question,
            verdict,
        })
        .await;
    };
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), serving);
    assert!(opened.expect("allowed").is_empty());
    assert_eq!(greeting(&mut console).await, "RFB 003.008\n");
    console
        .write_all(b"RFB 003.008\nten letters")
        .await
        .expect("sent");
    assert_eq!(
        greeting(&mut console).await,
        "\u{1}\u{1}ten letter",
        "the offer and the echo"
    );
    link.hear_kind("session_started").await;
    let running = device
        .until("the session", |s| {
            s.sessions
                .first()
                .is_some_and(|s| s.stage == SessionStage::Running)
        })
        .await;
    assert_eq!(running.sessions[0].operator, "Ada");
    console.shutdown().await.expect("closed");
    let record = record(&mut link).await;
    assert_eq!(
        (record.session, record.code.as_str()),
        (request(1).session, "viewer_closed")
    );
    assert_eq!((record.bytes_to_device, record.bytes_to_console), (23, 25));
    device
        .until("the end", |status| status.sessions.is_empty())
        .await;

    // Said again at the next link, until it is filed.
    drop(link);
    let (mut link, _) = server.welcome().await;
    assert_eq!(self::record(&mut link).await, record);
    link.say(RecordFiled {
        session: record.session,
    })
    .await;
    // The same ticket is worth nothing any more.
    let mut console = connect(&link, port).await;
    assert_eq!(
        refusal_code(open(&mut console, &ticket).await),
        "ticket_used"
    );
}

#[tokio::test]
async fn without_a_link_nobody_comes_in_and_the_operator_is_told_why() {
    let server = Server::start().await;
    let mut device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (link, port) = server.welcome_with_port().await;
    let ticket = ticket(&server, &link, 1);
    let mut console = connect(&link, port).await;
    drop(link);
    drop(server);
    device
        .until("no link", |status| status.stage == Stage::Waiting)
        .await;
    assert_eq!(
        refusal_code(open(&mut console, &ticket).await),
        "server_unreachable"
    );
    device.stop().await;
}

#[tokio::test]
async fn tickets_of_strangers_and_for_other_devices_never_reach_the_server() {
    let server = Server::start().await;
    let stranger = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let forged = ticket(&stranger, &link, 1);
    assert_eq!(
        refusal_code(open(&mut console, &forged).await),
        "ticket_invalid"
    );
    let elsewhere = server.signer.sign(&Ticket {
        session: request(2).session,
        device: DeviceId::from_bytes([0; 32]),
        certificate: Fingerprint::of_certificate(&link.certificate),
        operator: "Ada".into(),
        permissions: FULL,
        nonce: "00".repeat(16),
        iat: 0,
        exp: 60,
    });
    let mut console = connect(&link, port).await;
    assert_eq!(
        refusal_code(open(&mut console, &elsewhere).await),
        "ticket_for_other_device"
    );
    // The first question that the server hears is about the good one.
    let good = ticket(&server, &link, 3);
    let mut console = connect(&link, port).await;
    let (opened, ()) = tokio::join!(open(&mut console, &good), allow(&mut link, 3));
    opened.expect("allowed");
}

#[tokio::test]
async fn the_person_is_asked_and_the_operator_waits_for_the_answer() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, "")).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    for (number, accept) in [(1, false), (2, true)] {
        let session = request(number).session;
        let mut console = connect(&link, port).await;
        let ticket = ticket(&server, &link, number);
        let person = async {
            device
                .until("the question", |status| {
                    status.consents.iter().any(|c| c.session == session)
                })
                .await;
            device.ask(Request::Consent { session, accept }).await
        };
        let (opened, (), answer) = tokio::join!(
            open(&mut console, &ticket),
            allow(&mut link, number),
            person
        );
        assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
        if accept {
            assert_eq!(
                opened.expect("accepted").len(),
                1,
                "the operator was told to wait"
            );
            assert_eq!(greeting(&mut console).await, "RFB 003.008\n");
        } else {
            assert_eq!(refusal_code(opened), "consent_denied");
            assert_eq!(record(&mut link).await.code, "consent_denied");
        }
        let (code, _) = failed(device.ask(Request::Consent { session, accept }).await);
        assert_eq!(code, ErrorCode::NotThere, "the question is answered");
    }
}

#[tokio::test]
async fn a_program_asks_the_person_and_gets_what_it_needs_without_a_shell() {
    let server = Server::start().await;
    let mut device = Device::off("");
    let program = device.paths.root().join("ask");
    let noted = device.paths.root().join("noted");
    let script = format!(
        "#!/bin/sh\nprintf '%s|%s|%s' \"$UMBRA_OPERATOR\" \"$UMBRA_REASON\" \"$UMBRA_SESSION\" > {}\nexit 1\n",
        noted.display()
    );
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("executable");
    let more = format!("[umbra.consent]\nprogram = [\"{}\"]\n", program.display());
    std::fs::write(
        device.paths.registry(),
        shadowable(vnc_server().await, &more),
    )
    .expect("written");
    device.boot(Files::new(), Fake::default()).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), async {
        let question = asked(&mut link).await.question;
        let hostile = SessionRequest {
            operator: "$(reboot)\n;x".into(),
            ..request(1)
        };
        link.say(SessionVerdict {
            question,
            verdict: Verdict::Allowed(hostile),
        })
        .await;
    });
    assert_eq!(refusal_code(opened), "consent_denied");
    let noted = std::fs::read_to_string(noted).expect("the program ran");
    assert_eq!(
        noted,
        format!("$(reboot) ;x|Printer|{}", request(1).session)
    );
}

#[tokio::test]
async fn administrator_and_person_can_end_a_running_session() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    for (number, expected) in [(1, "ended_by_administrator"), (2, "ended_by_user")] {
        let session = request(number).session;
        let mut console = connect(&link, port).await;
        let ticket = ticket(&server, &link, number);
        let (opened, ()) = tokio::join!(open(&mut console, &ticket), allow(&mut link, number));
        opened.expect("allowed");
        greeting(&mut console).await;
        device
            .until("the session", |s| {
                s.sessions
                    .iter()
                    .any(|s| s.session == session && s.stage == SessionStage::Running)
            })
            .await;
        if number == 1 {
            link.say(SessionEnd {
                session,
                sentence: "Enough.".into(),
            })
            .await;
        } else {
            let answer = device.ask(Request::EndSession { session }).await;
            assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
        }
        let mut rest = Vec::new();
        // Closed in order or not: it is closed.
        let _ = soon("the end", console.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
        assert_eq!(record(&mut link).await.code, expected);
    }
}

#[tokio::test]
async fn only_so_many_sessions_run_at_a_time() {
    let server = Server::start().await;
    let more = format!("{SILENT}instances = 1\n");
    let device = Device::start(&shadowable(vnc_server().await, &more)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut first = connect(&link, port).await;
    let ticket_1 = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut first, &ticket_1), allow(&mut link, 1));
    opened.expect("allowed");
    let mut second = connect(&link, port).await;
    let ticket_2 = ticket(&server, &link, 2);
    let (opened, ()) = tokio::join!(open(&mut second, &ticket_2), allow(&mut link, 2));
    assert_eq!(refusal_code(opened), "too_many_sessions");
    assert_eq!(
        greeting(&mut first).await,
        "RFB 003.008\n",
        "the first one goes on"
    );
}

#[tokio::test]
async fn when_the_agent_ends_its_sessions_end_and_the_server_hears_of_it_first() {
    let server = Server::start().await;
    let mut device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), allow(&mut link, 1));
    opened.expect("allowed");
    link.hear_kind("session_started").await;
    let listening = async {
        let record = record(&mut link).await;
        link.hear_kind("goodbye").await;
        record
    };
    let ((), record) = tokio::join!(device.stop(), listening);
    assert_eq!(record.code, "ended_by_shutdown");
    assert!(
        TcpStream::connect(("127.0.0.1", port)).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test]
async fn a_session_that_the_power_was_cut_in_is_reported_after_the_next_start() {
    let server = Server::start().await;
    let mut device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), allow(&mut link, 1));
    opened.expect("allowed");
    link.hear_kind("session_started").await;
    // As a power cut leaves it: what is on the disk now.
    let records =
        std::fs::read(device.paths.records()).expect("records are written at the beginning");
    device.cut_power().await;
    drop((link, console));
    std::fs::write(device.paths.records(), records).expect("written");
    device.boot(Files::new(), Fake::default()).await;
    let (mut link, _) = server.welcome().await;
    assert_eq!(record(&mut link).await.code, "agent_restarted");
}

#[tokio::test]
async fn consoles_of_the_existing_field_get_the_greeting_or_silence() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let uuid = umbra_vnc_proxy::Secret::new("01234567-89ab-cdef-0123-456789abcdef");
    let deadline = Instant::now() + PATIENCE;
    let mut console = connect(&link, port).await;
    let asking = async {
        let verify = asked(&mut link).await;
        let Presented::LegacyPassword { password } = &verify.presented else {
            panic!("{verify:?}")
        };
        assert_eq!(password.reveal(), uuid.expose());
        link.say(SessionVerdict {
            question: verify.question,
            verdict: Verdict::Allowed(request(1)),
        })
        .await;
    };
    let (opened, ()) = tokio::join!(
        console_end::legacy_open(&mut console, &uuid, deadline),
        asking
    );
    assert_eq!(&opened.expect("allowed"), b"RFB 003.008\n");
    let mut console = connect(&link, port).await;
    let refusing = async {
        let question = asked(&mut link).await.question;
        let refusal = Refusal::new(RefusalCode::PasswordWrong, "Wrong.");
        link.say(SessionVerdict {
            question,
            verdict: Verdict::Refused(refusal),
        })
        .await;
    };
    let (opened, ()) = tokio::join!(
        console_end::legacy_open(&mut console, &uuid, deadline),
        refusing
    );
    assert!(matches!(opened, Err(ConsoleError::Closed)), "{opened:?}");
}

#[tokio::test]
async fn a_plain_viewer_is_never_greeted_in_secure_mode_and_passed_through_without_it() {
    let vnc = vnc_server().await;
    let secure = Device::start(&shadowable(vnc, SILENT)).await;
    let open = Device::start(&shadowable(
        vnc,
        "promptuser = false\nsecure_mode = false\n",
    ))
    .await;
    for (device, expected) in [(secure, 0), (open, 12)] {
        let port = device
            .until("the port", |status| status.shadow_port.is_some())
            .await
            .shadow_port
            .expect("a port");
        let mut viewer = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("connected");
        let mut bytes = [0; 12];
        let mut read = 0;
        while read < 12 {
            match soon("a greeting or the end", viewer.read(&mut bytes[read..])).await {
                Ok(0) | Err(_) => break,
                Ok(more) => read += more,
            }
        }
        assert_eq!(read, expected);
    }
}

#[tokio::test]
async fn a_password_for_plain_viewers_is_not_waved_through_by_a_vnc_server_that_asks_for_none() {
    let more = "promptuser = false\nsecure_mode = false\ncrypt_password = \"secret\"\n";
    let device = Device::start(&shadowable(real_vnc_server(None).await.0, more)).await;
    let port = device
        .until("the port", |status| status.shadow_port.is_some())
        .await
        .shadow_port
        .expect("a port");
    let mut viewer = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connected");
    let mut bytes = Vec::new();
    // However it ends: not one byte came.
    let _ = soon("the end", viewer.read_to_end(&mut bytes)).await;
    assert!(bytes.is_empty(), "{bytes:?}");
}

/// A VNC server that asks for this password, if there is one, and passes on what comes after the handshake.
async fn real_vnc_server(
    password: Option<&'static str>,
) -> (SocketAddr, mpsc::UnboundedReceiver<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                stream.write_all(b"RFB 003.008\n").await?;
                let mut line = [0; 12];
                stream.read_exact(&mut line).await?;
                stream
                    .write_all(&[1, if password.is_some() { 2 } else { 1 }])
                    .await?;
                stream.read_u8().await?;
                if let Some(password) = password {
                    let challenge = [9; 16];
                    stream.write_all(&challenge).await?;
                    let mut response = [0; 16];
                    stream.read_exact(&mut response).await?;
                    let secret = umbra_vnc_proxy::Secret::new(password);
                    if response != umbra_vnc_proxy::vnc_auth::respond(&secret, &challenge) {
                        return stream
                            .write_all(&[0, 0, 0, 1, 0, 0, 0, 2, b'n', b'o'])
                            .await;
                    }
                }
                stream.write_all(&[0; 4]).await?;
                stream.read_u8().await?;
                // 1 × 1 pixel, 32 bits, no name.
                stream
                    .write_all(&[
                        0, 1, 0, 1, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0,
                        0, 0,
                    ])
                    .await?;
                while let Ok(byte) = stream.read_u8().await {
                    // The test may have ended.
                    let _ = sender.send(byte);
                }
                Ok::<(), io::Error>(())
            });
        }
    });
    (address, received)
}

/// The viewer's half of the handshake, with no authentication.
async fn play_viewer(console: &mut Console) {
    assert_eq!(greeting(console).await, "RFB 003.008\n");
    let playing = async {
        console.write_all(b"RFB 003.008\n").await?;
        let offered = console.read_u8().await?;
        let mut kinds = vec![0; usize::from(offered)];
        console.read_exact(&mut kinds).await?;
        assert_eq!(kinds, [1], "the operator is not asked again");
        console.write_all(&[1]).await?;
        assert_eq!(console.read_u32().await?, 0);
        console.write_all(&[1]).await?;
        let mut init = [0; 24];
        console.read_exact(&mut init).await
    };
    soon("the handshake", playing).await.expect("a handshake");
}

#[tokio::test]
async fn who_may_only_look_moves_nothing_whoever_of_the_three_said_so() {
    const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 65];
    const LOOK: [u8; 10] = [3, 1, 0, 0, 0, 0, 0, 1, 0, 1];
    let looking = Permissions {
        control: false,
        clipboard: false,
    };
    for (number, in_ticket, from_server, remote_input) in [
        (1, looking, FULL, true),
        (2, FULL, looking, true),
        (3, FULL, FULL, false),
        (4, FULL, FULL, true),
    ] {
        let server = Server::start().await;
        let (vnc, mut received) = real_vnc_server(None).await;
        let more = format!("{SILENT}remoteinput = {remote_input}\n");
        let device = Device::start(&shadowable(vnc, &more)).await;
        device.enrolled_by(&server).await;
        let (mut link, port) = server.welcome_with_port().await;
        let mut console = connect(&link, port).await;
        let ticket = ticket_for(&server, &link, number, in_ticket);
        let (opened, ()) = tokio::join!(open(&mut console, &ticket), async {
            let question = asked(&mut link).await.question;
            let allowed = SessionRequest {
                permissions: from_server,
                ..request(number)
            };
            let verdict = Verdict::Allowed(allowed);
            link.say(SessionVerdict { question, verdict }).await;
        });
        opened.expect("allowed");
        play_viewer(&mut console).await;
        console.write_all(&KEY).await.expect("sent");
        console.write_all(&LOOK).await.expect("sent");
        let first = soon("a byte", received.recv())
            .await
            .expect("the VNC server is there");
        let control = number == 4;
        assert_eq!(
            first,
            if control { KEY[0] } else { LOOK[0] },
            "case {number}"
        );
    }
}

#[tokio::test]
async fn the_vnc_servers_password_is_answered_by_the_agent() {
    let server = Server::start().await;
    let (vnc, mut received) = real_vnc_server(Some("secret")).await;
    let more = format!("{SILENT}crypt_password = \"secret\"\n");
    let device = Device::start(&shadowable(vnc, &more)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut console = connect(&link, port).await;
    let good = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &good), allow(&mut link, 1));
    opened.expect("allowed");
    play_viewer(&mut console).await;
    console
        .write_all(&[4, 1, 0, 0, 0, 0, 0, 65])
        .await
        .expect("sent");
    assert_eq!(soon("a byte", received.recv()).await, Some(4));
}

#[tokio::test]
async fn commands_run_once_and_their_results_are_kept_until_they_are_filed() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let id = CommandId::from_bytes([1; 16]);
    let command = Command {
        id,
        action: Action::Message {
            text: "Lunch\u{1b}[2J!".into(),
        },
    };
    link.say(command.clone()).await;
    let result = link.hear_kind("command_result").await;
    link.say(command.clone()).await;
    assert_eq!(link.hear_kind("command_result").await, result);
    drop(link);
    let (mut link, _) = server.welcome().await;
    assert_eq!(link.hear_kind("command_result").await, result);
    link.say(ResultFiled { id }).await;
    link.say(command).await;
    let inventory = Command {
        id: CommandId::from_bytes([2; 16]),
        action: Action::Inventory,
    };
    link.say(inventory.clone()).await;
    let FromDevice::CommandResult(second) = link.hear_kind("command_result").await else {
        panic!()
    };
    assert_eq!(
        (second.id, second.state),
        (inventory.id, CommandState::Done),
        "the first one was not answered again"
    );
    assert_eq!(
        second.facts.get("unit_id").map(String::as_str),
        Some("00E0C5A1B2C3")
    );
    let messages = device.board.now().messages;
    assert_eq!(messages.len(), 1, "the command ran twice: {messages:?}");
    assert_eq!(messages[0].text, "Lunch [2J!");
}

#[tokio::test]
async fn a_reboot_is_done_once_the_device_has_come_up_again() {
    let server = Server::start().await;
    let mut device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let id = CommandId::from_bytes([1; 16]);
    link.say(Command {
        id,
        action: Action::Reboot,
    })
    .await;
    let journal = device.paths.commands();
    soon("the note", async {
        while !journal.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    device.cut_power().await;
    drop(link);
    let mut os = Fake::default();
    os.boot_id = "second-boot".into();
    device.boot(Files::new(), os).await;
    let (mut link, _) = server.welcome().await;
    let FromDevice::CommandResult(result) = link.hear_kind("command_result").await else {
        panic!()
    };
    assert_eq!((result.id, result.state), (id, CommandState::Done));
}

#[tokio::test]
async fn a_new_key_is_used_only_after_the_server_has_filed_its_certificate() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let (old, old_id) = (link.certificate.clone(), link.device_id());
    let id = CommandId::from_bytes([1; 16]);
    link.say(Command {
        id,
        action: Action::Rekey,
    })
    .await;
    let FromDevice::CertificateProposed(first) = link.hear_kind("certificate_proposed").await
    else {
        panic!()
    };
    // The link breaks before it is filed: the device comes back as it was, and proposes the same again.
    drop(link);
    let (mut link, _) = server.welcome().await;
    assert_eq!(link.certificate, old);
    let FromDevice::CertificateProposed(proposed) = link.hear_kind("certificate_proposed").await
    else {
        panic!()
    };
    assert_eq!(proposed.certificate, first.certificate);
    let der =
        CertificateDer::from_pem_slice(proposed.certificate.as_bytes()).expect("a certificate");
    let device_id = DeviceId::from_bytes(umbra_carrier::x509::spki_sha256(&der).expect("a key"));
    link.say(CertificateFiled {
        fingerprint: Fingerprint::of_certificate(&der),
        device_id,
    })
    .await;
    let (mut link, _) = server.welcome().await;
    assert_eq!(link.certificate, der);
    assert_ne!(link.device_id(), old_id);
    let FromDevice::CommandResult(result) = link.hear_kind("command_result").await else {
        panic!()
    };
    assert_eq!((result.id, result.state), (id, CommandState::Done));
}

#[tokio::test]
async fn a_certificate_that_the_server_does_not_take_is_taken_back_and_the_link_goes_on() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let old = link.certificate.clone();
    let id = CommandId::from_bytes([1; 16]);
    link.say(Command {
        id,
        action: Action::Rekey,
    })
    .await;
    link.hear_kind("certificate_proposed").await;
    link.say(Refusal::new(RefusalCode::CertificateMismatch, "Not this."))
        .await;
    let FromDevice::CommandResult(result) = link.hear_kind("command_result").await else {
        panic!("another kind")
    };
    assert_eq!(result.state, CommandState::Failed);
    assert!(result.sentence.contains("Not this."), "{result:?}");
    assert!(!device.paths.next_certificate().exists());
    link.say(ResultFiled { id }).await;
    drop(link);
    let (link, _) = server.welcome().await;
    assert_eq!(link.certificate, old);
}

#[tokio::test]
async fn a_flood_of_strangers_does_not_push_out_who_waits_for_the_person() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, "")).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let session = request(1).session;
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let person = async {
        device
            .until("the question", |status| !status.consents.is_empty())
            .await;
        let mut strangers = Vec::new();
        for _ in 0..100 {
            let stranger = TcpStream::connect(("127.0.0.1", port)).await;
            strangers.push(stranger.expect("connected"));
        }
        // Once the first stranger had to go, whoever was there before would have gone too.
        let _ = soon("the end of the first", strangers[0].read(&mut [0])).await;
        device
            .ask(Request::Consent {
                session,
                accept: true,
            })
            .await
    };
    let (opened, (), answer) =
        tokio::join!(open(&mut console, &ticket), allow(&mut link, 1), person);
    assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
    opened.expect("accepted");
}

#[tokio::test]
async fn roots_and_ticket_keys_that_would_lose_the_device_are_not_taken_over_and_good_ones_are_kept()
 {
    let server = Server::start().await;
    let next = Server::start().await;
    let mut device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let good = server.anchors();
    let bad = [
        TrustAnchors {
            roots: Vec::new(),
            ..good.clone()
        },
        TrustAnchors {
            roots: vec!["nothing".into()],
            ..good.clone()
        },
        TrustAnchors {
            ticket_keys: Vec::new(),
            ..good.clone()
        },
    ];
    let both = TrustAnchors {
        roots: [good.roots.clone(), next.anchors().roots].concat(),
        ticket_keys: [good.ticket_keys, next.anchors().ticket_keys].concat(),
    };
    link.say(both.clone()).await;
    for anchors in bad {
        link.say(anchors).await;
    }
    // In order: once this command is answered, all of them were read.
    let id = CommandId::from_bytes([1; 16]);
    link.say(Command {
        id,
        action: Action::Inventory,
    })
    .await;
    link.hear_kind("command_result").await;
    device.cut_power().await;
    let kept = umbra_agent::enrolment::Enrolled::load(&device.paths)
        .expect("readable")
        .expect("there");
    assert_eq!(kept.anchors, both);
    device.boot(Files::new(), Fake::default()).await;
    drop(link);
    server.welcome().await;
}

#[tokio::test]
async fn two_hundred_silent_callers_keep_no_operator_out() {
    let server = Server::start().await;
    let device = Device::start(&shadowable(vnc_server().await, SILENT)).await;
    device.enrolled_by(&server).await;
    let (mut link, port) = server.welcome_with_port().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        let caller = TcpStream::connect(("127.0.0.1", port)).await;
        silent.push(caller.expect("connected"));
    }
    let mut console = connect(&link, port).await;
    let ticket = ticket(&server, &link, 1);
    let (opened, ()) = tokio::join!(open(&mut console, &ticket), allow(&mut link, 1));
    opened.expect("allowed");
    assert_eq!(greeting(&mut console).await, "RFB 003.008\n");
    // The oldest ones had to go.
    let mut gone = 0;
    for caller in &mut silent[..100] {
        gone += usize::from(matches!(
            soon("the end", caller.read(&mut [0])).await,
            Ok(0) | Err(_)
        ));
    }
    assert_eq!(gone, 100);
}

#[tokio::test]
async fn leaving_tells_the_server_and_forgets_it_and_the_device_can_be_taken_on_again() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let (code, sentence) = failed(device.enrol(&server).await);
    assert_eq!(code, ErrorCode::Refused);
    assert!(sentence.contains("leave"), "{sentence}");
    let leaving = async {
        link.hear_kind("leave").await;
        link.say(umbra_protocol::message::Left {}).await;
    };
    let (answer, ()) = tokio::join!(device.ask(Request::Leave {}), leaving);
    assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
    device
        .until("no server", |status| status.stage == Stage::NotEnrolled)
        .await;
    assert!(!device.paths.enrolment().exists());
    device.enrolled_by(&server).await;
    server.welcome().await;
}

#[tokio::test]
async fn a_damaged_enrolment_is_told_and_never_replaced_by_itself() {
    let server = Server::start().await;
    let mut device = Device::start("").await;
    device.enrolled_by(&server).await;
    server.welcome().await;
    device.stop().await;
    let good = std::fs::read(device.paths.enrolment()).expect("there");
    std::fs::write(device.paths.enrolment(), &good[..good.len() / 2]).expect("written");
    device.boot(Files::new(), Fake::default()).await;
    let status = device
        .until("the trouble", |status| status.stage == Stage::Refused)
        .await;
    assert!(status.cause.is_some_and(|cause| cause.contains("damaged")));
    let (code, _) = failed(device.enrol(&server).await);
    assert_eq!(code, ErrorCode::Refused);
    assert_eq!(
        std::fs::read(device.paths.enrolment())
            .expect("there")
            .len(),
        good.len() / 2
    );
    // Mended by hand: the device links without being told.
    std::fs::write(device.paths.enrolment(), &good).expect("written");
    server.welcome().await;
}

#[tokio::test]
async fn a_damaged_enrolment_can_be_given_up_by_a_person() {
    let server = Server::start().await;
    let mut device = Device::start("").await;
    device.stop().await;
    std::fs::write(device.paths.enrolment(), "{").expect("written");
    device.boot(Files::new(), Fake::default()).await;
    device
        .until("the trouble", |status| status.stage == Stage::Refused)
        .await;
    let answer = device.ask(Request::Leave {}).await;
    assert!(matches!(answer, Response::Done { .. }), "{answer:?}");
    device.enrolled_by(&server).await;
    server.welcome().await;
}

#[tokio::test]
async fn a_device_that_its_server_removed_can_be_taken_on_again_at_once() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let mut link = server.accept().await;
    link.hello(Intent::Link).await;
    link.say(Refusal::new(RefusalCode::DeviceRemoved, "Removed."))
        .await;
    let status = device
        .until("the refusal", |status| status.stage == Stage::Refused)
        .await;
    assert_eq!(status.code.as_deref(), Some("device_removed"));
    assert!(status.next_attempt.is_some(), "it tries again by itself");
    // An attempt that fails changes nothing.
    let stranger = Server::start().await;
    let address = stranger.address.to_string();
    let (answer, _) = tokio::join!(
        device.enrol_with(&address, server.root),
        stranger.try_accept()
    );
    failed(answer);
    assert!(device.paths.enrolment().exists());
    let mut link = server.accept().await;
    link.hello(Intent::Link).await;
    link.say(Refusal::new(RefusalCode::DeviceRemoved, "Removed."))
        .await;
    device
        .until("the refusal", |status| status.stage == Stage::Refused)
        .await;
    device.enrolled_by(&server).await;
    let (_link, _) = server.welcome().await;
    device
        .until("the link", |status| status.stage == Stage::Online)
        .await;
}

#[tokio::test]
async fn a_server_that_presents_another_root_later_is_not_talked_to() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let imposter = Server::start().await;
    let (mut link, _) = server.welcome().await;
    // From now on another server answers at the device's connector.
    let answer = device
        .ask(Request::RegistrySet {
            name: "system.remotemanager.connector0.address".into(),
            words: vec![umbra_protocol::Secret::new("127.0.0.1")],
        })
        .await;
    assert!(
        matches!(answer, Response::Registry { .. } | Response::Done { .. }),
        "{answer:?}"
    );
    device
        .ask(Request::RegistrySet {
            name: "system.remotemanager.connector0.port".into(),
            words: vec![umbra_protocol::Secret::new(
                imposter.address.port().to_string(),
            )],
        })
        .await;
    link.say(umbra_protocol::link::Goodbye {
        sentence: "Bye.".into(),
        retry_after_seconds: None,
    })
    .await;
    drop(link);
    let met = soon("the imposter", imposter.try_accept()).await;
    assert!(met.is_none(), "the device talked to an imposter");
    // And the true one is still tried.
    server.welcome().await;
}
