//! Words, numbers and times as people read them in a terminal. Whatever came from a server or a device passes
//! [`printable`] before it is shown: nothing here may let a name move the cursor or turn the reading direction.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The text on one line, with control characters and those that turn the direction of text written as escapes.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_shown(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

/// A JSON document that means the same and moves no cursor either: JSON itself escapes less than a terminal obeys.
pub fn printable_json(document: &str) -> String {
    let mut shown = String::with_capacity(document.len());
    for c in document.chars() {
        // Outside of texts, documents hold nothing of this but line feeds.
        if c == '\n' || is_shown(c) {
            shown.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    shown
}

fn is_shown(c: char) -> bool {
    let turns = matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    // Nobody sees these: two names that differ only in them would look alike.
    let hides = matches!(c, '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !turns && !breaks && !hides
}

/// How many columns of a terminal the text takes.
pub fn columns(text: &str) -> usize {
    text.chars()
        .map(|c| match c {
            // Marks that combine with the letter before them, and joiners.
            '\u{0300}'..='\u{036f}' | '\u{200b}'..='\u{200d}' | '\u{fe00}'..='\u{fe0f}' => 0,
            // East Asian wide forms and pictures.
            '\u{1100}'..='\u{115f}'
            | '\u{2e80}'..='\u{a4cf}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{f900}'..='\u{faff}'
            | '\u{fe30}'..='\u{fe4f}'
            | '\u{ff00}'..='\u{ff60}'
            | '\u{ffe0}'..='\u{ffe6}'
            | '\u{1f300}'..='\u{1faff}'
            | '\u{20000}'..='\u{3fffd}' => 2,
            _ => 1,
        })
        .sum()
}

/// A moment as ISO 8601 in UTC: `2026-03-01T07:05:09Z`.
pub fn iso(seconds: i64) -> String {
    let day_length = i64::try_from(DAY).unwrap_or(86_400);
    let days = seconds.div_euclid(day_length);
    let of_day = seconds.rem_euclid(day_length);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// Year, month and day of a day counted from 1970-01-01 (the proleptic Gregorian calendar, whose leap days end its
/// 400-year eras when years begin in March).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// How long ago, or in how long, seen from `now`: `3 min ago`, `in 7 days`.
pub fn relative(seconds: i64, now: i64) -> String {
    let distance = seconds.abs_diff(now);
    if distance < 5 {
        return "now".to_owned();
    }
    let span = rough(distance);
    if seconds < now {
        format!("{span} ago")
    } else {
        format!("in {span}")
    }
}

/// A moment both ways: `2026-03-01T07:05:09Z (3 min ago)`.
pub fn moment(seconds: i64, now: i64) -> String {
    format!("{} ({})", iso(seconds), relative(seconds, now))
}

/// A span in its largest unit.
fn rough(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..MINUTE => (seconds, "s"),
        MINUTE..HOUR => (seconds / MINUTE, "min"),
        HOUR..DAY => (seconds / HOUR, "h"),
        _ => (
            seconds / DAY,
            if seconds < 2 * DAY { "day" } else { "days" },
        ),
    };
    format!("{count} {unit}")
}

/// How long something took: `850 ms`, `4 s`, `3 min 20 s`, `1 h 2 min`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min {} s", seconds / MINUTE, seconds % MINUTE),
        _ => format!("{} h {} min", seconds / HOUR, seconds / MINUTE % 60),
    }
}

/// An amount of data: `812 bytes`, `3.4 KiB`, `12.0 MiB`.
pub fn amount(bytes: u64) -> String {
    const STEP: u64 = 1024;
    if bytes < STEP {
        return format!("{bytes} bytes");
    }
    let mut unit = STEP;
    let mut names = ["KiB", "MiB", "GiB", "TiB"].iter();
    let mut name = names.next().copied().unwrap_or("KiB");
    for next in names {
        if bytes / unit < STEP {
            break;
        }
        unit *= STEP;
        name = next;
    }
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

/// Reads a span as people write it: `7d`, `12h`, `30min`, `90s`, `2w`, `1d12h`.
///
/// # Errors
/// [`SpanError`], saying what would be understood.
pub fn parse_span(text: &str) -> Result<Duration, SpanError> {
    const MOST: u64 = 100 * 366 * DAY;
    let wrong = || SpanError::NotASpan(printable(text).chars().take(40).collect());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "s" => 1,
            "m" | "min" => MINUTE,
            "h" => HOUR,
            "d" => DAY,
            "w" => 7 * DAY,
            _ => return Err(wrong()),
        };
        let count: u64 = number.parse().map_err(|_| wrong())?;
        total = count
            .checked_mul(seconds)
            .and_then(|part| part.checked_add(total))
            .filter(|total| *total <= MOST)
            .ok_or(SpanError::TooLong)?;
        rest = after.trim_start();
    }
    if total == 0 {
        return Err(SpanError::Nothing);
    }
    Ok(Duration::from_secs(total))
}

