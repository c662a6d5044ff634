//! The one place that understands what a viewer sends: it lets messages through, drops those that the permission forbids, and
//! fails closed on what it doesn't know, because a message that can't be framed can hide one that is forbidden. Pure and of
//! bounded memory; it begins after ClientInit.

use crate::rfb::{client, encoding};

/// The longest clipboard text that a viewer may send.
pub const CUT_TEXT_MAX: u32 = 1024 * 1024;
/// The most encodings that a viewer may list.
pub const ENCODINGS_MAX: u16 = 1024;

/// What the console's side may do besides looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Keys, pointer, screen size and power: whatever changes the device.
    pub keyboard_and_pointer: bool,
    /// Sending clipboard text to the device.
    pub clipboard: bool,
}

impl Policy {
    /// Everything is allowed; no filter is needed.
    pub const FULL: Self = Self {
        keyboard_and_pointer: true,
        clipboard: true,
    };
    /// Looking only.
    pub const VIEW_ONLY: Self = Self {
        keyboard_and_pointer: false,
        clipboard: false,
    };

    /// Whether something is forbidden.
    pub fn needs_filter(self) -> bool {
        self != Self::FULL
    }
}

/// Why the stream can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message of unknown type, which nobody can frame.
    #[error("the viewer sent a message of unknown type {0}")]
    UnknownMessage(u8),
    /// A QEMU message of unknown type.
    #[error("the viewer sent a QEMU message of unknown type {0}")]
    UnknownQemuMessage(u8),
    /// A clipboard text beyond the bound.
    #[error("the viewer sent a clipboard text of {0} bytes, more than is allowed")]
    CutTextTooLong(u32),
    /// A list of encodings beyond the bound.
    #[error("the viewer listed {0} encodings, more than is allowed")]
    TooManyEncodings(u16),
    /// A fence with more payload than the extension allows.
    #[error("the viewer sent a fence of {0} bytes, more than is allowed")]
    FenceTooLong(u8),
    /// The filter had already stopped the stream.
    #[error("the viewer's stream was stopped before")]
    Stopped,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Collecting a message's head until it is known what it is and how long.
    Head,
    /// Collecting the whole list of encodings: some may have to go, which changes the count.
    Encodings {
        len: usize,
    },
    /// The rest of a message, passed on or dropped as it comes.
    Body {
        left: u32,
        pass: bool,
    },
    Stopped,
}

/// Filters one viewer's messages.
#[derive(Debug)]
pub struct InputFilter {
    policy: Policy,
    state: State,
    held: Vec<u8>,
    dropped: u64,
}

