//! Reads from an ELF file what the kernel would do with it, and writes one anew without what is for debuggers. It judges nothing: what is good and
//! what is not stands in `check.rs`.

use object::elf::{
    DF_1_NOW, DF_1_PIE, DF_BIND_NOW, DT_BIND_NOW, DT_FLAGS, DT_FLAGS_1, DT_NEEDED, DT_RPATH,
    DT_RUNPATH, ET_DYN, ET_EXEC, PF_W, PF_X, PT_GNU_RELRO, PT_GNU_STACK, PT_INTERP, PT_LOAD,
    SHF_ALLOC, SHF_INFO_LINK, SHT_PROGBITS, SHT_STRTAB, SHT_SYMTAB,
};
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSection as _};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElfError {
    /// It is something else, or damaged.
    #[error("this is no ELF file of a 64-bit little-endian Linux program")]
    Unreadable,
    /// Its parts can't be told apart.
    #[error("the ELF file has no table of sections that makes sense")]
    NoTable,
}

/// What the kernel and the linker would make of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The processor's number.
    pub(crate) machine: u16,
    /// A program at all, as opposed to a library or an object file.
    pub(crate) is_program: bool,
    /// It may be loaded anywhere.
    pub(crate) position_independent: bool,
    /// The program that would have to load it.
    pub(crate) interpreter: Option<String>,
    /// How many libraries it wants.
    pub(crate) libraries: usize,
    /// It has search paths of its own for libraries.
    pub(crate) search_path: bool,
    /// What the linker filled in is read-only once it runs.
    pub(crate) relro: bool,
    /// Everything is filled in before the first instruction, so that nothing has to stay writable.
    pub(crate) bind_now: bool,
    /// It says that its stack holds no code.
    pub(crate) stack_is_data: bool,
    /// How many parts can be written and run.
    pub(crate) writable_code: usize,
    /// It has a table of symbols or something for debuggers.
    pub(crate) symbols: bool,
}

impl Facts {
    /// Reads them.
    pub(crate) fn read(file: &[u8]) -> Result<Self, ElfError> {
        let elf = parse(file)?;
        let endian = elf.endian();
        let header = elf.elf_header();
        let kind = header.e_type(endian);
        let mut facts = Self {
            machine: header.e_machine(endian),
            is_program: kind == ET_EXEC,
            position_independent: kind == ET_DYN,
            interpreter: None,
            libraries: 0,
            search_path: false,
            relro: false,
            bind_now: false,
            stack_is_data: false,
            writable_code: 0,
            symbols: elf.sections().any(|section| {
                let entry = section.elf_section_header();
                let aside = entry.sh_flags.get(endian) & u64::from(SHF_ALLOC) == 0;
                let name = section.name().unwrap_or_default();
                entry.sh_type.get(endian) == SHT_SYMTAB
                    || aside && (name.starts_with(".debug_") || name.starts_with(".zdebug_"))
            }),
        };
        for part in elf.elf_program_headers() {
            let flags = part.p_flags(endian);
            match part.p_type(endian) {
                PT_INTERP => {
                    let path = part.interpreter(endian, file).ok().flatten();
                    let path = path.map(|path| String::from_utf8_lossy(path).into_owned());
                    facts.interpreter = Some(path.unwrap_or_default());
                }
                PT_GNU_RELRO => facts.relro = true,
                PT_GNU_STACK => facts.stack_is_data = flags & PF_X == 0,
                PT_LOAD if flags & PF_W != 0 && flags & PF_X != 0 => facts.writable_code += 1,
                _ => {}
            }
            let entries = part.dynamic(endian, file).ok().flatten();
            for entry in entries.unwrap_or_default() {
                let value = entry.d_val(endian);
                let has = |flag: u32| value & u64::from(flag) != 0;
                match u32::try_from(entry.d_tag(endian)).unwrap_or_default() {
                    DT_NEEDED => facts.libraries += 1,
                    DT_RPATH | DT_RUNPATH => facts.search_path = true,
                    DT_BIND_NOW => facts.bind_now = true,
                    DT_FLAGS => facts.bind_now |= has(DF_BIND_NOW),
                    DT_FLAGS_1 => {
                        facts.bind_now |= has(DF_1_NOW);
                        facts.is_program |= has(DF_1_PIE);
                    }
                    _ => {}
                }
            }
        }
        Ok(facts)
    }
}

