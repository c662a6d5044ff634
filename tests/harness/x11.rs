//! Real X servers, VNC servers and viewers for scenarios, each on a display number that it chose itself, with its own
//! authority file and without a TCP port. A program that isn't installed is a failure that names its package.

mod xwd;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::image::{Image, ImageError};
use crate::program::{Program, ProgramError, run};
use crate::scratch::Scratch;

/// How long an X server may take to be there.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a small X program may take.
const RUN_LIMIT: Duration = Duration::from_secs(30);

/// Why a real part could not be used.
#[derive(Debug, thiserror::Error)]
pub enum X11Error {
    /// It isn't installed.
    #[error(
        "{program} is not installed: Debian's package {package} has it (`cargo xtask test` installs it)"
    )]
    NotInstalled {
        /// The program.
        program: String,
        /// Where it comes from.
        package: &'static str,
    },
    /// It failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A file in the scenario's folder could not be written.
    #[error("a file for the X server cannot be written")]
    File(#[source] std::io::Error),
    /// The X server said something else than its display number.
    #[error("the X server did not name its display: {0:?}")]
    Display(String),
    /// The VNC server said something else than its port.
    #[error("x11vnc did not name its port: {0:?}")]
    Port(String),
    /// The screenshot could not be read.
    #[error("the screenshot cannot be read")]
    Screenshot(#[source] ImageError),
    /// A small X program ended with a failure.
    #[error("{program} failed: {said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its last words.
        said: String,
    },
}

/// The programs that scenarios use, with the Debian package that has each.
const PACKAGES: [(&str, &str); 13] = [
    ("Xvfb", "xvfb"),
    ("Xtigervnc", "tigervnc-standalone-server"),
    ("vncviewer", "tigervnc-viewer"),
    ("x11vnc", "x11vnc"),
    ("xterm", "xterm"),
    ("xwd", "x11-apps"),
    ("xclip", "xclip"),
    ("xdotool", "xdotool"),
    ("openssl", "openssl"),
    ("busybox", "busybox-static"),
    ("sway", "sway"),
    ("swaybg", "swaybg"),
    ("wayvnc", "wayvnc"),
];

/// Finds an installed program.
pub fn installed(program: &str) -> Result<PathBuf, X11Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        let package = PACKAGES
            .iter()
            .find(|(name, _)| *name == program)
            .map_or("(unknown)", |(_, package)| package);
        X11Error::NotInstalled {
            program: program.to_owned(),
            package,
        }
    })
}

/// Runs `vncdo`, the scriptable viewer, towards a server on loopback. It is where `UMBRA_VNCDO` says, or in the
/// environment that `cargo xtask test` sets up.
pub async fn vncdo(
    scratch: &Scratch,
    address: SocketAddr,
    actions: &[&str],
) -> Result<(), X11Error> {
    let path = match std::env::var_os("UMBRA_VNCDO") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.test-env/bin/vncdo"),
    };
    if !path.is_file() {
        return Err(X11Error::NotInstalled {
            program: "vncdo".into(),
            package: "vncdotool (from PyPI)",
        });
    }
    let mut command = Command::new(path);
    command
        .arg("-s")
        .arg(format!("{}::{}", address.ip(), address.port()))
        .args(["-t", "40", "--nocursor"]);
    let output = run(scratch, "vncdo", command.args(actions), b"", 2 * RUN_LIMIT).await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(X11Error::Failed {
        program: "vncdo",
        said,
    })
}

/// A running X server.
pub struct XServer {
    program: Program,
    display: u32,
    authority: PathBuf,
}

impl XServer {
    /// A screen in memory.
    pub async fn xvfb(scratch: &Scratch, width: u16, height: u16) -> Result<Self, X11Error> {
        let mut command = Command::new(installed("Xvfb")?);
        command.args(["-screen", "0", &format!("{width}x{height}x24"), "-noreset"]);
        Self::start(scratch, "xvfb", command).await
    }

    /// TigerVNC's server: a screen in memory that speaks RFB itself, on a Unix socket and without a password.
    pub async fn xtigervnc(
        scratch: &Scratch,
        width: u16,
        height: u16,
        socket: &Path,
    ) -> Result<Self, X11Error> {
        let mut command = Command::new(installed("Xtigervnc")?);
        command.args([
            "-geometry",
            &format!("{width}x{height}"),
            "-depth",
            "24",
            "-noreset",
        ]);
        command
            .args(["-SecurityTypes", "None", "-rfbport", "-1", "-rfbunixpath"])
            .arg(socket);
        Self::start(scratch, "xtigervnc", command).await
    }

