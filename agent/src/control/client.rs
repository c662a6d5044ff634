//! The command line's end of the control socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::wire::{RESPONSE_MAX, Request, Response};
use crate::paths::Paths;

/// How long the agent may take to answer a question.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// How long it may take for what involves the server.
pub const ACTION_DEADLINE: Duration = Duration::from_secs(200);

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("the agent is not running (nobody answers at {}); start it with “systemctl start umbra-agent”", .path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// This user may not even ask.
    #[error("this user may not open {}", .path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// No answer in time.
    #[error("the agent did not answer in time; “journalctl -u umbra-agent” may say why")]
    TimedOut,
    /// The connection broke.
    #[error("the agent closed the connection; it may have been stopped")]
    Closed,
    /// An answer of another version.
    #[error(
        "the agent's answer can't be understood; agent and command line may be of different versions"
    )]
    Answer,
    /// The system.
    #[error("the connection to the agent failed")]
    Io(#[source] io::Error),
}

/// A connection to the running agent.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] if nobody answers there.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the system's kinds of error grow; unknown ones keep their text"
    )]
    pub async fn connect(paths: &Paths) -> Result<Self, ClientError> {
        let path = paths.socket();
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                let (reader, writer) = stream.into_split();
                Ok(Self {
                    reader: BufReader::new(reader),
                    writer,
                })
            }
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning { path }
                }
                io::ErrorKind::PermissionDenied => ClientError::Permission { path },
                _ => ClientError::Io(error),
            }),
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`]; what the agent refuses is an answer, not an error.
    pub async fn ask(
        &mut self,
        request: &Request,
        deadline: Duration,
    ) -> Result<Response, ClientError> {
        self.send(request).await?;
        timeout(deadline, self.next())
            .await
            .map_err(|_| ClientError::TimedOut)?
    }

    /// Sends a request only; [`Client::next`] has the answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|_| ClientError::Answer)?;
        line.push(b'\n');
        match timeout(ANSWER_DEADLINE, self.writer.write_all(&line)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => Err(ClientError::TimedOut),
        }
    }

    /// The next answer, however long it takes.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the agent has gone.
    pub async fn next(&mut self) -> Result<Response, ClientError> {
        let mut line = Vec::new();
        let max = u64::try_from(RESPONSE_MAX).unwrap_or(u64::MAX);
        match (&mut self.reader)
            .take(max)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => Err(ClientError::Closed),
            Ok(_) => umbra_protocol::json::from_slice(&line).map_err(|_| ClientError::Answer),
        }
    }
}
