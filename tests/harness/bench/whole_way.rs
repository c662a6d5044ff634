//! The whole way from a viewer to a VNC server, through the programs that ship: the console's end, the agent, and a gateway between them,
//! with a real ticket of a real server. Beside it the viewer without anything in between, two stunnels, and nginx as a WebSocket
//! reverse proxy between two ends that speak TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::{TcpStream, UnixStream};

use super::Wish;
use super::load::{self, Door, Tunnel, Way, move_bytes};
use super::peers::{self, Place, free_address};
use super::process::Family;
use super::report::{OURS, Quantity, Section, less, more, percentile};
use crate::eventually::eventually_is;
use crate::program::Program;
use crate::rfb_client::{Options, RfbClient};
use crate::scratch::Scratch;
use crate::world::{
    Console, Device, DeviceConfig, Gateway, GatewayConfig, Server, ServerConfig, Shadow,
};
use crate::x11::XServer;

const ABOUT: &str = "From a viewer to a VNC server through two ends, on loopback: `umbra` is `umbra shadow` and `umbra-agent` with a ticket of \
`umbra-server`, `umbra by gateway` the same with `umbra-gateway` between them. The bytes of the first rows come from a source that sends as \
fast as it can. Those of the others are a real screen (Xtigervnc, 1280x800): whole frames, uncompressed, one after the other; and a key press \
in a terminal until the changed pixels are at the viewer. The viewer is the harness' own. CPU of nginx is compared with the gateway's.";

const BY_GATEWAY: &str = "umbra by gateway";
const NOTHING: &str = "nothing in between";
const STUNNELS: &str = "two stunnels";
const NGINX: &str = "nginx, WebSocket";

const AT_DEVICE: Quantity = less("CPU at the device, pixels' way", "s/GiB");
const AT_CONSOLE: Quantity = less("CPU at the console, pixels' way", "s/GiB");
const BETWEEN: Quantity = less("CPU in between, pixels' way", "s/GiB");
const RATE: Quantity = more("throughput, pixels' way", "MiB/s");
const FRAMES: Quantity = more("whole frames of a screen", "per s");
const FRAME_BYTES: Quantity = more("their pixels", "MiB/s");
const FRAME_AT_DEVICE: Quantity = less("CPU at the device for a frame", "ms");
const KEY: Quantity = less("key press to changed pixels, p50", "ms");
const KEY_LATE: Quantity = less("key press to changed pixels, p95", "ms");

/// Where a letter is typed.
const LETTER: u32 = b'x' as u32;

/// One way from viewer to screen, with everything on it open.
struct Route {
    name: &'static str,
    bulk: Tunnel,
    device: Option<Family>,
    console: Option<Family>,
    between: Option<Family>,
    viewer: Option<RfbClient<Box<dyn Carrier>>>,
}

trait Carrier: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Carrier for T {}

/// One installation with one device, and the sessions that are open to it.
struct Installation<'s> {
    device: Device<'s>,
    gateway: Option<Gateway<'s>>,
    console: Console<'s>,
    name: String,
    _server: Server<'s>,
}

impl<'s> Installation<'s> {
    async fn start(
        scratch: &'s Scratch,
        with_gateway: bool,
        vnc_server: SocketAddr,
    ) -> anyhow::Result<Self> {
        let config = ServerConfig {
            heartbeat: 40,
            ..ServerConfig::default()
        };
        let server = Server::start(scratch, config).await?;
        let console = Console::administrator(scratch, &server).await?;
        let gateway = if with_gateway {
            let gateway = Gateway::start(scratch, &console, GatewayConfig::default()).await?;
            gateway.wait_until_attached(&console, true).await?;
            Some(gateway)
        } else {
            None
        };
        let mut config = DeviceConfig::default();
        config.set_text("umbra.vncserver.upstream", &format!("tcp:{vnc_server}"));
        config.set("network.vncserver.instances", "2");
        if with_gateway {
            config
                .set("system.remotemanager.enable_icg", "true")
                .set_text("system.remotemanager.connectorranking", "icg");
        }
        let mut device = Device::new(scratch, "device", config)?;
        device.start()?;
        let key = console.one_time_key().await?;
        let address = gateway
            .as_ref()
            .map_or(server.address_for_devices(), Gateway::external);
        device.enrol_at(address, server.fingerprint(), &key).await?;
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        Ok(Self {
            device,
            gateway,
            console,
            name,
            _server: server,
        })
    }

    async fn shadow(&self) -> anyhow::Result<(Shadow, SocketAddr)> {
        let shadow = self
            .console
            .shadow(&self.name, &["--reason", "bench"])
            .await?;
        let address = shadow.address().context("the console names no address")?;
        Ok((shadow, address))
    }
}

