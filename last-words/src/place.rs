//! A sentence that is put together without memory from the heap: inside a signal handler there may be none.

/// As long as any sentence of this crate gets.
const ROOM: usize = 320;

/// Text of a fixed size; what doesn't fit is left out.
pub(crate) struct Line {
    bytes: [u8; ROOM],
    used: usize,
}

impl Line {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; ROOM],
            used: 0,
        }
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.byte(byte);
        }
    }

    /// Adds a number as `0x` and hexadecimal digits, which is how tools take addresses.
    pub(crate) fn address(&mut self, number: usize) {
        self.text("0x");
        let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let digit = (number >> (4 * digit)) & 0xf;
            self.byte(b"0123456789abcdef".get(digit).copied().unwrap_or(b'?'));
        }
    }

    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.used) {
            *place = byte;
            self.used += 1;
        }
    }

    /// What has been added so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them_and_too_much_is_cut() {
        for number in [0, 1, 0xf, 0x10, 0xabc_def0, usize::MAX] {
            let mut line = Line::new();
            line.text("at ");
            line.address(number);
            assert_eq!(line.bytes(), format!("at {number:#x}").as_bytes());
        }
        let mut line = Line::new();
        line.text(&"x".repeat(2 * ROOM));
        assert_eq!(line.bytes(), "x".repeat(ROOM).as_bytes());
    }
}
