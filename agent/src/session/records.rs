//! What is kept of sessions until the server has it. A record is written when a session begins, so that even a session that the
//! agent died in is accounted for; there are at most 200, the oldest are dropped first.

use std::path::PathBuf;

use serde::Serialize;
use umbra_protocol::SessionId;
use umbra_protocol::session::SessionRecord;

use crate::files::{self, FileError, Files};
use crate::paths::Paths;

/// Most records that are kept.
pub const RECORDS_MAX: usize = 200;
const FILE_MAX: usize = 1024 * 1024;
/// Code of a session that the agent died in.
pub const AGENT_RESTARTED: &str = "agent_restarted";

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    /// The session has not ended yet.
    open: bool,
    record: SessionRecord,
}

umbra_protocol::json::object!(Entry { open, record;  });

/// What a newer version writes beside it is passed over: what both know is remembered all the same.
#[derive(Default, Serialize)]
struct Kept {
    sessions: Vec<Entry>,
}

umbra_protocol::json::object!(Kept { sessions;  });

/// Why the records can't be used as they lie there.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The disk refused.
    #[error("the records of sessions could not be read or written")]
    File(#[source] FileError),
    /// They can't be understood.
    #[error("the records of sessions in {} are damaged", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
}

/// Records of sessions.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    files: Files,
    entries: Vec<Entry>,
}

impl Records {
    /// Reads the records and closes those of sessions that the agent died in.
    pub fn load(paths: &Paths, files: Files) -> Result<Self, RecordsError> {
        let path = paths.records();
        let kept = match files::read(&path, FILE_MAX).map_err(RecordsError::File)? {
            None => Kept::default(),
            Some(bytes) => umbra_protocol::json::from_slice(&bytes).map_err(|source| {
                RecordsError::Damaged {
                    path: path.clone(),
                    source,
                }
            })?,
        };
        let mut records = Self {
            path,
            files,
            entries: kept.sessions,
        };
        let mut changed = false;
        for entry in records.entries.iter_mut().filter(|entry| entry.open) {
            entry.open = false;
            changed = true;
        }
        if changed {
            records.write().map_err(RecordsError::File)?;
        }
        Ok(records)
    }

    /// No records, in the place of damaged ones, which are kept beside them for whoever looks into it.
    pub fn replace_damaged(paths: &Paths, files: Files) -> Result<Self, RecordsError> {
        let path = paths.records();
        files
            .rename(&path, &path.with_extension("json.damaged"))
            .map_err(RecordsError::File)?;
        Self::load(paths, files)
    }

    /// No records, where the disk can't be read.
    pub fn in_memory(paths: &Paths, files: Files) -> Self {
        Self {
            path: paths.records(),
            files,
            entries: Vec::new(),
        }
    }

    /// A session begins. What is written now is what remains if the agent dies in it.
    pub fn begin(&mut self, session: SessionId) -> Result<(), FileError> {
        self.entries.retain(|entry| entry.record.session != session);
        if self.entries.len() >= RECORDS_MAX {
            let oldest = self.entries.iter().position(|entry| !entry.open);
            self.entries.remove(oldest.unwrap_or(0));
        }
        self.entries.push(Entry {
            open: true,
            record: SessionRecord {
                session,
                code: AGENT_RESTARTED.to_owned(),
                sentence: "The device's agent was stopped during the session; how long it lasted is not known."
                    .to_owned(),
                duration_ms: 0,
                bytes_to_device: 0,
                bytes_to_console: 0,
            },
        });
        self.write()
    }

    /// A session has ended. A record that the disk does not take is still kept in memory.
    pub fn end(&mut self, record: SessionRecord) -> Result<(), FileError> {
        let ended = Entry {
            open: false,
            record,
        };
        match self
            .entries
            .iter_mut()
            .find(|entry| entry.record.session == ended.record.session)
        {
            Some(entry) => *entry = ended,
            // Dropped meanwhile, for newer ones: then it stays dropped.
            None => return Ok(()),
        }
        self.write()
    }

