//! Registry files: TOML with dotted names, read with a line number for each mistake. A file is either read as a whole or not at
//! all; a wrong entry in a readable file costs that entry only, and is told.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use umbra_protocol::settings::Value;

use super::table;

/// The largest registry file that is read.
pub(super) const FILE_MAX: usize = 256 * 1024;
/// Tables in tables, deeper than any name.
const DEPTH_MAX: usize = 6;

/// What a readable file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) values: BTreeMap<String, Value>,
    /// Entries that were left out, each as a sentence.
    pub(super) problems: Vec<String>,
    /// Those of them whose names mean nothing here, as they are written: another version of this program may know them.
    pub(super) strange: Vec<String>,
}

/// Reads a text; the error is a sentence that names the file and the line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Contents, String> {
    let root = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        let what = error
            .message()
            .lines()
            .next()
            .unwrap_or("it is not TOML")
            .to_owned();
        format!(
            "{}, line {line}: this can't be read as TOML ({what})",
            path.display()
        )
    })?;
    let mut contents = Contents::default();
    walk(&mut contents, path, text, "", root.get_ref(), 0);
    Ok(contents)
}

fn walk(
    contents: &mut Contents,
    path: &Path,
    text: &str,
    prefix: &str,
    entries: &DeTable<'_>,
    depth: usize,
) {
    for (key, value) in entries {
        let name = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref()
            && depth < DEPTH_MAX
        {
            walk(contents, path, text, &format!("{name}."), inner, depth + 1);
            continue;
        }
        let place = || {
            format!(
                "{}, line {}",
                path.display(),
                line_of(text, key.span().start)
            )
        };
        let shown: String = name.escape_debug().take(100).collect();
        let Some(parameter) = table::find(&name) else {
            let hint =
                table::nearest(&name).map_or(String::new(), |near| format!("; is “{near}” meant?"));
            contents.problems.push(format!(
                "{}: there is no parameter “{shown}”{hint}",
                place()
            ));
            let bare = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
            if name.bytes().all(bare)
                && !value.get_ref().is_table()
                && let Some(raw) = text.get(value.span())
            {
                contents.strange.push(format!("{name} = {raw}"));
            }
            continue;
        };
        match read(value.get_ref())
            .ok_or_else(|| parameter.kind.accepts())
            .and_then(|value| {
                parameter.kind.check(&value)?;
                Ok(value)
            }) {
            Ok(value) => {
                contents.values.insert(name, value);
            }
            Err(accepted) => contents
                .problems
                .push(format!("{}: {shown} must be {accepted}", place())),
        }
    }
}

fn read(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::Boolean(value) => Some(Value::Bool(*value)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(Value::Int),
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map(Value::List),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

/// Writes a file that [`parse`] reads back.
pub(super) fn write(values: &BTreeMap<String, Value>, strange: &[String]) -> String {
    let mut text = String::from(
        "# Parameters that were set on this device. “umbra-agent registry set NAME VALUE” writes here; a change by hand is\n\
         # taken over within seconds.\n",
    );
    for (name, value) in values {
        let value = match value {
            Value::Bool(value) => value.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Text(text) => quoted(text),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
                format!("[{}]", items.join(", "))
            }
        };
        text.push_str(&format!("{name} = {value}\n"));
    }
    for line in strange {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A text as TOML wants it, on one line whatever is in it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other if other.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(other)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Contents {
        parse(Path::new("registry.toml"), text).expect("readable")
    }

    #[test]
    fn dotted_names_and_tables_say_the_same() {
        let dotted = parsed("network.vncserver.enabled = true\nnetwork.vncserver.port = 5901\n");
        let tables = parsed("[network.vncserver]\nenabled = true\nport = 5901\n");
        assert_eq!(dotted, tables);
        assert_eq!(dotted.values.len(), 2);
        assert_eq!(dotted.values["network.vncserver.port"], Value::Int(5901));
    }

    #[test]
    fn each_mistake_is_told_with_its_line_and_the_rest_counts() {
        let contents = parsed(
            "network.vncserver.enabled = true\nnetwork.vncserver.prot = 1\n\n[umbra.session]\nidle_limit = \"long\"\ntotal_limit = 1.5\n",
        );
        assert_eq!(contents.values.len(), 1);
        assert_eq!(
            contents.problems,
            [
                "registry.toml, line 2: there is no parameter “network.vncserver.prot”; is “network.vncserver.port” meant?",
                "registry.toml, line 5: umbra.session.idle_limit must be a whole number from 0 to 86400",
                "registry.toml, line 6: umbra.session.total_limit must be a whole number from 0 to 604800",
            ]
        );
    }

    #[test]
    fn an_unreadable_file_is_told_with_its_line() {
        let error = parse(Path::new("registry.toml"), "a = 1\n= broken\n").expect_err("not TOML");
        assert!(
            error.starts_with("registry.toml, line 2: this can't be read as TOML"),
            "{error}"
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut values = BTreeMap::new();
        values.insert(
            "umbra.control.group".to_owned(),
            Value::Text("ada \"x\" \\ ü".into()),
        );
        values.insert("network.vncserver.enabled".to_owned(), Value::Bool(true));
        values.insert("network.vncserver.port".to_owned(), Value::Int(1));
        values.insert(
            "umbra.vncserver.command".to_owned(),
            Value::List(vec!["/bin/x".into(), "a = \"b\"".into()]),
        );
        let contents = parsed(&write(&values, &[]));
        assert_eq!((contents.values, contents.problems), (values, vec![]));
    }

    #[test]
    fn what_only_another_version_knows_is_written_back_as_it_was() {
        let text = "[umbra.later]\nlist = [\n  \"a\", # first\n  \"b\",\n]\nshare = 1.5\n[umbra.later.deep]\nat = 07:30:00\n";
        let once = parsed(text);
        assert_eq!(once.strange.len(), 3, "{:?}", once.strange);
        let again = write(&BTreeMap::new(), &once.strange);
        assert_eq!(parsed(&again).strange, once.strange, "{again}");
    }

    proptest::proptest! {
        #[test]
        fn every_text_reads_back(text in proptest::prelude::any::<String>()) {
            let line = format!("x = {}", quoted(&text));
            proptest::prop_assert_eq!(line.lines().count(), 1);
            let table = DeTable::parse(&line).expect("TOML");
            proptest::prop_assert_eq!(read(table.get_ref()["x"].get_ref()), Some(Value::Text(text)));
        }

        #[test]
        fn no_text_makes_the_reader_panic_or_accept_what_the_table_does_not(text in ".{0,300}", name in "[a-z.\\[\\]]{0,40}", value in "[0-9a-z\"\\[\\]., -]{0,40}") {
            for text in [text, format!("{name} = {value}"), format!("[{name}]\n{value} = 1")] {
                if let Ok(contents) = parse(Path::new("x"), &text) {
                    for (name, value) in contents.values {
                        let parameter = table::find(&name).expect("only known names");
                        proptest::prop_assert!(parameter.kind.check(&value).is_ok());
                    }
                }
            }
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let deep = format!("a = {}1{}", "[".repeat(20_000), "]".repeat(20_000));
        assert!(parse(Path::new("registry.toml"), &deep).is_err());
        let dots = format!("{}b = 1", "a.".repeat(60));
        assert_eq!(parsed(&dots).values.len(), 0);
    }
}
