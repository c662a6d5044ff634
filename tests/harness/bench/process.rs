//! What processes have used, as the kernel tells it: a candidate may be one process, or several with threads, so all of its
//! family is counted.

use std::collections::BTreeMap;
use std::fs;

/// Clock ticks in a second, in which `/proc` counts: fixed for programs on every Linux.
const TICKS: f64 = 100.0;

/// A process and all that descend from it.
#[derive(Debug, Clone)]
pub(super) struct Family(u32);

struct Stat {
    parent: u32,
    ticks: u64,
    ticks_of_dead_children: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may contain anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        ticks_of_dead_children: number(13)? + number(14)?,
    })
}

impl Family {
    /// The family of this process.
    pub(super) fn of(pid: u32) -> Self {
        Self(pid)
    }

    fn members(&self) -> Vec<u32> {
        let pids = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let parents: BTreeMap<u32, u32> = pids
            .filter_map(|pid| Some((pid, stat(pid)?.parent)))
            .collect();
        let belongs = |pid: u32| {
            let line = std::iter::successors(Some(pid), |pid| parents.get(pid).copied());
            line.take(16).any(|pid| pid == self.0)
        };
        parents
            .keys()
            .copied()
            .filter(|&pid| belongs(pid))
            .collect()
    }

    /// CPU seconds of all threads that live now. Two readings around some work are exact if no thread ended in between.
    pub(super) fn cpu_of_living(&self) -> f64 {
        let nanoseconds =
            self.sum_of_threads("schedstat", |text| text.split(' ').next()?.parse().ok());
        nanoseconds as f64 / 1e9
    }

    /// CPU seconds of all that ever lived, to a hundredth.
    pub(super) fn cpu_of_all(&self) -> f64 {
        let ticks: u64 = self
            .members()
            .into_iter()
            .filter_map(stat)
            .map(|stat| stat.ticks + stat.ticks_of_dead_children)
            .sum();
        ticks as f64 / TICKS
    }

    /// How often its threads have gone to sleep by themselves, and so how often they were woken.
    pub(super) fn switches(&self) -> u64 {
        self.sum_of_threads("status", |text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse().ok()
        })
    }

    /// The sum of a number that the kernel keeps in this file for each thread that lives now.
    fn sum_of_threads(&self, file: &str, number: impl Fn(&str) -> Option<u64>) -> u64 {
        self.members()
            .into_iter()
            .flat_map(|pid| {
                fs::read_dir(format!("/proc/{pid}/task"))
                    .into_iter()
                    .flatten()
            })
            .flatten()
            // Threads end while they are looked at.
            .filter_map(|task| number(&fs::read_to_string(task.path().join(file)).ok()?))
            .sum()
    }

    /// A figure in KiB of `/proc/PID/status`, of all together.
    fn status(&self, name: &str) -> u64 {
        self.members()
            .into_iter()
            .filter_map(|pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().next()?.parse::<u64>().ok()
            })
            .sum()
    }

    /// Resident memory in KiB.
    pub(super) fn resident_kib(&self) -> u64 {
        self.status("VmRSS:")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::{SOON, eventually_is};
    use crate::program::Program;
    use crate::scratch::Scratch;

    #[tokio::test]
    async fn what_children_use_counts_for_the_family_also_after_their_death() {
        let scratch = Scratch::new().expect("a folder");
        let mut command = std::process::Command::new("sh");
        let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        command.args(["-c", &format!("(sleep 60) & ({burn}); echo done; wait")]);
        let mut program = Program::start(&scratch, "family", &mut command).expect("starts");
        program.wait_for_line("done", SOON).await.expect("done");
        let family = Family::of(program.pid());
        assert!(family.members().len() >= 2, "{:?}", family.members());
        assert!(family.cpu_of_all() > 0.0);
        assert!(family.resident_kib() > 0);
        drop(program);
        eventually_is("nobody to be left", SOON, || match family.members().len() {
            0 => Ok(()),
            left => Err(left),
        })
        .await
        .expect("gone");
    }

    #[test]
    fn work_shows_in_the_readings_around_it() {
        let us = Family::of(std::process::id());
        let before = us.cpu_of_living();
        let start = std::time::Instant::now();
        let mut sum = 0_u64;
        while start.elapsed().as_millis() < 50 || us.cpu_of_living() <= before {
            sum = std::hint::black_box(sum.wrapping_add(1));
            assert!(start.elapsed() < SOON, "the readings stand still");
        }
    }
}