pub(super) async fn measure(
    wish: &Wish,
    scratch: &Scratch,
    say: &impl Fn(&str),
) -> anyhow::Result<Section> {
    let mut section = Section::new("whole-way", ABOUT);
    let place = Place::new(scratch)?;
    let socket = scratch.path("screen.sock");
    let screen = XServer::xtigervnc(scratch, 1280, 800, &socket).await?;
    let _terminal = screen.terminal(scratch, &scratch.path("typed"))?;

    let (direct_scratch, gateway_scratch) = (Scratch::new()?, Scratch::new()?);
    let mut direct = Installation::start(&direct_scratch, false, place.vnc_server).await?;
    let mut by_gateway = Installation::start(&gateway_scratch, true, place.vnc_server).await?;
    let mut shadows = Vec::new();
    let mut routes = Vec::new();
    for (name, installation) in [(OURS, &mut direct), (BY_GATEWAY, &mut by_gateway)] {
        let (mut shadow, address) = installation.shadow().await?;
        let bulk =
            tokio::task::spawn_blocking(move || Tunnel::open(address, &Door::Plain)).await??;
        let upstream = format!("unix:{}", socket.display());
        installation
            .device
            .set("umbra.vncserver.upstream", &upstream)
            .await?;
        let (screen_shadow, address) = installation.shadow().await?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let viewer = viewer(Box::new(stream)).await?;
        let agent = installation.device.program().context("no agent runs")?;
        routes.push(Route {
            name,
            bulk,
            device: Some(Family::of(agent.pid())),
            console: Some(Family::of(shadow.program().pid())),
            between: installation
                .gateway
                .as_mut()
                .map(|gateway| Family::of(gateway.program().pid())),
            viewer: Some(viewer),
        });
        shadows.extend([shadow, screen_shadow]);
    }
    let mut programs = Vec::new();
    routes.push(Route {
        name: NOTHING,
        bulk: Tunnel::open(place.vnc_server, &Door::Plain)?,
        device: None,
        console: None,
        between: None,
        viewer: Some(viewer(Box::new(UnixStream::connect(&socket).await?)).await?),
    });
    match peers::find("stunnel", wish) {
        Some(program) => {
            let (route, started) = stunnels(&place, &program, &socket).await?;
            routes.push(route);
            programs.extend(started);
        }
        None => section
            .missing
            .push("two stunnels: stunnel is not installed".into()),
    }
    match peers::find("nginx", wish) {
        Some(program) => {
            let (route, started) = nginx(&place, &program).await?;
            routes.push(route);
            programs.push(started);
        }
        None => section.missing.push("nginx: it is not installed".into()),
    }
    section
        .missing
        .push("`x11vnc -ssl`: it is a VNC server of its own, and another server's frames say nothing of a proxy".into());

    let rounds = wish.pick(3, 7);
    for round in 1..=rounds {
        say(&format!("    round {round} of {rounds}"));
        routes.rotate_left(1);
        for route in &mut routes {
            let name = route.name;
            carry(route, wish.pick(128 << 20, 512 << 20), &mut section)
                .with_context(|| format!("{name}: bulk"))?;
        }
        for route in &mut routes {
            let name = route.name;
            frames(route, wish.pick(20, 60), &mut section)
                .await
                .with_context(|| format!("{name}: frames"))?;
        }
        for route in &mut routes {
            let name = route.name;
            keys(route, wish.pick(20, 60), &mut section)
                .await
                .with_context(|| format!("{name}: keys"))?;
        }
    }
    drop(routes);
    drop((shadows, programs));
    Ok(section.finished())
}

/// How long a terminal may paint after a key.
const SETTLED: Duration = Duration::from_millis(40);

async fn viewer(stream: Box<dyn Carrier>) -> anyhow::Result<RfbClient<Box<dyn Carrier>>> {
    let options = Options {
        encodings: vec![crate::rfb::RAW],
        ..Options::default()
    };
    let mut viewer = RfbClient::start(stream, &options).await?;
    viewer.refresh().await?;
    Ok(viewer)
}

fn carry(route: &mut Route, bytes: u64, section: &mut Section) -> std::io::Result<()> {
    let reading = |route: &Route| {
        [&route.device, &route.console, &route.between]
            .map(|family| family.as_ref().map(Family::cpu_of_living))
    };
    let before = reading(route);
    let took = move_bytes(std::slice::from_mut(&mut route.bulk), Way::Down, bytes)?;
    let after = reading(route);
    let gib = bytes as f64 / f64::from(1 << 30);
    for (index, quantity) in [AT_DEVICE, AT_CONSOLE, BETWEEN].iter().enumerate() {
        if let (Some(before), Some(after)) = (before[index], after[index]) {
            section.note(quantity, route.name, (after - before) / gib);
        }
    }
    section.note(&RATE, route.name, gib * 1024.0 / took.as_secs_f64());
    Ok(())
}

