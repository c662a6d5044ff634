//! The list of commands, with restarts, power cuts and full disks in between. What holds: a command runs at most once, however often
//! it comes and whatever happens to disk and power; a result is kept until the server has filed it, and told unchanged; what was
//! never noted does not run; and the list never grows beyond its bound, nor forgets what the server does not have.
#![no_main]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_agent::commands::journal::{Begin, ENTRIES_MAX, Journal};
use umbra_agent::files::{self, Files};
use umbra_agent::paths::Paths;
use umbra_protocol::CommandId;
use umbra_protocol::command::{Action, Command, CommandResult, CommandState};

#[derive(Arbitrary, Debug)]
struct Run {
    /// How many commands are in the list from before, and which of them are filed.
    before: Option<(u8, u8)>,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Begin(u8, u8),
    Finish(u8),
    Filed(u8),
    FileAll,
    Restart { machine: bool },
    DiskFull(bool),
}

/// A folder in memory, of this process.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("umbra-fuzz-journal-{}", std::process::id()))
}

fn id(number: u16) -> CommandId {
    CommandId::from_bytes(u128::from(number).to_be_bytes())
}

fn result(id: CommandId) -> CommandResult {
    CommandResult { id, state: CommandState::Done, sentence: format!("It worked: {id}."), facts: BTreeMap::new() }
}

struct Model {
    journal: Journal,
    paths: Paths,
    full: Arc<AtomicBool>,
    boot: u32,
    ran: BTreeSet<CommandId>,
    /// What has a result that was handed to the journal while the disk took it, and is not filed.
    kept: BTreeMap<CommandId, CommandResult>,
    filed: BTreeSet<CommandId>,
    running: BTreeSet<CommandId>,
}

impl Model {
    fn files(full: &Arc<AtomicBool>) -> Files {
        let full = Arc::clone(full);
        Files::watched(move |_, _| match full.load(Ordering::Relaxed) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(()),
        })
    }

    fn begin(&mut self, number: u16, action: u8) {
        let id = id(number);
        let action = [Action::Inventory, Action::Reboot, Action::Shutdown, Action::Rekey][usize::from(action % 4)].clone();
        match self.journal.begin(&Command { id, action }) {
            Ok(Begin::Run) => {
                assert!(!self.full.load(Ordering::Relaxed), "it runs though it could not be noted");
                // Whoever filed a result does not send the command again; its ID may be forgotten when the list is full.
                assert!(self.ran.insert(id) || self.filed.contains(&id), "a command runs twice");
                self.filed.remove(&id);
                self.running.insert(id);
            }
            Ok(Begin::Ended(result)) => {
                assert!(!self.filed.contains(&id));
                if let Some(kept) = self.kept.get(&id) {
                    assert_eq!(*result, *kept, "another result than was kept");
                }
            }
            Ok(Begin::Full) => assert!(self.journal.unfiled().len() + self.running.len() >= ENTRIES_MAX, "full of nothing"),
            Ok(Begin::Nothing) => assert!(self.running.contains(&id) || self.filed.contains(&id)),
            Err(_) => assert!(self.full.load(Ordering::Relaxed), "a disk that works"),
        }
    }

    fn finish(&mut self, number: u16) {
        let id = id(number);
        if !self.running.remove(&id) {
            return;
        }
        if self.journal.finish(result(id)).is_ok() {
            self.kept.insert(id, result(id));
        } else {
            // In memory it is; a power cut may still make it an interrupted one.
            assert!(self.full.load(Ordering::Relaxed));
        }
        assert!(self.journal.unfiled().contains(&result(id)), "a result that is lost at once");
    }

    fn file(&mut self, id: CommandId) {
        let known = self.journal.unfiled().iter().any(|result| result.id == id);
        // What the disk does not take is told again after a power cut, and only then.
        let _ = self.journal.filed(id);
        if known {
            assert!(!self.journal.unfiled().iter().any(|result| result.id == id));
            self.kept.remove(&id);
            self.filed.insert(id);
        }
    }

    fn restart(&mut self, machine: bool) {
        self.full.store(false, Ordering::Relaxed);
        self.boot += u32::from(machine);
        let boot = format!("boot-{}", self.boot);
        self.journal = Journal::load(&self.paths, Self::files(&self.full), boot).expect("what it wrote itself reads");
        self.running.clear();
        // Each that was begun and not filed has a result now.
        let unfiled: BTreeMap<CommandId, CommandResult> =
            self.journal.unfiled().into_iter().map(|result| (result.id, result)).collect();
        for (id, kept) in &self.kept {
            assert_eq!(unfiled.get(id), Some(kept), "a result did not outlive a restart");
        }
        // Nothing was filed that the disk did not take.
        self.filed.retain(|id| !unfiled.contains_key(id));
        self.kept = unfiled;
    }

    fn check(&self) {
        let unfiled = self.journal.unfiled();
        assert!(unfiled.len() <= ENTRIES_MAX, "it grows");
        for (id, kept) in &self.kept {
            assert!(unfiled.iter().any(|result| result.id == *id && result == kept), "a result was forgotten");
        }
    }
}

thread_local! {
    static PATHS: RefCell<Option<Paths>> = const { RefCell::new(None) };
}

/// A list as an earlier run has left it: so full that few more fit.
fn earlier(count: u8, filed: u8) -> (String, BTreeMap<CommandId, CommandResult>, BTreeSet<CommandId>) {
    let (mut kept, mut gone) = (BTreeMap::new(), BTreeSet::new());
    let entries: Vec<serde_json::Value> = (0..u16::from(count))
        .map(|number| {
            let id = id(1_000 + number);
            if number % 8 < u16::from(filed % 8) {
                gone.insert(id);
                serde_json::json!({ "id": id, "action": "inventory", "boot": "", "filed": true })
            } else {
                kept.insert(id, result(id));
                serde_json::json!({ "id": id, "action": "inventory", "boot": "", "result": result(id) })
            }
        })
        .collect();
    (serde_json::json!({ "commands": entries }).to_string(), kept, gone)
}

fuzz_target!(|run: Run| {
    let paths = PATHS.with_borrow_mut(|paths| {
        paths
            .get_or_insert_with(|| {
                let paths = Paths::new(folder());
                files::make_directory(&paths.state(), 0o700).expect("a folder");
                paths
            })
            .clone()
    });
    let (text, kept, filed) = run.before.map_or_else(|| earlier(0, 0), |(count, filed)| earlier(count, filed));
    std::fs::write(paths.commands(), text).expect("written");
    let full = Arc::new(AtomicBool::new(false));
    let mut model = Model {
        journal: Journal::load(&paths, Model::files(&full), "boot-0".into()).expect("a journal"),
        paths,
        full,
        boot: 0,
        ran: BTreeSet::new(),
        kept,
        filed,
        running: BTreeSet::new(),
    };
    for step in run.steps.iter().take(64) {
        match step {
            Step::Begin(number, action) => model.begin((*number).into(), *action),
            Step::Finish(number) => model.finish((*number).into()),
            Step::Filed(number) => model.file(id((*number).into())),
            Step::FileAll => {
                for result in model.journal.unfiled() {
                    model.file(result.id);
                }
            }
            Step::Restart { machine } => model.restart(*machine),
            Step::DiskFull(now) => model.full.store(*now, Ordering::Relaxed),
        }
        model.check();
    }
});
