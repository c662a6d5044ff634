//! What the device tells a server about itself. All of it is the device's word; none of it is identity.

use umbra_protocol::hello::{DeviceFacts, Hello, Intent, feature};
use umbra_protocol::limits;

use crate::identity::DeviceIdentity;
use crate::os::Os;
use crate::registry::Snapshot;

/// Most addresses that are told.
const ADDRESSES_MAX: usize = 32;

/// What the device is at this moment. `shadow_port` is the port on which it accepts shadowing, while it does.
pub fn of_device(
    identity: &DeviceIdentity,
    os: &dyn Os,
    snapshot: &Snapshot,
    shadow_port: Option<u16>,
) -> DeviceFacts {
    DeviceFacts {
        unit_id: identity.unit_id().clone(),
        name: label(os.host_name()),
        os: label(os.os_name()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        shadowing: snapshot.vnc.enabled,
        shadow_port,
        addresses: os
            .addresses()
            .iter()
            .take(ADDRESSES_MAX)
            .map(ToString::to_string)
            .collect(),
        secure_mode: snapshot.vnc.secure_mode,
    }
}

/// The first words on a connection.
pub fn hello(device: DeviceFacts, intent: Intent, settings_revision: u64) -> Hello {
    Hello {
        versions: umbra_protocol::version::SUPPORTED.to_vec(),
        features: vec![feature::SERVER_HEARTBEATS.to_owned()],
        intent,
        device,
        settings_revision,
        run: None,
    }
}

/// A text that fits where labels go.
fn label(text: String) -> String {
    let mut text = umbra_protocol::refusal::clip(text);
    let mut end = text.len().min(limits::LABEL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::files::Files;
    use crate::os::fake::Fake;
    use crate::paths::Paths;
    use crate::registry::Registry;

    #[test]
    fn facts_fit_their_limits_and_hold_no_control_characters() {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        let mut os = Fake::default();
        os.host_name = "ä\n".repeat(200);
        let (identity, _) =
            crate::identity::ensure(&paths, &os, &Clock::system()).expect("an identity");
        let snapshot = Registry::open(&paths, &Files::new()).snapshot();
        let facts = of_device(&identity, &os, &snapshot, Some(5900));
        assert!(
            facts.name.len() <= limits::LABEL && !facts.name.contains('\n'),
            "{}",
            facts.name
        );
        assert_eq!(facts.unit_id.as_str(), "00E0C5A1B2C3");
        assert!(facts.secure_mode);
        assert_eq!(hello(facts, Intent::Link, 3).settings_revision, 3);
    }
}
