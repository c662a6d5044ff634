//! The agent as a whole, in a folder, against a server that says what a test tells it to.

mod commands;
mod consent;
mod enrolment;
#[path = "../scripted/mod.rs"]
mod scripted;
mod sessions;
mod trust;
mod viewers;

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
