//! Where everything lies on the device, once. All paths hang below one root, so that a test, or a builder of OS images, can
//! have a device in a folder; nothing else in the agent spells a path of its own state.

use std::path::{Path, PathBuf};

/// All paths, below one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Paths below this root; `/` on a device.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// What survives a restart, all of it.
    pub fn state_partition(&self) -> PathBuf {
        self.below("wfs")
    }

    /// The directory of the device's certificate.
    pub fn certificate_directory(&self) -> PathBuf {
        self.below("wfs/ca-certs")
    }

    /// The device's certificate, PEM, 0644.
    pub fn certificate(&self) -> PathBuf {
        self.below("wfs/ca-certs/tc_ca.crt")
    }

    /// The certificate that is to follow, while the server has not confirmed it.
    pub fn next_certificate(&self) -> PathBuf {
        self.below("wfs/ca-certs/tc_ca.crt.next")
    }

    /// The directory of everything that the agent keeps.
    pub fn kept(&self) -> PathBuf {
        self.below("wfs/umbra")
    }

    /// The device's private key, PKCS#8 PEM, 0600.
    pub fn key(&self) -> PathBuf {
        self.below("wfs/umbra/device.key")
    }

    /// The key that is to follow, while the server has not confirmed it.
    pub fn next_key(&self) -> PathBuf {
        self.below("wfs/umbra/device.key.next")
    }

    /// The unit ID that was chosen at the first start.
    pub fn unit_id(&self) -> PathBuf {
        self.below("wfs/umbra/unit_id")
    }

    /// Parameters that were set on the device.
    pub fn registry(&self) -> PathBuf {
        self.below("wfs/umbra/registry.toml")
    }

    /// The last state of [`Paths::registry`] that could be read as a whole: what holds while that file is broken.
    pub fn registry_good(&self) -> PathBuf {
        self.below("wfs/umbra/state/registry.toml")
    }

    /// Where a registry file that could not be read goes before another is written in its place.
    pub fn registry_broken(&self) -> PathBuf {
        self.below("wfs/umbra/registry.toml.broken")
    }

    /// Parameters that the server decided, and their revision.
    pub fn server_settings(&self) -> PathBuf {
        self.below("wfs/umbra/server-settings.json")
    }

    /// The image maker's defaults; never written.
    pub fn image_registry(&self) -> PathBuf {
        self.below("usr/lib/umbra/registry.toml")
    }

    /// Server, pinned roots, ticket keys, connectors.
    pub fn enrolment(&self) -> PathBuf {
        self.below("wfs/umbra/enrolment.json")
    }

    /// How far the setup assistant is.
    pub fn setup_progress(&self) -> PathBuf {
        self.below("wfs/umbra/setup.json")
    }

    /// Who runs the setup assistant.
    pub fn setup_lock(&self) -> PathBuf {
        self.below("wfs/umbra/setup.lock")
    }

    /// The directory of journals.
    pub fn state(&self) -> PathBuf {
        self.below("wfs/umbra/state")
    }

    /// Commands that were begun, and their results.
    pub fn commands(&self) -> PathBuf {
        self.below("wfs/umbra/state/commands.json")
    }

    /// Records of sessions that the server has not filed yet.
    pub fn records(&self) -> PathBuf {
        self.below("wfs/umbra/state/records.json")
    }

    /// What the agent asks root for.
    pub fn wishes(&self) -> PathBuf {
        self.below("run/umbra/requests")
    }

    /// What root has answered; only root writes here.
    pub fn wishes_answered(&self) -> PathBuf {
        self.below("run/umbra-hands")
    }

    /// What root's program has noted of the last update; only root writes here.
    pub fn update_noted(&self) -> PathBuf {
        self.below("wfs/umbra-update/update")
    }

    /// The directory of what lives as long as the agent runs.
    pub fn run(&self) -> PathBuf {
        self.below("run/umbra")
    }

    /// The socket of local control.
    pub fn socket(&self) -> PathBuf {
        self.below("run/umbra/agent.sock")
    }

    /// What the operating system says of itself.
    pub fn os_release(&self) -> [PathBuf; 2] {
        [
            self.below("etc/os-release"),
            self.below("usr/lib/os-release"),
        ]
    }

    /// Names that the machine knows without asking.
    pub fn hosts(&self) -> PathBuf {
        self.below("etc/hosts")
    }

    /// What the network says about DNS.
    pub fn resolv_conf(&self) -> PathBuf {
        self.below("etc/resolv.conf")
    }

    /// How the kernel was started.
    pub fn kernel_command_line(&self) -> PathBuf {
        self.below("proc/cmdline")
    }

    /// Credentials in the image, those that a person put there before those that its maker did.
    pub fn image_credentials(&self) -> [PathBuf; 2] {
        [
            self.below("etc/umbra/icg.xml"),
            self.below("usr/share/umbra/icg.xml"),
        ]
    }

    /// The kernel's list of network adapters.
    pub fn network_adapters(&self) -> PathBuf {
        self.below("sys/class/net")
    }

    /// The kernel's list of block devices by number.
    pub fn block_devices(&self) -> PathBuf {
        self.below("sys/dev/block")
    }

    /// The kernel's list of what is mounted.
    pub fn mounts(&self) -> PathBuf {
        self.below("proc/self/mountinfo")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_below_the_root() {
        let paths = Paths::new("/tmp/device");
        for path in [
            paths.certificate_directory(),
            paths.certificate(),
            paths.next_certificate(),
            paths.kept(),
            paths.key(),
            paths.next_key(),
            paths.unit_id(),
            paths.registry(),
            paths.registry_good(),
            paths.registry_broken(),
            paths.server_settings(),
            paths.image_registry(),
            paths.enrolment(),
            paths.setup_progress(),
            paths.setup_lock(),
            paths.state(),
            paths.commands(),
            paths.records(),
            paths.update_noted(),
            paths.run(),
            paths.socket(),
            paths.network_adapters(),
            paths.block_devices(),
            paths.mounts(),
        ] {
            assert!(path.starts_with("/tmp/device"), "{path:?}");
        }
        assert_eq!(
            Paths::new("/").certificate(),
            Path::new("/wfs/ca-certs/tc_ca.crt")
        );
    }
}
