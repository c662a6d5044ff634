//! What went wrong, for stderr and for the exit code. The chain of causes is written once, here and nowhere else.

use std::error::Error;
use std::fmt;

use umbra_carrier::causes;

use crate::control::Failure;
use crate::control::client::ClientError;
use crate::enrolment::EnrolmentError;
use crate::exit::Exit;
use crate::files::FileError;
use crate::identity::IdentityError;
use crate::registry::RegistryError;

/// What went wrong.
#[derive(Debug)]
pub struct Problem {
    /// How the program ends.
    pub exit: Exit,
    sentence: String,
    causes: Vec<String>,
}

impl Problem {
    /// A problem in words.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self {
            exit,
            sentence: sentence.into(),
            causes: Vec::new(),
        }
    }

    /// A problem with its causes.
    pub fn of(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        let mut clauses = causes::clauses(error).into_iter();
        Self {
            exit,
            sentence: clauses.next().unwrap_or_default(),
            causes: clauses.collect(),
        }
    }
}

/// The sentence, and each cause on a line of its own.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        for cause in &self.causes {
            write!(f, "\n  cause: {cause}")?;
        }
        Ok(())
    }
}

impl From<std::io::Error> for Problem {
    /// Output that nobody reads any more (`| head`) is no failure worth a word.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Ok, String::new());
        }
        Self::of(Exit::Disk, &error)
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NotRunning { .. } | ClientError::Closed => Exit::Unavailable,
            ClientError::Permission { .. } => Exit::Permission,
            ClientError::TimedOut => Exit::TryAgain,
            ClientError::Answer | ClientError::Io(_) => Exit::Internal,
        };
        Self::of(exit, &error)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code.exit(), failure.sentence)
    }
}

impl From<IdentityError> for Problem {
    fn from(error: IdentityError) -> Self {
        Self::of(error.exit(), &error)
    }
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        let exit = match &error {
            FileError::Permission { .. } => Exit::Permission,
            FileError::NotAFile { .. } | FileError::TooLarge { .. } | FileError::NotText { .. } => {
                Exit::Data
            }
            FileError::Full { .. } | FileError::ReadOnly { .. } | FileError::Other { .. } => {
                Exit::Disk
            }
        };
        Self::of(exit, &error)
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let exit = match &error {
            RegistryError::Unknown { .. }
            | RegistryError::Value { .. }
            | RegistryError::LocalOnly { .. } => Exit::Usage,
            RegistryError::File(FileError::Permission { .. }) => Exit::Permission,
            RegistryError::File(_) => Exit::Disk,
        };
        Self::of(exit, &error)
    }
}

impl From<EnrolmentError> for Problem {
    fn from(error: EnrolmentError) -> Self {
        let exit = match &error {
            EnrolmentError::File(FileError::Permission { .. }) => Exit::Permission,
            EnrolmentError::File(_) => Exit::Disk,
            EnrolmentError::Damaged { .. } | EnrolmentError::Root => Exit::Data,
        };
        Self::of(exit, &error)
    }
}
