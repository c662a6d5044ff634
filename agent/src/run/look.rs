//! Looks at what people change behind the agent's back: the two files with parameters, and the clock. The kernel says when one of the
//! files changes, so that an idle device sleeps; the agent looks by itself now and then, and often while something is wrong or the
//! kernel can't say.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::Config;
use super::pulse::Pulse;
use crate::clock::Judgement;
use crate::confine::Plan;
use crate::paths::Paths;
use crate::registry::Registry;
use crate::status::Board;

/// How often the agent looks while something is wrong, or where nobody tells it of changes: somebody waits for it.
const OFTEN: Duration = Duration::from_secs(1);
/// How often otherwise, at least: for a clock that somebody sets, and for what is mounted over a folder. With a link, the server's heartbeats
/// come before.
const SELDOM: Duration = Duration::from_secs(60);

/// Looks until the agent ends.
pub(super) async fn look(config: Config, registry: Registry, board: Board, pulse: Pulse) {
    let changes = Changes::new().ok();
    loop {
        // Before the files are read: what changes from now on is told.
        let told = changes
            .as_ref()
            .is_some_and(|changes| changes.watch(&config.paths).is_ok());
        let fine = glance(&config, &registry, &board);
        let pause = if told && fine { SELDOM } else { OFTEN };
        let change = async {
            match &changes {
                Some(changes) => changes.next().await,
                None => Err(io::ErrorKind::Unsupported.into()),
            }
        };
        tokio::select! {
            heard = timeout(pause, change) => {
                if let Ok(Err(_)) = heard {
                    tokio::time::sleep(OFTEN).await;
                }
            }
            () = pulse.next() => {}
        }
    }
}

/// One look; whether all is as it should be.
fn glance(config: &Config, registry: &Registry, board: &Board) -> bool {
    registry.reload();
    if let Some(logging) = &config.logging {
        logging.set(&registry.snapshot().log_level);
    }
    let problems = registry.problems();
    let problems = (!problems.is_empty()).then(|| problems.join(" "));
    let clock = match config.clock.judge() {
        Judgement::Plausible => None,
        Judgement::BeforeBuild | Judgement::FarFuture => Some(
            "This device's clock can't be right, so dates in certificates are not checked until it is.".to_owned(),
        ),
    };
    let confinement = outgrown(config, registry);
    let fine = problems.is_none() && clock.is_none();
    board.update(|status| {
        status.warn("registry", problems);
        status.warn("clock", clock);
        status.warn("confinement", confinement);
    });
    fine
}

/// What was configured after the agent had given up what it needs for it.
fn outgrown(config: &Config, registry: &Registry) -> Option<String> {
    let given_up = config.confined_to.as_ref()?;
    let now = Plan::derive(&registry.snapshot(), &config.paths);
    (!now.fits_in(given_up)).then(|| {
        "A program or a file was configured after the agent had given up what it didn't need, so it may not be able to use it. \
         Restart the agent."
            .to_owned()
    })
}

/// The kernel's word that a file changed.
struct Changes(AsyncFd<Watched>);

struct Watched(Inotify);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Changes {
    #[expect(
        deprecated,
        reason = "the new way is unsafe code; `Watched` gives one descriptor, which it keeps open for as long as it lives"
    )]
    fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let fd = AsyncFd::with_interest(Watched(inotify), Interest::READABLE)?;
        Ok(Self(fd))
    }

    /// Asks to be told of the folders in which the files are, since editors replace a file; again each time, since a folder may be
    /// another one by now.
    fn watch(&self, paths: &Paths) -> io::Result<()> {
        let what = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        for file in [paths.image_registry(), paths.registry()] {
            let folder = file.parent().unwrap_or(Path::new("/"));
            self.0.get_ref().0.add_watch(folder, what)?;
        }
        Ok(())
    }

    /// Waits until something of that name has changed; the folders hold other files as well.
    async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let events = match ready.get_inner().0.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            let ours = |name: &std::ffi::OsStr| name == "registry.toml";
            // A word without a name is about the folder itself, or says that there were too many.
            let matters = |name: Option<&std::ffi::OsString>| name.is_none_or(|name| ours(name));
            if events.iter().any(|event| matters(event.name.as_ref())) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_an_editor_writes_or_replaces_is_told_and_a_folder_that_is_not_there_too() {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        let changes = Changes::new().expect("inotify");
        let error = changes.watch(&paths).expect_err("there are no folders");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);

        for file in [paths.image_registry(), paths.registry()] {
            let folder = file.parent().expect("a folder");
            std::fs::create_dir_all(folder).expect("made");
        }
        changes.watch(&paths).expect("all is there");
        let told = async || timeout(Duration::from_secs(10), changes.next()).await;
        std::fs::write(paths.image_registry(), "").expect("written");
        told()
            .await
            .expect("told of the image's file")
            .expect("read");

        let new = paths.registry().with_extension("new");
        std::fs::write(&new, "").expect("written");
        std::fs::rename(&new, paths.registry()).expect("renamed");
        told()
            .await
            .expect("told of the device's file")
            .expect("read");
        // Nothing else has happened, and other names are nobody's business.
        std::fs::write(&new, "").expect("written");
        assert!(
            timeout(Duration::from_millis(10), changes.next())
                .await
                .is_err()
        );
    }
}
