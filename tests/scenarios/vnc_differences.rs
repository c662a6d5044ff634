//! Our reading of RFB beside that of others: the same bytes go to a real VNC server directly and through a session that may only look,
//! and a real viewer's own bytes go through such a session. What we let through must be framed there as it was framed here, or a
//! message that was taken for harmless could hide one that types.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::program::{Program, run};
use umbra_tests::rfb::{PixelFormat, RAW};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig, World};
use umbra_tests::x11::{XServer, vncdo};

const WIDTH: u16 = 160;
const HEIGHT: u16 = 120;
/// Pseudo-encoding: the screen's size and its parts.
const SIZES: i32 = -308;
/// How long a server that has lost its place is waited for. It costs the time of a run and decides nothing: who answers is in step.
const LOST: Duration = Duration::from_secs(4);
/// How often a picture is asked for again meanwhile.
const AGAIN: Duration = Duration::from_millis(500);

/// Messages that viewers send, in the order of their types, each complete.
fn sent_by_viewers() -> Vec<(&'static str, Vec<u8>)> {
    let encodings = |list: &[i32]| {
        let mut message = vec![2, 0];
        message.extend(u16::try_from(list.len()).unwrap_or(0).to_be_bytes());
        list.iter()
            .for_each(|one| message.extend(one.to_be_bytes()));
        message
    };
    let cut_text = |text: &[u8]| {
        let mut message = vec![6, 0, 0, 0];
        message.extend(u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
        message.extend(text);
        message
    };
    let mut format_of_a_byte = vec![0, 0, 0, 0];
    format_of_a_byte.extend(PixelFormat::RGB332.to_wire());
    vec![
        ("SetPixelFormat", format_of_a_byte),
        (
            "SetEncodings",
            // Without a pointer of the viewer's own: TigerVNC hangs up on one that takes that wish back.
            encodings(&[16, 7, 5, 1, 0, -223, -224, -308, -26, -252]),
        ),
        ("SetEncodings without any", encodings(&[])),
        // Ultra, GII, extended mouse buttons, and numbers that nobody has: they go, and the list stays whole.
        (
            "SetEncodings with strange ones",
            encodings(&[9, -305, -316, 77, i32::MIN, 0]),
        ),
        (
            "an update request that is incremental",
            vec![3, 1, 0, 0, 0, 0, 0, 10, 0, 10],
        ),
        ("KeyEvent", vec![4, 1, 0, 0, 0, 0, 0, b'a']),
        ("PointerEvent", vec![5, 0, 0, 20, 0, 20]),
        ("ClientCutText", cut_text(b"copied")),
        // The text looks like a key and a click.
        (
            "ClientCutText that looks like more",
            cut_text(&[4, 1, 0, 0, 0, 0, 0, b'a', 5, 1, 0, 9, 0, 9]),
        ),
        ("ClientCutText without a text", cut_text(b"")),
        ("SetDesktopSize", {
            // Only after the wish for sizes: without it, TigerVNC's server falls over.
            let mut message = encodings(&[RAW, SIZES]);
            message.extend([251, 0, 0, 160, 0, 120, 1, 0]);
            message.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 160, 0, 120, 0, 0, 0, 0]);
            message
        }),
        // What a viewer only sends to a server that has offered it; who has not may hang up.
        (
            "EnableContinuousUpdates",
            vec![150, 0, 0, 0, 0, 0, 0, 160, 0, 120],
        ),
        ("ClientFence", vec![248, 0, 0, 0, 0, 0, 0, 0, 2, 4, 1]),
    ]
}

/// What no viewer sends.
fn sent_by_nobody() -> Vec<(&'static str, Vec<u8>)> {
    let long = |length: u32| {
        let mut message = vec![6, 0, 0, 0];
        message.extend(length.to_be_bytes());
        message.extend([4, 1, 0, 0, 0, 0, 0, b'a'].repeat(4));
        message
    };
    vec![
        ("a text of 2 GiB with keys in it", long(0x7fff_ffff)),
        (
            "an extended text for a server that has none",
            long((-32_i32).cast_unsigned()),
        ),
        ("an unknown type", vec![77, 4, 1, 0, 0, 0, 0, 0, b'a']),
        (
            "65,535 encodings",
            vec![2, 0, 255, 255, 4, 1, 0, 0, 0, 0, 0, b'a'],
        ),
        (
            "a fence that is too long",
            [vec![248, 0, 0, 0, 0, 0, 0, 0, 255], vec![4; 255]].concat(),
        ),
        (
            "a QEMU message of an unknown type",
            vec![255, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ]
}

/// The seeds of the fuzz target of the filter, so that what was found once is held against real servers ever after.
fn seeds() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vnc-proxy/fuzz/seeds/input_filter");
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let bytes = std::fs::read(entry.path())?;
        // The first byte chooses the policy there.
        let bytes = bytes.get(1..).unwrap_or_default().to_vec();
        seeds.push((entry.file_name().to_string_lossy().into_owned(), bytes));
    }
    ensure!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds.sort();
    Ok(seeds)
}

