//! The viewer's half of the RFB handshake, played toward the local VNC server: version, security, result, up to but not including
//! ClientInit; or only as far as the server's offer, which is then the viewer's to answer. Pure: bytes in, bytes out. It answers
//! only with None or VNC authentication, and never sends a password in clear.

use crate::greeting::{Dialect, Greeting};
use crate::rfb::{self, result, security};
use crate::secret::Secret;
use crate::text::one_line_of;
use crate::vnc_auth;

/// Why the server didn't let us in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server gave a reason.
    #[error("the VNC server refused: {0}")]
    Refused(String),
    /// The password was wrong.
    #[error("the VNC server refused the configured password")]
    WrongPassword,
    /// The server wants a password and none is configured.
    #[error("the VNC server asks for a password, and none is configured")]
    PasswordMissing,
    /// The server offers no security type that we use.
    #[error("the VNC server offers only kinds of authentication that are not supported: {0:?}")]
    Unsupported(Vec<u8>),
    /// What came is not RFB.
    #[error("the VNC server's handshake breaks the RFB protocol")]
    Malformed,
}

#[derive(Debug)]
enum State {
    /// 3.3: one word names the type.
    Word,
    /// 3.7 and 3.8: how many types follow.
    Count,
    Types,
    Challenge,
    Result {
        authenticated: bool,
    },
    ReasonLength {
        authenticated: bool,
    },
    Reason {
        authenticated: bool,
    },
    Done,
}

/// The handshake from just after the server's greeting on.
#[derive(Debug)]
pub struct ServerHandshake {
    dialect: Dialect,
    password: Option<Secret>,
    /// Whether the server's offer is only heard, not answered.
    hears_only: bool,
    state: State,
    want: usize,
    part: Vec<u8>,
    offer: Vec<u8>,
}

impl ServerHandshake {
    /// Answers the greeting into `out`.
    pub fn new(greeting: &Greeting, password: Option<Secret>, out: &mut Vec<u8>) -> Self {
        let dialect = greeting.dialect();
        let (state, want) = match dialect {
            Dialect::V3_3 => (State::Word, 4),
            Dialect::V3_7 | Dialect::V3_8 => (State::Count, 1),
        };
        out.extend_from_slice(greeting.answer());
        Self {
            dialect,
            password,
            hears_only: false,
            state,
            want,
            part: Vec::new(),
            offer: Vec::new(),
        }
    }

    /// Answers the greeting into `out`, and is done once the server has said whether and by which kinds of authentication it lets
    /// somebody in.
    pub fn hear_offer(greeting: &Greeting, out: &mut Vec<u8>) -> Self {
        Self {
            hears_only: true,
            ..Self::new(greeting, None, out)
        }
    }

    /// The server's offer as it came, where it is only heard.
    pub fn into_offer(self) -> Vec<u8> {
        self.offer
    }

    /// How many bytes are wanted next; 0 when done. Reading more would take bytes that belong to the session.
    pub fn wants(&self) -> usize {
        self.want - self.part.len()
    }

