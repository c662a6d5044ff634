//! A picture in memory: what the test desktop paints, what a client has decoded and what a screenshot shows,
//! so that all three can be compared. It knows PNG and nothing about where its pixels come from.

use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Write};
use std::path::Path;

/// The largest side a picture may have; anything beyond comes from a broken or hostile peer.
pub const MAX_SIDE: u16 = 8192;

/// Why a picture could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be opened or created.
    #[error("the picture's file cannot be used")]
    File(#[source] std::io::Error),
    /// The PNG decoder refused the data.
    #[error("the data is not a PNG that can be decoded")]
    Decode(#[source] png::DecodingError),
    /// The PNG encoder failed.
    #[error("the picture cannot be encoded as PNG")]
    Encode(#[source] png::EncodingError),
    /// A kind of picture that the harness has no use for.
    #[error("pictures of this kind are not understood: {0}")]
    Unsupported(String),
}

/// A picture of 24-bit pixels, each kept as `0x00RRGGBB`.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: u16,
    height: u16,
    pixels: Vec<u32>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}x{})", self.width, self.height)
    }
}

/// How far two pictures of one size are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Mean absolute difference over all colour channels, 0.0 (same) to 255.0.
    pub mean_absolute: f64,
    /// The share of pixels of which at least one channel differs by more than the tolerance, 0.0 to 1.0.
    pub differing_share: f64,
}

/// A rectangle inside a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: u16,
    /// Upper edge.
    pub y: u16,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
}

impl Rect {
    /// A rectangle from its corner and size.
    pub fn new(x: u16, y: u16, width: u16, height: u16) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }

    /// Whether the rectangle lies wholly inside a picture of this size.
    pub fn fits(&self, width: u16, height: u16) -> bool {
        u32::from(self.x) + u32::from(self.width) <= u32::from(width)
            && u32::from(self.y) + u32::from(self.height) <= u32::from(height)
    }
}

impl Image {
    /// A black picture.
    pub fn new(width: u16, height: u16) -> Self {
        Self {
            width,
            height,
            pixels: vec![0; usize::from(width) * usize::from(height)],
        }
    }

