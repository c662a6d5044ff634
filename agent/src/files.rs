//! Files that survive a power cut: written to a temporary neighbour, fsynced, renamed, and the directory fsynced, so that there
//! is the old file or the new one and never a part of one. Reading is bounded and never follows a link that somebody laid.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;

/// A path as a person is told it: on its line, whatever is in it.
pub(crate) fn shown(path: &Path) -> String {
    const PATH_MAX: usize = 4096;
    umbra_carrier::x509::printable(&path.to_string_lossy(), PATH_MAX)
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk is full.
    #[error("{} could not be written because the disk is full; what was there before is still there. Free some space.", shown(.path))]
    Full {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system is read-only.
    #[error("{} could not be written because its file system is read-only; what was there before is still there", shown(.path))]
    ReadOnly {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// This user may not.
    #[error("this user may not {verb} {}; try it as root or as the agent's own user", shown(.path))]
    Permission {
        /// `read` or `write`.
        verb: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A link, a directory or a device where a file belongs.
    #[error("{} is not a plain file", shown(.path))]
    NotAFile {
        /// Which file.
        path: PathBuf,
    },
    /// Larger than any file of its kind.
    #[error("{} is larger than {max} bytes, which no file of its kind is", shown(.path))]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// What would be accepted.
        max: usize,
    },
    /// Not UTF-8.
    #[error("{} is not a text in UTF-8", shown(.path))]
    NotText {
        /// Which file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("could not {verb} {}", shown(.path))]
    Other {
        /// `read` or `write`.
        verb: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl FileError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the system's kinds of error grow; unknown ones keep their text"
    )]
    fn new(verb: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        // What O_NOFOLLOW answers to a link.
        if source.raw_os_error() == Some(libc::ELOOP) {
            return Self::NotAFile { path };
        }
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path, source }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path, source },
            io::ErrorKind::PermissionDenied => Self::Permission { verb, path, source },
            io::ErrorKind::IsADirectory => Self::NotAFile { path },
            _ => Self::Other { verb, path, source },
        }
    }
}

/// The steps of changing a file, in the order in which they happen; a test can stop the world before each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The temporary neighbour is made.
    Create,
    /// Bytes are written into it.
    Write,
    /// It is forced onto the disk.
    Sync,
    /// It takes the file's name.
    Rename,
    /// The directory is forced onto the disk.
    SyncDirectory,
    /// A file is removed.
    Remove,
}

type Watch = Arc<dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync>;

/// The way to change files. Clones share what watches them.
#[derive(Clone, Default)]
pub struct Files {
    watch: Option<Watch>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files")
            .field("watched", &self.watch.is_some())
            .finish()
    }
}

impl Files {
    /// Files of the real disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Files whose every step is first put to `watch`; an error from it stops the step as a broken disk would.
    pub fn watched(watch: impl Fn(Step, &Path) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self {
            watch: Some(Arc::new(watch)),
        }
    }

    fn step(&self, step: Step, path: &Path) -> io::Result<()> {
        match &self.watch {
            Some(watch) => watch(step, path),
            None => Ok(()),
        }
    }

    /// Writes a file as a whole: afterwards there is the new file, or, after an error, the old one as it was.
    pub fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
        let failed = |source| FileError::new("write", path, source);
        let temporary = temporary_of(path).ok_or_else(|| FileError::NotAFile {
            path: path.to_owned(),
        })?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let written = self
            .write_temporary(&temporary, bytes, mode)
            .and_then(|()| {
                self.step(Step::Rename, path)?;
                std::fs::rename(&temporary, path)
            });
        if let Err(source) = written {
            // As good as it gets: a neighbour that stays behind is replaced by the next write.
            if self.step(Step::Remove, &temporary).is_ok() {
                let _ = std::fs::remove_file(&temporary);
            }
            return Err(failed(source));
        }
        self.sync_directory(directory).map_err(failed)
    }

    fn write_temporary(&self, temporary: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.step(Step::Create, temporary)?;
        let open = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(temporary)
        };
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Left behind by a power cut: only one agent writes here.
                std::fs::remove_file(temporary)?;
                open()?
            }
            other => other?,
        };
        give_to_owner(&file, temporary)?;
        self.step(Step::Write, temporary)?;
        file.write_all(bytes)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        self.step(Step::Sync, temporary)?;
        file.sync_all()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.step(Step::SyncDirectory, directory)?;
        File::open(directory)?.sync_all()
    }

    /// Gives a file another name in one step, replacing what had it.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        let renamed = self
            .step(Step::Rename, to)
            .and_then(|()| std::fs::rename(from, to));
        let synced =
            renamed.and_then(|()| self.sync_directory(to.parent().unwrap_or(Path::new("/"))));
        synced.map_err(|source| FileError::new("write", to, source))
    }

    /// Removes a file; one that is not there is as good as removed.
    pub fn remove(&self, path: &Path) -> Result<(), FileError> {
        let removed =
            self.step(Step::Remove, path)
                .and_then(|()| match std::fs::remove_file(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    Ok(()) => self.sync_directory(path.parent().unwrap_or(Path::new("/"))),
                    Err(error) => Err(error),
                });
        removed.map_err(|source| FileError::new("write", path, source))
    }
}

/// What root writes into the directory of the agent's user must stay readable to that user: “umbra-agent enroll” as root, before
/// the agent runs.
fn give_to_owner(file: &File, path: &Path) -> io::Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
    if owner.uid() == 0 {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// `NAME` → `.NAME.new`, in the same directory.
fn temporary_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    Some(path.with_file_name(format!(".{name}.new")))
}

