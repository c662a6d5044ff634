//! Text from the other side that people will see: one line, bounded, without characters that move a cursor or turn the reading
//! direction. Nothing that came over a wire may be shown or logged without passing here.

/// Whether a character may be shown as it is.
pub(crate) fn is_shown(c: char) -> bool {
    let reorders = matches!(c, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}');
    !c.is_control() && !reorders && !breaks
}

/// The text as one line of at most so many bytes; what can't be shown becomes a space.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if is_shown(c) { c } else { ' ' }) {
        if line.len() + c.len_utf8() > max {
            break;
        }
        line.push(c);
    }
    line
}

/// The same for bytes that should be text.
pub(crate) fn one_line_of(bytes: &[u8], max: usize) -> String {
    one_line(String::from_utf8_lossy(bytes).trim(), max)
}
