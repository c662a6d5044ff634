//! What is decided about tunnels is carried out here: the table decides, the lines tell it to the tasks of the ends, and
//! the server hears of it.

use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use tokio::sync::{oneshot, watch};
use umbra_protocol::gateway::{
    FromGateway, OpenRendezvous, RendezvousEnded, RendezvousReady, TunnelEnd, TunnelSide,
};
use umbra_protocol::{Refusal, RefusalCode, RendezvousId, TokenHash};

use crate::devices::roster::{ServerKey, UplinkId};
use crate::ending::{Rejection, tunnel_end};
use crate::gateway::{Gateway, Meeting, State};
use crate::rendezvous::driver::TunnelSeat;
use crate::rendezvous::machine::{Arrival, Over, Turned, Withdrawn};

impl Gateway {
    /// A server announces two ends; it is answered on its control stream.
    pub fn open_rendezvous(&self, uplink: UplinkId, server: ServerKey, request: &OpenRendezvous) {
        let mut state = self.state();
        let id = request.id;
        let opened = if state.draining {
            Err(TunnelEnd::ShuttingDown)
        } else {
            state.table.open(uplink, server, request, Instant::now())
        };
        let answer = match opened {
            Ok(()) => {
                let (over, _) = watch::channel(None);
                state.meetings.insert(id, Meeting { over, first: None });
                RendezvousReady { id }.into()
            }
            Err(end) => ended(id, end, (0, 0)),
        };
        self.tell(state.uplinks.get(&uplink), answer);
    }

    /// A server takes two ends back.
    pub fn withdraw_rendezvous(&self, server: ServerKey, id: RendezvousId) {
        let mut state = self.state();
        match state.table.withdraw(server, id, Instant::now()) {
            Withdrawn::Over(over) => {
                self.all_over(&mut state, vec![over], TunnelEnd::Withdrawn);
            }
            Withdrawn::Running => {
                if let Some(meeting) = state.meetings.get(&id) {
                    meeting.over.send_replace(Some(TunnelEnd::Withdrawn));
                }
            }
            Withdrawn::NotThere => {}
        }
    }

    /// One end of a rendezvous wants in.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn arrive(
        self: &Arc<Self>,
        token: TokenHash,
        side: TunnelSide,
    ) -> Result<TunnelSeat, Rejection> {
        self.open()?;
        let mut state = self.state();
        let arrival = state
            .table
            .arrive(token, side, Instant::now())
            .map_err(|turned| self.no_tunnel(turned))?;
        let (Arrival::Waits(id) | Arrival::Pairs(id)) = arrival;
        let Some(meeting) = state.meetings.get_mut(&id) else {
            // Table and meetings are only ever changed together.
            return Err(self.no_tunnel(Turned::Unknown));
        };
        let over = meeting.over.subscribe();
        Ok(match meeting.first.take() {
            Some(partner) => TunnelSeat::second(id, partner),
            None => {
                let (sender, partner) = oneshot::channel();
                meeting.first = Some(sender);
                TunnelSeat::first(self.clone(), id, side, partner, over)
            }
        })
    }

    /// A rendezvous is over, with so many bytes to device and console.
    pub fn finish_rendezvous(&self, id: RendezvousId, end: TunnelEnd, bytes: (u64, u64)) {
        let mut state = self.state();
        if let Some(over) = state.table.finish(id, Instant::now()) {
            self.one_over(&mut state, over, end, bytes);
        }
    }

    /// Ends those rendezvous whose time is over.
    pub fn expire_rendezvous(&self, now: Instant) {
        let mut state = self.state();
        let over = state.table.expire(now);
        self.all_over(&mut state, over, TunnelEnd::Expired);
    }

    pub(crate) fn all_over(&self, state: &mut State, over: Vec<Over>, end: TunnelEnd) {
        for over in over {
            self.one_over(state, over, end, (0, 0));
        }
    }

    fn one_over(&self, state: &mut State, over: Over, end: TunnelEnd, bytes: (u64, u64)) {
        if let Some(meeting) = state.meetings.remove(&over.id) {
            meeting.over.send_replace(Some(end));
        }
        // The server may have attached anew since.
        let uplink = state.roster.uplink_with(over.server);
        let line = uplink.and_then(|uplink| state.uplinks.get(&uplink));
        self.tell(line, ended(over.id, end, bytes));
    }

    fn no_tunnel(&self, turned: Turned) -> Rejection {
        let (code, sentence) = match turned {
            Turned::Unknown => (
                RefusalCode::TunnelUnknown,
                "The gateway knows no session with this token: start the session again.",
            ),
            Turned::Used => (
                RefusalCode::TunnelUsed,
                "This one-time token was used before: start the session again.",
            ),
            Turned::Expired => (
                RefusalCode::TunnelExpired,
                "This token came too late, the other end is gone: start the session again.",
            ),
            Turned::WrongSide => (
                RefusalCode::TunnelWrongSide,
                "This token is for the other end of the session.",
            ),
        };
        self.metrics.rejected(code);
        Rejection {
            status: StatusCode::FORBIDDEN,
            refusal: Refusal::new(code, sentence),
        }
    }
}

fn ended(id: RendezvousId, end: TunnelEnd, bytes: (u64, u64)) -> FromGateway {
    RendezvousEnded {
        id,
        code: end,
        sentence: tunnel_end(end).to_owned(),
        bytes_to_device: bytes.0,
        bytes_to_console: bytes.1,
    }
    .into()
}
