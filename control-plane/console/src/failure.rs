//! Why a command did not do what it was asked to, for three readers: the person gets a sentence and what to do, a script
//! an exit code, and with `--json` a problem document.

use std::io::{self, Write};

use umbra_carrier::tls::TlsError;
use umbra_protocol::Fingerprint;
use umbra_protocol::api::Problem;

use crate::api::ApiError;
use crate::api::http::HttpError;
use crate::commands::MailError;
use crate::config::ConfigError;
use crate::shadow::ShadowError;
use crate::text::printable;

/// What the program ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; for `shadow`: the session ran and ended in order.
    Done = 0,
    /// Refused, or failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Nobody is logged in, or the log-in has ended.
    NotLoggedIn = 3,
    /// The device is offline.
    DeviceOffline = 4,
    /// A server or a device is not the one that it should be.
    NotTrusted = 5,
    /// The server can't be reached.
    Unreachable = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line is complete but contradicts itself or the situation.
    #[error("{0}")]
    Usage(String),
    /// What is remembered can't be read or kept.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server didn't do it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server isn't the one that the administrator means, or nobody confirmed that it is.
    #[error("{0}")]
    NotConfirmed(String),
    /// The server's root certificate is another one than the given fingerprint says.
    #[error("the server {server} is not the one that you mean, so nothing was sent")]
    OtherRoot {
        /// The server.
        server: String,
        /// What was given.
        expected: Fingerprint,
        /// What the server shows.
        shown: Fingerprint,
    },
    /// No session.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// A device did something else than it was told to.
    #[error("{0}")]
    Device(String),
    /// A file that was named on the command line can't be read or written.
    #[error("{file} can't be {doing}")]
    File {
        /// Which one.
        file: String,
        /// `read` or `written`.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The person could not be asked.
    #[error("the answer can't be read from the terminal")]
    Terminal(#[source] io::Error),
    /// The results can't be written.
    #[error("the output can't be written")]
    Output(#[source] io::Error),
    /// Several mistakes in one list.
    #[error("{what}")]
    Lines {
        /// What follows from them.
        what: String,
        /// A sentence for each.
        lines: Vec<String>,
    },
    /// An e-mail was not sent.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self::Api(error.into())
    }
}

impl Failure {
    /// What the program ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Lines { .. } => Exit::Usage,
            Self::Mail(MailError::Connect { .. } | MailError::Silent { .. }) => Exit::Unreachable,
            Self::Mail(MailError::Tls { .. } | MailError::Injected) => Exit::NotTrusted,
            Self::Mail(_) => Exit::Failed,
            Self::Api(error) => exit_of(error),
            Self::NotConfirmed(_) | Self::OtherRoot { .. } => Exit::NotTrusted,
            Self::Shadow(error) => error.exit(),
            Self::Config(_) | Self::Device(_) | Self::File { .. } | Self::Terminal(_) => {
                Exit::Failed
            }
            // Whoever reads the output has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Failed,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// What the person can do about it, where the sentence doesn't say it.
    fn advice(&self) -> Option<String> {
        match self {
            Self::Api(ApiError::LoginEnded { server, .. }) => {
                Some(format!("log in again: umbra login {server}"))
            }
            Self::Api(ApiError::Http(error)) => advice_about(error),
            Self::OtherRoot {
                expected, shown, ..
            } => Some(format!(
                "expected: {expected}\nshown:    {shown}\nEither the fingerprint is another server's, or somebody \
                 between here and the server answers in its place: ask the server's administrator."
            )),
            Self::Shadow(error) => error.advice(),
            Self::Usage(_) => Some("see umbra --help".to_owned()),
            Self::Lines { lines, .. } => Some(
                lines
                    .iter()
                    .map(|line| printable(line))
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
            Self::Api(
                ApiError::NotLoggedIn(_) | ApiError::Problem(_) | ApiError::NotUnderstood(_),
            )
            | Self::Config(_)
            | Self::NotConfirmed(_)
            | Self::Device(_)
            | Self::File { .. }
            | Self::Terminal(_)
            | Self::Output(_)
            | Self::Mail(_)
            | Self::Interrupted => None,
        }
    }

    /// Stable code.
    fn code(&self) -> &str {
        match self {
            Self::Usage(_) | Self::Lines { .. } => "usage",
            Self::Mail(_) => "mail",
            Self::Config(_) => "configuration",
            Self::Api(ApiError::Problem(problem)) => &problem.code,
            Self::Api(ApiError::Http(_)) => "no_answer",
            Self::Api(ApiError::NotLoggedIn(_) | ApiError::LoginEnded { .. }) => "not_logged_in",
            Self::Api(ApiError::NotUnderstood(_)) => "not_understood",
            Self::NotConfirmed(_) | Self::OtherRoot { .. } => "server_not_trusted",
            Self::Shadow(error) => error.code(),
            Self::Device(_) => "device",
            Self::File { .. } => "file",
            Self::Terminal(_) | Self::Output(_) => "terminal",
            Self::Interrupted => "interrupted",
        }
    }

    /// Tells the person, or with `--json` the script.
    pub fn tell(&self, json: bool, notes: &mut dyn Write) {
        let told = if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
        {
            Ok(())
        } else if json {
            let status = match self {
                Self::Api(ApiError::Problem(problem)) => problem.status,
                Self::Api(ApiError::LoginEnded { .. } | ApiError::NotLoggedIn(_)) => 401,
                Self::Api(ApiError::Http(_) | ApiError::NotUnderstood(_))
                | Self::Usage(_)
                | Self::Lines { .. }
                | Self::Mail(_)
                | Self::Config(_)
                | Self::NotConfirmed(_)
                | Self::OtherRoot { .. }
                | Self::Shadow(_)
                | Self::Device(_)
                | Self::File { .. }
                | Self::Terminal(_)
                | Self::Output(_)
                | Self::Interrupted => 0,
            };
            let detail = [Some(self.sentence()), self.advice()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("\n");
            let problem = Problem {
                status,
                code: self.code().to_owned(),
                detail,
            };
            serde_json::to_string(&problem)
                .map_err(io::Error::from)
                .and_then(|text| writeln!(notes, "{text}"))
        } else {
            let advice = self
                .advice()
                .map(|advice| format!("\n{advice}"))
                .unwrap_or_default();
            writeln!(notes, "umbra: {}{advice}", self.sentence())
        };
        // There is nobody left to tell that nobody can be told.
        let _ = told;
    }

    /// The whole chain of reasons as one sentence.
    pub fn sentence(&self) -> String {
        let clauses = umbra_carrier::causes::clauses(self);
        let printable: Vec<String> = clauses.iter().map(|clause| printable(clause)).collect();
        printable.join(": ")
    }
}

fn exit_of(error: &ApiError) -> Exit {
    match error {
        ApiError::NotLoggedIn(_) | ApiError::LoginEnded { .. } => Exit::NotLoggedIn,
        ApiError::Problem(problem) if problem.code == "device_offline" => Exit::DeviceOffline,
        ApiError::Problem(_) | ApiError::NotUnderstood(_) => Exit::Failed,
        ApiError::Http(HttpError::Tls { source, .. }) if source.concerns_certificates() => {
            Exit::NotTrusted
        }
        ApiError::Http(
            HttpError::Root { .. } | HttpError::Unsendable(_) | HttpError::TooLarge { .. },
        ) => Exit::Failed,
        ApiError::Http(
            HttpError::Connect { .. }
            | HttpError::Tls { .. }
            | HttpError::Broken { .. }
            | HttpError::TimedOut { .. },
        ) => Exit::Unreachable,
    }
}

fn advice_about(error: &HttpError) -> Option<String> {
    match error {
        HttpError::Tls {
            server,
            source: TlsError::UnknownRoot | TlsError::FingerprintMismatch { .. },
        } => Some(format!(
            "Either the server was set up anew, or somebody between here and the server answers in its place. If its \
             administrator confirms a new root certificate: umbra login {server} --fingerprint P1-P2-P3-P4"
        )),
        HttpError::Tls { source, .. } if source.concerns_certificates() => Some(
            "Tell the server's administrator; and look at the clock of this machine.".to_owned(),
        ),
        HttpError::Connect { .. } | HttpError::TimedOut { .. } => {
            Some("Check the address and the network, then try again.".to_owned())
        }
        HttpError::Broken { .. } => {
            Some("Try again; what was asked for may have been done already.".to_owned())
        }
        HttpError::Root { server, .. } => Some(format!(
            "pin it again: umbra login {server} --fingerprint P1-P2-P3-P4"
        )),
        HttpError::Tls { .. } | HttpError::Unsendable(_) | HttpError::TooLarge { .. } => None,
    }
}
