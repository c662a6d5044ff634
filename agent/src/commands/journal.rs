//! What the device remembers of commands: which were begun, and the results that the server has not filed yet. A command is noted
//! before it runs, so that it runs at most once even if the power goes in between; the list is bounded and never grows with time.

use std::path::PathBuf;

use serde::Serialize;
use umbra_protocol::CommandId;
use umbra_protocol::command::{Action, Command, CommandResult, CommandState};

use crate::files::{self, FileError, Files};
use crate::hands::outcome::Outcome;
use crate::paths::Paths;

/// Most commands that are remembered; filed ones are forgotten first.
pub const ENTRIES_MAX: usize = 256;
/// More bytes than a full list has: a result's facts may be large.
const FILE_MAX: usize = 64 * 1024 * 1024;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    id: CommandId,
    action: String,
    /// The boot during which it was begun.
    boot: String,
    /// `None` while it runs.
    #[serde(default)]
    result: Option<CommandResult>,
    /// Whether the server has the result: only the ID is worth remembering then.
    #[serde(default)]
    filed: bool,
}

umbra_protocol::json::object!(Entry { id, action, boot; result, filed });

/// What a newer version writes beside it is passed over: what both know is remembered all the same.
#[derive(Default, Serialize)]
struct Kept {
    commands: Vec<Entry>,
}

umbra_protocol::json::object!(Kept { commands;  });

/// What to do with a command that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Begin {
    /// It is new and noted: run it.
    Run,
    /// It ended before: this is its result.
    Ended(Box<CommandResult>),
    /// It runs at this moment, or the server has its result already.
    Nothing,
    /// Too many results wait for the server; it is not noted and must not run.
    Full,
}

/// Why the journal can't be used as it lies there.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused.
    #[error("the list of commands could not be read or written")]
    File(#[source] FileError),
    /// It can't be understood.
    #[error("the list of commands in {} is damaged", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    files: Files,
    boot: String,
    entries: Vec<Entry>,
}

impl Journal {
    /// Reads the journal and settles what was begun when the agent died: a restart of the machine shows that it was restarted, all
    /// else is interrupted and not tried again.
    pub fn load(paths: &Paths, files: Files, boot: String) -> Result<Self, JournalError> {
        let path = paths.commands();
        let kept = match files::read(&path, FILE_MAX).map_err(JournalError::File)? {
            None => Kept::default(),
            Some(bytes) => umbra_protocol::json::from_slice(&bytes).map_err(|source| {
                JournalError::Damaged {
                    path: path.clone(),
                    source,
                }
            })?,
        };
        let mut journal = Self {
            path,
            files,
            boot,
            entries: kept.commands,
        };
        let mut settled = false;
        for entry in &mut journal.entries {
            if entry.result.is_none() && !entry.filed {
                // Of an update more may be known than that the agent was stopped.
                if entry.action == Action::Update.name() && Outcome::of(paths, entry.id).is_some() {
                    continue;
                }
                entry.result = Some(settle(entry, &journal.boot));
                settled = true;
            }
        }
        if settled {
            journal.write().map_err(JournalError::File)?;
        }
        Ok(journal)
    }

    /// An empty journal in the place of a damaged one, which is kept beside it for whoever looks into it.
    pub fn replace_damaged(
        paths: &Paths,
        files: Files,
        boot: String,
    ) -> Result<Self, JournalError> {
        let path = paths.commands();
        files
            .rename(&path, &path.with_extension("json.damaged"))
            .map_err(JournalError::File)?;
        Self::load(paths, files, boot)
    }

    /// An empty journal where the disk can't be read: commands are refused for as long as they can't be noted.
    pub fn in_memory(paths: &Paths, files: Files, boot: String) -> Self {
        Self {
            path: paths.commands(),
            files,
            boot,
            entries: Vec::new(),
        }
    }

    /// Takes a command that arrived. [`Begin::Run`] is returned only once the command is noted on the disk.
    pub fn begin(&mut self, command: &Command) -> Result<Begin, FileError> {
        if let Some(entry) = self.entries.iter().find(|entry| entry.id == command.id) {
            return Ok(match &entry.result {
                Some(result) if !entry.filed => Begin::Ended(Box::new(result.clone())),
                Some(_) | None => Begin::Nothing,
            });
        }
        if self.entries.len() >= ENTRIES_MAX {
            match self.entries.iter().position(|entry| entry.filed) {
                Some(oldest) => drop(self.entries.remove(oldest)),
                None => return Ok(Begin::Full),
            }
        }
        self.entries.push(Entry {
            id: command.id,
            action: command.action.name().to_owned(),
            boot: self.boot.clone(),
            result: None,
            filed: false,
        });
        if let Err(error) = self.write() {
            // Not noted: it must not run, and may be sent again.
            self.entries.pop();
            return Err(error);
        }
        Ok(Begin::Run)
    }