async fn frames(route: &mut Route, count: u32, section: &mut Section) -> anyhow::Result<()> {
    let Some(viewer) = &mut route.viewer else {
        return Ok(());
    };
    let before = route.device.as_ref().map(Family::cpu_of_living);
    let (start, bytes) = (Instant::now(), viewer.tally().bytes_in);
    for _ in 0..count {
        viewer.refresh().await?;
    }
    let took = start.elapsed().as_secs_f64();
    let mib = (viewer.tally().bytes_in - bytes) as f64 / f64::from(1 << 20);
    section.note(&FRAMES, route.name, f64::from(count) / took);
    section.note(&FRAME_BYTES, route.name, mib / took);
    if let (Some(family), Some(before)) = (&route.device, before) {
        let cpu = family.cpu_of_living() - before;
        section.note(&FRAME_AT_DEVICE, route.name, cpu * 1e3 / f64::from(count));
    }
    Ok(())
}

async fn keys(route: &mut Route, count: u32, section: &mut Section) -> anyhow::Result<()> {
    let Some(viewer) = &mut route.viewer else {
        return Ok(());
    };
    // Keys go to the window under the pointer, since no window manager runs.
    viewer.pointer(0, 100, 100).await?;
    let mut times = Vec::new();
    for _ in 0..count {
        // What still came of the key before, or of what others typed, is not to be taken for the answer: once it is painted, the
        // whole screen is asked for, and only what changes after that is told.
        tokio::time::sleep(SETTLED).await;
        viewer.refresh().await?;
        let start = Instant::now();
        viewer.key(LETTER, true).await?;
        viewer.key(LETTER, false).await?;
        while viewer.follow().await?.is_empty() {}
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    section.note(&KEY, route.name, percentile(&times, 50.0));
    section.note(&KEY_LATE, route.name, percentile(&times, 95.0));
    Ok(())
}

/// One stunnel at the console and one at the device, for the source of bytes and for the screen.
async fn stunnels(
    place: &Place<'_>,
    program: &Path,
    socket: &Path,
) -> anyhow::Result<(Route, Vec<Program>)> {
    let folder = place.folder.display();
    let [bulk, bulk_middle, screen, screen_middle] = [
        free_address()?,
        free_address()?,
        free_address()?,
        free_address()?,
    ];
    let common = "foreground = yes\npid =\nsyslog = no\ndebug = 3\nsslVersionMin = TLSv1.3\n\
                  socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n";
    let device = format!(
        "{common}cert = {folder}/both.pem\n[bulk]\naccept = {bulk_middle}\nconnect = {}\n\
         [screen]\naccept = {screen_middle}\nconnect = {}\n",
        place.vnc_server,
        socket.display()
    );
    let console = format!(
        "{common}client = yes\nCAfile = {folder}/chain.pem\nverifyPeer = yes\n\
         [bulk]\naccept = {bulk}\nconnect = {bulk_middle}\n[screen]\naccept = {screen}\nconnect = {screen_middle}\n"
    );
    let mut started = Vec::new();
    for (name, text) in [("stunnel-device", device), ("stunnel-console", console)] {
        let mut command = Command::new(program);
        command.arg(peers::configured(place, &format!("{name}.conf"), &text)?);
        started.push(Program::start(place.scratch, name, &mut command)?);
    }
    let tunnel = eventually_is("the stunnels to work", peers::START, || {
        Tunnel::open(bulk, &Door::Plain)
    })
    .await?;
    let stream = TcpStream::connect(screen).await?;
    stream.set_nodelay(true)?;
    let route = Route {
        name: STUNNELS,
        bulk: tunnel,
        device: started.first().map(|program| Family::of(program.pid())),
        console: started.get(1).map(|program| Family::of(program.pid())),
        between: None,
        viewer: Some(viewer(Box::new(stream)).await?),
    };
    Ok((route, started))
}

/// Nginx between two ends that speak TLS, as the gateway stands between two that do.
async fn nginx(place: &Place<'_>, program: &Path) -> anyhow::Result<(Route, Program)> {
    let behind = load::web_socket_server(&place.chain)?;
    let address = free_address()?;
    let (folder, scratch) = (place.folder.display(), place.scratch.root().display());
    let text = format!(
        "daemon off;\nmaster_process off;\npid {scratch}/nginx-ws.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/f; uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;\n\
         server {{ listen {address} ssl; ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.3;\n\
         location / {{ proxy_pass https://{behind}; proxy_ssl_protocols TLSv1.3; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_buffer_size 64k; proxy_buffers 4 64k; }} }} }}\n"
    );
    let mut command = Command::new(program);
    command
        .arg("-p")
        .arg(place.scratch.root())
        .arg("-c")
        .arg(peers::configured(place, "nginx-ws.conf", &text)?);
    let started = Program::start(place.scratch, "nginx-ws", &mut command)?;
    let door = Door::WebSocket(Arc::clone(&place.client));
    let tunnel = eventually_is("nginx to work", peers::START, || {
        Tunnel::open(address, &door)
    });
    let route = Route {
        name: NGINX,
        bulk: tunnel.await?,
        device: None,
        console: None,
        between: Some(Family::of(started.pid())),
        viewer: None,
    };
    Ok((route, started))
}
