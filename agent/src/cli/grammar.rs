//! The language of the command line as a table. Lines are read by it, help is written from it, and mistakes are told by it, so the three can't
//! differ. It knows nothing of what the commands do.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Arg;

mod help;

/// A command, or a command of a command.
#[derive(Debug)]
pub(super) struct Grammar {
    /// As it is typed.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What else there is to know before it is typed.
    pub more: &'static str,
    /// Whole lines that can be typed.
    pub examples: &'static [&'static str],
    /// What can be said with “--”. Those of the outermost command can be said at any of its commands.
    pub options: &'static [Opt],
    /// What is said without a name, in its order.
    pub positionals: &'static [Positional],
    /// Its commands, of which one has to follow; a command that has some has no positionals.
    pub commands: &'static [Grammar],
    /// What stands at the end of its help.
    pub after: fn() -> String,
}

/// Said by its name.
#[derive(Debug)]
pub(super) struct Opt {
    /// Without the dashes.
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
    /// What its value is called; empty for one that has none.
    pub value: &'static str,
    /// The values that there are; empty where others know better.
    pub words: &'static [&'static str],
    /// Whether it may come several times.
    pub repeats: bool,
    /// The options that contradict it.
    pub excludes: &'static [&'static str],
    /// The option without which it means nothing; empty if there is none.
    pub requires: &'static str,
}

/// Said by its place.
#[derive(Debug)]
pub(super) struct Positional {
    /// What it is called in help.
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
    /// How often it comes.
    pub count: Count,
}

/// How often something comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// Once.
    One,
    /// Once or not at all.
    Optional,
    /// Once or more often, or, with this option, not at all. Nothing can follow it.
    ManyUnless(&'static str),
}

impl Grammar {
    /// Nothing can be said with it yet.
    pub(super) const NEW: Self = Self {
        name: "",
        about: "",
        more: "",
        examples: &[],
        options: &[],
        positionals: &[],
        commands: &[],
        after: String::new,
    };
}

impl Opt {
    /// One without a value that goes with everything.
    pub(super) const FLAG: Self = Self {
        name: "",
        about: "",
        value: "",
        words: &[],
        repeats: false,
        excludes: &[],
        requires: "",
    };
    /// For scripts.
    pub(super) const JSON: Self = Self {
        name: "json",
        about: "As JSON, for scripts.",
        ..Self::FLAG
    };
}

/// A line that keeps to the grammar.
#[derive(Debug, Default)]
pub(super) struct Line {
    commands: Vec<&'static str>,
    /// With their values, which are empty where there are none.
    options: Vec<(&'static str, OsString)>,
    words: Vec<String>,
}

/// Why a line is not carried out.
#[derive(Debug)]
pub(super) enum Stop {
    /// It asks what can be said.
    Help(String),
    /// It asks which program this is.
    Version,
    /// It can't be understood.
    Mistake(String),
}

impl Line {
    /// The command at this depth, the outermost at 0.
    pub(super) fn command(&self, depth: usize) -> &'static str {
        self.commands.get(depth).copied().unwrap_or_default()
    }

    /// Whether the option was said.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == option)
    }

    /// All values of the option.
    pub(super) fn paths(&self, option: &str) -> Vec<PathBuf> {
        let of_it = self.options.iter().filter(|(name, _)| *name == option);
        of_it.map(|(_, value)| value.into()).collect()
    }

    /// Its value.
    pub(super) fn path(&self, option: &str) -> Option<PathBuf> {
        self.paths(option).pop()
    }

    /// Its value, for people's texts: bytes that are no text become question marks and fit nothing.
    pub(super) fn text(&self, option: &str) -> Option<String> {
        let value = self.path(option)?;
        Some(value.to_string_lossy().into_owned())
    }

    /// What was said without a name.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// The first of those.
    pub(super) fn word(&self) -> Option<&str> {
        self.words.first().map(String::as_str)
    }
}

