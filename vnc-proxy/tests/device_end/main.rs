//! The promise: a session begins only after the device's decision, ends for one known reason, and in between the VNC server gets from
//! the console what the permission allows and nothing else.
#![allow(clippy::unwrap_used)]

mod ends;
#[path = "../lab/mod.rs"]
mod lab;
mod limits;
mod openings;
mod vnc_servers;

use std::time::Duration;

use lab::{
    ByteByByte, FakeVnc, GREETING, UUID, enter, let_in, never, offer, opened_pair, read,
    read_to_end, soon, tls_pair,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use umbra_vnc_proxy::console_end::{self, ConsoleError};
use umbra_vnc_proxy::device_end::{self, SessionOptions, connect_upstream, serve};
use umbra_vnc_proxy::preface::{Dialect, Preface, PrefaceError};
use umbra_vnc_proxy::upstream::{Upstream, UpstreamError};
use umbra_vnc_proxy::{EndReason, Limits, Policy, Secret, StopCause, vnc_auth};

const KEY_EVENT: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 0x61];
const POINTER_EVENT: [u8; 6] = [5, 1, 0, 9, 0, 9];
const UPDATE_REQUEST: [u8; 10] = [3, 1, 0, 0, 0, 0, 0, 9, 0, 9];

fn view_only() -> SessionOptions {
    SessionOptions {
        policy: Policy::VIEW_ONLY,
        ..SessionOptions::default()
    }
}

fn with_password(password: &str) -> SessionOptions {
    SessionOptions {
        password: Some(Secret::new(password)),
        ..SessionOptions::default()
    }
}

/// Offers to let anybody in, then answers everything with itself until the end.
async fn echo(mut stream: tokio::net::UnixStream) {
    offer(&mut stream).await;
    let (mut from, mut to) = stream.split();
    let _ = tokio::io::copy(&mut from, &mut to).await;
}
