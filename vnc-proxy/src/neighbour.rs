//! Who on this machine is at the other end of a connection over loopback: which user its socket belongs to, as the kernel's list of
//! sockets says. A port on loopback is open to everybody who has an account here, and the first who comes would get the screen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kernel's lists of sockets.
const LISTS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// States of a socket, as the lists write them.
const ESTABLISHED: u8 = 0x01;
const LISTENING: u8 = 0x0A;
const ROOT: u32 = 0;

/// Whose a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The user's who listens, or root's.
    Ours,
    /// Another user's.
    Another(u32),
    /// Nobody's any more: it has closed already.
    Gone,
    /// This system has no such list.
    Unknown,
}

/// How often the lists are read before a caller counts as gone. The kernel hands them out in pages, and a socket that is closed between
/// two pages shifts the rest: a line can then be missing from one reading.
const READINGS: usize = 3;

/// Finds out whose socket `caller` is, which is connected to `listener`.
pub(crate) fn owner(caller: SocketAddr, listener: SocketAddr) -> Owner {
    settled(|| owner_in_lists(caller, listener))
}

/// What a reading says, read again while it misses something.
fn settled(mut reading: impl FnMut() -> Owner) -> Owner {
    for _ in 1..READINGS {
        let owner = reading();
        if !matches!(owner, Owner::Gone | Owner::Unknown) {
            return owner;
        }
    }
    reading()
}

fn owner_in_lists(caller: SocketAddr, listener: SocketAddr) -> Owner {
    let lists: Vec<String> = LISTS
        .iter()
        // A system without IPv6 has no second one.
        .filter_map(|list| std::fs::read_to_string(list).ok())
        .collect();
    owner_in(lists.iter().flat_map(|list| list.lines()), caller, listener)
}

fn owner_in<'l>(
    lines: impl Iterator<Item = &'l str>,
    caller: SocketAddr,
    listener: SocketAddr,
) -> Owner {
    let (mut ours, mut theirs) = (None, None);
    for socket in lines.filter_map(Socket::read) {
        if socket.state == LISTENING && socket.local == listener {
            ours = Some(socket.user);
        } else if socket.state == ESTABLISHED && socket.local == caller && socket.remote == listener
        {
            theirs = Some(socket.user);
        }
    }
    match (ours, theirs) {
        // Not even this process is in it: what it says is worth nothing.
        (None, _) => Owner::Unknown,
        (Some(_), None) => Owner::Gone,
        (Some(us), Some(user)) if user == us || user == ROOT => Owner::Ours,
        (Some(_), Some(user)) => Owner::Another(user),
    }
}

/// One line of the lists.
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    user: u32,
}

impl Socket {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
        let state = u8::from_str_radix(words.next()?, 16).ok()?;
        // Queues, timers and retransmissions stand before it.
        let user = words.nth(3)?.parse().ok()?;
        Some(Self {
            local,
            remote,
            state,
            user,
        })
    }
}

/// An address as the lists write it: words of 32 bits as they lie in memory, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for start in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::from(Ipv4Addr::from(four)),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
    const LISTENER: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 5001 1";

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn caller_of(user: u32, state: &str) -> String {
        format!(
            "   1: 0100007F:C001 0100007F:1F90 {state} 00000000:00000000 00:00000000 00000000 {user:>5}        0 5002 1"
        )
    }

    fn asked(lines: &[&str]) -> Owner {
        owner_in(
            lines.iter().copied(),
            at("127.0.0.1:49153"),
            at("127.0.0.1:8080"),
        )
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn ones_own_programs_and_roots_are_told_from_another_users() {
        assert_eq!(
            asked(&[HEAD, LISTENER, &caller_of(1000, "01")]),
            Owner::Ours
        );
        assert_eq!(asked(&[HEAD, LISTENER, &caller_of(0, "01")]), Owner::Ours);
        let other = caller_of(1001, "01");
        assert_eq!(asked(&[HEAD, &other, LISTENER]), Owner::Another(1001));
        // What the kernel keeps of a closed socket belongs to root by its looks.
        assert_eq!(asked(&[HEAD, LISTENER, &caller_of(0, "06")]), Owner::Gone);
        assert_eq!(asked(&[HEAD, LISTENER]), Owner::Gone);
        assert_eq!(asked(&[HEAD, &caller_of(0, "01")]), Owner::Unknown);
        assert_eq!(asked(&["", "x y z", HEAD]), Owner::Unknown);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_caller_of_the_other_family_is_found() {
        let mapped = "   2: 0000000000000000FFFF00000100007F:C001 0000000000000000FFFF00000100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 5003 1";
        assert_eq!(asked(&[LISTENER, mapped]), Owner::Another(1001));
        let six = address("00000000000000000000000001000000:0016").expect("an address");
        assert_eq!(six, at("[::1]:22"));
    }

    #[test]
    fn what_one_reading_misses_the_next_one_finds() {
        use Owner::{Another, Gone, Ours, Unknown};
        let read = |readings: &[Owner]| {
            let mut readings = readings.iter().copied();
            let owner = settled(|| readings.next().expect("no more readings than that"));
            (owner, readings.count())
        };
        assert_eq!(read(&[Ours, Gone]), (Ours, 1));
        assert_eq!(read(&[Gone, Ours, Gone]), (Ours, 1));
        assert_eq!(read(&[Unknown, Gone, Another(7)]), (Another(7), 0));
        assert_eq!(read(&[Gone, Gone, Gone, Ours]), (Gone, 1));
        assert_eq!(read(&[Unknown, Unknown, Unknown, Ours]), (Unknown, 1));
    }

    #[test]
    fn a_real_connection_is_found_in_the_real_list() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = listener.local_addr().expect("an address");
        let stream = std::net::TcpStream::connect(here).expect("connected");
        let caller = stream.local_addr().expect("an address");
        assert_eq!(owner(caller, here), Owner::Ours);
        let nobody = SocketAddr::new(caller.ip(), 1);
        assert_eq!(owner(nobody, here), Owner::Gone);
    }
}
