//! Being taken on by the server. While that runs nothing is given up: the server may have taken the device on already, and a
//! one-time key works once.

use super::key;
use super::{At, Machine};
use crate::event::{Again, Effect, Job, LogOnStage, Plan, TakenOn};
use crate::report::Report;
use crate::text::printable;
use crate::view::{State, Tone};
use umbra_protocol::Secret;

/// Logging on.
#[derive(Debug)]
pub(super) struct LoggingOn {
    pub(super) job: Job,
    /// Where to go back to.
    pub(super) asking: key::Asking,
    pub(super) lines: [State; LogOnStage::ALL.len()],
    /// What helps, once it did not work.
    pub(super) refused: Option<Again>,
}

impl LoggingOn {
    pub(super) fn new(job: Job, asking: key::Asking) -> Self {
        let mut lines = [State::Waiting; LogOnStage::ALL.len()];
        lines[0] = State::Running;
        Self {
            job,
            asking,
            lines,
            refused: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.refused.is_none()
    }

    /// A stage has begun: those before are done.
    pub(super) fn begin(&mut self, job: Job, stage: LogOnStage) {
        if self.job != job || self.refused.is_some() {
            return;
        }
        for (line, known) in self.lines.iter_mut().zip(LogOnStage::ALL) {
            match known.cmp(&stage) {
                std::cmp::Ordering::Less => *line = State::Good,
                std::cmp::Ordering::Equal => *line = State::Running,
                std::cmp::Ordering::Greater => {}
            }
        }
    }
}

impl Machine {
    pub(super) fn logged_on(&mut self, job: Job, taken: TakenOn, effects: &mut Vec<Effect>) {
        let At::LogOn(logging_on) = &self.at else {
            return;
        };
        if logging_on.job != job || logging_on.refused.is_some() {
            return;
        }
        let authority = match &logging_on.asking.why {
            key::Why::Authority(name) => Some(name.clone()),
            key::Why::Compared(_) | key::Why::Confirmed | key::Why::Credentials => None,
        };
        let trust = logging_on.asking.trust;
        self.kept.key = Secret::new("");
        self.kept.found.clear();
        self.kept.chosen = None;
        let taken = TakenOn {
            device_name: printable(&taken.device_name),
            ..taken
        };
        self.go(At::Ready {
            taken,
            trust,
            authority,
        });
        effects.push(Effect::Forget);
    }

    pub(super) fn refused(&mut self, job: Job, said: &Report, again: Again) {
        let texts = self.texts();
        let (sentence, ours) = said.shown(self.language);
        let At::LogOn(logging_on) = &mut self.at else {
            return;
        };
        if logging_on.job != job || logging_on.refused.is_some() {
            return;
        }
        for line in &mut logging_on.lines {
            if *line == State::Running {
                *line = State::Failed;
            }
        }
        logging_on.refused = Some(again);
        let template = match ours {
            true => texts.log_on_refused,
            false => texts.log_on_refused_foreign,
        };
        let text = self.filled(template, &[("sentence", &sentence)]);
        self.say(Tone::Problem, &text);
    }

    pub(super) fn log_on_again(&mut self, effects: &mut Vec<Effect>) {
        let At::LogOn(logging_on) = &self.at else {
            return;
        };
        let asking = logging_on.asking.clone();
        let plan = Plan {
            address: asking.reached.address.clone(),
            trust: asking.trust,
            key: self.kept.key.clone(),
        };
        self.begin_log_on(asking, plan, effects);
    }

    pub(super) fn back_to_key(&mut self) {
        let At::LogOn(logging_on) = &self.at else {
            return;
        };
        let asking = logging_on.asking.clone();
        self.go(At::Key(asking));
    }
}
