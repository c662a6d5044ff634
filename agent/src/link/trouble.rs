//! Why there is no link, for people and for the machine that decides when to try again. It never holds a secret or text that
//! could move a cursor.

use std::time::Duration;

pub(crate) use umbra_carrier::causes::sentence;
use umbra_carrier::tls::TlsError;
use umbra_carrier::ws::Closed;
use umbra_protocol::gateway::read_close_reason;
use umbra_protocol::link::Goodbye;
use umbra_protocol::refusal::clip;
use umbra_protocol::{Refusal, RefusalCode, Remedy};

/// Why there is no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Stable code.
    pub code: String,
    /// What happened, for a person.
    pub sentence: String,
    /// Whether it passes by itself.
    pub remedy: Remedy,
    /// When the server suggests to come back; not yet clamped.
    pub retry_after: Option<Duration>,
    /// Whether only this way to the server is concerned: another one may work at once.
    pub of_way: bool,
}

impl Trouble {
    /// Trouble that passes by itself.
    pub fn passing(code: &str, sentence: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            sentence: clip(sentence.into()),
            remedy: Remedy::Retry,
            retry_after: None,
            of_way: false,
        }
    }

    /// Trouble that stays until a person does something.
    pub fn lasting(code: &str, sentence: impl Into<String>) -> Self {
        Self {
            remedy: Remedy::AskPerson,
            ..Self::passing(code, sentence)
        }
    }

    /// The server refused.
    pub fn refused(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code.as_str().to_owned(),
            sentence: clip(refusal.sentence.clone()),
            remedy: refusal.code.remedy(),
            retry_after: seconds(refusal.retry_after_seconds),
            of_way: false,
        }
    }

    /// The server ended the link in good order.
    pub fn goodbye(goodbye: &Goodbye) -> Self {
        Self {
            retry_after: seconds(goodbye.retry_after_seconds),
            ..Self::passing(
                "goodbye",
                format!("The server ended the link: {}", goodbye.sentence),
            )
        }
    }

    /// A gateway ended the connection. Whatever it says is not the server's word: it can delay the device, and no more.
    pub fn of_gateway(closed: &Closed) -> Self {
        let word = read_close_reason(&closed.reason).map(|refusal| refusal.code);
        let code = match word {
            Some(word) if word != RefusalCode::Unknown && word.remedy() == Remedy::Retry => {
                word.as_str()
            }
            Some(_) | None => "gateway_closed",
        };
        Self {
            retry_after: closed.retry_after,
            of_way: true,
            ..Self::passing(
                code,
                match closed.sentence() {
                    "" => format!(
                        "The gateway ended the connection without a word (WebSocket code {}).",
                        closed.code
                    ),
                    sentence => format!("The gateway ended the connection: {sentence}"),
                },
            )
        }
    }

    /// The server does not keep to the protocol. It will not learn to do so in a second.
    pub fn protocol(sentence: impl Into<String>) -> Self {
        Self::lasting("protocol", sentence)
    }

    /// An error that passes by itself, with its causes.
    pub fn because(code: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::passing(code, sentence(error))
    }

    /// What went wrong while TLS was set up, or broke it.
    pub fn of_tls(error: &TlsError) -> Self {
        let code = if error.concerns_certificates() {
            "certificate"
        } else {
            "tls"
        };
        Self::because(code, error)
    }

    /// Something needs the link, and there is none.
    pub fn not_linked() -> Self {
        Self::passing(
            "not_linked",
            "The device has no link to its server at the moment.",
        )
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.sentence, self.code)
    }
}

fn seconds(hint: Option<u32>) -> Option<Duration> {
    hint.map(|seconds| Duration::from_secs(u64::from(seconds)))
}
