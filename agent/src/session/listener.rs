//! The one port of the device. It is open only while shadowing is enabled, moves when the registry says so, and is where strangers
//! are counted; what they want is the caller's business.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};
use umbra_vnc_proxy::accept::accept_forever;
use umbra_vnc_proxy::gate::Gate;

use super::{Sessions, caller};
use crate::registry::Vnc;

/// Callers who have not proven anything yet.
const STRANGERS: usize = 64;
/// How long to wait before a port that could not be opened is tried again.
const REBIND: Duration = Duration::from_secs(5);

/// Said for as long as it is so.
const TLS12: &str = "The shadowing port lets consoles in that know TLS 1.2 only (umbra.vncserver.tls12 is on). Switch it off once all of yours know TLS 1.3.";

/// What the port depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    port: u16,
    addresses: Vec<IpAddr>,
}

fn wanted(vnc: &Vnc) -> Option<Wanted> {
    vnc.enabled.then(|| Wanted {
        port: vnc.port,
        addresses: vnc.listen.clone(),
    })
}

/// Keeps the port as the registry wants it, until the sessions are told to stop.
pub async fn run(sessions: Sessions) {
    let shared = &sessions.shared;
    let gate = Gate::new(STRANGERS);
    let held = Held::taken();
    let mut registry = shared.registry.subscribe();
    let mut stopping = shared.stopping.subscribe();
    let mut told_of_tls12 = false;
    loop {
        let snapshot = Arc::clone(&registry.borrow_and_update());
        shared.change(|table| table.enforce(&snapshot.vnc));
        tell_of_tls12(&sessions, &snapshot.vnc, &mut told_of_tls12);
        let want = wanted(&snapshot.vnc);
        let mut open = JoinSet::new();
        let mut failed = false;
        if let Some(want) = &want {
            match held.or_bind(want).await {
                Ok((listeners, problem)) => {
                    let port = listeners
                        .first()
                        .and_then(|l| l.local_addr().ok())
                        .map(|a| a.port());
                    shown(&sessions, port, problem);
                    for listener in listeners {
                        if let Ok(address) = listener.local_addr() {
                            info!(%address, secure_mode = snapshot.vnc.secure_mode, "listening");
                        }
                        let (sessions, gate) = (sessions.clone(), gate.clone());
                        open.spawn(crate::task::boxed(async move {
                            accept(&listener, &sessions, &gate).await
                        }));
                    }
                }
                Err((address, error)) => {
                    failed = true;
                    warn!(%address, %error, "shadowing can't be accepted");
                    let sentence = format!("Shadowing can't be accepted on {address}: {error}.");
                    shown(&sessions, None, Some(sentence));
                }
            }
        } else {
            shown(&sessions, None, None);
        }
        let changed = async {
            while registry.changed().await.is_ok() {
                let snapshot = Arc::clone(&registry.borrow_and_update());
                shared.change(|table| table.enforce(&snapshot.vnc));
                tell_of_tls12(&sessions, &snapshot.vnc, &mut told_of_tls12);
                if wanted(&snapshot.vnc) != want {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        let retry = async {
            if failed {
                tokio::time::sleep(REBIND).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => {
                open.shutdown().await;
                shown(&sessions, None, None);
                return;
            }
            () = changed => {}
            () = retry => {}
        }
        // The old port is closed before the new one is opened: it may be the same.
        open.shutdown().await;
    }
}

/// Says that the port speaks TLS 1.2, or no longer does, whenever that changes.
fn tell_of_tls12(sessions: &Sessions, vnc: &Vnc, told: &mut bool) {
    let on = vnc.enabled && vnc.tls12;
    if std::mem::replace(told, on) == on {
        return;
    }
    if on {
        warn!("{TLS12}");
    } else {
        info!("the port speaks TLS 1.3 only again");
    }
    let sentence = on.then(|| TLS12.to_owned());
    let board = &sessions.shared.board;
    board.update(|status| status.warn("tls12", sentence));
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender lives with the sessions: it can't be gone.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn shown(sessions: &Sessions, port: Option<u16>, problem: Option<String>) {
    let shared = &sessions.shared;
    shared.port.send_if_modified(|present| {
        let changed = *present != port;
        *present = port;
        changed
    });
    shared.board.update(|status| {
        status.shadow_port = port;
        status.warn("shadow_port", problem);
    });
    if let Some(link) = shared.current_link() {
        link.hasten();
    }
}

async fn accept(listener: &TcpListener, sessions: &Sessions, gate: &Gate) {
    accept_forever(listener, std::future::pending(), |stream, from| {
        let from = from.ip().to_canonical();
        let place = gate.admit_from(from);
        let attended = caller::Attended::new(&sessions.shared);
        let (arrival, origin) = (caller::Arrival::Port(stream), caller::Origin::Address(from));
        crate::task::start(async move { caller::attend(attended, arrival, origin, place).await });
    })
    .await;
}

/// A port that the service manager holds for the agent (`umbra-agent.socket`).
struct Held(Option<std::net::TcpListener>);

impl Held {
    fn taken() -> Self {
        let mut handed = listenfd::ListenFd::from_env();
        let port = match handed.take_tcp_listener(0) {
            Ok(port) => port,
            Err(error) => {
                warn!(%error, "what the service manager handed over is no port, so it isn't used");
                None
            }
        };
        Self(port)
    }

    /// That port if it is the wanted one, or else one of the agent's own, with what is wrong with that as a sentence.
    async fn or_bind(
        &self,
        want: &Wanted,
    ) -> Result<(Vec<TcpListener>, Option<String>), (SocketAddr, io::Error)> {
        let Some(held) = &self.0 else {
            return Ok((bind(want).await?, None));
        };
        let listener = || -> io::Result<(u16, TcpListener)> {
            // A copy: it goes on being held while the agent doesn't listen.
            let copy = held.try_clone()?;
            copy.set_nonblocking(true)?;
            Ok((copy.local_addr()?.port(), TcpListener::from_std(copy)?))
        };
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, want.port));
        let (port, listener) = listener().map_err(|error| (nowhere, error))?;
        if port == want.port {
            return Ok((vec![listener], None));
        }
        let problem = format!(
            "The service manager holds port {port} for the agent, but network.vncserver.port says {}, which is used. Make both say \
             the same, or switch umbra-agent.socket off.",
            want.port
        );
        warn!(problem);
        Ok((bind(want).await?, Some(problem)))
    }
}

/// Opens all addresses on one port; any free one is chosen by the first.
async fn bind(want: &Wanted) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut port = want.port;
    let mut listeners = Vec::new();
    for ip in &want.addresses {
        let address = SocketAddr::new(*ip, port);
        let bound = match TcpListener::bind(address).await {
            Err(error) if *ip == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            bound => bound,
        };
        let listener = bound.map_err(|error| (address, error))?;
        if port == 0 {
            port = listener
                .local_addr()
                .map_err(|error| (address, error))?
                .port();
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let none = [nix::libc::EAFNOSUPPORT, nix::libc::EADDRNOTAVAIL];
    error
        .raw_os_error()
        .is_some_and(|number| none.contains(&number))
}
