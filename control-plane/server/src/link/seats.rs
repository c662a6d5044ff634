//! How many devices one uplink carries, for the limit of connections. Who only says farewell is not counted: the same
//! device may be back already, and must not be turned away because of itself.

use std::sync::Arc;

/// The devices of one uplink.
#[derive(Debug, Default)]
pub struct Seats(Arc<()>);

/// One device; counted until this is dropped.
#[derive(Debug)]
pub struct Seat {
    _taken: Arc<()>,
}

impl Seats {
    /// One more device, whether there is room or not.
    pub fn take(&self) -> Seat {
        Seat {
            _taken: Arc::clone(&self.0),
        }
    }

    /// How many there are.
    pub fn taken(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}
