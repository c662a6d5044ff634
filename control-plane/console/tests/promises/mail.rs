//! E-mails with credentials, against a mail server that follows a script over real TLS.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use umbra_console::failure::Exit;
use umbra_protocol::credentials::Credentials;

use crate::keys::credentials;
use crate::lab::{Api, Authority, Desk, Reaction, Seen, told, with_login};

const PASSWORD: &str = "mail-password";

/// How the mail server behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Starttls,
    Tls,
    /// Knows no STARTTLS.
    Clear,
    /// Sends more than the answer before TLS begins.
    Injecting,
    /// Refuses bob.
    NoBob,
    /// Says nothing after the connection.
    Mute,
    /// Wants AUTH LOGIN.
    Login,
}

/// A mail server for one connection; what it heard, line by line.
struct MailServer {
    address: std::net::SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl MailServer {
    async fn start(authority: &Authority, way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut tls = (*authority.tls).clone();
        tls.alpn_protocols.clear();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let kept = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.expect("a client");
            serve(tcp, acceptor, way, &kept).await;
        });
        Self {
            address,
            heard,
            task,
        }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("not poisoned").clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    tcp: TcpStream,
    acceptor: tokio_rustls::TlsAcceptor,
    way: Way,
    kept: &Mutex<Vec<String>>,
) {
    if way == Way::Mute {
        return std::future::pending().await;
    }
    if way == Way::Tls {
        let Ok(stream) = acceptor.accept(tcp).await else {
            return;
        };
        return talk(BufReader::new(stream), way, kept, true, true)
            .await
            .map_or((), |_| ());
    }
    let Some(tcp) = talk(BufReader::new(tcp), way, kept, true, false).await else {
        return;
    };
    let Ok(stream) = acceptor.accept(tcp.into_inner()).await else {
        return;
    };
    talk(BufReader::new(stream), way, kept, false, true).await;
}

/// Answers until TLS shall begin, or to the end.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufReader<S>,
    way: Way,
    kept: &Mutex<Vec<String>>,
    greet: bool,
    encrypted: bool,
) -> Option<BufReader<S>> {
    if greet {
        stream
            .write_all(b"220-mail.example\r\n220 ready\r\n")
            .await
            .ok()?;
    }
    let mut in_mail = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end_matches("\r\n").to_owned();
        let place = if encrypted { "" } else { "CLEAR " };
        kept.lock()
            .expect("not poisoned")
            .push(format!("{place}{line}"));
        let answer = if in_mail {
            if line != "." {
                continue;
            }
            in_mail = false;
            "250 taken\r\n"
        } else if line.starts_with("EHLO") {
            match (way, encrypted) {
                (Way::Clear, _) => "250-mail.example\r\n250 AUTH PLAIN\r\n",
                (_, false) => "250-mail.example\r\n250-SIZE 1000000\r\n250 STARTTLS\r\n",
                (Way::Login, true) => "250-mail.example\r\n250 auth login\r\n",
                (_, true) => "250-mail.example\r\n250-AUTH LOGIN PLAIN\r\n250 8BITMIME\r\n",
            }
        } else if line == "STARTTLS" {
            let more = if way == Way::Injecting {
                "220 go\r\n250 injected\r\n"
            } else {
                "220 go\r\n"
            };
            stream.write_all(more.as_bytes()).await.ok()?;
            return Some(stream);
        } else if line == "AUTH LOGIN" {
            "334 VXNlcm5hbWU6\r\n"
        } else if line == STANDARD.encode("it") {
            "334 UGFzc3dvcmQ6\r\n"
        } else if line.starts_with("AUTH PLAIN") || line == STANDARD.encode(PASSWORD) {
            let plain = format!(
                "AUTH PLAIN {}",
                STANDARD.encode(format!("\0it\0{PASSWORD}"))
            );
            if line == plain || line == STANDARD.encode(PASSWORD) {
                "235 welcome\r\n"
            } else {
                "535 who are you\u{1b}[2J?\r\n"
            }
        } else if line.starts_with("RCPT TO:<bob@") && way == Way::NoBob {
            "550-no such\r\n550 mailbox\r\n"
        } else if line == "DATA" {
            in_mail = true;
            "354 go on\r\n"
        } else if line == "QUIT" {
            "221 bye\r\n"
        } else {
            "250 fine\r\n"
        };
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
}

fn server() -> impl Fn(&Seen) -> Reaction + Send + Sync + 'static {
    with_login(|seen| match seen.line.as_str() {
        "POST /api/v1/keys" => Reaction::Answer(
            201,
            json!([{"id": "0123456789abcdef", "key": "ABCDE-FGHJK-MNPQR-STVWX"}]),
        ),
        "GET /api/v1/keys" => Reaction::Answer(200, json!([])),
        _ => Reaction::Answer(200, credentials()),
    })
}

fn line(desk: &Desk, authority: &Authority, mail: &MailServer, more: &str) -> String {
    let ca = desk.folder.path().join("mail-ca.pem");
    let pem = STANDARD.encode(&authority.root);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
    std::fs::write(&ca, pem).expect("written");
    format!(
        "keys export --to anna@example.com;bob@example.org --from it@example.com --smtp {} --smtp-ca {} {more}",
        mail.address,
        ca.display()
    )
}

fn with_password(desk: &Desk, password: &str) -> String {
    let file = desk.folder.path().join("mail-password");
    std::fs::write(&file, format!("{password}\n")).expect("written");
    format!("--smtp-user it --smtp-password-file {}", file.display())
}

