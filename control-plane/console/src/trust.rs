//! The one question that makes a stranger's server ours: whether its root certificate is the one that the administrator
//! means. A person compares three parts of the fingerprint and types the fourth, so that nobody can just say yes.

use umbra_protocol::Fingerprint;

/// How often a person may mistype.
pub const ATTEMPTS: usize = 3;

/// Three parts of a fingerprint shown, one asked.
#[derive(Clone, Debug)]
pub struct PartQuestion {
    parts: [String; 4],
    asked: usize,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the missing part.
    Right,
    /// It is a part, but another one.
    Wrong,
    /// It is no part of a fingerprint.
    NotAPart,
}

impl PartQuestion {
    /// Asks for one part of four, counted from 0.
    pub fn new(fingerprint: &Fingerprint, asked: usize) -> Self {
        Self {
            parts: fingerprint.parts(),
            asked: asked % 4,
        }
    }

    /// The lines to show.
    pub fn text(&self) -> String {
        let mut text = String::from("Root certificate fingerprint of this server:\n");
        for (index, part) in self.parts.iter().enumerate() {
            let shown = if index == self.asked {
                "????????????????"
            } else {
                part
            };
            text.push_str(&format!("  Part {}: {shown}\n", index + 1));
        }
        text.push_str(
            "Compare with the fingerprint that the server's administrator gave to you.\n",
        );
        text
    }

    /// The question itself.
    pub fn prompt(&self) -> String {
        format!(
            "Type the missing part {} (16 digits and letters A-F): ",
            self.asked + 1
        )
    }

    /// Judges an answer; case, spaces and dashes make no difference.
    pub fn judge(&self, answer: &str) -> Verdict {
        let answer: String = answer
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .collect();
        if answer.len() != 16 || !answer.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Verdict::NotAPart;
        }
        if answer.eq_ignore_ascii_case(&self.parts[self.asked]) {
            Verdict::Right
        } else {
            Verdict::Wrong
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint() -> Fingerprint {
        "00112233445566AA-8899AABBCCDDEEFF-0123456789ABCDEF-FEDCBA9876543210"
            .parse()
            .expect("a fingerprint")
    }

    #[test]
    fn the_part_that_is_asked_for_is_the_only_one_not_shown() {
        for asked in 0..4 {
            let question = PartQuestion::new(&fingerprint(), asked);
            let text = question.text();
            for (index, part) in fingerprint().parts().iter().enumerate() {
                assert_eq!(text.contains(part.as_str()), index != asked);
            }
            assert!(question.prompt().contains(&format!("part {}", asked + 1)));
        }
    }

    #[test]
    fn only_the_missing_part_is_right() {
        let question = PartQuestion::new(&fingerprint(), 1);
        for right in [
            "8899AABBCCDDEEFF",
            "8899aabbccddeeff\n",
            " 8899 AABB CCDD EEFF",
            "8899-AABB-CCDD-EEFF",
        ] {
            assert_eq!(question.judge(right), Verdict::Right, "{right:?}");
        }
        assert_eq!(question.judge("00112233445566AA"), Verdict::Wrong);
        for no_part in [
            "",
            "yes",
            "8899AABBCCDDEEF",
            "8899AABBCCDDEEFFF",
            "8899AABBCCDDEEFG",
            "８899AABBCCDDEEF",
        ] {
            assert_eq!(question.judge(no_part), Verdict::NotAPart, "{no_part:?}");
        }
    }
}
