//! Handing an e-mail to a mail server (SMTP, RFC 5321), over TLS 1.3 or not at all: no key and no password goes out in
//! clear. Either everybody gets the e-mail, or nobody.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use umbra_carrier::address::HostPort;
use umbra_protocol::Secret;
use zeroize::Zeroizing;

use super::mail::Address;
use crate::cli::SmtpTlsArg;

/// Most bytes of one answer.
const ANSWER: usize = 16 * 1024;

/// Why the mail server didn't take the e-mail.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// No connection.
    #[error("the mail server {server} can't be reached, so nothing was sent")]
    Connect {
        /// Which one.
        server: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The server's name can't be checked.
    #[error("“{0}” is no name that a certificate can have")]
    Name(String),
    /// The roots can't be used.
    #[error("the root certificate for the mail server can't be used, so nothing was sent")]
    Root(#[source] rustls::Error),
    /// No TLS.
    #[error(
        "the mail server {server} can't prove who it is, or speaks no TLS 1.3, so nothing was sent"
    )]
    Tls {
        /// Which one.
        server: String,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// No STARTTLS.
    #[error("the mail server offers no encryption (STARTTLS), so nothing was sent")]
    NoTls,
    /// It sent something between clear and TLS.
    #[error(
        "somebody put words into the mail server's mouth before encryption began, so nothing was sent"
    )]
    Injected,
    /// It offers no way to log in that is known here.
    #[error(
        "the mail server offers no log-in with a password (AUTH PLAIN or LOGIN), so nothing was sent"
    )]
    NoLogin,
    /// It refused a step.
    #[error("the mail server refused {step}: {answer}")]
    Refused {
        /// Which step.
        step: String,
        /// What it said.
        answer: String,
    },
    /// It said something that is no SMTP.
    #[error("what answers there is no mail server")]
    NotSmtp,
    /// It went away.
    #[error("the connection to the mail server broke during {step}")]
    Broken {
        /// Which step.
        step: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("the mail server said nothing during {step}, for {} seconds", .after.as_secs())]
    Silent {
        /// Which step.
        step: String,
        /// How long.
        after: Duration,
    },
}

/// A mail server, and how to be let in.
#[derive(Debug)]
pub(super) struct MailServer {
    pub(super) address: HostPort,
    pub(super) tls: SmtpTlsArg,
    /// The root that its certificate must come from; the public authorities without one.
    pub(super) root: Option<CertificateDer<'static>>,
    pub(super) login: Option<(String, Secret)>,
    /// How long each step may take.
    pub(super) patience: Duration,
}

