//! Credentials on removable media: a read-only look at two file names in the root folder of what is mounted where sticks are. Nothing
//! is mounted, nothing is followed, nothing is read that is larger than credentials.

use std::path::{Path, PathBuf};

use umbra_protocol::credentials::{Credentials, CredentialsError, FILE_MAX, FILE_NAMES};
use umbra_setup::{Code, Found, Report, Source};

use super::device::Findings;
use crate::files::{self, FileError};
use crate::link::trouble::sentence;

/// Below these, systems mount removable media.
const PLACES: [&str; 3] = ["/media", "/run/media", "/mnt"];
/// What removable media are formatted with. Network file systems may hang, and are none.
const FILE_SYSTEMS: [&str; 15] = [
    "vfat", "exfat", "msdos", "ntfs", "ntfs3", "fuseblk", "ext2", "ext3", "ext4", "btrfs", "xfs",
    "f2fs", "iso9660", "udf", "hfsplus",
];
/// The kernel's list of what is mounted.
const MOUNTS: &str = "/proc/self/mountinfo";
const MOUNTS_MAX: usize = 1024 * 1024;
/// More media than anybody plugs in.
const MEDIA_MAX: usize = 16;

/// What lies on removable media, or in these folders instead.
pub fn look(folders: &[PathBuf]) -> Findings {
    let media = if folders.is_empty() {
        mounted()
    } else {
        folders.to_vec()
    };
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for medium in media.iter().take(MEDIA_MAX) {
        for name in FILE_NAMES {
            match read(&medium.join(name)) {
                None => {}
                Some(Ok(credentials)) => {
                    let source = Source::Stick {
                        medium: medium.display().to_string(),
                        file: name.to_owned(),
                    };
                    found.push(Found::of_credentials(&credentials, source));
                    // The other file says the same.
                    break;
                }
                Some(Err((meaning, why))) => {
                    let file = medium.join(name).display().to_string();
                    let said = format!("{file}: {why}");
                    problems.push(Report::new(meaning, &[("file", &file)], said));
                }
            }
        }
    }
    (found, problems)
}

fn read(path: &Path) -> Option<Result<Credentials, (Code, String)>> {
    let bytes = match files::read(path, FILE_MAX) {
        Ok(None) => return None,
        Ok(Some(bytes)) => zeroize::Zeroizing::new(bytes),
        Err(FileError::TooLarge { .. }) => {
            let why = sentence(&CredentialsError::TooLong);
            return Some(Err((Code::FileTooLong, why)));
        }
        Err(error) => return Some(Err((Code::FileUnreadable, sentence(&error)))),
    };
    let read = Credentials::read(&bytes);
    Some(read.map_err(|error| (meaning(&error), sentence(&error))))
}

fn meaning(error: &CredentialsError) -> Code {
    match error {
        CredentialsError::TooLong => Code::FileTooLong,
        CredentialsError::Empty => Code::FileEmpty,
        CredentialsError::NotText => Code::FileNotText,
        CredentialsError::Html => Code::FileHtml,
        CredentialsError::Truncated => Code::FileTruncated,
        CredentialsError::Xml(_) => Code::FileDamaged,
        CredentialsError::Dtd
        | CredentialsError::TooMuch
        | CredentialsError::OtherXml(_)
        | CredentialsError::TooMany => Code::FileForeign,
        CredentialsError::Version(_) => Code::FileVersion,
        CredentialsError::Missing(_) => Code::FileLacks,
        CredentialsError::Host(_) | CredentialsError::Port(_) => Code::FileAddress,
        CredentialsError::Fingerprint(_) => Code::FileFingerprint,
        CredentialsError::Key(_) | CredentialsError::TwoKeys => Code::FileKey,
    }
}

fn mounted() -> Vec<PathBuf> {
    // A file of the kernel has no length of its own, but it is a plain file.
    match files::read_text(Path::new(MOUNTS), MOUNTS_MAX) {
        Ok(Some(text)) => media(&text),
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// The mount points of removable media in the kernel's list.
fn media(list: &str) -> Vec<PathBuf> {
    let mut media = Vec::new();
    for line in list.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let point = before.split(' ').nth(4).map(unescaped);
        let file_system = after.split(' ').next().unwrap_or_default();
        let Some(point) = point.map(PathBuf::from) else {
            continue;
        };
        let is_removable = PLACES.iter().any(|place| point.starts_with(place))
            && FILE_SYSTEMS.contains(&file_system);
        if is_removable && !media.contains(&point) {
            media.push(point);
        }
    }
    media
}

/// The kernel writes space, tab, line feed and backslash as octal numbers.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
            .filter(u8::is_ascii);
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// What fuzz targets reach of what is private here. It exists only while fuzzing.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// The mount points of removable media in the kernel's list.
    pub fn media(list: &str) -> Vec<std::path::PathBuf> {
        super::media(list)
    }
}

