//! The setup assistant in a window, for devices with a screen and no way to a terminal. It draws what `umbra-agent setup --face json`
//! says and answers with what a person does, over the pipes of a child process: it opens no port, reads no file of the device,
//! and knows neither servers nor keys beyond the line that is being typed. Why it is a program of its own, and why with this
//! toolkit, stands in `docs/decisions/0008-the-setup-window-is-a-program-of-its-own.md`.

mod assistant;
mod look;
mod parts;
mod screen;
mod signs;
mod typing;
mod window;

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// What can be typed.
#[derive(Debug, Parser)]
#[command(name = "umbra-setup-window", version, about, max_term_width = 100)]
pub struct Arguments {
    /// The device's program.
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/umbra-agent")]
    pub agent: PathBuf,
    /// An ordinary window instead of the whole screen.
    #[arg(long)]
    pub windowed: bool,
    /// Everything after “--” is given to “umbra-agent setup” as well.
    #[arg(last = true, value_name = "ARGUMENT")]
    pub setup: Vec<std::ffi::OsString>,
}

/// Why there is no window, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// No display, or no OpenGL on it.
    #[error(
        "no window can be opened; it needs an X11 or Wayland display with OpenGL 2.1 or OpenGL ES 2. The same assistant runs in a \
         terminal: umbra-agent setup"
    )]
    Display(#[source] eframe::Error),
}

/// The exit code of a window that was closed before the end, as of an assistant that was left.
const LEFT: u8 = 1;

/// Shows the assistant until it or the person ends it. The exit code is the assistant's.
///
/// # Errors
/// If there is no display to show it on.
pub fn run(arguments: Arguments) -> Result<ExitCode, WindowError> {
    let viewport = eframe::egui::ViewportBuilder::default()
        .with_title("Umbra")
        .with_app_id("umbra-setup")
        .with_min_inner_size([640.0, 480.0])
        .with_inner_size([960.0, 720.0])
        .with_fullscreen(!arguments.windowed)
        .with_decorations(arguments.windowed);
    let options = eframe::NativeOptions {
        viewport,
        renderer: eframe::Renderer::Glow,
        ..Default::default()
    };
    let whole_screen = !arguments.windowed;
    let origin = window::Origin {
        program: arguments.agent,
        arguments: arguments.setup,
    };
    let outcome = Cell::new(LEFT);
    eframe::run_native(
        "umbra-setup",
        options,
        Box::new(|context| {
            look::apply(&context.egui_ctx);
            Ok(Box::new(window::Window::new(
                origin,
                &context.egui_ctx,
                whole_screen,
                &outcome,
            )))
        }),
    )
    .map_err(WindowError::Display)?;
    Ok(ExitCode::from(outcome.get()))
}
