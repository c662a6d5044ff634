//! Whether it is the right server: three parts of the root's fingerprint are shown, and the missing one is asked for. It stays the
//! same one for a root, so that trying again never shows what is asked.

use std::time::Duration;

use umbra_protocol::{Fingerprint, Secret};

use super::address::{is_more_than_a_line, pasted};
use super::{At, Machine, clipped, key};
use crate::event::{Effect, Moment, Reached, Trust};
use crate::view::Tone;

/// So many wrong parts are free.
pub(super) const FREE: u32 = 3;
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
const PART: usize = 16;

/// The comparison.
#[derive(Debug)]
pub(super) struct Comparing {
    pub(super) reached: Reached,
    pub(super) root: Fingerprint,
    /// Which part is missing, 0 to 3.
    pub(super) missing: usize,
    pub(super) typed: String,
}

impl Comparing {
    pub(super) fn new(reached: Reached, root: Fingerprint, missing: usize) -> Self {
        Self {
            reached,
            root,
            missing,
            typed: String::new(),
        }
    }
}

/// How long the next try has to wait after so many wrong ones.
pub(super) fn pause(wrong: u32) -> Duration {
    match wrong.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => PAUSE
            .saturating_mul(1_u32.checked_shl(more.min(16)).unwrap_or(u32::MAX))
            .min(PAUSE_MAX),
    }
}

impl Machine {
    /// Which part of this root is asked for.
    pub(super) fn missing_part(&mut self, root: Fingerprint) -> usize {
        if let Some((asked, part)) = self.kept.asked
            && asked == root
        {
            return part;
        }
        // Each root gets a part of its own, and nobody outside knows which.
        let mixed = root.as_bytes().iter().fold(self.kept.seed, |mixed, byte| {
            (mixed ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let part = usize::try_from((mixed >> 32) & 3).unwrap_or(0);
        self.kept.asked = Some((root, part));
        part
    }

    /// What is in the line now: a part, a whole fingerprint, or a whole text of credentials that was pasted there.
    pub(super) fn set_part(&mut self, text: &Secret, now: Moment) {
        let texts = self.texts();
        let At::Fingerprint(comparing) = &mut self.at else {
            return;
        };
        // While a pause lasts its notice stays.
        if now >= self.kept.allowed_at {
            self.notice = None;
        }
        let text = text.reveal();
        // Parts may stand below each other; anything else with several lines may hold a key, which nobody is to see.
        let is_fingerprint = normal(text).bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_fingerprint || !is_more_than_a_line(text) {
            comparing.typed = clipped(text);
            return;
        }
        let named = pasted(text).and_then(|found| {
            let roots: Vec<Fingerprint> =
                found.endpoints.iter().filter_map(|one| one.root).collect();
            let same = roots.iter().find(|root| **root == comparing.root);
            same.or(roots.first()).copied()
        });
        comparing.typed = named.map_or_else(String::new, |root| root.to_string());
        if named.is_none() {
            self.say(Tone::Problem, texts.address_not_pasted);
        }
    }

    /// The person has typed a part.
    pub(super) fn compare(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if now < self.kept.allowed_at {
            return;
        }
        let texts = self.texts();
        let At::Fingerprint(comparing) = &mut self.at else {
            return;
        };
        let parts = comparing.root.parts();
        let typed = normal(&comparing.typed);
        let part = (comparing.missing + 1).to_string();
        let is_hexadecimal = typed.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_whole = typed.len() == PART * 4 && is_hexadecimal;
        if !is_whole && (typed.len() != PART || !is_hexadecimal) {
            let count = typed.chars().count().to_string();
            let text = self.filled(texts.fingerprint_not_a_part, &[("count", &count)]);
            self.say(Tone::Problem, &text);
            return;
        }
        if typed == parts[comparing.missing] || (is_whole && typed == parts.concat()) {
            let (reached, root) = (comparing.reached.clone(), comparing.root);
            self.kept.confirmed = Some(root);
            self.kept.wrong = 0;
            self.kept.allowed_at = Moment::ZERO;
            self.ask_key(Trust::Fingerprint(root), key::Why::Compared(root), reached);
            self.say(Tone::Good, texts.fingerprint_right);
            effects.push(Effect::Store(self.progress()));
            return;
        }
        if let Some(other) = parts.iter().position(|shown| *shown == typed) {
            let other = (other + 1).to_string();
            let text = self.filled(
                texts.fingerprint_other_part,
                &[("other", &other), ("part", &part)],
            );
            self.say(Tone::Problem, &text);
            return;
        }
        self.kept.wrong = self.kept.wrong.saturating_add(1);
        let pause = pause(self.kept.wrong);
        self.kept.allowed_at = now + pause;
        self.kept.pausing = pause > Duration::ZERO;
        if pause > Duration::ZERO {
            // The seconds are counted by the screen.
            self.notice = None;
        } else {
            let text = self.filled(texts.fingerprint_wrong, &[("part", &part)]);
            self.say(Tone::Problem, &text);
        }
        effects.push(Effect::Store(self.progress()));
    }
}

/// As it is compared: without what people put between, in capitals, and with what looks like a digit as that digit.
fn normal(typed: &str) -> String {
    typed
        .chars()
        .filter(|character| {
            !character.is_whitespace() && !matches!(character, ':' | '-' | '–' | '.')
        })
        .map(|character| match character.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}
