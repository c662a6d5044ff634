//! The snippets of configuration on the administrator's page, taken from the page itself: what is shown there is what
//! runs here, with nothing replaced but places.

use std::path::Path;

use super::FrontError;

/// A snippet of `docs/gateway.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet(String);

/// The code below the line `<!-- tested: NAME -->`.
pub fn snippet(name: &str) -> Result<Snippet, FrontError> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gateway.md");
    let text = std::fs::read_to_string(&page).map_err(super::io("the page can't be read"))?;
    find(&text, name)
}

fn find(page: &str, name: &str) -> Result<Snippet, FrontError> {
    let mark = format!("<!-- tested: {name} -->\n");
    let missing = || FrontError::Page(format!("there is no snippet {name}"));
    let (_, behind) = page.split_once(&mark).ok_or_else(missing)?;
    let code = behind
        .strip_prefix("```")
        .and_then(|text| text.split_once('\n'))
        .and_then(|(_, code)| code.split_once("\n```"))
        .ok_or_else(missing)?;
    Ok(Snippet(format!("{}\n", code.0)))
}

impl Snippet {
    /// The snippet with a place of the page replaced by one of the scenario, everywhere; it has to be there.
    pub fn with(mut self, from: &str, to: &str) -> Result<Self, FrontError> {
        if !self.0.contains(from) {
            return Err(FrontError::Page(format!(
                "the snippet has no {from:?}: {}",
                self.0
            )));
        }
        self.0 = self.0.replace(from, to);
        Ok(self)
    }

    /// As text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# Page\n\n<!-- tested: one -->\n```nginx\nlisten 1;\nlisten 2;\n```\n\ntext\n";

    #[test]
    fn a_snippet_is_found_by_name_and_only_places_that_are_there_are_replaced() {
        let found = find(PAGE, "one").expect("there");
        assert_eq!(found.text(), "listen 1;\nlisten 2;\n");
        let changed = found.clone().with("listen 1", "listen 7").expect("there");
        assert_eq!(changed.text(), "listen 7;\nlisten 2;\n");
        assert!(found.with("listen 9", "listen 7").is_err());
        assert!(find(PAGE, "two").is_err());
    }
}
