//! The grammar in words: what a command does, how it is typed, and what was wrong with a line.

use super::{Count, Grammar, Opt, Positional, options};

/// The longest line, in characters.
const WIDTH: usize = 100;
/// The widest first column of a list; what is wider has its words on the next line.
const COLUMN: usize = 34;

/// Can be said everywhere.
const HELP: Opt = Opt {
    name: "help",
    about: "Print this (also: -h).",
    ..Opt::FLAG
};
/// Can be said where no command is.
const VERSION: Opt = Opt {
    name: "version",
    about: "Print the version (also: -V).",
    ..Opt::FLAG
};

/// All about the last of these commands, which stand one within the other.
pub(super) fn of(path: &[&'static Grammar]) -> String {
    let Some(at) = path.last() else {
        return String::new();
    };
    let mut text = String::new();
    fill(&mut text, at.about, 0, 0);
    if !at.more.is_empty() {
        text.push('\n');
        fill(&mut text, at.more, 0, 0);
    }
    text.push('\n');
    text.push_str(&usage(path));
    list(&mut text, "Commands", at.commands, |command| {
        (command.name.to_owned(), command.about.to_owned())
    });
    list(&mut text, "Arguments", at.positionals, |positional| {
        (placeholder(positional), positional.about.to_owned())
    });
    let mut options: Vec<&Opt> = options(path).collect();
    options.push(&HELP);
    if path.len() == 1 {
        options.push(&VERSION);
    }
    list(&mut text, "Options", &options, |option| {
        (said(option), explained(option))
    });
    if !at.examples.is_empty() {
        text.push_str("\nExamples:\n");
    }
    for example in at.examples {
        text.push_str(&format!("  {example}\n"));
    }
    let after = (at.after)();
    if !after.is_empty() {
        text.push('\n');
        text.push_str(&after);
    }
    text
}

/// What was wrong at the last of these commands, and where to read on.
pub(super) fn mistake(path: &[&Grammar], sentence: &str) -> String {
    let (usage, command) = (usage(path), spelled(path));
    format!("{sentence}\n{usage}“{command} --help” says what can be typed.")
}

fn spelled(path: &[&Grammar]) -> String {
    let names: Vec<&str> = path.iter().map(|command| command.name).collect();
    names.join(" ")
}

fn usage(path: &[&Grammar]) -> String {
    let mut line = format!("Usage: {} [OPTIONS]", spelled(path));
    if let Some(at) = path.last() {
        if !at.commands.is_empty() {
            line.push_str(" <COMMAND>");
        }
        for positional in at.positionals {
            line.push(' ');
            line.push_str(&placeholder(positional));
        }
    }
    line.push('\n');
    line
}

fn placeholder(positional: &Positional) -> String {
    let name = positional.name;
    match positional.count {
        Count::One => format!("<{name}>"),
        Count::Optional => format!("[{name}]"),
        Count::ManyUnless(_) => format!("[{name}]..."),
    }
}

fn said(option: &Opt) -> String {
    let name = option.name;
    match option.value {
        "" => format!("--{name}"),
        value => format!("--{name} <{value}>"),
    }
}

fn explained(option: &Opt) -> String {
    let about = option.about;
    match option.words {
        [] => about.to_owned(),
        words => format!("{about} One of: {}.", words.join(", ")),
    }
}

fn list<T>(text: &mut String, title: &str, items: &[T], words: impl Fn(&T) -> (String, String)) {
    if items.is_empty() {
        return;
    }
    text.push_str(&format!("\n{title}:\n"));
    let rows: Vec<(String, String)> = items.iter().map(words).collect();
    let widest = rows.iter().map(|(name, _)| name.chars().count()).max();
    let column = widest.unwrap_or(0).min(COLUMN) + 4;
    for (name, about) in &rows {
        text.push_str("  ");
        text.push_str(name);
        let mut used = 2 + name.chars().count();
        if used + 2 > column {
            text.push('\n');
            used = 0;
        }
        text.push_str(&" ".repeat(column - used));
        fill(text, about, column, column);
    }
}

/// Writes `words` as lines that are not too long. The first begins at column `at`, the others `indent` columns from the left; a line's end
/// in `words` ends a paragraph.
fn fill(text: &mut String, words: &str, mut at: usize, indent: usize) {
    for paragraph in words.split('\n') {
        let begin = at;
        for word in paragraph.split(' ') {
            let length = word.chars().count();
            if at > begin {
                if at + 1 + length > WIDTH {
                    text.push('\n');
                    text.push_str(&" ".repeat(indent));
                    at = indent;
                } else {
                    text.push(' ');
                    at += 1;
                }
            }
            text.push_str(word);
            at += length;
        }
        text.push('\n');
        at = 0;
    }
}
