//! What lies in the device's files, damaged or written by whoever could: identity, enrolment, records, commands, progress, the note
//! of an update, credentials of the image and the kernel's command line. The first byte chooses the file. What holds: it is read or
//! refused in words without a cursor in them, and what was read and written again reads the same.
#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use umbra_agent::commands::journal::Journal;
use umbra_agent::enrolment::{Enrolled, sources};
use umbra_agent::files::{self, Files};
use umbra_agent::hands::outcome::Outcome;
use umbra_agent::identity;
use umbra_agent::paths::Paths;
use umbra_agent::session::records::Records;
use umbra_agent::setup::keep;
use umbra_protocol::CommandId;
use umbra_protocol::first_auth::FirstAuthKey;

/// A folder in memory, of this process.
fn root() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("umbra-fuzz-files-{}", std::process::id()))
}

fn put(path: &Path, bytes: &[u8]) {
    let folder = path.parent().expect("a folder");
    if !folder.is_dir() {
        std::fs::create_dir_all(folder).expect("made");
    }
    std::fs::write(path, bytes).expect("written");
    // The key is only read where nobody else may.
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("closed");
}

fn told(sentence: &str) {
    assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let paths = Paths::new(root());
    let used = match choice % 9 {
        0 => {
            put(&paths.enrolment(), bytes);
            match Enrolled::load(&paths) {
                Ok(Some(enrolled)) => {
                    enrolled.store(&paths, &Files::new()).expect("stored");
                    assert_eq!(Enrolled::load(&paths).expect("reads").as_ref(), Some(&enrolled));
                }
                Ok(None) => panic!("a file that is there"),
                Err(error) => told(&error.to_string()),
            }
            paths.enrolment()
        }
        1 => {
            put(&paths.records(), bytes);
            match Records::load(&paths, Files::new()) {
                Ok(records) => {
                    let again = Records::load(&paths, Files::new()).expect("what it wrote reads");
                    assert_eq!(records.unfiled(), again.unfiled());
                }
                Err(error) => told(&error.to_string()),
            }
            paths.records()
        }
        2 => {
            put(&paths.commands(), bytes);
            match Journal::load(&paths, Files::new(), "boot".into()) {
                Ok(journal) => {
                    let again = Journal::load(&paths, Files::new(), "boot".into()).expect("what it wrote reads");
                    assert_eq!(journal.unfiled(), again.unfiled());
                }
                Err(error) => told(&error.to_string()),
            }
            paths.commands()
        }
        3 => {
            put(&paths.setup_progress(), bytes);
            if let Some(progress) = keep::load(&paths) {
                keep::store(&paths, &Files::new(), &progress).expect("stored");
                assert_eq!(keep::load(&paths), Some(progress));
            }
            paths.setup_progress()
        }
        4 => {
            put(&paths.update_noted(), bytes);
            // The name of the wish stands in the file; any that is there is as good.
            if let Some(outcome) = Outcome::of(&paths, CommandId::from_bytes([0; 16])) {
                told(&outcome.sentence);
            }
            paths.update_noted()
        }
        5 => {
            put(&paths.certificate(), bytes);
            match identity::load_certificate(&paths) {
                Ok(Some(facts)) => assert!(facts.unit_id.is_none_or(|unit| !unit.as_str().is_empty())),
                Ok(None) => panic!("a file that is there"),
                Err(error) => told(&error.to_string()),
            }
            paths.certificate()
        }
        6 => {
            put(&paths.key(), bytes);
            if let Err(error) = identity::load(&paths) {
                told(&error.to_string());
                let shown = format!("{error} {error:?}");
                // Not even a part of a key is shown; what frames one is no part of it.
                let text = String::from_utf8_lossy(bytes);
                let is_secret = |line: &str| line.len() > 24 && !"-----BEGIN PRIVATE KEY-----".contains(line);
                assert!(!text.lines().any(|line| is_secret(line) && shown.contains(line)), "{shown}");
            }
            paths.key()
        }
        7 => {
            put(&paths.kernel_command_line(), bytes);
            offered(&paths);
            paths.kernel_command_line()
        }
        _ => {
            let [file, _] = paths.image_credentials();
            put(&file, bytes);
            offered(&paths);
            file
        }
    };
    let _ = files::read(&used, 1);
    std::fs::remove_file(used).expect("removed");
});

fn offered(paths: &Paths) {
    match sources::unattended(paths, |_| None) {
        Ok(Some(offer)) => {
            let key = offer.key.for_person();
            let key = key.reveal();
            assert!(FirstAuthKey::parse(key).is_ok());
            // A short one may stand in any word.
            assert!(key.len() < 8 || !format!("{offer:?}").contains(key), "the key is shown");
        }
        Ok(None) => {}
        Err(error) => told(&error.to_string()),
    }
}
