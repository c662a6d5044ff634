//! Protocol versions and how two sides agree: the device names all it speaks, the server takes the highest that it
//! speaks too.

/// Versions that this build speaks, best first.
pub const SUPPORTED: &[u16] = &[1];

/// The highest version that both sides speak, or `None`.
pub fn agree(offered: &[u16]) -> Option<u16> {
    SUPPORTED
        .iter()
        .copied()
        .filter(|v| offered.contains(v))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins_and_strangers_have_none() {
        assert_eq!(agree(&[7, 1]), Some(1));
        assert_eq!(agree(&[7, 9]), None);
        assert_eq!(agree(&[]), None);
    }
}
