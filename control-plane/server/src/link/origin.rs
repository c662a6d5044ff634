//! Where a device's connection came from: straight from the network, or through a gateway, which says from where. A
//! gateway's word is believed for nothing but slowing down whoever guesses, and for people who read the log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use umbra_protocol::Refusal;
use umbra_protocol::gateway::{Admit, DropStream, ToGateway};

use crate::throttle::Source;

/// Where a device's connection came from, and when.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The address at the other end, or the one that the gateway says.
    pub peer: SocketAddr,
    /// When it came.
    pub came: Instant,
    /// The gateway that it came through.
    pub via: Option<Via>,
}

/// A stream of a gateway's uplink.
#[derive(Clone, Debug)]
pub struct Via {
    /// The gateway's name.
    pub gateway: Arc<str>,
    /// The gateway's number.
    pub row: i64,
    /// The stream's number.
    pub stream: u64,
    /// The uplink's control stream.
    pub words: mpsc::Sender<ToGateway>,
}

impl Origin {
    /// A connection from the network.
    pub fn direct(peer: SocketAddr, came: Instant) -> Self {
        Self {
            peer,
            came,
            via: None,
        }
    }

    /// Who is slowed down after failures. What a gateway says never slows down anybody who comes another way.
    pub fn source(&self) -> Source {
        match &self.via {
            None => Source::from(self.peer.ip()),
            Some(via) => Source::through(self.peer.ip(), via.row),
        }
    }

    /// The gateway's name.
    pub fn gateway(&self) -> Option<&Arc<str>> {
        self.via.as_ref().map(|via| &via.gateway)
    }

    /// For people.
    pub fn text(&self) -> String {
        let address = self.peer.ip().to_canonical();
        match &self.via {
            None => address.to_string(),
            Some(via) => format!("{address} via gateway {}", via.gateway),
        }
    }

    /// Tells the gateway that the device is one of ours.
    pub(super) fn admit(&self) {
        if let Some(via) = &self.via {
            let stream = via.stream;
            via.say(ToGateway::Admit(Admit { stream }));
        }
    }

    /// Tells the gateway to turn the device away.
    pub fn turn_away(&self, refusal: Refusal) {
        if let Some(via) = &self.via {
            let stream = via.stream;
            via.say(ToGateway::Drop(DropStream { stream, refusal }));
        }
    }
}

impl Via {
    fn say(&self, word: ToGateway) {
        if self.words.try_send(word).is_err() {
            // Its uplink is ending, or takes nothing: the device comes back by itself.
            tracing::debug!(gateway = %self.gateway, "a word about a device did not reach the gateway");
        }
    }
}