#[tokio::test]
async fn an_e_mail_is_handed_in_for_everybody_over_tls() {
    let authority = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    for (way, more) in [
        (Way::Starttls, ""),
        (Way::Tls, "--smtp-tls tls"),
        (Way::Login, ""),
    ] {
        let mail = MailServer::start(&authority, way).await;
        let login = with_password(&desk, PASSWORD);
        desk.run(&line(&desk, &authority, &mail, &format!("{login} {more}")))
            .await
            .expect("sent");
        let heard = mail.heard();
        let clear: Vec<&String> = heard
            .iter()
            .filter(|line| line.starts_with("CLEAR"))
            .collect();
        let expected = if way == Way::Tls {
            vec![]
        } else {
            vec!["CLEAR EHLO [127.0.0.1]", "CLEAR STARTTLS"]
        };
        assert_eq!(clear, expected);
        for wanted in [
            "MAIL FROM:<it@example.com>",
            "RCPT TO:<anna@example.com>",
            "RCPT TO:<bob@example.org>",
            "Subject: How to connect your device",
            "To: <anna@example.com>,",
            " <bob@example.org>",
        ] {
            assert!(
                heard.iter().any(|line| line == wanted),
                "{wanted}: {heard:#?}"
            );
        }
        let read = Credentials::from_text(&heard.join("\n")).expect("the text is in it");
        assert_eq!(read.endpoints[0].host, "ums.example.com");
        assert!(!desk.out.text().contains("STVWX") && !desk.notes.text().contains("STVWX"));
        assert!(
            desk.out
                .text()
                .contains("handed to the mail server for anna@example.com, bob@example.org")
        );
        desk.clear();
    }
}

#[tokio::test]
async fn nothing_is_said_to_a_mail_server_that_is_not_the_right_one_or_not_encrypted() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    for (way, answers_as, sentence, exit) in [
        (Way::Clear, &authority, "offers no encryption", Exit::Failed),
        (
            Way::Injecting,
            &authority,
            "before encryption began",
            Exit::NotTrusted,
        ),
        (
            Way::Starttls,
            &stranger,
            "can't prove who it is",
            Exit::NotTrusted,
        ),
    ] {
        let mail = MailServer::start(answers_as, way).await;
        let login = with_password(&desk, PASSWORD);
        let failure = desk
            .run(&line(&desk, &authority, &mail, &login))
            .await
            .expect_err("not sent");
        assert!(told(&failure).contains(sentence), "{}", told(&failure));
        assert_eq!(failure.exit(), exit, "{sentence}");
        let heard = mail.heard();
        assert!(
            heard
                .iter()
                .all(|line| line.starts_with("CLEAR EHLO") || line == "CLEAR STARTTLS"),
            "{heard:?}"
        );
        let pouch = desk.folder.path().join("config/config.keys.json");
        let kept = std::fs::read_to_string(pouch).expect("there");
        assert!(kept.contains("STVWX"), "the key is kept for another try");
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_mail_servers_words_and_nobody_gets_the_e_mail() {
    let authority = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let mail = MailServer::start(&authority, Way::NoBob).await;
    let failure = desk
        .run(&line(&desk, &authority, &mail, ""))
        .await
        .expect_err("bob");
    assert!(
        told(&failure).contains("the recipient bob@example.org, so nobody got it: no such mailbox"),
        "{}",
        told(&failure)
    );
    assert!(!mail.heard().contains(&"DATA".to_owned()));

    let mail = MailServer::start(&authority, Way::Starttls).await;
    let wrong = with_password(&desk, "wrong");
    let failure = desk
        .run(&line(&desk, &authority, &mail, &wrong))
        .await
        .expect_err("a wrong password");
    let told_of = told(&failure);
    assert!(
        told_of.contains("refused the log-in: who are you"),
        "{told_of}"
    );
    assert!(
        !told_of.contains('\u{1b}') && !told_of.contains("wrong"),
        "{told_of}"
    );
    let made = api
        .lines()
        .iter()
        .filter(|line| line.starts_with("POST /api/v1/keys"))
        .count();
    let failure = desk
        .run("keys export --to a@x;b --from it@example.com --smtp 127.0.0.1:1")
        .await
        .expect_err("no address");
    assert!(told(&failure).contains("“b” is no e-mail address"));
    let after = api
        .lines()
        .iter()
        .filter(|line| line.starts_with("POST /api/v1/keys"))
        .count();
    assert_eq!(made, after, "no key is made for nobody");
}

#[tokio::test]
async fn a_mail_server_that_never_speaks_is_not_waited_for_for_ever() {
    let authority = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.limits.server.answer = std::time::Duration::from_secs(1);
    let mail = MailServer::start(&authority, Way::Mute).await;
    let failure = desk
        .run(&line(&desk, &authority, &mail, ""))
        .await
        .expect_err("silence");
    assert!(
        told(&failure).contains("said nothing during the greeting"),
        "{}",
        told(&failure)
    );
    assert_eq!(failure.exit(), Exit::Unreachable);
}

#[tokio::test]
async fn a_line_that_begins_with_a_dot_does_not_end_the_e_mail() {
    let authority = Authority::new();
    let api = Api::start(&authority, server()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.person.input = b".dot begins this key\n".to_vec();
    let mail = MailServer::start(&authority, Way::Starttls).await;
    desk.run(&line(&desk, &authority, &mail, "--key-file -"))
        .await
        .expect("sent");
    let heard = mail.heard();
    assert!(
        heard.iter().any(|line| line.starts_with("..DOTB")),
        "{heard:#?}"
    );
}
