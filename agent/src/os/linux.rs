//! Linux: adapters from sysfs, addresses from the kernel, restarts through one fixed program. Files are read below the root of
//! [`Paths`], so that a folder can pose as a device.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Adapter, Bus, Os, OsError};
use crate::files;
use crate::hands::{self, HandsError, Wish};
use crate::paths::Paths;

/// How long a program that restarts the machine may take before it is left alone.
const POWER_DEADLINE: Duration = Duration::from_secs(10);
/// ARP's number for Ethernet and Wi-Fi.
const ETHERNET: &str = "1";
/// The kernel's mark for an address that is the hardware's own.
const PERMANENT: &str = "0";
/// More folders above a device are not looked at.
const DEPTH_MAX: usize = 16;
/// More adapters than this are not looked at.
const ADAPTERS_MAX: usize = 256;

/// The system that this program runs on.
#[derive(Clone, Debug)]
pub struct Linux {
    paths: Paths,
}

impl Linux {
    /// The system, with its files below this root.
    pub fn new(paths: Paths) -> Self {
        Self { paths }
    }

    /// By this program, or by root's hands where none is named.
    fn power(&self, command: &[String], wish: Wish) -> Result<(), OsError> {
        if !command.is_empty() {
            return run(command);
        }
        let waiting = hands::ask(&self.paths, wish, POWER_DEADLINE)?;
        loop {
            match waiting.look() {
                Some(Ok(_)) => return Ok(()),
                // Taken, and still at work: the machine is on its way down.
                Some(Err(HandsError::TooSlow(_))) => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                None => std::thread::sleep(hands::GLANCE),
            }
        }
    }
}

impl Os for Linux {
    fn adapters(&self) -> Vec<Adapter> {
        let Ok(entries) = std::fs::read_dir(self.paths.network_adapters()) else {
            return Vec::new();
        };
        entries
            .take(ADAPTERS_MAX)
            .filter_map(|entry| adapter(&entry.ok()?.path()))
            .collect()
    }

    fn stick(&self) -> Option<String> {
        super::medium::serial(&self.paths)
    }

    fn host_name(&self) -> String {
        nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "localhost".to_owned())
    }

    fn os_name(&self) -> String {
        self.paths
            .os_release()
            .iter()
            .find_map(|path| small(path))
            .and_then(|text| os_name(&text))
            .unwrap_or_else(|| "Linux".to_owned())
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let Ok(all) = nix::ifaddrs::getifaddrs() else {
            return Vec::new();
        };
        let mut addresses: Vec<IpAddr> = all
            .filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
            })
            .filter(reaches_others)
            .collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    fn boot_id(&self) -> String {
        small(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default()
    }

    fn reboot(&self, command: &[String]) -> Result<(), OsError> {
        self.power(command, Wish::Reboot)
    }

    fn shutdown(&self, command: &[String]) -> Result<(), OsError> {
        self.power(command, Wish::Shutdown)
    }
}

/// A small text file, trimmed.
fn small(path: &Path) -> Option<String> {
    let text = files::read_text(path, 16 * 1024).ok()??;
    Some(text.trim().to_owned())
}

fn adapter(folder: &Path) -> Option<Adapter> {
    let read = |name: &str| small(&folder.join(name)).unwrap_or_default();
    if read("type") != ETHERNET {
        return None;
    }
    let mut mac = [0; 6];
    let text = read("address");
    let mut digits = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(digits.next()?, 16).ok()?;
    }
    if digits.next().is_some() {
        return None;
    }
    Some(Adapter {
        name: folder.file_name()?.to_string_lossy().into_owned(),
        mac,
        bus: bus(folder),
        wireless: folder.join("wireless").exists() || folder.join("phy80211").exists(),
        permanent: read("addr_assign_type") == PERMANENT,
    })
}

/// The kernel links an adapter of hardware to its device; virtual ones have none. What can be pulled out, such as a dock, belongs to
/// no machine, and counts as none either.
fn bus(folder: &Path) -> Option<Bus> {
    let subsystem = std::fs::read_link(folder.join("device/subsystem")).ok()?;
    if is_removable(&folder.join("device")) {
        return None;
    }
    let bus = match subsystem.file_name()?.to_str()? {
        "usb" => Bus::Usb,
        "sdio" | "mmc" => Bus::Sdio,
        _ => Bus::Board,
    };
    Some(bus)
}

/// Whether the kernel knows that a device, or something between it and the board (a dock on USB or Thunderbolt), can be pulled out.
/// Where it doesn't know, it says “unknown”.
fn is_removable(device: &Path) -> bool {
    std::fs::canonicalize(device).is_ok_and(|device| {
        device
            .ancestors()
            .take(DEPTH_MAX)
            .any(|folder| small(&folder.join("removable")).as_deref() == Some("removable"))
    })
}

fn os_name(os_release: &str) -> Option<String> {
    let field = |wanted: &str| {
        os_release.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == wanted).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
        })
    };
    let name = field("PRETTY_NAME").or_else(|| field("NAME"))?;
    let name = umbra_protocol::refusal::clip(name);
    let shown: String = name
        .chars()
        .take(umbra_protocol::limits::LABEL / 4)
        .collect();
    (!shown.is_empty()).then_some(shown)
}

