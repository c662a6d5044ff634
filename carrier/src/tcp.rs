//! A TCP connection to a host by name or address. All addresses of the name are tried, each next one after a short
//! head start of those before it, so that a dead IPv6 route costs a quarter of a second and not a time-out.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::names::Lookup;

/// How long an attempt runs alone before the next address is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// More addresses than this of one name are not tried.
const MAX_ADDRESSES: usize = 16;

/// Why no TCP connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("the name “{host}” can't be found")]
    NameNotFound {
        /// The name asked for.
        host: String,
        /// What the resolver said, where it said something.
        #[source]
        source: Option<io::Error>,
    },
    /// The host answered that nothing listens there.
    #[error("{addr} refuses connections: nothing listens on this port, or a firewall refuses it")]
    Refused {
        /// The address that refused.
        addr: SocketAddr,
    },
    /// No way to the host.
    #[error("there is no network path to {addr}")]
    Unreachable {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("“{host}” port {port} didn't answer in time")]
    TimedOut {
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
    },
    /// Anything else that the system reports.
    #[error("the connection to {addr} failed")]
    Io {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Connects to `host` (a name, an IPv4 or an IPv6 address without brackets) within `deadline`, name lookup included.
/// The connection sends small writes at once (`TCP_NODELAY`).
///
/// # Errors
/// [`ConnectError`]; where several addresses failed, the one that says most.
pub async fn connect(
    host: &str,
    port: u16,
    names: &dyn Lookup,
    deadline: Duration,
) -> Result<TcpStream, ConnectError> {
    let attempt = async {
        let addresses = names.addresses(host, port).await;
        let addresses = addresses.map_err(|source| ConnectError::NameNotFound {
            host: host.to_owned(),
            source: Some(source),
        })?;
        connect_any(host, in_turns(addresses)).await
    };
    match timeout(deadline, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut {
            host: host.to_owned(),
            port,
        }),
    }
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

async fn connect_any(
    host: &str,
    mut waiting: VecDeque<SocketAddr>,
) -> Result<TcpStream, ConnectError> {
    let mut running: Vec<(SocketAddr, Attempt)> = Vec::new();
    let mut worst: Option<ConnectError> = None;
    loop {
        if let Some(address) = waiting.pop_front() {
            running.push((address, Box::pin(TcpStream::connect(address))));
        }
        if running.is_empty() {
            return Err(worst.unwrap_or(ConnectError::NameNotFound {
                host: host.to_owned(),
                source: None,
            }));
        }
        let mut head_start = Box::pin(sleep(HEAD_START));
        let next_step = poll_fn(|context| {
            for index in 0..running.len() {
                if let Poll::Ready(result) = running[index].1.as_mut().poll(context) {
                    let (address, _) = running.swap_remove(index);
                    return Poll::Ready(Some((address, result)));
                }
            }
            if waiting.is_empty() {
                return Poll::Pending;
            }
            head_start.as_mut().poll(context).map(|()| None)
        })
        .await;
        match next_step {
            Some((addr, Ok(stream))) => {
                stream
                    .set_nodelay(true)
                    .map_err(|source| ConnectError::Io { addr, source })?;
                return Ok(stream);
            }
            Some((addr, Err(error))) => {
                let error = describe(addr, error);
                if worst
                    .as_ref()
                    .is_none_or(|known| says(&error) > says(known))
                {
                    worst = Some(error);
                }
            }
            None => {}
        }
    }
}

/// IPv6 and IPv4 in turns, beginning with the family that the resolver prefers.
fn in_turns(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut turns = VecDeque::new();
    loop {
        let pair = [preferred.next(), other.next()];
        if pair.iter().all(Option::is_none) || turns.len() >= MAX_ADDRESSES {
            turns.truncate(MAX_ADDRESSES);
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system's kinds of error grow; unknown ones keep their text"
)]
fn describe(addr: SocketAddr, source: io::Error) -> ConnectError {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused { addr },
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::TimedOut
        | io::ErrorKind::AddrNotAvailable => ConnectError::Unreachable { addr, source },
        _ => ConnectError::Io { addr, source },
    }
}

/// How much an error tells a person about the host: a refusal proves that it is there.
fn says(error: &ConnectError) -> u8 {
    match error {
        ConnectError::Refused { .. } => 3,
        ConnectError::Io { .. } => 2,
        ConnectError::Unreachable { .. } => 1,
        ConnectError::NameNotFound { .. } | ConnectError::TimedOut { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::names::System;

    /// Long enough never to be reached on loopback.
    const LONG: Duration = Duration::from_secs(20);

    /// A connection over loopback that isn't there after this time won't come.
    const UNANSWERED: Duration = Duration::from_millis(250);

    /// An address on which nothing listens, and nothing else can begin to.
    fn refusing() -> (std::net::TcpStream, std::net::TcpListener, SocketAddr) {
        // The near end of a connection holds its port without listening on it.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = stream.local_addr().unwrap();
        (stream, listener, address)
    }

    #[tokio::test]
    async fn a_listening_host_is_reached_by_name_and_by_address_without_delay_of_small_writes() {
        for (bound, host) in [("127.0.0.1:0", "127.0.0.1"), ("127.0.0.1:0", "localhost")] {
            let listener = TcpListener::bind(bound).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut stream = connect(host, port, &System, LONG).await.unwrap();
            assert!(stream.nodelay().unwrap());
            let (mut accepted, _) = listener.accept().await.unwrap();
            stream.write_all(b"x").await.unwrap();
            assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_address() {
        let (_stream, _listener, address) = refusing();
        let error = connect("127.0.0.1", address.port(), &System, LONG)
            .await
            .expect_err("nothing listens");
        assert!(
            matches!(error, ConnectError::Refused { addr } if addr == address),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told() {
        let error = connect("does-not-exist.invalid", 443, &System, LONG)
            .await
            .expect_err("no such name");
        assert!(
            matches!(&error, ConnectError::NameNotFound { host, .. } if host == "does-not-exist.invalid"),
            "{error:?}"
        );
    }

    /// A listener whose queue is full drops further attempts, as a black hole does.
    async fn silent() -> (tokio::net::TcpListener, Vec<TcpStream>) {
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(1).unwrap();
        let address = full.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(UNANSWERED, TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
            assert!(queued.len() < 100, "the queue never fills up");
        }
        (full, queued)
    }

    #[tokio::test]
    async fn a_host_that_stays_silent_is_given_up_at_the_deadline_and_named() {
        let (full, _queued) = silent().await;
        let port = full.local_addr().unwrap().port();
        let error = connect("127.0.0.1", port, &System, HEAD_START)
            .await
            .expect_err("nobody answers");
        assert!(matches!(&error, ConnectError::TimedOut { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("“127.0.0.1” port {port} didn't answer in time")
        );
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_keep_the_next_one_from_being_tried() {
        let (_stream, _held, refusing) = refusing();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listening = listener.local_addr().unwrap();
        let stream = connect_any("two", VecDeque::from([refusing, listening]))
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
    }

    #[tokio::test]
    async fn an_address_that_stays_silent_does_not_keep_the_next_one_from_being_tried() {
        let (full, _queued) = silent().await;
        let silent = full.local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listening = listener.local_addr().unwrap();
        let stream = timeout(
            LONG,
            connect_any("two", VecDeque::from([silent, listening])),
        )
        .await
        .unwrap()
        .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_not_found() {
        let error = connect_any("empty", VecDeque::new())
            .await
            .expect_err("no address");
        assert!(
            matches!(error, ConnectError::NameNotFound { source: None, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn the_families_take_turns_and_the_number_of_attempts_is_bounded() {
        let v4: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        assert_eq!(in_turns(vec![v6, v6, v4, v4]), [v6, v4, v6, v4]);
        assert_eq!(in_turns(vec![v4, v4, v4, v6]), [v4, v6, v4, v4]);
        assert!(in_turns(Vec::new()).is_empty());
        assert_eq!(in_turns(vec![v4; 100]).len(), MAX_ADDRESSES);
    }

    #[test]
    fn of_several_failures_the_refusal_is_told() {
        let addr: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let by = |kind: io::ErrorKind| describe(addr, kind.into());
        let refused = by(io::ErrorKind::ConnectionRefused);
        let unreachable = by(io::ErrorKind::HostUnreachable);
        assert!(matches!(refused, ConnectError::Refused { .. }));
        assert!(matches!(unreachable, ConnectError::Unreachable { .. }));
        assert!(matches!(
            by(io::ErrorKind::PermissionDenied),
            ConnectError::Io { .. }
        ));
        assert!(says(&refused) > says(&unreachable));
    }
}
