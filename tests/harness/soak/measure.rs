//! What processes hold, as the kernel tells it, and which files lie in the folders of the programs: once after the first part, and once at
//! the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ledger::{Lived, Sample};

impl Sample {
    /// What a process holds now; nothing if it is gone.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let number = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let files = fs::read_dir(folder.join("fd")).ok()?.flatten();
        let (mut open, mut sockets) = (0, 0);
        for file in files {
            open += 1;
            // What was closed in the meantime is none.
            let target = fs::read_link(file.path()).unwrap_or_default();
            sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
        }
        let children = children(pid);
        let zombies = children.iter().filter(|child| is_zombie(**child)).count();
        Some(Self {
            resident: number("VmRSS:")?,
            files: open,
            sockets,
            threads: number("Threads:")?,
            children: u64::try_from(children.len()).unwrap_or(u64::MAX),
            zombies: u64::try_from(zombies).unwrap_or(u64::MAX),
        })
    }
}

fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may contain anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'Z')
}

fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

/// What was there at one moment.
#[derive(Debug)]
pub(super) struct Look {
    when: Instant,
    processes: BTreeMap<String, (u32, Sample)>,
    files: BTreeSet<PathBuf>,
}

impl Look {
    /// Looks at processes by their names, and at folders.
    pub(super) fn now(processes: &[(String, u32)], folders: &[PathBuf]) -> Self {
        let processes = processes
            .iter()
            .filter_map(|(name, pid)| Some((name.clone(), (*pid, Sample::of(*pid)?))))
            .collect();
        let mut files = BTreeSet::new();
        for folder in folders {
            below(folder, &mut files);
        }
        Self {
            when: Instant::now(),
            processes,
            files,
        }
    }

    /// Processes that are the same in both, and how many are younger.
    pub(super) fn lived(&self, end: &Self) -> (Vec<Lived>, usize) {
        let mut lived = Vec::new();
        let mut young = 0;
        for (name, (pid, sample)) in &end.processes {
            match self.processes.get(name) {
                Some((before, warm)) if before == pid => lived.push(Lived {
                    name: name.clone(),
                    seconds: end.when.duration_since(self.when).as_secs(),
                    warm: *warm,
                    end: *sample,
                }),
                Some(_) | None => young += 1,
            }
        }
        (lived, young)
    }

    /// Files that came in between.
    pub(super) fn new_files<'a>(&'a self, end: &'a Self) -> impl Iterator<Item = &'a PathBuf> {
        end.files.difference(&self.files)
    }
}

fn below(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), found);
        } else {
            found.insert(entry.path());
        }
    }
}

/// The numbers that a gateway gives, by their names.
pub(super) async fn metrics(address: SocketAddr) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, page) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok(page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::{SOON, eventually_is};

    #[test]
    fn files_sockets_and_dead_children_are_counted() {
        let us = std::process::id();
        let before = Sample::of(us).expect("this process");
        assert!(before.resident > 0 && before.threads > 0, "{before:?}");
        let _socket = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        let seen = eventually_is("a dead child", SOON, || match Sample::of(us) {
            Some(sample) if sample.zombies > 0 => Ok(sample),
            other => Err(other),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let seen = runtime.block_on(seen).expect("seen");
        child.wait().expect("counted out");
        assert!(seen.sockets > 0 && seen.files > seen.sockets, "{seen:?}");
    }

    #[test]
    fn two_looks_tell_who_lived_and_what_came() {
        let folder = tempfile::tempdir().expect("a folder");
        let folders = [folder.path().to_owned()];
        let us = vec![("us".to_owned(), std::process::id())];
        let before = Look::now(&us, &folders);
        fs::write(folder.path().join("new"), "").expect("written");
        let mut later = us.clone();
        later.push(("first".to_owned(), 1));
        let after = Look::now(&later, &folders);
        let (lived, young) = before.lived(&after);
        assert_eq!((lived.len(), young), (1, 1));
        let new: Vec<_> = before.new_files(&after).collect();
        assert_eq!(new, [&folder.path().join("new")]);
    }
}
