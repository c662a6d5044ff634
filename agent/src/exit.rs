//! Exit codes of the program, the same for every subcommand and written into `--help`. They follow `sysexits.h`, so that a
//! script can tell "try again" from "ask a person" without reading text.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// It did not work, for a reason that no other code names.
    Failed,
    /// The command line or a parameter is wrong.
    Usage,
    /// What was given, or lies on the disk, can't be used.
    Data,
    /// The agent, the server or a file is not there.
    Unavailable,
    /// Something inside this program or the system failed.
    Internal,
    /// The disk refused: full, read-only or broken.
    Disk,
    /// Passing weather: try again later.
    TryAgain,
    /// The other side or this system does not allow it.
    Permission,
}

impl Exit {
    /// All of them, with what they mean, for the help text.
    pub const ALL: [(Exit, &str); 9] = [
        (Exit::Ok, "done"),
        (
            Exit::Failed,
            "it did not work; the sentence on stderr says why",
        ),
        (Exit::Usage, "the command line or a parameter is wrong"),
        (
            Exit::Data,
            "what was given, or lies on the disk, can't be used",
        ),
        (
            Exit::Unavailable,
            "the agent, the server or a file is not there",
        ),
        (
            Exit::Internal,
            "something inside this program or the system failed",
        ),
        (Exit::Disk, "the disk refused: full, read-only or broken"),
        (Exit::TryAgain, "passing weather: try again later"),
        (
            Exit::Permission,
            "the server or this system does not allow it",
        ),
    ];

    /// The number.
    pub fn number(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
            Exit::Data => 65,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::Disk => 74,
            Exit::TryAgain => 75,
            Exit::Permission => 77,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.number())
    }
}

/// The list for the end of `--help`.
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in Exit::ALL {
        text.push_str(&format!("  {:>2}  {meaning}\n", exit.number()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_exit_codes_are_the_same_number() {
        let numbers: std::collections::BTreeSet<u8> =
            Exit::ALL.iter().map(|(exit, _)| exit.number()).collect();
        assert_eq!(numbers.len(), Exit::ALL.len());
        assert!(help().contains("  75  passing weather"));
    }
}
