//! One client of the test desktop: handshake, then updates and input until one side leaves. Everything that a client
//! says is bounded; what breaks the protocol is recorded and ends the session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{Event, Manner, Shared};
use crate::image::{Image, Rect};
use crate::rfb::{self, PixelFormat, Version};

/// The longest clipboard text taken.
const MAX_CUT_TEXT: u32 = 1 << 20;
/// The most encodings a client may list.
const MAX_ENCODINGS: u16 = 256;
/// How long a client may take for its part of the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
/// Side of the squares in which changes are looked for.
const TILE: u16 = 64;

/// What a client says after the handshake.
enum Message {
    Format(PixelFormat),
    Encodings,
    Request { incremental: bool, area: Rect },
    Input(Event),
}

fn broken(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Counts a client in, and out again however its session ends.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        let mut state = shared.lock();
        state.connections += 1;
        state.active += 1;
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.lock().active -= 1;
    }
}

/// Serves one client until it leaves, breaks the protocol or is hung up on.
pub(super) async fn serve<R, W>(shared: Arc<Shared>, reader: R, mut writer: W)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin,
{
    let _counted = Counted::new(&shared);
    let mut hang_ups = shared.hang_ups.subscribe();
    let outcome = tokio::select! {
        outcome = converse(&shared, reader, &mut writer) => outcome,
        _ = hang_ups.changed() => Ok(()),
    };
    match outcome {
        Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
            shared.record(Event::Broke(cause.to_string()))
        }
        Ok(()) | Err(_) => {}
    }
    shared.record(Event::Left);
}

async fn converse<R, W>(shared: &Arc<Shared>, mut reader: R, writer: &mut W) -> io::Result<()>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Unpin,
{
    let manner = shared.lock().manner.clone();
    match &manner {
        Manner::GreetAfter(wait) => sleep(*wait).await,
        Manner::NeverGreet => return ignore(reader).await,
        Manner::Proper
        | Manner::StallAfterInit
        | Manner::HangUpAfterUpdates(_)
        | Manner::Refuse(_) => {}
    }
    let joined = timeout(
        HANDSHAKE_LIMIT,
        handshake(shared, &manner, &mut reader, writer),
    )
    .await;
    if !joined.map_err(|_| broken("the handshake took too long"))?? {
        return Ok(());
    }
    let updates_left = match manner {
        Manner::StallAfterInit => return std::future::pending().await,
        Manner::HangUpAfterUpdates(count) => Some(count),
        Manner::Proper | Manner::GreetAfter(_) | Manner::NeverGreet | Manner::Refuse(_) => None,
    };
    let (say, mut heard) = mpsc::channel(64);
    let reading = tokio::spawn(async move {
        loop {
            let message = read_message(&mut reader).await;
            let over = message.is_err();
            if say.send(message).await.is_err() || over {
                return;
            }
        }
    });
    let outcome = update(shared, &mut heard, writer, updates_left).await;
    reading.abort();
    outcome
}

/// Reads and forgets until the client leaves.
async fn ignore(mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut scrap = [0; 1024];
    while reader.read(&mut scrap).await? > 0 {}
    Ok(())
}

/// `Ok(false)` when the client was turned away in an orderly manner.
async fn handshake(
    shared: &Shared,
    manner: &Manner,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<bool> {
    writer.write_all(Version::V3_8.line()).await?;
    writer.flush().await?;
    let mut line = [0; rfb::VERSION_LENGTH];
    reader.read_exact(&mut line).await?;
    let version = Version::parse(&line).ok_or_else(|| broken("the version line is not RFB's"))?;

    if let Manner::Refuse(reason) = manner {
        match version {
            Version::V3_3 => writer.write_u32(0).await?,
            Version::V3_7 | Version::V3_8 => writer.write_u8(0).await?,
        }
        write_text(writer, reason).await?;
        return Ok(false);
    }

    let kind = if shared.config.password.is_some() {
        rfb::SECURITY_VNC_AUTH
    } else {
        rfb::SECURITY_NONE
    };
    match version {
        Version::V3_3 => writer.write_u32(u32::from(kind)).await?,
        Version::V3_7 | Version::V3_8 => {
            writer.write_all(&[1, kind]).await?;
            writer.flush().await?;
            let chosen = reader.read_u8().await?;
            if chosen != kind {
                return Err(broken(format!(
                    "security type {chosen} was chosen, only {kind} was offered"
                )));
            }
        }
    }
    if let Some(password) = &shared.config.password {
        let mut challenge = [0; 16];
        let random = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random, &mut challenge)
            .map_err(|_| io::Error::other("no random numbers"))?;
        writer.write_all(&challenge).await?;
        writer.flush().await?;
        let mut answer = [0; 16];
        reader.read_exact(&mut answer).await?;
        if answer != rfb::vnc_answer(password, &challenge) {
            shared.record(Event::WrongPassword);
            writer.write_u32(1).await?;
            if version == Version::V3_8 {
                write_text(writer, "Authentication failed").await?;
            }
            writer.flush().await?;
            return Ok(false);
        }
    }
    if shared.config.password.is_some() || version == Version::V3_8 {
        writer.write_u32(0).await?;
    }
    writer.flush().await?;
    let shared_flag = reader.read_u8().await? != 0;
    let (width, height) = shared.config.size;
    writer.write_u16(width).await?;
    writer.write_u16(height).await?;
    writer.write_all(&PixelFormat::NATIVE.to_wire()).await?;
    write_text(writer, &shared.config.name).await?;
    writer.flush().await?;
    shared.record(Event::Joined {
        shared: shared_flag,
    });
    Ok(true)
}

