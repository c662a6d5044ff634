//! The assistant itself. It is told what the person did and what the device found, and answers with what is to be done; what is
//! shown can be asked for at any time. It must never apply what it found unasked, never show or keep a key that the person did
//! not ask to see, and never let a wrong part of a fingerprint pass for the right one.

mod address;
mod check;
mod fingerprint;
mod key;
mod log_on;
#[cfg(test)]
mod properties;
mod screens;
#[cfg(test)]
mod tests;

use std::time::Duration;

use umbra_protocol::{Fingerprint, Secret};

use crate::catalogue::{Catalogue, Language};
use crate::event::{
    Address, Effect, Endpoint, Event, Found, Job, Moment, Outcome, Progress, Source, Start,
    TakenOn, Trust,
};
use crate::view::{Input, Tone, View};

/// The form of [`Progress`] that is written.
pub const PROGRESS_VERSION: u32 = 1;
/// How often removable media are looked at while an address is asked for.
pub const STICKS_EVERY: Duration = Duration::from_secs(3);
/// The most proposals of one kind that are shown.
const FOUND_MAX: usize = 16;
/// The longest line that is kept as an address or as a part.
const LINE_MAX: usize = 512;
/// The longest text that is looked at, wherever it was pasted.
const PASTE_MAX: usize = umbra_protocol::credentials::FILE_MAX;

/// The assistant.
#[derive(Debug)]
pub struct Machine {
    language: Language,
    kept: Kept,
    at: At,
    /// Whether the person is being asked about leaving; everything goes on behind that question.
    leaving: bool,
    notice: Option<(Tone, String)>,
    last_job: u32,
}

/// What a person entered and decided, whichever step it is.
#[derive(Debug)]
struct Kept {
    /// What is typed as the address.
    typed: String,
    /// Proposals, from around the device, from mail domains, from sticks and from the clipboard.
    found: Vec<Found>,
    /// The proposal that is chosen, if not what is typed.
    chosen: Option<Found>,
    /// Whether the surroundings were searched.
    searched: bool,
    /// The ways in of the chosen server.
    endpoints: Vec<Endpoint>,
    /// The key, as it was entered.
    key: Secret,
    /// Whether the key came with credentials.
    key_from_credentials: bool,
    confirmed: Option<Fingerprint>,
    asked: Option<(Fingerprint, usize)>,
    wrong: u32,
    /// When the next part may be tried.
    allowed_at: Moment,
    /// Whether the end of that pause is still to be told.
    pausing: bool,
    /// Whether a public authority is not enough.
    require_fingerprint: bool,
    /// Decides which part is missing.
    seed: u64,
}

/// Where the assistant is, with what holds only there.
#[derive(Debug)]
enum At {
    Language,
    Address(address::Asking),
    Check(check::Check),
    Fingerprint(fingerprint::Comparing),
    Key(key::Asking),
    LogOn(log_on::LoggingOn),
    Ready {
        taken: TakenOn,
        trust: Trust,
        authority: Option<String>,
    },
    Belongs {
        address: Address,
    },
    Taken {
        who: String,
    },
    Over,
}

/// What the machine is built from, beside where it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Ask for the fingerprint even where a public authority vouches for the server.
    pub require_fingerprint: bool,
    /// A random number: it decides which part of a fingerprint is asked for.
    pub seed: u64,
}

impl Machine {
    /// An assistant that begins there, and what is to be done first.
    pub fn new(start: Start, rules: Rules, now: Moment) -> (Self, Vec<Effect>) {
        let mut machine = Self {
            language: Language::En,
            kept: Kept {
                typed: String::new(),
                found: Vec::new(),
                chosen: None,
                searched: false,
                endpoints: Vec::new(),
                key: Secret::new(""),
                key_from_credentials: false,
                confirmed: None,
                asked: None,
                wrong: 0,
                allowed_at: Moment::ZERO,
                pausing: false,
                require_fingerprint: rules.require_fingerprint,
                seed: rules.seed,
            },
            at: At::Language,
            leaving: false,
            notice: None,
            last_job: 0,
        };
        let mut effects = Vec::new();
        match start {
            Start::Fresh(language) => machine.language = language,
            Start::Resume(progress) => machine.resume(progress, now, &mut effects),
            Start::Belongs { language, address } => {
                machine.language = language;
                machine.at = At::Belongs { address };
            }
            Start::Taken { language, who } => {
                machine.language = language;
                machine.at = At::Taken { who };
            }
        }
        (machine, effects)
    }

