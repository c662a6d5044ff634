//! The face for other faces: one view per line on standard output, one input per line on standard input. It is documented in
//! `docs/setup-assistant.md`.

use std::collections::VecDeque;
use std::io::{self, Write};

use umbra_setup::{Input, View};

use super::driver::Face;

/// The longest line that is read, in bytes: a pasted text of the largest size, escaped.
pub const LINE_MAX: usize = 512 * 1024;

/// Speaks JSON.
pub struct Json<'a> {
    out: &'a mut dyn Write,
    wanted: VecDeque<Input>,
}

impl<'a> Json<'a> {
    /// A face that writes there.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            wanted: VecDeque::new(),
        }
    }
}

impl Face for Json<'_> {
    type Raw = super::plain::Typed;

    fn show(&mut self, view: &View) -> io::Result<()> {
        let line = serde_json::to_string(view).map_err(io::Error::other)?;
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    fn hear(&mut self, raw: Option<Self::Raw>) -> io::Result<()> {
        let Some(line) = raw else {
            self.wanted.push_back(Input::Close);
            return Ok(());
        };
        if line.is_empty() {
            return Ok(());
        }
        let input = umbra_protocol::json::from_slice(line.as_bytes()).map_err(|_| {
            // What was wrong with it might quote the key.
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a line on standard input is no input that is understood",
            )
        })?;
        self.wanted.push_back(input);
        Ok(())
    }

    fn next(&mut self, _view: &View) -> io::Result<Option<Input>> {
        Ok(self.wanted.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use umbra_setup::{Language, Machine, Rules, Start};
    use zeroize::Zeroizing;

    use super::*;

    fn line(text: &str) -> Option<Zeroizing<String>> {
        Some(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn a_view_is_one_line_and_a_line_is_one_input() {
        let (machine, _) = Machine::new(
            Start::Fresh(Language::De),
            Rules::default(),
            std::time::Duration::ZERO,
        );
        let view = machine.view(std::time::Duration::ZERO);
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        json.show(&view).expect("shown");
        json.hear(line(r#"{"input":"press","action":"next"}"#))
            .expect("heard");
        json.hear(line("")).expect("nothing");
        assert_eq!(
            json.next(&view).expect("an input"),
            Some(Input::Press {
                action: "next".into()
            })
        );
        assert_eq!(json.next(&view).expect("nothing"), None);
        json.hear(None).expect("the end");
        assert_eq!(json.next(&view).expect("an input"), Some(Input::Close));
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.lines().count(), 1);
        let read: View = serde_json::from_str(&text).expect("a view");
        assert_eq!(read, view);
    }

    #[test]
    fn a_line_that_is_no_input_ends_the_face_without_quoting_it() {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        let error = json
            .hear(line(
                r#"{"input":"set","entry":"key","text":"HUNTER2","x":1}"#,
            ))
            .expect_err("refused");
        assert!(!error.to_string().contains("HUNTER2"), "{error}");
    }
}