impl InputFilter {
    /// A filter for the stream after ClientInit.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            state: State::Head,
            held: Vec::new(),
            dropped: 0,
        }
    }

    /// How many messages were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes bytes and appends to `out` what may go on. After a violation nothing goes on any more.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
        while !bytes.is_empty() {
            match self.state {
                State::Head => {
                    self.held.push(bytes[0]);
                    bytes = &bytes[1..];
                    if let Err(violation) = self.head(out) {
                        self.state = State::Stopped;
                        self.held = Vec::new();
                        return Err(violation);
                    }
                }
                State::Encodings { len } => {
                    let now = bytes.len().min(len - self.held.len());
                    self.held.extend_from_slice(&bytes[..now]);
                    bytes = &bytes[now..];
                    if self.held.len() == len {
                        self.encodings(out);
                    }
                }
                State::Body { left, pass } => {
                    let now = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if pass {
                        out.extend_from_slice(&bytes[..now]);
                    }
                    bytes = &bytes[now..];
                    self.body(left - u32::try_from(now).unwrap_or(left), pass);
                }
                State::Stopped => return Err(Violation::Stopped),
            }
        }
        Ok(())
    }

    /// Looks whether what is held tells the message's length; if so, passes or drops it and goes on to the rest.
    fn head(&mut self, out: &mut Vec<u8>) -> Result<(), Violation> {
        let active = self.policy.keyboard_and_pointer;
        let (len, pass) = match *self.held.as_slice() {
            [client::SET_PIXEL_FORMAT, ..] => (20, true),
            [client::SET_ENCODINGS, _, high, low, ..] => {
                let count = u16::from_be_bytes([high, low]);
                if count > ENCODINGS_MAX {
                    return Err(Violation::TooManyEncodings(count));
                }
                self.state = State::Encodings {
                    len: 4 + 4 * usize::from(count),
                };
                if count == 0 {
                    self.encodings(out);
                }
                return Ok(());
            }
            [client::UPDATE_REQUEST, ..] => (10, true),
            [client::KEY_EVENT, ..] => (8, active),
            [client::POINTER_EVENT, ..] => (6, active),
            [client::CUT_TEXT, _, _, _, a, b, c, d, ..] => {
                // A negative length means the extended clipboard; its absolute value is the length.
                let length = i32::from_be_bytes([a, b, c, d]).unsigned_abs();
                if length > CUT_TEXT_MAX {
                    return Err(Violation::CutTextTooLong(length));
                }
                (8 + length, self.policy.clipboard)
            }
            [client::CONTINUOUS_UPDATES, ..] => (10, true),
            [client::FENCE, _, _, _, _, _, _, _, length, ..] => {
                if length > client::FENCE_MAX {
                    return Err(Violation::FenceTooLong(length));
                }
                (9 + u32::from(length), true)
            }
            [client::XVP, ..] => (4, active),
            [client::SET_DESKTOP_SIZE, _, _, _, _, _, screens, ..] => {
                (8 + 16 * u32::from(screens), active)
            }
            [client::QEMU, client::QEMU_KEY, ..] => (12, active),
            [client::QEMU, client::QEMU_AUDIO, high, low, ..] => {
                let sets_format = u16::from_be_bytes([high, low]) == client::QEMU_AUDIO_SET_FORMAT;
                (if sets_format { 10 } else { 4 }, true)
            }
            [
                client::SET_ENCODINGS | client::CUT_TEXT | client::FENCE | client::SET_DESKTOP_SIZE,
                ..,
            ]
            | [client::QEMU]
            | [client::QEMU, client::QEMU_AUDIO, ..]
            | [] => return Ok(()),
            [client::QEMU, other, ..] => return Err(Violation::UnknownQemuMessage(other)),
            [other, ..] => return Err(Violation::UnknownMessage(other)),
        };
        let left = len - u32::try_from(self.held.len()).unwrap_or(len);
        if pass {
            out.extend_from_slice(&self.held);
        } else {
            self.dropped += 1;
        }
        self.held.clear();
        self.body(left, pass);
        Ok(())
    }

    fn body(&mut self, left: u32, pass: bool) {
        self.state = if left == 0 {
            State::Head
        } else {
            State::Body { left, pass }
        };
    }

    /// Passes the list of encodings on without those that would bring messages that can't be framed, or only forbidden ones.
    fn encodings(&mut self, out: &mut Vec<u8>) {
        let kept: Vec<u8> = self.held[4..]
            .chunks_exact(4)
            .filter(|bytes| {
                self.is_wanted(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            })
            .flatten()
            .copied()
            .collect();
        let count = u16::try_from(kept.len() / 4).unwrap_or(ENCODINGS_MAX);
        out.extend_from_slice(&[client::SET_ENCODINGS, 0]);
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&kept);
        // The list may have been long; an idle session shouldn't keep its room.
        self.held = Vec::new();
        self.state = State::Head;
    }

    fn is_wanted(&self, encoding: i32) -> bool {
        let allowed = match encoding {
            encoding::QEMU_KEY | encoding::XVP => self.policy.keyboard_and_pointer,
            // Without it, the server falls back to plain texts, which need no request from the viewer.
            encoding::EXTENDED_CLIPBOARD => self.policy.clipboard,
            _ => true,
        };
        allowed && encoding::is_framed(encoding)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_CLIPBOARD: Policy = Policy {
        keyboard_and_pointer: true,
        clipboard: false,
    };

    fn filtered(policy: Policy, bytes: &[u8]) -> (Vec<u8>, Result<(), Violation>) {
        let mut out = Vec::new();
        let result = InputFilter::new(policy).feed(bytes, &mut out);
        (out, result)
    }

    fn message(kind: u8, len: usize) -> Vec<u8> {
        let mut message = vec![0xEE; len];
        message[0] = kind;
        message
    }

    fn cut_text(length: i32) -> Vec<u8> {
        let mut message = vec![client::CUT_TEXT, 0, 0, 0];
        message.extend_from_slice(&length.to_be_bytes());
        message.resize(8 + length.unsigned_abs() as usize, b'x');
        message
    }

    fn encodings(list: &[i32]) -> Vec<u8> {
        let mut message = vec![client::SET_ENCODINGS, 0];
        message.extend_from_slice(&(list.len() as u16).to_be_bytes());
        list.iter()
            .for_each(|encoding| message.extend_from_slice(&encoding.to_be_bytes()));
        message
    }

    fn fence(payload: u8) -> Vec<u8> {
        let mut message = message(client::FENCE, 9 + usize::from(payload));
        message[8] = payload;
        message
    }

    fn desktop_size(screens: u8) -> Vec<u8> {
        let mut message = message(client::SET_DESKTOP_SIZE, 8 + 16 * usize::from(screens));
        message[6] = screens;
        message
    }

    fn qemu_key() -> Vec<u8> {
        let mut message = message(client::QEMU, 12);
        message[1] = client::QEMU_KEY;
        message
    }

    fn qemu_audio(operation: u16) -> Vec<u8> {
        let len = if operation == client::QEMU_AUDIO_SET_FORMAT {
            10
        } else {
            4
        };
        let mut message = message(client::QEMU, len);
        message[1] = client::QEMU_AUDIO;
        message[2..4].copy_from_slice(&operation.to_be_bytes());
        message
    }

    /// Every message with whether a policy lets it pass.
    fn every_message(policy: Policy) -> Vec<(Vec<u8>, bool)> {
        let active = policy.keyboard_and_pointer;
        vec![
            (message(client::SET_PIXEL_FORMAT, 20), true),
            (encodings(&[0, 7, 16, -223]), true),
            (encodings(&[]), true),
            (message(client::UPDATE_REQUEST, 10), true),
            (message(client::KEY_EVENT, 8), active),
            (message(client::POINTER_EVENT, 6), active),
            (cut_text(5), policy.clipboard),
            (cut_text(0), policy.clipboard),
            (cut_text(-70), policy.clipboard),
            (message(client::CONTINUOUS_UPDATES, 10), true),
            (fence(0), true),
            (fence(client::FENCE_MAX), true),
            (message(client::XVP, 4), active),
            (desktop_size(0), active),
            (desktop_size(255), active),
            (qemu_key(), active),
            (qemu_audio(0), true),
            (qemu_audio(client::QEMU_AUDIO_SET_FORMAT), true),
        ]
    }

    #[test]
    fn each_policy_passes_and_drops_exactly_what_it_says() {
        for policy in [Policy::FULL, Policy::VIEW_ONLY, NO_CLIPBOARD] {
            for (message, passes) in every_message(policy) {
                let (out, result) = filtered(policy, &message);
                assert_eq!(result, Ok(()));
                assert_eq!(out, if passes { message } else { Vec::new() }, "{policy:?}");
            }
        }
    }

    #[test]
    fn unknown_messages_end_the_stream_and_nothing_after_them_passes() {
        for kind in [1, 7, 8, 127, 249, 252, 253, 254] {
            let mut out = Vec::new();
            let mut filter = InputFilter::new(Policy::FULL);
            assert_eq!(
                filter.feed(&[kind], &mut out),
                Err(Violation::UnknownMessage(kind))
            );
            assert_eq!(
                filter.feed(&message(client::UPDATE_REQUEST, 10), &mut out),
                Err(Violation::Stopped)
            );
            assert!(out.is_empty());
        }
        assert_eq!(
            filtered(Policy::FULL, &[client::QEMU, 9]).1,
            Err(Violation::UnknownQemuMessage(9))
        );
    }

    #[test]
    fn lengths_beyond_the_bounds_end_the_stream_before_anything_is_kept() {
        let head = |length: i32| [&[client::CUT_TEXT, 0, 0, 0][..], &length.to_be_bytes()].concat();
        for length in [i32::MAX, i32::MIN, CUT_TEXT_MAX as i32 + 1, -1] {
            let expected = if length == -1 {
                Ok(())
            } else {
                Err(Violation::CutTextTooLong(length.unsigned_abs()))
            };
            assert_eq!(filtered(Policy::FULL, &head(length)).1, expected);
        }
        let many = [client::SET_ENCODINGS, 0, 255, 255];
        assert_eq!(
            filtered(Policy::FULL, &many).1,
            Err(Violation::TooManyEncodings(65535))
        );
        assert_eq!(
            filtered(Policy::FULL, &fence(65)).1,
            Err(Violation::FenceTooLong(65))
        );
    }

    #[test]
    fn encodings_that_bring_messages_the_filter_cannot_frame_are_taken_out() {
        let offered = [
            16,
            encoding::EXTENDED_MOUSE_BUTTONS,
            encoding::GII,
            -310,
            encoding::QEMU_KEY,
            -312,
            -313,
            0x7777,
        ];
        let (out, _) = filtered(NO_CLIPBOARD, &encodings(&offered));
        assert_eq!(out, encodings(&[16, encoding::QEMU_KEY, -312, -313]));
        let (out, _) = filtered(Policy::VIEW_ONLY, &encodings(&offered));
        assert_eq!(out, encodings(&[16, -312, -313]));
        let clipboard = [encoding::EXTENDED_CLIPBOARD, encoding::XVP];
        assert_eq!(
            filtered(NO_CLIPBOARD, &encodings(&clipboard)).0,
            encodings(&[encoding::XVP])
        );
    }

    #[test]
    fn a_forbidden_message_is_dropped_whole_and_its_content_is_never_taken_for_messages() {
        // A clipboard text made of key events.
        let mut text = cut_text(80);
        text[8..].copy_from_slice(&message(client::KEY_EVENT, 8).repeat(10));
        let wanted = message(client::UPDATE_REQUEST, 10);
        let (out, result) = filtered(Policy::VIEW_ONLY, &[text, wanted.clone()].concat());
        assert_eq!((out, result), (wanted, Ok(())));
    }

    fn any_message() -> impl Strategy<Value = usize> {
        0usize..every_message(Policy::FULL).len()
    }

    proptest! {
        #[test]
        fn slicing_never_changes_what_passes(
            chosen in prop::collection::vec(any_message(), 0..30),
            cut in 1usize..50,
            keyboard_and_pointer: bool,
            clipboard: bool,
        ) {
            let policy = Policy { keyboard_and_pointer, clipboard };
            let all = every_message(policy);
            let sent: Vec<u8> = chosen.iter().flat_map(|index| all[*index].0.clone()).collect();
            let passing = chosen.iter().filter(|index| all[**index].1);
            let expected: Vec<u8> = passing.flat_map(|index| all[*index].0.clone()).collect();
            let mut filter = InputFilter::new(policy);
            let mut out = Vec::new();
            for chunk in sent.chunks(cut) {
                prop_assert_eq!(filter.feed(chunk, &mut out), Ok(()));
            }
            prop_assert_eq!(out, expected);
            prop_assert_eq!(filter.dropped(), chosen.iter().filter(|index| !all[**index].1).count() as u64);
        }

        #[test]
        fn arbitrary_bytes_never_panic_never_grow_and_mean_the_same_in_any_slices(
            bytes in prop::collection::vec(prop_oneof![0u8..8, 248u8..=255, Just(150u8), any::<u8>()], 0..400),
            cut in 1usize..20,
        ) {
            let (whole, result) = filtered(Policy::VIEW_ONLY, &bytes);
            let mut filter = InputFilter::new(Policy::VIEW_ONLY);
            let mut out = Vec::new();
            let mut sliced = Ok(());
            for chunk in bytes.chunks(cut) {
                sliced = filter.feed(chunk, &mut out);
                if sliced.is_err() { break; }
                prop_assert!(filter.held.len() <= 4 + 4 * usize::from(ENCODINGS_MAX));
            }
            prop_assert_eq!(&out, &whole);
            prop_assert_eq!(sliced, result);
            prop_assert!(out.len() <= bytes.len());
        }
    }
}
