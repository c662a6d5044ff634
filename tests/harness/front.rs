//! What stands between devices, consoles, servers and gateways in the field, as the real programs: nginx, haproxy, squid,
//! dnsmasq. Each is a child process in the foreground whose files all lie in the scenario's folder. Ports are the
//! scenario's own choice: so a scenario that uses these is in a network of its own ([`isolate`](crate::netns::isolate)).

mod names;
mod page;
mod relay;
mod socks;

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User, chown};
use tokio::net::TcpStream;

pub use names::{OwnNames, own_names};
pub use page::{Snippet, snippet};
pub use relay::{Conversation, Mischief, Target, WsRelay};
pub use socks::{SocksProxy, SocksUser};

use crate::eventually::{NotReached, eventually};
use crate::program::{Program, ProgramError, run};
use crate::scratch::Scratch;
use crate::world::PATIENCE;

/// Why something in between is not there.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// A program could not be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A program did not come up.
    #[error("{name} does not accept connections; it said: {said}")]
    NotUp {
        /// The program.
        name: String,
        /// Its last words.
        said: String,
        /// What was waited for.
        #[source]
        cause: NotReached,
    },
    /// A file, a socket, or a right.
    #[error("{doing}")]
    Io {
        /// What was done.
        doing: String,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The documentation is not as expected.
    #[error("docs/gateway.md: {0}")]
    Page(String),
}

fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> FrontError {
    let doing = doing.into();
    move |cause| FrontError::Io { doing, cause }
}

fn errno(doing: impl Into<String>) -> impl FnOnce(nix::Error) -> FrontError {
    let doing = doing.into();
    move |cause| FrontError::Io {
        doing,
        cause: cause.into(),
    }
}

/// A running program that others connect to.
pub struct Front {
    program: Program,
    address: SocketAddr,
}

impl Front {
    /// Where it accepts connections.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Starts it, and waits until it accepts connections at `address`.
    async fn start(
        scratch: &Scratch,
        name: &str,
        command: &mut Command,
        address: SocketAddr,
    ) -> Result<Self, FrontError> {
        let mut program = Program::start(scratch, name, command)?;
        let up = eventually(&format!("{name} to accept at {address}"), PATIENCE, || {
            let ended = program.exited();
            async move {
                match (TcpStream::connect(address).await, ended) {
                    (Ok(_), None) => Ok(Ok(())),
                    // Waiting longer is of no use.
                    (_, Some(status)) => Ok(Err(format!("ended with {status}"))),
                    (Err(error), None) => Err(error.to_string()),
                }
            }
        })
        .await;
        let cause = match up {
            Ok(Ok(())) => return Ok(Self { program, address }),
            Ok(Err(last)) => NotReached {
                what: format!("{name} to accept at {address}"),
                limit: PATIENCE,
                last,
            },
            Err(cause) => cause,
        };
        let (_, said) = program
            .wait_for_all(std::time::Duration::from_secs(1))
            .await
            .unwrap_or_else(|_| (Default::default(), program.lines()));
        Err(FrontError::NotUp {
            name: name.to_owned(),
            said: said.join("\n"),
            cause,
        })
    }
}

/// nginx with what an administrator puts into `conf.d`, ready when it accepts at `address`. Its access log is
/// `NAME/access.log` in the scenario's folder.
pub async fn nginx(
    scratch: &Scratch,
    name: &str,
    site: &str,
    address: SocketAddr,
) -> Result<Front, FrontError> {
    let folder = folder(scratch, name)?;
    let temporary = |kind: &str| format!("{kind}_temp_path {}/{kind};\n", folder.display());
    let temporaries: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(temporary)
        .concat();
    // One process, so that none is left when it is killed; it stays the user that owns the folder.
    let user = if Uid::effective().is_root() {
        "user root root;\n"
    } else {
        ""
    };
    let whole = format!(
        "{user}master_process off;\npid {folder}/pid;\nerror_log stderr info;\nevents {{ worker_connections 512; }}\n\
         http {{\naccess_log {folder}/access.log;\n{temporaries}\n{site}\n}}\n",
        folder = folder.display()
    );
    let file = write(&folder, "nginx.conf", &whole)?;
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(file)
        .args(["-e", "stderr", "-g", "daemon off;"]);
    Front::start(scratch, name, &mut command, address).await
}

/// haproxy with these front and back ends, ready when it accepts at `address`.
pub async fn haproxy(
    scratch: &Scratch,
    name: &str,
    ends: &str,
    address: SocketAddr,
) -> Result<Front, FrontError> {
    let folder = folder(scratch, name)?;
    let whole =
        format!("global\n    log stderr format raw local0 info\n    maxconn 512\n\n{ends}\n");
    let file = write(&folder, "haproxy.cfg", &whole)?;
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(file);
    Front::start(scratch, name, &mut command, address).await
}

/// How squid lets people out.
#[derive(Debug, Clone, Default)]
pub struct SquidConfig {
    /// The only user, with the password; without, nobody is asked.
    pub user: Option<(String, String)>,
    /// Who resolves names for it, on port 53.
    pub resolver: Option<Ipv4Addr>,
}

