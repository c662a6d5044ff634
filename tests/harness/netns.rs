//! Networks of a scenario's own, as Linux network namespaces: a site with a loopback, and islands that reach the site over
//! one cable and nothing else. All of it is gone when the scenario's processes are. It never touches the network of the
//! machine that the tests run on.

use std::net::Ipv4Addr;
use std::process::{Command, Output};

use nix::sched::{CloneFlags, unshare};

use crate::eventually::{NotReached, eventually_is};
use crate::program::{Program, ProgramError, run};
use crate::scratch::Scratch;
use crate::world::PATIENCE;

/// Why there is no network of our own.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// It is not permitted here.
    #[error("a network namespace can't be made: the tests for it need root")]
    Forbidden(#[source] nix::Error),
    /// A program failed to run.
    #[error("a tool of the network can't be run")]
    Program(#[from] ProgramError),
    /// A tool refused.
    #[error("{command}: {said}")]
    Refused {
        /// What was typed.
        command: String,
        /// What it said.
        said: String,
    },
    /// The namespace did not come up.
    #[error("the namespace did not come up")]
    NotReached(#[from] NotReached),
}

/// Moves this thread, and all threads and programs that it starts from now on, into a new network that has a loopback and
/// nothing else. To be called before there are other threads: a test whose runtime has one thread calls it first.
pub fn isolate() -> Result<(), NetError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(NetError::Forbidden)?;
    let mut command = ip(&["link", "set", "lo", "up"]);
    let output = command.output().map_err(|cause| ProgramError::Start {
        name: "ip".into(),
        cause,
    })?;
    accepted(&command, &output)
}

/// What a long line does to packets, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Milliseconds that every packet takes.
    pub delay: u32,
    /// Milliseconds that it takes longer at most, each packet for itself: they overtake each other.
    pub jitter: u32,
    /// Percent of all packets that are lost.
    pub loss: u32,
    /// Bytes in a second.
    pub rate: u32,
}

/// A network with a loopback of its own and one cable to the network that made it.
pub struct Island {
    holder: Program,
    number: u8,
    /// What carries the packets, where it is not the kernel.
    _line: Option<Program>,
}

impl Island {
    /// Makes an island; `number` (1 to 250) tells the islands of a site apart.
    pub async fn new(scratch: &Scratch, number: u8) -> Result<Self, NetError> {
        Self::make(scratch, number, None).await
    }

    /// The same at the end of a long line.
    pub async fn far(scratch: &Scratch, number: u8, line: Line) -> Result<Self, NetError> {
        Self::make(scratch, number, Some(line)).await
    }

    async fn make(scratch: &Scratch, number: u8, line: Option<Line>) -> Result<Self, NetError> {
        // The namespace lives as long as a process in it.
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let holder = Program::start(scratch, &format!("island-{number}"), &mut command)?;
        let ours = std::fs::read_link("/proc/thread-self/ns/net");
        let theirs = format!("/proc/{}/ns/net", holder.pid());
        eventually_is(
            "an island to have a network of its own",
            PATIENCE,
            || match (&ours, std::fs::read_link(&theirs)) {
                (Ok(ours), Ok(theirs)) if *ours != theirs => Ok(()),
                (_, theirs) => Err(theirs.map(|path| path.display().to_string())),
            },
        )
        .await?;
        let mut island = Self {
            holder,
            number,
            _line: None,
        };
        let (site_end, own_end) = (island.site_end(), island.own_end());
        let pid = island.holder.pid().to_string();
        match line {
            None => {
                let cable = ["link", "add", &site_end, "type", "veth", "peer", "name"];
                let to = [own_end.as_str(), "netns", &pid];
                tool(scratch, &mut ip(&[&cable[..], &to[..]].concat())).await?;
            }
            Some(line) => {
                let ends = [site_end.as_str(), own_end.as_str(), pid.as_str()];
                island._line = Some(carry(scratch, number, &ends, line).await?);
            }
        }
        let address = |address: Ipv4Addr| format!("{address}/30");
        for words in [
            vec!["addr", "add", &address(island.site()), "dev", &site_end],
            vec!["link", "set", &site_end, "up"],
        ] {
            tool(scratch, &mut ip(&words)).await?;
        }
        for words in [
            vec!["addr", "add", &address(island.own()), "dev", &own_end],
            vec!["link", "set", &own_end, "up"],
            vec!["link", "set", "lo", "up"],
        ] {
            tool(scratch, &mut island.inside(ip(&words))).await?;
        }
        Ok(island)
    }

