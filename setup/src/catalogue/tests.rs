use std::collections::BTreeSet;
use std::path::Path;

use super::*;

/// The names in braces of a text.
fn places(text: &str) -> BTreeSet<&str> {
    text.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
        .collect()
}

fn sources(folder: &Path, text: &mut String) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("catalogue") {
            count += sources(&path, text);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("a source"));
            count += 1;
        }
    }
    count
}

#[test]
fn every_text_is_there_in_every_language_and_has_the_same_places() {
    let english = Catalogue::of(Language::En).all();
    for language in Language::ALL {
        for ((name, text), (_, original)) in Catalogue::of(language).all().iter().zip(&english) {
            assert!(!text.trim().is_empty(), "{name} is empty in {language:?}");
            assert_eq!(*text, text.trim(), "{name} in {language:?}");
            assert!(!text.contains("  "), "{name} in {language:?}: {text}");
            assert!(
                places(text) == places(original),
                "{name} in {language:?} has other places: {text}"
            );
        }
    }
}

#[test]
fn no_text_is_there_that_nothing_shows() {
    let mut text = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = sources(&root.join("src"), &mut text);
    // The faces show some of them.
    for faces in ["../agent/src/setup", "../setup-window/src"] {
        let folder = root.join(faces);
        if folder.is_dir() {
            count += sources(&folder, &mut text);
        }
    }
    assert!(count > 5, "the sources were found");
    // As a field: a word of the same spelling elsewhere does not count.
    let is_shown = |name: &str| {
        text.match_indices(&format!(".{name}")).any(|(at, found)| {
            let next = text[at + found.len()..].chars().next();
            next.is_none_or(|next| !next.is_ascii_alphanumeric() && next != '_')
        })
    };
    for (name, _) in Catalogue::of(Language::En).all() {
        assert!(is_shown(name), "nothing shows the text {name}");
    }
}

#[test]
fn a_locale_names_its_language() {
    assert_eq!(Language::of_locale("de_AT.UTF-8"), Some(Language::De));
    assert_eq!(Language::of_locale("de"), Some(Language::De));
    assert_eq!(Language::of_locale("en_GB"), Some(Language::En));
    assert_eq!(Language::of_locale("C.UTF-8"), None);
    assert_eq!(Language::of_locale(""), None);
    assert_eq!(Language::of_locale("deutsch"), None);
}

#[test]
fn german_has_its_own_quotation_marks_and_umlauts() {
    for (name, text) in Catalogue::of(Language::De).all() {
        assert!(!text.contains('”'), "{name}: {text}");
        for spelt in ["ue ", "fuer", "Geraet", "Schluessel", "koennen", "naechst"] {
            assert!(!text.contains(spelt), "{name}: {text}");
        }
    }
}
