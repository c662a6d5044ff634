//! The soak: a whole installation under an ordinary day's work, somebody who wants in, and faults without end, all of the programs that
//! ship. Then everything is healed, and an audit compares what was confirmed with what is there.

mod audit;
mod collect;
mod disk;
mod faults;
mod gate;
mod guests;
mod intruder;
mod ledger;
mod measure;
mod plan;
mod site;
mod workload;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

pub use disk::own_mounts;

use crate::eventually::eventually;
use crate::scratch::Scratch;
use audit::{Verdict, judge};
use faults::Victims;
use gate::Gate;
use guests::known;
use intruder::SHARES;
use ledger::{Ledger, Stage};
use measure::Look;
use plan::{Line, Order, Plan, STEADY, Step};
use site::{Abilities, Site, get, text};
use workload::Work;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wish {
    /// How long faults go on.
    pub minutes: u64,
    /// Decides which faults come when.
    pub seed: u64,
    /// How many devices are there from the beginning.
    pub devices: usize,
    /// Whether this process has mounts of its own, so that disks can be full.
    pub disks: bool,
}

/// How long starting, healing and the audit may take beyond the minutes that were asked for.
pub const GRACE: Duration = Duration::from_secs(300);
/// The fewest devices: one on each way lives through the second part.
pub const FEWEST: usize = STEADY;
/// How much of the time is not for faults: the two looks at memory, for which everybody pauses.
const LOOKS: Duration = Duration::from_secs(40);
/// How long everything may take to be linked again.
const HEALED: Duration = Duration::from_secs(90);
/// How long programs rest before they are measured: their threads for blocking work go after ten seconds without any.
const REST: Duration = Duration::from_secs(13);

/// Runs it. Gives whether all is well, and says why not line by line.
pub async fn run(wish: &Wish, say: impl Fn(&str)) -> anyhow::Result<bool> {
    ensure!(
        wish.devices >= FEWEST,
        "the soak needs {FEWEST} devices at least"
    );
    let mut scratch = Scratch::new()?;
    let limit = Duration::from_secs(wish.minutes * 60) + GRACE;
    let outcome = tokio::time::timeout(limit, soak(wish, &scratch, &say)).await;
    let outcome = outcome
        .with_context(|| format!("the soak did not end within {} s", limit.as_secs()))
        .and_then(|outcome| outcome);
    match &outcome {
        Ok(verdict) if verdict.is_well() => {}
        Ok(_) | Err(_) => {
            let folder = scratch.keep().display().to_string();
            say(&format!(
                "    logs and folders of all programs are kept in {folder}"
            ));
        }
    }
    let verdict = outcome?;
    for line in verdict.lines() {
        say(&line);
    }
    Ok(verdict.is_well())
}

