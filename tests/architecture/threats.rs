//! `docs/security.md` names, for every threat and every bad input, the tests that hold it. This holds the page: nothing is left out,
//! and every name is that of a test that is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// How many threats and bad inputs the page has to list.
const THREATS: usize = 15;
const INPUTS: usize = 40;
/// What stands in the place of names where nothing holds a row.
const OPEN: &str = "not held";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources below a folder, without what was built.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found)?;
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// The names of the functions in a source that are tests.
fn tests_in(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some(rest) = line
            .strip_prefix("async fn ")
            .or_else(|| line.strip_prefix("fn "))
            && std::mem::take(&mut marked)
        {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            names.push(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    names
}

fn all_tests() -> anyhow::Result<BTreeSet<String>> {
    let mut files = Vec::new();
    sources(&top(), &mut files)?;
    let mut names = BTreeSet::new();
    for file in files {
        names.extend(tests_in(&std::fs::read_to_string(&file)?));
    }
    ensure!(names.len() > 1000, "only {} tests", names.len());
    Ok(names)
}

/// The rows of the page's tables that begin with a threat or a number, as label and last cell.
fn rows(page: &str) -> Vec<(String, String)> {
    page.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
            // The line ends with a bar, so that the last cell is the last but one part.
            let (first, last) = (*cells.first()?, cells.iter().rev().nth(1)?);
            let number = first.strip_prefix('T').unwrap_or(first);
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            (is_number && cells.len() > 3).then(|| (first.to_owned(), (*last).to_owned()))
        })
        .collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn wrong(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let rows = rows(page);
    let labels: Vec<&str> = rows.iter().map(|(label, _)| label.as_str()).collect();
    let expected: Vec<String> = (1..=THREATS)
        .map(|number| format!("T{number}"))
        .chain((1..=INPUTS).map(|number| number.to_string()))
        .collect();
    if labels != expected {
        wrong.push(format!("the rows are {labels:?}"));
    }
    for (label, held) in &rows {
        let names = quoted(held);
        if names.is_empty() && !held.starts_with(OPEN) {
            wrong.push(format!("{label} names no test and does not say “{OPEN}”"));
        }
        for name in names {
            if !tests.contains(name) {
                wrong.push(format!("{label}: there is no test {name}"));
            }
        }
    }
    wrong
}

#[test]
fn every_row_of_the_page_about_security_names_tests_that_are_there() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(top().join("docs/security.md"))?;
    let wrong = wrong(&page, &all_tests()?);
    ensure!(wrong.is_empty(), "docs/security.md: {}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_row_that_is_missing_or_empty_and_a_name_that_is_made_up_are_found() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(top().join("docs/security.md"))?;
    let tests = all_tests()?;
    let row = |label: &str| {
        let begin = format!("| {label} |");
        page.lines()
            .find(|line| line.starts_with(&begin))
            .with_context(|| format!("no row {label}"))
    };
    let (third, seventh) = (row("T3")?, row("7")?);
    let cells = rows(third);
    let (_, held) = cells.first().context("no cells")?;
    let name = quoted(held).first().copied().context("no name")?;
    let cases = [
        (page.replace(third, ""), "the rows are"),
        (page.replace(seventh, ""), "the rows are"),
        (
            page.replace(name, "no_such_promise_is_kept"),
            "no_such_promise",
        ),
        (
            page.replace(third, "| T3 | a | b | something |"),
            "T3 names no",
        ),
    ];
    for (spoilt, expected) in cases {
        let wrong = wrong(&spoilt, &tests);
        ensure!(
            wrong.iter().any(|line| line.contains(expected)),
            "{expected:?} was expected: {wrong:?}"
        );
    }
    Ok(())
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "
        #[test]
        fn one() {}
        fn helper() {}
        #[tokio::test(flavor = \"multi_thread\")]
        #[ignore]
        async fn two()
        {}
        async fn three() {}
    ";
    assert_eq!(tests_in(source), ["one", "two"]);
}
