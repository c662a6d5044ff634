//! Recognises the version line `RFB xxx.yyy\n` that a VNC server and its viewer send first, however its bytes are sliced.
//! It never waits and never reads on: the thirteenth byte isn't its business.

use crate::rfb;

/// What the peers speak after their version lines: the three dialects that exist (RFC 6143, section 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// 3.3, and every version that isn't one of the two below.
    V3_3,
    /// 3.7.
    V3_7,
    /// 3.8, and everything that claims to be newer.
    V3_8,
}

/// A complete version line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The line as received.
    pub line: [u8; rfb::GREETING_LEN],
    /// The part before the dot.
    pub major: u16,
    /// The part after it.
    pub minor: u16,
}

impl Greeting {
    /// The dialect in which to go on with this peer.
    pub fn dialect(&self) -> Dialect {
        match (self.major, self.minor) {
            (3, 7) => Dialect::V3_7,
            (3, minor) if minor >= 8 => Dialect::V3_8,
            (major, _) if major > 3 => Dialect::V3_8,
            _ => Dialect::V3_3,
        }
    }

    /// The version line with which this peer is answered.
    pub fn answer(&self) -> &'static [u8; rfb::GREETING_LEN] {
        match self.dialect() {
            Dialect::V3_3 => rfb::GREETING_3_3,
            Dialect::V3_7 => rfb::GREETING_3_7,
            Dialect::V3_8 => rfb::GREETING_3_8,
        }
    }
}

/// The bytes are not the beginning of a version line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first bytes are not an RFB version line")]
pub struct NotRfb;

/// Takes the version line byte by byte.
#[derive(Clone, Debug, Default)]
pub struct GreetingParser {
    line: [u8; rfb::GREETING_LEN],
    len: usize,
}

impl GreetingParser {
    /// Waits for the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes are still missing.
    pub fn missing(&self) -> usize {
        rfb::GREETING_LEN - self.len
    }

    /// Takes one byte; tells a stranger by the first byte that doesn't fit. A finished parser begins anew.
    pub fn push(&mut self, byte: u8) -> Result<Option<Greeting>, NotRfb> {
        let fits = match self.len {
            0..=3 => byte == b"RFB "[self.len],
            7 => byte == b'.',
            11 => byte == b'\n',
            _ => byte.is_ascii_digit(),
        };
        if !fits {
            return Err(NotRfb);
        }
        self.line[self.len] = byte;
        self.len += 1;
        if self.len < rfb::GREETING_LEN {
            return Ok(None);
        }
        self.len = 0;
        let number = |digits: &[u8]| {
            digits
                .iter()
                .fold(0u16, |n, d| n * 10 + u16::from(d - b'0'))
        };
        Ok(Some(Greeting {
            line: self.line,
            major: number(&self.line[4..7]),
            minor: number(&self.line[8..11]),
        }))
    }

    /// Takes bytes up to the end of the line; returns the greeting, once complete, and how many bytes belonged to it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(Option<Greeting>, usize), NotRfb> {
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(greeting) = self.push(*byte)? {
                return Ok((Some(greeting), index + 1));
            }
        }
        Ok((None, bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn greeting(line: &[u8]) -> Greeting {
        GreetingParser::new()
            .feed(line)
            .expect("a greeting")
            .0
            .expect("complete")
    }

    #[test]
    fn known_and_odd_versions_map_to_the_three_dialects() {
        assert_eq!(greeting(b"RFB 003.003\n").dialect(), Dialect::V3_3);
        assert_eq!(greeting(b"RFB 003.005\n").dialect(), Dialect::V3_3);
        assert_eq!(greeting(b"RFB 003.007\n").dialect(), Dialect::V3_7);
        assert_eq!(greeting(b"RFB 003.008\n").dialect(), Dialect::V3_8);
        assert_eq!(greeting(b"RFB 003.889\n").dialect(), Dialect::V3_8);
        assert_eq!(greeting(b"RFB 005.000\n").dialect(), Dialect::V3_8);
        assert_eq!(greeting(b"RFB 000.000\n").dialect(), Dialect::V3_3);
    }

    #[test]
    fn what_is_not_rfb_is_refused_at_the_first_wrong_byte() {
        for wrong in [
            &b"H"[..],
            b"RFB_",
            b"RFB 003,",
            b"RFB 003.0x",
            b"RFB 003.008\r",
        ] {
            assert_eq!(GreetingParser::new().feed(wrong), Err(NotRfb), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn slicing_never_changes_the_greeting(major in 0u16..1000, minor in 0u16..1000, rest: Vec<u8>, cut in 1usize..13) {
            let mut bytes = format!("RFB {major:03}.{minor:03}\n").into_bytes();
            bytes.extend_from_slice(&rest);
            let mut parser = GreetingParser::new();
            let mut found = None;
            let mut used = 0;
            for chunk in bytes.chunks(cut) {
                let (greeting, taken) = parser.feed(chunk).expect("well formed");
                used += taken;
                if greeting.is_some() {
                    found = greeting;
                    break;
                }
            }
            let found = found.expect("complete");
            prop_assert_eq!((found.major, found.minor, used), (major, minor, rfb::GREETING_LEN));
        }
    }
}
