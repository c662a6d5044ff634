//! What fuzz targets reach of what is private here. It exists only while fuzzing.

use super::wire::{Failure, Request};

/// Reads one line of somebody on the device.
///
/// # Errors
/// What that somebody is told.
pub fn read_request(line: &[u8]) -> Result<Request, Failure> {
    super::server::read(line)
}