    /// Records that the server has not filed yet, oldest first.
    pub fn unfiled(&self) -> Vec<SessionRecord> {
        self.entries
            .iter()
            .filter(|entry| !entry.open)
            .map(|entry| entry.record.clone())
            .collect()
    }

    /// The server has filed a record.
    pub fn filed(&mut self, session: SessionId) -> Result<(), FileError> {
        let before = self.entries.len();
        self.entries
            .retain(|entry| entry.open || entry.record.session != session);
        if self.entries.len() == before {
            return Ok(());
        }
        self.write()
    }

    fn write(&self) -> Result<(), FileError> {
        let kept = Kept {
            sessions: self.entries.clone(),
        };
        let bytes = serde_json::to_vec(&kept).expect("records hold nothing that JSON cannot say");
        self.files.write(&self.path, &bytes, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

        fn starts(&self) -> Records {
            Records::load(&self.paths, Files::new()).expect("records")
        }
    }

    fn session(number: usize) -> SessionId {
        SessionId::from_bytes((number as u128).to_be_bytes())
    }

    fn record(number: usize) -> SessionRecord {
        SessionRecord {
            session: session(number),
            code: "viewer_closed".into(),
            sentence: "The viewer closed the session.".into(),
            duration_ms: 1_000,
            bytes_to_device: 1,
            bytes_to_console: 2,
        }
    }

    #[test]
    fn a_session_that_the_agent_died_in_has_a_record() {
        let device = Device::new();
        let mut records = device.starts();
        records.begin(session(1)).expect("written");
        assert!(records.unfiled().is_empty(), "it is still running");
        let unfiled = device.starts().unfiled();
        assert_eq!(unfiled.len(), 1);
        assert_eq!(unfiled[0].code, AGENT_RESTARTED);
        assert_eq!(device.starts().unfiled(), unfiled, "settled for good");
    }

    #[test]
    fn a_record_is_kept_until_the_server_has_it() {
        let device = Device::new();
        let mut records = device.starts();
        records.begin(session(1)).expect("written");
        records.end(record(1)).expect("written");
        assert_eq!(device.starts().unfiled(), [record(1)]);
        let mut records = device.starts();
        records.filed(session(2)).expect("unknown ones are nothing");
        records.filed(session(1)).expect("filed");
        assert!(device.starts().unfiled().is_empty());
    }

    #[test]
    fn a_running_session_is_not_forgotten_because_the_server_says_filed() {
        let device = Device::new();
        let mut records = device.starts();
        records.begin(session(1)).expect("written");
        records.filed(session(1)).expect("nothing to do");
        records.end(record(1)).expect("written");
        assert_eq!(records.unfiled(), [record(1)]);
    }

    #[test]
    fn there_are_never_more_than_two_hundred_and_the_oldest_ended_ones_go() {
        let device = Device::new();
        let mut records = device.starts();
        records.begin(session(0)).expect("written");
        for number in 1..=RECORDS_MAX + 10 {
            records.begin(session(number)).expect("written");
            records.end(record(number)).expect("written");
        }
        records.end(record(0)).expect("written");
        let unfiled = device.starts().unfiled();
        assert_eq!(unfiled.len(), RECORDS_MAX);
        assert_eq!(unfiled[0], record(0), "the running one was kept");
        assert_eq!(unfiled[1], record(12));
    }

    #[test]
    fn damaged_records_are_told_and_put_aside() {
        let device = Device::new();
        std::fs::write(device.paths.records(), b"[]").expect("written");
        let error = Records::load(&device.paths, Files::new()).expect_err("damaged");
        assert!(error.to_string().contains("damaged"), "{error}");
        Records::replace_damaged(&device.paths, Files::new()).expect("fresh ones");
        assert!(device.paths.state().join("records.json.damaged").exists());
    }
}
