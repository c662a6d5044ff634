//! What is read, what is refused, and that serde_json reads the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Plain,
    Named(String),
    Placed { x: i16, y: Option<u8> },
    Pair(bool, u64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(i64);

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Everything {
    kind: Kind,
    wrapped: Wrapped,
    list: Vec<Kind>,
    pair: (u8, String),
    map: BTreeMap<String, Option<bool>>,
    nothing: Option<Box<Kind>>,
}

crate::json::object!(Everything { kind, wrapped, list, pair, map; nothing });

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    One,
    OrTheOther,
}

crate::json::words!(Word { One = "one", OrTheOther = "or_the_other" });

#[test]
fn words_are_read_as_they_are_written() {
    for word in [Word::One, Word::OrTheOther] {
        let text = serde_json::to_vec(&word).expect("serialises");
        assert_eq!(from_slice::<Word>(&text).expect("reads"), word);
    }
    assert_eq!(wrong::<Word>(r#""another""#), "unknown variant `another`");
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Plain),
        any::<String>().prop_map(Kind::Named),
        any::<(i16, Option<u8>)>().prop_map(|(x, y)| Kind::Placed { x, y }),
        any::<(bool, u64)>().prop_map(|(yes, number)| Kind::Pair(yes, number)),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        kind in kind(), number: i64, list in proptest::collection::vec(kind(), 0..5), pair: (u8, String),
        map: BTreeMap<String, Option<bool>>, nothing in proptest::option::of(kind()),
    ) {
        let value = Everything { kind, wrapped: Wrapped(number), list, pair, map, nothing: nothing.map(Box::new) };
        let text = serde_json::to_vec(&value).expect("serialises");
        prop_assert_eq!(from_slice::<Everything>(&text).expect("reads"), value);
    }

    #[test]
    fn a_text_is_a_value_where_serde_json_says_so(text in "[\\[\\]{}\",:0-9eE.+\\- \\\\untrefalsu]{0,24}") {
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(from_slice::<Json>(text.as_bytes()).is_ok(), theirs);
    }
}

fn wrong<T: DeserializeOwned>(text: &str) -> String {
    let read = from_slice::<T>(text.as_bytes());
    read.err().expect("a mistake").to_string()
}

#[derive(Debug, PartialEq)]
struct Small {
    name: String,
    count: u8,
    note: String,
}

crate::json::object!(Small { name, count; note });

#[test]
fn fields_may_be_missing_only_where_that_is_said_and_others_are_passed_over() {
    let small: Small = from_slice(br#"{"new":[1,{}],"count":3,"name":"n"}"#).expect("reads");
    let expected = Small {
        name: "n".into(),
        count: 3,
        note: String::new(),
    };
    assert_eq!(small, expected);
    assert_eq!(wrong::<Small>(r#"{"count":3}"#), "missing field `name`");
    assert_eq!(
        wrong::<Small>(r#"{"name":"n","count":3,"name":"m"}"#),
        "duplicate field `name`"
    );
    assert_eq!(
        wrong::<Small>(r#"{"name":"n","count":"3"}"#),
        r#"invalid type: string "3", expected u8"#
    );
    assert_eq!(
        wrong::<Small>(r#"{"name":"n","count":300}"#),
        "invalid value: integer `300`, expected u8"
    );
}

#[test]
fn a_list_of_values_is_no_object() {
    assert!(wrong::<Small>(r#"["n",3,""]"#).contains("expected an object"));
    assert!(wrong::<Kind>(r#"{"placed":[1,2]}"#).contains("invalid type: sequence"));
    // A pair is a list, and nothing else.
    assert_eq!(wrong::<(u8, u8)>("[1,2,3]"), "1 values too many");
}

#[test]
fn one_of_several_is_what_its_name_says() {
    assert!(wrong::<Kind>(r#""named""#).contains("something behind it"));
    assert!(wrong::<Kind>(r#"{"plain":1}"#).contains("nothing behind it"));
    assert!(wrong::<Kind>(r#""other""#).contains("unknown variant `other`"));
    assert!(wrong::<Kind>(r#"{"plain":null,"named":"n"}"#).contains("invalid type: map"));
}

#[test]
fn values_are_not_nested_without_end() {
    let text = "[".repeat(100_000);
    assert!(wrong::<Json>(&text).contains("recursion limit"));
}
