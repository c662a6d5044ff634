//! Whatever a gateway says: it reads or it does not, and what reads writes back to the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_protocol::gateway::{self, FromGateway, StreamHead, close_reason, read_close_reason};
use umbra_protocol::{decode, encode};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = decode::<FromGateway>(data, gateway::FRAME) {
        assert_eq!(decode::<FromGateway>(&encode(&message), gateway::FRAME).expect("what was written reads"), message);
    }
    if let Ok(head) = StreamHead::decode(data) {
        assert_eq!(StreamHead::decode(&head.encode()).expect("what was written reads"), head);
    }
    if let Some(refusal) = std::str::from_utf8(data).ok().and_then(read_close_reason) {
        assert!(close_reason(&refusal).len() <= gateway::CLOSE_REASON);
        assert!(read_close_reason(&close_reason(&refusal)).is_some());
    }
});
