//! The full-screen face: a terminal of 80 by 24 and a keyboard are enough, over SSH as well. The terminal is put back in order however
//! the assistant ends: by the person, by a signal, by a mistake in this program.

mod draw;
mod form;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tokio::sync::mpsc;
use umbra_setup::{Input, View};

use super::driver::Face;
use form::Form;

/// How often the reading thread looks whether anybody still listens.
const LISTENING: Duration = Duration::from_millis(250);

/// Draws the whole terminal.
pub struct FullScreen<'a> {
    terminal: Terminal<CrosstermBackend<&'a mut dyn Write>>,
    form: Form,
    colours: bool,
    view: Option<View>,
}

/// Whether the terminal is ours at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// How the terminal was before.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

fn begin<W: Write>(out: &mut W) -> io::Result<()> {
    execute!(out, EnterAlternateScreen, EnableBracketedPaste)
}

/// Gives the terminal back as it was; more often does no harm.
fn give_back<W: Write>(out: &mut W) {
    if TAKEN.swap(false, Ordering::SeqCst) {
        end(out);
        let _ = disable_raw_mode();
    }
}

fn end<W: Write>(out: &mut W) {
    // Nothing is left to do if the terminal does not take even that.
    let _ = execute!(
        out,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        crossterm::cursor::Show
    );
}

/// The same where a mistake in the program ends it: waits for no lock, since whoever holds one may be what has just stopped.
fn give_back_at_once() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        end(&mut Unlocked);
        if let Ok(before) = BEFORE.try_lock()
            && let Some(before) = before.as_ref()
        {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// The terminal behind standard output, without its lock.
struct Unlocked;

impl Write for Unlocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> FullScreen<'a> {
    /// Takes the terminal.
    ///
    /// # Errors
    /// What the terminal said.
    pub fn take(out: &'a mut dyn Write, colours: bool) -> io::Result<Self> {
        // Not every terminal is the standard input's; crossterm finds its own.
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = tcgetattr(io::stdin()).ok();
        umbra_last_words::first(give_back_at_once);
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let mut out = out;
        let taken = begin(&mut out);
        let terminal = taken.and_then(|()| Terminal::new(CrosstermBackend::new(out)));
        match terminal {
            Ok(terminal) => Ok(Self {
                terminal,
                form: Form::default(),
                colours,
                view: None,
            }),
            Err(error) => {
                give_back(&mut Unlocked);
                Err(error)
            }
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        let Some(view) = &self.view else {
            return Ok(());
        };
        let (form, colours) = (&self.form, self.colours);
        self.terminal
            .draw(|frame| draw::draw(frame, view, form, colours))?;
        Ok(())
    }
}

impl Drop for FullScreen<'_> {
    fn drop(&mut self) {
        give_back(self.terminal.backend_mut());
    }
}

impl Face for FullScreen<'_> {
    type Raw = Event;

    fn show(&mut self, view: &View) -> io::Result<()> {
        self.form.take(view);
        self.view = Some(view.clone());
        self.draw()
    }

    fn hear(&mut self, raw: Option<Event>) -> io::Result<()> {
        match (raw, &self.view) {
            (Some(event), Some(view)) => self.form.hear(&event, view),
            (None, _) => self.form.wants(Input::Close),
            (Some(_), None) => {}
        }
        self.draw()
    }

    fn next(&mut self, _view: &View) -> io::Result<Option<Input>> {
        Ok(self.form.next())
    }
}

/// Reads keys until nobody listens. Meant for a thread of its own.
pub fn read_keys(keys: &mpsc::Sender<Event>) {
    while !keys.is_closed() {
        match event::poll(LISTENING) {
            Ok(false) => {}
            Ok(true) => match event::read() {
                Ok(event) => {
                    if keys.blocking_send(event).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
