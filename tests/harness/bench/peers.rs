//! What people would put in the device end's place, each configured for the same work: TLS 1.3 with the same certificate on one side, a
//! VNC server on loopback on the other. Where a program has a setting for larger buffers, it is measured with it as well.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustls::ClientConfig;

use super::Wish;
use super::load::{self, Door, NAME, Tunnel};
use super::process::Family;
use super::report::OURS;
use crate::eventually::eventually_is;
use crate::pki::{Chain, Kind};
use crate::program::{Program, run};
use crate::scratch::Scratch;

/// How long a candidate may take until it accepts.
pub(super) const START: Duration = Duration::from_secs(20);

/// What no proxy can do without: the same bytes read and written, 64 KiB at a time, and no TLS.
const PLAIN_COPY: &str = "floor: copy without TLS";

/// A proxy that runs.
pub(super) struct Candidate {
    /// What it is called in the tables.
    pub(super) name: &'static str,
    /// Where it is entered.
    pub(super) address: SocketAddr,
    /// How it is entered.
    pub(super) door: Door,
    /// The process whose use counts: the one at the device.
    pub(super) family: Family,
    _programs: Vec<Program>,
}

/// What all candidates are given.
pub(super) struct Place<'p> {
    pub(super) scratch: &'p Scratch,
    /// Holds `chain.pem`, `key.pem` and `both.pem`.
    pub(super) folder: PathBuf,
    pub(super) vnc_server: SocketAddr,
    pub(super) client: Arc<ClientConfig>,
    pub(super) chain: Chain,
}

impl<'p> Place<'p> {
    /// Makes a chain for the section alone, and starts what all candidates stand in front of.
    pub(super) fn new(scratch: &'p Scratch) -> anyhow::Result<Self> {
        let chain = Chain::new(Kind::SelfSigned, &[NAME])?;
        let folder = scratch.folder("pki")?;
        chain.write(&folder)?;
        let both = format!("{}{}", chain.presented_pem(), chain.key_pem());
        std::fs::write(folder.join("both.pem"), both)?;
        Ok(Self {
            scratch,
            folder,
            vnc_server: load::vnc_server()?,
            client: load::client(&chain)?,
            chain,
        })
    }
}

/// A port that is free now. Most of these programs can't be told to choose one and say which.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// A program on the search path, in the folders where servers lie, or among the peers that were built.
pub(super) fn find(name: &str, wish: &Wish) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let built = wish.peers.iter().map(|folder| folder.join("bin"));
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    folders
        .chain(built)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

