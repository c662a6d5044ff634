//! Whatever a device sends: it reads or it does not, and what reads writes back to the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_protocol::{FromDevice, decode, encode, limits};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = decode::<FromDevice>(data, limits::FRAME) {
        assert_eq!(decode::<FromDevice>(&encode(&message), limits::FRAME).expect("what was written reads"), message);
    }
});
