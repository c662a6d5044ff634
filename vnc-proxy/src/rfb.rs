//! Every number of the RFB protocol that this crate knows (RFC 6143 and the community's list of extensions), in one place.
//! Nothing here acts; other modules must not spell out wire numbers of their own.

/// Length of the version line `RFB xxx.yyy\n` that both sides send first.
pub const GREETING_LEN: usize = 12;
/// The version line that we send, to a server and to a viewer.
pub const GREETING_3_8: &[u8; GREETING_LEN] = b"RFB 003.008\n";
/// What we answer a server of version 3.7.
pub const GREETING_3_7: &[u8; GREETING_LEN] = b"RFB 003.007\n";
/// What we answer a server of version 3.3.
pub const GREETING_3_3: &[u8; GREETING_LEN] = b"RFB 003.003\n";

/// Security types (section 7.1.2).
pub mod security {
    /// The server refuses; a reason follows (and in 3.3, the value of the whole word).
    pub const INVALID: u8 = 0;
    /// No authentication.
    pub const NONE: u8 = 1;
    /// DES challenge and response (section 7.2.2).
    pub const VNC_AUTH: u8 = 2;
}

/// Length of the challenge of VNC authentication, and of its response.
pub const CHALLENGE_LEN: usize = 16;
/// Longest reason for a refusal that is read from a server.
pub const REASON_MAX: u32 = 4096;

/// Values of the SecurityResult word (section 7.1.3).
pub mod result {
    /// Let in.
    pub const OK: u32 = 0;
    /// Turned away.
    pub const FAILED: u32 = 1;
    /// Turned away after too many attempts (an extension that some 3.3/3.7 servers use).
    pub const TOO_MANY: u32 = 2;
}

/// Messages from viewer to server (section 7.5 and extensions).
pub mod client {
    /// SetPixelFormat, 20 bytes.
    pub const SET_PIXEL_FORMAT: u8 = 0;
    /// SetEncodings, 4 bytes and 4 more for each encoding.
    pub const SET_ENCODINGS: u8 = 2;
    /// FramebufferUpdateRequest, 10 bytes.
    pub const UPDATE_REQUEST: u8 = 3;
    /// KeyEvent, 8 bytes.
    pub const KEY_EVENT: u8 = 4;
    /// PointerEvent, 6 bytes.
    pub const POINTER_EVENT: u8 = 5;
    /// ClientCutText, 8 bytes and the text; a negative length announces the extended clipboard.
    pub const CUT_TEXT: u8 = 6;
    /// EnableContinuousUpdates, 10 bytes.
    pub const CONTINUOUS_UPDATES: u8 = 150;
    /// ClientFence, 9 bytes and the payload.
    pub const FENCE: u8 = 248;
    /// xvp (shut down, reboot, reset), 4 bytes.
    pub const XVP: u8 = 250;
    /// SetDesktopSize, 8 bytes and 16 more for each screen.
    pub const SET_DESKTOP_SIZE: u8 = 251;
    /// QEMU's messages; the second byte tells which.
    pub const QEMU: u8 = 255;
    /// QEMU extended key event, 12 bytes.
    pub const QEMU_KEY: u8 = 0;
    /// QEMU audio, 4 bytes, or 10 when a format is set.
    pub const QEMU_AUDIO: u8 = 1;
    /// The QEMU audio operation that sets the format.
    pub const QEMU_AUDIO_SET_FORMAT: u16 = 2;
    /// Longest payload of a fence that the extension allows.
    pub const FENCE_MAX: u8 = 64;
}

/// Encodings and pseudo-encodings in SetEncodings.
pub mod encoding {
    /// QEMU extended key event: brings a client message that types.
    pub const QEMU_KEY: i32 = -258;
    /// xvp: brings a client message that switches the device off.
    pub const XVP: i32 = -309;
    /// Extended clipboard: brings cut texts of negative length.
    pub const EXTENDED_CLIPBOARD: i32 = 0xC0A1_E5CE_u32 as i32;
    /// Extended mouse buttons: makes some pointer events a byte longer, which can't be told from the message alone.
    pub const EXTENDED_MOUSE_BUTTONS: i32 = -316;
    /// General input interface: brings client messages of many shapes.
    pub const GII: i32 = -305;

    /// Whether the encoding changes only what the server sends, or brings client messages that the input filter can frame.
    /// What isn't known isn't known to be harmless.
    pub fn is_framed(encoding: i32) -> bool {
        matches!(
            encoding,
            // Raw, CopyRect, RRE, CoRRE, Hextile, zlib, Tight, zlibhex, TRLE, ZRLE, ZYWRLE, H.264, JPEG, JRLE, Open H.264
            0 | 1 | 2 | 4 | 5 | 6 | 7 | 8 | 15 | 16 | 17 | 20 | 21 | 22 | 50
            // Tight PNG, JPEG quality levels, compression levels, fine quality, subsampling
            | -260 | -32..=-23 | -256..=-247 | -512..=-412 | -768..=-763
            // DesktopSize, LastRect, pointer position, cursors, cursor with alpha, desktop name, LED state
            | -223 | -224 | -232 | -239 | -240 | -314 | -307 | -261
            // QEMU pointer motion change, extended key event, audio
            | -259..=-257
            // ExtendedDesktopSize, xvp, fence, continuous updates
            | -308 | -309 | -312 | -313
            // VMware cursor, cursor position, LED state: server to client only
            | 0x574d_5664 | 0x574d_5666 | 0x574d_5668
            | EXTENDED_CLIPBOARD
        )
    }
}
