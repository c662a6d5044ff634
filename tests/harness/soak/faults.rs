//! Faults as they are done to real programs, lines, clocks and disks, and taken back.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::disk::Disk;
use super::plan::{Fault, Row};
use super::site::{Lines, Member, RIGHT, set_clock};
use crate::fault_proxy::{self, Direction};
use crate::world::{Gateway, Server};

/// How long connections that are there have to notice that they are reset before new ones are refused.
const NOTICE: Duration = Duration::from_millis(200);
/// Where the clock of a device jumps to.
const DEVICE_TIMES: [&str; 4] = ["@1970-01-02 00:00:00", "@2037-01-01 00:00:00", "-3d", "+8h"];
/// Where that of the server jumps to: a machine that was asleep, or was set by hand.
const SERVER_TIMES: [&str; 4] = ["+10m", "-10m", "+45m", "-2h"];
/// Bytes in a second on a slow line.
const PACES: [u32; 3] = [1500, 6000, 30_000];

/// What faults are done to.
pub(super) struct Victims<'v, 's> {
    pub(super) server: &'v mut Server<'s>,
    pub(super) gateway: &'v mut Gateway<'s>,
    pub(super) members: &'v [Member<'s>],
    pub(super) lines: &'v Lines,
    pub(super) server_clock: Option<&'v Path>,
    pub(super) server_disk: Option<&'v Disk>,
}

impl<'v, 's> Victims<'v, 's> {
    fn member(&self, fault: &Fault) -> anyhow::Result<&'v Member<'s>> {
        self.members.get(fault.device).context("no such device")
    }

    /// Does it.
    pub(super) async fn apply(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let line = self.lines.of(fault.line);
        let direction = match fault.variant % 2 {
            0 => Direction::ToServer,
            _ => Direction::ToClient,
        };
        match fault.row {
            Row::KillAgent => self.member(fault)?.body.borrow_mut().kill(),
            Row::KillGateway => self.gateway.program().kill(),
            Row::KillServer => self.server.program().kill(),
            Row::Cut => line.set(fault_proxy::Fault::Reset),
            Row::Refuse => {
                line.set(fault_proxy::Fault::Reset);
                tokio::time::sleep(NOTICE).await;
                line.set(fault_proxy::Fault::Refuse);
            }
            Row::Delay => {
                let pace = PACES[fault.variant % PACES.len()];
                line.set(fault_proxy::Fault::Slow(pace));
            }
            Row::Slice => line.set(fault_proxy::Fault::Slice),
            Row::Corrupt => line.set(fault_proxy::Fault::Corrupt(direction)),
            Row::BlackHole => line.set(fault_proxy::Fault::Stall),
            Row::HalfClose => line.set(fault_proxy::Fault::HalfClose(direction)),
            Row::AgentClock => {
                let time = DEVICE_TIMES[fault.variant % DEVICE_TIMES.len()];
                let clock = self.member(fault)?.clock.as_ref().context("no clock")?;
                set_clock(clock, time)?;
            }
            Row::ServerClock => {
                let time = SERVER_TIMES[fault.variant % SERVER_TIMES.len()];
                set_clock(self.server_clock.context("no clock")?, time)?;
            }
            Row::AgentDisk => self
                .member(fault)?
                .disk
                .as_ref()
                .context("no disk")?
                .fill()?,
            Row::ServerDisk => self.server_disk.context("no disk")?.fill()?,
        }
        Ok(())
    }

    /// Takes faults back that came together: programs are started last, so that they find the world as it should be.
    pub(super) async fn heal(&mut self, faults: &[Fault]) -> anyhow::Result<()> {
        for fault in faults {
            match fault.row {
                Row::KillAgent | Row::KillGateway | Row::KillServer => {}
                Row::Cut
                | Row::Refuse
                | Row::Delay
                | Row::Slice
                | Row::Corrupt
                | Row::BlackHole
                | Row::HalfClose => self.lines.of(fault.line).set(fault_proxy::Fault::Pass),
                Row::AgentClock => {
                    let clock = self.member(fault)?.clock.as_ref().context("no clock")?;
                    set_clock(clock, RIGHT)?;
                }
                Row::ServerClock => set_clock(self.server_clock.context("no clock")?, RIGHT)?,
                Row::AgentDisk => self
                    .member(fault)?
                    .disk
                    .as_ref()
                    .context("no disk")?
                    .clear()?,
                Row::ServerDisk => self.server_disk.context("no disk")?.clear()?,
            }
        }
        for fault in faults {
            match fault.row {
                Row::KillAgent => self.member(fault)?.body.borrow_mut().start()?,
                Row::KillGateway => self.gateway.start_again().await?,
                Row::KillServer => self.server.start_again().await?,
                Row::Cut
                | Row::Refuse
                | Row::Delay
                | Row::Slice
                | Row::Corrupt
                | Row::BlackHole
                | Row::HalfClose
                | Row::AgentClock
                | Row::ServerClock
                | Row::AgentDisk
                | Row::ServerDisk => {}
            }
        }
        Ok(())
    }
}
