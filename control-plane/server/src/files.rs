//! Files that survive a power cut and that only this program reads: written to a temporary neighbour, synced, renamed.
//! A private file that others may read is refused loudly instead of used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// No file of this program's is larger.
const MOST: u64 = 1024 * 1024;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{} could not be {what}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried, as a participle.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A private file that others may read or write.
    #[error(
        "{} holds what must stay secret and may be read by others (mode {mode:o}): check who saw it, then run “chmod 600” on it",
        path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Far larger than such a file can be.
    #[error("{} is larger than such a file can be", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
}

impl FileError {
    fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, what, source }
    }
}

/// Makes a folder that only its owner may enter; one that exists stays as it is.
pub fn make_private_folder(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::io(path, "made"))
}

/// Writes a whole file, replacing an older one in one step. `mode` holds whatever the umask is.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut neighbour = path.as_os_str().to_owned();
    neighbour.push(".new");
    let neighbour = PathBuf::from(neighbour);
    // What a crash left behind is nobody's any more: the folder is locked by this process.
    match fs::remove_file(&neighbour) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(FileError::io(&neighbour, "removed")(error)),
    }
    write_new(&neighbour, bytes, mode)?;
    fs::rename(&neighbour, path).map_err(FileError::io(path, "replaced"))?;
    sync_folder_of(path)
}

/// Writes a file that must not exist yet.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(FileError::io(path, "made"))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(FileError::io(path, "written"))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = folder_of(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(FileError::io(folder, "synced"))
}

/// Reads a private text; refuses a file that others may read.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let file = File::open(path).map_err(FileError::io(path, "opened"))?;
    let mode = file
        .metadata()
        .map_err(FileError::io(path, "examined"))?
        .mode()
        & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    read_text(path, file)
}

/// Reads a text that anybody may see, or that a person named.
pub fn read(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let file = File::open(path).map_err(FileError::io(path, "opened"))?;
    read_text(path, file)
}

fn read_text(path: &Path, file: File) -> Result<Zeroizing<String>, FileError> {
    let mut text = Zeroizing::new(String::new());
    file.take(MOST + 1)
        .read_to_string(&mut text)
        .map_err(FileError::io(path, "read"))?;
    if text.len() as u64 > MOST {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_private_file_is_for_its_owner_only_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        fs::write(folder.path().join("key.pem.new"), "left by a crash").expect("writable");
        write(&path, b"one", 0o600).expect("written");
        write(&path, b"two", 0o600).expect("written again");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(read_private(&path).expect("readable").as_str(), "two");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_file_without_a_folder_in_its_name_is_in_the_present_one() {
        assert_eq!(folder_of(Path::new("password")), Path::new("."));
        assert_eq!(folder_of(Path::new("a/password")), Path::new("a"));
    }

    #[test]
    fn a_private_file_that_others_may_read_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        write(&path, b"one", 0o644).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let error = read_private(&path).expect_err("exposed");
        assert!(error.to_string().contains("key.pem"), "{error}");
        assert!(error.to_string().contains("644"), "{error}");
    }
}