    async fn start(scratch: &Scratch, name: &str, mut command: Command) -> Result<Self, X11Error> {
        let authority = scratch.path(&format!("{name}-{}.auth", random_hex(4)));
        write_authority(&authority).map_err(X11Error::File)?;
        command
            .args(["-nolisten", "tcp", "-displayfd", "1", "-auth"])
            .arg(&authority);
        let mut program = Program::start(scratch, name, &mut command)?;
        let display = loop {
            // The only line on standard output; what else it says starts differently.
            let limit = START_LIMIT;
            let digits =
                |line: &&String| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
            program.wait_for_line("", limit).await?;
            if let Some(line) = program.lines().iter().find(digits) {
                break line.parse().map_err(|_| X11Error::Display(line.clone()))?;
            }
            if program.exited().is_some() {
                return Err(X11Error::Display(program.lines().join("\n")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Ok(Self {
            program,
            display,
            authority,
        })
    }

    /// The display's name, `:N`.
    pub fn display(&self) -> String {
        format!(":{}", self.display)
    }

    /// The file that lets programs in.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// The server's own process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// What a program must have in its environment to use this screen.
    pub fn environment(&self) -> Vec<String> {
        vec![
            format!("DISPLAY={}", self.display()),
            format!("XAUTHORITY={}", self.authority.display()),
        ]
    }

    /// A command that uses this screen.
    pub fn command(&self, program: &str) -> Result<Command, X11Error> {
        let mut command = Command::new(installed(program)?);
        command
            .env("DISPLAY", self.display())
            .env("XAUTHORITY", &self.authority);
        Ok(command)
    }

    /// What the screen shows, taken by the X server itself.
    pub async fn screenshot(&self, scratch: &Scratch) -> Result<Image, X11Error> {
        let path = scratch.path(&format!("screen-{}.xwd", random_hex(4)));
        let mut command = self.command("xwd")?;
        command.args(["-root", "-silent", "-out"]).arg(&path);
        let output = run(scratch, "xwd", &mut command, b"", RUN_LIMIT).await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(X11Error::Failed {
                program: "xwd",
                said,
            });
        }
        let dump = std::fs::read(&path).map_err(X11Error::File)?;
        // The folder is removed as a whole in the end.
        let _ = std::fs::remove_file(&path);
        xwd::decode(&dump).map_err(X11Error::Screenshot)
    }

    /// Opens a terminal that writes what is typed into it to a file, line by line.
    pub fn terminal(&self, scratch: &Scratch, typed: &Path) -> Result<Program, X11Error> {
        let mut command = self.command("xterm")?;
        command.args([
            "-geometry",
            "70x20+40+40",
            "-bg",
            "#204060",
            "-fg",
            "white",
            "-title",
            "Umbra",
        ]);
        // A blinking cursor would make two screenshots of one state differ.
        command
            .args([
                "-xrm",
                "*cursorBlink: false",
                "-e",
                "sh",
                "-c",
                "exec cat >\"$0\"",
            ])
            .arg(typed);
        Ok(Program::start(scratch, "xterm", &mut command)?)
    }

    /// The arguments of `x11vnc` that show this screen to one viewer on standard input and output.
    pub fn x11vnc_inetd(&self) -> Result<Vec<String>, X11Error> {
        let program = installed("x11vnc")?.display().to_string();
        let mut arguments = vec![program, "-inetd".into()];
        arguments.extend(self.x11vnc_common());
        Ok(arguments)
    }

    /// Starts `x11vnc` on a free port of loopback, and gives that.
    pub async fn x11vnc(&self, scratch: &Scratch) -> Result<(Program, SocketAddr), X11Error> {
        let mut command = Command::new(installed("x11vnc")?);
        command.args(self.x11vnc_common());
        command.args([
            "-forever",
            "-shared",
            "-nopw",
            "-localhost",
            "-autoport",
            "20000",
        ]);
        let mut program = Program::start(scratch, "x11vnc", &mut command)?;
        let line = program.wait_for_line("PORT=", START_LIMIT).await?;
        let port = line.trim_start_matches("PORT=").parse();
        let port: u16 = port.map_err(|_| X11Error::Port(line.clone()))?;
        Ok((program, SocketAddr::from(([127, 0, 0, 1], port))))
    }

    fn x11vnc_common(&self) -> Vec<String> {
        let authority = self.authority.display().to_string();
        let display = self.display();
        let options = [
            "-display",
            &display,
            "-auth",
            &authority,
            "-quiet",
            "-noxrecord",
            "-nocursor",
            "-noipv6",
        ];
        options.map(str::to_owned).to_vec()
    }

    /// Opens TigerVNC's viewer on this screen, towards a server on loopback, in full colour and as large as the screen.
    pub fn vncviewer(&self, scratch: &Scratch, address: SocketAddr) -> Result<Program, X11Error> {
        let mut command = self.command("vncviewer")?;
        let home = scratch.folder("viewer-home").map_err(X11Error::File)?;
        command.env("HOME", &home);
        command.args([
            "-SecurityTypes",
            "None",
            "-AlertOnFatalError=0",
            "-ReconnectOnError=0",
            "-FullScreen",
        ]);
        command.args([
            "-AutoSelect=0",
            "-FullColor=1",
            "-NoJPEG=1",
            "-PreferredEncoding=Hextile",
        ]);
        command.arg(format!("{}::{}", address.ip(), address.port()));
        Ok(Program::start(scratch, "vncviewer", &mut command)?)
    }
}

/// Writes an authority file with a fresh cookie that is good for every display (family "wild").
fn write_authority(path: &Path) -> std::io::Result<()> {
    let mut entry = vec![0xFF, 0xFF, 0, 0, 0, 0];
    let cookie = random();
    for part in [b"MIT-MAGIC-COOKIE-1".as_slice(), &cookie] {
        entry.extend((part.len() as u16).to_be_bytes());
        entry.extend(part);
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&entry)
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .expect("the system has random numbers");
    bytes
}

fn random_hex(bytes: usize) -> String {
    random()[..bytes]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::eventually_is;
    use crate::rfb_client::{Options, RfbClient};
    use crate::scratch::scenario;

    /// Waits until the viewer and the X server show the same, the terminal with it.
    async fn agree<S>(
        scratch: &Scratch,
        screen: &XServer,
        client: &mut RfbClient<S>,
    ) -> anyhow::Result<()>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            client.refresh().await?;
            let source = screen.screenshot(scratch).await?;
            let terminal = source.pixel(200, 200) == 0x20_40_60;
            if terminal && *client.image() == source {
                return Ok(());
            }
            let apart = client.image().difference(&source, 0);
            anyhow::ensure!(
                tokio::time::Instant::now() < deadline,
                "terminal {terminal}, apart {apart:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_x11vnc_serves_is_what_the_x_server_shows_and_keys_reach_a_terminal() {
        scenario(async |scratch| {
            let screen = XServer::xvfb(scratch, 640, 480).await?;
            let typed = scratch.path("typed");
            let _terminal = screen.terminal(scratch, &typed)?;
            let (_server, address) = screen.x11vnc(scratch).await?;
            let mut client = RfbClient::connect(address, &Options::default()).await?;
            client.refresh().await?;
            client.pointer(0, 200, 200).await?;
            eventually_is("the terminal's program to run", START_LIMIT, || {
                std::fs::metadata(&typed)
            })
            .await?;
            client.type_text("over the wire\n").await?;
            eventually_is(
                "the keys to arrive",
                START_LIMIT,
                || match std::fs::read_to_string(&typed) {
                    Ok(text) if text == "over the wire\n" => Ok(()),
                    other => Err(other),
                },
            )
            .await?;
            agree(scratch, &screen, &mut client).await
        })
        .await;
    }

    #[tokio::test]
    async fn what_xtigervnc_serves_is_what_it_shows() {
        scenario(async |scratch| {
            let socket = scratch.path("vnc.sock");
            let screen = XServer::xtigervnc(scratch, 400, 300, &socket).await?;
            let _terminal = screen.terminal(scratch, &scratch.path("typed"))?;
            let stream = tokio::net::UnixStream::connect(&socket).await?;
            let mut client = RfbClient::start(stream, &Options::default()).await?;
            client.refresh().await?;
            // While the viewer's pointer is elsewhere than the screen's, the server paints the latter into the picture.
            client.pointer(0, 200, 150).await?;
            agree(scratch, &screen, &mut client).await
        })
        .await;
    }

    #[test]
    fn a_program_that_is_not_installed_is_named() {
        let missing = installed("no-such-program")
            .expect_err("missing")
            .to_string();
        assert!(missing.contains("no-such-program"), "{missing}");
    }
}
