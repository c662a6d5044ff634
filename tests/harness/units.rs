//! The units that an image gets, read as systemd reads them, so that scenarios run the very commands that devices run.

use std::path::Path;

/// A unit's text, by its name.
pub fn unit(name: &str) -> std::io::Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(
        folder
            .join("../image/rootfs/usr/lib/systemd/system")
            .join(name),
    )
}

/// The values of a key, in the order of the file.
pub fn values<'u>(unit: &'u str, key: &'u str) -> impl Iterator<Item = &'u str> {
    unit.lines()
        .filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}

/// The one value of a key that has one.
pub fn value<'u>(unit: &'u str, key: &'u str) -> Option<&'u str> {
    let mut values = values(unit, key);
    values.next().filter(|_| values.next().is_none())
}
