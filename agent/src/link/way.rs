//! One way to the server, and all of them in the order in which they are tried. Plain values: how a way is gone is the
//! business of [`approach`](super::approach).

use umbra_carrier::address::HostPort;
use umbra_protocol::enrolment::{Connector, ConnectorKind};

/// A way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Directly, or through a gateway.
    pub kind: ConnectorKind,
    /// The server itself, or the gateway.
    pub address: HostPort,
    /// PEM roots that the gateway's own certificate may come from, beside the server's.
    pub roots: Vec<String>,
}

impl Way {
    /// The way that a connector names, unless its address is none.
    pub fn of(connector: &Connector) -> Option<Self> {
        let address = HostPort::new(&connector.address, connector.port).ok()?;
        Some(Self {
            kind: connector.kind,
            address,
            roots: connector.roots.clone(),
        })
    }

    /// The field's word for its kind.
    pub fn word(&self) -> &'static str {
        match self.kind {
            ConnectorKind::Ums => "ums",
            ConnectorKind::Icg => "icg",
        }
    }

    /// Whether both lead over the same place; which certificates are trusted there does not matter.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.kind == other.kind && self.address == other.address
    }

    /// As part of a sentence.
    pub fn described(&self) -> String {
        match self.kind {
            ConnectorKind::Ums => format!("directly ({})", self.address),
            ConnectorKind::Icg => format!("through the gateway {}", self.address),
        }
    }

    /// As it is kept.
    pub fn connector(&self) -> Connector {
        Connector {
            kind: self.kind,
            address: self.address.host().to_owned(),
            port: self.address.port(),
            roots: self.roots.clone(),
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.word(), self.address)
    }
}

/// The ways that are allowed at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// In the order in which they are tried.
    pub list: Vec<Way>,
    /// The one to begin with: it worked last.
    pub start: usize,
    /// The kind that the device looks for again while it goes another way.
    pub preferred: Option<ConnectorKind>,
    /// Whether somebody has decided on that kind: a way of another kind is left at once then, and not only for one that works.
    pub decided: bool,
}

impl Ways {
    /// For each way whether it is of the preferred kind.
    pub fn preferences(&self) -> Vec<bool> {
        self.list
            .iter()
            .map(|way| self.preferred == Some(way.kind))
            .collect()
    }

    /// Whether this way may stay in use: it is allowed, and of the kind that somebody has decided on.
    pub fn suits(&self, way: &Way) -> bool {
        let better = self
            .list
            .iter()
            .any(|other| self.preferred == Some(other.kind));
        let wrong = self.decided && better && self.preferred != Some(way.kind);
        self.position(way).is_some() && !wrong
    }

    /// Where a way stands in the list.
    pub fn position(&self, way: &Way) -> Option<usize> {
        self.list.iter().position(|other| other.is_same_place(way))
    }
}
