//! The assistant behind the window: a child process that says one view per line and hears one input per line. What it says is
//! bounded, nothing that it does or leaves undone holds up the window, and it ends with the window, willingly or not.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use umbra_setup::text::printable;
use umbra_setup::{Input, VIEW_VERSION, View};
use zeroize::Zeroizing;

/// Larger than any view.
const VIEW_MAX: u64 = 1024 * 1024;
/// Larger than any sentence on standard error.
const SENTENCE_MAX: u64 = 16 * 1024;
/// Views that may wait to be drawn, and inputs that may wait to be heard.
const WAITING: usize = 256;
/// How long the assistant may take to end once nobody listens any more.
const END: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What the assistant tells.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A screen.
    View(Box<View>),
    /// Nothing more comes.
    Over(Over),
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// It has closed its side.
    Silent,
    /// What it said is no view.
    Unreadable,
    /// It is of another version than this window.
    OtherVersion,
}

/// The running assistant.
#[derive(Debug)]
pub(crate) struct Assistant {
    child: Child,
    hears: Option<SyncSender<Zeroizing<String>>>,
    says: Receiver<Heard>,
    last_words: Arc<Mutex<String>>,
}

impl Assistant {
    /// Starts it. `wake` is called whenever it has said something.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start(
        program: &Path,
        arguments: &[OsString],
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(["setup", "--face", "json"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (says, last_words) = (mpsc::sync_channel(WAITING), Arc::default());
        let hears = child.stdin.take().map(hearing);
        if let Some(out) = child.stdout.take() {
            let sender = says.0;
            std::thread::spawn(move || listen(out, &sender, wake));
        }
        if let Some(errors) = child.stderr.take() {
            let last_words = Arc::clone(&last_words);
            std::thread::spawn(move || pass_on(errors, &last_words));
        }
        Ok(Self {
            child,
            hears,
            says: says.1,
            last_words,
        })
    }

    /// What it has said and nobody has taken yet.
    pub(crate) fn heard(&self) -> Option<Heard> {
        self.says.try_recv().ok()
    }

    /// Says what the person did. Where the assistant has stopped listening, that is noticed at its end; the window does not wait
    /// for it.
    pub(crate) fn say(&mut self, input: &Input) {
        // It may hold the key.
        let Ok(mut line) = serde_json::to_string(input).map(Zeroizing::new) else {
            return;
        };
        line.push('\n');
        if let Some(hears) = &self.hears
            && hears.try_send(line).is_err()
        {
            self.hears = None;
        }
    }

    /// Waits for the end of an assistant that has nothing more to say; one that stays all the same is ended.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        self.hears = None;
        let end = Instant::now() + END;
        while Instant::now() < end {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => std::thread::sleep(LOOK),
                Err(_) => return None,
            }
        }
        // It had its time. Nothing is lost: what it keeps, it writes at each step.
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    /// The last line on its standard error, fit to be shown; empty if there was none.
    pub(crate) fn last_words(&self) -> String {
        printable(
            &self
                .last_words
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl Drop for Assistant {
    fn drop(&mut self) {
        self.say(&Input::Close);
        self.end();
    }
}

/// Writes inputs on a thread of its own: an assistant that does not read must not hold up the window. Its standard input closes
/// with the sender.
fn hearing(mut pipe: ChildStdin) -> SyncSender<Zeroizing<String>> {
    let (sender, lines) = mpsc::sync_channel::<Zeroizing<String>>(WAITING);
    std::thread::spawn(move || {
        while let Ok(line) = lines.recv() {
            let said = pipe.write_all(line.as_bytes()).and_then(|()| pipe.flush());
            if said.is_err() {
                break;
            }
        }
    });
    sender
}

fn listen(out: ChildStdout, sender: &SyncSender<Heard>, wake: impl Fn()) {
    let mut out = BufReader::new(out);
    loop {
        let heard = hear(&mut out);
        let is_last = matches!(heard, Heard::Over(_));
        if sender.send(heard).is_err() {
            break;
        }
        wake();
        if is_last {
            break;
        }
    }
}

/// The next view.
fn hear(out: &mut impl BufRead) -> Heard {
    let mut line = Vec::new();
    let read = out.take(VIEW_MAX).read_until(b'\n', &mut line);
    if read.is_err() || line.last() != Some(&b'\n') {
        let is_endless = line.len() as u64 >= VIEW_MAX;
        return Heard::Over(if is_endless {
            Over::Unreadable
        } else {
            // A line that was cut off is the end of one who was ended.
            Over::Silent
        });
    }
    match serde_json::from_slice::<View>(&line) {
        Ok(view) if view.version == VIEW_VERSION => Heard::View(Box::new(view)),
        Ok(_) => Heard::Over(Over::OtherVersion),
        // A newer form may hold what this one does not know at all.
        Err(_) if version(&line).is_some_and(|version| version != u64::from(VIEW_VERSION)) => {
            Heard::Over(Over::OtherVersion)
        }
        Err(_) => Heard::Over(Over::Unreadable),
    }
}

fn version(line: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    value.get("version")?.as_u64()
}

/// Standard error goes where the window's own goes, and its last line is kept for the person.
fn pass_on(errors: ChildStderr, last_words: &Mutex<String>) {
    let mut errors = BufReader::new(errors);
    for line in lines(&mut errors) {
        // Where nobody reads it, it is still passed by.
        let _ = io::stderr().lock().write_all(&line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if !text.is_empty() {
            text.clone_into(&mut last_words.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Lines with their ends; one that is too long comes in parts.
fn lines(from: &mut impl BufRead) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match from.take(SENTENCE_MAX).read_until(b'\n', &mut line) {
            Ok(count) if count > 0 => Some(line),
            Ok(_) | Err(_) => None,
        }
    })
}

/// How the assistant ended, in what matters to the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should, with this exit code: there is nothing more to show.
    Done(u8),
    /// Some other way.
    Broken,
}

/// The exit codes of `umbra-agent setup` with which it has said everything on its screens: ready, left, taken.
const SAID_ALL: [i32; 3] = [0, 1, 75];

impl End {
    pub(crate) fn of(status: Option<ExitStatus>, has_shown: bool) -> Self {
        match status.and_then(|status| status.code()) {
            Some(code) if has_shown && SAID_ALL.contains(&code) => {
                u8::try_from(code).map_or(End::Broken, End::Done)
            }
            Some(_) | None => End::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use umbra_setup::{Language, Step};

    use super::*;

    /// Long enough for any machine; nothing waits for it to pass.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn view() -> View {
        View {
            version: VIEW_VERSION,
            step: Step::Language,
            number: 1,
            of: 7,
            language: Language::En,
            title: "Language".into(),
            text: Vec::new(),
            items: Vec::new(),
            actions: Vec::new(),
            notice: None,
            busy: false,
        }
    }

    fn line(view: &View) -> Vec<u8> {
        let mut line = serde_json::to_vec(view).expect("a view is JSON");
        line.push(b'\n');
        line
    }

    fn over(said: &[u8]) -> Over {
        match hear(&mut &*said) {
            Heard::Over(over) => over,
            Heard::View(view) => panic!("a view: {view:?}"),
        }
    }

    /// A shell instead of the agent; it gets the agent's arguments as its own.
    fn shell(script: &str) -> (tempfile::TempDir, Assistant) {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("agent");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&program, mode).expect("executable");
        // Another test that forks at this moment may hold the file open for writing until it has executed.
        let begun = Instant::now();
        loop {
            match Assistant::start(&program, &["--language".into(), "de".into()], || {}) {
                Ok(assistant) => return (folder, assistant),
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                    assert!(begun.elapsed() < PATIENCE, "{error}");
                    std::thread::sleep(LOOK);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn next(assistant: &Assistant) -> Heard {
        assistant.says.recv_timeout(PATIENCE).expect("something")
    }

    #[test]
    fn views_are_heard_one_by_one_and_then_the_end() {
        let both = [line(&view()), line(&view())].concat();
        let mut said = both.as_slice();
        for _ in 0..2 {
            let Heard::View(heard) = hear(&mut said) else {
                panic!("no view")
            };
            assert_eq!(*heard, view());
        }
        assert_eq!(over(said), Over::Silent);
    }

    #[test]
    fn another_version_and_nonsense_are_told_apart() {
        let newer = line(&View {
            version: VIEW_VERSION + 1,
            ..view()
        });
        assert_eq!(over(&newer), Over::OtherVersion);
        assert_eq!(
            over(b"{\"version\":9,\"step\":\"unheard of\"}\n"),
            Over::OtherVersion
        );
        assert_eq!(over(b"hello\n"), Over::Unreadable);
        assert_eq!(over(b"\n"), Over::Unreadable);
        assert_eq!(over(b"\xFF\xFE\0\n"), Over::Unreadable);
        assert_eq!(over(b"{\"version\":1}\n"), Over::Unreadable);
    }

    #[test]
    fn a_line_that_is_cut_anywhere_is_the_end() {
        let whole = line(&view());
        for length in 0..whole.len() {
            assert_eq!(over(&whole[..length]), Over::Silent, "{length} bytes");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_read_without_an_end() {
        let mut endless = BufReader::new(io::repeat(b'x'));
        assert!(matches!(hear(&mut endless), Heard::Over(Over::Unreadable)));
    }

    #[test]
    fn nesting_without_an_end_is_no_view() {
        let deep = [vec![b'['; 500_000], vec![b'\n']].concat();
        assert_eq!(over(&deep), Over::Unreadable);
    }

    #[test]
    fn it_is_started_as_a_json_face_with_the_arguments_given_and_hears_every_line() {
        let (folder, mut assistant) = shell(
            "echo \"$@\" >\"$0.arguments\"; IFS= read -r one; IFS= read -r two; echo \"$one\" \"$two\" >\"$0.heard\"",
        );
        assistant.say(&Input::Press {
            action: "next".into(),
        });
        assistant.say(&Input::Reveal {
            entry: "key".into(),
            on: true,
        });
        assert!(matches!(next(&assistant), Heard::Over(Over::Silent)));
        assert_eq!(assistant.end().and_then(|status| status.code()), Some(0));
        let kept = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        assert_eq!(kept("agent.arguments"), "setup --face json --language de\n");
        assert_eq!(
            kept("agent.heard"),
            "{\"input\":\"press\",\"action\":\"next\"} {\"input\":\"reveal\",\"entry\":\"key\",\"on\":true}\n"
        );
    }

    #[test]
    fn what_it_said_last_and_how_it_ended_are_known_when_it_dies() {
        let (_folder, mut assistant) =
            shell("echo first >&2; printf 'the disk\\033[2J is full\\n' >&2; kill -9 $$");
        assert!(matches!(next(&assistant), Heard::Over(Over::Silent)));
        let status = assistant.end();
        assert_eq!(status.and_then(|status| status.signal()), Some(9));
        assert_eq!(End::of(status, true), End::Broken);
        let begun = Instant::now();
        while assistant.last_words() != "the disk\u{fffd}[2J is full" {
            assert!(begun.elapsed() < PATIENCE, "{:?}", assistant.last_words());
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn one_that_neither_reads_nor_ends_is_ended_and_holds_nothing_up() {
        let (_folder, mut assistant) = shell("trap '' TERM HUP INT; exec sleep 3600");
        let pid = assistant.child.id();
        let text = umbra_protocol::Secret::new("x".repeat(60_000));
        let begun = Instant::now();
        for _ in 0..WAITING * 2 {
            assistant.say(&Input::Set {
                entry: "key".into(),
                text: text.clone(),
            });
        }
        assert!(begun.elapsed() < PATIENCE);
        drop(assistant);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn one_that_floods_is_listened_to_no_faster_than_it_is_shown() {
        let text = String::from_utf8(line(&view())).expect("text");
        let (_folder, mut assistant) = shell(&format!(
            "while echo '{}'; do :; done",
            text.trim().replace('\'', "")
        ));
        for _ in 0..WAITING * 3 {
            assert!(matches!(next(&assistant), Heard::View(_)));
        }
        assistant.says = mpsc::sync_channel(0).1;
        // Nobody listens any more, so it can't go on.
        assert!(assistant.end().is_some());
    }

    #[test]
    fn an_assistant_that_is_not_there_is_an_error() {
        let error = Assistant::start(Path::new("/nowhere/umbra-agent"), &[], || {});
        assert_eq!(error.expect_err("started").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_an_end_that_was_shown_closes_the_window() {
        let ended = |code: i32| Some(ExitStatus::from_raw(code << 8));
        for code in [0, 1, 75] {
            assert!(matches!(End::of(ended(code), true), End::Done(_)), "{code}");
            assert_eq!(End::of(ended(code), false), End::Broken, "{code}");
        }
        for code in [64, 65, 70, 74, 77, 101, 127] {
            assert_eq!(End::of(ended(code), true), End::Broken, "{code}");
        }
        assert_eq!(End::of(None, true), End::Broken);
    }
}