/// Reads a line. The first argument is the program's own name.
pub(super) fn read(
    top: &'static Grammar,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Line, Stop> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut reader = lexopt::Parser::from_iter(arguments);
    let mut path = vec![top];
    let mut line = Line::default();
    let told = |path: &[&Grammar], sentence: String| Stop::Mistake(help::mistake(path, &sentence));
    loop {
        let at = path.last().copied().unwrap_or(top);
        let argument = match reader.next() {
            Ok(Some(argument)) => argument,
            Ok(None) => break,
            Err(error) => return Err(told(&path, sentence(&error))),
        };
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Err(Stop::Help(help::of(&path))),
            Arg::Short('V') | Arg::Long("version") if path.len() == 1 => return Err(Stop::Version),
            Arg::Short(letter) => {
                return Err(told(&path, format!("there is no option “-{letter}”")));
            }
            Arg::Long(name) => {
                let Some(option) = options(&path).find(|option| option.name == name) else {
                    let sentence = format!("there is no option “--{name}” here");
                    return Err(told(&path, sentence));
                };
                let mut value = OsString::new();
                if !option.value.is_empty() {
                    value = match reader.value() {
                        Ok(value) => value,
                        Err(error) => return Err(told(&path, sentence(&error))),
                    };
                }
                if let Err(sentence) = line.take(option, value) {
                    return Err(told(&path, sentence));
                }
            }
            Arg::Value(word) => {
                let Ok(word) = word.into_string() else {
                    let sentence = "an argument is no text (UTF-8)".to_owned();
                    return Err(told(&path, sentence));
                };
                if at.commands.is_empty() {
                    line.words.push(word);
                    continue;
                }
                let Some(command) = at.commands.iter().find(|command| command.name == word) else {
                    return Err(told(&path, format!("there is no command “{word}” here")));
                };
                line.commands.push(command.name);
                path.push(command);
            }
        }
    }
    line.check(&path)
        .map_err(|sentence| told(&path, sentence))?;
    Ok(line)
}

/// What can be said with “--” at the last of these commands.
fn options(path: &[&'static Grammar]) -> impl Iterator<Item = &'static Opt> {
    let inner = path.iter().skip(1).last().map(|command| command.options);
    let outer = path.first().map(|command| command.options);
    [inner, outer].into_iter().flatten().flatten()
}

impl Line {
    fn take(&mut self, option: &'static Opt, value: OsString) -> Result<(), String> {
        let name = option.name;
        if self.has(name) && !option.repeats {
            return Err(format!("--{name} can be said once only"));
        }
        if !option.words.is_empty() && !option.words.iter().any(|word| value == **word) {
            let words = option.words.join(", ");
            return Err(format!("--{name} takes one of these: {words}"));
        }
        self.options.push((name, value));
        Ok(())
    }

    fn check(&self, path: &[&'static Grammar]) -> Result<(), String> {
        for option in options(path).filter(|option| self.has(option.name)) {
            let name = option.name;
            if let Some(other) = option.excludes.iter().find(|other| self.has(other)) {
                return Err(format!("--{name} and --{other} can't be said together"));
            }
            if !option.requires.is_empty() && !self.has(option.requires) {
                return Err(format!(
                    "--{name} means nothing without --{}",
                    option.requires
                ));
            }
        }
        let Some(at) = path.last() else {
            return Ok(());
        };
        if !at.commands.is_empty() {
            let names: Vec<&str> = at.commands.iter().map(|command| command.name).collect();
            return Err(format!("a command is missing: {}", names.join(", ")));
        }
        let mut left = self.words.len();
        for positional in at.positionals {
            let name = positional.name;
            match positional.count {
                Count::ManyUnless(option) if self.has(option) => {
                    if left > 0 {
                        return Err(format!("--{option} and {name} can't be said together"));
                    }
                }
                Count::One | Count::ManyUnless(_) if left == 0 => {
                    return Err(format!("{name} is missing"));
                }
                Count::ManyUnless(_) => left = 0,
                Count::One | Count::Optional => left = left.saturating_sub(1),
            }
        }
        match self.words.get(self.words.len() - left) {
            Some(word) => Err(format!("“{word}” is one argument too many")),
            None => Ok(()),
        }
    }
}

/// What is wrong, without the values that were typed.
fn sentence(error: &lexopt::Error) -> String {
    match error {
        lexopt::Error::MissingValue {
            option: Some(option),
        } => format!("the value of {option} is missing"),
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        // Those of conversions, which are not asked for.
        lexopt::Error::MissingValue { option: None }
        | lexopt::Error::UnexpectedOption(_)
        | lexopt::Error::UnexpectedArgument(_)
        | lexopt::Error::ParsingFailed { .. }
        | lexopt::Error::NonUnicodeValue(_)
        | lexopt::Error::Custom(_) => "the line can't be understood".to_owned(),
    }
}

#[cfg(test)]
mod tests;
