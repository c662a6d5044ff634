//! The numbers and small structures of RFB (RFC 6143) that the test desktop and the measuring client share: versions,
//! security types, message types, pixel formats and the VNC password's DES answer. No I/O happens here.

use des::cipher::{BlockCipherEncrypt, KeyInit};

/// Length of the version line.
pub const VERSION_LENGTH: usize = 12;
/// Security type: none.
pub const SECURITY_NONE: u8 = 1;
/// Security type: VNC password.
pub const SECURITY_VNC_AUTH: u8 = 2;

/// Client message: the pixel format wanted.
pub const SET_PIXEL_FORMAT: u8 = 0;
/// Client message: the encodings understood.
pub const SET_ENCODINGS: u8 = 2;
/// Client message: asks for an update.
pub const UPDATE_REQUEST: u8 = 3;
/// Client message: a key.
pub const KEY_EVENT: u8 = 4;
/// Client message: the pointer.
pub const POINTER_EVENT: u8 = 5;
/// Client message: clipboard text.
pub const CLIENT_CUT_TEXT: u8 = 6;

/// Server message: an update.
pub const FRAMEBUFFER_UPDATE: u8 = 0;
/// Server message: colour map entries.
pub const COLOUR_MAP: u8 = 1;
/// Server message: bell.
pub const BELL: u8 = 2;
/// Server message: clipboard text.
pub const SERVER_CUT_TEXT: u8 = 3;

/// Encoding: raw pixels.
pub const RAW: i32 = 0;
/// Encoding: a copy of another part of the screen.
pub const COPY_RECT: i32 = 1;
/// Encoding: hextile.
pub const HEXTILE: i32 = 5;
/// Pseudo-encoding: the desktop's size changes.
pub const DESKTOP_SIZE: i32 = -223;
/// Pseudo-encoding: the pointer's shape, which the client then draws itself.
pub const CURSOR: i32 = -239;
/// Pseudo-encoding: no further rectangles in this update.
pub const LAST_RECT: i32 = -224;

/// The protocol versions that RFC 6143 names, in the order of their age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The server dictates the security type.
    V3_3,
    /// A list of security types, no result after "none".
    V3_7,
    /// A list of security types, always a result, with a reason after a failure.
    V3_8,
}

impl Version {
    /// The line that announces the version.
    pub fn line(self) -> &'static [u8; VERSION_LENGTH] {
        match self {
            Version::V3_3 => b"RFB 003.003\n",
            Version::V3_7 => b"RFB 003.007\n",
            Version::V3_8 => b"RFB 003.008\n",
        }
    }

    /// Reads the other side's line; unknown minors count as the next lower one, as the RFC demands.
    pub fn parse(line: &[u8; VERSION_LENGTH]) -> Option<Version> {
        if &line[..8] != b"RFB 003."
            || line[11] != b'\n'
            || !line[8..11].iter().all(u8::is_ascii_digit)
        {
            return None;
        }
        Some(match &line[8..11] {
            minor if minor >= b"008".as_slice() => Version::V3_8,
            b"007" => Version::V3_7,
            _ => Version::V3_3,
        })
    }
}

/// How a pixel's colour is put into bytes; true colour only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelFormat {
    /// 8, 16 or 32.
    pub bits_per_pixel: u8,
    /// Most significant byte first.
    pub big_endian: bool,
    /// Largest value of red, green and blue.
    pub max: [u16; 3],
    /// Position of red, green and blue.
    pub shift: [u8; 3],
}

impl PixelFormat {
    /// 32 bits, `0x00RRGGBB`, little end first: what the harness's own ends speak.
    pub const NATIVE: PixelFormat = PixelFormat {
        bits_per_pixel: 32,
        big_endian: false,
        max: [255; 3],
        shift: [16, 8, 0],
    };
    /// 16 bits, five-six-five.
    pub const RGB565: PixelFormat = PixelFormat {
        bits_per_pixel: 16,
        big_endian: false,
        max: [31, 63, 31],
        shift: [11, 5, 0],
    };
    /// 8 bits, three-three-two.
    pub const RGB332: PixelFormat = PixelFormat {
        bits_per_pixel: 8,
        big_endian: false,
        max: [7, 7, 3],
        shift: [5, 2, 0],
    };

    /// The 16 bytes on the wire.
    pub fn to_wire(self) -> [u8; 16] {
        let depth: u32 = self
            .max
            .iter()
            .map(|max| u16::BITS - max.leading_zeros())
            .sum();
        let mut wire = [0; 16];
        wire[0] = self.bits_per_pixel;
        wire[1] = depth as u8;
        wire[2] = u8::from(self.big_endian);
        wire[3] = 1;
        for (index, max) in self.max.iter().enumerate() {
            wire[4 + 2 * index..6 + 2 * index].copy_from_slice(&max.to_be_bytes());
        }
        wire[10..13].copy_from_slice(&self.shift);
        wire
    }

    /// Reads the 16 bytes; `None` for colour maps, odd sizes and shifts beyond the pixel.
    pub fn from_wire(wire: &[u8; 16]) -> Option<PixelFormat> {
        let bits_per_pixel = wire[0];
        let max =
            [1, 2, 3].map(|index| u16::from_be_bytes([wire[2 + 2 * index], wire[3 + 2 * index]]));
        let shift = [wire[10], wire[11], wire[12]];
        let fits = max.iter().zip(shift).all(|(max, shift)| {
            *max > 0
                && u32::from(shift) + (u16::BITS - max.leading_zeros()) <= u32::from(bits_per_pixel)
        });
        let sane = matches!(bits_per_pixel, 8 | 16 | 32) && wire[3] != 0 && fits;
        sane.then_some(PixelFormat {
            bits_per_pixel,
            big_endian: wire[2] != 0,
            max,
            shift,
        })
    }

