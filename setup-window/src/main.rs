//! The doorway: arguments, the window, the exit code.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use umbra_setup_window::{Arguments, run};

/// There is no display: `EX_UNAVAILABLE`, so that a service manager can tell it from a window that was closed.
const UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            let mut text = format!("umbra-setup-window: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(": ");
                text.push_str(&error.to_string());
                cause = error.source();
            }
            // Where standard error is gone, nobody is there to be told.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
            ExitCode::from(UNAVAILABLE)
        }
    }
}
