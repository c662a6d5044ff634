//! What is being typed. The window keeps it itself, because the assistant shows a hidden key as dots and is always a little behind
//! the fingers: what comes back from it is an echo of what was sent, or it has changed the line on its own, and then that holds.

use std::collections::{HashMap, VecDeque};

use umbra_setup::{Item, Step, View};
use zeroize::Zeroizing;

/// A typed line is never longer than this; what is longer was pasted, and goes to the assistant as a whole.
pub(crate) const LINE_MAX: usize = 512;
/// A pasted text is cut to this: more than any credentials, less than the assistant reads in one line.
const PASTE_MAX: usize = 64 * 1024 + 1;
/// How many echoes may be on their way.
const ECHOES_MAX: usize = 256;

/// What is being typed, by entry.
#[derive(Default)]
pub(crate) struct Typing {
    step: Option<Step>,
    lines: HashMap<String, Line>,
}

/// One entry.
pub(crate) struct Line {
    pub(crate) text: Zeroizing<String>,
    /// What the assistant showed last.
    shown: String,
    /// What was sent and has not come back, in the form in which it will.
    echoes: VecDeque<Zeroizing<String>>,
}

impl Typing {
    /// Takes note of a new view, and says whether it is another screen.
    pub(crate) fn follow(&mut self, view: &View) -> bool {
        let is_other = self.step != Some(view.step);
        if is_other {
            self.step = Some(view.step);
            self.lines.clear();
        }
        for item in &view.items {
            if let Item::Entry {
                id,
                text,
                secret,
                revealed,
                ..
            } = item
            {
                let is_clear = !*secret || *revealed;
                match self.lines.get_mut(id) {
                    Some(line) => line.follow(text, is_clear),
                    None => {
                        self.lines.insert(id.clone(), Line::new(text, is_clear));
                    }
                }
            }
        }
        is_other
    }

    pub(crate) fn line(&mut self, id: &str) -> Option<&mut Line> {
        self.lines.get_mut(id)
    }
}

impl Line {
    fn new(shown: &str, is_clear: bool) -> Self {
        Self {
            text: Zeroizing::new(if is_clear {
                shown.to_owned()
            } else {
                String::new()
            }),
            shown: shown.to_owned(),
            echoes: VecDeque::new(),
        }
    }

    fn follow(&mut self, shown: &str, is_clear: bool) {
        if self.shown == shown {
            return;
        }
        self.shown = shown.to_owned();
        let echo = self
            .echoes
            .iter()
            .position(|echo| echoed(echo, shown, is_clear));
        if let Some(index) = echo {
            self.echoes.drain(..=index);
            return;
        }
        if echoed(&self.text, shown, is_clear) {
            // Shown or hidden: the same line.
            return;
        }
        self.echoes.clear();
        self.text = Zeroizing::new(if is_clear {
            shown.to_owned()
        } else {
            String::new()
        });
    }

    /// The line as it is now is on its way to the assistant.
    pub(crate) fn sent(&mut self) {
        self.echoes.push_back(self.text.clone());
        if self.echoes.len() > ECHOES_MAX {
            self.echoes.pop_front();
        }
    }

    /// A whole text was pasted and is on its way instead of a line.
    pub(crate) fn handed_over(&mut self) {
        self.text = Zeroizing::new(String::new());
        self.echoes.clear();
    }

    /// The dots of a secret that the assistant has and the window does not know: from credentials, or from before.
    pub(crate) fn unknown(&self) -> Option<&str> {
        (self.text.is_empty() && is_dots(&self.shown)).then_some(&*self.shown)
    }
}

/// Whether the assistant would show the line like this.
fn echoed(line: &str, shown: &str, is_clear: bool) -> bool {
    if is_clear {
        line.trim() == shown.trim()
    } else {
        line.chars().count() == shown.chars().count()
    }
}

fn is_dots(shown: &str) -> bool {
    !shown.is_empty() && shown.chars().all(|character| character == '•')
}

/// What is done with a text from the clipboard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pasted {
    /// It belongs into the line.
    Line(String),
    /// It is credentials, or at least no line: the assistant is to look at it as it is.
    Whole(Zeroizing<String>),
}

/// Tells a line from a text; line ends around it come with copying.
pub(crate) fn pasted(text: &str) -> Pasted {
    let line = text.trim();
    if line.contains(['\n', '\r']) || line.chars().count() > LINE_MAX {
        let cut = text
            .char_indices()
            .map(|(at, character)| at + character.len_utf8())
            .take_while(|end| *end <= PASTE_MAX)
            .last()
            .unwrap_or(0);
        return Pasted::Whole(Zeroizing::new(text[..cut].to_owned()));
    }
    Pasted::Line(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, is_clear: bool) -> Line {
        Line::new(text, is_clear)
    }

    fn type_into(line: &mut Line, text: &str) {
        line.text = Zeroizing::new(text.to_owned());
        line.sent();
    }

    #[test]
    fn an_echo_that_comes_late_takes_nothing_back() {
        let mut line = line("", true);
        type_into(&mut line, "g");
        type_into(&mut line, "gw");
        type_into(&mut line, "gw.");
        for shown in ["g", "gw", "gw."] {
            line.follow(shown, true);
            assert_eq!(&*line.text, "gw.");
        }
    }

    #[test]
    fn echoes_may_be_missing_and_may_have_lost_their_spaces() {
        let mut line = line("", true);
        type_into(&mut line, "a");
        type_into(&mut line, "a ");
        type_into(&mut line, "a b ");
        line.follow("a b", true);
        assert_eq!(&*line.text, "a b ");
    }

    #[test]
    fn what_the_assistant_makes_of_a_line_by_itself_holds() {
        let mut line = line("old", true);
        line.follow("new", true);
        assert_eq!(&*line.text, "new");
        type_into(&mut line, "newer");
        line.follow("", true);
        assert_eq!(&*line.text, "");
    }

    #[test]
    fn a_hidden_secret_stays_what_was_typed_and_a_forgotten_one_is_forgotten() {
        let mut line = line("", false);
        type_into(&mut line, "ABC");
        line.follow("•••", false);
        assert_eq!(&*line.text, "ABC");
        line.follow("ABC", true);
        assert_eq!(&*line.text, "ABC");
        line.follow("•••", false);
        assert_eq!(&*line.text, "ABC");
        line.follow("", false);
        assert_eq!(&*line.text, "");
    }

    #[test]
    fn dots_that_nobody_typed_are_shown_and_never_sent() {
        let line = line("••••", false);
        assert_eq!(&*line.text, "");
        assert_eq!(line.unknown(), Some("••••"));
    }

    #[test]
    fn a_copied_line_loses_its_end_and_a_copied_text_stays_whole() {
        assert_eq!(pasted("KEY-1\r\n"), Pasted::Line("KEY-1".into()));
        let text = "----\nHost\n";
        assert_eq!(pasted(text), Pasted::Whole(Zeroizing::new(text.to_owned())));
        let Pasted::Whole(cut) = pasted(&"ä".repeat(1_000_000)) else {
            panic!("a line")
        };
        assert!(cut.len() <= PASTE_MAX && cut.len() > PASTE_MAX - 2);
    }
}
