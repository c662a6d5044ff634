//! Values to JSON and back, with sizes checked first. Framing (a length before each message) is the carrier's.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::json::{self, Fields, Json};

/// Why some bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than this kind of message may be.
    #[error("a message of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A well-formed message of a type that this build does not know: answered with a code, then ignored.
    #[error("unknown message type “{0}”")]
    UnknownType(String),
    /// Not the JSON that was expected.
    #[error("a message could not be read: {0}")]
    Malformed(String),
}

/// A set of messages told apart by their `type`.
pub trait MessageSet: Serialize + DeserializeOwned {
    /// The `type` of every message of the set.
    const TYPES: &'static [&'static str];

    /// Reads the body of a message whose `type` is known already.
    ///
    /// # Errors
    /// What is wrong with the body; nothing for a `type` that the set doesn't have.
    fn read(kind: &str, body: Json) -> Result<Option<Self>, serde_json::Error>;

    /// Checks what the types alone cannot: counts and lengths from [`crate::limits`].
    fn within_limits(&self) -> Result<(), String>;
}

/// Reads one message of at most `limit` bytes.
pub fn decode<M: MessageSet>(bytes: &[u8], limit: usize) -> Result<M, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge {
            size: bytes.len(),
            limit,
        });
    }
    // A list of values would be read as well, by their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(DecodeError::Malformed("it is no JSON object".to_owned()));
    }
    let (kind, body) = json::from_slice(bytes).and_then(head).map_err(malformed)?;
    let Some(message) = M::read(&kind, body).map_err(malformed)? else {
        return Err(DecodeError::UnknownType(
            kind.escape_debug().take(64).collect(),
        ));
    };
    message.within_limits().map_err(DecodeError::Malformed)?;
    Ok(message)
}

/// The `type` and all else.
fn head(message: Json) -> Result<(String, Json), serde_json::Error> {
    Fields::read(message, |fields| {
        Ok((fields.take_text("type")?, fields.rest()))
    })
}

/// Writes one message.
pub fn encode<M: MessageSet>(message: &M) -> Vec<u8> {
    serde_json::to_vec(message)
        .expect("messages hold nothing that JSON cannot say: string keys, no foreign types")
}

fn malformed(error: serde_json::Error) -> DecodeError {
    DecodeError::Malformed(crate::refusal::clip(error.to_string()))
}

/// Refuses a text over its limit, naming the field.
pub(crate) fn text_within(field: &str, text: &str, limit: usize) -> Result<(), String> {
    count_within(field, text.len(), limit, "bytes")
}

/// Refuses a list over its limit, naming the field.
pub(crate) fn count_within(
    field: &str,
    count: usize,
    limit: usize,
    what: &str,
) -> Result<(), String> {
    if count > limit {
        return Err(format!(
            "{field} has {count} {what}, and {limit} are allowed"
        ));
    }
    Ok(())
}
