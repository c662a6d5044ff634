//! The end of a program whose panics have no words: the compiler puts an instruction there that no processor executes (`ud2`,
//! `brk`), and the kernel sends a signal, with the instruction's address.
//!
//! Safety. Everything that is unsafe in this product's own code stands here, and is four calls: `sigaction` with a function of the
//! right type, which does only what signal-safety(7) allows (no memory from the heap, no lock; `write`, `raise` and an atomic
//! read); reading the `siginfo_t` that the kernel gives to a handler that asked for it; the address of a symbol that the linker
//! defines in every ELF program; and `write` from a buffer that is as long as it says.
#![expect(
    unsafe_code,
    reason = "the kernel wants the address of a function, and there is no safe way to tell it"
)]

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use libc::{SIGILL, SIGTRAP, siginfo_t};

use crate::place::Line;
use crate::{WHAT_NOW, do_first};

/// How the program is called. Set before the handler is installed; reading it is one atomic load.
static WHO: OnceLock<&str> = OnceLock::new();

unsafe extern "C" {
    /// Where the program's file begins in memory; the linker defines it.
    static __ehdr_start: u8;
}

/// From now on those signals are told of.
pub(crate) fn prepare(who: &'static str) {
    // Whoever came first speaks.
    let _ = WHO.set(who);
    // SAFETY: all zeroes is an empty set of signals and no flags; the fields that matter are set before it is used.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = tell as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
    // Once: the instruction is tried again after that, and the signal then does what it does by itself. On the stack that the
    // standard library keeps for such cases, if there is one.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_ONSTACK;
    for signal in [SIGILL, SIGTRAP] {
        // SAFETY: `action` is whole, and `tell` has the type that SA_SIGINFO wants. Without it, only the sentence is missing.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

extern "C" fn tell(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    do_first();
    let mut line = Line::new();
    line.text(WHO.get().copied().unwrap_or("a program"));
    // SAFETY: with SA_SIGINFO the kernel gives a valid `siginfo_t`.
    let info = unsafe { &*info };
    if info.si_code > 0 {
        // SAFETY: a signal by the processor carries an address.
        let at = unsafe { info.si_addr() } as usize;
        let start = &raw const __ehdr_start as usize;
        line.text(": a mistake in the program ends it (at ");
        line.address(at.wrapping_sub(start));
        line.text(")");
    } else {
        line.text(": another process ends it with the signal of a mistake");
    }
    line.text(WHAT_NOW);
    let bytes = line.bytes();
    // SAFETY: the pointer and the length are those of a slice. What can't be written can't be helped.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: `raise` takes any number. It comes as soon as this returns, and ends the program with the right reason also where
    // no instruction is tried again.
    unsafe { libc::raise(signal) };
}
