//! Credentials as a page to be printed (`icg.html`): readable without any network, with a QR code of the text. It holds no
//! script and asks for nothing from elsewhere, and whatever came from outside is escaped.

use std::fmt::Write as _;

use qrcodegen::{QrCode, QrCodeEcc};
use umbra_protocol::credentials::Credentials;
use zeroize::Zeroizing;

use super::pouch::Kept;
use crate::text::{iso, printable};

/// Longest text in a QR code that a telephone still reads from paper, in bytes.
const QR_TEXT: usize = 1_200;

const STYLE: &str = "\
body{font:11pt/1.4 sans-serif;color:#000;background:#fff;margin:2em auto;max-width:44em;padding:0 1em}\
h1{font-size:1.5em;margin:0}h2{font-size:1.1em;margin:1.4em 0 .3em}.de{color:#444;font-style:italic}\
table{border-collapse:collapse}th{font-weight:normal;text-align:left;padding:.1em 1.2em .1em 0;vertical-align:top}\
td,.key{font-family:monospace;font-size:1.15em;white-space:pre-wrap;overflow-wrap:anywhere}\
.key{border:2px solid #000;padding:.5em .8em;font-size:1.4em;display:inline-block}svg{width:62mm;height:62mm}\
section{break-inside:avoid}li{margin:.2em 0}";

/// The page for one key. `of` says more about the key where more is known.
pub(super) fn of(credentials: &Credentials, of: Option<&Kept>) -> Zeroizing<String> {
    let mut page = Zeroizing::new(String::with_capacity(128 * 1024));
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>Connect your device</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Connect your device</h1>\n<p class=\"de\" lang=\"de\">Gerät verbinden</p>\n\
         <ol>\n<li>Start the device and follow its assistant. <span class=\"de\" lang=\"de\">Gerät starten und dem Assistenten folgen.</span></li>\n\
         <li>Type the host below where the address is asked for. <span class=\"de\" lang=\"de\">Als Adresse den Host von unten eingeben.</span></li>\n\
         <li>Compare the fingerprint, and type the part that the device leaves out. If a part differs, stop and call your administrator. \
         <span class=\"de\" lang=\"de\">Den Fingerabdruck vergleichen und den fehlenden Teil eingeben. Weicht ein Teil ab: abbrechen und die Administration anrufen.</span></li>\n\
         <li>Type the key. <span class=\"de\" lang=\"de\">Den Schlüssel eingeben.</span></li>\n</ol>\n"
    );
    let many = credentials.endpoints.len() > 1;
    for (index, endpoint) in credentials.endpoints.iter().enumerate() {
        let _ = writeln!(page, "<section>");
        if many {
            let _ = writeln!(
                page,
                "<h2>Way {0} of {1} (the next one if this one does not answer) <span class=\"de\" lang=\"de\">Weg {0} von {1}</span></h2>",
                index + 1,
                credentials.endpoints.len()
            );
        }
        let _ = write!(page, "<table>\n<tr><th>Host</th><td>");
        escape_into(&mut page, &endpoint.host);
        let _ = writeln!(
            page,
            "</td></tr>\n<tr><th>Port</th><td>{}</td></tr>",
            endpoint.port
        );
        let _ = writeln!(
            page,
            "<tr><th colspan=\"2\">Root Certificate Fingerprint <span class=\"de\" lang=\"de\">Fingerabdruck des Stammzertifikats</span></th></tr>"
        );
        for (index, part) in endpoint.root_fingerprint.parts().iter().enumerate() {
            let _ = writeln!(page, "<tr><th>Part {}</th><td>{part}</td></tr>", index + 1);
        }
        let _ = writeln!(page, "</table>\n</section>");
    }
    let _ = write!(
        page,
        "<section>\n<h2>First-authentication key <span class=\"de\" lang=\"de\">Schlüssel für die erste Anmeldung</span></h2>\n<p class=\"key\">"
    );
    escape_into(&mut page, credentials.key.for_person().reveal());
    let _ = writeln!(page, "</p>");
    if let Some(kept) = of {
        about(&mut page, kept);
    }
    let _ = writeln!(
        page,
        "<p>Keep this page like a password, and destroy it when the device is connected. \
         <span class=\"de\" lang=\"de\">Wie ein Passwort aufbewahren und vernichten, sobald das Gerät verbunden ist.</span></p>\n</section>"
    );
    code(&mut page, credentials);
    page.push_str("</body>\n</html>\n");
    page
}

/// What else is known of the key.
fn about(page: &mut String, kept: &Kept) {
    let units: Vec<&str> = kept
        .units
        .iter()
        .map(|unit| unit.as_str())
        .take(20)
        .collect();
    let more = kept.units.len().saturating_sub(units.len());
    let _ = write!(
        page,
        "<table>\n<tr><th>Key ID</th><td>{}</td></tr>\n",
        kept.id
    );
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(page, "<tr><th>{name}</th><td>");
            escape_into(page, value);
            let _ = writeln!(page, "</td></tr>");
        }
    };
    let mut shown = units.join(" ");
    if more > 0 {
        let _ = write!(shown, " and {more} more");
    }
    row("For unit ID", &shown);
    row("Tag", &kept.tag);
    row("Valid until", &kept.expires_at.map(iso).unwrap_or_default());
    let _ = writeln!(page, "</table>");
}

/// The QR code of the text; of the first place alone where all would make it too fine.
fn code(page: &mut String, credentials: &Credentials) {
    let mut coded = credentials.clone();
    if coded.to_text().len() > QR_TEXT {
        coded.endpoints.truncate(1);
    }
    let Ok(code) = QrCode::encode_text(&coded.to_text(), QrCodeEcc::Low) else {
        return;
    };
    let size = code.size();
    // Four modules of white around it, as readers expect.
    let _ = write!(
        page,
        "<section>\n<h2>The same as text, for a telephone <span class=\"de\" lang=\"de\">Dasselbe als Text, fürs Telefon</span></h2>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-4 -4 {0} {0}\" shape-rendering=\"crispEdges\" role=\"img\" \
         aria-label=\"QR code of the credentials\"><rect x=\"-4\" y=\"-4\" width=\"{0}\" height=\"{0}\" fill=\"#fff\"/><path fill=\"#000\" d=\"",
        size + 8
    );
    for y in 0..size {
        let mut x = 0;
        while x < size {
            let run = (x..size).take_while(|x| code.get_module(*x, y)).count();
            if run > 0 {
                let _ = write!(page, "M{x} {y}h{run}v1h-{run}z");
            }
            x += i32::try_from(run).unwrap_or(size) + 1;
        }
    }
    page.push_str("\"/></svg>\n");
    if coded.endpoints.len() < credentials.endpoints.len() {
        let _ = writeln!(
            page,
            "<p>The code holds the first of the {} ways. <span class=\"de\" lang=\"de\">Der Code enthält den ersten der Wege.</span></p>",
            credentials.endpoints.len()
        );
    }
    page.push_str("</section>\n");
}

/// Text as text, whatever is in it; what nobody would see is written out.
fn escape_into(page: &mut String, text: &str) {
    for c in printable(text).chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            c => page.push(c),
        }
    }
}
