//! Buffers that all streams of a thread share: whoever has bytes to move borrows one for that moment, so that one that stands
//! still holds none.

use std::cell::RefCell;
use std::thread::LocalKey;

/// A buffer of a thread.
#[derive(Debug, Default)]
pub struct Shared(RefCell<Vec<u8>>);

impl Shared {
    /// Empty until it is borrowed for the first time.
    pub const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}

/// Borrows `length` bytes of it, which hold what was left in them.
pub fn borrow<T>(
    shared: &'static LocalKey<Shared>,
    length: usize,
    job: impl FnOnce(&mut [u8]) -> T,
) -> T {
    shared.with(|shared| match shared.0.try_borrow_mut() {
        Ok(mut buffer) => {
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            job(&mut buffer[..length])
        }
        // Somebody who borrows it lies inside of somebody who does: rare enough for a buffer of its own.
        Err(_) => job(&mut vec![0; length]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static BUFFER: Shared = const { Shared::new() };
    }

    #[test]
    fn it_is_one_buffer_unless_it_is_borrowed_already() {
        borrow(&BUFFER, 4, |outer| {
            outer.fill(7);
            borrow(&BUFFER, 8, |inner| assert_eq!(inner, [0; 8]));
        });
        borrow(&BUFFER, 6, |again| assert_eq!(again, [7, 7, 7, 7, 0, 0]));
    }
}
