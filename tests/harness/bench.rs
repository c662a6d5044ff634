//! The benchmark: the product and what people would use in its place, on the same work, in one run. All candidates run side by
//! side, every round measures each of them once, and what counts is the ratio within a round: the machine's other load then meets
//! all alike. Nothing here decides whether a figure is good; it must never leave one out because it isn't.

mod agent;
mod crowd;
mod device_end;
mod key_exchange;
mod load;
mod peers;
mod process;
mod report;
mod whole_way;

use std::path::PathBuf;

use anyhow::bail;

pub use report::{Measure, Report, Section};

use crate::scratch::Scratch;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Fewer rounds and less data: under five minutes in all.
    pub quick: bool,
    /// Only this section.
    pub only: Option<String>,
    /// The program that serves `vnc-proxy`'s device end.
    pub device_end: Option<PathBuf>,
    /// Another build of it, to be measured beside it: that of an earlier commit.
    pub beside: Option<PathBuf>,
    /// The program with many devices.
    pub herd: Option<PathBuf>,
    /// The program that shakes hands with itself.
    pub handshakes: Option<PathBuf>,
    /// Nobody else than the product's own builds.
    pub alone: bool,
    /// The agent that ships for the processor which this machine doesn't have.
    pub foreign: Option<PathBuf>,
    /// How many devices the crowds have, if not as many as the kind of run says.
    pub devices: Option<u32>,
    /// A folder with peers that are not on the search path.
    pub peers: Option<PathBuf>,
}

impl Wish {
    /// One figure for the quick run, another for the full one.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// The sections' names, in the order in which they run.
pub const SECTIONS: [&str; 6] = [
    "device-end",
    "key-exchange",
    "whole-way",
    "agent",
    "gateway",
    "server",
];

/// Measures, saying through `say` what it does. Beside the report comes what went wrong: a section that failed costs none of the others.
pub async fn run(wish: &Wish, say: impl Fn(&str)) -> anyhow::Result<(Report, Vec<String>)> {
    if let Some(only) = &wish.only
        && !SECTIONS.contains(&only.as_str())
    {
        bail!(
            "there is no section {only:?}; there are: {}",
            SECTIONS.join(", ")
        );
    }
    let (mut report, mut wrong) = (Report::new(wish.quick), Vec::new());
    for name in SECTIONS {
        if wish.only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        say(&format!("==> {name}"));
        let scratch = Scratch::new()?;
        let measured = match name {
            "device-end" => device_end::measure(wish, &scratch, &say).await,
            "key-exchange" => key_exchange::measure(wish, &scratch, &say).await,
            "whole-way" => whole_way::measure(wish, &scratch, &say).await,
            "agent" => agent::measure(wish, &scratch, &say).await,
            "gateway" => crowd::gateway(wish, &scratch, &say).await,
            "server" => crowd::server(wish, &scratch, &say).await,
            _ => continue,
        };
        match measured {
            Ok(section) => report.sections.push(section),
            Err(error) => wrong.push(format!("{name}: {error:#}\n{}", scratch.logs())),
        }
    }
    Ok((report, wrong))
}
