//! The client's half of the opening handshake (RFC 6455, section 4.1). An answer that isn't the upgrade is read up to a
//! limit for its reason; what was sent in the request's header fields is never told to anybody.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tungstenite::protocol::Role;
use zeroize::Zeroizing;

use super::closed::is_word;
use super::stream::{ByteStream, Keepalive};
use super::upgrade::accept_key;
use crate::http::{Head, HeadError, read_head, retry_after};
use crate::x509::printable;

/// A refusal's body beyond this isn't looked at.
const MAX_BODY: usize = 4 * 1024;

/// A refusal's body that doesn't come in this time isn't waited for: the status says enough.
const BODY_PATIENCE: Duration = Duration::from_secs(2);

/// A sentence from a stranger ends here.
const MAX_SENTENCE: usize = 300;

/// The value of a header field, which may be a secret: it isn't shown, and is wiped from memory.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderValue(Zeroizing<String>);

impl HeaderValue {
    /// `Bearer` and this token.
    pub fn bearer(token: &str) -> Self {
        Self(Zeroizing::new(format!("Bearer {token}")))
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for HeaderValue {
    fn from(value: &str) -> Self {
        Self(Zeroizing::new(value.to_owned()))
    }
}

impl From<String> for HeaderValue {
    fn from(value: String) -> Self {
        Self(Zeroizing::new(value))
    }
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MASKED")
    }
}

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The host's name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path, from the slash on. No secret belongs in here.
    pub path: String,
    /// The one subprotocol that is offered.
    pub subprotocol: String,
    /// Further header fields.
    pub headers: Vec<(String, HeaderValue)>,
}

/// Why no WebSocket came about.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WsError {
    /// The server said no before the upgrade.
    #[error("{}", refusal(*.status, .sentence.as_deref()))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's stable word for it.
        code: Option<String>,
        /// The server's sentence, without control characters.
        sentence: Option<String>,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The answer isn't one to an upgrade.
    #[error(
        "what answers there isn't a WebSocket server, or something in between doesn't let WebSocket pass"
    )]
    NotWebSocket,
    /// Another subprotocol than the one offered.
    #[error("what answers there speaks WebSocket, but isn't the service that was expected")]
    WrongProtocol,
    /// The request can't be sent: a part of it would break its form.
    #[error("the request can't be sent: its {part} has characters that aren't allowed there")]
    BadRequest {
        /// Which part.
        part: String,
    },
    /// The answer's head doesn't end.
    #[error("the answer is larger than any honest one")]
    TooLarge,
    /// No answer.
    #[error("the other side didn't answer the WebSocket request in time")]
    TimedOut,
    /// The end instead of an answer.
    #[error("the other side closed the connection instead of answering the WebSocket request")]
    Closed,
    /// The stream below failed.
    #[error("the connection failed during the WebSocket request")]
    Io(#[source] Arc<io::Error>),
}

impl WsError {
    /// A stable word: the server's own where it said one.
    pub fn code(&self) -> &str {
        match self {
            Self::Refused {
                code: Some(code), ..
            } => code,
            Self::Refused { .. } => "refused_by_gateway",
            Self::NotWebSocket => "not_websocket",
            Self::WrongProtocol => "wrong_service",
            Self::BadRequest { .. } => "malformed",
            Self::TooLarge => "too_large",
            Self::TimedOut => "timeout",
            Self::Closed => "closed",
            Self::Io(_) => "connection_failed",
        }
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::NotWebSocket
            | Self::WrongProtocol
            | Self::BadRequest { .. }
            | Self::TooLarge
            | Self::TimedOut
            | Self::Closed
            | Self::Io(_) => None,
        }
    }
}

fn refusal(status: u16, sentence: Option<&str>) -> String {
    match sentence {
        Some(sentence) => format!("the gateway refused the connection: {sentence}"),
        None => format!("the other side refused the WebSocket request (HTTP status {status})"),
    }
}

impl From<HeadError> for WsError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Closed => Self::Closed,
            HeadError::Garbage => Self::NotWebSocket,
            HeadError::TooLarge => Self::TooLarge,
            HeadError::Io(error) => Self::from(error),
        }
    }
}

impl From<io::Error> for WsError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Opens a WebSocket over `io` within `deadline`.
///
/// # Errors
/// [`WsError`]
pub async fn connect<IO>(
    io: IO,
    request: &Request,
    keepalive: Option<Keepalive>,
    deadline: Duration,
) -> Result<ByteStream<IO>, WsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let end = Instant::now() + deadline;
    let mut io = io;
    let asked = match timeout_at(end, ask(&mut io, request)).await {
        Ok(result) => result?,
        Err(_) => return Err(WsError::TimedOut),
    };
    let Answer { key, head, behind } = asked;
    if head.status != 101 {
        let patience = end.min(Instant::now() + BODY_PATIENCE);
        return Err(read_refusal(&mut io, &head, behind, patience, request).await);
    }
    check_answer(&key, &head, request)?;
    Ok(ByteStream::new(io, behind, Role::Client, keepalive))
}

struct Answer {
    key: String,
    head: Head,
    /// What came behind the head.
    behind: Vec<u8>,
}