    /// Updates that an earlier run of the agent began, and of which more is to be found out.
    pub fn open(&self) -> Vec<CommandId> {
        let open = |entry: &&Entry| {
            entry.action == Action::Update.name() && entry.result.is_none() && !entry.filed
        };
        self.entries
            .iter()
            .filter(open)
            .map(|entry| entry.id)
            .collect()
    }

    /// Keeps a result until the server has filed it. A result that the disk does not take is still kept in memory.
    pub fn finish(&mut self, result: CommandResult) -> Result<(), FileError> {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == result.id) else {
            return Ok(());
        };
        entry.result = Some(result);
        self.write()
    }

    /// The server has filed a result.
    pub fn filed(&mut self, id: CommandId) -> Result<(), FileError> {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else {
            return Ok(());
        };
        if entry.filed || entry.result.is_none() {
            return Ok(());
        }
        entry.filed = true;
        entry.result = None;
        self.write()
    }

    /// Results that the server has not filed yet, oldest first.
    pub fn unfiled(&self) -> Vec<CommandResult> {
        self.entries
            .iter()
            .filter_map(|entry| entry.result.clone())
            .collect()
    }

    fn write(&self) -> Result<(), FileError> {
        let kept = Kept {
            commands: self.entries.clone(),
        };
        let bytes = serde_json::to_vec(&kept).expect("entries hold nothing that JSON cannot say");
        self.files.write(&self.path, &bytes, 0o600)
    }
}