type Starter = fn(&Place<'_>, &Path, SocketAddr) -> anyhow::Result<Command>;

/// Proxies that take TLS themselves: name, program, and the command that starts it.
const PEERS: [(&str, &str, bool, Starter); 7] = [
    ("stunnel", "stunnel", true, stunnel),
    ("haproxy", "haproxy", true, |p, x, a| haproxy(p, x, a, 16)),
    ("haproxy 64 KiB", "haproxy", false, |p, x, a| {
        haproxy(p, x, a, 64)
    }),
    ("nginx", "nginx", true, |p, x, a| nginx(p, x, a, 16)),
    ("nginx 64 KiB", "nginx", false, |p, x, a| nginx(p, x, a, 64)),
    ("socat", "socat", true, |p, x, a| socat(p, x, a, 8)),
    ("socat 64 KiB", "socat", false, |p, x, a| socat(p, x, a, 64)),
];

/// Starts ourselves and every peer that is there; whatever is not, is named.
pub(super) async fn start(
    wish: &Wish,
    place: &Place<'_>,
    missing: &mut Vec<String>,
) -> anyhow::Result<Vec<Candidate>> {
    let program = wish
        .device_end
        .as_deref()
        .context("the device end's program was not named")?;
    let mut candidates = vec![device_end(place, OURS, program).await?];
    if let Some(program) = &wish.beside {
        candidates.push(device_end(place, "umbra, the other build", program).await?);
    }
    if wish.alone {
        return Ok(candidates);
    }
    for (name, program, in_quick_run, command) in PEERS {
        if wish.quick && !in_quick_run {
            continue;
        }
        let Some(program) = find(program, wish) else {
            missing.push(format!("{name}: {program} is not installed"));
            continue;
        };
        let address = free_address()?;
        let program = Program::start(
            place.scratch,
            &name.replace(' ', "-"),
            &mut command(place, &program, address)?,
        )?;
        let door = Door::Tls(Arc::clone(&place.client));
        match ready(name, address, door, program, Vec::new()).await {
            Ok(candidate) => candidates.push(candidate),
            Err(error) => missing.push(format!("{name}: {error:#}")),
        }
    }
    if let Some(program) = find("socat", wish) {
        let address = free_address()?;
        let mut command = Command::new(program);
        command.args(["-b", "65536"]);
        command.arg(format!(
            "TCP-LISTEN:{},bind=127.0.0.1,reuseaddr,fork,backlog=256,nodelay",
            address.port()
        ));
        command.arg(format!("TCP:{},nodelay", place.vnc_server));
        let program = Program::start(place.scratch, "plain-copy", &mut command)?;
        let copy = ready(PLAIN_COPY, address, Door::Plain, program, Vec::new());
        candidates.push(copy.await?);
    }
    match find("rathole", wish) {
        None => missing.push("rathole: it is not installed and was not built".into()),
        Some(program) => match rathole(place, &program).await {
            Ok(candidate) => candidates.push(candidate),
            Err(error) => missing.push(format!("rathole: {error:#}")),
        },
    }
    match find("wstunnel", wish) {
        None => missing.push("wstunnel: it is on no registry, and not on the search path".into()),
        Some(program) => match wstunnel(place, &program).await {
            Ok(candidate) => candidates.push(candidate),
            Err(error) => missing.push(format!("wstunnel: {error:#}")),
        },
    }
    Ok(candidates)
}

/// Its client stands at the device and dials its server; the console comes to the server in plain text. The client's use counts.
async fn rathole(place: &Place<'_>, program: &Path) -> anyhow::Result<Candidate> {
    const PASSWORD: &str = "bench";
    let identity = place.folder.join("both.p12");
    let folder = place.folder.display();
    let mut export = Command::new("openssl");
    export
        .args(["pkcs12", "-export", "-passout", &format!("pass:{PASSWORD}")])
        .args(["-in", &format!("{folder}/both.pem"), "-out"])
        .arg(&identity);
    let exported = run(place.scratch, "openssl", &mut export, b"", START).await?;
    ensure!(
        exported.status.success(),
        "openssl ended with {}",
        exported.status
    );
    let (middle, address) = (free_address()?, free_address()?);
    let server = format!(
        "[server]\nbind_addr = \"{middle}\"\ndefault_token = \"bench\"\n[server.transport]\ntype = \"tls\"\n\
         [server.transport.tls]\npkcs12 = \"{}\"\npkcs12_password = \"{PASSWORD}\"\n\
         [server.services.vnc]\nbind_addr = \"{address}\"\n",
        identity.display()
    );
    let client = format!(
        "[client]\nremote_addr = \"{middle}\"\ndefault_token = \"bench\"\n[client.transport]\ntype = \"tls\"\n\
         [client.transport.tls]\ntrusted_root = \"{folder}/chain.pem\"\nhostname = \"{NAME}\"\n\
         [client.services.vnc]\nlocal_addr = \"{}\"\n",
        place.vnc_server
    );
    let mut command = Command::new(program);
    command.arg(configured(place, "rathole-server.toml", &server)?);
    let server = Program::start(place.scratch, "rathole-server", &mut command)?;
    let mut command = Command::new(program);
    command.arg(configured(place, "rathole-client.toml", &client)?);
    let client = Program::start(place.scratch, "rathole-client", &mut command)?;
    ready("rathole", address, Door::Plain, client, vec![server]).await
}

/// Its server stands at the device and takes TLS; the console comes to its client in plain text. The server's use counts.
async fn wstunnel(place: &Place<'_>, program: &Path) -> anyhow::Result<Candidate> {
    let (middle, address) = (free_address()?, free_address()?);
    let mut command = Command::new(program);
    command.arg("server");
    for (option, file) in [
        ("--tls-certificate", "chain.pem"),
        ("--tls-private-key", "key.pem"),
    ] {
        command.arg(option).arg(place.folder.join(file));
    }
    command.arg(format!("wss://{middle}"));
    let server = Program::start(place.scratch, "wstunnel-server", &mut command)?;
    let mut command = Command::new(program);
    command
        .args(["client", "-L"])
        .arg(format!("tcp://{address}:{}", place.vnc_server))
        .arg(format!("wss://{middle}"));
    let client = Program::start(place.scratch, "wstunnel-client", &mut command)?;
    ready("wstunnel", address, Door::Plain, server, vec![client]).await
}

async fn ready(
    name: &'static str,
    address: SocketAddr,
    door: Door,
    program: Program,
    others: Vec<Program>,
) -> anyhow::Result<Candidate> {
    let opened = eventually_is("it to let a console through", START, || {
        Tunnel::open(address, &door).map(drop)
    });
    opened
        .await
        .with_context(|| format!("{name} does not work"))?;
    let family = Family::of(program.pid());
    let mut programs = others;
    programs.push(program);
    Ok(Candidate {
        name,
        address,
        door,
        family,
        _programs: programs,
    })
}

async fn device_end(
    place: &Place<'_>,
    name: &'static str,
    program: &Path,
) -> anyhow::Result<Candidate> {
    let mut command = Command::new(program);
    command
        .args(["127.0.0.1:0", &place.vnc_server.to_string()])
        .arg(place.folder.join("chain.pem"))
        .arg(place.folder.join("key.pem"));
    let mut program = Program::start(place.scratch, "device-end", &mut command)?;
    let line = program.wait_for_line("listening on ", START).await?;
    let address = line.trim_start_matches("listening on ").parse()?;
    let door = Door::Preface(Arc::clone(&place.client));
    ready(name, address, door, program, Vec::new()).await
}

pub(super) fn configured(place: &Place<'_>, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = place.scratch.path(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn stunnel(place: &Place<'_>, program: &Path, address: SocketAddr) -> anyhow::Result<Command> {
    let folder = place.folder.display();
    let text = format!(
        "foreground = yes\npid =\nsyslog = no\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
         [vnc]\naccept = {address}\nconnect = {}\ncert = {folder}/both.pem\nsslVersionMin = TLSv1.3\n",
        place.vnc_server
    );
    let mut command = Command::new(program);
    command.arg(configured(place, "stunnel.conf", &text)?);
    Ok(command)
}

fn haproxy(
    place: &Place<'_>,
    program: &Path,
    address: SocketAddr,
    kib: u32,
) -> anyhow::Result<Command> {
    let folder = place.folder.display();
    let text = format!(
        "global\n  maxconn 2000\n  tune.bufsize {}\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend vnc\n  bind {address} ssl crt {folder}/both.pem ssl-min-ver TLSv1.3\n  default_backend vnc\n\
         backend vnc\n  server vnc {}\n",
        kib * 1024,
        place.vnc_server
    );
    let mut command = Command::new(program);
    command
        .arg("-f")
        .arg(configured(place, &format!("haproxy-{kib}.cfg"), &text)?);
    Ok(command)
}

fn nginx(
    place: &Place<'_>,
    program: &Path,
    address: SocketAddr,
    kib: u32,
) -> anyhow::Result<Command> {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let (folder, scratch) = (place.folder.display(), place.scratch.root().display());
    let module = match Path::new(MODULE).is_file() {
        true => format!("load_module {MODULE};\n"),
        // Built in.
        false => String::new(),
    };
    let text = format!(
        "{module}daemon off;\nmaster_process off;\npid {scratch}/nginx-{kib}.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 4096; }}\n\
         stream {{ server {{\n  listen {address} ssl;\n  ssl_certificate {folder}/chain.pem;\n  ssl_certificate_key {folder}/key.pem;\n\
         ssl_protocols TLSv1.3;\n  ssl_session_tickets off;\n  proxy_buffer_size {kib}k;\n  tcp_nodelay on;\n  proxy_pass {};\n}} }}\n",
        place.vnc_server
    );
    let mut command = Command::new(program);
    command
        .arg("-p")
        .arg(place.scratch.root())
        .arg("-c")
        .arg(configured(place, &format!("nginx-{kib}.conf"), &text)?);
    Ok(command)
}

fn socat(
    place: &Place<'_>,
    program: &Path,
    address: SocketAddr,
    kib: u32,
) -> anyhow::Result<Command> {
    let folder = place.folder.display();
    let mut command = Command::new(program);
    command.args(["-b", &(kib * 1024).to_string()]);
    command.arg(format!(
        "OPENSSL-LISTEN:{},bind=127.0.0.1,reuseaddr,fork,backlog=256,nodelay,cert={folder}/both.pem,verify=0,openssl-min-proto-version=TLS1.3",
        address.port()
    ));
    command.arg(format!("TCP:{},nodelay", place.vnc_server));
    Ok(command)
}