fn parse(file: &[u8]) -> Result<ElfFile64<'_, Endianness>, ElfError> {
    let elf = ElfFile64::<Endianness>::parse(file).map_err(|_| ElfError::Unreadable)?;
    match elf.endian() {
        Endianness::Little => Ok(elf),
        Endianness::Big => Err(ElfError::Unreadable),
    }
}

/// What a section of this name holds.
pub(crate) fn section<'f>(file: &'f [u8], name: &str) -> Result<Option<&'f [u8]>, ElfError> {
    let elf = parse(file)?;
    let Some(section) = elf.section_by_name(name) else {
        return Ok(None);
    };
    let data = section.data().map_err(|_| ElfError::Unreadable)?;
    Ok(Some(data))
}

/// Where the table of sections is said to be in the file's header: offset, then entry size, count, and the one with the names.
const TABLE_AT: usize = 0x28;
const COUNTS_AT: usize = 0x3a;
/// An entry of that table, and where in it a number is.
const ENTRY: usize = 64;
const NAME_AT: usize = 0;
const KIND_AT: usize = 4;
const FLAGS_AT: usize = 8;
const OFFSET_AT: usize = 0x18;
const SIZE_AT: usize = 0x20;
const LINK_AT: usize = 0x28;
const INFO_AT: usize = 0x2c;
const ALIGNMENT_AT: usize = 0x30;

