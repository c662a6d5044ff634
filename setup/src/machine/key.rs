//! The first-authentication key: typed, pasted, or taken from the credentials that the person chose.

use umbra_protocol::first_auth::{FirstAuthKey, KeyError};
use umbra_protocol::{Fingerprint, Secret};

use super::address::{is_more_than_a_line, pasted};
use super::fingerprint::Comparing;
use super::log_on::LoggingOn;
use super::{At, Machine};
use crate::event::{Effect, Moment, Plan, Reached, Trust};
use crate::view::Tone;

/// Far longer than any key.
const KEY_LINE_MAX: usize = 256;

/// The question for the key.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) reached: Reached,
    pub(super) trust: Trust,
    pub(super) why: Why,
    pub(super) revealed: bool,
}

/// Why the server is trusted, for the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The missing part of this root was right just now.
    Compared(Fingerprint),
    /// It was right before a break.
    Confirmed,
    /// Credentials name this root.
    Credentials,
    /// A public authority vouches for it.
    Authority(String),
}

impl Machine {
    pub(super) fn ask_key(&mut self, trust: Trust, why: Why, reached: Reached) {
        self.go(At::Key(Asking {
            reached,
            trust,
            why,
            revealed: false,
        }));
    }

    pub(super) fn set_key(&mut self, text: &Secret) {
        let texts = self.texts();
        let text = text.reveal();
        self.notice = None;
        let At::Key(asking) = &self.at else {
            return;
        };
        self.kept.key_from_credentials = false;
        if !is_more_than_a_line(text) {
            let cut: String = text
                .trim_matches(['\r', '\n'])
                .chars()
                .take(KEY_LINE_MAX)
                .collect();
            self.kept.key = Secret::new(cut);
            return;
        }
        let Some(found) = pasted(text) else {
            self.kept.key = Secret::new("");
            self.say(Tone::Problem, texts.address_not_pasted);
            return;
        };
        // Credentials of another server hold a key that this one does not know.
        let is_ours = found
            .endpoints
            .iter()
            .any(|endpoint| endpoint.root.is_some() && endpoint.root == asking.reached.root);
        match found.key {
            Some(key) if is_ours => {
                self.kept.key = key;
                self.kept.key_from_credentials = true;
            }
            Some(_) | None => {
                self.kept.key = Secret::new("");
                self.say(Tone::Problem, texts.key_other_server);
            }
        }
    }

    /// On to the server with the key.
    pub(super) fn log_on(&mut self, effects: &mut Vec<Effect>) {
        let At::Key(asking) = &self.at else {
            return;
        };
        let texts = self.texts();
        if let Err(error) = FirstAuthKey::parse(self.kept.key.reveal()) {
            let text = match error {
                KeyError::Empty => texts.key_empty,
                KeyError::TooLong => texts.key_too_long,
                // The last two are for keys that are being chosen; a device takes what it was given.
                KeyError::NotAscii | KeyError::TooShort | KeyError::TooSimple => {
                    texts.key_not_ascii
                }
            };
            self.say(Tone::Problem, text);
            return;
        }
        let plan = Plan {
            address: asking.reached.address.clone(),
            trust: asking.trust,
            key: self.kept.key.clone(),
        };
        let asking = asking.clone();
        self.begin_log_on(asking, plan, effects);
    }

    pub(super) fn begin_log_on(&mut self, asking: Asking, plan: Plan, effects: &mut Vec<Effect>) {
        let job = self.job();
        self.go(At::LogOn(LoggingOn::new(job, asking)));
        effects.push(Effect::LogOn { job, plan });
    }

    /// Back to where the trust came from: to the comparison where there was one, otherwise to the address.
    pub(super) fn back_from_key(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let At::Key(asking) = &self.at else {
            return;
        };
        match asking.why {
            Why::Compared(root) => {
                let reached = asking.reached.clone();
                self.kept.confirmed = None;
                let missing = self.missing_part(root);
                self.go(At::Fingerprint(Comparing::new(reached, root, missing)));
                effects.push(Effect::Store(self.progress()));
            }
            Why::Confirmed | Why::Credentials | Why::Authority(_) => {
                self.back_to_address(now, effects);
            }
        }
    }
}
