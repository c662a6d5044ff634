//! Disks of a size, which the soak alone sees: each a file system in memory, in a namespace of mounts that is the soak's own.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// The name of the file that takes all the room.
const FILLER: &str = "filler";

/// From now on mounts of this process, and of what it starts, are its own. To be called before there are other threads.
pub fn own_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
}

/// A disk; it is taken off when this is dropped.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Disk {
    /// A new and empty one in the place of a folder.
    pub(super) fn mount(folder: &Path, kib: u32) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let size = format!("size={kib}k");
        mount(
            Some("none"),
            folder,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size.as_str()),
        )?;
        Ok(Self(folder.to_owned()))
    }

    /// Leaves no room.
    pub(super) fn fill(&self) -> io::Result<()> {
        let mut filler = fs::File::create(self.0.join(FILLER))?;
        let mut chunk = vec![0; 64 * 1024];
        while !chunk.is_empty() {
            match filler.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    // The last bytes as well.
                    chunk.truncate(chunk.len() / 2);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub(super) fn clear(&self) -> io::Result<()> {
        match fs::remove_file(self.0.join(FILLER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The namespace ends with this process in any case.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