    /// Takes bytes and puts answers into `out`; returns how many bytes it took. Done when `wants()` is 0.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, LoginError> {
        let mut taken = 0;
        while self.wants() > 0 && taken < bytes.len() {
            let now = self.wants().min(bytes.len() - taken);
            self.part.extend_from_slice(&bytes[taken..taken + now]);
            taken += now;
            if self.wants() == 0 {
                let part = std::mem::take(&mut self.part);
                (self.state, self.want) = self.step(&part, out)?;
                if self.hears_only {
                    self.offer.extend_from_slice(&part);
                }
            }
        }
        Ok(taken)
    }

    fn step(&self, part: &[u8], out: &mut Vec<u8>) -> Result<(State, usize), LoginError> {
        match self.state {
            State::Word => match word(part) {
                0 => Ok((
                    State::ReasonLength {
                        authenticated: false,
                    },
                    4,
                )),
                _ if self.hears_only => Ok((State::Done, 0)),
                1 => Ok((State::Done, 0)),
                2 => self.authenticate(),
                other => Err(LoginError::Unsupported(vec![
                    u8::try_from(other).unwrap_or(u8::MAX),
                ])),
            },
            State::Count => match part.first() {
                None | Some(&security::INVALID) => Ok((
                    State::ReasonLength {
                        authenticated: false,
                    },
                    4,
                )),
                Some(count) => Ok((State::Types, usize::from(*count))),
            },
            State::Types if self.hears_only => Ok((State::Done, 0)),
            State::Types => self.choose(part, out),
            State::Challenge => {
                let challenge = part.try_into().map_err(|_| LoginError::Malformed)?;
                let password = self.password.as_ref().ok_or(LoginError::PasswordMissing)?;
                out.extend_from_slice(&vnc_auth::respond(password, challenge));
                Ok((
                    State::Result {
                        authenticated: true,
                    },
                    4,
                ))
            }
            State::Result { authenticated } => match word(part) {
                result::OK => Ok((State::Done, 0)),
                // Only 3.8 says why.
                result::FAILED | result::TOO_MANY if self.dialect == Dialect::V3_8 => {
                    Ok((State::ReasonLength { authenticated }, 4))
                }
                result::FAILED if authenticated => Err(LoginError::WrongPassword),
                result::FAILED => Err(LoginError::Refused("no reason given".to_owned())),
                result::TOO_MANY => Err(LoginError::Refused("too many attempts".to_owned())),
                _ => Err(LoginError::Malformed),
            },
            State::ReasonLength { authenticated } => match word(part) {
                0 => Err(refusal(authenticated, &[])),
                length if length <= rfb::REASON_MAX => {
                    let length = usize::try_from(length).map_err(|_| LoginError::Malformed)?;
                    Ok((State::Reason { authenticated }, length))
                }
                _ => Err(LoginError::Malformed),
            },
            State::Reason { authenticated } => Err(refusal(authenticated, part)),
            State::Done => Ok((State::Done, 0)),
        }
    }

    fn choose(&self, types: &[u8], out: &mut Vec<u8>) -> Result<(State, usize), LoginError> {
        // A configured password is used if it can be; a server without authentication doesn't ask for it.
        if self.password.is_some() && types.contains(&security::VNC_AUTH) {
            out.push(security::VNC_AUTH);
            return self.authenticate();
        }
        if types.contains(&security::NONE) {
            out.push(security::NONE);
            return Ok(match self.dialect {
                Dialect::V3_8 => (
                    State::Result {
                        authenticated: false,
                    },
                    4,
                ),
                Dialect::V3_3 | Dialect::V3_7 => (State::Done, 0),
            });
        }
        if types.contains(&security::VNC_AUTH) {
            return Err(LoginError::PasswordMissing);
        }
        Err(LoginError::Unsupported(types.to_vec()))
    }

    fn authenticate(&self) -> Result<(State, usize), LoginError> {
        if self.password.is_none() {
            return Err(LoginError::PasswordMissing);
        }
        Ok((State::Challenge, rfb::CHALLENGE_LEN))
    }
}

fn word(part: &[u8]) -> u32 {
    part.iter()
        .fold(0, |word, byte| (word << 8) | u32::from(*byte))
}

