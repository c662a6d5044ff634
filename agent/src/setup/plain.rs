//! The face for screen readers, serial lines and scripts: line by line, with numbered choices, and without ever moving the cursor.
//! A line is taken in only when something is asked, so what is typed ahead waits for its question.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _, Write};

use tokio::sync::mpsc;
use umbra_protocol::Secret;
use umbra_setup::text::fill;
use umbra_setup::{Catalogue, Input, Item, Notice, State, Step, View};
use zeroize::Zeroizing;

use super::driver::Face;

/// A line as it was typed. It may be the key.
pub type Typed = Zeroizing<String>;

/// Whether what is typed can be seen on the terminal.
pub trait Echo: Send {
    /// Lets it be seen, or not.
    fn show(&mut self, on: bool);
}

/// For where nothing is echoed anyway: pipes and files.
#[derive(Debug)]
pub struct NoEcho;

impl Echo for NoEcho {
    fn show(&mut self, _on: bool) {}
}

/// Speaks in lines.
pub struct Plain<'a> {
    out: &'a mut dyn Write,
    echo: Box<dyn Echo>,
    lines: VecDeque<Typed>,
    is_over: bool,
    /// What was told of the screen that is shown.
    step: Option<Step>,
    told: Vec<String>,
    notice: String,
    /// What is asked next, and whether the question was put.
    question: usize,
    is_asked: bool,
    /// The options as they were numbered.
    numbered: Vec<String>,
}

/// Something to answer on a screen.
enum Question<'v> {
    Item(&'v Item),
    Action,
}

impl<'a> Plain<'a> {
    /// A face that writes there.
    pub fn new(out: &'a mut dyn Write, echo: Box<dyn Echo>) -> Self {
        Self {
            out,
            echo,
            lines: VecDeque::new(),
            is_over: false,
            step: None,
            told: Vec::new(),
            notice: String::new(),
            question: 0,
            is_asked: false,
            numbered: Vec::new(),
        }
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        if self.is_asked {
            // Not behind the question.
            writeln!(self.out)?;
            self.is_asked = false;
        }
        writeln!(self.out, "{line}")
    }

    /// Says what was not said yet on this screen.
    fn tell(&mut self, line: String) -> io::Result<()> {
        if line.is_empty() || self.told.contains(&line) {
            return Ok(());
        }
        self.say(&line)?;
        self.told.push(line);
        Ok(())
    }

    fn tell_notice(&mut self, notice: Option<&Notice>) -> io::Result<()> {
        let text = notice.map_or("", |notice| notice.text.as_str());
        // Seconds that are counted down are not read out one by one.
        let same: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        if same == self.notice {
            return Ok(());
        }
        self.notice = same;
        if !text.is_empty() {
            self.say(&format!("* {text}"))?;
            // What is asked may be answered otherwise now.
            self.question = 0;
        }
        Ok(())
    }

    fn question<'v>(&self, view: &'v View) -> Question<'v> {
        view.items
            .iter()
            .filter(|item| match item {
                Item::Choice { .. } | Item::Entry { .. } => true,
                Item::Progress { .. } | Item::Fact { .. } => false,
            })
            .nth(self.question)
            .map_or(Question::Action, Question::Item)
    }

    fn ask(&mut self, view: &View) -> io::Result<()> {
        self.numbered.clear();
        match self.question(view) {
            Question::Item(Item::Choice {
                label,
                options,
                selected,
                ..
            }) => {
                self.say(&format!("{label}:"))?;
                let mut chosen = 1;
                for (index, option) in options.iter().enumerate() {
                    let detail = match option.detail.as_str() {
                        "" => String::new(),
                        detail => format!(" – {detail}"),
                    };
                    if selected.as_ref() == Some(&option.id) {
                        chosen = index + 1;
                    }
                    self.say(&format!("  {} {}{detail}", index + 1, option.label))?;
                    self.numbered.push(option.id.clone());
                }
                write!(self.out, "[{chosen}] > ")?;
            }
            Question::Item(Item::Entry {
                label,
                hint,
                text,
                secret,
                ..
            }) => {
                self.say(hint)?;
                let now = match (text.as_str(), secret) {
                    ("", _) => String::new(),
                    // Dots would be read out one by one.
                    (_, true) => " […]".to_owned(),
                    (text, false) => format!(" [{text}]"),
                };
                if *secret {
                    self.echo.show(false);
                }
                write!(self.out, "{label}{now} > ")?;
            }
            Question::Item(Item::Progress { .. } | Item::Fact { .. }) | Question::Action => {
                let mut default = String::new();
                let enabled = view.actions.iter().filter(|action| action.enabled);
                let mut lines = Vec::new();
                for (index, action) in enabled.enumerate() {
                    if action.default {
                        default = format!("[{}] ", index + 1);
                    }
                    lines.push(format!("  {} {}", index + 1, action.label));
                    self.numbered.push(action.id.clone());
                }
                for line in lines {
                    self.say(&line)?;
                }
                write!(self.out, "{default}> ")?;
            }
        }
        self.is_asked = true;
        self.out.flush()
    }

    /// What a line means as the answer to what was asked; nothing where it means nothing, or leaves things as they are.
    fn answer(&mut self, view: &View, line: &str) -> io::Result<Option<Input>> {
        let chosen = line
            .trim()
            .parse::<usize>()
            .ok()
            .and_then(|number| self.numbered.get(number.checked_sub(1)?).cloned());
        match self.question(view) {
            Question::Item(Item::Choice { id, .. }) => {
                if !line.trim().is_empty() && chosen.is_none() {
                    return Ok(None);
                }
                self.question += 1;
                Ok(chosen.map(|option| {
                    // What is typed would be asked for next; a proposal that was chosen needs nothing typed.
                    if option != "typed" && id == "found" {
                        self.question += 1;
                    }
                    Input::Choose {
                        choice: id.clone(),
                        option,
                    }
                }))
            }
            Question::Item(Item::Entry { id, secret, .. }) => {
                if *secret {
                    self.echo.show(true);
                    // Nothing was echoed, not even the end of the line.
                    writeln!(self.out)?;
                }
                let text = self.pasted(line);
                self.question += 1;
                Ok((!text.trim().is_empty()).then(|| Input::Set {
                    entry: id.clone(),
                    text: Secret::new(text.as_str()),
                }))
            }
            Question::Item(Item::Progress { .. } | Item::Fact { .. }) | Question::Action => {
                let default = view
                    .actions
                    .iter()
                    .find(|action| action.default && action.enabled)
                    .map(|action| action.id.clone());
                let pressed = if line.trim().is_empty() {
                    default
                } else {
                    chosen
                };
                if pressed.is_some() {
                    self.question = 0;
                    self.notice.clear();
                }
                Ok(pressed.map(|action| Input::Press { action }))
            }
        }
    }

    /// Credentials that were pasted come as many lines: all of them belong to the one question.
    fn pasted(&mut self, line: &str) -> Typed {
        let mut text = Zeroizing::new(line.to_owned());
        let is_rule = |line: &str| line.len() > 8 && line.trim().bytes().all(|byte| byte == b'-');
        if !is_rule(line) && !line.trim_start().starts_with('<') {
            return text;
        }
        while let Some(more) = self.lines.pop_front() {
            text.push('\n');
            text.push_str(&more);
        }
        text
    }
}

