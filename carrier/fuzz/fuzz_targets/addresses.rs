//! Whatever is typed as an address: what is understood is written so that it is understood the same way again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_carrier::address::HostPort;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match HostPort::parse(text, 8443) {
        Ok(address) => {
            assert!(address.port() > 0);
            assert!(address.host().is_ascii() && !address.host().chars().any(char::is_control));
            assert_eq!(HostPort::parse(&address.to_string(), 1), Ok(address));
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
});
