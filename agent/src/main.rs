//! The doorway: reads the command line, does what it says, and chooses the exit code.

use std::alloc::System;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use umbra_agent::cli;
use umbra_agent::exit::Exit;

/// Wipes what is given back: keys and passwords pass through buffers of libraries that know nothing of secrets, and a core file must not tell
/// them after their use.
#[global_allocator]
static MEMORY: zeroizing_alloc::ZeroAlloc<System> = zeroizing_alloc::ZeroAlloc(System);

fn main() -> ExitCode {
    umbra_last_words::prepare(concat!("umbra-agent ", env!("CARGO_PKG_VERSION")));
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(exit) => return exit.into(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return complain(
                Exit::Internal,
                &format!("the system gives no resources: {error}"),
            );
        }
    };
    let mut out = std::io::stdout().lock();
    let done = runtime.block_on(cli::run(arguments, &mut out));
    // Output that nobody reads any more (“| head”) is no failure.
    let _ = out.flush();
    // What still runs in the background is over with the program.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match done {
        Ok(exit) => exit.into(),
        Err(problem) => complain(problem.exit, &problem.to_string()),
    }
}

fn complain(exit: Exit, sentence: &str) -> ExitCode {
    if !sentence.is_empty() {
        // Nothing is left to do if even that can't be written.
        let _ = writeln!(std::io::stderr(), "umbra-agent: {sentence}");
    }
    exit.into()
}
