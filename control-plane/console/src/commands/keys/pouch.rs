//! The texts of keys that were made on this machine and not handed over yet. The server could not say them again: it keeps
//! verifiers only. The file is its owner's alone (0600), and holds a key no longer than it is of use.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use umbra_protocol::api::{KeyInfo, KeyKind, KeyState};
use umbra_protocol::{KeyId, Secret, UnitId};
use zeroize::Zeroizing;

use crate::config::write_private;
use crate::failure::Failure;
use crate::text::printable;

/// Larger files are not ours.
const FILE_MAX: u64 = 16 * 1024 * 1024;
/// Most keys that are kept; the oldest go first.
const MOST: usize = 20_000;

/// A key whose text is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// The server that takes it, as `HOST:PORT`.
    pub(super) server: String,
    /// The key's ID.
    pub(super) id: KeyId,
    /// The key.
    pub(super) key: Secret,
    /// Which kind.
    pub(super) kind: KeyKind,
    /// For which units.
    pub(super) units: Vec<UnitId>,
    /// A word for finding it again.
    pub(super) tag: String,
    /// When it was made.
    pub(super) made_at: i64,
    /// When it ends.
    pub(super) expires_at: Option<i64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// Oldest first.
    keys: Vec<Kept>,
}

/// The file.
#[derive(Clone, Debug)]
pub(super) struct Pouch {
    path: PathBuf,
}