/// Why a text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Not a number with a unit.
    #[error("“{0}” is no span of time: write a number and s, min, h, d or w, like 90s, 12h or 7d")]
    NotASpan(String),
    /// Zero.
    #[error("the span of time must be longer than nothing")]
    Nothing,
    /// Longer than anybody means.
    #[error("the span of time is longer than a hundred years")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_iso_in_utc() {
        assert_eq!(iso(0), "1970-01-01T00:00:00Z");
        assert_eq!(iso(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(iso(1_772_348_709), "2026-03-01T07:05:09Z");
        assert_eq!(iso(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(iso(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(iso(-1), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn distances_are_said_in_their_largest_unit() {
        let now = 1_000_000;
        for (at, said) in [
            (now, "now"),
            (now - 59, "59 s ago"),
            (now - 200, "3 min ago"),
            (now - 7_200, "2 h ago"),
            (now - 90_000, "1 day ago"),
            (now + 7 * 86_400, "in 7 days"),
        ] {
            assert_eq!(relative(at, now), said);
        }
        assert!(!relative(i64::MIN, i64::MAX).is_empty());
        assert!(!iso(i64::MAX).is_empty());
    }

    #[test]
    fn spans_are_read_in_every_unit_and_together() {
        for (text, seconds) in [
            ("90s", 90),
            ("30min", 1_800),
            ("30m", 1_800),
            ("12h", 43_200),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1d12h", 129_600),
            (" 1d 12h ", 129_600),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "7", "d", "-1d", "7 days", "7y", "1.5h", "sieben"] {
            assert!(
                matches!(parse_span(bad), Err(SpanError::NotASpan(_))),
                "{bad:?}"
            );
        }
        assert_eq!(parse_span("0s"), Err(SpanError::Nothing));
        assert_eq!(parse_span("99999999999d"), Err(SpanError::TooLong));
        assert_eq!(parse_span("18446744073709551615w"), Err(SpanError::TooLong));
    }

    #[test]
    fn amounts_and_durations_are_short() {
        for (bytes, said) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_024, "1.0 KiB"),
            (3_500, "3.4 KiB"),
            (12 << 20, "12.0 MiB"),
        ] {
            assert_eq!(amount(bytes), said);
        }
        assert!(amount(u64::MAX).ends_with("TiB"));
        assert_eq!(span(Duration::from_millis(850)), "850 ms");
        assert_eq!(span(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(span(Duration::from_secs(3_720)), "1 h 2 min");
    }

    #[test]
    fn names_cannot_move_the_cursor_or_turn_the_text() {
        assert_eq!(
            printable("a\u{1b}[2Jb\r\nc\u{202e}d"),
            "a\\u{1b}[2Jb\\r\\nc\\u{202e}d"
        );
        assert_eq!(printable("Zähler 5 €"), "Zähler 5 €");
        assert_eq!(
            printable("a\u{61c}b\u{feff}c\u{e0041}d\u{200b}"),
            "a\\u{61c}b\\u{feff}c\\u{e0041}d\\u{200b}"
        );
    }

    #[test]
    fn a_document_means_the_same_and_moves_no_cursor() {
        let name = "Zähler\u{7f}\u{9b}2J\u{202e}\u{e0041}\n端末";
        let document = serde_json::json!({ name: [name] });
        let written = serde_json::to_string_pretty(&document).expect("written");
        let shown = printable_json(&written);
        assert!(shown.contains("\\u009b2J\\u202e\\udb40\\udc41"), "{shown}");
        assert!(shown.chars().all(|c| c == '\n' || is_shown(c)), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).expect("read");
        assert_eq!(read, document);
    }

    #[test]
    fn wide_and_combining_characters_are_counted_as_terminals_show_them() {
        assert_eq!(columns("abc"), 3);
        assert_eq!(columns("端末"), 4);
        assert_eq!(columns("e\u{301}"), 1);
    }
}
