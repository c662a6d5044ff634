//! Privileges and capabilities: what the kernel would allow beyond what the agent's user may do.

use std::collections::HashSet;

use caps::{CapSet, Capability};
use nix::sys::prctl;
use nix::unistd::geteuid;

use super::{Confined, Hold, Layer, Starts};

/// What an agent that runs as root needs of root's rights: its files belong to the owner of their folder.
const OF_ROOT: [Capability; 4] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_NET_BIND_SERVICE,
];
/// What programs need beyond that which change to the user of the desktop.
const OF_PROGRAMS: [Capability; 3] = [
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

pub(super) fn no_new_ones() -> Confined {
    match prctl::set_no_new_privs() {
        Ok(()) => Confined::new(
            Layer::Privileges,
            Hold::Full,
            "nothing that the agent starts gets more than it has",
        ),
        Err(error) => Confined::lacking(
            Layer::Privileges,
            Hold::None,
            format!(
                "the kernel refuses to rule out new privileges: {}",
                error.desc()
            ),
        ),
    }
}

pub(super) fn drop_capabilities(starts: Starts) -> Confined {
    let root = geteuid().is_root();
    if root && starts == Starts::System {
        return Confined::new(
            Layer::Capabilities,
            Hold::None,
            "kept: the agent runs as root, and its configuration names a program that updates the device or switches it off",
        );
    }
    let mut kept: HashSet<Capability> = HashSet::new();
    if root {
        kept.extend(OF_ROOT);
        if starts != Starts::Nothing {
            kept.extend(OF_PROGRAMS);
        }
    }
    match reduce_to(&kept) {
        Ok(()) if kept.is_empty() => Confined::new(
            Layer::Capabilities,
            Hold::Full,
            "none are left, and none can come back",
        ),
        Ok(()) => Confined::new(
            Layer::Capabilities,
            Hold::Part,
            "those over files are left, because the agent runs as root",
        ),
        Err(error) => Confined::lacking(
            Layer::Capabilities,
            Hold::Part,
            format!("not all could be given up: {error}"),
        ),
    }
}

fn reduce_to(kept: &HashSet<Capability>) -> Result<(), caps::errors::CapsError> {
    // The kernel may lack the ambient set (before 4.3), and lets only the privileged change the bounding set; who has no
    // privileges and can't get new ones has nothing to lose there.
    let _ = caps::clear(None, CapSet::Ambient);
    if !caps::read(None, CapSet::Inheritable)?.is_empty() {
        caps::clear(None, CapSet::Inheritable)?;
    }
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::runtime::procfs_all_supported(None)? {
            if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability)? {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    let permitted = caps::read(None, CapSet::Permitted)?;
    if permitted.is_subset(kept) {
        return Ok(());
    }
    let left: HashSet<Capability> = permitted.intersection(kept).copied().collect();
    caps::set(None, CapSet::Effective, &left)?;
    caps::set(None, CapSet::Permitted, &left)
}
