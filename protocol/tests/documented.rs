//! The page of refusal codes in the documentation says what the code says.

use umbra_protocol::{RefusalCode, Remedy};

#[test]
fn the_page_of_refusal_codes_is_complete_and_true() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/refusal-codes.md");
    let expected = rendered();
    if std::env::var_os("UMBRA_WRITE_DOCS").is_some() {
        std::fs::write(page, &expected).expect("the page can be written");
    }
    let found = std::fs::read_to_string(page).expect("the page is there");
    assert_eq!(
        found, expected,
        "write it anew: UMBRA_WRITE_DOCS=1 cargo test -p umbra-protocol documented"
    );
}

fn rendered() -> String {
    let mut page = String::from(
        "# Refusal codes\n\nStable codes that devices, servers and consoles refuse with, each with what the refused side does next: \
         *retry* (by itself, with backoff), *ask a person* (seldom retried, visibly), or *stop* (never the same thing again). \
         Written from `protocol/src/refusal.rs`; a test holds the two together.\n\n| code | meaning | next |\n|---|---|---|\n",
    );
    for code in RefusalCode::ALL {
        let next = match code.remedy() {
            Remedy::Retry => "retry",
            Remedy::AskPerson => "ask a person",
            Remedy::Stop => "stop",
        };
        page.push_str(&format!("| `{code}` | {} | {next} |\n", code.meaning()));
    }
    page
}
