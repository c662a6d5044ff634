//! Keys as a table (CSV, RFC 4180), for labels and mail merges. No cell may be taken for a formula by the program that opens
//! the table.

use std::borrow::Cow;

use umbra_protocol::credentials::Endpoint;
use zeroize::Zeroizing;

use super::kind_name;
use super::pouch::Kept;
use crate::text::iso;

const HEADINGS: &str =
    "key_id,key,kind,unit_ids,tag,made_at,expires_at,host,port,root_fingerprint\r\n";

/// The table; one line per key, with the first of the places to connect to.
pub(super) fn of(keys: &[Kept], endpoints: &[Endpoint]) -> Zeroizing<String> {
    let mut sheet = Zeroizing::new(String::with_capacity(256 * (keys.len() + 1)));
    sheet.push_str(HEADINGS);
    for kept in keys {
        let units: Vec<&str> = kept.units.iter().map(|unit| unit.as_str()).collect();
        let first = endpoints.first();
        // A space before a key changes nothing: keys are read without spaces.
        let lead = if is_formula(kept.key.reveal()) {
            " "
        } else {
            ""
        };
        let cells = [
            Cow::Owned(kept.id.to_string()),
            Cow::Owned(format!("{lead}{}", kept.key.reveal())),
            Cow::Borrowed(kind_name(kept.kind)),
            text(&units.join(" ")),
            text(&kept.tag),
            Cow::Owned(iso(kept.made_at)),
            kept.expires_at
                .map_or(Cow::Borrowed(""), |at| Cow::Owned(iso(at))),
            first.map_or(Cow::Borrowed(""), |first| text(&first.host)),
            first.map_or(Cow::Borrowed(""), |first| {
                Cow::Owned(first.port.to_string())
            }),
            first.map_or(Cow::Borrowed(""), |first| {
                Cow::Owned(first.root_fingerprint.to_string())
            }),
        ];
        for (index, cell) in cells.iter().enumerate() {
            if index > 0 {
                sheet.push(',');
            }
            quote_into(&mut sheet, cell);
        }
        sheet.push_str("\r\n");
    }
    sheet
}

fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// A text that people chose: an apostrophe before it keeps it from being a formula.
fn text(cell: &str) -> Cow<'static, str> {
    let lead = if is_formula(cell) { "'" } else { "" };
    Cow::Owned(format!("{lead}{}", crate::text::printable(cell)))
}

fn quote_into(sheet: &mut String, cell: &str) {
    if !cell.contains([',', ';', '"', '\r', '\n']) && !cell.starts_with(' ') {
        sheet.push_str(cell);
        return;
    }
    sheet.push('"');
    for c in cell.chars() {
        if c == '"' {
            sheet.push('"');
        }
        sheet.push(c);
    }
    sheet.push('"');
}