    /// Width in pixels.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u16 {
        self.height
    }

    /// One row of pixels.
    pub fn row(&self, y: u16) -> &[u32] {
        let start = usize::from(y) * usize::from(self.width);
        &self.pixels[start..start + usize::from(self.width)]
    }

    /// One row of pixels, to paint on.
    pub fn row_mut(&mut self, y: u16) -> &mut [u32] {
        let start = usize::from(y) * usize::from(self.width);
        &mut self.pixels[start..start + usize::from(self.width)]
    }

    /// The colour of one pixel, black outside the picture.
    pub fn pixel(&self, x: u16, y: u16) -> u32 {
        if x < self.width && y < self.height {
            self.row(y)[usize::from(x)]
        } else {
            0
        }
    }

    /// Fills a rectangle, cut to the picture.
    pub fn fill(&mut self, rect: Rect, colour: u32) {
        let right = rect.x.saturating_add(rect.width).min(self.width);
        let bottom = rect.y.saturating_add(rect.height).min(self.height);
        if rect.x >= right {
            return;
        }
        for y in rect.y..bottom {
            self.row_mut(y)[usize::from(rect.x)..usize::from(right)].fill(colour);
        }
    }

    /// Copies a rectangle to another place of the same picture; both must lie inside it.
    pub fn copy_within(&mut self, from: Rect, to_x: u16, to_y: u16) {
        let patch: Vec<u32> = (from.y..from.y + from.height)
            .flat_map(|y| {
                self.row(y)[usize::from(from.x)..usize::from(from.x + from.width)].to_vec()
            })
            .collect();
        let width = usize::from(from.width);
        for (line, y) in patch.chunks(width.max(1)).zip(to_y..) {
            self.row_mut(y)[usize::from(to_x)..usize::from(to_x) + width].copy_from_slice(line);
        }
    }

    /// How many different colours the picture has, counted up to `limit`; one means that nothing is shown.
    pub fn colours(&self, limit: usize) -> usize {
        let mut seen = std::collections::HashSet::new();
        for pixel in &self.pixels {
            seen.insert(*pixel);
            if seen.len() >= limit {
                break;
            }
        }
        seen.len()
    }

    /// Compares with another picture, channel by channel; `None` when the sizes differ.
    pub fn difference(&self, other: &Image, tolerance: u8) -> Option<Difference> {
        if (self.width, self.height) != (other.width, other.height) {
            return None;
        }
        let (mut sum, mut differing) = (0u64, 0usize);
        for (ours, theirs) in self.pixels.iter().zip(&other.pixels) {
            if ours == theirs {
                continue;
            }
            let mut beyond = false;
            for shift in [0, 8, 16] {
                let apart = ((ours >> shift) as u8).abs_diff((theirs >> shift) as u8);
                sum += u64::from(apart);
                beyond |= apart > tolerance;
            }
            differing += usize::from(beyond);
        }
        let count = self.pixels.len().max(1) as f64;
        Some(Difference {
            mean_absolute: sum as f64 / (count * 3.0),
            differing_share: differing as f64 / count,
        })
    }

    /// The picture as a PNG file's bytes.
    pub fn to_png(&self) -> Result<Vec<u8>, ImageError> {
        let mut out = Vec::new();
        self.write_png(&mut out)?;
        Ok(out)
    }

    /// Saves the picture as a PNG file.
    pub fn save_png(&self, path: &Path) -> Result<(), ImageError> {
        let mut file = BufWriter::new(File::create(path).map_err(ImageError::File)?);
        self.write_png(&mut file)?;
        file.flush().map_err(ImageError::File)
    }

    fn write_png(&self, to: impl Write) -> Result<(), ImageError> {
        let mut encoder = png::Encoder::new(to, u32::from(self.width), u32::from(self.height));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(ImageError::Encode)?;
        let mut bytes = Vec::with_capacity(self.pixels.len() * 3);
        for pixel in &self.pixels {
            bytes.extend_from_slice(&pixel.to_be_bytes()[1..]);
        }
        writer
            .write_image_data(&bytes)
            .map_err(ImageError::Encode)?;
        writer.finish().map_err(ImageError::Encode)
    }

    /// Reads a PNG file.
    pub fn load_png(path: &Path) -> Result<Self, ImageError> {
        let file = File::open(path).map_err(ImageError::File)?;
        Self::read_png(BufReader::new(file))
    }

    /// Reads a PNG from memory.
    pub fn from_png(bytes: &[u8]) -> Result<Self, ImageError> {
        Self::read_png(Cursor::new(bytes))
    }

    fn read_png(from: impl std::io::BufRead + std::io::Seek) -> Result<Self, ImageError> {
        let mut decoder = png::Decoder::new(from);
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(ImageError::Decode)?;
        let size = reader
            .output_buffer_size()
            .filter(|size| *size <= usize::from(MAX_SIDE) * usize::from(MAX_SIDE) * 4)
            .ok_or_else(|| ImageError::Unsupported("larger than any screen here".into()))?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes).map_err(ImageError::Decode)?;
        let channels = info.color_type.samples();
        let unsupported = || ImageError::Unsupported(format!("{}x{}", info.width, info.height));
        let width = u16::try_from(info.width).map_err(|_| unsupported())?;
        let height = u16::try_from(info.height).map_err(|_| unsupported())?;
        let mut image = Image::new(width, height);
        for (pixel, sample) in image.pixels.iter_mut().zip(bytes.chunks_exact(channels)) {
            let [red, green, blue] = match sample {
                [grey] | [grey, _] => [*grey; 3],
                [red, green, blue, ..] => [*red, *green, *blue],
                [] => return Err(unsupported()),
            };
            *pixel = u32::from_be_bytes([0, red, green, blue]);
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted() -> Image {
        let mut image = Image::new(20, 10);
        image.fill(Rect::new(2, 3, 5, 4), 0x11_22_33);
        image.fill(Rect::new(18, 8, 50, 50), 0xFF_00_7F);
        image
    }

    #[test]
    fn a_png_read_back_is_the_same_picture() {
        let image = painted();
        let back = Image::from_png(&image.to_png().expect("encodes")).expect("decodes");
        assert!(back == image);
        assert_eq!(back.pixel(2, 3), 0x11_22_33);
        assert_eq!(back.pixel(19, 9), 0xFF_00_7F);
        assert_eq!(back.pixel(0, 0), 0);
    }

    #[test]
    fn differences_are_counted_in_amount_and_in_share() {
        let image = painted();
        assert_eq!(
            image.difference(&image, 0),
            Some(Difference {
                mean_absolute: 0.0,
                differing_share: 0.0
            })
        );
        let mut other = image.clone();
        other.fill(Rect::new(0, 0, 20, 1), 0x00_00_1E);
        let difference = image.difference(&other, 8).expect("same size");
        assert!(
            (difference.differing_share - 0.1).abs() < 1e-9,
            "{difference:?}"
        );
        assert!(
            (difference.mean_absolute - 1.0).abs() < 1e-9,
            "{difference:?}"
        );
        let forgiven = image.difference(&other, 30).expect("same size");
        assert_eq!(forgiven.differing_share, 0.0);
    }

    #[test]
    fn pictures_of_different_size_have_no_difference() {
        assert_eq!(Image::new(3, 4).difference(&Image::new(4, 3), 0), None);
    }

    #[test]
    fn a_rectangle_at_the_edge_fits_and_one_beyond_does_not() {
        assert!(Rect::new(10, 0, 10, 10).fits(20, 10));
        assert!(!Rect::new(11, 0, 10, 10).fits(20, 10));
        assert!(!Rect::new(10, 1, 10, 10).fits(20, 10));
        assert!(!Rect::new(u16::MAX, 0, u16::MAX, 1).fits(20, 10));
    }

    #[test]
    fn copying_within_a_picture_survives_overlap() {
        let mut image = Image::new(6, 1);
        for (x, pixel) in image.row_mut(0).iter_mut().enumerate() {
            *pixel = x as u32;
        }
        image.copy_within(Rect::new(0, 0, 4, 1), 1, 0);
        assert_eq!(image.row(0), [0, 0, 1, 2, 3, 5]);
    }
}
