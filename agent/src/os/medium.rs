//! The serial number of the USB stick that the system runs from, if it runs from one. Such a device is the stick and not the machine
//! that it is plugged into: its key lies on the stick, and so its label has to as well. Files are read below the root of
//! [`Paths`]; nothing that a stick calls itself leaves here but letters, digits, dots, dashes and underscores.

use std::path::{Path, PathBuf};

use crate::files;
use crate::paths::Paths;

/// Where the device's state lies, on any system; then what the system itself runs from.
const PLACES: [&str; 2] = ["/wfs", "/"];
const MOUNTS_MAX: usize = 1024 * 1024;
const ATTRIBUTE_MAX: usize = 4 * 1024;
/// More folders above a device are not looked at.
const FOLDERS_MAX: usize = 24;
/// A partition in an encrypted volume in a logical one, and one more.
const LAYERS_MAX: usize = 4;
/// USB has mass storage carry a number of twelve digits; shorter than this names no single stick.
const SERIAL_MIN: usize = 8;
const SERIAL_MAX: usize = 64;

/// The serial number of the USB stick below the device's state.
pub(super) fn serial(paths: &Paths) -> Option<String> {
    let list = files::read_text(&paths.mounts(), MOUNTS_MAX).ok()??;
    let number = PLACES.iter().find_map(|place| block_device(&list, place))?;
    let device = paths.block_devices().join(number);
    stick(&device, LAYERS_MAX).and_then(|stick| usable(&attribute(&stick, "serial")?))
}

/// The number of the block device that holds a folder; nothing for what lies in memory or on a network.
fn block_device<'l>(list: &'l str, folder: &str) -> Option<&'l str> {
    let mut best: Option<(usize, &str)> = None;
    for line in list.lines() {
        let mut fields = line.split(' ').skip(2);
        let (Some(number), Some(point)) = (fields.next(), fields.nth(1)) else {
            continue;
        };
        // What was mounted later at the same place hides what was there before.
        if Path::new(folder).starts_with(point) && best.is_none_or(|(long, _)| point.len() >= long)
        {
            best = Some((point.len(), number));
        }
    }
    best.map(|(_, number)| number).filter(|number| {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        number
            .split_once(':')
            .is_some_and(|(major, minor)| is_number(major) && is_number(minor) && major != "0")
    })
}

/// The folder of the USB device below a block device; nothing for one that is fixed in the machine.
fn stick(block: &Path, layers: usize) -> Option<PathBuf> {
    let device = std::fs::canonicalize(block).ok()?;
    let usb = device
        .ancestors()
        .take(FOLDERS_MAX)
        .find(|folder| folder.join("idVendor").exists());
    if let Some(usb) = usb {
        let fixed = attribute(usb, "removable").as_deref() == Some("fixed");
        return (!fixed).then(|| usb.to_owned());
    }
    // Encrypted and logical volumes say what lies below them.
    let below = std::fs::read_dir(device.join("slaves")).ok()?;
    let layers = layers.checked_sub(1)?;
    below
        .take(FOLDERS_MAX)
        .find_map(|entry| stick(&entry.ok()?.path(), layers))
}

fn attribute(folder: &Path, name: &str) -> Option<String> {
    let text = files::read_text(&folder.join(name), ATTRIBUTE_MAX).ok()??;
    Some(text.trim().to_owned())
}

