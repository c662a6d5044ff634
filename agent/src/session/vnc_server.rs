//! The device's VNC server, as one session needs it. Nothing of it goes to a caller here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use tokio::time::Instant;
use tracing::warn;
use umbra_protocol::session::Permissions;
use umbra_vnc_proxy::device_end::{self, SessionOptions};
use umbra_vnc_proxy::preface::Dialect;
use umbra_vnc_proxy::upstream::{Connected, Upstream, UpstreamError};
use umbra_vnc_proxy::{Limits, Policy};

use crate::registry::{self, Snapshot};

/// How long the VNC server may take.
const UPSTREAM_DEADLINE: Duration = Duration::from_secs(10);

/// What can be seen to be wrong with the VNC server without touching it: for one that is started for each session, that there is
/// no such program.
pub(super) fn hindrance(vnc: &registry::Vnc) -> Option<(String, String)> {
    match vnc.upstream {
        registry::Upstream::Tcp(_) | registry::Upstream::Unix(_) => return None,
        registry::Upstream::Spawn => {}
    }
    let Some(program) = vnc.command.first() else {
        return Some(nameless());
    };
    let is_file = std::fs::metadata(program).is_ok_and(|found| found.is_file());
    if is_file && access(program.as_str(), AccessFlags::X_OK).is_ok() {
        return None;
    }
    let absent = UpstreamError::Absent {
        at: program.clone(),
        source: io::ErrorKind::NotFound.into(),
    };
    warn!(
        program,
        "the VNC server's program is not there or can't be run"
    );
    Some((absent.code().to_owned(), absent.for_operator()))
}

fn nameless() -> (String, String) {
    (
        "vnc_server_misconfigured".to_owned(),
        "The device's settings name no VNC server.".to_owned(),
    )
}

/// Connects to the VNC server as this session needs it.
pub(super) async fn connect(
    snapshot: Arc<Snapshot>,
    permissions: Permissions,
    plain: bool,
    dialect: Dialect,
) -> Result<(Connected, SessionOptions), (String, String)> {
    let told = |error: UpstreamError| {
        warn!(
            error = crate::link::trouble::sentence(&error),
            "the VNC server can't be used"
        );
        (error.code().to_owned(), error.for_operator())
    };
    let vnc = &snapshot.vnc;
    let upstream = match &vnc.upstream {
        registry::Upstream::Tcp(address) => Upstream::tcp(*address),
        registry::Upstream::Unix(path) => Upstream::unix(path),
        registry::Upstream::Spawn => {
            let (program, arguments) = vnc.command.split_first().ok_or_else(nameless)?;
            Upstream::spawn(program, arguments.to_vec(), vnc.environment.clone())
        }
    }
    .map_err(told)?;
    let policy = Policy {
        keyboard_and_pointer: permissions.control,
        clipboard: permissions.clipboard,
    };
    let options = SessionOptions {
        // An operator was let in by the server and is not asked again; a plain viewer has to know the password itself.
        password: vnc
            .password
            .as_ref()
            .filter(|_| !plain)
            .map(|password| umbra_vnc_proxy::Secret::new(password.reveal())),
        policy,
        limits: Limits {
            idle: snapshot.session.idle,
            total: snapshot.session.total,
            ..Limits::default()
        },
        legacy_preface: !plain && dialect == Dialect::Legacy,
        ..SessionOptions::default()
    };
    let deadline = Instant::now() + UPSTREAM_DEADLINE;
    if plain && vnc.password.is_some() {
        insist_on_password(&upstream, policy, deadline).await?;
    }
    let connected = device_end::connect_upstream(&upstream, &options, deadline)
        .await
        .map_err(told)?;
    Ok((connected, options))
}

/// Where a password is configured, a plain viewer is passed through only to a VNC server that asks for one itself: otherwise the
/// password would protect nothing.
async fn insist_on_password(
    upstream: &Upstream,
    policy: Policy,
    deadline: Instant,
) -> Result<(), (String, String)> {
    let refused = |sentence: &str| {
        warn!(reason = sentence, "a plain viewer was refused");
        ("vnc_password_missing".to_owned(), sentence.to_owned())
    };
    if policy.needs_filter() {
        return Err(refused(
            "With a password, plain viewers are accepted only while they may use keyboard and pointer.",
        ));
    }
    let probe = match upstream.connect(deadline).await {
        Ok(connected) => connected.log_in(None, deadline).await,
        Err(error) => Err(error),
    };
    match probe {
        Err(UpstreamError::PasswordMissing) => Ok(()),
        Ok(connected) => {
            connected.close().await;
            Err(refused(
                "A password is configured for plain viewers, but the device's VNC server does not ask for one.",
            ))
        }
        Err(error) => Err((error.code().to_owned(), error.for_operator())),
    }
}
