//! A mistake that is made on purpose where somebody asks for it: `cargo xtask sanitize` does, to see that its sanitizer sees.
#![expect(
    unsafe_code,
    reason = "safe code can't make such a mistake, which is what it is for"
)]

/// Without a sanitizer it reads a byte of its own stack, and nothing comes of it.
#[test]
fn planted() {
    if std::env::var_os("LAST_WORDS_PLANTED").is_none() {
        return;
    }
    let bytes = std::hint::black_box([7_u8; 16]);
    let beyond = std::hint::black_box(bytes.len());
    // SAFETY: none; it reads what comes after the array.
    let byte = unsafe { bytes.as_ptr().add(beyond).read_volatile() };
    std::hint::black_box(byte);
}