impl Drop for Plain<'_> {
    fn drop(&mut self) {
        self.echo.show(true);
    }
}

impl Face for Plain<'_> {
    type Raw = Typed;

    fn show(&mut self, view: &View) -> io::Result<()> {
        let texts = Catalogue::of(view.language);
        if self.step != Some(view.step) {
            self.step = Some(view.step);
            self.told.clear();
            self.notice.clear();
            self.question = 0;
            self.echo.show(true);
            self.say("")?;
            let place = fill(
                texts.face_step,
                &[
                    ("number", &view.number.to_string()),
                    ("of", &view.of.to_string()),
                ],
            );
            let heading = match view.number {
                0 => view.title.clone(),
                _ => format!("{place}: {}", view.title),
            };
            self.say(&heading)?;
        }
        for paragraph in &view.text {
            self.tell(paragraph.clone())?;
        }
        for item in &view.items {
            match item {
                Item::Progress {
                    label,
                    state,
                    sentence,
                    ..
                } => {
                    let state = match state {
                        State::Waiting => continue,
                        State::Running => texts.state_running,
                        State::Skipped => texts.state_skipped,
                        State::Good => texts.state_good,
                        State::Warning => texts.state_warning,
                        State::Failed => texts.state_failed,
                    };
                    let gap = if sentence.is_empty() { "" } else { ". " };
                    self.tell(format!("{label}: {state}{gap}{sentence}"))?;
                }
                Item::Fact { label, value } => self.tell(format!("{label}: {value}"))?,
                // A proposal that has come while something is asked is asked about anew.
                Item::Choice { options, .. } => {
                    let ids = options.iter().map(|option| &option.id);
                    let is_old = self.question > 0 || !self.is_asked || ids.eq(&self.numbered);
                    if !is_old {
                        self.say("")?;
                    }
                }
                Item::Entry { .. } => {}
            }
        }
        self.tell_notice(view.notice.as_ref())?;
        self.out.flush()
    }

    fn hear(&mut self, raw: Option<Typed>) -> io::Result<()> {
        match raw {
            Some(line) => self.lines.push_back(line),
            None => self.is_over = true,
        }
        Ok(())
    }

    fn next(&mut self, view: &View) -> io::Result<Option<Input>> {
        if view.busy {
            return Ok(None);
        }
        loop {
            if !self.is_asked {
                self.ask(view)?;
            }
            let Some(line) = self.lines.pop_front() else {
                return Ok(self.is_over.then_some(Input::Close));
            };
            self.is_asked = false;
            if let Some(input) = self.answer(view, &line)? {
                return Ok(Some(input));
            }
        }
    }
}

/// Reads lines until there are no more; each is at most so long. Meant for a thread of its own, which the process does not wait for.
pub fn read_lines(input: &mut dyn BufRead, max: usize, lines: &mpsc::Sender<Typed>) {
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    loop {
        let mut bytes = Zeroizing::new(Vec::new());
        match (&mut *input).take(limit).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&bytes);
        let line = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