/// squid, which tunnels with CONNECT and nothing else. Its log with every request is `NAME/access.log` in the scenario's
/// folder. It needs [`own_names`]: otherwise it would share memory with another squid of the machine.
pub async fn squid(
    scratch: &Scratch,
    _own: &OwnNames,
    name: &str,
    config: &SquidConfig,
    address: SocketAddr,
) -> Result<Front, FrontError> {
    let folder = folder(scratch, name)?;
    let mut lines = vec![
        format!("http_port {address}"),
        "hosts_file none".into(),
        "pid_filename none".into(),
        format!("cache_log {}/cache.log", folder.display()),
        format!("access_log stdio:{}/access.log", folder.display()),
        "cache deny all".into(),
        "cache_mem 8 MB".into(),
        "memory_pools off".into(),
        format!("coredump_dir {}", folder.display()),
        "netdb_filename none".into(),
        "pinger_enable off".into(),
        "shutdown_lifetime 0 seconds".into(),
        "visible_hostname proxy.example".into(),
        "max_filedescriptors 1024".into(),
        "positive_dns_ttl 1 seconds".into(),
        "negative_dns_ttl 1 seconds".into(),
    ];
    if let Some(resolver) = config.resolver {
        lines.push(format!("dns_nameservers {resolver}"));
    }
    if let Some((user, password)) = &config.user {
        let hash = password_hash(scratch, password).await?;
        let users = write(&folder, "users", &format!("{user}:{hash}\n"))?;
        lines.extend([
            format!(
                "auth_param basic program /usr/lib/squid/basic_ncsa_auth {}",
                users.display()
            ),
            "auth_param basic children 1 startup=1".into(),
            "auth_param basic realm the company's way out".into(),
            "acl known proxy_auth REQUIRED".into(),
            "http_access deny !known".into(),
        ]);
    }
    lines.extend([
        "http_access allow CONNECT".into(),
        "http_access deny all".into(),
    ]);
    if Uid::effective().is_root() {
        // squid refuses to stay root.
        const USER: &str = "proxy";
        lines.push(format!("cache_effective_user {USER}"));
        let user = User::from_name(USER).map_err(errno("squid's user"))?;
        let owner = user.as_ref().map(|user| user.uid);
        chown(&folder, owner, None).map_err(errno("squid's folder can't be given to it"))?;
        std::fs::set_permissions(scratch.root(), Permissions::from_mode(0o711))
            .map_err(io("squid's way to its folder can't be opened"))?;
    }
    let file = write(&folder, "squid.conf", &(lines.join("\n") + "\n"))?;
    let mut command = Command::new("squid");
    command.args(["-N", "-f"]).arg(file);
    Front::start(scratch, name, &mut command, address).await
}

/// As `htpasswd` would write it; the password goes through standard input.
async fn password_hash(scratch: &Scratch, password: &str) -> Result<String, FrontError> {
    let mut command = Command::new("openssl");
    command.args(["passwd", "-apr1", "-stdin"]);
    let output = run(
        scratch,
        "openssl-passwd",
        &mut command,
        format!("{password}\n").as_bytes(),
        PATIENCE,
    )
    .await?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A name server that knows these names and no other, on port 53 of `address`.
pub async fn dnsmasq(
    scratch: &Scratch,
    name: &str,
    address: Ipv4Addr,
    known: &[(&str, Ipv4Addr)],
) -> Result<Front, FrontError> {
    dnsmasq_with(scratch, name, address, known, &[]).await
}

/// The same with further lines of its configuration, for other records.
pub async fn dnsmasq_with(
    scratch: &Scratch,
    name: &str,
    address: Ipv4Addr,
    known: &[(&str, Ipv4Addr)],
    more: &[String],
) -> Result<Front, FrontError> {
    let folder = folder(scratch, name)?;
    let mut lines = vec![
        format!("listen-address={address}"),
        "bind-interfaces".into(),
        "port=53".into(),
        "no-resolv".into(),
        "no-hosts".into(),
        "no-daemon".into(),
        "log-queries".into(),
        "log-facility=-".into(),
        "pid-file=".into(),
        "dhcp-leasefile=/dev/null".into(),
        "cache-size=0".into(),
        // Nobody above is asked: what is not known does not exist.
        "local=/#/".into(),
    ];
    if Uid::effective().is_root() {
        lines.push("user=root".into());
    }
    lines.extend(
        known
            .iter()
            .map(|(host, address)| format!("host-record={host},{address}")),
    );
    lines.extend_from_slice(more);
    let file = write(&folder, "dnsmasq.conf", &(lines.join("\n") + "\n"))?;
    let mut command = Command::new("dnsmasq");
    command.arg(format!("--conf-file={}", file.display()));
    let address = SocketAddr::from((address, 53));
    Front::start(scratch, name, &mut command, address).await
}

fn folder(scratch: &Scratch, name: &str) -> Result<PathBuf, FrontError> {
    scratch
        .folder(name)
        .map_err(io(format!("the folder of {name} can't be made")))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, FrontError> {
    let file = folder.join(name);
    std::fs::write(&file, text).map_err(io(format!("{} can't be written", file.display())))?;
    Ok(file)
}