/// The serial number as a label; nothing for those that makers put on every stick alike.
fn usable(serial: &str) -> Option<String> {
    let label: String = serial
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        .take(SERIAL_MAX)
        .collect::<String>()
        .to_ascii_uppercase();
    let mut different: Vec<char> = label.chars().collect();
    different.sort_unstable();
    different.dedup();
    let counted = "0123456789ABCDEF0123456789ABCDEF".contains(&label)
        || "1234567890".repeat(7).contains(&label);
    (label.len() >= SERIAL_MIN && different.len() > 2 && !counted).then_some(label)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const LIST: &str = "21 1 0:19 / / rw - overlay overlay rw\n\
        22 21 8:2 / /wfs rw,relatime shared:1 - ext4 /dev/sdb2 rw\n\
        23 21 0:21 / /run rw - tmpfs tmpfs rw\n";

    fn machine(list: &str, attributes: &[(&str, &str)]) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.mounts().parent().expect("a folder")).expect("made");
        std::fs::write(paths.mounts(), list).expect("written");
        let usb = root.path().join("sys/devices/pci/usb1/1-2");
        let block = usb.join("1-2:1.0/host0/block/sdb/sdb2");
        std::fs::create_dir_all(&block).expect("made");
        for (name, text) in attributes {
            std::fs::write(usb.join(name), format!("{text}\n")).expect("written");
        }
        // The controller's own hub is a USB device with a number, too.
        std::fs::write(usb.join("../idVendor"), "1d6b\n").expect("written");
        std::fs::write(usb.join("../serial"), "0000:00:14.0\n").expect("written");
        std::fs::create_dir_all(paths.block_devices()).expect("made");
        symlink(&block, paths.block_devices().join("8:2")).expect("linked");
        (root, paths)
    }

    const STICK: [(&str, &str); 3] = [
        ("idVendor", "0781"),
        ("serial", "4c530001-2309 1910xyz"),
        ("removable", "removable"),
    ];

    #[test]
    fn a_system_on_a_stick_is_named_by_the_stick() {
        let (_root, paths) = machine(LIST, &STICK);
        assert_eq!(serial(&paths).as_deref(), Some("4C530001-23091910XYZ"));
    }

    #[test]
    fn the_disk_of_the_system_counts_where_the_state_has_none_of_its_own() {
        let (_root, paths) = machine("22 1 8:2 / / rw - ext4 /dev/sdb2 rw\n", &STICK);
        assert!(serial(&paths).is_some());
        let (_root, paths) = machine(
            "22 1 8:2 / / rw - ext4 /dev/sdb2 rw\n23 22 8:3 / /wfs rw - ext4 /dev/sda1 rw\n",
            &STICK,
        );
        assert_eq!(serial(&paths), None, "the state lies on another disk");
    }

    #[test]
    fn an_encrypted_volume_says_what_lies_below_it() {
        let (root, paths) = machine("22 1 253:0 / /wfs rw - ext4 /dev/mapper/wfs rw\n", &STICK);
        let volume = root.path().join("sys/devices/virtual/block/dm-0");
        std::fs::create_dir_all(volume.join("slaves")).expect("made");
        symlink(&volume, paths.block_devices().join("253:0")).expect("linked");
        symlink(
            paths.block_devices().join("8:2"),
            volume.join("slaves/sdb2"),
        )
        .expect("linked");
        assert_eq!(serial(&paths).as_deref(), Some("4C530001-23091910XYZ"));
        // A volume that lies on itself ends somewhere.
        std::fs::remove_file(volume.join("slaves/sdb2")).expect("removed");
        symlink(&volume, volume.join("slaves/dm-0")).expect("linked");
        assert_eq!(serial(&paths), None);
    }

    #[test]
    fn what_is_fixed_in_the_machine_or_lies_elsewhere_is_no_stick() {
        let fixed = [STICK[0], STICK[1], ("removable", "fixed")];
        let (_root, paths) = machine(LIST, &fixed);
        assert_eq!(serial(&paths), None);
        let (_root, paths) = machine("21 1 0:19 / / rw - overlay overlay rw\n", &STICK);
        assert_eq!(serial(&paths), None);
        let (_root, paths) = machine("21 1 ../../x:1 / /wfs rw - ext4 x rw\n", &STICK);
        assert_eq!(serial(&paths), None);
        let (_root, paths) = machine("", &STICK);
        assert_eq!(serial(&paths), None);
    }

    #[test]
    fn numbers_that_makers_put_on_every_stick_alike_name_none() {
        for alike in [
            "",
            "1234567",
            "00000000000000",
            "0101010101",
            "0123456789ABCDEF",
            "123456789012",
            "\u{1b}[2J\u{202e}",
        ] {
            assert_eq!(usable(alike), None, "{alike}");
        }
        assert_eq!(
            usable("AA00\u{1b}0000\n0488").as_deref(),
            Some("AA0000000488")
        );
        assert_eq!(usable(&"AB1".repeat(50)).map(|label| label.len()), Some(64));
    }
}