async fn write_text(writer: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    writer
        .write_u32(u32::try_from(text.len()).unwrap_or(0))
        .await?;
    writer.write_all(text.as_bytes()).await?;
    writer.flush().await
}

async fn read_message(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    Ok(match reader.read_u8().await? {
        rfb::SET_PIXEL_FORMAT => {
            let mut wire = [0; 19];
            reader.read_exact(&mut wire).await?;
            let format: [u8; 16] = std::array::from_fn(|index| wire[3 + index]);
            Message::Format(
                PixelFormat::from_wire(&format)
                    .ok_or_else(|| broken("a pixel format without true colour"))?,
            )
        }
        rfb::SET_ENCODINGS => {
            reader.read_u8().await?;
            let count = reader.read_u16().await?;
            if count > MAX_ENCODINGS {
                return Err(broken(format!(
                    "{count} encodings are more than anybody has"
                )));
            }
            for _ in 0..count {
                reader.read_i32().await?;
            }
            Message::Encodings
        }
        rfb::UPDATE_REQUEST => {
            let incremental = reader.read_u8().await? != 0;
            let mut edges = [0; 4];
            for edge in &mut edges {
                *edge = reader.read_u16().await?;
            }
            Message::Request {
                incremental,
                area: Rect::new(edges[0], edges[1], edges[2], edges[3]),
            }
        }
        rfb::KEY_EVENT => {
            let down = reader.read_u8().await? != 0;
            reader.read_u16().await?;
            Message::Input(Event::Key {
                down,
                keysym: reader.read_u32().await?,
            })
        }
        rfb::POINTER_EVENT => {
            let buttons = reader.read_u8().await?;
            let x = reader.read_u16().await?;
            Message::Input(Event::Pointer {
                buttons,
                x,
                y: reader.read_u16().await?,
            })
        }
        rfb::CLIENT_CUT_TEXT => {
            let mut padding = [0; 3];
            reader.read_exact(&mut padding).await?;
            let length = reader.read_u32().await?;
            if length > MAX_CUT_TEXT {
                return Err(broken(format!("a clipboard of {length} bytes")));
            }
            let mut text = vec![0; length as usize];
            reader.read_exact(&mut text).await?;
            Message::Input(Event::CutText(text))
        }
        other => return Err(broken(format!("message type {other} was never agreed on"))),
    })
}

