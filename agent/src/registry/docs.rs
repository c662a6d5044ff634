//! The administrator's page about all parameters, made from the table so that it can't differ from it.

use std::fmt::Write as _;

use umbra_protocol::settings::Value;

use super::table::{Parameter, Source, TABLE, Who};

/// The page in Markdown.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Registry\n\n\
         Every parameter of the device. This page is made by `umbra-agent registry list --markdown`; change the table in\n\
         `agent/src/registry/table.rs` instead.\n\n\
         A value comes from the strongest layer that has one: the default below, then the image maker's\n\
         `/usr/lib/umbra/registry.toml`, then what was set on the device (`umbra-agent registry set NAME VALUE`, kept in\n\
         `/wfs/umbra/registry.toml`), then what the server decided. Parameters for “the device only” are refused when the\n\
         server sends them. Changes take effect without a restart.\n",
    );
    section(
        &mut text,
        "Parameters with the field's names",
        Source::Field,
    );
    section(&mut text, "Umbra's own parameters", Source::Umbra);
    text
}

fn section(text: &mut String, title: &str, source: Source) {
    let _ = write!(
        text,
        "\n## {title}\n\n| name | accepts | default | set by | meaning |\n|---|---|---|---|---|\n"
    );
    for parameter in TABLE.iter().filter(|parameter| parameter.source == source) {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            parameter.name,
            parameter.kind.accepts(),
            default(parameter),
            match parameter.who {
                Who::Anywhere => "device, server",
                Who::LocalOnly => "the device only",
            },
            parameter.doc
        );
    }
}

fn default(parameter: &Parameter) -> String {
    match parameter.default.value() {
        Value::Bool(value) => format!("`{value}`"),
        Value::Int(number) => format!("`{number}`"),
        Value::Text(text) if text.is_empty() => "empty".to_owned(),
        Value::Text(text) => format!("`{text}`"),
        Value::List(items) if items.is_empty() => "empty".to_owned(),
        Value::List(items) => format!("`{}`", items.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_the_one_that_the_table_makes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/registry.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == markdown(),
            "docs/registry.md is out of date; write it with “umbra-agent registry list --markdown > docs/registry.md”"
        );
        assert!(TABLE.iter().all(|parameter| page.contains(parameter.name)));
    }
}
