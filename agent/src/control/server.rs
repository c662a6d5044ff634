//! The agent's end of the control socket. Callers are strangers until the kernel has named them: sizes, times and numbers are
//! bounded from the first byte, and no caller can take another's place.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use umbra_carrier::address::HostPort;
use umbra_protocol::first_auth::FirstAuthKey;

use super::wire::{ErrorCode, Failure, REQUEST_MAX, Request, Response};
use super::{Action, Outcome, rights};
use crate::enrolment::Trust;
use crate::files::{self, FileError};
use crate::paths::Paths;
use crate::registry::{Registry, RegistryError};
use crate::status::Board;

/// How long a caller may take for a request, and to take an answer.
const CALLER_DEADLINE: Duration = Duration::from_secs(10);
/// How long an action may take; enrolment is the longest.
const ACTION_DEADLINE: Duration = Duration::from_secs(180);
/// Callers without rights at the same time, all together and of one user.
const STRANGERS_MAX: usize = 24;
const STRANGERS_OF_ONE_USER_MAX: usize = 8;
/// Callers with rights at the same time.
const ENTITLED_MAX: usize = 8;
/// A pause where `accept` fails: it does when the system is out of file descriptors, and that passes.
const WEATHER: Duration = Duration::from_millis(200);

/// The port that is meant where none is named.
const SERVER_PORT: u16 = 8443;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another agent answers there.
    #[error("another umbra-agent is running and answers at {}; stop it first", .path.display())]
    Running {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the socket's name.
    #[error("{} is there but is not a socket; remove it", .path.display())]
    Occupied {
        /// The socket's name.
        path: PathBuf,
    },
    /// The directory belongs to somebody else.
    #[error("the directory {} belongs to another user or is a link, so the control socket is not put there", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The directory can't be made.
    #[error("the directory of the control socket can't be made")]
    File(#[source] FileError),
    /// The system.
    #[error("the control socket {} can't be made", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A socket that listens; removed when dropped.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Only ours: a successor may have taken the name already.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What requests are answered with.
#[derive(Clone, Debug)]
pub struct Context {
    /// The status.
    pub board: Board,
    /// The parameters.
    pub registry: Registry,
    /// The way to the agent's main loop.
    pub actions: mpsc::Sender<Action>,
}

/// Makes the socket, replacing one that nobody answers at any more. Needs a tokio runtime around it.
///
/// # Errors
/// [`ControlError`].
pub fn bind(paths: &Paths) -> Result<Listening, ControlError> {
    let path = paths.socket();
    let directory = paths.run();
    files::make_directory(&directory, 0o755).map_err(ControlError::File)?;
    let failed = |source| ControlError::Io {
        path: path.clone(),
        source,
    };
    let found = std::fs::symlink_metadata(&directory).map_err(failed)?;
    if !found.is_dir()
        || (found.uid() != nix::unistd::Uid::effective().as_raw() && found.uid() != 0)
    {
        return Err(ControlError::Directory { path: directory });
    }
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ControlError::Occupied { path }),
        Ok(_) => match std::os::unix::net::UnixStream::connect(&path) {
            Ok(_) => return Err(ControlError::Running { path }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(&path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        },
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    // Everyone may ask; who may change something is decided per request.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    let inode = std::fs::symlink_metadata(&path).map_err(failed)?.ino();
    Ok(Listening {
        listener,
        path,
        inode,
    })
}

/// Answers callers until shutdown resolves.
pub async fn serve(listening: Listening, context: Context, shutdown: impl Future<Output = ()>) {
    let mut shutdown = std::pin::pin!(shutdown);
    let places = Places::default();
    let mut callers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = callers.join_next(), if !callers.is_empty() => continue,
            accepted = listening.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (context, places) = (context.clone(), places.clone());
                // Bounded by `Places`: a caller without a place is told so and gone.
                callers.spawn(crate::task::boxed(async move {
                    attend(stream, context, places).await
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "can't take callers on the control socket at the moment");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(WEATHER) => {}
                }
            }
        }
    }
    callers.shutdown().await;
}

/// Who is there, by user.
#[derive(Clone, Default)]
struct Places {
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    entitled: usize,
    strangers: HashMap<u32, usize>,
}

/// A place that is given back when dropped.
struct Place {
    places: Places,
    /// `None` for callers with rights.
    stranger: Option<u32>,
}

impl Places {
    fn take(&self, uid: u32, entitled: bool) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if entitled {
            if taken.entitled >= ENTITLED_MAX {
                return None;
            }
            taken.entitled += 1;
        } else {
            if taken.strangers.values().sum::<usize>() >= STRANGERS_MAX {
                return None;
            }
            let own = taken.strangers.entry(uid).or_default();
            if *own >= STRANGERS_OF_ONE_USER_MAX {
                return None;
            }
            *own += 1;
        }
        Some(Place {
            places: self.clone(),
            stranger: (!entitled).then_some(uid),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .places
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.stranger {
            None => taken.entitled = taken.entitled.saturating_sub(1),
            Some(uid) => {
                if let Some(own) = taken.strangers.get_mut(&uid) {
                    *own = own.saturating_sub(1);
                    if *own == 0 {
                        taken.strangers.remove(&uid);
                    }
                }
            }
        }
    }
}

async fn attend(stream: UnixStream, context: Context, places: Places) {
    let Ok(peer) = stream.peer_cred() else {
        return;
    };
    let group = context.registry.snapshot().control_group.clone();
    let entitled = rights::may_change(peer.uid(), peer.gid(), group.as_deref());
    let (reader, mut writer) = stream.into_split();
    let Some(_place) = places.take(peer.uid(), entitled) else {
        let busy = Failure::new(
            ErrorCode::TryAgain,
            "too many programs are asking the agent; try again in a moment",
        );
        let _ = say(&mut writer, &Response::Failed(busy)).await;
        return;
    };
    let mut lines = Lines::new(reader);
    loop {
        let request = match timeout(CALLER_DEADLINE, lines.next()).await {
            Ok(Ok(Some(line))) => read(&line),
            Ok(Ok(None) | Err(LineError::Io)) | Err(_) => return,
            Ok(Err(LineError::TooLong)) => {
                let sentence = format!("a request has at most {REQUEST_MAX} bytes");
                let _ = say(
                    &mut writer,
                    &Response::Failed(Failure::new(ErrorCode::Usage, sentence)),
                )
                .await;
                return;
            }
        };
        let response = match request {
            Ok(Request::Watch {}) => {
                watch(&context, &mut lines, &mut writer).await;
                return;
            }
            Ok(request) => match rights::permit(&request, entitled, group.as_deref()) {
                Ok(()) => answer(&context, request).await,
                Err(failure) => Response::Failed(failure),
            },
            Err(failure) => Response::Failed(failure),
        };
        if say(&mut writer, &response).await.is_err() {
            return;
        }
    }
}

pub(super) fn read(line: &[u8]) -> Result<Request, Failure> {
    umbra_protocol::json::from_slice(line).map_err(|error| {
        Failure::new(
            ErrorCode::Usage,
            format!("the request can't be understood ({error})"),
        )
    })
}

/// One answer as a line, within the deadline.
async fn say(writer: &mut OwnedWriteHalf, response: &Response) -> Result<(), ()> {
    let mut line = serde_json::to_vec(response).map_err(|_| ())?;
    line.push(b'\n');
    match timeout(CALLER_DEADLINE, writer.write_all(&line)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

async fn watch(context: &Context, lines: &mut Lines, writer: &mut OwnedWriteHalf) {
    let mut status = context.board.subscribe();
    loop {
        let now = Response::Status(Box::new(status.borrow_and_update().clone()));
        if say(writer, &now).await.is_err() {
            return;
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            // Whatever the caller says now, or its leaving, is the end.
            _ = lines.next() => return,
        }
    }
}

async fn answer(context: &Context, request: Request) -> Response {
    context.registry.reload();
    let result = match request {
        // `Watch` is answered where the connection is.
        Request::Status {} | Request::Watch {} => {
            return Response::Status(Box::new(context.board.now()));
        }
        Request::RegistryList { prefix } => {
            let (entries, problems) = (context.registry.list(&prefix), context.registry.problems());
            return Response::Registry { entries, problems };
        }
        Request::RegistryGet { name } => match context.registry.get(&name) {
            Ok(entry) => {
                return Response::Registry {
                    entries: vec![entry],
                    problems: context.registry.problems(),
                };
            }
            Err(error) => Err(registry_failure(&error)),
        },
        Request::RegistrySet { name, words } => {
            let words: Vec<String> = words.iter().map(|word| word.reveal().to_owned()).collect();
            changed(context.registry.set(&name, &words))
        }
        Request::RegistryReset { name } => changed(context.registry.reset(&name)),
        Request::Enrol {
            address,
            trust,
            key,
        } => {
            match (
                HostPort::parse(&address, SERVER_PORT),
                Trust::of(&trust),
                FirstAuthKey::parse(key.reveal()),
            ) {
                (Ok(address), Ok(trust), Ok(key)) => {
                    act(context, |reply| Action::Enrol {
                        address,
                        trust,
                        key,
                        reply,
                    })
                    .await
                }
                (Err(error), _, _) => Err(Failure::new(ErrorCode::Usage, error.to_string())),
                (_, Err(error), _) => Err(Failure::new(ErrorCode::Usage, error.to_string())),
                (_, _, Err(error)) => Err(Failure::new(ErrorCode::Usage, error.to_string())),
            }
        }
        Request::Leave {} => act(context, |reply| Action::Leave { reply }).await,
        Request::Consent { session, accept } => {
            act(context, |reply| Action::Consent {
                session,
                accept,
                reply,
            })
            .await
        }
        Request::EndSession { session } => {
            act(context, |reply| Action::EndSession { session, reply }).await
        }
    };
    match result {
        Ok(sentence) => Response::Done { sentence },
        Err(failure) => Response::Failed(failure),
    }
}

fn changed(result: Result<crate::registry::Entry, RegistryError>) -> Outcome {
    result
        .map(|entry| entry.in_force())
        .map_err(|error| registry_failure(&error))
}

/// A registry's error as an answer.
pub(crate) fn registry_failure(error: &RegistryError) -> Failure {
    match error {
        RegistryError::Unknown { .. }
        | RegistryError::Value { .. }
        | RegistryError::LocalOnly { .. } => Failure::new(ErrorCode::Usage, error.to_string()),
        RegistryError::File(source) => {
            let code = match source {
                FileError::Permission { .. } => ErrorCode::Permission,
                FileError::Full { .. }
                | FileError::ReadOnly { .. }
                | FileError::NotAFile { .. }
                | FileError::TooLarge { .. }
                | FileError::NotText { .. }
                | FileError::Other { .. } => ErrorCode::Disk,
            };
            Failure::new(code, format!("{error}: {source}"))
        }
    }
}

async fn act(
    context: &Context,
    action: impl FnOnce(oneshot::Sender<Outcome>) -> Action,
) -> Outcome {
    let (reply, answer) = oneshot::channel();
    let stopping = || {
        Failure::new(
            ErrorCode::Unavailable,
            "the agent is stopping; try again when it has started",
        )
    };
    let late = || {
        Failure::new(
            ErrorCode::TryAgain,
            "the agent is busy with something else; try again in a moment",
        )
    };
    match timeout(CALLER_DEADLINE, context.actions.send(action(reply))).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(stopping()),
        Err(_) => return Err(late()),
    }
    match timeout(ACTION_DEADLINE, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(stopping()),
        Err(_) => Err(late()),
    }
}

/// Lines of bounded length from a caller.
struct Lines {
    reader: OwnedReadHalf,
    buffer: Vec<u8>,
}

enum LineError {
    TooLong,
    Io,
}

impl Lines {
    fn new(reader: OwnedReadHalf) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
        }
    }

    /// The next line without its end. A call that is dropped loses nothing.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() >= REQUEST_MAX {
                return Err(LineError::TooLong);
            }
            let room = u64::try_from(REQUEST_MAX - self.buffer.len()).unwrap_or(0);
            match (&mut self.reader)
                .take(room)
                .read_buf(&mut self.buffer)
                .await
            {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(_) => return Err(LineError::Io),
            }
        }
    }
}

#[cfg(test)]
mod tests;
