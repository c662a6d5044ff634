//! Any VNC server's or viewer's version line, and what a viewer says after it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_vnc_proxy::greeting::GreetingParser;
use umbra_vnc_proxy::viewer_handshake::ViewerHandshake;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((Some(greeting), taken)) = GreetingParser::new().feed(bytes) {
        assert_eq!(taken, 12);
        assert_eq!(greeting.line, bytes[..12]);
        let _ = greeting.dialect();
    }
    for after_legacy_preface in [false, true] {
        let mut out = Vec::new();
        let mut handshake = ViewerHandshake::new(after_legacy_preface, &mut out);
        for byte in bytes {
            if handshake.push(*byte, &mut out).is_err() || handshake.is_done() {
                break;
            }
        }
        assert!(out.len() <= 64, "a viewer gets no more than the handshake");
    }
});