/// A viewer that says what it is told to, byte by byte.
struct Viewer<S> {
    stream: S,
    width: u16,
    height: u16,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Viewer<S> {
    /// Shakes hands with a server that asks for no password.
    async fn start(mut stream: S) -> anyhow::Result<Self> {
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        stream.write_all(b"RFB 003.008\n").await?;
        let count = stream.read_u8().await?;
        let mut offered = vec![0; usize::from(count)];
        stream.read_exact(&mut offered).await?;
        ensure!(offered.contains(&1), "offered {offered:?}");
        stream.write_all(&[1]).await?;
        ensure!(stream.read_u32().await? == 0, "not let in");
        stream.write_all(&[1]).await?;
        let (width, height) = (stream.read_u16().await?, stream.read_u16().await?);
        let mut format = [0; 16];
        stream.read_exact(&mut format).await?;
        let name = stream.read_u32().await?;
        ensure!(name < 4096, "a name of {name} bytes");
        stream
            .read_exact(&mut vec![0; usize::try_from(name)?])
            .await?;
        Ok(Self {
            stream,
            width,
            height,
        })
    }

    /// Says these bytes, and then asks for the whole picture, uncoded: whether it comes. It only comes if the server has understood
    /// where the bytes ended.
    async fn is_in_step_after(&mut self, bytes: &[u8]) -> bool {
        let mut words = bytes.to_vec();
        words.extend([0, 0, 0, 0]);
        words.extend(PixelFormat::NATIVE.to_wire());
        // With the wish for sizes, which TigerVNC hangs up on if it is taken back.
        words.extend([2, 0, 0, 2]);
        words.extend(RAW.to_be_bytes());
        words.extend(SIZES.to_be_bytes());
        let mut request = vec![3, 0, 0, 0, 0, 0];
        request.extend(self.width.to_be_bytes());
        request.extend(self.height.to_be_bytes());
        words.extend(&request);
        // What has changed: an answer to the first request may tell sizes, and hold no picture.
        request[1] = 1;
        let picture = usize::from(self.width) * usize::from(self.height) * 4;
        let whole = async {
            self.stream.write_all(&words).await.ok()?;
            let mut seen = 0;
            let mut part = vec![0; 64 * 1024];
            while seen < picture {
                match timeout(AGAIN, self.stream.read(&mut part)).await {
                    Ok(Ok(0) | Err(_)) => return None,
                    Ok(Ok(count)) => seen += count,
                    Err(_) if seen > 0 => self.stream.write_all(&request).await.ok()?,
                    Err(_) => {}
                }
            }
            Some(())
        };
        matches!(timeout(LOST, whole).await, Ok(Some(())))
    }
}

/// A real VNC server: how a device reaches it, and how a viewer does without any of us.
enum Real<'s> {
    Socket(&'s Path),
    Port(std::net::SocketAddr),
}

impl Real<'_> {
    fn upstream(&self) -> String {
        match self {
            Self::Socket(path) => format!("unix:{}", path.display()),
            Self::Port(address) => format!("tcp:{address}"),
        }
    }

    async fn is_in_step_after(&self, bytes: &[u8]) -> anyhow::Result<bool> {
        Ok(match self {
            Self::Socket(path) => {
                Viewer::start(UnixStream::connect(path).await?)
                    .await?
                    .is_in_step_after(bytes)
                    .await
            }
            Self::Port(address) => {
                Viewer::start(TcpStream::connect(address).await?)
                    .await?
                    .is_in_step_after(bytes)
                    .await
            }
        })
    }
}

/// Whether this version line of a viewer is answered with an offer.
async fn goes_on_after(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &[u8; 12],
) -> anyhow::Result<bool> {
    let mut greeting = [0; 12];
    stream.read_exact(&mut greeting).await?;
    stream.write_all(line).await?;
    // An offer of types, or for old viewers the type itself; a refusal begins with a zero, or is none but the end.
    let first = timeout(SOON, stream.read_u8()).await;
    match first {
        Ok(Ok(0)) => {
            let mut rest = [0; 3];
            let read = timeout(SOON, stream.read_exact(&mut rest)).await;
            Ok(matches!(read, Ok(Ok(_))) && rest == [0, 0, 1])
        }
        Ok(Ok(_)) => Ok(true),
        Ok(Err(_)) | Err(_) => Ok(false),
    }
}

