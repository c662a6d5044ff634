//! The kernel's word that an address of this device came or went (rtnetlink(7)), so that nobody has to look for it.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Of what the kernel tells: addresses of both families.
const GROUPS: i32 = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
/// Messages that are taken in one go; who sends more is heard again.
const AT_ONCE: usize = 64;

/// Changes of this device's addresses.
pub(super) struct Moves(Option<AsyncFd<OwnedFd>>);

impl Moves {
    /// Where the kernel tells nothing (no file is left, another system call filter), it never says anything.
    pub(super) fn new() -> Self {
        Self(listen().ok())
    }

    /// Returns after an address has changed. May be dropped and called again.
    pub(super) async fn next(&mut self) {
        if let Some(socket) = &self.0
            && heard(socket).await.is_err()
        {
            self.0 = None;
        }
        if self.0.is_none() {
            std::future::pending().await
        }
    }
}

/// Says that something changed; what it was is looked at elsewhere.
async fn heard(socket: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = socket.readable().await?;
        let mut message = [0; 4096];
        let mut some = false;
        for _ in 0..AT_ONCE {
            match recv(
                ready.get_inner().as_raw_fd(),
                &mut message,
                MsgFlags::empty(),
            ) {
                // More than the kernel keeps: something was among it.
                Ok(_) | Err(Errno::ENOBUFS) => some = true,
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    break;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        if some {
            return Ok(());
        }
    }
}

#[expect(
    deprecated,
    reason = "the new way is unsafe code; an owned descriptor is open for as long as it lives"
)]
fn listen() -> io::Result<AsyncFd<OwnedFd>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(
        socket.as_raw_fd(),
        &NetlinkAddr::new(0, GROUPS.cast_unsigned()),
    )?;
    AsyncFd::with_interest(socket, Interest::READABLE)
}