    fn resume(&mut self, progress: Progress, now: Moment, effects: &mut Vec<Effect>) {
        self.language = progress.language;
        self.kept.typed = clipped(&progress.typed);
        self.kept.endpoints = progress.endpoints;
        self.kept.endpoints.truncate(FOUND_MAX);
        self.kept.confirmed = progress.confirmed;
        self.kept.asked = progress
            .asked
            .map(|(root, part)| (root, usize::from(part).min(3)));
        self.kept.wrong = progress.wrong;
        // Starting again does not get round the pause.
        self.kept.allowed_at = now + fingerprint::pause(progress.wrong);
        self.kept.pausing = self.kept.allowed_at > now;
        if progress.checking && !self.kept.endpoints.is_empty() {
            self.start_check(effects);
        } else {
            self.enter_address(now, effects);
        }
        self.say(Tone::Information, self.texts().resumed);
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Input(input) => self.input(input, now, &mut effects),
            Event::Discovered {
                job,
                found,
                problems,
            } => self.discovered(job, found, &problems),
            Event::Sticks { found, problems } => self.sticks(found, &problems),
            Event::Checking {
                job,
                stage,
                state,
                sentence,
            } => {
                let said = sentence.shown(self.language);
                if let At::Check(check) = &mut self.at {
                    check.note(job, stage, state, said);
                }
            }
            Event::Reached { job, reached } => self.reached(job, reached, &mut effects),
            Event::NotReached { job, sentence } => self.not_reached(job, &sentence, &mut effects),
            Event::LoggingOn { job, stage } => {
                if let At::LogOn(logging_on) = &mut self.at {
                    logging_on.begin(job, stage);
                }
            }
            Event::LoggedOn { job, taken } => self.logged_on(job, taken, &mut effects),
            Event::Refused {
                job,
                sentence,
                again,
            } => self.refused(job, &sentence, again),
            Event::Belongs { address } => self.belongs(address, &mut effects),
            Event::NotStored { sentence } => {
                let text = self.filled(
                    self.texts().not_stored,
                    &[("sentence", &sentence.shown(self.language).0)],
                );
                self.say(Tone::Warning, &text);
            }
            Event::Tick => self.tick(now, &mut effects),
        }
        effects
    }

    /// When [`Event::Tick`] is due, if it is.
    pub fn next_deadline(&self, now: Moment) -> Option<Moment> {
        match &self.at {
            At::Address(asking) => Some(asking.look_at),
            At::Fingerprint(_) if now < self.kept.allowed_at => {
                // The seconds are counted down.
                let left = self.kept.allowed_at - now;
                let whole = Duration::from_secs(left.as_secs());
                let next = if left == whole {
                    left.saturating_sub(Duration::from_secs(1))
                } else {
                    whole
                };
                Some(self.kept.allowed_at - next)
            }
            // Its end is told even if something else was heard at that very moment.
            At::Fingerprint(_) if self.kept.pausing => Some(self.kept.allowed_at),
            At::Language
            | At::Check(_)
            | At::Fingerprint(_)
            | At::Key(_)
            | At::LogOn(_)
            | At::Ready { .. }
            | At::Belongs { .. }
            | At::Taken { .. }
            | At::Over => None,
        }
    }

    /// What is shown now.
    pub fn view(&self, now: Moment) -> View {
        screens::draw(self, now)
    }

    /// Whether the assistant is over.
    pub fn is_over(&self) -> bool {
        matches!(self.at, At::Over)
    }

    fn input(&mut self, input: Input, now: Moment, effects: &mut Vec<Effect>) {
        match input {
            Input::Close => self.close(effects),
            Input::Press { action } => {
                let view = self.view(now);
                let can = view
                    .actions
                    .iter()
                    .any(|offered| offered.id == action && offered.enabled);
                if can {
                    self.press(&action, now, effects);
                }
            }
            Input::Set { .. } | Input::Choose { .. } | Input::Reveal { .. } if self.leaving => {}
            Input::Set { entry, text } => self.set(&entry, &text, now),
            Input::Choose { choice, option } => self.choose(&choice, &option),
            Input::Reveal { entry, on } => {
                if let At::Key(asking) = &mut self.at
                    && entry == "key"
                {
                    asking.revealed = on;
                }
            }
        }
    }

    fn set(&mut self, entry: &str, text: &Secret, now: Moment) {
        match (&mut self.at, entry) {
            (At::Address(_), "address") => self.set_address(text),
            (At::Fingerprint(_), "part") => self.set_part(text, now),
            (At::Key(_), "key") => self.set_key(text),
            (
                At::Language
                | At::Address(_)
                | At::Check(_)
                | At::Fingerprint(_)
                | At::Key(_)
                | At::LogOn(_)
                | At::Ready { .. }
                | At::Belongs { .. }
                | At::Taken { .. }
                | At::Over,
                _,
            ) => {}
        }
    }

    fn choose(&mut self, choice: &str, option: &str) {
        match (&self.at, choice) {
            (At::Language, "language") => {
                if let Some(language) = Language::ALL.into_iter().find(|known| known.id() == option)
                {
                    self.language = language;
                }
            }
            (At::Address(_), "found") => self.choose_found(option),
            (
                At::Language
                | At::Address(_)
                | At::Check(_)
                | At::Fingerprint(_)
                | At::Key(_)
                | At::LogOn(_)
                | At::Ready { .. }
                | At::Belongs { .. }
                | At::Taken { .. }
                | At::Over,
                _,
            ) => {}
        }
    }

    /// A button that can be pressed was pressed.
    fn press(&mut self, action: &str, now: Moment, effects: &mut Vec<Effect>) {
        if self.leaving {
            match action {
                "stay" => self.leaving = false,
                "forget" => {
                    effects.extend([Effect::Stop, Effect::Forget]);
                    self.end(Outcome::Left, effects);
                }
                "leave" => self.leave(effects),
                _ => {}
            }
            return;
        }
        if action == "cancel" {
            self.leaving = true;
            return;
        }
        match (&self.at, action) {
            (At::Language, "next") => {
                self.notice = None;
                self.enter_address(now, effects);
                effects.push(Effect::Store(self.progress()));
            }
            (At::Address(_), "next") => self.take_address(effects),
            (At::Address(_), "search") => self.search(effects),
            (At::Address(_), "back") => {
                effects.push(Effect::Stop);
                self.kept.searched = false;
                self.go(At::Language);
            }
            (At::Check(_), "next") => self.after_check(effects),
            (At::Check(_), "again") => self.start_check(effects),
            (At::Check(_) | At::Fingerprint(_), "back") => self.back_to_address(now, effects),
            (At::Fingerprint(_), "next") => self.compare(now, effects),
            (At::Key(_), "next") => self.log_on(effects),
            (At::Key(_), "back") => self.back_from_key(now, effects),
            (At::LogOn(_), "again") => self.log_on_again(effects),
            (At::LogOn(_), "back" | "key") => self.back_to_key(),
            (At::LogOn(_), "address") => self.back_to_address(now, effects),
            (At::Ready { .. }, "finish") => self.end(Outcome::Ready, effects),
            (At::Belongs { .. }, "finish") => self.end(Outcome::Belonged, effects),
            (At::Taken { .. }, "finish") => self.end(Outcome::Taken, effects),
            (
                At::Language
                | At::Address(_)
                | At::Check(_)
                | At::Fingerprint(_)
                | At::Key(_)
                | At::LogOn(_)
                | At::Ready { .. }
                | At::Belongs { .. }
                | At::Taken { .. }
                | At::Over,
                _,
            ) => {}
        }
    }

    /// The face is gone.
    fn close(&mut self, effects: &mut Vec<Effect>) {
        match &self.at {
            At::Over => {}
            At::Ready { .. } => self.end(Outcome::Ready, effects),
            At::Belongs { .. } => self.end(Outcome::Belonged, effects),
            At::Taken { .. } => self.end(Outcome::Taken, effects),
            At::Language
            | At::Address(_)
            | At::Check(_)
            | At::Fingerprint(_)
            | At::Key(_)
            | At::LogOn(_) => self.leave(effects),
        }
    }

    /// Ends without a server; what was entered stays.
    fn leave(&mut self, effects: &mut Vec<Effect>) {
        effects.push(Effect::Stop);
        if !matches!(self.at, At::Language) {
            effects.push(Effect::Store(self.progress()));
        }
        self.end(Outcome::Left, effects);
    }

    fn end(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.leaving = false;
        self.notice = None;
        self.kept.key = Secret::new("");
        self.at = At::Over;
        effects.push(Effect::Finish(outcome));
    }

    fn belongs(&mut self, address: Address, effects: &mut Vec<Effect>) {
        match &self.at {
            // Our own doing, seen from outside as well: its own answer is on its way.
            At::LogOn(logging_on) if logging_on.is_running() => {}
            At::Ready { .. } | At::Belongs { .. } | At::Taken { .. } | At::Over => {}
            At::Language
            | At::Address(_)
            | At::Check(_)
            | At::Fingerprint(_)
            | At::Key(_)
            | At::LogOn(_) => {
                effects.extend([Effect::Stop, Effect::Forget]);
                self.kept.key = Secret::new("");
                self.go(At::Belongs { address });
            }
        }
    }

    fn tick(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if let At::Address(asking) = &mut self.at
            && now >= asking.look_at
        {
            asking.look_at = now + STICKS_EVERY;
            effects.push(Effect::LookAtSticks);
        }
        if self.kept.pausing && now >= self.kept.allowed_at {
            self.kept.pausing = false;
            if matches!(self.at, At::Fingerprint(_)) {
                self.say(Tone::Information, self.texts().fingerprint_after_pause);
            }
        }
    }

    /// Goes to another step. What was said about the one before is over, and so is the question about leaving.
    fn go(&mut self, at: At) {
        self.at = at;
        self.notice = None;
        self.leaving = false;
    }

    fn job(&mut self) -> Job {
        self.last_job = self.last_job.wrapping_add(1);
        Job(self.last_job)
    }

    fn texts(&self) -> &'static Catalogue {
        Catalogue::of(self.language)
    }

    fn filled(&self, template: &str, values: &[(&str, &str)]) -> String {
        crate::text::fill(template, values)
    }

    fn say(&mut self, tone: Tone, text: &str) {
        self.notice = Some((tone, text.to_owned()));
    }

    /// What is kept on the disk: where the assistant goes on after a power cut.
    fn progress(&self) -> Progress {
        let checking = match &self.at {
            At::Check(_) | At::Fingerprint(_) | At::Key(_) | At::LogOn(_) | At::Ready { .. } => {
                true
            }
            At::Language | At::Address(_) | At::Belongs { .. } | At::Taken { .. } | At::Over => {
                false
            }
        };
        Progress {
            version: PROGRESS_VERSION,
            language: self.language,
            typed: self.kept.typed.clone(),
            endpoints: self.kept.endpoints.clone(),
            checking,
            confirmed: self.kept.confirmed,
            asked: self
                .kept
                .asked
                .map(|(root, part)| (root, u8::try_from(part).unwrap_or(0))),
            wrong: self.kept.wrong,
        }
    }
}

/// A line from a person or from the disk, kept as it is unless it is far too long for anything.
fn clipped(text: &str) -> String {
    text.chars()
        .filter(|character| !crate::text::is_invisible(*character))
        .take(LINE_MAX)
        .collect()
}

impl Source {
    fn is_stick(&self) -> bool {
        match self {
            Source::Stick { .. } => true,
            Source::Configured
            | Source::Name { .. }
            | Source::Record { .. }
            | Source::Dhcp { .. }
            | Source::Pasted => false,
        }
    }
}