fn reaches_others(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// Runs a program without a shell, without our environment, and waits for its end within bounds.
fn run(command: &[String]) -> Result<(), OsError> {
    let program = command.first().cloned().unwrap_or_default();
    if !program.starts_with('/') {
        return Err(OsError::NotAbsolute { program });
    }
    let start = |source| OsError::Start {
        program: program.clone(),
        source,
    };
    let mut child = Command::new(&program)
        .args(&command[1..])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(start)?;
    let until = Instant::now() + POWER_DEADLINE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().map_err(start)? {
            return if status.success() {
                Ok(())
            } else {
                Err(OsError::Failed {
                    program,
                    status: status.to_string(),
                })
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // It is still at work: the machine is on its way down, and we go with it. Its end is waited for beside us.
    std::thread::spawn(move || child.wait());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn machine() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        (root, paths)
    }

    fn add(paths: &Paths, name: &str, mac: &str, bus: Option<&str>, assigned: &str) {
        let folder = paths.network_adapters().join(name);
        std::fs::create_dir_all(folder.join("device")).expect("a folder");
        for (file, text) in [
            ("address", mac),
            ("type", "1"),
            ("addr_assign_type", assigned),
        ] {
            std::fs::write(folder.join(file), format!("{text}\n")).expect("written");
        }
        match bus {
            Some(bus) => symlink(
                format!("../../../../bus/{bus}"),
                folder.join("device/subsystem"),
            )
            .expect("a link"),
            None => std::fs::remove_dir(folder.join("device")).expect("removed"),
        }
    }

    #[test]
    fn adapters_are_read_as_the_kernel_describes_them() {
        let (_root, paths) = machine();
        add(&paths, "eth0", "00:e0:c5:00:00:01", Some("pci"), "0");
        add(&paths, "usb0", "00:e0:c5:00:00:00", Some("usb"), "0");
        add(&paths, "tun0", "00:e0:c5:00:00:02", None, "0");
        add(&paths, "wlan0", "0a:e0:c5:00:00:02", Some("pci"), "1");
        add(&paths, "odd0", "not an address", Some("pci"), "0");
        let adapters = Linux::new(paths).adapters();
        assert_eq!(adapters.len(), 4);
        let by_name = |name: &str| adapters.iter().find(|a| a.name == name).expect("listed");
        assert_eq!(by_name("eth0").bus, Some(Bus::Board));
        assert_eq!(by_name("usb0").bus, Some(Bus::Usb));
        assert_eq!(by_name("tun0").bus, None);
        assert!(!by_name("wlan0").permanent);
        let unit = super::super::choose_unit_id(&adapters).expect("a unit ID");
        assert_eq!(unit.as_str(), "00E0C5000001");
    }

    #[test]
    fn what_is_in_a_dock_names_no_machine_however_it_is_attached() {
        let (root, paths) = machine();
        // As Thunderbolt has it: the adapter is on PCI, behind a bridge that can be pulled out.
        add(&paths, "eth0", "00:e0:c5:00:00:01", Some("pci"), "0");
        let real = root.path().join("sys/devices/bridge/adapter");
        std::fs::create_dir_all(real.parent().expect("a parent")).expect("a folder");
        let link = paths.network_adapters().join("eth0/device");
        std::fs::rename(&link, &real).expect("moved");
        symlink(&real, &link).expect("a link");
        let bridge = root.path().join("sys/devices/bridge/removable");
        let unit = || {
            let adapters = Linux::new(paths.clone()).adapters();
            super::super::choose_unit_id(&adapters).map(|unit| unit.to_string())
        };
        for (word, wanted) in [
            ("removable", None),
            ("fixed", Some("00E0C5000001")),
            ("unknown", Some("00E0C5000001")),
        ] {
            std::fs::write(&bridge, format!("{word}\n")).expect("written");
            assert_eq!(unit().as_deref(), wanted, "{word}");
        }
        add(&paths, "wlan0", "00:e0:c5:00:00:07", Some("sdio"), "0");
        std::fs::write(&bridge, "removable\n").expect("written");
        assert_eq!(unit().as_deref(), Some("00E0C5000007"));
    }

    #[test]
    fn the_system_is_named_from_os_release_without_terminal_tricks() {
        assert_eq!(
            os_name("ID=x\nPRETTY_NAME=\"Example \u{1b}[2JOS 12\"\n").as_deref(),
            Some("Example  [2JOS 12")
        );
        assert_eq!(os_name("NAME='Example'\n").as_deref(), Some("Example"));
        assert_eq!(os_name("nothing"), None);
        let (_root, paths) = machine();
        assert_eq!(Linux::new(paths).os_name(), "Linux");
    }

    #[test]
    fn no_program_is_run_through_the_search_path_or_a_shell() {
        let (root, paths) = machine();
        let linux = Linux::new(paths);
        for command in ["", "reboot", "./reboot"] {
            let error = linux.reboot(&[command.to_owned()]).expect_err("refused");
            assert!(error.to_string().contains("absolute path"), "{error}");
        }
        let made = root.path().join("made");
        let command = [
            "/usr/bin/touch".to_owned(),
            format!("{}; echo", made.display()),
        ];
        linux.reboot(&command).expect("touch works");
        assert!(!made.exists(), "the argument went through a shell");
        assert!(root.path().join("made; echo").exists());
    }

    #[test]
    fn a_program_that_fails_or_is_missing_is_told() {
        let (_root, paths) = machine();
        let linux = Linux::new(paths);
        let failed = linux
            .shutdown(&["/bin/false".to_owned()])
            .expect_err("it fails");
        assert!(failed.to_string().contains("failed"), "{failed}");
        let missing = linux
            .shutdown(&["/nowhere/off".to_owned()])
            .expect_err("missing");
        assert!(
            missing.to_string().contains("can't be started"),
            "{missing}"
        );
    }
}