    /// Bytes per pixel.
    pub fn bytes(self) -> usize {
        usize::from(self.bits_per_pixel / 8)
    }

    /// Appends pixels (`0x00RRGGBB`) in this format.
    pub fn encode(self, pixels: &[u32], out: &mut Vec<u8>) {
        if self == PixelFormat::NATIVE {
            out.extend(pixels.iter().flat_map(|pixel| pixel.to_le_bytes()));
            return;
        }
        for pixel in pixels {
            let mut value = 0u32;
            for (index, from) in [16, 8, 0].into_iter().enumerate() {
                let channel = (pixel >> from) & 0xFF;
                let scaled = (channel * u32::from(self.max[index]) + 127) / 255;
                value |= scaled << self.shift[index];
            }
            match (self.bytes(), self.big_endian) {
                (1, _) => out.push(value as u8),
                (2, false) => out.extend((value as u16).to_le_bytes()),
                (2, true) => out.extend((value as u16).to_be_bytes()),
                (_, false) => out.extend(value.to_le_bytes()),
                (_, true) => out.extend(value.to_be_bytes()),
            }
        }
    }

    /// One pixel back as `0x00RRGGBB`; `bytes` holds exactly one pixel.
    pub fn decode(self, bytes: &[u8]) -> u32 {
        let value = if self.big_endian {
            bytes
                .iter()
                .fold(0u32, |value, byte| (value << 8) | u32::from(*byte))
        } else {
            bytes
                .iter()
                .rev()
                .fold(0u32, |value, byte| (value << 8) | u32::from(*byte))
        };
        let mut pixel = 0;
        for index in 0..3 {
            let max = u32::from(self.max[index]);
            let channel = (value >> self.shift[index]) & max;
            pixel = (pixel << 8) | ((channel * 255 + max / 2) / max);
        }
        pixel
    }
}

/// The answer to a VNC password challenge: DES, each key byte with its bits turned round, eight characters at most.
pub fn vnc_answer(password: &str, challenge: &[u8; 16]) -> [u8; 16] {
    let mut key = [0u8; 8];
    for (slot, byte) in key.iter_mut().zip(password.bytes()) {
        *slot = byte.reverse_bits();
    }
    let cipher = des::Des::new(&key.into());
    let mut answer = [0; 16];
    for (half, out) in challenge
        .as_chunks::<8>()
        .0
        .iter()
        .zip(answer.as_chunks_mut::<8>().0)
    {
        let mut block = (*half).into();
        cipher.encrypt_block(&mut block);
        *out = block.into();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_rfc_demands() {
        assert_eq!(Version::parse(b"RFB 003.003\n"), Some(Version::V3_3));
        assert_eq!(Version::parse(b"RFB 003.005\n"), Some(Version::V3_3));
        assert_eq!(Version::parse(b"RFB 003.007\n"), Some(Version::V3_7));
        assert_eq!(Version::parse(b"RFB 003.889\n"), Some(Version::V3_8));
        assert_eq!(Version::parse(b"RFB 004.001\n"), None);
        assert_eq!(Version::parse(b"RFB 003.00x\n"), None);
        assert_eq!(Version::parse(b"RFB 003.008\r"), None);
    }

    #[test]
    fn every_pixel_format_survives_the_wire() {
        for format in [
            PixelFormat::NATIVE,
            PixelFormat::RGB565,
            PixelFormat::RGB332,
        ] {
            assert_eq!(PixelFormat::from_wire(&format.to_wire()), Some(format));
        }
    }

    #[test]
    fn pixel_formats_that_make_no_sense_are_refused() {
        for (place, value) in [(0, 24), (3, 0), (10, 30)] {
            let mut wire = PixelFormat::NATIVE.to_wire();
            wire[place] = value;
            assert_eq!(
                PixelFormat::from_wire(&wire),
                None,
                "byte {place} = {value}"
            );
        }
    }

    #[test]
    fn colours_come_back_as_near_as_the_format_allows() {
        let colours = [0x00_00_00, 0xFF_FF_FF, 0x12_34_56, 0xF0_0F_80];
        for (format, slack) in [
            (PixelFormat::NATIVE, 0),
            (PixelFormat::RGB565, 4),
            (PixelFormat::RGB332, 43),
        ] {
            for big_endian in [false, true] {
                let format = PixelFormat {
                    big_endian,
                    ..format
                };
                let mut bytes = Vec::new();
                format.encode(&colours, &mut bytes);
                assert_eq!(bytes.len(), colours.len() * format.bytes());
                for (colour, bytes) in colours.iter().zip(bytes.chunks(format.bytes())) {
                    let back = format.decode(bytes);
                    for shift in [0, 8, 16] {
                        let apart = ((colour >> shift) as u8).abs_diff((back >> shift) as u8);
                        assert!(
                            apart <= slack,
                            "{colour:06x} came back as {back:06x} in {format:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_password_answer_is_the_one_that_vnc_servers_expect() {
        // The expected bytes were made with `openssl enc -des-ecb` and a key of mirrored bytes.
        let expected = [
            0xee, 0x22, 0x53, 0x9f, 0x33, 0xa5, 0x98, 0x3e, 0xc1, 0x2f, 0x9c, 0x2e, 0xdb, 0xc9,
            0x95, 0xdd,
        ];
        let challenge: [u8; 16] = std::array::from_fn(|index| index as u8);
        let answer = vnc_answer("secret", &challenge);
        assert_eq!(answer, expected);
        assert_eq!(
            vnc_answer("12345678", &challenge),
            vnc_answer("123456789", &challenge)
        );
        assert_ne!(
            vnc_answer("1234567", &challenge),
            vnc_answer("12345678", &challenge)
        );
    }
}
