//! Whether the server can be reached, stage by stage, and what is known of it afterwards. Of several ways in, each is tried until
//! one works.

use super::fingerprint::Comparing;
use super::{At, Machine, key};
use crate::event::{Address, Effect, Job, Reached, Stage, Trust};
use crate::report::Report;
use crate::text::printable;
use crate::view::{State, Tone};

/// The check.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) job: Job,
    /// Which of the ways in.
    pub(super) index: usize,
    pub(super) lines: [Line; Stage::ALL.len()],
    /// What was wrong with those before.
    pub(super) failures: Vec<(Address, String)>,
    pub(super) result: Option<Result<Reached, ()>>,
}

/// One stage.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) state: State,
    pub(super) sentence: String,
    /// Whether the sentence is in the person's language.
    pub(super) ours: bool,
}

fn lines() -> [Line; Stage::ALL.len()] {
    std::array::from_fn(|_| Line {
        state: State::Waiting,
        sentence: String::new(),
        ours: false,
    })
}

impl Check {
    pub(super) fn note(&mut self, job: Job, stage: Stage, state: State, said: (String, bool)) {
        if self.job == job
            && self.result.is_none()
            && let Some(at) = Stage::ALL.iter().position(|known| *known == stage)
        {
            self.lines[at] = Line {
                state,
                sentence: said.0,
                ours: said.1,
            };
        }
    }
}

impl Machine {
    /// Begins with the first way in.
    pub(super) fn start_check(&mut self, effects: &mut Vec<Effect>) {
        self.check_next(0, Vec::new(), effects);
        effects.push(Effect::Store(self.progress()));
    }

    fn check_next(
        &mut self,
        index: usize,
        failures: Vec<(Address, String)>,
        effects: &mut Vec<Effect>,
    ) {
        let job = self.job();
        let Some(endpoint) = self.kept.endpoints.get(index).cloned() else {
            return;
        };
        let check = Check {
            job,
            index,
            lines: lines(),
            failures,
            result: None,
        };
        // A question about leaving stays where the ways in are tried one after another.
        let leaving = self.leaving;
        self.go(At::Check(check));
        self.leaving = leaving;
        effects.push(Effect::Check { job, endpoint });
    }

    pub(super) fn reached(&mut self, job: Job, reached: Reached, effects: &mut Vec<Effect>) {
        let texts = self.texts();
        let At::Check(check) = &mut self.at else {
            return;
        };
        if check.job != job || check.result.is_some() {
            return;
        }
        let named = self
            .kept
            .endpoints
            .get(check.index)
            .and_then(|endpoint| endpoint.root);
        if named.is_some_and(|root| Some(root) != reached.root) {
            let sentence = crate::text::fill(
                texts.check_wrong_root,
                &[("address", &reached.address.to_string())],
            );
            check.note(job, Stage::Chain, State::Failed, (sentence.clone(), true));
            self.failed(sentence, effects);
            return;
        }
        for line in &mut check.lines {
            if line.state == State::Running {
                line.state = State::Good;
            }
        }
        let others = others(&check.failures);
        let next = if named.is_some() {
            Some(texts.key_trust_credentials)
        } else if reached.root.is_some() && self.kept.confirmed == reached.root {
            Some(texts.key_trust_confirmed)
        } else if reached.public_ca.is_some() && !self.kept.require_fingerprint {
            None
        } else {
            reached.root.map(|_| texts.check_compare)
        };
        check.result = Some(Ok(reached));
        let (tone, mut text) = match others.is_empty() {
            true => (Tone::Good, texts.check_good.to_owned()),
            false => {
                let values = [("others", others.as_str())];
                let text = crate::text::fill(texts.check_good_after, &values);
                (Tone::Warning, text)
            }
        };
        if let Some(next) = next {
            text = format!("{text} {next}");
        }
        self.say(tone, &text);
    }

    pub(super) fn not_reached(&mut self, job: Job, said: &Report, effects: &mut Vec<Effect>) {
        let (sentence, ours) = said.shown(self.language);
        if let At::Check(check) = &mut self.at
            && check.job == job
            && check.result.is_none()
        {
            // Whatever was under way is what failed.
            for line in &mut check.lines {
                if line.state == State::Running {
                    line.state = State::Failed;
                    if line.sentence.is_empty() || ours {
                        line.sentence.clone_from(&sentence);
                        line.ours = ours;
                    }
                }
            }
            self.failed(sentence, effects);
        }
    }

    /// This way in did not work: on to the next, or to the person.
    fn failed(&mut self, sentence: String, effects: &mut Vec<Effect>) {
        let texts = self.texts();
        let At::Check(check) = &mut self.at else {
            return;
        };
        let mut failures = std::mem::take(&mut check.failures);
        if let Some(endpoint) = self.kept.endpoints.get(check.index) {
            failures.push((endpoint.address.clone(), sentence.clone()));
        }
        let next = check.index + 1;
        if next < self.kept.endpoints.len() {
            self.check_next(next, failures, effects);
            return;
        }
        let is_marked = check.lines.iter().any(|line| line.state == State::Failed);
        let text = match failures.len() {
            0 | 1 if is_marked => texts.check_failed.to_owned(),
            0 | 1 => sentence,
            _ => crate::text::fill(texts.check_failed_all, &[("others", &others(&failures))]),
        };
        check.failures = failures;
        check.result = Some(Err(()));
        self.say(Tone::Problem, &text);
    }

    /// On to the fingerprint, or to the key where nothing needs to be compared.
    pub(super) fn after_check(&mut self, effects: &mut Vec<Effect>) {
        let At::Check(check) = &self.at else {
            return;
        };
        let Some(Ok(reached)) = check.result.clone() else {
            return;
        };
        let named = self
            .kept
            .endpoints
            .get(check.index)
            .and_then(|endpoint| endpoint.root);
        let by_root = reached.root.and_then(|root| {
            if self.kept.confirmed == Some(root) {
                Some((root, key::Why::Confirmed))
            } else {
                (named == Some(root)).then_some((root, key::Why::Credentials))
            }
        });
        if let Some((root, why)) = by_root {
            self.ask_key(Trust::Fingerprint(root), why, reached);
        } else if let Some(authority) = reached.public_ca.clone()
            && !self.kept.require_fingerprint
        {
            self.ask_key(
                Trust::PublicCa,
                key::Why::Authority(printable(&authority)),
                reached,
            );
        } else if let Some(root) = reached.root {
            let missing = self.missing_part(root);
            self.go(At::Fingerprint(Comparing::new(reached, root, missing)));
        } else {
            let text = self.texts().check_no_root;
            self.say(Tone::Problem, text);
            return;
        }
        effects.push(Effect::Store(self.progress()));
    }
}

/// What was wrong with several, one after another.
fn others(failures: &[(Address, String)]) -> String {
    let told: Vec<String> = failures
        .iter()
        .map(|(address, sentence)| format!("{address}: {sentence}"))
        .collect();
    printable(&told.join(" "))
}
