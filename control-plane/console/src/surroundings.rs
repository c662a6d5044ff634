//! What the program has around it: where it writes, whom it can ask, what time it is, what it may draw lots with. Commands
//! get all of it as arguments, so that tests stand where a person and a terminal stand otherwise.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::signal::unix::{SignalKind, signal};
use umbra_protocol::Secret;

/// The longest line that a person types.
const LINE_MAX: u64 = 4 * 1024;

/// Somebody who may be sitting in front of the program.
pub trait Person {
    /// Whether anybody is there to answer.
    fn is_there(&self) -> bool;

    /// Shows a question and reads one line; nothing when the input has ended.
    ///
    /// # Errors
    /// What the terminal reports.
    fn ask(&mut self, question: &str) -> io::Result<Option<String>>;

    /// Shows a question and reads one line that does not appear on the screen.
    ///
    /// # Errors
    /// What the terminal reports.
    fn ask_secret(&mut self, question: &str) -> io::Result<Secret>;

    /// Everything on the standard input, up to so many bytes, for `FILE` arguments that say `-`.
    ///
    /// # Errors
    /// What the input reports.
    fn standard_input(&mut self, limit: u64) -> io::Result<Vec<u8>>;
}

/// Everything around the program.
pub struct Surroundings<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Notes and questions.
    pub notes: &'a mut dyn Write,
    /// Whom to ask.
    pub person: &'a mut dyn Person,
    /// Seconds since 1970.
    pub now: fn() -> i64,
    /// Draws one of four lots.
    pub lot_of_four: fn() -> usize,
    /// A variable of the environment.
    pub environment: fn(&str) -> Option<String>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

impl Surroundings<'_> {
    /// Writes a note for a person and sends it off at once. A note that cannot be written is no reason to stop.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.notes, "{text}");
        let _ = self.notes.flush();
    }
}

/// The person at this process's terminal.
#[derive(Debug)]
pub struct AtTerminal;

impl Person for AtTerminal {
    fn is_there(&self) -> bool {
        io::stdin().is_terminal()
    }

    fn ask(&mut self, question: &str) -> io::Result<Option<String>> {
        let mut notes = io::stderr().lock();
        write!(notes, "{question}")?;
        notes.flush()?;
        let mut line = String::new();
        let read = io::stdin().lock().take(LINE_MAX).read_line(&mut line)?;
        Ok((read > 0).then_some(line))
    }

    fn ask_secret(&mut self, question: &str) -> io::Result<Secret> {
        let mut notes = io::stderr().lock();
        write!(notes, "{question}")?;
        notes.flush()?;
        rpassword::read_password().map(Secret::new)
    }

    fn standard_input(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The time by this machine's clock, in seconds since 1970.
pub fn system_clock() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A variable of this process's environment, where it is text.
pub fn system_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// One of four lots, by the system's random numbers.
pub fn system_lot() -> usize {
    let mut byte = [0];
    // Without random numbers no TLS connection would have come about either; the part is a courtesy then.
    let _ = SystemRandom::new().fill(&mut byte);
    usize::from(byte[0] % 4)
}

/// Completes when the person wants the program to end: Ctrl-C, or the system's request to stop.
pub async fn interrupted() {
    let watch = || -> io::Result<_> {
        Ok((
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ))
    };
    match watch() {
        Ok((mut interrupt, mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // The signals keep their usual effect then: they end the program.
        Err(_) => std::future::pending().await,
    }
}
