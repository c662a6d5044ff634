//! What the device's end answers to a preface of ours: any number of `wait` lines, then exactly one `ok` or `refused`. Sentences
//! are shown to people in terminals, so control and direction-changing characters neither leave nor enter.

use crate::text::{is_shown, one_line};

/// The longest answer line, its line feed included.
pub const ANSWER_MAX: usize = 1024;
/// The longest code of a refusal.
pub const CODE_MAX: usize = 40;

const OK: &str = "UMBRA/1 ok";
const WAIT: &str = "UMBRA/1 wait ";
const REFUSED: &str = "UMBRA/1 refused ";

/// One line of answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not yet; the sentence says what is being waited for.
    Wait(String),
    /// RFB follows.
    Ok,
    /// The device closes.
    Refused {
        /// Stable code, `[a-z_]{1,40}`.
        code: String,
        /// What happened, for the operator.
        sentence: String,
    },
}

/// The device's end said something that is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device's answer can't be understood")]
pub struct BadAnswer;

impl Answer {
    /// The line on the wire. Sentences are cleaned and cut so that every line parses at the other end.
    pub fn to_line(&self) -> Vec<u8> {
        let line = match self {
            Self::Wait(sentence) => format!("{WAIT}{sentence}"),
            Self::Ok => OK.to_owned(),
            Self::Refused { code, sentence } => {
                let code = if is_code(code) { code } else { "refused" };
                format!("{REFUSED}{code} {sentence}")
            }
        };
        let mut line = one_line(&line, ANSWER_MAX - 1).into_bytes();
        line.push(b'\n');
        line
    }

    fn parse(line: &[u8]) -> Result<Self, BadAnswer> {
        let line = std::str::from_utf8(line).map_err(|_| BadAnswer)?;
        if !line.chars().all(is_shown) {
            return Err(BadAnswer);
        }
        if line == OK {
            return Ok(Self::Ok);
        }
        if let Some(sentence) = line.strip_prefix(WAIT) {
            return Ok(Self::Wait(sentence.to_owned()));
        }
        let (code, sentence) = line
            .strip_prefix(REFUSED)
            .and_then(|rest| rest.split_once(' '))
            .ok_or(BadAnswer)?;
        if !is_code(code) {
            return Err(BadAnswer);
        }
        Ok(Self::Refused {
            code: code.to_owned(),
            sentence: sentence.to_owned(),
        })
    }
}

fn is_code(code: &str) -> bool {
    (1..=CODE_MAX).contains(&code.len())
        && code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Takes answer lines byte by byte.
#[derive(Debug, Default)]
pub struct AnswerParser {
    line: Vec<u8>,
}

impl AnswerParser {
    /// Waits for the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one byte; a finished line leaves the parser ready for the next.
    pub fn push(&mut self, byte: u8) -> Result<Option<Answer>, BadAnswer> {
        if byte == b'\n' {
            let answer = Answer::parse(&self.line)?;
            self.line.clear();
            return Ok(Some(answer));
        }
        if self.line.len() == ANSWER_MAX - 1 {
            return Err(BadAnswer);
        }
        self.line.push(byte);
        // Whoever isn't a device is told by the first wrong byte, not after a kilobyte.
        let word = OK.len().min(8);
        if self.line.len() <= word && !OK.as_bytes().starts_with(&self.line) {
            return Err(BadAnswer);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Vec<Answer>, BadAnswer> {
        let mut parser = AnswerParser::new();
        let mut answers = Vec::new();
        for byte in bytes {
            answers.extend(parser.push(*byte)?);
        }
        Ok(answers)
    }

    #[test]
    fn the_three_answers_have_exactly_these_lines() {
        assert_eq!(Answer::Ok.to_line(), b"UMBRA/1 ok\n");
        assert_eq!(
            Answer::Wait("Asking.".into()).to_line(),
            b"UMBRA/1 wait Asking.\n"
        );
        let refused = Answer::Refused {
            code: "no_consent".into(),
            sentence: "The user said no.".into(),
        };
        assert_eq!(
            refused.to_line(),
            b"UMBRA/1 refused no_consent The user said no.\n"
        );
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for wrong in [
            &b"\n"[..],
            b"RFB 003.008\n",
            b"UMBRA/1 okay\n",
            b"UMBRA/1 ok\r\n",
            b"UMBRA/1 refused\n",
            b"UMBRA/1 refused CODE x\n",
            b"UMBRA/1 wait \x1b[2J\n",
            b"UMBRA/1 wait \xff\n",
            "UMBRA/1 wait \u{202e}\n".as_bytes(),
        ] {
            assert_eq!(parse(wrong), Err(BadAnswer), "{wrong:?}");
        }
        assert_eq!(
            parse(&[b"UMBRA/1 wait ".as_slice(), &[b'a'; ANSWER_MAX]].concat()),
            Err(BadAnswer)
        );
    }

    proptest! {
        #[test]
        fn every_sentence_arrives_as_one_line_within_the_bound(code: String, sentence: String, many in 1usize..40) {
            let sentence = sentence.repeat(many);
            for answer in [Answer::Wait(sentence.clone()), Answer::Refused { code: code.clone(), sentence: sentence.clone() }] {
                let line = answer.to_line();
                prop_assert!(line.len() <= ANSWER_MAX);
                let answers = parse(&line).expect("parses");
                prop_assert_eq!(answers.len(), 1);
            }
        }

        #[test]
        fn plain_sentences_arrive_unchanged(code in "[a-z_]{1,40}", sentence in "[ -~äöüß€]{0,200}") {
            let answer = Answer::Refused { code, sentence };
            prop_assert_eq!(parse(&answer.to_line()), Ok(vec![answer]));
        }

        #[test]
        fn arbitrary_bytes_never_make_it_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
