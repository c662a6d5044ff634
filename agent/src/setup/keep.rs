//! What the assistant keeps on the disk: how far it is, never the key; and the lock that keeps a second assistant away.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use umbra_setup::{PROGRESS_VERSION, Progress};

use crate::files::{self, FileError, Files};
use crate::paths::Paths;

/// Larger than any progress.
const PROGRESS_MAX: usize = 64 * 1024;
/// Longest text of who holds the lock, in bytes.
const WHO_MAX: u64 = 256;

/// The right to be the one assistant on this device; it ends with this value, and with the process at the latest.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another assistant has it.
    #[error("another setup assistant is at work on this device ({who})")]
    Taken {
        /// Who says to have it.
        who: String,
    },
    /// The disk refused.
    #[error("the setup assistant can't see whether another one is at work")]
    File(#[source] FileError),
}

impl Lock {
    /// Takes the lock, and writes down who has it.
    ///
    /// # Errors
    /// [`LockError::Taken`] if another assistant has it.
    pub fn take(paths: &Paths, who: &str) -> Result<Self, LockError> {
        let path = paths.setup_lock();
        let failed = |source: std::io::Error| {
            let path = path.clone();
            LockError::File(if source.kind() == std::io::ErrorKind::PermissionDenied {
                FileError::Permission {
                    verb: "write",
                    path,
                    source,
                }
            } else {
                FileError::Other {
                    verb: "lock",
                    path,
                    source,
                }
            })
        };
        files::make_directory(&paths.kept(), 0o700).map_err(LockError::File)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let written = give_to_owner(&lock, paths)
                    .and_then(|()| lock.set_len(0))
                    .and_then(|()| lock.rewind())
                    .and_then(|()| lock.write_all(who.as_bytes()));
                written.map_err(failed)?;
                Ok(Self { _file: lock })
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                let mut who = Vec::new();
                // Whoever has it may not have written its name yet.
                let _ = file.take(WHO_MAX).read_to_end(&mut who);
                Err(LockError::Taken {
                    who: umbra_setup::text::printable(&String::from_utf8_lossy(&who)),
                })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

/// What root makes in the folder of the agent's user stays that user's: the assistant of the first console runs as it.
fn give_to_owner(file: &File, paths: &Paths) -> std::io::Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(paths.kept())?;
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// The progress on the disk. One that can't be read is as good as none: nothing in it can't be entered again.
pub fn load(paths: &Paths) -> Option<Progress> {
    let bytes = files::read(&paths.setup_progress(), PROGRESS_MAX).ok()??;
    let progress: Progress = umbra_protocol::json::from_slice(&bytes).ok()?;
    (progress.version == PROGRESS_VERSION).then_some(progress)
}

/// Keeps the progress: afterwards there is this one, or after an error the one before.
///
/// # Errors
/// What the disk said.
pub fn store(paths: &Paths, files: &Files, progress: &Progress) -> Result<(), FileError> {
    let bytes =
        serde_json::to_vec(progress).expect("a progress holds nothing that JSON cannot say");
    files.write(&paths.setup_progress(), &bytes, 0o600)
}

/// Forgets the progress.
///
/// # Errors
/// What the disk said.
pub fn forget(paths: &Paths, files: &Files) -> Result<(), FileError> {
    files.remove(&paths.setup_progress())
}

#[cfg(test)]
mod tests {
    use umbra_setup::Language;

    use super::*;

    fn device() -> (tempfile::TempDir, Paths) {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(folder.path());
        (folder, paths)
    }

    fn progress(typed: &str) -> Progress {
        Progress {
            version: PROGRESS_VERSION,
            language: Language::De,
            typed: typed.into(),
            endpoints: Vec::new(),
            checking: false,
            confirmed: None,
            asked: None,
            wrong: 2,
        }
    }

    #[test]
    fn a_second_assistant_is_told_who_has_the_first() {
        let (_folder, paths) = device();
        let first = Lock::take(&paths, "root on /dev/tty1, process 12").expect("the first");
        match Lock::take(&paths, "somebody") {
            Err(LockError::Taken { who }) => assert_eq!(who, "root on /dev/tty1, process 12"),
            other => panic!("refused: {other:?}"),
        }
        drop(first);
        Lock::take(&paths, "x").expect("free again");
    }

    #[test]
    fn nobody_else_may_read_what_is_kept_and_no_link_is_followed() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, paths) = device();
        let lock = Lock::take(&paths, "x").expect("taken");
        store(&paths, &Files::new(), &progress("x")).expect("kept");
        for path in [paths.setup_lock(), paths.setup_progress()] {
            let mode = std::fs::metadata(&path).expect("there").permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{}", path.display());
        }
        drop(lock);
        let elsewhere = folder.path().join("elsewhere");
        std::fs::write(&elsewhere, "of somebody else").expect("written");
        std::fs::remove_file(paths.setup_lock()).expect("removed");
        std::os::unix::fs::symlink(&elsewhere, paths.setup_lock()).expect("linked");
        Lock::take(&paths, "x").expect_err("a link");
        let left = std::fs::read_to_string(&elsewhere).expect("still there");
        assert_eq!(left, "of somebody else");
    }