    /// The site's address on the cable: the only one outside that the island reaches.
    pub fn site(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 1)
    }

    /// The island's address on the cable.
    pub fn own(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 2)
    }

    /// The words that run a program on the island.
    pub fn prefix(&self) -> Vec<String> {
        let namespace = format!("--net=/proc/{}/ns/net", self.holder.pid());
        vec!["nsenter".into(), namespace]
    }

    /// Pulls the cable without anybody noticing: packets are dropped in silence, in both directions.
    pub async fn pull(&self, scratch: &Scratch) -> Result<(), NetError> {
        let own_end = self.own_end();
        let rules = format!(
            "table inet cable {{
                chain in {{ type filter hook input priority 0; iifname \"{own_end}\" drop; }}
                chain out {{ type filter hook output priority 0; oifname \"{own_end}\" drop; }}
            }}"
        );
        self.filter(scratch, &rules).await
    }

    /// Puts the cable back.
    pub async fn plug(&self, scratch: &Scratch) -> Result<(), NetError> {
        self.filter(scratch, "delete table inet cable").await
    }

    /// Turns away, in silence, whoever wants to connect to the island.
    pub async fn refuse_inbound(&self, scratch: &Scratch) -> Result<(), NetError> {
        let own_end = self.own_end();
        let rules = format!(
            "table inet door {{
                chain in {{ type filter hook input priority 0;
                    iifname \"{own_end}\" tcp flags & (fin|syn|rst|ack) == syn drop; }}
            }}"
        );
        self.filter(scratch, &rules).await
    }

    async fn filter(&self, scratch: &Scratch, rules: &str) -> Result<(), NetError> {
        let mut nft = Command::new("nft");
        nft.arg(rules);
        tool(scratch, &mut self.inside(nft)).await
    }

    fn inside(&self, command: Command) -> Command {
        prefixed(&self.prefix(), &command)
    }

    fn site_end(&self) -> String {
        format!("site{}", self.number)
    }

    fn own_end(&self) -> String {
        format!("own{}", self.number)
    }
}

/// Starts what carries packets between two TAP devices.
async fn carry(
    scratch: &Scratch,
    number: u8,
    ends: &[&str],
    line: Line,
) -> Result<Program, NetError> {
    let mut command = Command::new("python3");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/harness/tap_line.py"))
        .args(ends)
        .args(["--delay", &line.delay.to_string()])
        .args(["--jitter", &line.jitter.to_string()])
        .args(["--loss", &line.loss.to_string()])
        .args(["--rate", &line.rate.to_string()]);
    let mut program = Program::start(scratch, &format!("line-{number}"), &mut command)?;
    program.wait_for_line("ready", PATIENCE).await?;
    Ok(program)
}

/// The same command behind some words; its environment is kept, too.
pub(crate) fn prefixed(prefix: &[String], command: &Command) -> Command {
    let mut words = prefix.iter();
    let Some(first) = words.next() else {
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        copy_environment(command, &mut same);
        return same;
    };
    let mut longer = Command::new(first);
    longer
        .args(words)
        .arg(command.get_program())
        .args(command.get_args());
    copy_environment(command, &mut longer);
    longer
}

fn copy_environment(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}

fn ip(words: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(words);
    command
}

async fn tool(scratch: &Scratch, command: &mut Command) -> Result<(), NetError> {
    let output = run(scratch, "network", command, b"", PATIENCE).await?;
    accepted(command, &output)
}

fn accepted(command: &Command, output: &Output) -> Result<(), NetError> {
    if output.status.success() {
        return Ok(());
    }
    Err(NetError::Refused {
        command: format!("{command:?}"),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
