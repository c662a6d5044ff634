//! `umbra-agent setup`: the assistant that leads a person from an unconfigured device to a connection that is ready.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use nix::sys::termios::{self, LocalFlags, SetArg};
use nix::unistd::{Uid, User};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use umbra_setup::{Address, Language, Outcome, Rules, Start};

use super::Problem;
use super::grammar::{Grammar, Line, Opt};
use crate::enrolment::Enrolled;
use crate::exit::Exit;
use crate::files::Files;
use crate::paths::Paths;
use crate::registry::Registry;
use crate::setup::keep::{self, Lock, LockError};
use crate::setup::plain::{Echo, NoEcho, Plain, read_lines};
use crate::setup::terminal::{FullScreen, read_keys};
use crate::setup::{self, ThisDevice, json};

/// Keys and lines that may wait to be taken in.
const WAITING: usize = 64;
/// The longest line of the plain face: a key, an address, a line of credentials.
const PLAIN_LINE_MAX: usize = 64 * 1024;

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "setup",
    about: "Connect this device to its server, step by step.",
    more: "It asks for the address, checks the connection, compares the fingerprint and logs on with the first-authentication key. It \
           can be left at any time and goes on where it stopped.",
    examples: &[
        "umbra-agent setup",
        "umbra-agent setup --plain --language de",
    ],
    options: &[
        Opt {
            name: "plain",
            about: "Line by line, with numbered choices: for screen readers, serial lines and scripts.",
            excludes: &["face"],
            ..Opt::FLAG
        },
        Opt {
            name: "face",
            about: "How it is shown; “terminal” where there is one, else “plain”. “json” is for another program that shows it.",
            value: "FACE",
            words: &["terminal", "plain", "json"],
            ..Opt::FLAG
        },
        Opt {
            name: "media",
            about: "Look for credentials in this folder instead of on removable media; may be given several times.",
            value: "DIR",
            repeats: true,
            ..Opt::FLAG
        },
        Opt {
            name: "language",
            about: "The language that is proposed; as the locale says unless given.",
            value: "LANGUAGE",
            words: &["en", "de"],
            ..Opt::FLAG
        },
        Opt {
            name: "require-fingerprint",
            about: "Ask for the fingerprint even where a public authority vouches for the server.",
            ..Opt::FLAG
        },
        Opt {
            name: "fresh",
            about: "Begin anew, without what was entered before.",
            ..Opt::FLAG
        },
    ],
    ..Grammar::NEW
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaceKind {
    Terminal,
    Plain,
    Json,
}

pub(super) async fn run(line: &Line, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let language = match line.text("language").as_deref() {
        Some("de") => Language::De,
        Some(_) => Language::En,
        None => of_environment(),
    };
    let (start, _lock) = begin(line.has("fresh"), language, paths)?;
    let rules = Rules {
        require_fingerprint: line.has("require-fingerprint")
            || Registry::open(paths, &Files::new())
                .snapshot()
                .require_fingerprint,
        seed: seed()?,
    };
    let device = Arc::new(ThisDevice::new(paths.clone(), line.paths("media")));
    let outcome = match kind(line) {
        FaceKind::Terminal => {
            let (sender, mut keys) = mpsc::channel(WAITING);
            let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let mut face = FullScreen::take(out, colours)?;
            std::thread::spawn(move || read_keys(&sender));
            setup::run(start, rules, device, &mut face, &mut keys, stop()).await
        }
        FaceKind::Plain => {
            let mut lines = lines(PLAIN_LINE_MAX);
            let echo: Box<dyn Echo> = if io::stdin().is_terminal() {
                Box::new(TerminalEcho)
            } else {
                Box::new(NoEcho)
            };
            let mut face = Plain::new(out, echo);
            setup::run(start, rules, device, &mut face, &mut lines, stop()).await
        }
        FaceKind::Json => {
            let mut lines = lines(json::LINE_MAX);
            let mut face = json::Json::new(out);
            setup::run(start, rules, device, &mut face, &mut lines, stop()).await
        }
    };
    let outcome = outcome.map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            Problem::of(Exit::Data, &error)
        } else {
            Problem::from(error)
        }
    })?;
    Ok(match outcome {
        Outcome::Ready | Outcome::Belonged => Exit::Ok,
        Outcome::Left => Exit::Failed,
        Outcome::Taken => Exit::TryAgain,
    })
}

/// Where the assistant begins, and the right to be the only one.
fn begin(fresh: bool, language: Language, paths: &Paths) -> Result<(Start, Option<Lock>), Problem> {
    if let Some(enrolled) = Enrolled::load(paths)? {
        let address = Address {
            host: enrolled.host,
            port: enrolled.port,
        };
        return Ok((Start::Belongs { language, address }, None));
    }
    let lock = match Lock::take(paths, &who()) {
        Ok(lock) => lock,
        Err(LockError::Taken { who }) => return Ok((Start::Taken { language, who }, None)),
        Err(LockError::File(error)) => return Err(Problem::from(error)),
    };
    if fresh {
        keep::forget(paths, &Files::new())?;
    }
    let start = keep::load(paths).map_or(Start::Fresh(language), Start::Resume);
    Ok((start, Some(lock)))
}

fn kind(line: &Line) -> FaceKind {
    match line.text("face").as_deref() {
        Some("terminal") => return FaceKind::Terminal,
        Some("json") => return FaceKind::Json,
        Some(_) => return FaceKind::Plain,
        None => {}
    }
    let is_dumb = std::env::var("TERM").map_or(true, |term| term.is_empty() || term == "dumb");
    let is_seen = io::stdin().is_terminal() && io::stdout().is_terminal();
    if line.has("plain") || is_dumb || !is_seen {
        FaceKind::Plain
    } else {
        FaceKind::Terminal
    }
}

fn of_environment() -> Language {
    ["LC_ALL", "LC_MESSAGES", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|locale| !locale.is_empty())
        .and_then(|locale| Language::of_locale(&locale))
        .unwrap_or_default()
}

/// Who has the lock, for the person at a second assistant.
fn who() -> String {
    let user = User::from_uid(Uid::current())
        .ok()
        .flatten()
        .map_or_else(|| Uid::current().to_string(), |user| user.name);
    let place = std::fs::read_link("/proc/self/fd/0")
        .map_or_else(|_| "?".to_owned(), |place| place.display().to_string());
    format!("{user}, {place}, PID {}", std::process::id())
}

fn seed() -> Result<u64, Problem> {
    let mut bytes = [0; 8];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes)
        .map_err(|_| Problem::new(Exit::Internal, "the system gives no random numbers"))?;
    Ok(u64::from_le_bytes(bytes))
}

fn lines(max: usize) -> mpsc::Receiver<setup::plain::Typed> {
    let (sender, lines) = mpsc::channel(WAITING);
    // The process does not wait for a line that never comes.
    std::thread::spawn(move || read_lines(&mut io::stdin().lock(), max, &sender));
    lines
}

/// The end from outside: the service manager, the terminal's hanging up, Ctrl-C.
async fn stop() {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::quit()) => {}
    }
}

/// The terminal on standard input.
struct TerminalEcho;

impl Echo for TerminalEcho {
    fn show(&mut self, on: bool) {
        let input = io::stdin();
        if let Ok(mut state) = termios::tcgetattr(&input) {
            state.local_flags.set(LocalFlags::ECHO, on);
            // Where it can't be set, nothing better is left to do.
            let _ = termios::tcsetattr(&input, SetArg::TCSANOW, &state);
        }
    }
}
