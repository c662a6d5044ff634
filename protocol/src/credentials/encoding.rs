//! From the bytes of a file to text, however the editor of the day has saved it. It never guesses: what is not clearly
//! text is refused in words.

use zeroize::Zeroizing;

use super::{CredentialsError, FILE_MAX};

/// UTF-8 with or without a byte order mark, or UTF-16 of either order with one.
pub(super) fn text_of(bytes: &[u8]) -> Result<Zeroizing<String>, CredentialsError> {
    if bytes.len() > FILE_MAX {
        return Err(CredentialsError::TooLong);
    }
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest)?,
        all => utf8(all)?,
    };
    if text.contains('\0') {
        return Err(CredentialsError::NotText);
    }
    Ok(text)
}

fn utf8(bytes: &[u8]) -> Result<Zeroizing<String>, CredentialsError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CredentialsError::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<Zeroizing<String>, CredentialsError> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(CredentialsError::NotText);
    }
    // No unit needs more than three bytes: the text is never moved, which would leave a copy of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(pairs.len() * 3));
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        text.push(character.map_err(|_| CredentialsError::NotText)?);
    }
    Ok(text)
}
