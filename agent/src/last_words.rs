//! What is said when the program stops because of a mistake in itself. The compiler ends it at once after that; this must need
//! nothing that could be what has just broken.

use std::io::Write as _;
use std::panic::PanicHookInfo;

/// From now on a panic is told in a sentence, on stderr and so in the journal.
pub fn prepare() {
    std::panic::set_hook(Box::new(|panic| {
        // Nothing is left to do if even that can't be written.
        let _ = writeln!(std::io::stderr(), "{}", sentence(panic));
    }));
}

fn sentence(panic: &PanicHookInfo<'_>) -> String {
    let what = panic.payload_as_str().unwrap_or("nothing more is known");
    // The program as it ships doesn't know its own lines.
    let place = panic.location().filter(|place| place.line() > 0);
    let place = place.map_or(String::new(), |place| format!(", {place}"));
    format!(
        "umbra-agent: a mistake in the program ends it ({what}{place}); what it keeps on disk is whole, and the service manager \
         starts it again"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_panic_is_told_with_its_own_words() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        // Other tests of this process may panic on purpose meanwhile; their words are looked past.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            TOLD.lock().expect("no panic inside").push(sentence(panic));
            before(panic);
        }));
        let ended = std::thread::spawn(|| panic!("the answer was {}", 41)).join();
        assert!(ended.is_err());
        let told = TOLD.lock().expect("no panic inside");
        let ours = told.iter().find(|told| told.contains("the answer was 41"));
        let ours = ours.expect("it was told");
        assert!(ours.starts_with("umbra-agent: a mistake in the program ends it"));
        assert!(ours.contains("last_words.rs:"), "{ours}");
    }
}