/// Makes a directory with this mode where it is missing; those above it are made for everyone to pass through.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    let make = |path: &Path, mode| {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(mode).create(path)
    };
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().map_or(Ok(()), |above| make(above, 0o755));
    above
        .and_then(|()| make(path, mode))
        // Whatever the service's umask takes away: others must come through to the control socket.
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(|source| FileError::new("write", path, source))
}

/// Opens a plain file for reading; `None` if there is none.
pub fn open(path: &Path) -> Result<Option<File>, FileError> {
    // Without O_NONBLOCK a pipe laid in the file's place would hold us up for ever.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::new("read", path, source)),
    };
    let metadata = file
        .metadata()
        .map_err(|source| FileError::new("read", path, source))?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile {
            path: path.to_owned(),
        });
    }
    Ok(Some(file))
}

/// Reads a plain file of at most `max` bytes; `None` if there is none.
pub fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, FileError> {
    match open(path)? {
        Some(file) => read_open(path, &file, max).map(Some),
        None => Ok(None),
    }
}

/// Reads an open file of at most `max` bytes; `path` is for the sentence.
pub fn read_open(path: &Path, file: &File, max: usize) -> Result<Vec<u8>, FileError> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| FileError::new("read", path, source))?;
    if bytes.len() > max {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            max,
        });
    }
    Ok(bytes)
}

/// Reads a plain text file of at most `max` bytes; `None` if there is none.
pub fn read_text(path: &Path, max: usize) -> Result<Option<String>, FileError> {
    let Some(bytes) = read(path, max)? else {
        return Ok(None);
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| FileError::NotText {
            path: path.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn a_written_file_has_the_mode_it_was_given_and_no_neighbour_stays() {
        let folder = folder();
        let path = folder.path().join("file");
        Files::new().write(&path, b"one", 0o600).expect("written");
        Files::new()
            .write(&path, b"two", 0o644)
            .expect("written over");
        assert_eq!(read(&path, 10).expect("read").as_deref(), Some(&b"two"[..]));
        let mode = std::fs::metadata(&path)
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    #[test]
    fn whichever_step_fails_the_old_or_the_new_file_is_there_as_a_whole() {
        let mut stopped = 0;
        for at in 0..8 {
            let folder = folder();
            let path = folder.path().join("file");
            Files::new().write(&path, b"old", 0o600).expect("written");
            let count = std::sync::atomic::AtomicUsize::new(0);
            let files = Files::watched(move |_, _| {
                if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= at {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                Ok(())
            });
            let result = files.write(&path, b"new", 0o600);
            let now = read(&path, 10).expect("read").expect("there");
            match result {
                Ok(()) => assert_eq!(now, b"new"),
                Err(error) => {
                    stopped += 1;
                    assert!(now == b"old" || now == b"new", "{now:?}");
                    assert!(error.to_string().contains("disk is full"), "{error}");
                }
            }
            Files::new()
                .write(&path, b"later", 0o600)
                .expect("the next write works");
        }
        assert_eq!(stopped, 5, "every step was stopped at once");
    }

    #[test]
    fn links_pipes_directories_and_large_files_are_not_read() {
        let folder = folder();
        let (plain, link, pipe) = (
            folder.path().join("plain"),
            folder.path().join("link"),
            folder.path().join("pipe"),
        );
        std::fs::write(&plain, "12345").expect("written");
        std::os::unix::fs::symlink(&plain, &link).expect("a link");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        for odd in [&link, &pipe, &folder.path().to_owned()] {
            let error = read(odd, 10).expect_err("refused");
            assert!(error.to_string().contains("not a plain file"), "{error}");
        }
        assert!(matches!(read(&plain, 4), Err(FileError::TooLarge { .. })));
        assert!(
            read(&folder.path().join("none"), 4)
                .expect("no error")
                .is_none()
        );
        std::fs::write(&plain, [0xff, 0xfe]).expect("written");
        assert!(matches!(
            read_text(&plain, 4),
            Err(FileError::NotText { .. })
        ));
    }

    #[test]
    fn what_root_writes_belongs_to_the_owner_of_the_directory() {
        if !nix::unistd::Uid::effective().is_root() {
            // Nobody else can give files away.
            return;
        }
        let folder = folder();
        std::os::unix::fs::chown(folder.path(), Some(54_321), Some(54_322)).expect("given away");
        let path = folder.path().join("file");
        Files::new().write(&path, b"x", 0o600).expect("written");
        let metadata = std::fs::metadata(&path).expect("there");
        assert_eq!((metadata.uid(), metadata.gid()), (54_321, 54_322));
    }

    #[test]
    fn only_the_directory_itself_is_closed_to_others() {
        let folder = folder();
        make_directory(&folder.path().join("a/b/c"), 0o700).expect("made");
        let mode = |path: &str| {
            std::fs::metadata(folder.path().join(path))
                .expect("there")
                .mode()
                & 0o777
        };
        assert_eq!(
            (mode("a"), mode("a/b"), mode("a/b/c")),
            (0o755, 0o755, 0o700)
        );
    }

    #[test]
    fn a_neighbour_that_a_power_cut_left_behind_is_no_obstacle() {
        let folder = folder();
        let path = folder.path().join("file");
        std::fs::write(folder.path().join(".file.new"), "half").expect("written");
        Files::new().write(&path, b"whole", 0o600).expect("written");
        assert_eq!(
            read(&path, 10).expect("read").as_deref(),
            Some(&b"whole"[..])
        );
    }
}
