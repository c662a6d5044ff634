//! What is said when a program stops because of a mistake in itself. The program ends at once after that; what speaks here must
//! need nothing that could be what has just broken.
//!
//! A program that is built with words for its panics says them. One that is built without (`panic = "immediate-abort"`, as the
//! agent ships: decision 0010) runs into an instruction that no processor has; it says where that stands in it, and whoever has
//! the file with the symbols of that build sees from this the function, the file and the line.

mod place;
mod trap;

use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;

/// What follows, whatever the mistake was.
const WHAT_NOW: &str =
    "; what it keeps on disk is whole, and the service manager starts it again\n";

/// What is done before anything is said.
static FIRST: OnceLock<fn()> = OnceLock::new();

/// Has something done before the sentence is said: a terminal to be put in order, so that it can be read.
///
/// It must neither wait nor take memory: it may be called inside a signal handler. Only the first call of this counts.
pub fn first(what: fn()) {
    // Two that want to come first are a mistake, but none to end a program for.
    let _ = FIRST.set(what);
}

fn do_first() {
    if let Some(what) = FIRST.get() {
        what();
    }
}

/// From now on the end by a mistake is told in a sentence, on stderr and so in the journal.
///
/// `who` is how the program is called, with its version. Calling it again changes who speaks after a panic, but not after a trap.
pub fn prepare(who: &'static str) {
    std::panic::set_hook(Box::new(move |panic| {
        do_first();
        // Nothing is left to do if even that can't be written.
        let _ = std::io::stderr().write_all(sentence(who, panic).as_bytes());
    }));
    trap::prepare(who);
}

fn sentence(who: &str, panic: &PanicHookInfo<'_>) -> String {
    let what = panic.payload_as_str().unwrap_or("nothing more is known");
    // A program may have been built without knowing its own lines.
    let place = panic.location().filter(|place| place.line() > 0);
    let place = place.map_or(String::new(), |place| format!(", {place}"));
    format!("{who}: a mistake in the program ends it ({what}{place}){WHAT_NOW}")
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
            let told = sentence("umbra-agent 1.2.3", panic);
            TOLD.lock().expect("no panic inside").push(told);
            before(panic);
        }));
        let ended = std::thread::spawn(|| panic!("the answer was {}", 41)).join();
        assert!(ended.is_err());
        let told = TOLD.lock().expect("no panic inside");
        let ours = told.iter().find(|told| told.contains("the answer was 41"));
        let ours = ours.expect("it was told");
        assert!(
            ours.starts_with("umbra-agent 1.2.3: a mistake in the program ends it"),
            "{ours}"
        );
        assert!(ours.contains("lib.rs:"), "{ours}");
    }
}