/// A device in front of this VNC server, taken on.
async fn in_front_of<'s>(
    scratch: &'s Scratch,
    real: &Real<'_>,
) -> anyhow::Result<(Server<'s>, Console<'s>, Device<'s>, String)> {
    let server = Server::start(scratch, ServerConfig::default()).await?;
    let console = Console::administrator(scratch, &server).await?;
    let mut config = DeviceConfig::default();
    config
        .set("network.vncserver.enabled", "true")
        .set("network.vncserver.promptuser", "false")
        .set_text("umbra.vncserver.upstream", &real.upstream());
    let mut device = Device::new(scratch, "device", config)?;
    device.start()?;
    let key = console.one_time_key().await?;
    device.enrol(&server, &key).await?;
    device.wait_until_online().await?;
    let name = device.unit_id().await?;
    Ok((server, console, device, name))
}

/// Where the pointer of a real screen is.
async fn pointer(scratch: &Scratch, screen: &XServer) -> anyhow::Result<String> {
    let mut command = screen.command("xdotool")?;
    let output = run(
        scratch,
        "xdotool",
        command.arg("getmouselocation"),
        b"",
        SOON,
    )
    .await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Every message, each to a server of its own and through us.
async fn compare(scratch: &Scratch, screen: &XServer, real: &Real<'_>) -> anyhow::Result<()> {
    let (_server, console, _device, name) = in_front_of(scratch, real).await?;
    let before = pointer(scratch, screen).await?;
    // What this server takes of what viewers send. Each connection is a new one: nothing is known of one that has lost its place.
    let mut taken = Vec::new();
    for (what, bytes) in sent_by_viewers() {
        if real.is_in_step_after(&bytes).await.context(what)? {
            taken.push((what, bytes));
        }
    }
    ensure!(
        taken.len() >= 10,
        "only {} messages are understood",
        taken.len()
    );
    ensure!(
        pointer(scratch, screen).await? != before,
        "the server has moved no pointer: nothing would be seen of a click that passes"
    );
    let before = pointer(scratch, screen).await?;
    // One session for all of it: each message has to leave it in step for the next.
    let shadow = console.shadow(&name, &["--view-only"]).await?;
    let stream = TcpStream::connect(shadow.address().context("no address")?).await?;
    let mut through = Viewer::start(stream).await?;
    for (what, bytes) in taken {
        // At another place than where the pointer is.
        let bytes = if bytes[0] == 5 {
            vec![5, 0, 0, 70, 0, 70]
        } else {
            bytes
        };
        ensure!(
            through.is_in_step_after(&bytes).await,
            "{what} was refused, or is framed otherwise there"
        );
    }
    drop((through, shadow));
    ensure!(
        pointer(scratch, screen).await? == before,
        "who may only look has moved the pointer"
    );

    let mut refused = 0;
    let strange = sent_by_nobody()
        .into_iter()
        .map(|(what, bytes)| (what.to_owned(), bytes));
    for (what, bytes) in strange.chain(seeds()?) {
        let directly = real
            .is_in_step_after(&bytes)
            .await
            .with_context(|| what.clone())?;
        let before = pointer(scratch, screen).await?;
        let mut shadow = console.shadow(&name, &["--view-only"]).await?;
        let stream = TcpStream::connect(shadow.address().context("no address")?).await?;
        let mut viewer = Viewer::start(stream).await?;
        let in_step = viewer.is_in_step_after(&bytes).await;
        drop(viewer);
        ensure!(
            pointer(scratch, screen).await? == before,
            "{what}: who may only look has moved the pointer"
        );
        if in_step {
            continue;
        }
        // Nothing came of it. Then we have said no, or the server has hung up on what it does not know, as it does directly. One that
        // goes on in silence has lost its place, and might take anything for anything.
        let ended = shadow.ended().await?;
        let code = ended
            .get("code")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let hung_up = !directly && ["vnc_server_closed", "vnc_server_lost"].contains(&code);
        ensure!(
            code == "input_violation" || hung_up,
            "{what}: directly in step: {directly}; through us: {ended}"
        );
        refused += u32::from(code == "input_violation");
    }
    ensure!(
        refused >= 3,
        "only {refused} were refused: is there a filter at all?"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_filter_lets_through_xtigervnc_reads_as_it_was_meant() {
    scenario(async |scratch| {
        let socket = scratch.path("vnc.sock");
        let screen = XServer::xtigervnc(scratch, WIDTH, HEIGHT, &socket).await?;
        compare(scratch, &screen, &Real::Socket(&socket)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_filter_lets_through_x11vnc_reads_as_it_was_meant() {
    scenario(async |scratch| {
        let screen = XServer::xvfb(scratch, WIDTH, HEIGHT).await?;
        let (_program, address) = screen.x11vnc(scratch).await?;
        compare(scratch, &screen, &Real::Port(address)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_whose_version_a_real_vnc_server_takes_is_greeted_through_a_session_too() {
    scenario(async |scratch| {
        let screen = XServer::xvfb(scratch, WIDTH, HEIGHT).await?;
        let (_program, address) = screen.x11vnc(scratch).await?;
        let real = Real::Port(address);
        let (_server, console, _device, name) = in_front_of(scratch, &real).await?;
        let mut taken = 0;
        // The three of the RFC, Apple's, RealVNC's, what comes between and after, and none.
        for (number, line) in [
            b"RFB 003.003\n",
            b"RFB 003.005\n",
            b"RFB 003.007\n",
            b"RFB 003.008\n",
            b"RFB 003.889\n",
            b"RFB 004.001\n",
            b"RFB 005.000\n",
            b"RFB 3.8    \n",
            b"GET / HTTP/1",
        ]
        .into_iter()
        .enumerate()
        {
            // A server of its own for each: one that was hung up on too often lets nobody in.
            let asked = scratch.path(&format!("asked-{number}.sock"));
            let _asked = XServer::xtigervnc(scratch, WIDTH, HEIGHT, &asked).await?;
            let directly = goes_on_after(UnixStream::connect(&asked).await?, line).await?;
            let shadow = console.shadow(&name, &[]).await?;
            let stream = TcpStream::connect(shadow.address().context("no address")?).await?;
            let through = goes_on_after(stream, line).await?;
            let line = String::from_utf8_lossy(line);
            // Some servers also read what no viewer says; we do not.
            let is_version = line.strip_suffix('\n').is_some_and(|line| {
                let digits = line.replace("RFB ", "").replace('.', "");
                line.len() == 11 && digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit())
            });
            ensure!(
                through || !directly || !is_version,
                "{line:?}: a real server goes on, and we do not"
            );
            ensure!(
                !through || is_version,
                "{line:?}: we go on with what is no version"
            );
            taken += u32::from(directly && through);
        }
        ensure!(taken >= 4, "only {taken} versions were taken by both");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_real_viewer_sends_ends_a_session_that_may_only_look() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        world.desktop.freeze(true);
        let name = world.device_name().await?;
        // TigerVNC's viewer, with a person who types, clicks, copies and pastes.
        let shadow = world.console.shadow(&name, &["--view-only"]).await?;
        let screen = XServer::xvfb(scratch, 800, 600).await?;
        let mut viewer = screen.vncviewer(scratch, shadow.address().context("no address")?)?;
        let shows = async || {
            let shown = screen
                .screenshot(scratch)
                .await
                .map_err(|error| error.to_string())?;
            let apart = shown
                .difference(&world.desktop.framebuffer(), 8)
                .ok_or("another size")?;
            if apart.differing_share < 0.01 {
                Ok(())
            } else {
                Err(format!("{apart:?}"))
            }
        };
        eventually("the viewer to show the device's screen", PATIENCE, shows).await?;
        for words in [
            &["type", "abc"][..],
            &["key", "ctrl+alt+F1"],
            &["mousemove", "400", "300", "click", "1"],
            &["click", "4", "click", "5", "click", "8"],
            &[
                "mousemove",
                "100",
                "100",
                "mousedown",
                "1",
                "mousemove",
                "200",
                "200",
                "mouseup",
                "1",
            ],
        ] {
            let mut command = screen.command("xdotool")?;
            run(scratch, "xdotool", command.args(words), b"", SOON).await?;
        }
        let copied = scratch.path("copied");
        std::fs::write(&copied, "gr\u{fc}\u{df}e")?;
        let mut copy = screen.command("xclip")?;
        copy.args(["-selection", "clipboard", "-quiet", "-in"])
            .arg(&copied);
        // It stays for as long as somebody may want to paste.
        let _copied = Program::start(scratch, "xclip", &mut copy)?;
        // The picture changes once more, and that is seen: all that was sent before has been through the filter.
        world.desktop.freeze(false);
        world.desktop.freeze(true);
        eventually("the viewer to follow", PATIENCE, shows).await?;
        ensure!(viewer.exited().is_none(), "the viewer has ended");
        ensure!(
            world.desktop.typed().is_empty(),
            "{:?}",
            world.desktop.events()
        );
        drop((viewer, shadow));

        // The scriptable one, which ends by itself and would fail if the session did.
        let captured = scratch.path("captured.png").display().to_string();
        let shadow = world.console.shadow(&name, &["--view-only"]).await?;
        let actions = [
            "type", "abc", "move", "10", "10", "click", "1", "pause", "0.2", "capture", &captured,
        ];
        vncdo(scratch, shadow.address().context("no address")?, &actions).await?;
        ensure!(
            world.desktop.typed().is_empty(),
            "{:?}",
            world.desktop.events()
        );
        eventually_is("the picture", SOON, || {
            std::fs::metadata(&captured).map(drop)
        })
        .await?;
        Ok(())
    })
    .await;
}
