//! What DHCP clients have written down of what a stranger answered, in each form. What holds: what is read as a server is an address
//! that reads back, and what can't be used is told without a character that moves a cursor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_agent::discovery::fuzzing::{Lease, lease};
use umbra_carrier::address::HostPort;

fuzz_target!(|data: &[u8]| {
    for form in [Lease::Assignments, Lease::Blocks, Lease::Message, Lease::Value] {
        match lease(form, data) {
            Some(Ok(address)) => assert_eq!(HostPort::parse(&address.to_string(), 1), Ok(address)),
            Some(Err(sentence)) => assert!(!sentence.chars().any(char::is_control), "{sentence:?}"),
            None => {}
        }
    }
    // A message is at least a header; below it there is nothing to be read.
    if data.len() < 240 {
        assert!(lease(Lease::Message, data).is_none());
    }
});
