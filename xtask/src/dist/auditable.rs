//! The list of crates inside the binary, in the format of `cargo auditable` (a section `.dep-v0` with compressed JSON),
//! which scanners for known vulnerabilities read. It goes in after linking, so that each way of building gives the same.

use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use serde::{Deserialize, Serialize};

use super::crates::{Crate, PACKAGE, Source};
use super::elf::{self, ElfError};

/// Where scanners look.
const SECTION: &str = ".dep-v0";
/// The revision of the format in which what runs only during the build is not among the rest.
const FORMAT: u32 = 1;
/// More than any list of crates.
const LARGEST: usize = 4 << 20;

/// Why a file holds no list.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// There is none.
    #[error("there is no list of crates in it (section {SECTION})")]
    Missing,
    /// It can't be read.
    #[error("the list of crates in it (section {SECTION}) can't be read")]
    Damaged,
    /// The file itself.
    #[error(transparent)]
    Elf(#[from] ElfError),
}

/// What scanners read.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct List {
    pub(crate) packages: Vec<Package>,
    #[serde(default)]
    format: u32,
}

/// A crate, as scanners name it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    source: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dependencies: Vec<usize>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) root: bool,
}

/// The same crates as scanners want them.
pub(crate) fn list(crates: &[Crate]) -> List {
    let packages = crates.iter().map(|one| Package {
        name: one.name.clone(),
        version: one.version.clone(),
        source: match one.source {
            Source::Local => "local",
            Source::CratesIo => "crates.io",
            Source::Other => "registry",
        }
        .to_owned(),
        dependencies: one.needs.clone(),
        root: one.name == PACKAGE,
    });
    List {
        packages: packages.collect(),
        format: FORMAT,
    }
}

/// The program with its list of crates and without its symbols.
pub(crate) fn embedded(program: &[u8], crates: &[Crate]) -> anyhow::Result<Vec<u8>> {
    let json = serde_json::to_vec(&list(crates))?;
    Ok(elf::stripped_with_section(
        program,
        SECTION,
        &compress_to_vec_zlib(&json, 9),
    )?)
}

/// The list that a program holds.
pub(crate) fn read(program: &[u8]) -> Result<List, AuditError> {
    let packed = elf::section(program, SECTION)?.ok_or(AuditError::Missing)?;
    let json = decompress_to_vec_zlib_with_limit(packed, LARGEST);
    let json = json.map_err(|_| AuditError::Damaged)?;
    serde_json::from_slice(&json).map_err(|_| AuditError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::super::crates::tests::some;
    use super::*;

    #[test]
    fn what_is_embedded_is_read_again_and_a_damaged_list_is_not() {
        let program = std::fs::read(std::env::current_exe().expect("a path")).expect("this test");
        assert!(matches!(read(&program), Err(AuditError::Missing)));
        let with = embedded(&program, &some()).expect("embedded");
        assert_eq!(read(&with).expect("read"), list(&some()));
        let damaged =
            elf::stripped_with_section(&program, SECTION, b"no zlib").expect("has a table");
        assert!(matches!(read(&damaged), Err(AuditError::Damaged)));
    }

    #[test]
    fn scanners_find_one_root_and_every_crate_by_name_version_and_source() {
        let json = serde_json::to_value(list(&some())).expect("JSON");
        let expected = serde_json::json!({"format": 1, "packages": [
            {"name": "libc", "version": "0.2.1", "source": "crates.io"},
            {"name": "ring", "version": "0.17.14", "source": "crates.io", "dependencies": [0]},
            {"name": "umbra-agent", "version": "0.1.0", "source": "local", "dependencies": [1, 3], "root": true},
            {"name": "umbra-carrier", "version": "0.1.0", "source": "local", "dependencies": [1]},
        ]});
        assert_eq!(json, expected);
    }
}