async fn ask<IO>(io: &mut IO, request: &Request) -> Result<Answer, WsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut nonce = [0; 16];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| io::Error::other("the system has no random numbers"))?;
    let key = STANDARD.encode(nonce);
    let text = write_request(request, &key)?;
    io.write_all(text.as_bytes()).await?;
    io.flush().await?;
    let mut behind = Vec::new();
    let head = read_head(io, &mut behind).await?;
    Ok(Answer { key, head, behind })
}

fn check_answer(key: &str, head: &Head, request: &Request) -> Result<(), WsError> {
    let is = |name, wanted: &str| {
        head.all(name)
            .flat_map(|list| list.split(','))
            .any(|one| one.trim().eq_ignore_ascii_case(wanted))
    };
    let proven = head.field("sec-websocket-accept") == Some(accept_key(key).as_str());
    // No extension was offered, so none can have been agreed on.
    let extended = head
        .field("sec-websocket-extensions")
        .is_some_and(|list| !list.is_empty());
    if !is("upgrade", "websocket") || !is("connection", "upgrade") || !proven || extended {
        return Err(WsError::NotWebSocket);
    }
    if head.field("sec-websocket-protocol") != Some(request.subprotocol.as_str()) {
        return Err(WsError::WrongProtocol);
    }
    Ok(())
}

fn write_request(request: &Request, key: &str) -> Result<Zeroizing<String>, WsError> {
    let bad = |part: &str| WsError::BadRequest {
        part: part.to_owned(),
    };
    let graphic = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !graphic(&request.host) {
        return Err(bad("host"));
    }
    if !graphic(&request.path) || !request.path.starts_with('/') {
        return Err(bad("path"));
    }
    if !graphic(&request.subprotocol) {
        return Err(bad("subprotocol"));
    }
    let host = authority(&request.host, request.port, Some(443));
    let (path, subprotocol) = (&request.path, &request.subprotocol);
    let mut text = Zeroizing::new(format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n"
    ));
    // Room for all at once: a text that grows leaves copies of secrets behind.
    let more = |(name, value): &(String, HeaderValue)| name.len() + value.as_str().len() + 4;
    text.reserve(request.headers.iter().map(more).sum::<usize>() + 2);
    for (name, value) in &request.headers {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || !name.bytes().all(token) {
            return Err(bad("header name"));
        }
        let shown = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if !value.as_str().bytes().all(shown) {
            return Err(bad(&format!("header {name}")));
        }
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value.as_str());
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Ok(text)
}

/// `HOST:PORT` as in a URL; without the port where it is the usual one.
pub(crate) fn authority(host: &str, port: u16, usual: Option<u16>) -> String {
    // The zone of a link-local address means nothing to others.
    let host = host.split_once('%').map_or(host, |(address, _)| address);
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    if usual == Some(port) {
        host
    } else {
        format!("{host}:{port}")
    }
}

async fn read_refusal<IO>(
    io: &mut IO,
    head: &Head,
    mut body: Vec<u8>,
    patience: Instant,
    request: &Request,
) -> WsError
where
    IO: AsyncRead + Unpin,
{
    let length = head
        .field("content-length")
        .and_then(|text| text.parse::<usize>().ok())
        .unwrap_or(MAX_BODY)
        .min(MAX_BODY);
    let missing = u64::try_from(length.saturating_sub(body.len())).unwrap_or(0);
    // What came counts, whether the rest comes or not.
    let _ = timeout_at(patience, io.take(missing).read_to_end(&mut body)).await;
    body.truncate(length);
    let said = read_body(&body);
    // Whoever repeats our token would have it written into a log.
    let token = |(name, value): &(String, HeaderValue)| {
        let value = value.as_str();
        let token = value.rsplit(' ').next().unwrap_or(value).to_owned();
        let is_secret = name.eq_ignore_ascii_case("authorization") && !token.is_empty();
        is_secret.then(|| Zeroizing::new(token))
    };
    let tokens: Vec<_> = request.headers.iter().filter_map(token).collect();
    let harmless = |text: &String| !tokens.iter().any(|token| text.contains(token.as_str()));
    WsError::Refused {
        status: head.status,
        code: said.code.filter(harmless),
        sentence: said.sentence.filter(harmless),
        retry_after: said.retry_after.or_else(|| head.retry_after()),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    code: Option<String>,
    sentence: Option<String>,
    retry_after: Option<Duration>,
}

/// `{"code", "sentence", "retry_after_seconds"}`. Between the first brace and the last, so that a body in one chunk is
/// read as well; anything else says nothing.
fn read_body(body: &[u8]) -> Said {
    let start = body.iter().position(|byte| *byte == b'{');
    let end = body.iter().rposition(|byte| *byte == b'}');
    let json = match (start, end) {
        (Some(start), Some(end)) if start < end => &body[start..=end],
        (Some(_) | None, Some(_) | None) => return Said::default(),
    };
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(json) else {
        return Said::default();
    };
    let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str);
    Said {
        code: text("code").filter(|code| is_word(code)).map(str::to_owned),
        sentence: text("sentence")
            .filter(|sentence| !sentence.is_empty())
            .map(|sentence| printable(sentence, MAX_SENTENCE)),
        retry_after: value
            .get("retry_after_seconds")
            .and_then(serde_json::Value::as_u64)
            .and_then(|seconds| retry_after(&seconds.to_string())),
    }
}
