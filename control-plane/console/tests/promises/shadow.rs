//! A session from the operator's side, against a scripted device: in which order things happen, to whom the ticket goes,
//! and what is said when it does not work.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use umbra_console::failure::{Exit, Failure};
use umbra_protocol::Fingerprint;
use umbra_vnc_proxy::device_end::{self, SessionOptions};
use umbra_vnc_proxy::preface::{Dialect, Preface};
use umbra_vnc_proxy::upstream::Upstream;
use umbra_vnc_proxy::{EndReason, StopCause, tls};

use crate::lab::{Api, Authority, Desk, LIMIT, Reaction, Screen, problem, soon, told, with_login};

const GREETING: &[u8; 12] = b"RFB 003.008\n";
const TICKET: &str = "head.t1cket-that-nobody-may-see.signature";
const PASSWORD: &str = "pa55word-that-nobody-may-see";
const SESSION: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";

/// A device's certificate and key, made for one run.
pub(crate) struct Identity {
    pub(crate) pem: String,
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params =
            rcgen::CertificateParams::new(vec!["00e0c51c9c32".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_certificate(&self.der)
    }
}

/// What the device's end does with a console that showed up.
pub(crate) enum Script {
    /// Waits for the word, then lets it in; ends the session at the second word.
    LetIn {
        go: oneshot::Receiver<()>,
        end: oneshot::Receiver<()>,
    },
    /// Says no.
    Refuse {
        code: &'static str,
        sentence: &'static str,
    },
    /// Lets it in and closes before a viewer is there.
    Leave,
}

/// What the device's end saw.
#[derive(Debug)]
pub(crate) enum Saw {
    NoHandshake,
    Preface(Preface, Option<EndReason>),
}

/// A device that serves one console.
pub(crate) async fn device(identity: &Identity, script: Script) -> (SocketAddr, JoinHandle<Saw>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = tls::device_server_config(vec![identity.der.clone()], identity.key.clone_key())
        .expect("a usable identity");
    (address, tokio::spawn(serve(listener, config, script)))
}

async fn serve(listener: TcpListener, config: Arc<rustls::ServerConfig>, script: Script) -> Saw {
    let end = Instant::now() + LIMIT;
    let (tcp, _) = listener.accept().await.expect("a console");
    let Ok(mut stream) = device_end::accept_tls(tcp, config, end).await else {
        return Saw::NoHandshake;
    };
    let Ok(preface) = device_end::read_preface(&mut stream, end).await else {
        return Saw::NoHandshake;
    };
    let reason = match script {
        Script::Refuse { code, sentence } => {
            device_end::answer_refused(&mut stream, Dialect::Umbra, code, sentence, end)
                .await
                .expect("told");
            None
        }
        Script::Leave => {
            device_end::answer_ok(&mut stream, Dialect::Umbra, end)
                .await
                .expect("told");
            stream.shutdown().await.expect("closed");
            let _ = stream.read(&mut [0; 16]).await;
            None
        }
        Script::LetIn { go, end: ended } => {
            for _ in 0..3 {
                let sentence = "The user is being asked.";
                device_end::answer_wait(&mut stream, Dialect::Umbra, sentence, end)
                    .await
                    .expect("told");
            }
            let options = SessionOptions::default();
            let upstream = Upstream::tcp(echo_vnc().await).expect("on loopback");
            tokio::select! {
                // Nobody was let in, and nobody waits any more.
                _ = stream.read_u8() => return Saw::Preface(preface, None),
                word = go => word.expect("the word"),
            }
            let upstream = device_end::connect_upstream(&upstream, &options, end)
                .await
                .expect("connected");
            device_end::answer_ok(&mut stream, Dialect::Umbra, end)
                .await
                .expect("told");
            let stop = async {
                if ended.await.is_err() {
                    std::future::pending::<()>().await;
                }
                StopCause::User
            };
            Some(
                device_end::serve(stream, upstream, options, stop)
                    .await
                    .reason,
            )
        }
    };
    Saw::Preface(preface, reason)
}

/// A VNC server that greets, offers as many kinds of authentication as fill twelve bytes, then answers everything with itself.
async fn echo_vnc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("the device's end");
        stream.write_all(GREETING).await.expect("greeted");
        stream.read_exact(&mut [0; 12]).await.expect("answered");
        let offer = [11, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        stream.write_all(&offer).await.expect("offered");
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    address
}

/// A server that offers this device at these addresses.
async fn server(
    authority: &Authority,
    identity: &Identity,
    addresses: Vec<String>,
    expires: u32,
) -> Api {
    offering(authority, offer(identity, addresses, expires)).await
}

/// What a server offers.
pub(crate) fn offer(identity: &Identity, addresses: Vec<String>, expires: u32) -> Value {
    json!({
        "session": SESSION, "device_certificate": identity.pem, "device_name": "till-5", "addresses": addresses,
        "ticket": TICKET, "password": PASSWORD, "expires_in_seconds": expires,
    })
}

/// A server that offers this.
pub(crate) async fn offering(authority: &Authority, offer: Value) -> Api {
    let record = json!({
        "session": SESSION, "device_name": "till-5", "device": "ab".repeat(32), "user": "anna", "reason": "",
        "permissions": {"control": true, "clipboard": true}, "state": "ended", "created_at": 1, "started_at": 2,
        "ended_at": 3, "end_code": "ended_by_user", "end_sentence": "The person at the device ended the session.",
        "duration_ms": 5, "bytes_to_device": 0, "bytes_to_console": 12,
    });
    Api::start(
        authority,
        with_login(move |seen| match seen.line.split(' ').next() {
            Some("POST") => Reaction::Answer(201, offer.clone()),
            Some("GET") => Reaction::Answer(200, record.clone()),
            _ => Reaction::Raw(204, Vec::new()),
        }),
    )
    .await
}

/// Whether the server was told that the session will not begin.
pub(crate) fn withdrawn(api: &Api) -> bool {
    api.lines()
        .contains(&format!("DELETE /api/v1/sessions/{SESSION}"))
}

pub(crate) fn words() -> (oneshot::Sender<()>, oneshot::Sender<()>, Script) {
    let ((go, go_heard), (end, end_heard)) = (oneshot::channel(), oneshot::channel());
    (
        go,
        end,
        Script::LetIn {
            go: go_heard,
            end: end_heard,
        },
    )
}

pub(crate) fn presented() -> Preface {
    Preface::Ticket {
        ticket: TICKET.to_owned(),
        password: umbra_vnc_proxy::Secret::new(PASSWORD),
    }
}

/// The address in `listening on ADDRESS`.
pub(crate) async fn listening(out: &Screen) -> SocketAddr {
    out.shows("listening on ").await;
    let text = out.shows("\n").await;
    let address = text
        .trim_start_matches("listening on ")
        .lines()
        .next()
        .expect("a line");
    address.parse().expect("an address")
}

/// A viewer that is greeted and hears the offer.
pub(crate) async fn look(address: SocketAddr) -> TcpStream {
    let mut viewer = TcpStream::connect(address).await.expect("offered");
    let mut greeting = [0; 12];
    soon("the greeting", viewer.read_exact(&mut greeting))
        .await
        .expect("greeted");
    assert_eq!(&greeting, GREETING);
    viewer.write_all(GREETING).await.expect("answered");
    soon("the offer", viewer.read_exact(&mut greeting))
        .await
        .expect("heard");
    viewer
}

pub(crate) fn no_secret_shows(desk: &Desk) {
    for shown in [desk.out.text(), desk.notes.text()] {
        assert!(
            !shown.contains(TICKET) && !shown.contains(PASSWORD),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_session_waits_for_consent_offers_the_screen_on_loopback_and_says_why_it_ended() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let (go, _end, script) = words();
    let (address, device) = device(&identity, script).await;
    let api = server(&authority, &identity, vec![address.to_string()], 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let (out, notes) = (desk.out.clone(), desk.notes.clone());
    let line = "shadow till-5 --listen 127.0.0.1:0 --reason ticket-4711 --no-clipboard";
    let script = async {
        notes
            .shows("waiting for the user at the device… The user is being asked.")
            .await;
        assert_eq!(out.text(), "", "no port before consent");
        go.send(()).expect("heard");
        let viewer = look(listening(&out).await).await;
        drop(viewer);
    };
    let (exit, ()) = tokio::join!(desk.run(line), script);
    assert_eq!(exit.expect("a session"), Exit::Done);
    let text = desk.out.text();
    assert!(
        text.contains("till-5: The viewer closed the session."),
        "{text}"
    );
    assert!(
        text.contains("24 bytes came from the device, 12 bytes went to it"),
        "{text}"
    );
    assert_eq!(
        desk.notes.text().matches("waiting for the user").count(),
        1,
        "{}",
        desk.notes.text()
    );
    let Saw::Preface(preface, Some(EndReason::ViewerClosed)) =
        soon("the device's end", device).await.expect("saw")
    else {
        panic!("the device saw something else");
    };
    assert_eq!(preface, presented());
    let asked = &api.seen()[1];
    assert_eq!(
        asked.body,
        json!({"device": "till-5", "reason": "ticket-4711", "legacy": false,
               "permissions": {"control": true, "clipboard": false}})
    );
    assert!(!withdrawn(&api));
    no_secret_shows(&desk);
}

#[tokio::test]
async fn scripts_get_one_line_of_json_per_event() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let (go, end, script) = words();
    let (address, device) = device(&identity, script).await;
    let api = server(&authority, &identity, vec![address.to_string()], 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let out = desk.out.clone();
    go.send(()).expect("heard");
    let script = async {
        let listening: Value = serde_json::from_str(&out.shows("\n").await).expect("one line");
        assert_eq!(listening["event"], "listening");
        let port = listening["port"].as_u64().expect("a port");
        let mut viewer = look(format!("127.0.0.1:{port}").parse().expect("an address")).await;
        end.send(()).expect("heard");
        let mut rest = Vec::new();
        let _ = soon("the end", viewer.read_to_end(&mut rest)).await;
    };
    let (exit, ()) = tokio::join!(
        desk.run("shadow till-5 --listen 127.0.0.1:0 --view-only --json"),
        script
    );
    assert_eq!(exit.expect("a session"), Exit::Done);
    let text = desk.out.text();
    let ended: Value =
        serde_json::from_str(text.lines().nth(1).expect("a second line")).expect("JSON");
    assert_eq!(ended["event"], "ended");
    assert_eq!(
        ended["code"], "ended_by_user",
        "the device's record tells who ended it: {text}"
    );
    assert_eq!(ended["bytes_to_console"], 24);
    assert_eq!(
        api.seen()[1].body["permissions"],
        json!({"control": false, "clipboard": false})
    );
    soon("the device's end", device).await.expect("saw");
}

#[tokio::test]
async fn another_certificate_gets_no_ticket_and_both_fingerprints_are_shown() {
    let (authority, identity, impostor) = (Authority::new(), Identity::new(), Identity::new());
    let (_go, _end, script) = words();
    let (address, device) = device(&impostor, script).await;
    let api = server(&authority, &identity, vec![address.to_string()], 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk
        .run("shadow till-5 --listen 127.0.0.1:0")
        .await
        .expect_err("not the device");
    assert_eq!(failure.exit(), Exit::NotTrusted);
    let told = told(&failure);
    for part in [
        &identity.fingerprint().to_string(),
        &impostor.fingerprint().to_string(),
        "re-imaged",
        &address.to_string(),
    ] {
        assert!(told.contains(part), "{part} is missing: {told}");
    }
    assert!(matches!(
        soon("the device's end", device).await.expect("saw"),
        Saw::NoHandshake
    ));
    assert!(withdrawn(&api));
    assert_eq!(desk.out.text(), "");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_devices_words() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let script = Script::Refuse {
        code: "consent_denied",
        sentence: "The user at the device said no.",
    };
    let (address, device) = device(&identity, script).await;
    let api = server(&authority, &identity, vec![address.to_string()], 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk
        .run("shadow till-5 --listen 127.0.0.1:0")
        .await
        .expect_err("refused");
    assert_eq!(failure.exit(), Exit::Failed);
    assert_eq!(
        told(&failure),
        "umbra: the device refused: The user at the device said no. (consent_denied)\n"
    );
    assert_eq!(desk.out.text(), "", "no port for a refused session");
    soon("the device's end", device).await.expect("saw");
}

#[tokio::test]
async fn a_dead_address_a_mute_one_and_a_strangers_are_passed_over() {
    let (authority, identity, stranger) = (Authority::new(), Identity::new(), Identity::new());
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mute_address = mute.local_addr().expect("an address");
    let (_go, _end, script) = words();
    let (strangers, _task) = device(&stranger, script).await;
    let (go, _end, script) = words();
    let (address, device) = device(&identity, script).await;
    go.send(()).expect("heard");
    let addresses = [dead, mute_address, strangers, address].map(|address| address.to_string());
    let api = server(&authority, &identity, addresses.to_vec(), 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.limits.dial.tls = Duration::from_secs(2);
    let out = desk.out.clone();
    let (exit, ()) = tokio::join!(desk.run("shadow till-5 --listen 127.0.0.1:0"), async {
        drop(look(listening(&out).await).await);
    });
    assert_eq!(exit.expect("a session"), Exit::Done);
    let notes = desk.notes.text();
    for part in [
        format!("{dead}: {dead} refuses connections"),
        format!("{mute_address}: the device did not answer in time"),
        format!("{strangers}: something answers with another certificate"),
        format!("connecting to till-5 at {address}…\n"),
    ] {
        assert!(notes.contains(&part), "{part} is missing: {notes}");
    }
    soon("the device's end", device).await.expect("saw");
}

#[tokio::test]
async fn when_no_address_works_each_is_named_with_its_reason() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").to_string()
    };
    let api = server(
        &authority,
        &identity,
        vec![dead.clone(), "nonsense here".to_owned()],
        60,
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk
        .run("shadow till-5 --listen 127.0.0.1:0")
        .await
        .expect_err("nowhere");
    let told = told(&failure);
    assert!(
        told.contains(&format!("at {dead}, ")) && told.contains("at nonsense here, "),
        "{told}"
    );
    assert_eq!(failure.exit(), Exit::Failed);
    assert!(withdrawn(&api));

    let api = server(&authority, &identity, Vec::new(), 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk
        .run("shadow till-5 --listen 127.0.0.1:0")
        .await
        .expect_err("nowhere");
    assert!(
        self::told(&failure).contains("knows no address"),
        "{failure}"
    );
}

#[tokio::test]
async fn an_offer_whose_time_is_over_is_not_presented() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let (_go, _end, script) = words();
    let (address, device) = device(&identity, script).await;
    let api = server(&authority, &identity, vec![address.to_string()], 0).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk
        .run("shadow till-5 --listen 127.0.0.1:0")
        .await
        .expect_err("over");
    assert!(
        told(&failure).contains("offer ended before till-5"),
        "{failure}"
    );
    assert!(!device.is_finished(), "nobody called the device");
    device.abort();
}

#[tokio::test]
async fn an_offline_device_has_its_own_exit_code() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| {
            problem(
                409,
                "device_offline",
                "“till-5” is offline: it was last heard of 2026-03-01.",
            )
        }),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk
        .run("shadow till-5 --listen 127.0.0.1:0")
        .await
        .expect_err("offline");
    assert_eq!(failure.exit(), Exit::DeviceOffline);
    assert!(told(&failure).contains("last heard of"), "{failure}");
}

#[tokio::test]
async fn a_device_that_leaves_before_a_viewer_came_ends_the_waiting() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let (address, device) = device(&identity, Script::Leave).await;
    let api = server(&authority, &identity, vec![address.to_string()], 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk
        .run("shadow till-5 --listen 127.0.0.1:0")
        .await
        .expect_err("it left");
    assert!(
        told(&failure).contains("ended before a viewer was connected"),
        "{failure}"
    );
    assert_eq!(failure.exit(), Exit::Failed);
    soon("the device's end", device).await.expect("saw");
}

#[tokio::test]
async fn an_interrupt_while_the_user_is_asked_withdraws_the_session() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let (_go, _end, script) = words();
    let (address, device) = device(&identity, script).await;
    let api = server(&authority, &identity, vec![address.to_string()], 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let notes = desk.notes.clone();
    let interrupt = async move {
        notes.shows("waiting for the user").await;
    };
    let failure = desk
        .run_until("shadow till-5 --listen 127.0.0.1:0", interrupt)
        .await
        .expect_err("interrupted");
    assert!(matches!(failure, Failure::Interrupted), "{failure}");
    assert_eq!(failure.exit(), Exit::Interrupted);
    assert!(withdrawn(&api));
    let saw = soon("the device's end", device).await.expect("saw");
    assert!(matches!(saw, Saw::Preface(_, None)), "{saw:?}");
}

#[tokio::test]
async fn an_interrupt_before_a_viewer_came_is_a_farewell_and_no_accident() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let (go, _end, script) = words();
    let (address, device) = device(&identity, script).await;
    go.send(()).expect("heard");
    let api = server(&authority, &identity, vec![address.to_string()], 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let out = desk.out.clone();
    let interrupt = async move {
        out.shows("listening on").await;
    };
    let failure = desk
        .run_until("shadow till-5 --listen 127.0.0.1:0", interrupt)
        .await
        .expect_err("interrupted");
    assert_eq!(failure.exit(), Exit::Interrupted);
    let saw = soon("the device's end", device).await.expect("saw");
    assert!(
        matches!(saw, Saw::Preface(_, Some(EndReason::ViewerClosed))),
        "a farewell arrived: {saw:?}"
    );
    assert!(withdrawn(&api));
}

#[tokio::test]
async fn an_interrupt_during_the_session_ends_it_in_order() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let (go, _end, script) = words();
    let (address, device) = device(&identity, script).await;
    go.send(()).expect("heard");
    let api = server(&authority, &identity, vec![address.to_string()], 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let out = desk.out.clone();
    let (looked, heard) = oneshot::channel();
    let viewer = async {
        let mut viewer = look(listening(&out).await).await;
        looked.send(()).expect("heard");
        let mut rest = Vec::new();
        let _ = soon("the end", viewer.read_to_end(&mut rest)).await;
    };
    let interrupt = async {
        heard.await.expect("looked");
    };
    let (exit, ()) = tokio::join!(
        desk.run_until("shadow till-5 --listen 127.0.0.1:0", interrupt),
        viewer
    );
    assert_eq!(exit.expect("a session"), Exit::Done);
    assert!(
        desk.out.text().contains("You ended the session."),
        "{}",
        desk.out.text()
    );
    let saw = soon("the device's end", device).await.expect("saw");
    assert!(
        matches!(saw, Saw::Preface(_, Some(EndReason::ViewerClosed))),
        "a farewell arrived: {saw:?}"
    );
}

/// A viewer program that writes down where it was sent, then stays until it is told to go or its folder is gone.
fn viewer_program(folder: &Path) -> String {
    let program = folder.join("viewer");
    let text = format!(
        "#!/bin/sh\necho \"$@\" > {0}/sent.part\nmv {0}/sent.part {0}/sent\nwhile [ -e {0}/viewer ] && [ ! -e {0}/go ]; do sleep 0.05; done\n",
        folder.display()
    );
    std::fs::write(&program, text).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("changed");
    program.display().to_string()
}

/// Looks for a file until it is there.
async fn appears(path: &Path) -> String {
    let looking = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(path) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(&path.display().to_string(), looking).await
}

#[tokio::test]
async fn the_viewer_starts_only_when_both_ends_are_connected_and_learns_no_secret() {
    let (authority, identity) = (Authority::new(), Identity::new());
    let (go, _end, script) = words();
    let (address, device) = device(&identity, script).await;
    let api = server(&authority, &identity, vec![address.to_string()], 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let notes = desk.notes.clone();
    let folder = desk.folder.path().to_owned();
    let command = format!("{} -Shared --at={{port}}", viewer_program(&folder));
    let words = ["umbra", "shadow", "till-5", "--viewer", &command].map(Into::into);
    let script = async {
        notes.shows("waiting for the user").await;
        assert!(
            !folder.join("sent").exists() && !notes.text().contains("starting"),
            "no viewer before consent"
        );
        go.send(()).expect("heard");
        let sent = appears(&folder.join("sent")).await;
        let port = sent
            .trim()
            .strip_prefix("-Shared --at=")
            .expect("the arguments as written")
            .to_owned();
        let viewer = look(format!("127.0.0.1:{port}").parse().expect("an address")).await;
        std::fs::write(folder.join("go"), "").expect("written");
        drop(viewer);
    };
    let (exit, ()) = tokio::join!(desk.run_words(words.into(), std::future::pending()), script);
    assert_eq!(exit.expect("a session"), Exit::Done);
    no_secret_shows(&desk);
    soon("the device's end", device).await.expect("saw");
}

#[tokio::test]
async fn a_viewer_that_fails_or_is_not_there_ends_the_session_at_once() {
    let (authority, identity) = (Authority::new(), Identity::new());
    for (viewer, part) in [
        ("false", "the viewer false ended before it had connected"),
        ("/no/such/viewer", "can't be started"),
    ] {
        let (go, _end, script) = words();
        let (address, device) = device(&identity, script).await;
        go.send(()).expect("heard");
        let api = server(&authority, &identity, vec![address.to_string()], 60).await;
        let mut desk = Desk::logged_in(&authority, &api).await;
        let failure = desk
            .run(&format!("shadow till-5 --viewer {viewer}"))
            .await
            .expect_err("no viewer");
        assert!(told(&failure).contains(part), "{failure}");
        assert!(withdrawn(&api));
        soon("the device's end", device).await.expect("saw");
    }
    let api = server(&authority, &identity, Vec::new(), 60).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let words = ["umbra", "shadow", "till-5", "--viewer", "v 'x"].map(Into::into);
    let failure = desk
        .run_words(words.into(), std::future::pending())
        .await
        .expect_err("not readable");
    assert_eq!(failure.exit(), Exit::Usage);
    assert_eq!(
        api.lines().len(),
        1,
        "nobody was asked for the sake of a viewer that can't start"
    );
}