/// Answers requests: whole at once, incremental as soon as something in the area has changed.
async fn update(
    shared: &Arc<Shared>,
    heard: &mut mpsc::Receiver<io::Result<Message>>,
    writer: &mut (impl AsyncWrite + Unpin),
    mut updates_left: Option<u32>,
) -> io::Result<()> {
    let mut changed = shared.changed.subscribe();
    let mut format = PixelFormat::NATIVE;
    // What the client has seen; at first a colour that no pixel has, so that everything counts as changed.
    let (width, height) = shared.config.size;
    let mut seen = Image::new(width, height);
    seen.fill(Rect::new(0, 0, width, height), u32::MAX);
    let mut wanted: Option<(bool, Rect)> = None;
    loop {
        tokio::select! {
            message = heard.recv() => match message {
                None => return Ok(()),
                Some(message) => match message? {
                    Message::Format(wish) => format = wish,
                    Message::Encodings => {}
                    Message::Request { incremental, area } => {
                        let whole = !incremental || wanted.is_some_and(|(incremental, _)| !incremental);
                        wanted = Some((!whole, area));
                    }
                    Message::Input(event) => shared.record(event),
                },
            },
            seen = changed.changed() => if seen.is_err() { return Ok(()) },
        }
        let Some((incremental, area)) = wanted else {
            continue;
        };
        let (_, picture) = shared.picture();
        let dirty = match incremental {
            true => changes(&seen, &picture, area),
            false => clip(area, &picture).into_iter().collect(),
        };
        if dirty.is_empty() && incremental {
            continue;
        }
        write_update(writer, format, &picture, &dirty).await?;
        for rect in &dirty {
            let columns = usize::from(rect.x)..usize::from(rect.x + rect.width);
            for y in rect.y..rect.y + rect.height {
                seen.row_mut(y)[columns.clone()].copy_from_slice(&picture.row(y)[columns.clone()]);
            }
        }
        wanted = None;
        if let Some(left) = &mut updates_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Ok(());
            }
        }
    }
}

/// The part of an area that lies inside the picture.
fn clip(area: Rect, picture: &Image) -> Option<Rect> {
    let width = picture.width().saturating_sub(area.x).min(area.width);
    let height = picture.height().saturating_sub(area.y).min(area.height);
    (width > 0 && height > 0).then_some(Rect {
        width,
        height,
        ..area
    })
}

/// The tiles inside an area that differ, neighbours in a row joined.
fn changes(before: &Image, after: &Image, area: Rect) -> Vec<Rect> {
    let Some(area) = clip(area, after) else {
        return Vec::new();
    };
    let mut dirty: Vec<Rect> = Vec::new();
    for y in (area.y..area.y + area.height).step_by(usize::from(TILE)) {
        let height = TILE.min(area.y + area.height - y);
        let row_start = dirty.len();
        for x in (area.x..area.x + area.width).step_by(usize::from(TILE)) {
            let width = TILE.min(area.x + area.width - x);
            let columns = usize::from(x)..usize::from(x + width);
            if (y..y + height)
                .all(|y| before.row(y)[columns.clone()] == after.row(y)[columns.clone()])
            {
                continue;
            }
            match dirty[row_start..].last_mut() {
                Some(left) if left.x + left.width == x => left.width += width,
                _ => dirty.push(Rect::new(x, y, width, height)),
            }
        }
    }
    dirty
}

async fn write_update(
    writer: &mut (impl AsyncWrite + Unpin),
    format: PixelFormat,
    picture: &Image,
    dirty: &[Rect],
) -> io::Result<()> {
    let mut out = vec![rfb::FRAMEBUFFER_UPDATE, 0];
    out.extend(u16::try_from(dirty.len()).unwrap_or(u16::MAX).to_be_bytes());
    for rect in dirty {
        for edge in [rect.x, rect.y, rect.width, rect.height] {
            out.extend(edge.to_be_bytes());
        }
        out.extend(rfb::RAW.to_be_bytes());
        for y in rect.y..rect.y + rect.height {
            format.encode(
                &picture.row(y)[usize::from(rect.x)..usize::from(rect.x + rect.width)],
                &mut out,
            );
        }
    }
    writer.write_all(&out).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_as_joined_tiles_and_nowhere_else() {
        let before = Image::new(200, 100);
        let mut after = before.clone();
        assert!(changes(&before, &after, Rect::new(0, 0, 200, 100)).is_empty());
        after.fill(Rect::new(10, 10, 100, 1), 1);
        after.fill(Rect::new(199, 99, 1, 1), 1);
        let all = changes(&before, &after, Rect::new(0, 0, 200, 100));
        assert_eq!(all, [Rect::new(0, 0, 128, 64), Rect::new(192, 64, 8, 36)]);
        assert_eq!(changes(&before, &after, Rect::new(0, 20, 200, 30)), []);
    }

    #[test]
    fn an_area_beyond_the_screen_is_cut_to_it() {
        let picture = Image::new(100, 50);
        assert_eq!(
            clip(Rect::new(90, 40, u16::MAX, u16::MAX), &picture),
            Some(Rect::new(90, 40, 10, 10))
        );
        assert_eq!(clip(Rect::new(100, 0, 5, 5), &picture), None);
    }
}
