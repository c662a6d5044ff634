//! A measuring RFB client: what stands in for the operator's viewer when a test must know exactly what was seen, how
//! many bytes it took and why a session ended. It asks only for encodings that it decodes, puts a deadline on every
//! wait and a limit on every size, since what it talks to may be broken on purpose.

mod decode;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::image::{Image, ImageError, MAX_SIDE, Rect};
use crate::rfb::{self, PixelFormat, Version};

/// The longest text (name, reason, clipboard) taken from a server.
const MAX_TEXT: u32 = 1 << 20;

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// The VNC password, where the server asks for one.
    pub password: Option<String>,
    /// Whether other viewers may stay.
    pub shared: bool,
    /// Limit of every single wait.
    pub limit: Duration,
    /// The encodings to ask for, in the order of preference.
    pub encodings: Vec<i32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            password: None,
            shared: true,
            limit: Duration::from_secs(20),
            encodings: vec![
                rfb::COPY_RECT,
                rfb::HEXTILE,
                rfb::RAW,
                rfb::DESKTOP_SIZE,
                rfb::CURSOR,
                rfb::LAST_RECT,
            ],
        }
    }
}

/// Why a session could not be had, or went on no longer.
#[derive(Debug, thiserror::Error)]
pub enum RfbError {
    /// No connection.
    #[error("no connection to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The connection broke.
    #[error("the connection broke while {doing}")]
    Broke {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The server closed the connection.
    #[error("the server closed the connection while {doing}")]
    Closed {
        /// What was being done.
        doing: &'static str,
    },
    /// The server said nothing for too long.
    #[error("nothing came for {limit:?} while {doing}")]
    Silent {
        /// What was being done.
        doing: &'static str,
        /// How long it was waited.
        limit: Duration,
    },
    /// The server refused, with its reason.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server wants a password and none was given.
    #[error("the server asks for a VNC password and none was given")]
    PasswordNeeded,
    /// The server only offers security types that this client doesn't have.
    #[error("the server offers only security types that aren't understood: {0:?}")]
    NoCommonSecurity(Vec<u8>),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

/// What passed since the handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes read, handshake included.
    pub bytes_in: u64,
    /// Bytes written, handshake included.
    pub bytes_out: u64,
    /// Updates decoded.
    pub updates: u64,
    /// Rectangles decoded.
    pub rectangles: u64,
}

/// What a session negotiated at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The version both sides use.
    pub version: Version,
    /// The security type used.
    pub security: u8,
    /// The desktop's name.
    pub name: String,
}

/// A session with an RFB server.
pub struct RfbClient<S = TcpStream> {
    wire: Wire<S>,
    greeting: Greeting,
    image: Image,
    tally: Tally,
    clipboard: Option<Vec<u8>>,
}

