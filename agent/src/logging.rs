//! The journal: what the agent writes to stderr, one line per event, without colours. How much is decided by `--log`, else by the
//! parameter `umbra.log.level`, which may change while the agent runs.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use crate::clock::{calendar, date};

/// Changes how much is logged.
#[derive(Clone, Debug)]
pub struct Logging {
    level: Arc<RwLock<LevelFilter>>,
}

/// Begins to log at this level; whoever began before stays in charge (in a test).
pub fn start(level: &str) -> Logging {
    let logging = Logging::at(level);
    let lines = Lines {
        logging: logging.clone(),
        // The service manager stamps each line by itself.
        stamped: std::env::var_os("JOURNAL_STREAM").is_none(),
    };
    let _ = tracing::subscriber::set_global_default(lines);
    logging
}

impl Logging {
    fn at(level: &str) -> Self {
        Self {
            level: Arc::new(RwLock::new(read(level))),
        }
    }

    /// From now on at this level.
    pub fn set(&self, level: &str) {
        *self.level.write().unwrap_or_else(PoisonError::into_inner) = read(level);
    }

    /// Whether an event is to be written: those of our own crates at this level; those of the libraries below only when something
    /// is wrong with them.
    fn lets(&self, target: &str, level: tracing::Level) -> bool {
        const OURS: [&str; 3] = ["umbra_agent", "umbra_carrier", "umbra_vnc_proxy"];
        let limit = *self.level.read().unwrap_or_else(PoisonError::into_inner);
        let ours = OURS.iter().any(|name| target.starts_with(name));
        level
            <= if ours {
                limit
            } else {
                limit.min(LevelFilter::WARN)
            }
    }
}

fn read(level: &str) -> LevelFilter {
    level.parse().unwrap_or(LevelFilter::INFO)
}

/// Writes the lines. There are no spans in this program.
struct Lines {
    logging: Logging,
    stamped: bool,
}

impl Subscriber for Lines {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // What is wanted may change at any time, so it is asked for each time.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logging.lets(metadata.target(), *metadata.level())
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = String::new();
        if self.stamped {
            line.push_str(&stamp(SystemTime::now()));
            line.push(' ');
        }
        // Writing to a string can't fail.
        let _ = write!(line, "{:>5}", event.metadata().level().as_str());
        event.record(&mut Fields { line: &mut line });
        line.push('\n');
        // In one piece, so that lines of several programs never mix. Nobody is left to tell where that fails.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Puts the fields of an event into a line: the message as it is, the others with their names.
struct Fields<'a> {
    line: &'a mut String,
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.line.push(' ');
        let name = field.name();
        if name != "message" {
            self.line.push_str(name.trim_start_matches("r#"));
            self.line.push('=');
        }
        // Writing to a string can't fail.
        let _ = write!(OneLine(self.line), "{value:?}");
    }
}

/// Keeps what strangers say from ending the line, and from steering the terminal of whoever reads it.
struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character.is_control() {
                true => self.0.extend(character.escape_default()),
                false => self.0.push(character),
            }
        }
        Ok(())
    }
}

/// A moment in UTC, to the microsecond.
fn stamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    if calendar(seconds).is_none() {
        return seconds.to_string();
    }
    let of_day = seconds.rem_euclid(86_400);
    format!(
        "{}T{:02}:{:02}:{:02}.{:06}Z",
        date(seconds),
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_never_flood_the_journal() {
        let debug = Logging::at("debug");
        assert!(debug.lets("umbra_agent::link", Level::DEBUG));
        assert!(!debug.lets("umbra_agent::link", Level::TRACE));
        assert!(!debug.lets("rustls", Level::INFO));
        assert!(debug.lets("rustls", Level::WARN));
        assert!(!Logging::at("error").lets("rustls", Level::WARN));
        assert!(Logging::at("nonsense").lets("umbra_agent", Level::INFO));
        assert!(!Logging::at("off").lets("umbra_agent", Level::ERROR));
        debug.set("warn");
        assert!(!debug.lets("umbra_agent", Level::INFO));
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let mut text = String::new();
        let _ = write!(OneLine(&mut text), "a\nb\u{1b}[31mc ä");
        assert_eq!(text, "a\\nb\\u{1b}[31mc ä");
    }

    #[test]
    fn a_line_is_stamped_in_utc() {
        let at =
            |seconds: u64, micros| UNIX_EPOCH + Duration::from_micros(seconds * 1_000_000 + micros);
        assert_eq!(stamp(at(0, 0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(stamp(at(1_795_403_714, 42)), "2026-11-23T03:15:14.000042Z");
    }
}