fn settle(entry: &Entry, boot: &str) -> CommandResult {
    let restarts = entry.action == Action::Reboot.name() || entry.action == Action::Shutdown.name();
    let booted_since = !boot.is_empty() && !entry.boot.is_empty() && entry.boot != boot;
    let (state, sentence) = if restarts && booted_since {
        (CommandState::Done, "The device has come up again since.")
    } else {
        (
            CommandState::Interrupted,
            "The agent was stopped while it carried this out; it was not tried again.",
        )
    };
    CommandResult {
        id: entry.id,
        state,
        sentence: sentence.to_owned(),
        facts: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn command(number: u8, action: Action) -> Command {
        let mut id = [0; 16];
        id[0] = number;
        Command {
            id: CommandId::from_bytes(id),
            action,
        }
    }

    fn done(command: &Command) -> CommandResult {
        CommandResult {
            id: command.id,
            state: CommandState::Done,
            sentence: "It worked.".into(),
            facts: std::collections::BTreeMap::new(),
        }
    }

    struct Device {
        _root: tempfile::TempDir,
        paths: Paths,
    }

    impl Device {
        fn new() -> Self {
            let root = tempfile::tempdir().expect("a folder");
            let paths = Paths::new(root.path());
            files::make_directory(&paths.state(), 0o700).expect("a folder");
            Self { _root: root, paths }
        }

        fn boots(&self, boot: &str) -> Journal {
            Journal::load(&self.paths, Files::new(), boot.into()).expect("a journal")
        }
    }

    #[test]
    fn a_command_runs_once_however_often_it_arrives_even_after_its_result_was_filed() {
        let device = Device::new();
        let command = command(1, Action::Inventory);
        let mut journal = device.boots("a");
        assert_eq!(journal.begin(&command).expect("noted"), Begin::Run);
        assert_eq!(journal.begin(&command).expect("known"), Begin::Nothing);
        journal.finish(done(&command)).expect("kept");
        let again = Begin::Ended(Box::new(done(&command)));
        assert_eq!(journal.begin(&command).expect("known"), again);
        let mut journal = device.boots("b");
        assert_eq!(journal.begin(&command).expect("known"), again);
        assert_eq!(journal.unfiled(), [done(&command)]);
        journal.filed(command.id).expect("filed");
        assert!(journal.unfiled().is_empty());
        assert_eq!(
            device.boots("b").begin(&command).expect("known"),
            Begin::Nothing
        );
    }

    #[test]
    fn what_the_agent_died_in_is_interrupted_and_never_tried_again() {
        for action in [Action::Inventory, Action::Rekey, Action::Reboot] {
            let device = Device::new();
            let command = command(1, action);
            assert_eq!(
                device.boots("a").begin(&command).expect("noted"),
                Begin::Run
            );
            let mut journal = device.boots("a");
            let Begin::Ended(result) = journal.begin(&command).expect("known") else {
                panic!("it would run again")
            };
            assert_eq!(result.state, CommandState::Interrupted);
        }
    }

    #[test]
    fn an_update_of_which_root_has_noted_something_stays_open_and_is_that_of_no_other_command() {
        let device = Device::new();
        let (update, other) = (command(1, Action::Update), command(2, Action::Update));
        let mut journal = device.boots("a");
        for command in [&update, &other, &command(3, Action::Inventory)] {
            assert_eq!(journal.begin(command).expect("noted"), Begin::Run);
        }
        let file = device.paths.update_noted();
        files::make_directory(file.parent().expect("a folder"), 0o755).expect("a folder");
        let wish: String = update.id.to_string().chars().take(16).collect();
        std::fs::write(file, format!("restart\n{wish}\na\nA\nserver\nInstalled.\n"))
            .expect("written");
        let mut journal = device.boots("b");
        assert_eq!(journal.open(), [update.id]);
        assert_eq!(journal.begin(&update).expect("known"), Begin::Nothing);
        let states: Vec<CommandState> = journal.unfiled().iter().map(|r| r.state).collect();
        assert_eq!(
            states,
            [CommandState::Interrupted, CommandState::Interrupted]
        );
        journal.finish(done(&update)).expect("kept");
        assert!(journal.open().is_empty());
        assert!(device.boots("c").unfiled().contains(&done(&update)));
    }

    #[test]
    fn a_restart_is_done_once_the_machine_has_come_up_again() {
        for action in [Action::Reboot, Action::Shutdown] {
            let device = Device::new();
            let command = command(1, action);
            device.boots("a").begin(&command).expect("noted");
            let results = device.boots("b").unfiled();
            assert_eq!(results[0].state, CommandState::Done);
            // Settled for good: a later boot does not change it.
            assert_eq!(device.boots("c").unfiled(), results);
        }
        let device = Device::new();
        let inventory = command(2, Action::Inventory);
        device.boots("a").begin(&inventory).expect("noted");
        assert_eq!(
            device.boots("b").unfiled()[0].state,
            CommandState::Interrupted
        );
    }

    #[test]
    fn without_a_boot_id_nothing_is_claimed_about_a_restart() {
        let device = Device::new();
        let command = command(1, Action::Reboot);
        device.boots("").begin(&command).expect("noted");
        assert_eq!(
            device.boots("b").unfiled()[0].state,
            CommandState::Interrupted
        );
    }

    #[test]
    fn what_could_not_be_noted_does_not_run_and_is_not_remembered() {
        let device = Device::new();
        let failures = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&failures);
        let files = Files::watched(move |_, _| {
            if seen.fetch_add(1, Ordering::Relaxed) == 0 {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            } else {
                Ok(())
            }
        });
        let mut journal = Journal::load(&device.paths, files, "a".into()).expect("a journal");
        let command = command(1, Action::Reboot);
        assert!(matches!(
            journal.begin(&command),
            Err(FileError::Full { .. })
        ));
        assert!(device.boots("b").unfiled().is_empty());
        assert_eq!(journal.begin(&command).expect("room again"), Begin::Run);
    }

    #[test]
    fn the_list_is_bounded_and_never_forgets_what_the_server_does_not_have() {
        let device = Device::new();
        let mut journal = device.boots("a");
        let numbered = |number: usize| Command {
            id: CommandId::from_bytes((number as u128).to_be_bytes()),
            action: Action::Inventory,
        };
        for number in 0..ENTRIES_MAX {
            assert_eq!(journal.begin(&numbered(number)).expect("noted"), Begin::Run);
        }
        assert_eq!(
            journal.begin(&numbered(ENTRIES_MAX)).expect("known"),
            Begin::Full
        );
        journal.finish(done(&numbered(7))).expect("kept");
        journal.filed(numbered(7).id).expect("filed");
        assert_eq!(
            journal.begin(&numbered(ENTRIES_MAX)).expect("room"),
            Begin::Run
        );
        assert_eq!(journal.entries.len(), ENTRIES_MAX);
    }

    #[test]
    fn a_damaged_list_is_told_and_put_aside_not_forgotten_silently() {
        let device = Device::new();
        std::fs::write(device.paths.commands(), b"{\"commands\": [").expect("written");
        let error = Journal::load(&device.paths, Files::new(), "a".into()).expect_err("damaged");
        assert!(error.to_string().contains("damaged"), "{error}");
        let journal =
            Journal::replace_damaged(&device.paths, Files::new(), "a".into()).expect("a fresh one");
        assert!(journal.unfiled().is_empty());
        assert!(device.paths.state().join("commands.json.damaged").exists());
    }
}