impl RfbClient<TcpStream> {
    /// Connects and completes the handshake.
    pub async fn connect(address: SocketAddr, options: &Options) -> Result<Self, RfbError> {
        let deadline = Instant::now() + options.limit;
        let doing = "connecting";
        let stream = timeout_at(deadline, TcpStream::connect(address))
            .await
            .map_err(|_| RfbError::Silent {
                doing,
                limit: options.limit,
            })?
            .map_err(|cause| RfbError::Connect { address, cause })?;
        // Only costs latency when it fails.
        let _ = stream.set_nodelay(true);
        Self::start(stream, options).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RfbClient<S> {
    /// Completes the handshake on a stream that is connected already.
    pub async fn start(stream: S, options: &Options) -> Result<Self, RfbError> {
        let mut wire = Wire {
            stream,
            limit: options.limit,
            read: 0,
            written: 0,
        };
        let line: [u8; rfb::VERSION_LENGTH] = wire.array("waiting to be greeted").await?;
        let version = Version::parse(&line)
            .ok_or_else(|| RfbError::Protocol(format!("greeted with {line:?}")))?;
        wire.write(version.line()).await?;
        let security = choose_security(&mut wire, version, options).await?;
        if security == rfb::SECURITY_VNC_AUTH {
            let challenge: [u8; 16] = wire.array("waiting for the password challenge").await?;
            let password = options
                .password
                .as_deref()
                .ok_or(RfbError::PasswordNeeded)?;
            wire.write(&rfb::vnc_answer(password, &challenge)).await?;
        }
        if (security == rfb::SECURITY_VNC_AUTH || version == Version::V3_8)
            && wire.u32("waiting for the result of authentication").await? != 0
        {
            let reason = match version {
                Version::V3_8 => wire.text("reading why authentication failed").await?,
                Version::V3_3 | Version::V3_7 => "authentication failed".into(),
            };
            return Err(RfbError::Refused(reason));
        }
        wire.write(&[u8::from(options.shared)]).await?;
        let doing = "waiting for the desktop's size";
        let (width, height) = (wire.u16(doing).await?, wire.u16(doing).await?);
        let _native: [u8; 16] = wire.array(doing).await?;
        let name = wire.text(doing).await?;
        let image = blank(width, height)?;

        let mut wishes = vec![rfb::SET_PIXEL_FORMAT, 0, 0, 0];
        wishes.extend(PixelFormat::NATIVE.to_wire());
        wishes.extend([rfb::SET_ENCODINGS, 0]);
        wishes.extend(
            u16::try_from(options.encodings.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        wishes.extend(
            options
                .encodings
                .iter()
                .flat_map(|encoding| encoding.to_be_bytes()),
        );
        wire.write(&wishes).await?;
        let greeting = Greeting {
            version,
            security,
            name,
        };
        Ok(Self {
            wire,
            greeting,
            image,
            tally: Tally::default(),
            clipboard: None,
        })
    }

    /// What was negotiated.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// The screen as decoded so far.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Saves the screen as decoded so far.
    pub fn save_png(&self, path: &Path) -> Result<(), ImageError> {
        self.image.save_png(path)
    }

    /// What passed so far.
    pub fn tally(&self) -> Tally {
        Tally {
            bytes_in: self.wire.read,
            bytes_out: self.wire.written,
            ..self.tally
        }
    }

    /// The clipboard text that the server sent last.
    pub fn clipboard(&self) -> Option<&[u8]> {
        self.clipboard.as_deref()
    }

    /// Asks for the whole screen and waits until it is there.
    pub async fn refresh(&mut self) -> Result<(), RfbError> {
        self.request(false).await?;
        self.next_update().await.map(drop)
    }

    /// Asks for what has changed and waits for it; gives the rectangles that were painted.
    pub async fn follow(&mut self) -> Result<Vec<Rect>, RfbError> {
        self.request(true).await?;
        self.next_update().await
    }

    /// Follows the screen until `seen` holds or the limit (of all of it together) is over.
    pub async fn follow_until(
        &mut self,
        limit: Duration,
        seen: impl Fn(&Image) -> bool,
    ) -> Result<bool, RfbError> {
        let deadline = Instant::now() + limit;
        while !seen(&self.image) {
            match timeout_at(deadline, self.follow()).await {
                Ok(Ok(_painted)) => {}
                // Nothing changes any more, so it won't be seen.
                Ok(Err(RfbError::Silent { .. })) | Err(_) => return Ok(false),
                Ok(Err(error)) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Asks for an update of the whole screen.
    pub async fn request(&mut self, incremental: bool) -> Result<(), RfbError> {
        let mut message = vec![rfb::UPDATE_REQUEST, u8::from(incremental), 0, 0, 0, 0];
        message.extend(self.image.width().to_be_bytes());
        message.extend(self.image.height().to_be_bytes());
        self.wire.write(&message).await
    }

    /// Presses or releases a key.
    pub async fn key(&mut self, keysym: u32, down: bool) -> Result<(), RfbError> {
        let mut message = vec![rfb::KEY_EVENT, u8::from(down), 0, 0];
        message.extend(keysym.to_be_bytes());
        self.wire.write(&message).await
    }

    /// Types a text of printable ASCII characters; a line feed is the Return key.
    pub async fn type_text(&mut self, text: &str) -> Result<(), RfbError> {
        for character in text.chars() {
            let keysym = if character == '\n' {
                0xFF0D
            } else {
                u32::from(character)
            };
            self.key(keysym, true).await?;
            self.key(keysym, false).await?;
        }
        Ok(())
    }

    /// Moves the pointer, with the buttons held.
    pub async fn pointer(&mut self, buttons: u8, x: u16, y: u16) -> Result<(), RfbError> {
        let mut message = vec![rfb::POINTER_EVENT, buttons];
        message.extend(x.to_be_bytes());
        message.extend(y.to_be_bytes());
        self.wire.write(&message).await
    }

    /// Sends clipboard text.
    pub async fn cut_text(&mut self, text: &[u8]) -> Result<(), RfbError> {
        let mut message = vec![rfb::CLIENT_CUT_TEXT, 0, 0, 0];
        message.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        message.extend(text);
        self.wire.write(&message).await
    }

    /// Sends bytes as they are: for a client that breaks the protocol.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), RfbError> {
        self.wire.write(bytes).await
    }

    /// Reads on until the server closes; an error if it doesn't within the limit.
    pub async fn until_closed(&mut self) -> Result<(), RfbError> {
        let doing = "waiting for the server to close";
        let limit = self.wire.limit;
        let deadline = Instant::now() + limit;
        let mut scrap = vec![0; 16 * 1024];
        loop {
            match timeout_at(deadline, self.wire.stream.read(&mut scrap)).await {
                Ok(Ok(0) | Err(_)) => return Ok(()),
                Ok(Ok(count)) => self.wire.read += count as u64,
                Err(_) => return Err(RfbError::Silent { doing, limit }),
            }
        }
    }

    /// Leaves in an orderly manner.
    pub async fn leave(mut self) -> Result<(), RfbError> {
        let doing = "leaving";
        self.wire
            .stream
            .shutdown()
            .await
            .map_err(|cause| RfbError::Broke { doing, cause })
    }

    /// Reads messages until an update was decoded.
    async fn next_update(&mut self) -> Result<Vec<Rect>, RfbError> {
        loop {
            match self.wire.u8("waiting for an update").await? {
                rfb::FRAMEBUFFER_UPDATE => return self.read_update().await,
                rfb::COLOUR_MAP => {
                    let _first: [u8; 3] = self.wire.array("reading a colour map").await?;
                    for _ in 0..self.wire.u16("reading a colour map").await? {
                        let _entry: [u8; 6] = self.wire.array("reading a colour map").await?;
                    }
                }
                rfb::BELL => {}
                rfb::SERVER_CUT_TEXT => {
                    let _padding: [u8; 3] = self.wire.array("reading the clipboard").await?;
                    self.clipboard = Some(self.wire.bytes("reading the clipboard").await?);
                }
                other => {
                    return Err(RfbError::Protocol(format!(
                        "sent a message of type {other}"
                    )));
                }
            }
        }
    }

    async fn read_update(&mut self) -> Result<Vec<Rect>, RfbError> {
        let doing = "reading an update";
        self.wire.u8(doing).await?;
        let count = self.wire.u16(doing).await?;
        let mut painted = Vec::new();
        for _ in 0..count {
            let mut edges = [0; 4];
            for edge in &mut edges {
                *edge = self.wire.u16(doing).await?;
            }
            let rect = Rect::new(edges[0], edges[1], edges[2], edges[3]);
            let encoding = self.wire.u32(doing).await? as i32;
            if encoding == rfb::LAST_RECT {
                break;
            }
            if encoding == rfb::DESKTOP_SIZE {
                self.image = blank(rect.width, rect.height)?;
                continue;
            }
            if encoding == rfb::CURSOR {
                self.skip_cursor(rect).await?;
                continue;
            }
            if !rect.fits(self.image.width(), self.image.height()) {
                return Err(RfbError::Protocol(format!(
                    "painted {rect:?} outside of the screen"
                )));
            }
            decode::rectangle(&mut self.wire, &mut self.image, rect, encoding).await?;
            self.tally.rectangles += 1;
            painted.push(rect);
        }
        self.tally.updates += 1;
        Ok(painted)
    }

    /// The pointer's shape is taken, so that the server leaves it out of the picture, and not drawn.
    async fn skip_cursor(&mut self, shape: Rect) -> Result<(), RfbError> {
        if shape.width > 1024 || shape.height > 1024 {
            return Err(RfbError::Protocol(format!(
                "sent a pointer of {}x{}",
                shape.width, shape.height
            )));
        }
        let mask = usize::from(shape.width).div_ceil(8) * usize::from(shape.height);
        let mut bytes = vec![0; usize::from(shape.width) * usize::from(shape.height) * 4 + mask];
        self.wire
            .fill(&mut bytes, "reading the pointer's shape")
            .await
    }
}

fn blank(width: u16, height: u16) -> Result<Image, RfbError> {
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(RfbError::Protocol(format!(
            "says that its screen has {width}x{height} pixels"
        )));
    }
    Ok(Image::new(width, height))
}

async fn choose_security<S>(
    wire: &mut Wire<S>,
    version: Version,
    options: &Options,
) -> Result<u8, RfbError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let doing = "waiting for the security types";
    let offered = match version {
        Version::V3_3 => match wire.u32(doing).await? {
            0 => Vec::new(),
            kind => vec![u8::try_from(kind).unwrap_or(u8::MAX)],
        },
        Version::V3_7 | Version::V3_8 => {
            let mut offered = vec![0; usize::from(wire.u8(doing).await?)];
            wire.fill(&mut offered, doing).await?;
            offered
        }
    };
    if offered.is_empty() {
        return Err(RfbError::Refused(
            wire.text("reading why the server refuses").await?,
        ));
    }
    let preferred = match options.password {
        Some(_) => [rfb::SECURITY_VNC_AUTH, rfb::SECURITY_NONE],
        None => [rfb::SECURITY_NONE, rfb::SECURITY_VNC_AUTH],
    };
    let chosen = preferred.into_iter().find(|kind| offered.contains(kind));
    let chosen = chosen.ok_or(RfbError::NoCommonSecurity(offered))?;
    if version != Version::V3_3 {
        wire.write(&[chosen]).await?;
    }
    Ok(chosen)
}

/// The stream with a deadline on every wait and a count of what passed.
struct Wire<S> {
    stream: S,
    limit: Duration,
    read: u64,
    written: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    async fn fill(&mut self, into: &mut [u8], doing: &'static str) -> Result<(), RfbError> {
        let limit = self.limit;
        match timeout_at(Instant::now() + limit, self.stream.read_exact(into)).await {
            Ok(Ok(_)) => self.read += into.len() as u64,
            Ok(Err(cause)) if cause.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(RfbError::Closed { doing });
            }
            Ok(Err(cause)) => return Err(RfbError::Broke { doing, cause }),
            Err(_) => return Err(RfbError::Silent { doing, limit }),
        }
        Ok(())
    }

    async fn array<const N: usize>(&mut self, doing: &'static str) -> Result<[u8; N], RfbError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, doing).await?;
        Ok(bytes)
    }

    async fn u8(&mut self, doing: &'static str) -> Result<u8, RfbError> {
        Ok(self.array::<1>(doing).await?[0])
    }

    async fn u16(&mut self, doing: &'static str) -> Result<u16, RfbError> {
        Ok(u16::from_be_bytes(self.array(doing).await?))
    }

    async fn u32(&mut self, doing: &'static str) -> Result<u32, RfbError> {
        Ok(u32::from_be_bytes(self.array(doing).await?))
    }

    async fn bytes(&mut self, doing: &'static str) -> Result<Vec<u8>, RfbError> {
        let length = self.u32(doing).await?;
        if length > MAX_TEXT {
            return Err(RfbError::Protocol(format!(
                "announced a text of {length} bytes"
            )));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, doing).await?;
        Ok(bytes)
    }

    async fn text(&mut self, doing: &'static str) -> Result<String, RfbError> {
        Ok(String::from_utf8_lossy(&self.bytes(doing).await?).into_owned())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), RfbError> {
        let (limit, doing) = (self.limit, "writing");
        let writing = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout_at(Instant::now() + limit, writing).await {
            Ok(Ok(())) => self.written += bytes.len() as u64,
            Ok(Err(cause)) => return Err(RfbError::Broke { doing, cause }),
            Err(_) => return Err(RfbError::Silent { doing, limit }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