impl MailServer {
    /// Hands in one e-mail for all recipients.
    pub(super) async fn send(
        &self,
        from: &Address,
        to: &[Address],
        mail: &str,
    ) -> Result<(), MailError> {
        let connector = TlsConnector::from(Arc::new(self.config()?));
        let name = ServerName::try_from(self.address.host().to_owned())
            .map_err(|_| MailError::Name(self.address.host().to_owned()))?;
        let reach = |source| MailError::Connect {
            server: self.address.to_string(),
            source,
        };
        let connect = TcpStream::connect((self.address.host(), self.address.port()));
        let tcp = match timeout(self.patience, connect).await {
            Ok(tcp) => tcp.map_err(reach)?,
            Err(_) => return Err(reach(std::io::ErrorKind::TimedOut.into())),
        };
        let tcp = match self.tls {
            SmtpTlsArg::Tls => tcp,
            SmtpTlsArg::Starttls => {
                let mut talk = Talk::new(tcp, self.patience);
                talk.expect(220, "the greeting").await?;
                let offers = talk.hello().await?;
                if !offers.iter().any(|offer| offer == "STARTTLS") {
                    return Err(MailError::NoTls);
                }
                talk.ask("STARTTLS", 220, "encryption").await?;
                talk.into_silent()?
            }
        };
        let encrypt = connector.connect(name, tcp);
        let encrypted = match timeout(self.patience, encrypt).await {
            Ok(encrypted) => encrypted,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        let encrypted = encrypted.map_err(|source| MailError::Tls {
            server: self.address.to_string(),
            source,
        })?;
        let mut talk = Talk::new(encrypted, self.patience);
        if self.tls == SmtpTlsArg::Tls {
            talk.expect(220, "the greeting").await?;
        }
        let offers = talk.hello().await?;
        if let Some((user, password)) = &self.login {
            log_in(&mut talk, &offers, user, password).await?;
        }
        hand_in(&mut talk, from, to, mail).await
    }

    fn config(&self) -> Result<rustls::ClientConfig, MailError> {
        let mut roots = rustls::RootCertStore::empty();
        match &self.root {
            Some(root) => roots.add(root.clone()).map_err(MailError::Root)?,
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let provider = umbra_carrier::tls::provider();
        Ok(rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(MailError::Root)?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    talk: &mut Talk<S>,
    offers: &[String],
    user: &str,
    password: &Secret,
) -> Result<(), MailError> {
    const STEP: &str = "the log-in";
    let ways = offers.iter().find_map(|offer| offer.strip_prefix("AUTH "));
    let offered = |way: &str| ways.is_some_and(|ways| ways.split(' ').any(|offer| offer == way));
    if offered("PLAIN") {
        let plain = Zeroizing::new(format!("\0{user}\0{}", password.reveal()));
        let line = Zeroizing::new(format!("AUTH PLAIN {}", STANDARD.encode(plain.as_bytes())));
        talk.ask(&line, 235, STEP).await
    } else if offered("LOGIN") {
        talk.ask("AUTH LOGIN", 334, STEP).await?;
        talk.ask(&STANDARD.encode(user), 334, STEP).await?;
        let line = Zeroizing::new(STANDARD.encode(password.reveal()));
        talk.ask(&line, 235, STEP).await
    } else {
        Err(MailError::NoLogin)
    }
}

async fn hand_in<S: AsyncRead + AsyncWrite + Unpin>(
    talk: &mut Talk<S>,
    from: &Address,
    to: &[Address],
    mail: &str,
) -> Result<(), MailError> {
    let sender = format!("MAIL FROM:<{}>", from.as_str());
    talk.ask(&sender, 250, &format!("the sender {}", from.as_str()))
        .await?;
    for address in to {
        let step = format!("the recipient {}, so nobody got it", address.as_str());
        let recipient = format!("RCPT TO:<{}>", address.as_str());
        talk.say(&recipient, &step).await?;
        match talk.answer(&step).await? {
            (250 | 251, _) => {}
            (_, answer) => return Err(refused(&step, &answer)),
        }
    }
    talk.ask("DATA", 354, "the e-mail").await?;
    let mut stuffed = Zeroizing::new(String::with_capacity(mail.len() + 1_024));
    for line in mail.lines() {
        // A line of one dot would end the e-mail.
        if line.starts_with('.') {
            stuffed.push('.');
        }
        stuffed.push_str(line);
        stuffed.push_str("\r\n");
    }
    stuffed.push('.');
    talk.ask(&stuffed, 250, "the e-mail").await?;
    // It is the mail server's now, whatever it says to this.
    let _ = talk.say("QUIT", "the end").await;
    Ok(())
}

fn refused(step: &str, answer: &[String]) -> MailError {
    MailError::Refused {
        step: step.to_owned(),
        answer: umbra_protocol::refusal::clip(answer.join(" ")),
    }
}

/// A conversation: one line out, one answer in.
struct Talk<S> {
    stream: S,
    heard: Vec<u8>,
    patience: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            heard: Vec::new(),
            patience,
        }
    }

    /// The stream, if nothing was said that nobody asked for.
    fn into_silent(self) -> Result<S, MailError> {
        if self.heard.is_empty() {
            Ok(self.stream)
        } else {
            Err(MailError::Injected)
        }
    }

    /// What the server can do, in capitals.
    async fn hello(&mut self) -> Result<Vec<String>, MailError> {
        const STEP: &str = "the greeting";
        // The name of this machine is nobody's business.
        self.say("EHLO [127.0.0.1]", STEP).await?;
        match self.answer(STEP).await? {
            (250, lines) => Ok(lines.iter().map(|line| line.to_ascii_uppercase()).collect()),
            (_, lines) => Err(refused(STEP, &lines)),
        }
    }

    async fn ask(&mut self, line: &str, code: u16, step: &str) -> Result<(), MailError> {
        self.say(line, step).await?;
        self.expect(code, step).await
    }

    async fn expect(&mut self, code: u16, step: &str) -> Result<(), MailError> {
        match self.answer(step).await? {
            (found, _) if found == code => Ok(()),
            (_, lines) => Err(refused(step, &lines)),
        }
    }

    async fn say(&mut self, line: &str, step: &str) -> Result<(), MailError> {
        let bytes = Zeroizing::new(format!("{line}\r\n").into_bytes());
        let write = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match timeout(self.patience, write).await {
            Ok(written) => written.map_err(|source| broken(step, source)),
            Err(_) => Err(self.silent(step)),
        }
    }

    /// One answer: its code, and its lines without it.
    async fn answer(&mut self, step: &str) -> Result<(u16, Vec<String>), MailError> {
        let patience = self.patience;
        match timeout(patience, self.read_answer(step)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.silent(step)),
        }
    }

    async fn read_answer(&mut self, step: &str) -> Result<(u16, Vec<String>), MailError> {
        let mut lines = Vec::new();
        let mut size = 0;
        loop {
            let line = self.line(step).await?;
            size += line.len();
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            let code = code.filter(|code| (200..600).contains(code));
            let more = match line.as_bytes().get(3) {
                None | Some(b' ') => false,
                Some(b'-') => true,
                Some(_) => return Err(MailError::NotSmtp),
            };
            let (Some(code), true) = (code, size <= ANSWER) else {
                return Err(MailError::NotSmtp);
            };
            lines.push(line.get(4..).unwrap_or_default().trim().to_owned());
            if !more {
                return Ok((code, lines));
            }
        }
    }

    async fn line(&mut self, step: &str) -> Result<String, MailError> {
        loop {
            if let Some(end) = self.heard.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.heard.len() > ANSWER {
                return Err(MailError::NotSmtp);
            }
            let mut piece = [0; 2_048];
            match self.stream.read(&mut piece).await {
                Ok(0) => return Err(broken(step, std::io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.heard.extend_from_slice(&piece[..count]),
                Err(error) => return Err(broken(step, error)),
            }
        }
    }

    fn silent(&self, step: &str) -> MailError {
        MailError::Silent {
            step: step.to_owned(),
            after: self.patience,
        }
    }
}

fn broken(step: &str, source: std::io::Error) -> MailError {
    MailError::Broken {
        step: step.to_owned(),
        source,
    }
}

/// What fuzz targets reach of what is private here. It exists only while fuzzing.
#[cfg(fuzzing)]
pub(super) mod fuzzing {
    use super::*;

    /// The whole conversation, as inside of TLS.
    pub(in super::super) async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        stream: S,
        patience: Duration,
        (user, password): (&str, &Secret),
        (from, to, mail): (&Address, &[Address], &str),
    ) -> Result<(), MailError> {
        let mut talk = Talk::new(stream, patience);
        talk.expect(220, "the greeting").await?;
        let offers = talk.hello().await?;
        log_in(&mut talk, &offers, user, password).await?;
        hand_in(&mut talk, from, to, mail).await
    }
}
