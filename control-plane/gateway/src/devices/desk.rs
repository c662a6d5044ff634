//! What is decided about devices and servers is carried out here: the roster decides, the lines tell it to the tasks of
//! the connections.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::sync::watch;
use umbra_protocol::gateway::{Attach, DropStream, Rejected, TunnelEnd};
use umbra_protocol::{Refusal, RefusalCode, ServerRoot};

use crate::addresses::Peer;
use crate::devices::driver::Seat;
use crate::devices::roster::{Admission, ServerKey, Turned, UplinkId};
use crate::ending::{Ending, Rejection};
use crate::gateway::{Device, Gateway, Line, State, UplinkLine, Uplinks, end};

/// When whoever found no server may ask again, in seconds.
const ASK_AGAIN: RangeInclusive<u32> = 5..=30;
/// How often those who wait for room look for it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// When whoever found no room may ask again, in seconds.
const ROOM_AGAIN: RangeInclusive<u32> = 2..=10;

impl Gateway {
    /// Waits for a moment if so many devices wait to be admitted that this one would be told to come again. It has shaken hands
    /// already, which would be for nothing. How many may do so, the door bounds.
    pub async fn queue(&self, root: Option<ServerRoot>, peer: Peer) {
        let end = Instant::now() + self.timing.queue;
        let is_crowded = |now| {
            let state = self.state();
            !state.draining && state.roster.is_crowded(root, peer.source, now)
        };
        loop {
            let now = Instant::now();
            if now >= end || !is_crowded(now) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A device wants to its server.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn seat(
        self: &Arc<Self>,
        root: Option<ServerRoot>,
        peer: Peer,
        label: String,
    ) -> Result<Seat, Rejection> {
        self.open()?;
        let mut state = self.state();
        let entry = match state.roster.enter(root, peer.source, Instant::now()) {
            Ok(entry) => entry,
            Err(turned) => return Err(self.turned_away(turned, &state.uplinks, &label)),
        };
        if let Some(stream) = entry.shown_out
            && let Some(device) = state.devices.remove(&stream)
        {
            end(&device.line, Ending::busy());
        }
        let Some(uplink) = state.uplinks.get(&entry.uplink) else {
            state.roster.leave(entry.stream);
            return Err(self.turned_away(Turned::NoServer, &state.uplinks, &label));
        };
        let streams = uplink.streams.clone();
        let (sender, line) = watch::channel(Line::Waiting);
        let device = Device {
            line: sender,
            label: label.clone(),
        };
        state.devices.insert(entry.stream, device);
        drop(state);
        Ok(Seat {
            gateway: self.clone(),
            stream: entry.stream,
            peer,
            label,
            line,
            streams,
        })
    }

    /// A device gave its seat back.
    pub fn unseat(&self, stream: u64) {
        let mut state = self.state();
        state.roster.leave(stream);
        state.devices.remove(&stream);
    }

    fn turned_away(&self, turned: Turned, uplinks: &Uplinks, label: &str) -> Rejection {
        match turned {
            Turned::NoServer => self.reject(
                RefusalCode::NoServer,
                "No server is attached to this gateway at the moment, or not the one that was asked for.",
                ASK_AGAIN,
            ),
            Turned::Full(uplink) => {
                self.over_limit(uplinks.get(&uplink), label);
                let refusal = Ending::over_limit().refusal;
                self.metrics.rejected(refusal.code);
                Rejection {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    refusal,
                }
            }
            Turned::Crowded => self.reject(
                RefusalCode::Busy,
                "The gateway has too many new connections at the moment.",
                ROOM_AGAIN,
            ),
        }
    }

    /// Says that a device is beyond the limit: to administrators and to the server.
    fn over_limit(&self, line: Option<&UplinkLine>, label: &str) {
        // The field's administrators look for exactly this line.
        tracing::warn!("Max connections limit has exceeded. Device [{label}] is rejected");
        let rejected = Rejected {
            label: label.to_owned(),
            code: RefusalCode::ConnectionLimit,
        };
        self.tell(line, rejected.into());
    }

    /// A server attached. Its older uplink ends.
    ///
    /// # Errors
    /// The refusal to answer with: the server lost its place in the list, or the gateway began to go down, while the
    /// uplink was set up.
    pub fn attach(
        &self,
        server: ServerKey,
        attach: &Attach,
        line: UplinkLine,
    ) -> Result<(UplinkId, u32), Refusal> {
        self.open().map_err(|rejection| rejection.refusal)?;
        // In this order: a list that is taken over later ends this uplink.
        let mut state = self.state();
        if !self.is_listed(&server) {
            return Err(Refusal::new(
                RefusalCode::Internal,
                "This server is no longer in the gateway's list of servers.",
            ));
        }
        let (uplink, older) = state.roster.attach(server, attach);
        state.status.attached();
        if let Some(older) = older {
            if let Some(line) = state.uplinks.get(&older) {
                line.end
                    .send_replace(Some("a newer uplink of the same server took over"));
            }
            self.detach_from(&mut state, older, Ending::server_anew);
        }
        state.uplinks.insert(uplink, line);
        let connections = state.roster.admitted();
        Ok((uplink, u32::try_from(connections).unwrap_or(u32::MAX)))
    }

    /// An uplink is gone. Its devices are told when to come back, its unpaired rendezvous are over.
    pub fn detach(&self, uplink: UplinkId) {
        self.detach_from(&mut self.state(), uplink, Ending::server_gone);
    }

    fn detach_from(&self, state: &mut State, uplink: UplinkId, why: impl Fn(usize) -> Ending) {
        state.uplinks.remove(&uplink);
        let streams = state.roster.detach(uplink);
        for stream in &streams {
            if let Some(device) = state.devices.remove(stream) {
                end(&device.line, why(streams.len()));
            }
        }
        let over = state.table.uplink_lost(uplink, Instant::now());
        self.all_over(state, over, TunnelEnd::ConnectionLost);
    }

    /// The server wants another number of devices.
    pub fn set_limit(&self, uplink: UplinkId, limit: Option<u32>) {
        self.state().roster.set_limit(uplink, limit);
    }

    /// The server knows a device.
    pub fn admit(&self, uplink: UplinkId, stream: u64) {
        let mut state = self.state();
        match state.roster.admit(uplink, stream) {
            Admission::Stays => {
                self.metrics.admitted.one();
                if let Some(device) = state.devices.get(&stream) {
                    device.line.send_replace(Line::Admitted);
                }
            }
            Admission::Full => {
                if let Some(device) = state.devices.remove(&stream) {
                    self.over_limit(state.uplinks.get(&uplink), &device.label);
                    end(&device.line, Ending::over_limit());
                }
            }
            // The device left in the meantime.
            Admission::Unknown => {}
        }
    }

    /// The server sends a device away.
    pub fn drop_stream(&self, uplink: UplinkId, drop: DropStream) {
        let mut state = self.state();
        if state.roster.uplink_of(drop.stream) != Some(uplink) {
            return;
        }
        state.roster.leave(drop.stream);
        if let Some(device) = state.devices.remove(&drop.stream) {
            end(&device.line, Ending::dropped(drop.refusal));
        }
    }
}
