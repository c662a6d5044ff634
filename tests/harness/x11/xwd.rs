//! Reads the window dumps that `xwd` writes: the screenshot at the source, without another program in between that
//! could change a colour.

use crate::image::{Image, ImageError, MAX_SIDE};

/// Length of the header's fixed part, and of one colour map entry after it.
const HEADER: usize = 100;
const COLOUR: usize = 12;
/// The only version and pixmap format there are today.
const VERSION: u32 = 7;
const Z_PIXMAP: u32 = 2;

/// Decodes a dump of a true-colour screen.
pub(super) fn decode(dump: &[u8]) -> Result<Image, ImageError> {
    let wrong = |what: &str| ImageError::Unsupported(format!("a window dump {what}"));
    let field = |index: usize| -> Option<u32> {
        let bytes = dump.get(4 * index..4 * index + 4)?;
        Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let field = |index: usize| field(index).ok_or_else(|| wrong("that ends too early"));
    let header = field(0)? as usize;
    if header < HEADER || field(1)? != VERSION || field(2)? != Z_PIXMAP {
        return Err(wrong("of another kind"));
    }
    let side = |value: u32| {
        u16::try_from(value)
            .ok()
            .filter(|side| (1..=MAX_SIDE).contains(side))
    };
    let width = side(field(4)?).ok_or_else(|| wrong("of impossible size"))?;
    let height = side(field(5)?).ok_or_else(|| wrong("of impossible size"))?;
    let big_endian = field(7)? == 1;
    if field(11)? != 32 {
        return Err(wrong("without 32 bits per pixel"));
    }
    let stride = field(12)? as usize;
    let masks = [field(14)?, field(15)?, field(16)?];
    let data = field(19)?
        .checked_mul(COLOUR as u32)
        .and_then(|colours| dump.get(header.checked_add(colours as usize)?..))
        .ok_or_else(|| wrong("that ends too early"))?;

    let mut image = Image::new(width, height);
    for y in 0..height {
        let line = data
            .get(usize::from(y) * stride..)
            .filter(|line| line.len() >= usize::from(width) * 4)
            .ok_or_else(|| wrong("that ends too early"))?;
        for (pixel, bytes) in image.row_mut(y).iter_mut().zip(line.as_chunks::<4>().0) {
            let value = if big_endian {
                u32::from_be_bytes(*bytes)
            } else {
                u32::from_le_bytes(*bytes)
            };
            *pixel = masks
                .iter()
                .fold(0, |pixel, mask| (pixel << 8) | channel(value, *mask));
        }
    }
    Ok(image)
}

/// One channel, brought to eight bits.
fn channel(value: u32, mask: u32) -> u32 {
    if mask == 0 {
        return 0;
    }
    let (shift, max) = (mask.trailing_zeros(), mask >> mask.trailing_zeros());
    ((value & mask) >> shift) * 255 / max
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(order: u32, pixels: &[[u8; 4]]) -> Vec<u8> {
        let mut fields = [0u32; 25];
        fields[0] = 104;
        fields[1] = VERSION;
        fields[2] = Z_PIXMAP;
        fields[4] = 2;
        fields[5] = (pixels.len() / 2) as u32;
        fields[7] = order;
        fields[11] = 32;
        fields[12] = 8;
        (fields[14], fields[15], fields[16]) = (0xFF_00_00, 0x00_FF_00, 0x00_00_FF);
        fields[19] = 1;
        let mut dump: Vec<u8> = fields
            .iter()
            .flat_map(|field| field.to_be_bytes())
            .collect();
        dump.extend(b"xyz\0");
        dump.extend([0xEE; COLOUR]);
        dump.extend(pixels.concat());
        dump
    }

    #[test]
    fn pixels_are_read_in_either_byte_order() {
        let little = decode(&dump(0, &[[3, 2, 1, 0], [0; 4]])).expect("decodes");
        let big = decode(&dump(1, &[[0, 1, 2, 3], [0; 4]])).expect("decodes");
        assert_eq!(
            (little.pixel(0, 0), little.width(), little.height()),
            (0x01_02_03, 2, 1)
        );
        assert!(little == big);
    }

    #[test]
    fn a_dump_cut_anywhere_is_refused() {
        let whole = dump(0, &[[1; 4], [2; 4]]);
        for length in 0..whole.len() {
            assert!(
                decode(&whole[..length]).is_err(),
                "{length} of {} bytes",
                whole.len()
            );
        }
        assert!(decode(&whole).is_ok());
    }
}
