//! A device that is met at a gateway: the same session as on the direct way, the token in no other place than the header,
//! and a sentence for everything that a gateway may say instead.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use umbra_carrier::ws::{self, UpgradeHead, check_upgrade};
use umbra_console::failure::{Exit, Failure};
use umbra_protocol::gateway::SUBPROTOCOL_TUNNEL;
use umbra_vnc_proxy::EndReason;

use crate::lab::{Authority, Desk, soon};
use crate::shadow::{
    Identity, Saw, Script, device, listening, look, no_secret_shows, offer, offering, presented,
    withdrawn, words,
};

const MEETING: &str = "meeting-token-that-nobody-may-see";

/// What the gateway does with a console.
enum Word {
    /// Brings it together with the device there.
    Meet(SocketAddr),
    /// Says no before the upgrade.
    Refuse(u16, Value),
    /// Ends the WebSocket with a reason.
    Close(u16, &'static str),
}

/// A gateway that does what the test says with each console, and keeps the heads of their requests.
struct Gateway {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gateway {
    async fn start(authority: &Authority, word: Word) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (tls, kept) = (Arc::clone(&authority.tls), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.expect("a console");
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls));
                let Ok(mut stream) = acceptor.accept(tcp).await else {
                    continue;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a whole head"));
                }
                let head = String::from_utf8(head).expect("text");
                kept.lock().expect("whole").push(head.clone());
                let answer = match &word {
                    Word::Refuse(status, body) => {
                        let body = body.to_string();
                        format!(
                            "HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        )
                    }
                    Word::Meet(_) | Word::Close(..) => upgrade(&head),
                };
                stream.write_all(answer.as_bytes()).await.expect("said");
                stream.flush().await.expect("said");
                match &word {
                    Word::Refuse(..) => {}
                    Word::Close(code, reason) => {
                        let mut stream = ws::server_stream(stream, Vec::new(), None);
                        stream.closer().close_with(*code, reason);
                        let _ = stream.read(&mut [0; 16]).await;
                        let _ = stream.read(&mut [0; 16]).await;
                    }
                    Word::Meet(device) => {
                        let mut stream = ws::server_stream(stream, Vec::new(), None);
                        let mut device = TcpStream::connect(device).await.expect("the device");
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut device).await;
                    }
                }
            }
        });
        Self {
            address,
            heads,
            task,
        }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("whole").clone()
    }
}

fn upgrade(head: &str) -> String {
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let accept = check_upgrade(
        &UpgradeHead {
            connection: field("connection"),
            upgrade: field("upgrade"),
            version: field("sec-websocket-version"),
            key: field("sec-websocket-key"),
            subprotocols: field("sec-websocket-protocol"),
            origin: field("origin"),
        },
        SUBPROTOCOL_TUNNEL,
    )
    .expect("an upgrade");
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL_TUNNEL}\r\n\r\n"
    )
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("text"))
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

fn meeting(identity: &Identity, addresses: &[&str], root: &Authority) -> Value {
    let mut offer = offer(identity, Vec::new(), 60);
    offer["rendezvous"] = json!({
        "gateway": "dmz", "addresses": addresses, "roots": [pem(&root.root)], "token": MEETING,
    });
    offer
}

fn shadow_failure(exit: Result<Exit, Failure>) -> (String, String) {
    let failure = exit.expect_err("no session");
    let mut told = Vec::new();
    failure.tell(true, &mut told);
    let problem: Value = serde_json::from_slice(&told).expect("a problem document");
    let text = |name: &str| problem[name].as_str().expect("text").to_owned();
    (text("code"), text("detail"))
}