async fn soak(wish: &Wish, scratch: &Scratch, say: &impl Fn(&str)) -> anyhow::Result<Verdict> {
    let begin = Instant::now();
    let abilities = Abilities::here(wish.disks);
    let (rows, without) = abilities.rows();
    let time = Duration::from_secs(wish.minutes * 60);
    let plan = Plan::new(&Order {
        seed: wish.seed,
        time: time - LOOKS.min(time / 4),
        devices: wish.devices,
        rows,
    });
    say(&format!(
        "seed {}, {} minutes, {} devices: the same three bring the same faults in the same order",
        wish.seed, wish.minutes, wish.devices
    ));
    for sentence in without {
        say(sentence);
    }
    let names: Vec<&str> = plan.rows().iter().map(|row| row.name()).collect();
    say(&format!(
        "{} kinds of faults: {}",
        names.len(),
        names.join(", ")
    ));

    let mut site = Site::start(scratch, &abilities).await?;
    let mut first = Ledger::default();
    for number in 1..=wish.devices {
        site.add(scratch, &abilities, number).await?;
        let member = site.members.last().context("no device")?;
        let known = known(&member.hands).await?;
        first.devices.insert(member.unit.clone(), known);
    }
    say(&format!(
        "[{:6.1} s] server, gateway and {} devices are up",
        begin.elapsed().as_secs_f64(),
        wish.devices
    ));
    let work = Work {
        scratch,
        console: &site.console,
        members: &site.members,
        server: site.server.address(),
        for_devices: site.lines.of(Line::Server).address(),
        gateway: site.lines.of(Line::Gateway).address(),
        gateway_door: site.gateway.internal(),
        fingerprint: site.server.fingerprint().to_owned(),
        ledger: RefCell::new(first),
        number: Cell::new(0),
        guests: RefCell::default(),
        secrets: RefCell::default(),
    };
    let password = std::fs::read_to_string(site.server.password_file())?;
    let password = (
        "the administrator's password".to_owned(),
        password.trim().to_owned(),
    );
    work.secrets.borrow_mut().push(password);
    for member in work.members {
        work.rename(&member.unit, &member.name).await?;
    }
    let thief = work.thief().await?;
    let mut storm = Storm {
        victims: Victims {
            server: &mut site.server,
            gateway: &mut site.gateway,
            members: &site.members,
            lines: &site.lines,
            server_clock: site.server_clock.as_deref(),
            server_disk: site.server_disk.as_ref(),
        },
        work: &work,
        folders: folders(scratch, &work),
        begin,
        deadline: Instant::now() + time,
        say,
    };
    let gate = Gate::new();
    let storming = async {
        let outcome = storm.rage(&plan, &gate).await;
        gate.close();
        outcome
    };
    let (outcome, ..) = tokio::join!(
        storming,
        work.operate(gate.worker(), true),
        work.operate(gate.worker(), false),
        work.send(gate.worker()),
        work.set(gate.worker()),
        work.welcome(gate.worker()),
        work.intrude(gate.worker(), &thief, SHARES[0]),
        work.intrude(gate.worker(), &thief, SHARES[1]),
        work.intrude(gate.worker(), &thief, SHARES[2]),
    );
    let warm = outcome?;
    storm.finish(&warm).await
}

/// Folders in which nothing may be left behind.
fn folders(scratch: &Scratch, work: &Work<'_, '_>) -> Vec<PathBuf> {
    let mut folders = vec![scratch.path("server"), scratch.path("icg-keystore")];
    for member in work.members {
        folders.push(member.hands.root().join("wfs"));
        folders.push(member.hands.root().join("run"));
    }
    folders
}

/// The faults, and the looks in between.
struct Storm<'v, 'w, 's, S: Fn(&str)> {
    victims: Victims<'v, 's>,
    work: &'w Work<'w, 's>,
    folders: Vec<PathBuf>,
    begin: Instant,
    deadline: Instant,
    say: &'v S,
}

