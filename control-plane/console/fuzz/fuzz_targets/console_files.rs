//! What lies in the console's files and what is pasted into it: the configuration, the pouch of keys, lists of units, e-mail addresses,
//! spans of time. The first byte chooses. What holds: it is read or refused in words that move no cursor and show no secret; and
//! what was read and written again reads the same.
#![no_main]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use umbra_console::commands::fuzzing::{addresses, pouch, units};
use umbra_console::config::ConfigFile;
use umbra_console::text::parse_span;

/// A folder in memory, of this process.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("umbra-fuzz-console-{}", std::process::id()))
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, bytes).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("closed");
}

fn told(sentence: &str) {
    assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let config = folder().join("config.json");
    match choice % 4 {
        0 => {
            put(&config, bytes);
            let file = ConfigFile::at(config);
            match file.load() {
                Ok(before) => {
                    file.change(|_| {}).expect("written");
                    assert_eq!(format!("{:?}", file.load().expect("reads")), format!("{before:?}"));
                }
                Err(error) => told(&error.to_string()),
            }
        }
        1 => {
            put(&config.with_extension("keys.json"), bytes);
            if let Err(sentence) = pouch(&config, "ums.example.com:8443") {
                told(&sentence);
            }
        }
        2 => match units(bytes) {
            Ok(all) => {
                assert!(!all.is_empty() && all.len() <= 10_000);
                let written: Vec<&str> = all.iter().map(|unit| unit.as_str()).collect();
                // With a heading: without one, a unit called "ID" in the first line would be taken for it.
                let list = format!("Unit ID\n{}", written.join("\n"));
                assert_eq!(units(list.as_bytes()).ok(), Some(all));
            }
            Err(mistakes) => mistakes.iter().for_each(|mistake| told(mistake)),
        },
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            match addresses(text) {
                Ok(all) => {
                    for address in all {
                        // It stands between angle brackets in a line that a mail server reads.
                        assert!(address.contains('@') && !address.contains(['<', '>', ' ', '\r', '\n']), "{address:?}");
                        assert!(!address.chars().any(char::is_control));
                    }
                }
                Err(mistakes) => mistakes.iter().for_each(|mistake| told(mistake)),
            }
            if let Err(error) = parse_span(text) {
                told(&error.to_string());
            }
        }
    }
});