#[tokio::test]
async fn a_session_over_a_gateway_is_the_same_session_and_its_token_is_in_the_header_alone() {
    let (authority, own, identity) = (Authority::new(), Authority::new(), Identity::new());
    let (go, end, script) = words();
    let (at, device) = device(&identity, script).await;
    // A chain of its own: the server's root alone would not do. The first address leads nowhere.
    let gateway = Gateway::start(&own, Word::Meet(at)).await;
    let nowhere = {
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        closed.local_addr().expect("an address").to_string()
    };
    let offer = meeting(&identity, &[&nowhere, &gateway.address], &own);
    let api = offering(&authority, offer).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let out = desk.out.clone();
    go.send(()).expect("heard");
    let script = async {
        let mut viewer = look(listening(&out).await).await;
        end.send(()).expect("heard");
        let mut rest = Vec::new();
        let _ = soon("the end", viewer.read_to_end(&mut rest)).await;
    };
    let (exit, ()) = tokio::join!(desk.run("shadow till-5 --listen 127.0.0.1:0"), script);
    assert_eq!(exit.expect("a session"), Exit::Done);
    let Saw::Preface(preface, Some(EndReason::Stopped(_))) =
        soon("the device's end", device).await.expect("saw")
    else {
        panic!("the device saw something else");
    };
    assert_eq!(preface, presented());
    let heads = gateway.heads();
    assert_eq!(heads.len(), 1);
    let mut lines = heads[0].lines();
    assert_eq!(lines.next(), Some("GET /usg/tunnel HTTP/1.1"));
    let lower = heads[0].to_ascii_lowercase();
    assert!(
        lower.contains(&format!("authorization: bearer {MEETING}")),
        "{lower}"
    );
    assert!(lower.contains("umbra-side: console"), "{lower}");
    let notes = desk.notes.text();
    assert!(
        notes.contains("meeting till-5 at the gateway dmz"),
        "{notes}"
    );
    assert!(!notes.contains(MEETING) && !desk.out.text().contains(MEETING));
    no_secret_shows(&desk);
}

#[tokio::test]
async fn what_the_gateway_says_instead_is_told_and_no_other_address_is_tried() {
    for (word, code, part) in [
        (
            Word::Refuse(
                403,
                json!({"code": "tunnel_used", "sentence": "The token was used before."}),
            ),
            "tunnel_used",
            "The token was used before.",
        ),
        (
            Word::Refuse(
                503,
                json!({"code": "shutting_down", "sentence": "The gateway restarts.", "retry_after_seconds": 9}),
            ),
            "shutting_down",
            "The gateway restarts.",
        ),
        (
            Word::Close(1008, "tunnel_expired: The other end did not come in time."),
            "tunnel_expired",
            "The other end did not come in time.",
        ),
    ] {
        let (authority, identity) = (Authority::new(), Identity::new());
        let gateway = Gateway::start(&authority, word).await;
        let twice = [gateway.address.as_str(), gateway.address.as_str()];
        let api = offering(&authority, meeting(&identity, &twice, &authority)).await;
        let mut desk = Desk::logged_in(&authority, &api).await;
        let exit = desk.run("shadow till-5 --listen 127.0.0.1:0").await;
        let (told, detail) = shadow_failure(exit);
        assert_eq!(told, code);
        assert!(detail.contains(part), "{detail}");
        assert!(detail.contains("dmz"), "{detail}");
        assert_eq!(gateway.heads().len(), 1, "the token is for one attempt");
        assert!(withdrawn(&api));
    }
}

#[tokio::test]
async fn a_gateway_that_is_not_the_servers_hears_no_token() {
    let (authority, stranger, identity) = (Authority::new(), Authority::new(), Identity::new());
    let (at, _device) = device(&identity, Script::Leave).await;
    let gateway = Gateway::start(&stranger, Word::Meet(at)).await;
    let api = offering(
        &authority,
        meeting(&identity, &[&gateway.address], &authority),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let exit = desk.run("shadow till-5 --listen 127.0.0.1:0").await;
    let (code, detail) = shadow_failure(exit);
    assert_eq!(code, "gateway_unreachable", "{detail}");
    assert_eq!(gateway.heads(), Vec::<String>::new());
    assert!(withdrawn(&api));
}

#[tokio::test]
async fn who_answers_in_place_of_the_device_at_a_gateway_gets_no_ticket() {
    let (authority, identity, impostor) = (Authority::new(), Identity::new(), Identity::new());
    let (at, saw) = device(&impostor, Script::Leave).await;
    let gateway = Gateway::start(&authority, Word::Meet(at)).await;
    let api = offering(
        &authority,
        meeting(&identity, &[&gateway.address], &authority),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let exit = desk.run("shadow till-5 --listen 127.0.0.1:0").await;
    let (code, _) = shadow_failure(exit);
    assert_eq!(code, "another_certificate");
    assert!(matches!(
        soon("the impostor", saw).await.expect("saw"),
        Saw::NoHandshake
    ));
}