fn refusal(authenticated: bool, reason: &[u8]) -> LoginError {
    if authenticated {
        // After a challenge, what was refused is the answer to it; servers word that in many ways.
        return LoginError::WrongPassword;
    }
    let reason = one_line_of(reason, 200);
    LoginError::Refused(if reason.is_empty() {
        "no reason given".to_owned()
    } else {
        reason
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::greeting::GreetingParser;

    fn play(
        greeting: &[u8],
        bytes: &[u8],
        password: Option<&str>,
    ) -> (Result<usize, LoginError>, Vec<u8>, usize) {
        let greeting = GreetingParser::new()
            .feed(greeting)
            .expect("a greeting")
            .0
            .expect("complete");
        let mut out = Vec::new();
        let mut handshake = ServerHandshake::new(&greeting, password.map(Secret::new), &mut out);
        let result = handshake.feed(bytes, &mut out);
        (result, out, handshake.wants())
    }

    #[test]
    fn a_3_8_server_without_authentication_lets_us_in_and_the_next_byte_is_left() {
        let (result, out, wants) = play(b"RFB 003.008\n", &[2, 16, 1, 0, 0, 0, 0, 99], None);
        assert_eq!((result, wants), (Ok(7), 0));
        assert_eq!(out, b"RFB 003.008\n\x01");
    }

    #[test]
    fn a_3_7_server_without_authentication_sends_no_result() {
        let (result, out, wants) = play(b"RFB 003.007\n", &[1, 1], None);
        assert_eq!((result, wants), (Ok(2), 0));
        assert_eq!(out, b"RFB 003.007\n\x01");
    }

    #[test]
    fn a_3_3_server_names_the_type_itself() {
        let (result, out, wants) = play(b"RFB 003.003\n", &[0, 0, 0, 1], None);
        assert_eq!(
            (result, wants, out.as_slice()),
            (Ok(4), 0, b"RFB 003.003\n".as_slice())
        );
        let bytes = [&[0, 0, 0, 2][..], &[7; 16], &[0, 0, 0, 0]].concat();
        let (result, out, wants) = play(b"RFB 003.003\n", &bytes, Some("secret"));
        assert_eq!((result, wants), (Ok(24), 0));
        assert_eq!(
            out[12..],
            vnc_auth::respond(&Secret::new("secret"), &[7; 16])
        );
    }

    #[test]
    fn a_challenge_is_answered_with_the_configured_password() {
        let bytes = [&[2, 1, 2][..], &[9; 16], &[0, 0, 0, 0]].concat();
        let (result, out, wants) = play(b"RFB 003.008\n", &bytes, Some("secret"));
        assert_eq!((result, wants), (Ok(23), 0));
        assert_eq!(out[12], security::VNC_AUTH);
        assert_eq!(
            out[13..],
            vnc_auth::respond(&Secret::new("secret"), &[9; 16])
        );
    }

    #[test]
    fn a_wrong_password_is_told_apart_from_other_refusals_in_every_dialect() {
        let reason = [&[0, 0, 0, 1][..], &[0, 0, 0, 6], b"wrong!"].concat();
        let in_3_8 = [&[1, 2][..], &[9; 16], &reason].concat();
        assert_eq!(
            play(b"RFB 003.008\n", &in_3_8, Some("x")).0,
            Err(LoginError::WrongPassword)
        );
        let in_3_7 = [&[1, 2][..], &[9; 16], &[0, 0, 0, 1]].concat();
        assert_eq!(
            play(b"RFB 003.007\n", &in_3_7, Some("x")).0,
            Err(LoginError::WrongPassword)
        );
        let in_3_3 = [&[0, 0, 0, 2][..], &[9; 16], &[0, 0, 0, 1]].concat();
        assert_eq!(
            play(b"RFB 003.003\n", &in_3_3, Some("x")).0,
            Err(LoginError::WrongPassword)
        );
        let busy = [&[0, 0, 0, 0, 5][..], b"bu\x1bsy"].concat();
        assert_eq!(
            play(b"RFB 003.008\n", &busy, None).0,
            Err(LoginError::Refused("bu sy".into()))
        );
        let busy = [&[0, 0, 0, 0, 0, 0, 0, 4][..], b"busy"].concat();
        assert_eq!(
            play(b"RFB 003.003\n", &busy, None).0,
            Err(LoginError::Refused("busy".into()))
        );
    }

    #[test]
    fn what_cannot_be_answered_is_an_error_that_says_so() {
        assert_eq!(
            play(b"RFB 003.008\n", &[1, 2], None).0,
            Err(LoginError::PasswordMissing)
        );
        assert_eq!(
            play(b"RFB 003.003\n", &[0, 0, 0, 2], None).0,
            Err(LoginError::PasswordMissing)
        );
        assert_eq!(
            play(b"RFB 003.008\n", &[2, 18, 19], Some("x")).0,
            Err(LoginError::Unsupported(vec![18, 19]))
        );
        assert_eq!(
            play(b"RFB 003.008\n", &[0, 255, 255, 255, 255], None).0,
            Err(LoginError::Malformed)
        );
    }

    /// What is heard of a server that sends these bytes, one at a time: its offer, and how many of the bytes that took.
    fn heard(greeting: &[u8], bytes: &[u8]) -> Result<(Vec<u8>, usize), LoginError> {
        let greeting = GreetingParser::new()
            .feed(greeting)
            .expect("a greeting")
            .0
            .expect("complete");
        let mut out = Vec::new();
        let mut handshake = ServerHandshake::hear_offer(&greeting, &mut out);
        let mut taken = 0;
        for byte in bytes {
            taken += handshake.feed(&[*byte], &mut out)?;
        }
        assert_eq!(out, greeting.answer(), "nothing is chosen");
        assert_eq!(handshake.wants(), 0, "{bytes:?}");
        Ok((handshake.into_offer(), taken))
    }

    #[test]
    fn an_offer_is_heard_and_left_to_the_viewer_and_what_follows_it_too() {
        for (greeting, bytes, offer) in [
            // Also kinds that we don't know.
            (b"RFB 003.008\n", &[3, 2, 19, 30, 99][..], 4),
            (b"RFB 003.889\n", &[1, 1], 2),
            (b"RFB 003.007\n", &[1, 2, 99], 2),
            (b"RFB 003.003\n", &[0, 0, 0, 2, 9, 9, 9], 4),
            (b"RFB 003.003\n", &[0, 0, 0, 1], 4),
            (b"RFB 003.005\n", &[0, 0, 0, 17], 4),
        ] {
            let expected = (bytes[..offer].to_vec(), offer);
            assert_eq!(heard(greeting, bytes), Ok(expected), "{greeting:?}");
        }
    }

    #[test]
    fn a_refusal_in_the_place_of_an_offer_is_told_in_the_servers_words_cut_and_made_harmless() {
        let words = [&[0, 0, 2, 0][..], b"in\x1b[2Juse", &[b'!'; 504]].concat();
        for (greeting, start) in [
            (b"RFB 003.008\n", &[0][..]),
            (b"RFB 003.007\n", &[0]),
            (b"RFB 003.003\n", &[0; 4]),
        ] {
            let Err(LoginError::Refused(reason)) = heard(greeting, &[start, &words].concat())
            else {
                panic!("not refused")
            };
            assert!(reason.starts_with("in [2Juse!!"), "{reason}");
            assert_eq!(reason.len(), 200);
            let silent = [start, &[0; 4]].concat();
            let silent = heard(greeting, &silent);
            assert_eq!(silent, Err(LoginError::Refused("no reason given".into())));
            let endless = [start, &[0, 0, 0x10, 1]].concat();
            assert_eq!(heard(greeting, &endless), Err(LoginError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_server_makes_it_panic_or_grow(minor in 0u16..10, bytes: Vec<u8>, password: Option<String>, cut in 1usize..9) {
            let line = format!("RFB 003.{minor:03}\n");
            let greeting = GreetingParser::new().feed(line.as_bytes()).expect("a greeting").0.expect("complete");
            let mut out = Vec::new();
            let mut handshake = ServerHandshake::new(&greeting, password.map(Secret::new), &mut out);
            for chunk in bytes.chunks(cut) {
                if handshake.feed(chunk, &mut out).is_err() { break; }
                prop_assert!(handshake.part.len() <= 4096);
            }
            prop_assert!(out.len() <= 12 + 1 + 16);
        }
    }
}
