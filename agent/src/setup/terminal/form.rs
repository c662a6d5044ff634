//! What has the focus, where the cursor is, and what a key does. It knows no terminal: keys in, inputs out.

use std::collections::VecDeque;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use umbra_protocol::Secret;
use umbra_setup::{Input, Item, Step, View};
use zeroize::Zeroizing;

/// Longer than anything that is typed or pasted.
const TEXT_MAX: usize = 64 * 1024;

/// What has the focus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    /// The option of a choice: which item, which option.
    Option(usize, usize),
    /// An entry: which item.
    Entry(usize),
    /// A button.
    Action(usize),
}

/// The form of a screen.
#[derive(Debug, Default)]
pub(super) struct Form {
    step: Option<Step>,
    at: usize,
    /// Whether the person has moved: then news do not move the focus.
    moved: bool,
    /// What is typed in the entry, by its ID. A key is in here only while its screen is shown.
    text: Option<(String, Zeroizing<String>)>,
    cursor: usize,
    /// Lines that are scrolled down.
    pub(super) scroll: u16,
    wanted: VecDeque<Input>,
}

/// Everything that can have the focus, from top to bottom.
pub(super) fn stops(view: &View) -> Vec<Focus> {
    let mut stops = Vec::new();
    for (index, item) in view.items.iter().enumerate() {
        match item {
            Item::Choice { options, .. } => {
                stops.extend((0..options.len()).map(|option| Focus::Option(index, option)));
            }
            Item::Entry { .. } => stops.push(Focus::Entry(index)),
            Item::Progress { .. } | Item::Fact { .. } => {}
        }
    }
    let enabled = view.actions.iter().enumerate();
    stops.extend(
        enabled
            .filter(|(_, action)| action.enabled)
            .map(|(index, _)| Focus::Action(index)),
    );
    stops
}

impl Form {
    /// A view is shown from now on.
    pub(super) fn take(&mut self, view: &View) {
        if self.step != Some(view.step) {
            self.step = Some(view.step);
            self.text = None;
            self.cursor = 0;
            self.moved = false;
            self.scroll = 0;
        }
        // Where the machine made something else of what was typed (a pasted text that was taken in as a whole), that holds.
        if let Some((id, text)) = &self.text
            && self.wanted.is_empty()
        {
            let is_same = view.items.iter().any(|item| match item {
                Item::Entry {
                    id: entry,
                    text: now,
                    secret,
                    revealed,
                    ..
                } if entry == id => {
                    if *secret && !revealed {
                        now.chars().count() == text.chars().count()
                    } else {
                        now.trim() == text.trim()
                    }
                }
                Item::Entry { .. }
                | Item::Choice { .. }
                | Item::Progress { .. }
                | Item::Fact { .. } => false,
            });
            if !is_same {
                self.text = None;
                self.cursor = 0;
            }
        }
        let stops = stops(view);
        if !self.moved {
            self.at = first(view, &stops);
        }
        self.at = self.at.min(stops.len().saturating_sub(1));
    }

    pub(super) fn focus(&self, view: &View) -> Option<Focus> {
        stops(view).get(self.at).copied()
    }

    /// Where the cursor is in the entry, in characters.
    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    pub(super) fn wants(&mut self, input: Input) {
        self.wanted.push_back(input);
    }

    pub(super) fn next(&mut self) -> Option<Input> {
        self.wanted.pop_front()
    }

