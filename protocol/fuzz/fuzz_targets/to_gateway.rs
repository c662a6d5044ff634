//! Whatever a server says to a gateway: it reads or it does not, and what reads writes back to the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_protocol::gateway::{self, ToGateway};
use umbra_protocol::{decode, encode};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = decode::<ToGateway>(data, gateway::FRAME) {
        assert_eq!(decode::<ToGateway>(&encode(&message), gateway::FRAME).expect("what was written reads"), message);
    }
});