impl Pouch {
    /// Beside the configuration: `config.keys.json` for `config.json`.
    pub(super) fn beside(config: &Path) -> Self {
        Self {
            path: config.with_extension("keys.json"),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The keys of a server, oldest first.
    pub(super) fn of(&self, server: &str) -> Result<Vec<Kept>, Failure> {
        let mut keys = self.load()?.keys;
        keys.retain(|kept| kept.server == server);
        Ok(keys)
    }

    /// Keeps further keys; one that is there already takes its old place.
    pub(super) fn add(&self, more: Vec<Kept>) -> Result<(), Failure> {
        self.change(|keys| {
            for kept in more {
                keys.retain(|known| (&known.server, known.id) != (&kept.server, kept.id));
                let place = keys.partition_point(|known| known.made_at <= kept.made_at);
                keys.insert(place, kept);
            }
            let surplus = keys.len().saturating_sub(MOST);
            keys.drain(..surplus);
        })
    }

    /// Takes out the keys that are meant, so that no other call of this program takes the same.
    pub(super) fn take(
        &self,
        server: &str,
        choose: impl FnOnce(&[&Kept]) -> Vec<KeyId>,
    ) -> Result<Vec<Kept>, Failure> {
        let mut taken = Vec::new();
        self.change(|keys| {
            let of_server: Vec<&Kept> = keys.iter().filter(|kept| kept.server == server).collect();
            let chosen = choose(&of_server);
            let is_chosen = |kept: &Kept| kept.server == server && chosen.contains(&kept.id);
            taken = keys
                .iter()
                .filter(|kept| is_chosen(kept))
                .cloned()
                .collect();
            keys.retain(|kept| !is_chosen(kept));
        })?;
        Ok(taken)
    }

    /// Forgets what opens no door any more, by what the server knows of its keys.
    pub(super) fn tidy(&self, server: &str, known: &[KeyInfo]) -> Result<(), Failure> {
        let of_use = |kept: &Kept| {
            kept.server != server
                || known.iter().any(|key| {
                    key.id == kept.id
                        && match key.state {
                            KeyState::Active | KeyState::Disabled => true,
                            KeyState::Used | KeyState::Expired | KeyState::Revoked => false,
                        }
                })
        };
        if self.load()?.keys.iter().all(of_use) {
            return Ok(());
        }
        self.change(|keys| keys.retain(of_use))
    }

    fn load(&self) -> Result<Contents, Failure> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
            Err(error) => return Err(self.failed("read", error)),
        };
        let others = |file: &File| Ok(file.metadata()?.permissions().mode() & 0o077 != 0);
        if others(&file).map_err(|error| self.failed("read", error))? {
            let why = "it is open to other users of this machine: the keys in it are known to them, revoke them and remove it";
            return Err(self.failed("used", io::Error::other(why)));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(FILE_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| self.failed("read", error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let why = format!(
                "it is not as this program writes it ({}): correct or remove it",
                printable(&error.to_string())
            );
            self.failed("used", io::Error::other(why))
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Kept>)) -> Result<(), Failure> {
        let failed = |error| self.failed("written", error);
        let folder = self
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder.unwrap_or(Path::new(".")))
            .map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.with_added_extension("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut contents = self.load()?;
        change(&mut contents.keys);
        let text = serde_json::to_vec_pretty(&contents).map_err(|e| failed(e.into()))?;
        write_private(&self.path, &Zeroizing::new(text)).map_err(failed)
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Failure {
        Failure::File {
            file: self.path.display().to_string(),
            doing,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(server: &str, id: u8, made_at: i64) -> Kept {
        Kept {
            server: server.into(),
            id: KeyId::from_bytes([id; 8]),
            key: Secret::new("ABCDE-FGHJK-MNPQR-STVWX"),
            kind: KeyKind::OneTime,
            units: Vec::new(),
            tag: String::new(),
            made_at,
            expires_at: None,
        }
    }

    fn info(id: u8, state: KeyState) -> KeyInfo {
        KeyInfo {
            id: KeyId::from_bytes([id; 8]),
            kind: KeyKind::OneTime,
            units: Vec::new(),
            created_at: 0,
            created_by: "anna".into(),
            expires_at: None,
            quota: None,
            used: 0,
            tag: String::new(),
            state,
        }
    }

    fn pouch() -> (tempfile::TempDir, Pouch) {
        let folder = tempfile::tempdir().expect("a folder");
        let pouch = Pouch::beside(&folder.path().join("umbra/config.json"));
        (folder, pouch)
    }

    #[test]
    fn a_key_is_taken_once_and_put_back_in_its_place() {
        let (_folder, pouch) = pouch();
        pouch
            .add(vec![
                kept("a:1", 2, 20),
                kept("b:1", 9, 5),
                kept("a:1", 1, 10),
            ])
            .expect("kept");
        let oldest = |keys: &[&Kept]| keys.first().map(|kept| kept.id).into_iter().collect();
        let first = pouch.take("a:1", oldest).expect("taken");
        assert_eq!(first, [kept("a:1", 1, 10)]);
        assert_eq!(pouch.of("a:1").expect("read"), [kept("a:1", 2, 20)]);
        pouch.add(first).expect("put back");
        let ids: Vec<KeyId> = pouch
            .of("a:1")
            .expect("read")
            .iter()
            .map(|k| k.id)
            .collect();
        assert_eq!(ids, [KeyId::from_bytes([1; 8]), KeyId::from_bytes([2; 8])]);
        assert_eq!(pouch.of("b:1").expect("read").len(), 1);
    }

    #[test]
    fn nobody_else_can_read_the_file_and_one_that_others_can_read_is_not_used() {
        let (_folder, pouch) = pouch();
        pouch.add(vec![kept("a:1", 1, 1)]).expect("kept");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode(pouch.path()) & 0o777, 0o600);
        let open = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(pouch.path(), open).expect("opened");
        let failure = pouch.of("a:1").expect_err("open to others");
        assert!(
            failure.sentence().contains("other users"),
            "{}",
            failure.sentence()
        );
        std::fs::write(pouch.path(), "{").expect("written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(pouch.path(), private).expect("closed");
        let failure = pouch.of("a:1").expect_err("cut");
        assert!(
            failure.sentence().contains("correct or remove it"),
            "{}",
            failure.sentence()
        );
    }

    #[test]
    fn what_opens_no_door_any_more_is_forgotten() {
        let (_folder, pouch) = pouch();
        let all = (1..=6).map(|id| kept("a:1", id, i64::from(id)));
        pouch
            .add(all.chain([kept("b:1", 7, 0)]).collect())
            .expect("kept");
        let known = [
            info(1, KeyState::Active),
            info(2, KeyState::Used),
            info(3, KeyState::Expired),
            info(4, KeyState::Revoked),
            info(5, KeyState::Disabled),
        ];
        pouch.tidy("a:1", &known).expect("tidied");
        let ids: Vec<KeyId> = pouch
            .of("a:1")
            .expect("read")
            .iter()
            .map(|k| k.id)
            .collect();
        assert_eq!(ids, [KeyId::from_bytes([1; 8]), KeyId::from_bytes([5; 8])]);
        assert_eq!(
            pouch.of("b:1").expect("read").len(),
            1,
            "another server's keys stay"
        );
    }
}
