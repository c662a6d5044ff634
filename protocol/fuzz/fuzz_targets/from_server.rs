//! Whatever a server sends: it reads or it does not, and what reads writes back to the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_protocol::{FromServer, decode, encode, limits};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = decode::<FromServer>(data, limits::FRAME) {
        assert_eq!(decode::<FromServer>(&encode(&message), limits::FRAME).expect("what was written reads"), message);
    }
});
