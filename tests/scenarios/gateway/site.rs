//! What the scenarios of this folder stand on.

pub(super) use crate::site::Site;
