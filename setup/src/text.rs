//! Text from outside, made fit to be shown: what came over the network or from a file must not move the cursor, turn the
//! direction of writing round, or push everything else off the screen.

/// The longest text from outside that is shown, in characters.
pub const SHOWN_MAX: usize = 600;

/// The text without anything that is not plainly visible, and not too long. Line ends become spaces.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    let mut last_is_space = true;
    for (count, character) in text.chars().enumerate() {
        if count >= SHOWN_MAX {
            shown.push('…');
            break;
        }
        if character.is_whitespace() {
            if !last_is_space {
                shown.push(' ');
            }
            last_is_space = true;
            continue;
        }
        last_is_space = false;
        shown.push(if is_invisible(character) {
            '\u{fffd}'
        } else {
            character
        });
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// Controls, and what changes direction or joins without being seen.
pub(crate) fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// In groups of four, for reading aloud.
pub fn grouped(text: &str) -> String {
    let mut shown = String::new();
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 4 == 0 {
            shown.push(' ');
        }
        shown.push(character);
    }
    shown
}

/// Puts values into the places of a template: `{name}`.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    // A value is never looked into: it may hold braces.
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            filled.push('{');
            rest = after;
            continue;
        };
        if let Some((_, value)) = values.iter().find(|(key, _)| *key == name) {
            filled.push_str(value);
        }
        rest = behind;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_move_the_cursor_or_turn_the_writing_round_is_not_shown() {
        assert_eq!(
            printable("a\u{1b}[2Jb\u{202e}c\r\n\td\u{200b}e "),
            "a\u{fffd}[2Jb\u{fffd}c d\u{fffd}e"
        );
        assert_eq!(printable("äöü ß – “x”"), "äöü ß – “x”");
        let long = printable(&"x".repeat(10_000_000));
        assert_eq!(long.chars().count(), SHOWN_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn values_are_put_into_their_places_and_never_looked_into() {
        assert_eq!(
            fill("{a} and {b}!", &[("a", "{b}"), ("b", "two")]),
            "{b} and two!"
        );
        assert_eq!(fill("open { end", &[]), "open { end");
        assert_eq!(fill("{a", &[("a", "x")]), "{a");
    }

    #[test]
    fn a_part_of_a_fingerprint_is_read_in_fours() {
        assert_eq!(grouped("0123456789ABCDEF"), "0123 4567 89AB CDEF");
        assert_eq!(grouped(""), "");
    }
}
