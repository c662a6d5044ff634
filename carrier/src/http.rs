//! The head of an HTTP answer, as a proxy gives it to CONNECT and a gateway to an upgrade. It is read up to a limit and
//! not a byte further than the stream gave: what follows the head stays with the caller.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A longer head is no honest answer.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// More header fields are no honest answer.
const MAX_FIELDS: usize = 96;

/// Interim answers (1xx) before the real one.
const MAX_INTERIM: usize = 8;

/// Nobody is told to come back later than this.
const MAX_RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// An answer's status and header fields.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
}

/// Why no head came.
#[derive(Debug)]
pub(crate) enum HeadError {
    /// The stream ended first.
    Closed,
    /// It is no HTTP.
    Garbage,
    /// It doesn't end.
    TooLarge,
    /// The stream failed.
    Io(io::Error),
}

impl Head {
    /// The first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let named = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .find(named)
            .map(|(_, value)| value.as_str())
    }

    /// All fields of this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// When to come back, where the answer says so in seconds. A date is passed over: the clock may be wrong.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        retry_after(self.field("retry-after")?)
    }
}

/// Seconds as text, within bounds.
pub(crate) fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // More digits than fit are "very late".
    let seconds = text.parse().unwrap_or(u64::MAX);
    Some(Duration::from_secs(seconds).min(MAX_RETRY))
}

/// Reads the head of the final answer. `buffer` may hold bytes already; afterwards it holds what came behind the head.
pub(crate) async fn read_head<IO>(io: &mut IO, buffer: &mut Vec<u8>) -> Result<Head, HeadError>
where
    IO: AsyncRead + Unpin,
{
    for _ in 0..MAX_INTERIM {
        let (head, length) = loop {
            if let Some(found) = parse(buffer)? {
                break found;
            }
            if buffer.len() > MAX_HEAD {
                return Err(HeadError::TooLarge);
            }
            let mut part = [0; 1024];
            let read = io.read(&mut part).await.map_err(HeadError::Io)?;
            if read == 0 {
                return Err(HeadError::Closed);
            }
            buffer.extend_from_slice(&part[..read]);
        };
        buffer.drain(..length);
        let interim = (100..200).contains(&head.status) && head.status != 101;
        if !interim {
            return Ok(head);
        }
    }
    Err(HeadError::Garbage)
}

fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token
            | httparse::Error::Version,
        ) => return Err(HeadError::Garbage),
    };
    if length > MAX_HEAD {
        return Err(HeadError::TooLarge);
    }
    let status = answer.code.ok_or(HeadError::Garbage)?;
    let fields = answer
        .headers
        .iter()
        .map(|field| {
            let value = String::from_utf8_lossy(field.value).trim().to_owned();
            (field.name.to_owned(), value)
        })
        .collect();
    Ok(Some((Head { status, fields }, length)))
}
