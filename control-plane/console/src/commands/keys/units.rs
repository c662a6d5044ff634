//! Lists of unit IDs as people get them out of spreadsheets: one per line, or the first column of a CSV file. All mistakes
//! are told at once, each with its line; a list with a mistake is not taken at all.

use std::collections::HashMap;

use umbra_protocol::UnitId;

/// Largest list, in bytes.
pub(super) const FILE_MAX: u64 = 1024 * 1024;
/// Most units of one key, as the server has it.
const MOST: usize = 10_000;
/// Headings of the first column.
const HEADINGS: [&str; 10] = [
    "unit id",
    "unit_id",
    "unit-id",
    "unitid",
    "unit ids",
    "unit",
    "mac",
    "mac address",
    "mac_address",
    "id",
];

/// Reads a list; on mistakes, a sentence for each.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<UnitId>, Vec<String>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(vec![
            "the list is no text in UTF-8: save it as “CSV UTF-8”".to_owned(),
        ]);
    };
    let mut units = Vec::new();
    let mut lines_of: HashMap<UnitId, usize> = HashMap::new();
    let mut mistakes = Vec::new();
    let mut first = true;
    for (number, line) in (1..).zip(text.lines()) {
        let cell = first_cell(line);
        if cell.is_empty() || cell.starts_with('#') {
            continue;
        }
        let heading = HEADINGS
            .iter()
            .any(|known| cell.eq_ignore_ascii_case(known));
        if std::mem::take(&mut first) && heading {
            continue;
        }
        match plain(cell).parse::<UnitId>() {
            Ok(unit) => {
                if let Some(before) = lines_of.get(&unit) {
                    mistakes.push(format!("line {number}: {unit} is in line {before} already"));
                } else {
                    lines_of.insert(unit.clone(), number);
                    units.push(unit);
                }
            }
            Err(error) => mistakes.push(format!("line {number}: {error}")),
        }
    }
    if units.len() > MOST {
        mistakes.push(format!(
            "the list has {} units, and one key takes {MOST} at most: make several keys",
            units.len()
        ));
    }
    if units.is_empty() && mistakes.is_empty() {
        mistakes.push("the list has no unit ID in it".to_owned());
    }
    if mistakes.is_empty() {
        Ok(units)
    } else {
        Err(mistakes)
    }
}

fn first_cell(line: &str) -> &str {
    let line = line.trim();
    match line.strip_prefix('"') {
        Some(rest) => rest.split('"').next().unwrap_or_default().trim(),
        None => line
            .split([',', ';', '\t'])
            .next()
            .unwrap_or_default()
            .trim(),
    }
}

/// A MAC address without what stands between its bytes; everything else as it is.
fn plain(cell: &str) -> String {
    let bytes: Vec<&str> = cell.split([':', '-']).collect();
    let is_mac = bytes.len() == 6
        && bytes
            .iter()
            .all(|byte| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_mac {
        bytes.concat()
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bytes: &[u8]) -> Vec<String> {
        let units = read(bytes).expect("a list");
        units.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lists_are_read_as_spreadsheets_write_them() {
        let expected = ["00E0C51C9C32", "00E0C51C9C33", "TILL-5"];
        for list in [
            "00e0c51c9c32\n00:E0:C5:1C:9C:33\n\ntill-5\n",
            "Unit ID;Name\r\n00E0C51C9C32;Lobby\r\n00-e0-c5-1c-9c-33;Bar\r\ntill-5;\r\n",
            "\u{feff}\"mac\",\"place\"\n\"00E0C51C9C32\",\"a, b\"\n\"00E0C51C9C33\",\n# old\ntill-5",
        ] {
            assert_eq!(names(list.as_bytes()), expected, "{list:?}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let mistakes = read("A1\nb c\nA2\na1\n../x,1\n".as_bytes()).expect_err("mistakes");
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(mistakes[0].starts_with("line 2: ") && mistakes[0].contains("b c"));
        assert_eq!(mistakes[1], "line 4: A1 is in line 1 already");
        assert!(mistakes[2].starts_with("line 5: "));
        assert!(read(b"").is_err() && read(b"unit\n").is_err());
        assert!(read(b"\xff\xfeA\0").expect_err("UTF-16")[0].contains("UTF-8"));
        let many: String = (0..=MOST).map(|n| format!("U{n}\n")).collect();
        assert!(read(many.as_bytes()).expect_err("too many")[0].contains("10000"));
    }
}