#[cfg(test)]
mod tests {
    use umbra_protocol::Fingerprint;
    use umbra_protocol::credentials::Endpoint;
    use umbra_protocol::first_auth::FirstAuthKey;

    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            endpoints: vec![Endpoint {
                host: "gw.example.com".into(),
                port: 8443,
                root_fingerprint: Fingerprint::from_bytes([7; 32]),
            }],
            key: FirstAuthKey::parse("ABCDE-FGHJK-MNPQR-STVWX").expect("a key"),
        }
    }

    #[test]
    fn the_kernels_list_names_the_media_and_nothing_else() {
        let list = "\
22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
30 22 8:17 / /media/stick rw,nosuid shared:2 - vfat /dev/sdb1 rw
31 22 8:18 / /run/media/anna/MY\\040STICK rw - exfat /dev/sdc1 rw
32 22 0:50 / /mnt/server rw - nfs4 server:/share rw
33 22 8:19 / /mediathek rw - ext4 /dev/sdd1 rw
34 22 8:17 / /media/stick rw - vfat /dev/sdb1 rw
broken line
35 22 8:20 / /mnt rw - ext4 /dev/sde1 rw
";
        assert_eq!(
            media(list),
            [
                PathBuf::from("/media/stick"),
                PathBuf::from("/run/media/anna/MY STICK"),
                PathBuf::from("/mnt")
            ]
        );
        assert_eq!(unescaped("a\\134b\\011c\\9"), "a\\b\tc\\9");
    }

    #[test]
    fn credentials_are_found_as_xml_or_text_once_for_each_medium() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        for medium in [&one, &two] {
            std::fs::create_dir(medium).expect("a medium");
        }
        let text = credentials().to_text();
        std::fs::write(one.join("icg.xml"), "<broken").expect("written");
        std::fs::write(one.join("icg.txt"), text.as_bytes()).expect("written");
        std::fs::write(two.join("icg.xml"), credentials().to_xml().as_bytes()).expect("written");
        std::fs::write(two.join("icg.txt"), text.as_bytes()).expect("written");
        let (found, problems) = look(&[one, two]);
        let files: Vec<_> = found
            .iter()
            .map(|found| {
                let Source::Stick { file, .. } = &found.source else {
                    panic!("from a stick: {:?}", found.source);
                };
                file.as_str()
            })
            .collect();
        assert_eq!(files, ["icg.txt", "icg.xml"]);
        assert!(
            problems.len() == 1 && problems[0].sentence().contains("one/icg.xml: The file "),
            "{problems:?}"
        );
        assert!(problems[0].sentence().ends_with('.'), "{problems:?}");
    }

    #[test]
    fn more_media_than_anybody_plugs_in_are_not_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let media: Vec<PathBuf> = (0..MEDIA_MAX + 4)
            .map(|number| folder.path().join(number.to_string()))
            .collect();
        for medium in &media {
            std::fs::create_dir(medium).expect("a medium");
            let text = credentials().to_text();
            std::fs::write(medium.join("icg.txt"), text.as_bytes()).expect("written");
        }
        assert_eq!(look(&media).0.len(), MEDIA_MAX);
    }

    #[test]
    fn links_pipes_and_huge_files_on_a_stick_are_told_and_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = folder.path().join("outside");
        std::fs::write(&outside, credentials().to_text().as_bytes()).expect("written");
        let stick = |name: &str| {
            let stick = folder.path().join(name);
            std::fs::create_dir(&stick).expect("a stick");
            stick
        };
        let (link, pipe, huge) = (stick("link"), stick("pipe"), stick("huge"));
        std::os::unix::fs::symlink(&outside, link.join("icg.xml")).expect("a link");
        nix::unistd::mkfifo(&pipe.join("icg.xml"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        std::fs::write(huge.join("icg.xml"), vec![b'x'; 10 * 1024 * 1024]).expect("written");
        let (found, problems) = look(&[link, pipe, huge, folder.path().join("none")]);
        assert!(found.is_empty());
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[2].sentence().contains("64 KiB"), "{problems:?}");
    }
}
