//! Decoders of the encodings that the measuring client asks for. Pixels always come in the native format, and a
//! rectangle was checked to lie on the screen before it gets here.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{RfbError, Wire};
use crate::image::{Image, Rect};
use crate::rfb;

/// Side of hextile's squares.
const TILE: u16 = 16;
/// Hextile's flags.
const RAW_TILE: u8 = 1;
const BACKGROUND: u8 = 2;
const FOREGROUND: u8 = 4;
const ANY_SUBRECTS: u8 = 8;
const SUBRECTS_COLOURED: u8 = 16;

/// Decodes one rectangle onto the picture.
pub(super) async fn rectangle<S>(
    wire: &mut Wire<S>,
    image: &mut Image,
    rect: Rect,
    encoding: i32,
) -> Result<(), RfbError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match encoding {
        rfb::RAW => raw(wire, image, rect).await,
        rfb::COPY_RECT => {
            let doing = "reading where to copy from";
            let from = Rect {
                x: wire.u16(doing).await?,
                y: wire.u16(doing).await?,
                ..rect
            };
            if !from.fits(image.width(), image.height()) {
                return Err(RfbError::Protocol(format!(
                    "copied from {from:?} outside of the screen"
                )));
            }
            image.copy_within(from, rect.x, rect.y);
            Ok(())
        }
        rfb::HEXTILE => hextile(wire, image, rect).await,
        other => Err(RfbError::Protocol(format!(
            "used encoding {other}, which was not asked for"
        ))),
    }
}

async fn raw<S>(wire: &mut Wire<S>, image: &mut Image, rect: Rect) -> Result<(), RfbError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut line = vec![0; usize::from(rect.width) * 4];
    for y in rect.y..rect.y + rect.height {
        wire.fill(&mut line, "reading raw pixels").await?;
        let row = &mut image.row_mut(y)[usize::from(rect.x)..usize::from(rect.x + rect.width)];
        for (pixel, bytes) in row.iter_mut().zip(line.as_chunks::<4>().0) {
            *pixel = u32::from_le_bytes(*bytes) & 0xFF_FF_FF;
        }
    }
    Ok(())
}

async fn pixel<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<u32, RfbError> {
    Ok(u32::from_le_bytes(wire.array("reading a hextile colour").await?) & 0xFF_FF_FF)
}

async fn hextile<S>(wire: &mut Wire<S>, image: &mut Image, rect: Rect) -> Result<(), RfbError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let doing = "reading a hextile";
    let (mut background, mut foreground) = (0, 0);
    for y in (rect.y..rect.y + rect.height).step_by(usize::from(TILE)) {
        for x in (rect.x..rect.x + rect.width).step_by(usize::from(TILE)) {
            let tile = Rect::new(
                x,
                y,
                TILE.min(rect.x + rect.width - x),
                TILE.min(rect.y + rect.height - y),
            );
            let flags = wire.u8(doing).await?;
            if flags & RAW_TILE != 0 {
                raw(wire, image, tile).await?;
                continue;
            }
            if flags & BACKGROUND != 0 {
                background = pixel(wire).await?;
            }
            image.fill(tile, background);
            if flags & FOREGROUND != 0 {
                foreground = pixel(wire).await?;
            }
            if flags & ANY_SUBRECTS == 0 {
                continue;
            }
            for _ in 0..wire.u8(doing).await? {
                let colour = if flags & SUBRECTS_COLOURED != 0 {
                    pixel(wire).await?
                } else {
                    foreground
                };
                let [place, size] = wire.array(doing).await?;
                let inner = Rect::new(
                    u16::from(place >> 4),
                    u16::from(place & 15),
                    u16::from(size >> 4) + 1,
                    u16::from(size & 15) + 1,
                );
                if !inner.fits(tile.width, tile.height) {
                    return Err(RfbError::Protocol(format!(
                        "painted {inner:?} beyond its hextile"
                    )));
                }
                image.fill(
                    Rect {
                        x: tile.x + inner.x,
                        y: tile.y + inner.y,
                        ..inner
                    },
                    colour,
                );
            }
        }
    }
    Ok(())
}
