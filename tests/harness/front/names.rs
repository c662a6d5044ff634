//! Names of a scenario's own: what its programs read as `/etc/hosts` and `/etc/resolv.conf` are files of the scenario, in a
//! mount namespace. The files of the machine are never touched, nor is the memory that programs share by name.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{FrontError, errno, io};
use crate::scratch::Scratch;

/// The files that stand for the machine's own.
pub struct OwnNames {
    hosts: PathBuf,
    resolver: PathBuf,
}

/// Moves this thread, and all threads and programs that it starts from now on, to names of their own: no host is known but
/// loopback, and nobody is asked. To be called before there are other threads, as [`isolate`](crate::netns::isolate).
pub fn own_names(scratch: &Scratch) -> Result<OwnNames, FrontError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(errno("mounts of our own need root"))?;
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).map_err(errno("the mounts can't be made our own"))?;
    mount(none, "/dev/shm", Some("tmpfs"), MsFlags::empty(), none)
        .map_err(errno("there is no shared memory of our own"))?;
    let names = OwnNames {
        hosts: scratch.path("hosts"),
        resolver: scratch.path("resolv.conf"),
    };
    names.set_hosts(&[])?;
    names.set_resolver(None)?;
    for (ours, machines) in [
        (&names.hosts, "/etc/hosts"),
        (&names.resolver, "/etc/resolv.conf"),
    ] {
        // The machine's may be a link to elsewhere.
        let place = std::fs::canonicalize(machines).unwrap_or_else(|_| machines.into());
        mount(Some(ours), &place, none, MsFlags::MS_BIND, none)
            .map_err(errno(format!("{machines} can't be replaced")))?;
    }
    Ok(names)
}

impl OwnNames {
    /// Which hosts are known from `/etc/hosts`.
    pub fn set_hosts(&self, hosts: &[(&str, IpAddr)]) -> Result<(), FrontError> {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        text.extend(
            hosts
                .iter()
                .map(|(name, address)| format!("{address} {name}\n")),
        );
        rewrite(&self.hosts, &text)
    }

    /// Who is asked for other names.
    pub fn set_resolver(&self, resolver: Option<Ipv4Addr>) -> Result<(), FrontError> {
        // Nobody listens at the discard address: an answer of the machine's own resolver is never got.
        let resolver = resolver.unwrap_or(Ipv4Addr::new(127, 255, 255, 254));
        rewrite(
            &self.resolver,
            &format!("nameserver {resolver}\noptions timeout:1 attempts:1\n"),
        )
    }
}

/// In place, since the file itself is what is mounted.
fn rewrite(file: &Path, text: &str) -> Result<(), FrontError> {
    std::fs::write(file, text).map_err(io(format!("{} can't be written", file.display())))
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs as _;

    use super::*;
    use crate::front::dnsmasq;
    use crate::netns::isolate;

    #[tokio::test]
    async fn names_are_our_own_and_change_when_they_are_told_to() {
        let scratch = Scratch::new().expect("a folder");
        isolate().expect("a network");
        let names = own_names(&scratch).expect("names");
        let find = |name: &str| -> Vec<IpAddr> {
            let found = (name, 1).to_socket_addrs();
            found.map_or(Vec::new(), |all| all.map(|one| one.ip()).collect())
        };
        assert!(find("gateway.example").is_empty());
        let there = Ipv4Addr::new(127, 0, 0, 7);
        names
            .set_hosts(&[("gateway.example", there.into())])
            .expect("written");
        assert_eq!(find("gateway.example"), [IpAddr::from(there)]);
        names.set_hosts(&[]).expect("written");
        assert!(find("gateway.example").is_empty());

        let resolver = Ipv4Addr::new(127, 0, 0, 53);
        names.set_resolver(Some(resolver)).expect("written");
        for last in [8, 9] {
            let there = Ipv4Addr::new(127, 0, 0, last);
            let name = format!("dnsmasq-{last}");
            let _up = dnsmasq(&scratch, &name, resolver, &[("gateway.example", there)])
                .await
                .expect("starts");
            assert_eq!(find("gateway.example"), [IpAddr::from(there)]);
            assert!(find("other.example").is_empty());
        }
        assert!(find("gateway.example").is_empty());
    }
}