    /// Takes in a key, a paste or a new size.
    pub(super) fn hear(&mut self, event: &Event, view: &View) {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(*key, view),
            Event::Paste(text) => self.paste(text, view),
            Event::Key(_)
            | Event::Resize(..)
            | Event::FocusGained
            | Event::FocusLost
            | Event::Mouse(_) => {}
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "keyboards grow keys; those that mean nothing here do nothing"
    )]
    fn key(&mut self, key: KeyEvent, view: &View) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'C' | 'd' | 'D') if control => self.wants(Input::Close),
            KeyCode::Char('r' | 'R') if control => self.reveal(view),
            KeyCode::F(2) => self.reveal(view),
            KeyCode::Esc => {
                let id = ["stay", "back", "cancel"].into_iter().find(|id| {
                    view.actions
                        .iter()
                        .any(|action| action.id == *id && action.enabled)
                });
                if let Some(id) = id {
                    self.press(id);
                }
            }
            KeyCode::Tab => self.go(1, view),
            KeyCode::Down => self.go(1, view),
            KeyCode::BackTab | KeyCode::Up => self.go(-1, view),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(5),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(5),
            KeyCode::Enter => self.enter(view),
            KeyCode::Left
            | KeyCode::Right
            | KeyCode::Home
            | KeyCode::End
            | KeyCode::Backspace
            | KeyCode::Delete => {
                self.edit(key.code, view);
            }
            KeyCode::Char(' ') if !matches!(self.focus(view), Some(Focus::Entry(_))) => {
                self.enter(view)
            }
            KeyCode::Char(character) if !control && !key.modifiers.contains(KeyModifiers::ALT) => {
                self.insert(&character.to_string(), view);
            }
            _ => {}
        }
    }

    fn go(&mut self, by: isize, view: &View) {
        let count = stops(view).len();
        if count == 0 {
            return;
        }
        self.moved = true;
        self.at = match by {
            1 => (self.at + 1) % count,
            _ => (self.at + count - 1) % count,
        };
        if let Some(Focus::Option(item, option)) = self.focus(view)
            && let Some(Item::Choice { id, options, .. }) = view.items.get(item)
            && let Some(option) = options.get(option)
        {
            // What has the focus is chosen: one key less.
            self.wants(Input::Choose {
                choice: id.clone(),
                option: option.id.clone(),
            });
        }
        if let Some(Focus::Entry(item)) = self.focus(view) {
            self.cursor = self.shown(item, view).chars().count();
        }
    }

    fn enter(&mut self, view: &View) {
        if let Some(Focus::Action(index)) = self.focus(view)
            && let Some(action) = view.actions.get(index)
        {
            let id = action.id.clone();
            self.press(&id);
            return;
        }
        let default = view
            .actions
            .iter()
            .find(|action| action.default && action.enabled);
        if let Some(action) = default {
            let id = action.id.clone();
            self.press(&id);
        }
    }

    fn press(&mut self, action: &str) {
        self.moved = false;
        self.wants(Input::Press {
            action: action.to_owned(),
        });
    }

    fn reveal(&mut self, view: &View) {
        let secret = view.items.iter().find_map(|item| match item {
            Item::Entry {
                id,
                secret: true,
                revealed,
                ..
            } => Some((id.clone(), *revealed)),
            Item::Entry { .. }
            | Item::Choice { .. }
            | Item::Progress { .. }
            | Item::Fact { .. } => None,
        });
        if let Some((entry, revealed)) = secret {
            self.wants(Input::Reveal {
                entry,
                on: !revealed,
            });
        }
    }

    /// The entry that takes what is typed: the one with the focus, or the only one there is.
    fn entry(&self, view: &View) -> Option<usize> {
        if let Some(Focus::Entry(index)) = self.focus(view) {
            return Some(index);
        }
        view.items.iter().position(|item| match item {
            Item::Entry { .. } => true,
            Item::Choice { .. } | Item::Progress { .. } | Item::Fact { .. } => false,
        })
    }

    /// What an entry holds, as far as it may be seen here.
    fn shown(&self, item: usize, view: &View) -> Zeroizing<String> {
        match view.items.get(item) {
            Some(Item::Entry {
                id,
                text,
                secret,
                revealed,
                ..
            }) => match &self.text {
                Some((typed, kept)) if typed == id => kept.clone(),
                // What is hidden can't be gone on with: typing begins anew.
                _ if *secret && !revealed => Zeroizing::new(String::new()),
                _ => Zeroizing::new(text.clone()),
            },
            Some(Item::Choice { .. } | Item::Progress { .. } | Item::Fact { .. }) | None => {
                Zeroizing::new(String::new())
            }
        }
    }

    fn focus_entry(&mut self, item: usize, view: &View) {
        if let Some(at) = stops(view)
            .iter()
            .position(|stop| *stop == Focus::Entry(item))
            && at != self.at
        {
            self.at = at;
            self.moved = true;
            self.cursor = self.shown(item, view).chars().count();
        }
    }

    fn insert(&mut self, new: &str, view: &View) {
        let Some(item) = self.entry(view) else {
            return;
        };
        self.focus_entry(item, view);
        let mut text = self.shown(item, view);
        if text.len() + new.len() > TEXT_MAX {
            return;
        }
        let cursor = self.cursor.min(text.chars().count());
        let at = byte(&text, cursor);
        text.insert_str(at, new);
        self.cursor = cursor + new.chars().count();
        self.set(item, text, view);
    }

    fn paste(&mut self, text: &str, view: &View) {
        // Terminals send line ends as carriage returns.
        let text = Zeroizing::new(text.replace("\r\n", "\n").replace('\r', "\n"));
        let Some(item) = self.entry(view) else {
            return;
        };
        if text.trim().contains('\n') {
            // A whole text takes the place of what is there.
            self.focus_entry(item, view);
            if text.len() <= TEXT_MAX {
                self.cursor = 0;
                self.set(item, text, view);
            }
            return;
        }
        self.insert(text.trim(), view);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "keyboards grow keys; those that mean nothing here do nothing"
    )]
    fn edit(&mut self, code: KeyCode, view: &View) {
        let Some(Focus::Entry(item)) = self.focus(view) else {
            match code {
                KeyCode::Left => self.go(-1, view),
                KeyCode::Right => self.go(1, view),
                _ => {}
            }
            return;
        };
        let mut text = self.shown(item, view);
        let count = text.chars().count();
        let cursor = self.cursor.min(count);
        match code {
            KeyCode::Left => self.cursor = cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (cursor + 1).min(count),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = count,
            KeyCode::Backspace if cursor > 0 => {
                let at = byte(&text, cursor - 1);
                text.remove(at);
                self.cursor = cursor - 1;
                self.set(item, text, view);
            }
            // A hidden key that is not ours to edit goes as a whole.
            KeyCode::Backspace if count == 0 => self.set(item, text, view),
            KeyCode::Delete if cursor < count => {
                let at = byte(&text, cursor);
                text.remove(at);
                self.set(item, text, view);
            }
            _ => {}
        }
    }

    fn set(&mut self, item: usize, text: Zeroizing<String>, view: &View) {
        if let Some(Item::Entry { id, .. }) = view.items.get(item) {
            self.wants(Input::Set {
                entry: id.clone(),
                text: Secret::new(text.as_str()),
            });
            self.text = Some((id.clone(), text));
        }
    }
}

/// Where the focus is on a screen that was just opened: on what is chosen, on what is to be typed, or on the button.
fn first(view: &View, stops: &[Focus]) -> usize {
    let is_first = |stop: &Focus| match stop {
        Focus::Option(item, option) => match view.items.get(*item) {
            Some(Item::Choice {
                options, selected, ..
            }) => {
                options.get(*option).map(|option| &option.id) == selected.as_ref()
                    && selected.as_deref() != Some("typed")
            }
            Some(Item::Entry { .. } | Item::Progress { .. } | Item::Fact { .. }) | None => false,
        },
        Focus::Entry(_) => true,
        Focus::Action(index) => view
            .actions
            .get(*index)
            .is_some_and(|action| action.default),
    };
    stops.iter().position(is_first).unwrap_or(0)
}

fn byte(text: &str, characters: usize) -> usize {
    text.char_indices()
        .nth(characters)
        .map_or(text.len(), |(at, _)| at)
}