impl<S: Fn(&str)> Storm<'_, '_, '_, S> {
    fn tell(&self, what: &str) {
        let now = self.begin.elapsed().as_secs_f64();
        (self.say)(&format!("[{now:6.1} s] {what}"));
    }

    /// Both parts, with a look at everybody's memory between them.
    async fn rage(&mut self, plan: &Plan, gate: &Gate) -> anyhow::Result<Look> {
        self.part(&plan.first).await?;
        gate.hold().await?;
        self.until_all_are_linked().await?;
        tokio::time::sleep(REST).await;
        let warm = self.look();
        self.tell("everybody paused and was measured for the first time");
        gate.open();
        self.part(&plan.second).await?;
        // The rest of the time belongs to the work.
        tokio::time::sleep_until(self.deadline.into()).await;
        Ok(warm)
    }

    async fn part(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        for (number, step) in steps.iter().enumerate() {
            if Instant::now() + step.hold >= self.deadline {
                self.tell(&format!(
                    "no time is left for {} more faults",
                    steps.len() - number
                ));
                break;
            }
            let faults: Vec<String> = step.faults.iter().map(ToString::to_string).collect();
            self.tell(&format!(
                "{} for {:.1} s",
                faults.join(" and "),
                step.hold.as_secs_f64()
            ));
            for fault in &step.faults {
                let done = self.victims.apply(fault).await;
                done.with_context(|| fault.to_string())?;
            }
            tokio::time::sleep(step.hold).await;
            let healed = self.victims.heal(&step.faults).await;
            healed.with_context(|| format!("after {}", faults.join(" and ")))?;
            tokio::time::sleep(step.recover).await;
        }
        Ok(())
    }

    fn look(&mut self) -> Look {
        let mut processes = vec![
            ("server".to_owned(), self.victims.server.program().pid()),
            ("gateway".to_owned(), self.victims.gateway.program().pid()),
        ];
        for member in self.work.members {
            if let Some(agent) = member.body.borrow_mut().program() {
                processes.push((member.name.clone(), agent.pid()));
            }
        }
        Look::now(&processes, &self.folders)
    }

    /// Every device that should be is linked, no command waits, no session is open, and what was set is in force.
    async fn until_all_are_linked(&self) -> anyhow::Result<()> {
        let work = self.work;
        eventually("everything to be linked and settled", HEALED, async || {
            // Not as fast as anybody can ask: the server has to come to rest.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let list = get(work.console, work.server, "/api/v1/devices").await;
            let list = list.map_err(|error| error.to_string())?;
            let open = open_sessions(work).await?;
            if !open.is_empty() {
                return Err(format!("sessions without an end: {}", open.join(", ")));
            }
            let ledger = work.ledger.borrow();
            let settled = |unit: &String| {
                let devices = list.as_array().into_iter().flatten();
                devices
                    .filter(|device| text(device, "unit_id") == *unit)
                    .any(|device| {
                        device["online"] == true
                            && device["commands_waiting"] == 0
                            && device["settings_applied"] == device["settings_revision"]
                    })
            };
            let known = ledger.devices.iter().filter(|(_, known)| !known.removed);
            let missing: Vec<&String> = known
                .map(|(unit, _)| unit)
                .filter(|unit| !settled(unit))
                .collect();
            match missing.is_empty() {
                true => Ok(()),
                false => Err(format!("{missing:?} in {list}")),
            }
        })
        .await?;
        Ok(())
    }

    /// Waits until all is well again, looks at each screen once more, and judges.
    async fn finish(&mut self, warm: &Look) -> anyhow::Result<Verdict> {
        self.tell("everything is healed; nobody works any more");
        if let Err(error) = self.until_all_are_linked().await {
            // The audit says what is missing.
            self.tell(&format!("NOT everything came back: {error:#}"));
        }
        for member in self.work.members {
            if self.work.look(member).await < Stage::Compared {
                let name = member.name.clone();
                self.work.ledger.borrow_mut().unseen.push(name);
            }
        }
        if let Err(error) = self.until_all_are_linked().await {
            self.tell(&format!("NOT everything came to rest: {error:#}"));
        }
        tokio::time::sleep(REST).await;
        let end = self.look();
        self.tell("audit");
        let mut found = collect::collect(self.work, self.victims.gateway.metrics()).await?;
        (found.lived, found.young) = warm.lived(&end);
        found.leftovers = warm
            .new_files(&end)
            .map(|path| path.display().to_string())
            .collect();
        Ok(judge(&self.work.ledger.borrow(), &found))
    }
}

/// Sessions that have no end yet, of those that a list holds.
async fn open_sessions(work: &Work<'_, '_>) -> Result<Vec<String>, String> {
    let list = get(work.console, work.server, "/api/v1/sessions?limit=1000").await;
    let list = list.map_err(|error| error.to_string())?;
    let open = |session: &&Value| {
        let state = session.get("state").and_then(Value::as_str);
        !matches!(state, Some("ended" | "refused"))
    };
    let open = list.as_array().into_iter().flatten().filter(open);
    Ok(open
        .map(|session| format!("{} ({})", text(session, "session"), text(session, "state")))
        .collect())
}
