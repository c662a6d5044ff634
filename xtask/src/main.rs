//! The one list of tasks, the same ones that continuous integration runs. Needs nothing but a Rust toolchain to start;
//! what a task needs beyond that, it installs itself and says so.

mod bench;
mod demo;
mod deny;
mod dist;
mod fuzz;
mod image;
mod limbo;
mod sanitize;
mod setup;
mod shipped;
mod soak;
mod step;
mod test;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Umbra's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Sets up what the tests need, then checks format, lints, tests and documentation
    Test(test::Arguments),
    /// Runs every fuzz target for a bounded time
    Fuzz(fuzz::Arguments),
    /// Runs the tests of unsafe code with a sanitizer in them
    Sanitize,
    /// Holds what comes from others to deny.toml, with cargo-deny
    Deny(deny::Arguments),
    /// Holds how chains are verified and diagnosed against the cases of x509-limbo
    Limbo(limbo::Arguments),
    /// Builds the agent as it ships, static and for each processor, and checks it
    Dist(dist::Arguments),
    /// Makes packages for device OS images, and boots the example image in an emulator
    Image(image::Arguments),
    /// Measures the product beside what would be used in its place
    Bench(bench::Arguments),
    /// Runs a whole installation under work and faults, and audits it
    Soak(soak::Arguments),
    /// Starts a device and a server in a temporary folder and shadows the one through the other
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test(arguments) => test::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Sanitize => sanitize::run(),
        Task::Deny(arguments) => deny::run(&arguments),
        Task::Limbo(arguments) => limbo::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Image(arguments) => image::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