/// The program without symbols and whatever else is for debuggers, and with one more section, which nothing loads. What the
/// kernel loads stays as it is, byte for byte.
pub(crate) fn stripped_with_section(
    file: &[u8],
    name: &str,
    data: &[u8],
) -> Result<Vec<u8>, ElfError> {
    let elf = parse(file)?;
    let number = |bytes: &[u8], at: usize, width: usize| {
        let bytes = bytes.get(at..at + width).ok_or(ElfError::NoTable)?;
        let number = bytes.iter().rev();
        Ok(number.fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let table = number(file, TABLE_AT, 8)?;
    if number(file, COUNTS_AT, 2)? != ENTRY {
        return Err(ElfError::NoTable);
    }
    let count = number(file, COUNTS_AT + 2, 2)?;
    let entries = count
        .checked_mul(ENTRY)
        .and_then(|size| file.get(table..table.checked_add(size)?))
        .ok_or(ElfError::NoTable)?;

    // What is loaded lies in front of all the rest.
    let mut end = 0;
    for part in elf.elf_program_headers() {
        if part.p_type(elf.endian()) == PT_LOAD {
            let (offset, size) = part.file_range(elf.endian());
            end = end.max(offset.saturating_add(size));
        }
    }
    let end = usize::try_from(end).map_err(|_| ElfError::NoTable)?;
    let mut out = file.get(..end).ok_or(ElfError::NoTable)?.to_vec();

    // The first entry is always an empty one.
    let mut kept: Vec<Option<usize>> = Vec::new();
    let mut new: Vec<Vec<u8>> = Vec::new();
    let mut names = vec![0];
    let mut called = |name: &[u8]| {
        let at = names.len() as u64;
        names.extend_from_slice(name);
        names.push(0);
        at
    };
    for (place, entry) in entries.chunks_exact(ENTRY).enumerate() {
        let loaded = number(entry, FLAGS_AT, 8)? & SHF_ALLOC as usize != 0;
        kept.push((place == 0 || loaded).then_some(new.len()));
        if place == 0 || loaded {
            let mut entry = entry.to_vec();
            if place > 0 {
                let section = elf.section_by_index(object::SectionIndex(place));
                let section = section.map_err(|_| ElfError::NoTable)?;
                let name = section.name_bytes().map_err(|_| ElfError::NoTable)?;
                put(&mut entry, NAME_AT, 4, called(name));
            }
            new.push(entry);
        }
    }
    for entry in new.iter_mut().skip(1) {
        for at in [LINK_AT, INFO_AT] {
            let refers = at == LINK_AT || number(entry, FLAGS_AT, 8)? & SHF_INFO_LINK as usize != 0;
            let to = number(entry, at, 4)?;
            let moved = kept.get(to).copied().flatten().unwrap_or_default();
            if refers {
                put(entry, at, 4, moved as u64);
            }
        }
    }
    let mut add = |out: &mut Vec<u8>, name: u64, kind: u32, data: &[u8]| {
        let mut entry = vec![0; ENTRY];
        put(&mut entry, NAME_AT, 4, name);
        put(&mut entry, KIND_AT, 4, kind.into());
        put(&mut entry, OFFSET_AT, 8, aligned(out));
        put(&mut entry, SIZE_AT, 8, data.len() as u64);
        put(&mut entry, ALIGNMENT_AT, 8, 1);
        out.extend_from_slice(data);
        new.push(entry);
    };
    // Which compiler and which linker made it.
    if let Some(comment) = section(file, ".comment")? {
        let name = called(b".comment");
        add(&mut out, name, SHT_PROGBITS, comment);
    }
    let (ours, last) = (called(name.as_bytes()), called(b".shstrtab"));
    add(&mut out, ours, SHT_PROGBITS, data);
    let names = names;
    add(&mut out, last, SHT_STRTAB, &names);
    let table = aligned(&mut out);
    let count = new.len() as u64;
    out.extend(new.into_iter().flatten());
    put(&mut out, TABLE_AT, 8, table);
    put(&mut out, COUNTS_AT + 2, 2, count);
    put(&mut out, COUNTS_AT + 4, 2, count - 1);
    parse(&out)?;
    Ok(out)
}

/// Fills up to a multiple of eight and says where that is.
fn aligned(out: &mut Vec<u8>) -> u64 {
    out.resize(out.len().next_multiple_of(8), 0);
    out.len() as u64
}

fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Vec<u8> {
        std::fs::read(std::env::current_exe().expect("a path")).expect("this very test")
    }

    #[test]
    fn a_program_of_this_machine_is_seen_as_what_it_is() {
        let facts = Facts::read(&ours()).expect("an ELF file");
        assert!(facts.is_program && facts.position_independent, "{facts:?}");
        let interpreter = facts.interpreter.expect("tests are linked dynamically");
        assert!(interpreter.contains("/ld-"), "{interpreter}");
        assert!(facts.libraries > 0 && facts.relro && facts.stack_is_data && facts.symbols);
        assert!(Facts::read(b"#!/bin/sh\n").is_err());
        assert!(Facts::read(&ours()[..4096]).is_err());
    }

    #[test]
    fn what_is_for_debuggers_goes_and_nothing_that_is_loaded_changes() {
        let before = ours();
        assert_eq!(section(&before, ".dep-v0").expect("readable"), None);
        let after = stripped_with_section(&before, ".dep-v0", b"all of them").expect("a table");
        let found = section(&after, ".dep-v0").expect("readable");
        assert_eq!(found, Some(&b"all of them"[..]));
        for name in [".text", ".rodata", ".dynsym", ".comment"] {
            let of = |file| section(file, name).expect("readable").map(<[u8]>::to_vec);
            assert_eq!(of(&after), of(&before), "{name}");
        }
        assert!(after.len() < before.len() / 2, "{}", after.len());
        let facts = Facts::read(&before).expect("an ELF file");
        let expected = Facts {
            symbols: false,
            ..facts
        };
        assert_eq!(Facts::read(&after).ok(), Some(expected));
        // Neither the headers of what is loaded, nor what they point to, has moved.
        let loaded = 0x40..0x40 + 56 * 8;
        assert_eq!(after[loaded.clone()], before[loaded]);
    }

    #[test]
    fn a_program_runs_as_before_and_a_distributions_strip_leaves_the_section() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("test");
        let less = stripped_with_section(&ours(), ".dep-v0", b"more").expect("a table");
        std::fs::write(&path, less).expect("written");
        let runs = || {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("it is ours");
            let mut command = std::process::Command::new(&path);
            crate::step::succeeds(command.arg("--list"))
        };
        assert!(runs());
        let strip = std::process::Command::new("strip").arg(&path).output();
        let strip = strip.expect("binutils come with the linker");
        assert!(
            strip.status.success() && strip.stderr.is_empty(),
            "{strip:?}"
        );
        assert!(runs());
        let file = std::fs::read(&path).expect("read");
        let found = section(&file, ".dep-v0").expect("readable");
        assert_eq!(found, Some(&b"more"[..]));
    }
}
