//! Tables for people: columns aligned with spaces, nothing else. Every cell is made safe for the terminal here, so that
//! no caller can forget it.

use std::io::{self, Write};

use crate::text::{columns, printable};

/// Rows of cells below a line of headings.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    width: usize,
}

impl Table {
    /// A table with these headings and no rows.
    pub fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()],
            width: headings.len(),
        }
    }

    /// Adds a row; missing cells stay empty, surplus ones are dropped.
    pub fn row<I, S>(&mut self, cells: I)
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut row: Vec<String> = cells
            .into_iter()
            .take(self.width)
            .map(|cell| printable(cell.as_ref()))
            .collect();
        row.resize(self.width, String::new());
        self.rows.push(row);
    }

    /// Whether there is nothing below the headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    /// Writes the table; columns are two spaces apart, and no line ends with spaces.
    ///
    /// # Errors
    /// What the writer reports.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = vec![0; self.width];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(columns(cell));
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - columns(cell) + 2));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Facts about one thing: a name and a value per line, the values aligned.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    lines: Vec<(String, String)>,
}

impl Facts {
    /// No facts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact.
    pub fn add(&mut self, name: &str, value: impl AsRef<str>) {
        self.lines
            .push((printable(name), printable(value.as_ref())));
    }

    /// Adds a fact where there is one.
    pub fn add_some(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Writes the facts.
    ///
    /// # Errors
    /// What the writer reports.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self
            .lines
            .iter()
            .map(|(name, _)| columns(name))
            .max()
            .unwrap_or(0);
        for (name, value) in &self.lines {
            let gap = " ".repeat(width - columns(name) + 2);
            writeln!(out, "{}", format!("{name}:{gap}{value}").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).expect("memory takes everything");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn columns_are_aligned_and_no_line_ends_with_spaces() {
        let mut table = Table::new(&["NAME", "STATE", "TAG"]);
        table.row(["till-5", "online", ""]);
        table.row(["端末", "offline", "lobby"]);
        table.row(["reception-desk"]);
        assert_eq!(
            written(|out| table.write(out)),
            "NAME            STATE    TAG\n\
             till-5          online\n\
             端末            offline  lobby\n\
             reception-desk\n"
        );
    }

    #[test]
    fn a_cell_cannot_forge_a_row() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["evil\nadmin  online", "\u{1b}[2K"]);
        let text = written(|out| table.write(out));
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn facts_are_aligned_behind_their_names() {
        let mut facts = Facts::new();
        facts.add("ID", "42");
        facts.add("Last seen", "now\u{7}");
        facts.add_some("Never", None::<String>);
        assert_eq!(
            written(|out| facts.write(out)),
            "ID:         42\nLast seen:  now\\u{7}\n"
        );
    }
}
