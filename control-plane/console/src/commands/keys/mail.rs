//! Credentials as an e-mail: the text in it, and `icg.xml` with it. An address from the command line never becomes more than
//! an address, in the headers or on the way to a mail server.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use umbra_protocol::KeyId;
use umbra_protocol::credentials::Credentials;
use zeroize::Zeroizing;

use crate::text::iso;

/// Most recipients of one e-mail.
const MOST: usize = 100;

/// An address of an e-mail: `name@example.com`, nothing around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address(String);

impl Address {
    /// Reads one address.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let good = text.rsplit_once('@').is_some_and(|(local, domain)| {
            let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
            let dots = |text: &str| text.split('.').all(|part| !part.is_empty());
            (1..=64).contains(&local.len())
                && local.bytes().all(|b| b == b'.' || atom(b))
                && dots(local)
                && (1..=253).contains(&domain.len())
                && domain
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
                && dots(domain)
        });
        if good {
            Ok(Self(text.to_owned()))
        } else {
            let shown: String = text.escape_debug().take(80).collect();
            Err(format!(
                "“{shown}” is no e-mail address like anna@example.com"
            ))
        }
    }

    /// Reads addresses that stand apart by semicolons (or commas); on mistakes, a sentence for each.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, Vec<String>> {
        let (mut good, mut mistakes) = (Vec::new(), Vec::new());
        for part in text
            .split([';', ','])
            .filter(|part| !part.trim().is_empty())
        {
            match Self::parse(part) {
                Ok(address) if good.contains(&address) => {}
                Ok(address) => good.push(address),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if good.is_empty() && mistakes.is_empty() {
            mistakes.push("--to names nobody".to_owned());
        }
        if good.len() > MOST {
            mistakes.push(format!("an e-mail has at most {MOST} recipients"));
        }
        if mistakes.is_empty() {
            Ok(good)
        } else {
            Err(mistakes)
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

/// Who writes to whom, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope<'a> {
    /// Who sends it; nobody yet for a draft.
    pub(super) from: Option<&'a Address>,
    /// Who gets it.
    pub(super) to: &'a [Address],
    /// Seconds since 1970.
    pub(super) at: i64,
    /// Which key it brings.
    pub(super) key: KeyId,
}

/// The e-mail, with the line ends of e-mails.
pub(super) fn of(credentials: &Credentials, envelope: &Envelope<'_>) -> Zeroizing<String> {
    let text = credentials.to_text();
    let xml = credentials.to_xml();
    let mut mail = Zeroizing::new(String::with_capacity(4_096 + text.len() + 2 * xml.len()));
    // The key ID is stretched out of the key, so no key can hold it: the boundary is in no part.
    let boundary = format!("=_umbra_{}", envelope.key);
    // Writing to a String cannot fail.
    if let Some(from) = envelope.from {
        let _ = write!(mail, "From: <{}>\r\n", from.0);
        let _ = write!(
            mail,
            "Message-ID: <{}.{}@{}>\r\n",
            envelope.key,
            envelope.at,
            from.domain()
        );
    } else {
        // Mail programs open it as a draft, and put in who sends it.
        mail.push_str("X-Unsent: 1\r\n");
    }
    for (index, to) in envelope.to.iter().enumerate() {
        let lead = if index == 0 { "To: " } else { ",\r\n " };
        let _ = write!(mail, "{lead}<{}>", to.0);
    }
    if !envelope.to.is_empty() {
        mail.push_str("\r\n");
    }
    let _ = write!(
        mail,
        "Date: {}\r\nSubject: How to connect your device\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         Start the device and follow its assistant. It asks for the host, for the part\r\n\
         of the fingerprint that it leaves out, and for the key. If a part of the\r\n\
         fingerprint differs from the one below, stop and call your administrator.\r\n\r\n\
         Or copy the attached icg.xml to a USB stick and plug it into the device.\r\n\r\n\
         Treat this message like a password, and delete it when the device is connected.\r\n\r\n",
        date(envelope.at)
    );
    for line in text.lines() {
        let _ = write!(mail, "{line}\r\n");
    }
    let _ = write!(
        mail,
        "\r\n--{boundary}\r\nContent-Type: application/xml; name=\"icg.xml\"\r\n\
         Content-Disposition: attachment; filename=\"icg.xml\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    let encoded = Zeroizing::new(STANDARD.encode(xml.as_bytes()));
    for line in encoded.as_bytes().chunks(76) {
        mail.extend(line.iter().map(|b| char::from(*b)));
        mail.push_str("\r\n");
    }
    let _ = write!(mail, "--{boundary}--\r\n");
    mail
}

/// A moment as e-mails write it (RFC 5322): `Sun, 01 Mar 2026 07:05:09 +0000`.
fn date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let iso = iso(seconds);
    let (day, time) = iso.split_once('T').unwrap_or((&iso, ""));
    let mut parts = day.split('-');
    let year = parts.next().unwrap_or_default();
    let month = parts.next().and_then(|month| month.parse::<usize>().ok());
    let month = MONTHS[month.unwrap_or(1).clamp(1, 12) - 1];
    let day = parts.next().unwrap_or_default();
    // 1970 began on a Thursday.
    let weekday = usize::try_from(seconds.div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
    format!(
        "{}, {day} {month} {year} {} +0000",
        DAYS[weekday],
        time.trim_end_matches('Z')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_e_mails_have_them() {
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(date(1_772_348_709), "Sun, 01 Mar 2026 07:05:09 +0000");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
    }

    #[test]
    fn recipients_stand_apart_by_semicolons_and_every_mistake_is_told() {
        let read = |text: &str| {
            Address::parse_all(text).map(|all| {
                let all: Vec<String> = all.iter().map(|one| one.0.clone()).collect();
                all.join(" ")
            })
        };
        assert_eq!(
            read("a@x.example;b.c+d@y.example"),
            Ok("a@x.example b.c+d@y.example".into())
        );
        assert_eq!(read(" a@x ; a@x; ,b@y;"), Ok("a@x b@y".into()));
        for bad in [
            "a",
            "@x",
            "a@",
            "a b@x",
            "a@x y",
            "Anna <a@x>",
            "a@x\r\nBcc: e@evil.example",
            "a@x>",
            "a..b@x",
            "a@x..y",
            "a@b@c",
            "ä@x",
            "a@[127.0.0.1]",
        ] {
            let mistakes = read(&format!("good@x;{bad}")).expect_err(bad);
            assert_eq!(mistakes.len(), 1, "{bad}: {mistakes:?}");
            assert!(!mistakes[0].contains(['\r', '\n']), "{mistakes:?}");
        }
        assert_eq!(read("a;b").expect_err("two").len(), 2);
        assert!(read(" ; ").is_err());
    }
}
