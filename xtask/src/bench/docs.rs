//! Puts tables into a document, each section between markers of its own, so that a run of one section leaves the others as they are.

use anyhow::Context as _;

/// What opens a section in what the benchmark writes.
const HEADING: &str = "### ";

/// The document with these tables in the place of those of the same names.
pub(super) fn with_tables(document: &str, tables: &str) -> anyhow::Result<String> {
    let mut document = document.to_owned();
    for section in sections(tables) {
        let name = section
            .strip_prefix(HEADING)
            .and_then(|rest| rest.lines().next())
            .context("the benchmark's tables have no heading")?;
        let (begin, end) = (
            format!("<!-- bench {name} -->\n"),
            format!("<!-- end {name} -->"),
        );
        let start = document.find(&begin).with_context(|| {
            format!(
                "the document has no place for {name}: {} is missing",
                begin.trim()
            )
        })? + begin.len();
        let length = document[start..].find(&end).with_context(|| {
            format!("the document's place for {name} has no end: {end} is missing")
        })?;
        document.replace_range(start..start + length, section);
    }
    Ok(document)
}

fn sections(tables: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = tables
        .match_indices(HEADING)
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || tables[..at].ends_with('\n'))
        .collect();
    starts.push(tables.len());
    starts
        .windows(2)
        .filter_map(|pair| tables.get(pair[0]..pair[1]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "Before.\n<!-- bench one -->\nold\n<!-- end one -->\nBetween.\n<!-- bench two -->\n### two\n\nkept\n<!-- end two -->\nAfter.\n";

    #[test]
    fn only_what_was_measured_is_replaced() -> anyhow::Result<()> {
        let once = with_tables(DOCUMENT, "### one\n\n| new |\n\n")?;
        anyhow::ensure!(
            once == DOCUMENT.replace("old\n", "### one\n\n| new |\n\n"),
            "{once}"
        );
        anyhow::ensure!(with_tables(&once, "### one\n\n| new |\n\n")? == once);
        Ok(())
    }

    #[test]
    fn a_section_without_a_place_is_an_error() {
        let refused = with_tables(DOCUMENT, "### three\n\n| new |\n").expect_err("no place");
        assert!(refused.to_string().contains("three"), "{refused}");
    }

    #[test]
    fn the_document_has_a_place_for_every_section() {
        let path = crate::step::top().join(super::super::DOCUMENT);
        let document = std::fs::read_to_string(path).expect("the document");
        let bench = crate::step::top().join("tests/harness/bench.rs");
        let bench = std::fs::read_to_string(bench).expect("the benchmark");
        let list = bench.split_once("SECTIONS").expect("a list").1;
        let list = list.split_once("= [").expect("its names").1;
        let names: Vec<&str> = list
            .split_once(']')
            .expect("its end")
            .0
            .split(',')
            .map(|name| name.trim().trim_matches('"'))
            .filter(|name| !name.is_empty())
            .collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(
                document.contains(&format!("<!-- bench {name} -->\n")),
                "{name}"
            );
            assert!(document.contains(&format!("<!-- end {name} -->")), "{name}");
        }
    }
}
