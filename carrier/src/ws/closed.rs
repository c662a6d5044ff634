//! The last word of a WebSocket: a code, and a reason that carries a stable word, perhaps a time to come back, and a
//! sentence. What a peer wrote is cleaned before anybody sees it.

use std::io;
use std::time::Duration;

use crate::http::retry_after;
use crate::x509::printable;

/// A reason may have this many bytes (RFC 6455, section 5.5).
const MAX_REASON: usize = 123;

/// A longer word is no code of ours.
const MAX_WORD: usize = 40;

/// A WebSocket was closed with another code than 1000.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe())]
pub struct Closed {
    /// The code (RFC 6455, section 7.4); 1005 where the peer sent none.
    pub code: u16,
    /// The reason as it was sent, without control characters; like `shutting_down retry=17: The gateway restarts.`
    pub reason: String,
    /// When to come back, where the reason says so.
    pub retry_after: Option<Duration>,
    /// Whether this side closed the stream.
    pub by_us: bool,
}

impl Closed {
    /// Reads what the peer sent.
    pub fn read(code: u16, reason: &str) -> Self {
        let reason = printable(reason, MAX_REASON);
        let retry_after = split(&reason)
            .and_then(|(head, _)| head.split(' ').find_map(|part| part.strip_prefix("retry=")))
            .and_then(retry_after);
        Self {
            code,
            reason,
            retry_after,
            by_us: false,
        }
    }

    pub(super) fn by_us(code: u16, reason: &str) -> Self {
        Self {
            by_us: true,
            ..Self::read(code, reason)
        }
    }

    /// Finds it in the error of a stream, through layers of errors.
    pub fn of(error: &io::Error) -> Option<&Self> {
        let mut next: Option<&(dyn std::error::Error + 'static)> =
            error.get_ref().map(|inner| inner as _);
        while let Some(inner) = next {
            if let Some(closed) = inner.downcast_ref::<Self>() {
                return Some(closed);
            }
            next = match inner.downcast_ref::<io::Error>() {
                Some(error) => error.get_ref().map(|inner| inner as _),
                None => inner.source(),
            };
        }
        None
    }

    /// The stable word that the reason begins with, such as `shutting_down`.
    pub fn code_word(&self) -> Option<&str> {
        let (head, _) = split(&self.reason)?;
        head.split(' ').next()
    }

    /// The sentence of the reason; all of it where it has no stable word.
    pub fn sentence(&self) -> &str {
        match split(&self.reason) {
            Some((_, sentence)) => sentence,
            None => &self.reason,
        }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, self.clone())
    }

    fn describe(&self) -> String {
        let who = if self.by_us {
            "this side"
        } else {
            "the other side"
        };
        let code = self.code;
        match self.sentence() {
            "" => format!("{who} closed the connection (WebSocket code {code})"),
            sentence => format!("{who} closed the connection (WebSocket code {code}): {sentence}"),
        }
    }
}

/// `word retry=17` and the sentence, where the reason has this form.
fn split(reason: &str) -> Option<(&str, &str)> {
    let (head, sentence) = reason.split_once(':')?;
    let mut parts = head.split(' ');
    let word = parts.next()?;
    let parameters = parts.all(|part| part.contains('='));
    (is_word(word) && parameters).then(|| (head, sentence.trim_start()))
}

/// Whether it looks like a code of this product: `shutting_down`.
pub(super) fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(fits)
}

/// A reason in the form that [`Closed`] reads. A sentence that is too long is cut.
pub fn reason(word: &str, retry_after: Option<Duration>, sentence: &str) -> String {
    let text = match retry_after {
        Some(delay) => format!("{word} retry={}: {sentence}", delay.as_secs()),
        None => format!("{word}: {sentence}"),
    };
    cut(&text).to_owned()
}

/// As much of `reason` as a Close can carry, never half a character.
pub(super) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}