    #[test]
    fn who_has_the_lock_is_told_in_few_words_that_steer_no_terminal() {
        let (_folder, paths) = device();
        let _lock = Lock::take(&paths, &format!("\u{1b}[2J{}", "x".repeat(5_000))).expect("taken");
        let Err(LockError::Taken { who }) = Lock::take(&paths, "somebody") else {
            panic!("there is one already");
        };
        assert!(!who.contains('\u{1b}'), "{who:?}");
        assert!(who.len() <= 300, "{} bytes", who.len());
    }

    #[test]
    fn a_lock_that_root_made_can_be_taken_by_the_agents_user_later() {
        if !nix::unistd::Uid::effective().is_root() {
            // Nobody else can give files away.
            return;
        }
        let (_folder, paths) = device();
        files::make_directory(&paths.kept(), 0o700).expect("a directory");
        std::os::unix::fs::chown(paths.kept(), Some(54_321), Some(54_322)).expect("given away");
        let _lock = Lock::take(&paths, "root").expect("taken");
        let metadata = std::fs::metadata(paths.setup_lock()).expect("there");
        assert_eq!((metadata.uid(), metadata.gid()), (54_321, 54_322));
    }

    #[test]
    fn a_progress_survives_being_cut_off_at_every_step_of_writing() {
        let mut cut = 0;
        for at in 0..8 {
            let (_folder, paths) = device();
            files::make_directory(&paths.kept(), 0o700).expect("a directory");
            store(&paths, &Files::new(), &progress("before")).expect("kept");
            let count = std::sync::atomic::AtomicUsize::new(0);
            let files = Files::watched(move |_, _| {
                if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= at {
                    return Err(std::io::Error::from_raw_os_error(libc::ENOSPC));
                }
                Ok(())
            });
            let stored = store(&paths, &files, &progress("after"));
            let there = load(&paths).expect("a whole progress").typed;
            match stored {
                Ok(()) => assert_eq!(there, "after"),
                Err(_) => {
                    cut += 1;
                    assert!(there == "before" || there == "after", "{there}");
                }
            }
        }
        assert!(cut >= 4, "writing was cut off");
    }

    #[test]
    fn a_progress_that_cannot_be_read_is_none() {
        let (_folder, paths) = device();
        files::make_directory(&paths.kept(), 0o700).expect("a directory");
        assert!(load(&paths).is_none());
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":99,"language":"de"}"#,
            r#"{"version":1,"language":"de","key":"x"}"#,
        ] {
            std::fs::write(paths.setup_progress(), text).expect("written");
            assert!(load(&paths).is_none(), "{text}");
        }
        let huge = serde_json::to_vec(&progress(&"x".repeat(PROGRESS_MAX))).expect("JSON");
        std::fs::write(paths.setup_progress(), huge).expect("written");
        assert!(load(&paths).is_none(), "larger than any progress");
        store(&paths, &Files::new(), &progress("x")).expect("kept");
        assert_eq!(load(&paths), Some(progress("x")));
        forget(&paths, &Files::new()).expect("forgotten");
        assert!(load(&paths).is_none());
    }
}
