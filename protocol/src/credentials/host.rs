//! Host names out of files, records and keyboards: which of them can be one, and how one is shown to a person. Nothing
//! here may let a name look like another one, move the cursor, or turn the reading direction.

use std::net::{IpAddr, Ipv6Addr};

/// Longest name (RFC 1035) and longest part of it, in bytes.
const NAME: usize = 253;
const LABEL: usize = 63;

/// Whether a text can be a host: an IP address, or a name of letters, digits, hyphens, underscores and single dots.
pub(super) fn is_host(host: &str) -> bool {
    if host.parse::<IpAddr>().is_ok() || is_zoned(host) {
        return true;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let labels_good = name.split('.').all(|label| {
        (1..=LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    });
    // What looks like an IPv4 address and is none would be looked up as one by some systems.
    let number_last = name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= NAME && labels_good && !number_last
}

/// An IPv6 address with the interface behind it, like `fe80::1%eth0`.
fn is_zoned(host: &str) -> bool {
    host.split_once('%').is_some_and(|(address, zone)| {
        address.parse::<Ipv6Addr>().is_ok()
            && (1..=16).contains(&zone.len())
            && zone
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    })
}

/// A host name as it is safely shown to a person. What is plain ASCII is shown as it is. A name with other letters is shown
/// in its ASCII form (`xn--…`) with the name as it was written behind it: `pаypal.com` with a Cyrillic letter does not pass
/// for `paypal.com`. Control characters, and all that takes no room or turns the direction of text, are written as escapes;
/// what is too long for a name is cut.
///
/// ```
/// use umbra_protocol::credentials::shown_host;
/// assert_eq!(shown_host("ums.example.com"), "ums.example.com");
/// assert_eq!(shown_host("müller.example"), "xn--mller-kva.example (written “müller.example”)");
/// assert_eq!(shown_host("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
/// ```
pub fn shown_host(host: &str) -> String {
    let short: String = host.chars().take(NAME).collect();
    let cut = if short.len() < host.len() { "…" } else { "" };
    let readable = |c: char| c.is_ascii_graphic() || (c.is_alphanumeric() && !is_unseen(c));
    if !short.is_ascii()
        && short.chars().all(readable)
        && let Some(ascii) = ascii_form(&short)
    {
        return format!("{ascii} (written “{short}{cut}”)");
    }
    let escaped: String = short
        .chars()
        .flat_map(|c| {
            let plain = (c.is_ascii_graphic() || c == ' ').then_some(c);
            let escape = plain.is_none().then(|| c.escape_default());
            plain.into_iter().chain(escape.into_iter().flatten())
        })
        .collect();
    format!("{escaped}{cut}")
}

/// Letters by the Unicode tables that take no room on a screen.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
    )
}

/// The name in the form in which it is looked up: each part that is not ASCII in lower case and Punycode.
fn ascii_form(host: &str) -> Option<String> {
    let labels: Option<Vec<String>> = host
        .split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'])
        .map(|label| {
            if label.is_ascii() {
                Some(label.to_ascii_lowercase())
            } else {
                let lower: Vec<char> = label.chars().flat_map(char::to_lowercase).collect();
                punycode(&lower).map(|code| format!("xn--{code}"))
            }
        })
        .collect();
    labels.map(|labels| labels.join("."))
}

/// Punycode (RFC 3492) of one part of a name; nothing where it would not fit.
fn punycode(label: &[char]) -> Option<String> {
    const BASE: u32 = 36;
    const T_MIN: u32 = 1;
    const T_MAX: u32 = 26;
    const SKEW: u32 = 38;
    const DAMP: u32 = 700;
    const INITIAL_BIAS: u32 = 72;
    fn digit(value: u32) -> Option<char> {
        let byte = u8::try_from(value).ok()?;
        Some(char::from(if byte < 26 {
            b'a' + byte
        } else {
            b'0' + (byte - 26)
        }))
    }
    fn adapt(delta: u32, points: u32, first: bool) -> u32 {
        let mut delta = delta / if first { DAMP } else { 2 };
        delta += delta / points;
        let mut k = 0;
        while delta > (BASE - T_MIN) * T_MAX / 2 {
            delta /= BASE - T_MIN;
            k += BASE;
        }
        k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
    }

    let mut output: String = label.iter().filter(|c| c.is_ascii()).collect();
    let basic = u32::try_from(output.len()).ok()?;
    let mut handled = basic;
    if basic > 0 {
        output.push('-');
    }
    let (mut next, mut delta, mut bias) = (0x80_u32, 0_u32, INITIAL_BIAS);
    while usize::try_from(handled).ok()? < label.len() {
        let smallest = label
            .iter()
            .map(|c| u32::from(*c))
            .filter(|c| *c >= next)
            .min()?;
        delta = delta.checked_add((smallest - next).checked_mul(handled + 1)?)?;
        next = smallest;
        for c in label.iter().map(|c| u32::from(*c)) {
            if c < next {
                delta = delta.checked_add(1)?;
            }
            if c == next {
                let mut rest = delta;
                let mut k = BASE;
                loop {
                    let threshold = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
                    if rest < threshold {
                        break;
                    }
                    output.push(digit(threshold + (rest - threshold) % (BASE - threshold))?);
                    rest = (rest - threshold) / (BASE - threshold);
                    k += BASE;
                }
                output.push(digit(rest)?);
                bias = adapt(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        next += 1;
    }
    (output.len() + "xn--".len() <= LABEL).then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_imitates_another_is_shown_in_its_ascii_form() {
        // The last four are from RFC 3492, section 7.1.
        for (written, ascii) in [
            ("p\u{430}ypal.com", "xn--pypal-4ve.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye"),
            ("3年b組金八先生", "xn--3b-ww4c5e180e575a65lsy2b"),
            ("ひとつ屋根の下2", "xn--2-u9tlzr9756bt3uc0v"),
            ("maji", "maji"),
        ] {
            let expected = match written.is_ascii() {
                true => ascii.to_owned(),
                false => format!("{ascii} (written “{written}”)"),
            };
            assert_eq!(shown_host(written), expected);
        }
    }

    #[test]
    fn what_nobody_sees_and_what_moves_the_cursor_is_written_out() {
        for (host, shown) in [
            ("ums\u{200b}.example.com", "ums\\u{200b}.example.com"),
            ("ums\u{202e}moc.example", "ums\\u{202e}moc.example"),
            ("ums\u{3164}.example", "ums\\u{3164}.example"),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            ("\u{7f}", "\\u{7f}"),
        ] {
            assert_eq!(shown_host(host), shown);
        }
        let long = shown_host(&"ü".repeat(10_000));
        assert!(long.len() < 4_000 && long.ends_with('…'), "{long}");
    }

    #[test]
    fn hosts_are_told_from_what_is_none() {
        for good in [
            "ums",
            "ums.example.com",
            "ums.example.com.",
            "my_host",
            "10.0.0.1",
            "fe80::1",
            "fe80::1%eth0",
            "xn--mller-kva.example",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "https://a",
            "a:8443",
            "[fe80::1]",
            "10.0.0.256",
            "ums.1",
            "müller.example",
            "a\u{0}",
            "$(id)",
            &"a".repeat(64),
            &"a.".repeat(200),
        ] {
            assert!(!is_host(bad), "{bad:?}");
        }
    }
}
