//! The server's half of the RFB handshake, played toward the viewer: we offer 3.8 with no authentication of its own, because who
//! may look was settled before. Pure: bytes in, bytes out. A viewer that chooses what was not offered is turned away.

use crate::greeting::{Dialect, Greeting, GreetingParser};
use crate::preface::{LEGACY_ENDING_MAX, is_legacy_ending};
use crate::rfb::{self, result, security};

/// The viewer broke the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewerError {
    /// It doesn't speak RFB.
    #[error("the viewer's first bytes are not an RFB version line")]
    NotRfb,
    /// It chose a security type that was not offered.
    #[error("the viewer chose security type {0}, which was not offered")]
    NotOffered(u8),
}

/// The viewer's version line.
#[derive(Debug)]
pub struct ViewerLine {
    parser: GreetingParser,
    ending_left: u8,
}

impl ViewerLine {
    /// Waits for its first byte. After a preface of the existing field, the line ending that may follow it is swallowed.
    pub fn new(after_legacy_preface: bool) -> Self {
        let ending_left = if after_legacy_preface {
            LEGACY_ENDING_MAX
        } else {
            0
        };
        Self {
            parser: GreetingParser::new(),
            ending_left,
        }
    }

    /// Takes one byte; the line once it is complete.
    pub fn push(&mut self, byte: u8) -> Result<Option<Greeting>, ViewerError> {
        if self.ending_left > 0 {
            if is_legacy_ending(byte) {
                self.ending_left -= 1;
                return Ok(None);
            }
            self.ending_left = 0;
        }
        self.parser.push(byte).map_err(|_| ViewerError::NotRfb)
    }
}

#[derive(Debug)]
enum State {
    Version(ViewerLine),
    Choice(Dialect),
    Done,
}

/// The handshake from our greeting to the end of the security phase.
#[derive(Debug)]
pub struct ViewerHandshake {
    state: State,
}

impl ViewerHandshake {
    /// Greets into `out`. After a preface of the existing field, the line ending that may follow it is swallowed.
    pub fn new(after_legacy_preface: bool, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(rfb::GREETING_3_8);
        Self {
            state: State::Version(ViewerLine::new(after_legacy_preface)),
        }
    }

    /// Whether ClientInit comes next.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes one byte and puts answers, also to a viewer that is turned away, into `out`.
    pub fn push(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), ViewerError> {
        match &mut self.state {
            State::Version(line) => {
                if let Some(greeting) = line.push(byte)? {
                    self.state = offer(greeting.dialect(), out);
                }
                Ok(())
            }
            State::Choice(dialect) => {
                let dialect = *dialect;
                if byte != security::NONE {
                    if dialect == Dialect::V3_8 {
                        let reason = b"This type was not offered.";
                        out.extend_from_slice(&result::FAILED.to_be_bytes());
                        out.extend_from_slice(&(reason.len() as u32).to_be_bytes());
                        out.extend_from_slice(reason);
                    }
                    return Err(ViewerError::NotOffered(byte));
                }
                if dialect == Dialect::V3_8 {
                    out.extend_from_slice(&result::OK.to_be_bytes());
                }
                self.state = State::Done;
                Ok(())
            }
            State::Done => Ok(()),
        }
    }
}

fn offer(dialect: Dialect, out: &mut Vec<u8>) -> State {
    match dialect {
        Dialect::V3_3 => {
            out.extend_from_slice(&u32::from(security::NONE).to_be_bytes());
            State::Done
        }
        Dialect::V3_7 | Dialect::V3_8 => {
            out.extend_from_slice(&[1, security::NONE]);
            State::Choice(dialect)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(bytes: &[u8], legacy: bool) -> (Result<(), ViewerError>, Vec<u8>, bool) {
        let mut out = Vec::new();
        let mut handshake = ViewerHandshake::new(legacy, &mut out);
        let result = bytes
            .iter()
            .try_for_each(|byte| handshake.push(*byte, &mut out));
        (result, out.split_off(12), handshake.is_done())
    }

    #[test]
    fn each_dialect_gets_what_it_expects() {
        assert_eq!(
            play(b"RFB 003.008\n\x01", false),
            (Ok(()), vec![1, 1, 0, 0, 0, 0], true)
        );
        assert_eq!(
            play(b"RFB 003.007\n\x01", false),
            (Ok(()), vec![1, 1], true)
        );
        assert_eq!(
            play(b"RFB 003.003\n", false),
            (Ok(()), vec![0, 0, 0, 1], true)
        );
    }

    #[test]
    fn a_type_that_was_not_offered_is_turned_away() {
        for wrong in [0, 2, 255] {
            let (result, out, done) =
                play(&[b"RFB 003.008\n".as_slice(), &[wrong]].concat(), false);
            assert_eq!((result, done), (Err(ViewerError::NotOffered(wrong)), false));
            assert_eq!(out[..6], [1, 1, 0, 0, 0, 1]);
        }
    }

    #[test]
    fn a_line_ending_is_swallowed_only_after_a_legacy_preface_and_only_a_few_bytes_of_it() {
        assert!(play(b"\r\n\0RFB 003.008\n\x01", true).2);
        assert_eq!(play(b"\r\n\0\0RFB", true).0, Err(ViewerError::NotRfb));
        assert_eq!(play(b"\nRFB", false).0, Err(ViewerError::NotRfb));
    }
}
